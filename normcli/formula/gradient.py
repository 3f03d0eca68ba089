"""The backward pass: reverse mode on the lines gives more lines of the same language.

Every product is a monomial, powers of expressions with a rational coefficient, and a base that some line is
a power of goes back to that line: (var + eps)^(-3/2) is rstd^3. What flows to a name is summed over
what the name lacks; what does not vary there stands outside the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from normcli.errors import InputError
from normcli.formula.apart import apart
from normcli.formula.extents import AXES, Extent, Space, extent, extents, needed, over
from normcli.formula.language import (
    CASTS,
    REDUCTIONS,
    WINDOW,
    Call,
    Line,
    Lines,
    Name,
    Node,
    Number,
    names_in,
    parsed,
    substituted,
)

SEED = "grad_output"
LEAVES = ("x", "weight", "bias")  # what there is a gradient for, in the order in which it is shown

# The slope of a function in each of its parts A and B; G is its value.
_SLOPES: Mapping[tuple[str, int], tuple[str, ...]] = {
    ("-", 1): ("-1",),
    ("+", 2): ("1", "1"),
    ("-", 2): ("1", "-1"),
    ("*", 2): ("B", "A"),
    ("/", 2): ("1 / B", "-A / B^2"),
    ("sqrt", 1): ("1 / (2 * G)",),
    ("abs", 1): ("sign(A)",),
    ("sign", 1): ("0",),
    **{(name, 1): ("1",) for name in CASTS},  # what rounding changes is no slope
    ("larger", 2): ("0.5 + 0.5 * sign(A - B)", "0.5 - 0.5 * sign(A - B)"),  # equals share
    ("smaller", 2): ("0.5 - 0.5 * sign(A - B)", "0.5 + 0.5 * sign(A - B)"),
    ("exp", 1): ("G",),
    ("log", 1): ("1 / A",),
    ("stop", 1): ("0",),
    ("greater", 2): ("0", "0"),
    ("equal", 2): ("0", "0"),
}


_WINDOWS = {WINDOW: "window_back", "window_back": WINDOW}

# What gradients are called: by what comes before a name, or by names of their own.
PLAIN, COURSE = "grad_", "d"
_NAMES = {PLAIN: {"x": "grad_input"}, COURSE: {"weight": "dgamma", "bias": "dbeta"}}


def gradient_name(name: str, style: str = PLAIN) -> str:
    """What the gradient of a name is called.

    >>> gradient_name("var"), gradient_name("x"), gradient_name("x", COURSE)
    ('grad_var', 'grad_input', 'dx')
    """
    return _NAMES[style].get(name, style + name)


@cache
def gradient(
    program: Lines, roles: Extent | Space, style: str = PLAIN, leaves: tuple[str, ...] = LEAVES, of: str = "output"
) -> Lines:
    """The lines of the backward pass, from the gradient of ``of`` to those of the ``leaves``.

    They go through what leads from these to the output, and come after the program's own lines. In the style
    of courses there is a line for each use of a name: dx1 and dx2, with their sum in the place of dx.

    >>> from normcli.formula.language import lines
    >>> from normcli.formula.spelled import spelled
    >>> short = lines("mean = sum(x) / n; centered = x - mean; output = centered * weight")
    >>> for line in gradient(short, frozenset({(False, True), (True, False)})):
    ...     print(line.name, "=", spelled(line.value))
    grad_centered = grad_output * weight
    grad_mean = -sum(grad_centered)
    grad_input = grad_centered + grad_mean / n
    grad_weight = sum(grad_output * centered)
    """
    return tuple(_Reverse(needed(program, [of]), roles, style, leaves).lines())


class _Monomial(NamedTuple):
    """A product of powers of expressions, times a number."""

    coefficient: Fraction
    powers: Mapping[Node, Fraction]

    def times(self, other: _Monomial) -> _Monomial:
        powers = dict(self.powers)
        for base, power in other.powers.items():
            powers[base] = powers.get(base, Fraction(0)) + power
        kept = {base: power for base, power in powers.items() if power}
        return _Monomial(self.coefficient * other.coefficient, kept)

    def to_the(self, power: int) -> _Monomial:
        """A whole power."""
        if power < 0 and not self.coefficient:
            raise InputError("a quotient by 0 has no gradient")
        return _Monomial(Fraction(self.coefficient**power), {base: own * power for base, own in self.powers.items()})


_ONE = _Monomial(Fraction(1), {})


class _Reverse:
    """Reverse mode on a program."""

    def __init__(self, program: Lines, roles: Extent | Space, style: str, leaves: tuple[str, ...]) -> None:
        self._roles, self._style, self._leaves = roles, style, leaves
        self._space = roles if isinstance(roles, Space) else None
        # What flows to a reduction must be summed before it flows on, and a line is where that is done.
        self._program = apart(program, roles)
        own = {line.name for line in program}
        self._apart = [line for line in self._program if line.name not in own]
        self._extents = extents(self._program, roles)
        self._active = set(leaves)
        for line in self._program:
            if names_in(_without_stops(line.value)) & self._active:
                self._active.add(line.name)
        self._roots = dict(_roots(self._program))
        self._flows: dict[str, list[tuple[_Monomial, Extent]]] = {name: [] for name in self._active}

    def lines(self) -> Iterator[Line]:
        yield from self._apart
        lost = self._extents[SEED] - self._extents[self._program[-1].name]
        seed = self._summed(_monomial(Name(SEED)), lost)  # what the output is the same over receives all of it
        self._through(self._program[-1], _product(*seed))
        for line in reversed(self._program[:-1]):
            if line.name in self._active:
                found, total = self._gradient(line.name)
                yield from found
                self._through(line, total)
        for name in self._leaves:
            if self._flows[name]:
                found, total = self._gradient(name)
                yield from found
                if len(found) > 1:
                    yield Line(gradient_name(name, self._style), total)

    def _through(self, line: Line, gradient: Node) -> None:
        """Let the gradient of a line flow on to the names in it."""
        self._flow(line.value, _Monomial(Fraction(1), {gradient: Fraction(1)}), self._extents[line.name])

    def _flow(self, node: Node, factor: _Monomial, domain: Extent) -> None:
        """Let it flow into a part of a line that is there once for each place of ``domain``."""
        if isinstance(node, Name):
            self._flows[node.name].append((factor, domain))
        elif isinstance(node, Call) and node.function in REDUCTIONS:
            if node.function == "mean":
                factor = factor.times(_monomial(Call("/", (Number(1), Name(node.axes or "n")))))
            if node.function in ("max", "min"):  # equals share
                those = Call("equal", (node.parts[0], self._named(node)))
                factor = factor.times(_monomial(Call("/", (those, Call("sum", (those,), node.axes)))))
            self._flow(node.parts[0], factor, domain | over(node.axes, self._roles))
        elif isinstance(node, Call) and node.function in _WINDOWS:
            back = Call(_WINDOWS[node.function], (_product(*self._back_to_lines(factor)),), node.axes)
            self._flow(node.parts[0], _monomial(back), domain)
        elif isinstance(node, Call):
            for part, slope in zip(node.parts, _slopes(node), strict=True):
                if names_in(part) & self._active:
                    self._flow(part, factor.times(slope), domain)

    def _named(self, node: Call) -> Node:
        """The line that a reduction is the value of, or the reduction itself."""
        return next((Name(line.name) for line in self._program if line.value == node), node)

    def _gradient(self, name: str) -> tuple[list[Line], Node]:
        """The lines of a name's gradient, and what it is: the sum of what flows to it."""
        total: dict[frozenset[tuple[Node, Fraction]], _Monomial] = {}
        for factor, domain in self._flows[name]:
            term = self._summed(factor, domain - self._extents[name])
            same = frozenset(term.powers.items())
            before = total[same].coefficient if same in total else 0
            total[same] = term._replace(coefficient=before + term.coefficient)
        terms = [term for term in total.values() if term.coefficient]
        own = gradient_name(name, self._style)
        if self._style == COURSE and len(terms) > 1:
            found = [Line(f"{own}{number}", _sum([term])) for number, term in enumerate(terms, 1)]
        else:
            found = [Line(own, _sum(terms))]
        for line in found:
            self._extents[line.name] = extent(line.value, self._extents, self._space)
        return found, _sum(_monomial(Name(line.name)) for line in found)

    def _summed(self, factor: _Monomial, lost: Extent) -> _Monomial:
        """A product summed over dimensions, with what does not vary over them outside."""
        factor = self._back_to_lines(factor)
        if not lost:
            return factor
        inside = {
            base: power for base, power in factor.powers.items() if extent(base, self._extents, self._space) & lost
        }
        outside = {base: power for base, power in factor.powers.items() if base not in inside}
        axes: str | None = (
            next((name for name in AXES if over(name, self._roles) == lost), "")
            if self._space is None
            else self._space.named(lost)
        )
        if axes == "":
            raise InputError("the gradient needs a sum over dimensions that have no name")
        one = _monomial(Name("n")) if axes is None and not inside else _ONE
        if inside or axes is not None:
            one = _monomial(Call("sum", (_product(Fraction(1), inside),), axes))
        return one.times(_Monomial(factor.coefficient, outside))

    def _back_to_lines(self, factor: _Monomial) -> _Monomial:
        powers: dict[Node, Fraction] = {}
        for base, power in factor.powers.items():
            name, left = base, power
            while name in self._roots and _goes_back(left, self._roots[name][1]):
                name, root = self._roots[name]
                left /= root
            powers[name] = powers.get(name, Fraction(0)) + left
        return factor._replace(powers={base: power for base, power in powers.items() if power})


