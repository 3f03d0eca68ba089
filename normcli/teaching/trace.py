"""The calculation of one group of statistics, step by step, as a person would write it down.

Each line is the line that was computed, with its numbers filled in, and true to the last digit printed: what
its numbers give, worked out exactly, rounds to its value. A computed number stands with so many decimals as
the value; where the line does not come out with these, with as many more digits as it takes, and ``~``
before it if there would be still more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

from numpy.typing import NDArray

from normcli import teaching
from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.result import Result
from normcli.calculate import run
from normcli.digits import aligned, computed, decimal, notation, short, written
from normcli.errors import InputError
from normcli.formula.language import (
    REDUCTIONS,
    WINDOWS,
    Call,
    Line,
    Name,
    Node,
    Number,
    lines,
    names_in,
    parsed,
    substituted,
)  # fmt: skip
from normcli.formula.rewrite import with_sums
from normcli.formula.spelled import LIST, Text, inlined, mapped, spelled
from normcli.planning.kinds import taught
from normcli.planning.layout import Shape, number_of, place_of
from normcli.teaching.filled import EXACT, LEFT_OUT, Decimals, Expression, Figure, as_printed, gapped, listed, summed
from normcli.teaching.merged import MERGED, Ranks
from normcli.teaching.traced import Over, Traced, counted_from_start
from normcli.words import Told

_SHOWN = 8  # terms of a long sum that are written out when no element was asked for
_MOST = 1000  # terms that are written out for an element
_EXTREMES = {"max": "largest", "min": "smallest"}
_MOST_DIGITS = 50  # of a number in a line, where it takes so many


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of a trace; ``step`` is a field name of Result, ``value`` a number or one for each element.

    ``tree`` is the formula, ``filled`` the same with numbers in the place of names.
    """

    step: str
    tree: Node
    filled: Any
    value: float | list[float]

    @property
    def formula(self) -> str:
        """The formula as text."""
        return spelled(self.tree)

    @property
    def substituted(self) -> str:
        """The formula as text with its numbers filled in."""
        return spelled(self.filled)


@dataclass(frozen=True, kw_only=True, repr=False)
class Trace(Told):
    """The steps of one group of statistics, and which group (or element) they belong to."""

    title: str
    steps: list[Step]

    def __repr__(self) -> str:
        return f"<Trace of {self.title}: {', '.join(step.step for step in self.steps)}>"


def trace(
    result: Result, x: NDArray[Any], element: tuple[int, ...] | None = None, precision: int = 4, *, full: bool = False
) -> Trace:
    """The steps that lead to ``element``, or to the first group of statistics; in ``full`` with every term.

    The Result must have been computed with its steps. Raises InputError for an element that the
    tensor does not have.

    >>> from normcli.calculate import normalize
    >>> import numpy as np
    >>> x = np.array([[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])
    >>> first = trace(normalize(x, "batch", steps=True), x, (1, 0)).steps[0]
    >>> first.step, first.formula, first.substituted, first.value
    ('mean', 'sum(x) / n', '(1 + 6 + 2) / 3', 3.0)
    """
    if element is not None:
        element = counted_from_start(element, result.plan)
    if result.plan.is_free and any(line.name not in result.named for line in result.plan.lines[:-1]):
        raise InputError(f"{result.backend} gives the output alone; its steps need the numpy backend")
    group = _traced(result, x, element)
    most = x.size if full else _SHOWN if element is None else _MOST
    writer = _Writer(group, precision, most)
    return Trace(title=group.title, steps=[*writer.steps()])


def _traced(result: Result, x: NDArray[Any], element: Shape | None) -> Traced:
    group: Traced = (teaching.free_traced.FreeTraced if result.plan.is_free else Traced)(result, x, element)
    return group