def _goes_back(power: Fraction, root: Fraction) -> bool:
    """Whether a power of a base is a whole power of another of its powers, and no simpler as it is."""
    ratio = power / root
    return ratio.denominator == 1 and (ratio > 0 or power < 0 or power.denominator > 1)


def _roots(program: Lines) -> Iterator[tuple[Node, tuple[Node, Fraction]]]:
    """The bases that lines are powers of, with the line and the power."""
    for line in program:
        coefficient, powers = _monomial(line.value)
        if coefficient == 1 and len(powers) == 1:
            [(base, power)] = powers.items()
            if power != 1 or (isinstance(base, Call) and base.function in ("exp", "log")):
                yield base, (Name(line.name), power)


def _slopes(node: Call) -> tuple[_Monomial, ...]:
    """The slope of an operator or a function in each of its parts."""
    if node.function == "^":
        base, power = node.parts
        if not isinstance(power, Number):
            lower = Call("^", (base, Call("-", (power, Number(1)))))
            return _monomial(Call("*", (power, lower))), _monomial(Call("*", (node, Call("log", (base,)))))
        below = Call("^", (base, Number(power.value - 1))) if power.value != 2 else base
        return _monomial(Call("*", (power, below))), _ONE
    letters: dict[Node, Node] = {Name("G"): node, **{Name(a): part for a, part in zip("AB", node.parts, strict=False)}}
    return tuple(_monomial(substituted(parsed(text), letters)) for text in _SLOPES[node.function, len(node.parts)])


def _monomial(node: Node) -> _Monomial:
    """An expression as a product of powers; a sum is a base of its own."""
    if isinstance(node, Number):
        return _Monomial(Fraction(str(node.value)), {})
    if not isinstance(node, Call) or node.function not in ("-", "*", "/", "^", "sqrt"):
        return _Monomial(Fraction(1), {node: Fraction(1)})
    parts = [_monomial(part) for part in node.parts]
    match node.function, parts, node.parts:
        case "-", [one], _:
            return one._replace(coefficient=-one.coefficient)
        case "*", [one, two], _:
            return one.times(two)
        case "/", [one, two], _:
            return one.times(two.to_the(-1))
        case "^", [one, _], [_, Number(power)] if power == int(power):
            return one.to_the(int(power))
        case "sqrt", _, [inner]:  # the root of a square is no factor of it
            return _Monomial(Fraction(1), {inner: Fraction(1, 2)})
    return _Monomial(Fraction(1), {node: Fraction(1)})


def _sum(terms: Iterable[_Monomial]) -> Node:
    """The terms as an expression."""
    total: Node | None = None
    for coefficient, powers in terms:
        if total is None:
            total = _product(coefficient, powers)
        else:
            total = Call("-" if coefficient < 0 else "+", (total, _product(abs(coefficient), powers)))
    return Number(0) if total is None else total


def _product(coefficient: Fraction, powers: Mapping[Node, Fraction]) -> Node:
    """A monomial as an expression: a quotient where there are negative powers."""
    above = [_power(base, power) for base, power in powers.items() if power > 0]
    below = [_power(base, -power) for base, power in powers.items() if power < 0]
    size, divisor = abs(coefficient), 1
    if (float(size) * 1000) % 1:  # no short decimal fraction: 1 / 3
        size, divisor = Fraction(size.numerator), size.denominator
    if size != 1 or not above:
        above.insert(0, Number(size.numerator if size.denominator == 1 else float(size)))
    if divisor != 1:
        below.insert(0, Number(divisor))
    if coefficient < 0:
        above[0] = Call("-", (above[0],))
    over = _chained(above)
    return Call("/", (over, _chained(below))) if below else over


def _chained(factors: list[Node]) -> Node:
    total, *more = factors
    for factor in more:
        total = Call("*", (total, factor))
    return total


def _without_stops(node: Node) -> Node:
    """An expression with 0 in the place of what no gradient flows through."""
    if not isinstance(node, Call):
        return node
    return Number(0) if node.function == "stop" else node._replace(parts=tuple(map(_without_stops, node.parts)))


def _power(base: Node, power: Fraction) -> Node:
    if power.denominator == 2:
        base, power = Call("sqrt", (base,)), power * 2
    if power.denominator != 1:
        raise InputError("a gradient needs whole powers, and square roots of them")
    return base if power == 1 else Call("^", (base, Number(power.numerator)))