def traces(
    result: Result, x: NDArray[Any], elements: Iterable[Shape], precision: int = 4
) -> Iterator[tuple[str, Shape, Step]]:
    """The steps of ``trace`` for many elements, each step once, after what it belongs to and where that is.

    It belongs to an element, or to its group of statistics, or to the channel whose weight it has.

    >>> from normcli.calculate import normalize
    >>> import numpy as np
    >>> x = np.array([[1.0, 2], [6, 3]])
    >>> found = traces(normalize(x, "batch", steps=True), x, [(0, 0), (1, 0)])
    >>> [step.substituted for _, _, step in found if step.step in ("mean", "centered")]
    ['(1 + 6) / 2', '1 - 3.5000', '6 - 3.5000']
    """
    layout = result.plan.layout
    every = range(len(layout.view))
    own: dict[str, Sequence[int]] = {"element": every, "channel": layout.channels}
    own["group"] = [axis for axis in every if axis not in layout.axes]
    writers: dict[Shape, _Writer] = {}
    known: set[tuple[str, Shape]] = set()
    for element in elements:
        place = place_of(number_of(element, result.plan.shape), layout.view)
        keys = {scope: tuple(place[axis] for axis in axes) for scope, axes in own.items()}
        if keys["group"] in writers:
            writer = writers[keys["group"]]
            writer.group = writer.group.at(element)
        else:
            writer = writers[keys["group"]] = _Writer(_traced(result, x, element), precision, _MOST)
        for name, scope, write in writer.lines():
            if (name, keys[scope]) not in known:
                known.add((name, keys[scope]))
                yield scope, keys[scope], write()


def filled_in(
    result: Result, x: NDArray[Any], element: Shape, formula: str, precision: int = 4
) -> tuple[str, str] | None:
    """A formula with an element's numbers, and its value; None where it has names, or words, without numbers.

    What a name stands for may follow it: ``rstd * d with d = grad_output * weight``.

    >>> from normcli.calculate import normalize
    >>> import numpy as np
    >>> x = np.array([[1.0, 2], [6, 3]])
    >>> filled_in(normalize(x, "batch", steps=True), x, (0, 0), "sum(centered^2) / (n - 1)")
    ('((-2.5000)^2 + 2.5000^2) / (2 - 1)', '12.5000')
    """
    text, _, more = formula.partition(" with ")
    try:
        others: dict[Node, Node] = {Name(line.name): line.value for line in lines(more)}
        node = with_sums(substituted(parsed(text), others))
    except InputError:
        return None
    group = _traced(result, x, element)
    known = {line.name for line in group.plan.lines + group.backward} & {*result.named, "output"}
    if not names_in(node) <= known | {*group.given_names, "n", "eps"}:
        return None
    place = group.traced.start
    writer = _Writer(group, precision, _MOST)
    tree = writer.filled(node, place)
    if not Expression(tree, "").whole:
        return None
    try:
        value = float(worked_out(tree, Decimals(), lambda figure: Decimal(figure.value)))  # type: ignore[union-attr]
    except ArithmeticError:
        return None
    return spelled(mapped(tree, lambda leaf: Text(leaf.text) if isinstance(leaf, Figure) else leaf)), aligned(
        [value], precision
    )[0]


def in_stages(result: Result, x: NDArray[Any], course: str) -> Result:
    """The same calculation in the stages of a course, with its steps.

    >>> from normcli.calculate import normalize
    >>> import numpy as np
    >>> x = np.array([[1.0, 2, 4]])
    >>> [*in_stages(normalize(x, "layer"), x, "kratzert").named][:3]
    ['mu', 'xmu', 'sq']
    """
    plan = result.plan
    if plan.renorm:
        raise InputError(f"the steps of {course} have no batch renormalization; leave out --renorm or --steps")
    staged = replace(plan, kind=taught(plan.kind, course), ranks=None, track_running_stats=plan.source == "running")
    return run(x, staged, result.before, steps=True, grad_output=result.grad_output)


class _Writer:
    """How lines are written: with ``precision`` decimals, and of a long list ``most`` terms."""

    def __init__(self, group: Traced, precision: int, most: int) -> None:
        self.group, self.precision, self.most = group, precision, most
        self._constants = {"n", "N", *group.constants}  # one for all groups
        self._notations: dict[tuple[str, range, Over | None], str] = {}

    def steps(self) -> Iterator[Step]:
        """The lines of the group, of its channel's running statistics, and of the backward pass."""
        return (write() for _, _, write in self.lines())

    def lines(self) -> Iterator[tuple[str, str, Callable[[], Step]]]:
        """The same lines by their names, each with what its numbers belong to, and with what writes it."""
        plan = self.group.plan
        for line in plan.lines:
            if line.role == "shown":
                yield self._of_group_or_each(line)
                if plan.merges:
                    for name in MERGED.get(line.name, ()):
                        yield name, "group", partial(self._of_ranks, name)
        where = {line.name: line.value for line in plan.running_lines if line.role == "where"}
        for line in plan.running_lines:
            if line.role == "shown":
                yield line.name, "group", partial(self._running, line, where)
        for line in self.group.backward:
            if line.name in self.group.parameters:
                yield line.name, "channel", partial(self._parameter, line)
            else:
                yield self._of_group_or_each(line)

    def _of_group_or_each(self, line: Line) -> tuple[str, str, Callable[[], Step]]:
        if self.group.is_each(line.name):
            return line.name, "element", partial(self._each, line)
        return line.name, "group", partial(self._statistic, line)

    def _statistic(self, line: Line) -> Step:
        """A number of the group as a whole."""
        value = self.group.statistic(line.name)
        return self._step(line.name, line.value, [self._filled(line.value, self._of_group)], [value], value)

    def _of_ranks(self, name: str) -> Step:
        """How the ranks come to a statistic."""
        tree, filled, values = Ranks(self.group, self.precision, self._shown).step(name)
        return self._step(name, tree, filled, values, values if name.startswith("rank") else values[0])

    def _each(self, line: Line) -> Step:
        """One number for each traced element."""
        group, traced = self.group, self.group.traced
        values = group.members(line.name)[traced.start : traced.stop]
        places = [traced[i] for i in self._shown(len(values))]
        trees = [self._filled(line.value, self._of_element(place, traced), place) for place in places]
        is_rounded = line.name in ("output", group.plan.gradient_name("x")) and group.plan.dtype != "float64"
        dtype = group.plan.dtype if is_rounded else None
        value = float(values[0]) if group.one else values.tolist()
        return self._step(line.name, line.value, trees, values.tolist(), value, dtype)

    def _parameter(self, line: Line) -> Step:
        """One number for each weight that the traced elements have."""
        places = self.group.of_channels
        values = self.group.members(line.name)[places].tolist()
        trees = [
            self._filled(line.value, self._of_element(places[i], range(self.group.n)), places[i])
            for i in self._shown(len(places))
        ]
        return self._step(line.name, line.value, trees, values, values if len(values) > 1 else values[0])

    def _running(self, line: Line, where: dict[str, Node]) -> Step:
        """A running statistic: the old one and the batch's, by their shares."""
        plan, batches = self.group.plan, self.group.result.before.num_batches_tracked
        old, value = self.group.running(line.name)
        m = plan.new_weight(batches)
        known: dict[Node, Any] = {
            Name(line.name): Figure(old, self._number(old), lambda: None),
            Name("m"): Figure(m, f"{m:.10g}", lambda: None),
            Call("-", (Number(1), Name("m"))): Figure(1 - m, f"{1 - m:.10g}", lambda: None),
        }
        tree, filled = substituted(line.value, {Name(line.name): Name("old")}), substituted(line.value, known)
        for name in names_in(line.value) & where.keys():
            tree, filled = inlined(tree, name, where[name]), inlined(filled, name, self._taken(where[name]))
        if plan.momentum is None:  # the formula says what m is
            tree = Call(LIST, (tree, Call("=", (Name("m"), Call("/", (Number(1), Number(batches + 1)))))))
        return self._step(line.name, tree, [filled], [value], value)

    def _taken(self, node: Node) -> Any:
        """What the running statistics take of the batch: its number, or the terms of a sum over samples."""
        if isinstance(node, Call) and isinstance(reduced := node.parts[0], Call) and reduced.function in REDUCTIONS:
            values = self.group.per_sample(self._named(reduced.parts[0]))
            one = notation(values, self.precision)
            terms = [Figure(values[i], computed(values[i], one), lambda: None) for i in self._shown(len(values))]
            parts: tuple[Any, ...] = (summed(terms, len(values)), self._of_group("N"))
            return Call(node.function, parts)
        name = self._named(node)
        value = self.group.per_sample(name)[0]
        return Figure(value, self._number(value), lambda: self.group.exact(name))

    def _named(self, node: Node) -> str:
        """The line that an expression is the value of."""
        program = self.group.plan.kind.program
        return node.name if isinstance(node, Name) else next(line.name for line in program if line.value == node)

    def filled(self, node: Node, place: int) -> Any:
        """An expression with the numbers of one element."""
        return self._filled(node, self._of_element(place, self.group.traced), place)

    def _filled(self, node: Node, number_of: Callable[[str], Figure], place: int = 0) -> Any:
        """An expression with numbers in the place of names, and sums written out; those over other axes at a place."""
        if isinstance(node, Number):
            return Figure(node.value, written(node.value))
        if isinstance(node, Name):
            return number_of(node.name)
        if node.function == "^":
            base, power = node.parts
            above = power if isinstance(power, Number) else self._filled(power, number_of, place)
            return Call("^", (self._filled(base, number_of, place), above))
        if node.function in REDUCTIONS:
            over = None if node.axes is None else (node.axes, place)
            among = range(len(self.group.members("x", over)))
            numbers = [self._of_element(i, among, over) for i in self._shown(len(among))]
            terms = [self._filled(node.parts[0], number) for number in numbers]
            if node.function in _EXTREMES:
                return Call(_EXTREMES[node.function], tuple(gapped(terms, LEFT_OUT, len(among))))
            total = summed(terms, len(among))
            divided: tuple[Any, ...] = total, Figure(len(among), str(len(among)))
            return total if node.function == "sum" else Call("/", divided)
        if node.function in WINDOWS:
            over = str(node.axes), place
            near = self.group.near(node, place)
            numbers = [self._of_element(i, near, over) for i in near]
            return summed([self._filled(node.parts[0], number) for number in numbers], len(numbers))
        if node.function == "stop":
            return self._filled(node.parts[0], number_of, place)
        return Call(node.function, tuple(self._filled(part, number_of, place) for part in node.parts), node.axes)

    def _of_group(self, name: str) -> Figure:
        """A number that belongs to the group as a whole."""
        group = self.group
        if name in ("n", "N"):
            number = group.n if name == "n" else len(group.per_sample("mean"))
            return Figure(number, str(number))
        if name in group.constants:
            return Figure(group.constants[name], short(group.constants[name]))
        if name.startswith("running"):
            value = group.running(name)[0]
            return Figure(value, self._number(value), lambda: None)
        value = group.statistic(name)
        return Figure(value, self._number(value), lambda: group.exact(name))

    def _of_element(self, place: int, among: range, over: Over | None = None) -> Callable[[str], Figure]:
        """The numbers of one element; computed ones stand in one notation with those of the others."""

        def number(name: str) -> Figure:
            if name in self._constants or (over is None and not self.group.is_each(name)):
                return self._of_group(name)
            value = float(self.group.members(name, over)[place])
            if self.group.is_given(name):
                return Figure(value, written(value))
            exact = partial(self.group.exact, name, place) if over is None else lambda: None
            return Figure(value, computed(value, self._notation(name, among, over)), exact)

        return number

    def _notation(self, name: str, among: range, over: Over | None) -> str:
        if (name, among, over) not in self._notations:
            values = self.group.members(name, over)[among.start : among.stop].tolist()
            self._notations[name, among, over] = notation(values, self.precision)
        return self._notations[name, among, over]

    def _number(self, value: float) -> str:
        return computed(value, notation([value], self.precision))

    def _shown(self, size: int) -> list[int]:
        """The places of a list that are written out."""
        return [*range(size)] if size <= self.most else [0, 1, 2, size - 3, size - 2, size - 1]

    def _step(
        self, name: str, tree: Node, trees: list[Any], values: list[float], value: Any, dtype: str | None = None
    ) -> Step:
        """A step whose ``trees`` stand for the values that are written out."""
        one = notation(values, self.precision)
        printed = as_printed if isinstance(value, list) else decimal
        shown = [printed(values[i], one) for i in self._shown(len(values))]
        lines = [Expression(filled, text) for filled, text in zip(trees, shown, strict=True)]
        return Step(step=name, tree=tree, filled=self._true(lines, len(values), dtype), value=value)

    def _true(self, lines: Sequence[Expression], size: int, dtype: str | None) -> Any:
        """The lines with as many digits as it takes for all of them to hold; what never does is marked as a whole."""
        with localcontext(EXACT):
            for digits in (0, *range(self.precision + 1, _MOST_DIGITS)):
                for to in (None, dtype) if dtype else (None,):
                    if all(line.holds(digits, to) for line in lines):
                        return listed([line.text(digits, to) for line in lines], size)
            return listed([line.text(0) if line.holds(0) else line.marked() for line in lines], size)
