"""The lines over any type of number: values of names in a group of statistics, and in each of its blocks.

A number type is an object with a few functions (``Numbers``); + - * / are Python's operators on its values. A group
of statistics that is long comes in blocks: what belongs to an element is worked out anew in each
reading of them and never held whole, and all sums that one reading can serve are taken in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Protocol

from normcli.formula.extents import elementwise, readings, reductions
from normcli.formula.language import CASTS, FUNCTIONS, REDUCTIONS, WINDOW, WINDOWS, Call, Lines, Name, Node, Number

Given = Mapping[str, Any]
# What a number type has where a formula needs it.
_TO_THE, _SHIFTED, _EXTREME = "to_the", "shifted", "extreme"
_ASKED = REDUCTIONS | WINDOWS
_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "+": operator.add,
    "*": operator.mul,
    "/": operator.truediv,
    "abs": abs,
    "largest": lambda *values: max(values),
    "smallest": lambda *values: min(values),
    "terms": lambda *terms: reduce(operator.add, terms),
}


class Numbers(Protocol):
    """A number type: what it takes besides + - * / on its values."""

    def number(self, value: float) -> Any:
        """A constant, or a number of the plan."""
        ...

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes, which stay with length 1."""
        ...

    def sqrt(self, value: Any) -> Any:
        """The square root."""
        ...

    def sign(self, value: Any) -> Any:
        """-1, 0 or 1."""
        ...

    def rounded(self, value: Any, dtype: str) -> Any:
        """The value as that dtype holds it."""
        ...

    def settled(self, total: Any, size: Any) -> Any:
        """A sum, but 0 where its terms, of that size together, cancel and leave nothing but their rounding."""
        ...


def worked_out(node: Node, numbers: Numbers, value_of: Callable[[Name | Call], Any]) -> Any:
    """An expression's value; ``value_of`` knows the names and the reductions.

    >>> from normcli.arithmetic.numbers import PAIRS
    >>> from normcli.formula.language import parsed
    >>> worked_out(parsed("1 / (3 + x)^2"), PAIRS, lambda name: PAIRS.number(5)).hi.tolist()
    0.015625
    """
    if isinstance(node, Number):
        return numbers.number(node.value)
    if not isinstance(node, Call) or node.function in _ASKED:
        return value_of(node)
    if node.function == "^":
        return _power(node, numbers, value_of)
    values = [worked_out(part, numbers, value_of) for part in node.parts]
    if node.function == "-":
        return values[0] - values[1] if len(values) > 1 else -values[0]
    if node.function in CASTS:
        return numbers.rounded(values[0], node.function)
    if node.function in FUNCTIONS and node.function != "abs":
        return getattr(numbers, node.function)(*values)
    return _OPERATORS[node.function](*values)


def _power(node: Call, numbers: Numbers, value_of: Callable[[Name | Call], Any]) -> Any:
    base, exponent = worked_out(node.parts[0], numbers, value_of), node.parts[1]
    if isinstance(exponent, Number) and exponent.value == int(exponent.value) > 0:
        return reduce(operator.mul, [base] * int(exponent.value))
    return getattr(numbers, _TO_THE)(base, worked_out(exponent, numbers, value_of))


def size_of(node: Call) -> Call:
    """The sum of what a reduction's terms are without their signs."""
    return Call("sum", (Call("abs", node.parts),), node.axes)


class Group:
    """The values of names in some groups of statistics, each worked out when it is asked for.

    ``given`` holds what the groups have as a whole, ``blocks`` gives for each block of their elements
    what is given there (x, and what broadcasts to it); ``axes`` are the dimensions that each kind of
    reduction takes. ``at_once`` is how a function is called for all blocks, ``map`` or its like.
    ``cancelling`` lines are those in which a sum may be 0 by what it is of, whatever the numbers; ``times`` says
    how often a sum has each of its terms, where these do not vary over all of its axes.
    """

    def __init__(
        self,
        lines: Lines,
        numbers: Numbers,
        given: Given,
        blocks: Sequence[Callable[[], Given]],
        axes: Mapping[str | None, tuple[int, ...]],
        at_once: Callable[..., Iterable[Any]] = map,
        cancelling: frozenset[str] = frozenset(),
        times: Callable[[Call], int] = lambda node: 1,
    ) -> None:
        self.lines, self.numbers, self._axes, self._at_once = lines, numbers, axes, at_once
        self._values = {line.name: line.value for line in lines}
        self._known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._elementwise = elementwise(lines)
        self._cancelling, self._times = cancelling, times
        self._sizes = {
            node: size_of(node)
            for line in lines
            if line.name in cancelling
            for node in reductions(line.value)
            if node.function in ("sum", "mean")
        }
        self._reduced: dict[Call, Any] = {}
        self._blocks = blocks
        self._kept = Block(self, blocks[0]()) if len(blocks) == 1 else None

    def __getitem__(self, name: str) -> Any:
        """The value of a name; KeyError for what is neither given nor a line."""
        if name not in self._known:
            self._known[name] = self.worked_out(name, self.value)
        return self._known[name]

    def value(self, node: Node) -> Any:
        """The value of an expression that belongs to the groups as a whole."""
        return worked_out(node, self.numbers, self.named)

    def named(self, node: Name | Call) -> Any:
        """The value of a name or of a reduction."""
        if isinstance(node, Call) and node.function not in REDUCTIONS:
            return self.near(node, self.value(node.parts[0]))
        return self[node.name] if isinstance(node, Name) else self.reduced(node)

    def reduced(self, node: Call) -> Any:
        """The value of a reduction, from a reading of the elements that serves others too."""
        if node not in self._reduced:
            together = next((nodes for nodes in readings(self.lines) if node in nodes), (node,))
            taken = [*together, *(self._sizes[one] for one in together if one in self._sizes)]
            found = self._at_once(lambda block: [block.partial(one) for one in taken], self.blocks())
            totals = {one: self._joined(one, partials) for one, *partials in zip(taken, *found, strict=True)}
            for one in together:
                total = totals[one]
                if one in self._sizes:
                    total = self.numbers.settled(total, totals[self._sizes[one]])
                self._reduced[one] = total / self[one.axes or "n"] if one.function == "mean" else total
        return self._reduced[node]

    def worked_out(self, name: str, value: Callable[[Node], Any]) -> Any:
        """A line's value from those of its parts."""
        node = self._values[name]
        sum_ = isinstance(node, Call) and node.function in "+-" and len(node.parts) == 2
        if name not in self._cancelling or not sum_:
            return value(node)
        one, two = map(value, node.parts)  # type: ignore[union-attr]
        total = one + two if node.function == "+" else one - two  # type: ignore[union-attr]
        return self.numbers.settled(total, abs(one) + abs(two))

    def _joined(self, node: Call, partials: Sequence[Any]) -> Any:
        """A reduction from those of the blocks."""
        if node.function in ("max", "min"):
            return reduce(getattr(self.numbers, "larger" if node.function == "max" else "smaller"), partials)
        total, times = reduce(operator.add, partials), self._times(node)
        return total if times == 1 else total * self.numbers.number(times)

    def axes(self, node: Call) -> tuple[int, ...]:
        """The dimensions that a reduction takes."""
        return self._axes[node.axes]

    def near(self, node: Call, value: Any) -> Any:
        """The sums over the places near each one; of what flows back, over those that it is near to."""
        [axis] = self.axes(node)
        before, after = (int(self[name].hi) for name in ("before", "after"))
        if node.function != WINDOW:
            before, after = after, before
        size, shifted = value.hi.shape[axis], getattr(self.numbers, _SHIFTED)
        steps = [step for step in range(-before, after + 1) if abs(step) < size]
        return reduce(operator.add, (shifted(value, axis, step) for step in steps))

    def blocks(self) -> Iterator[Block]:
        """The blocks, one after the other; a single one stays."""
        return (Block(self, given()) for given in self._blocks) if self._kept is None else iter([self._kept])

    def is_elementwise(self, name: str) -> bool:
        """Whether a name has a value for each element."""
        return name in self._elementwise and name in self._values


class Block:
    """The values of names in one block of elements."""

    def __init__(self, group: Group, given: Given) -> None:
        self._group = group
        self._known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def __getitem__(self, name: str) -> Any:
        """The value of a name for each element of the block."""
        if name in self._known:
            return self._known[name]
        if not self._group.is_elementwise(name):
            return self._group[name]
        self._known[name] = self._group.worked_out(name, self._value)
        return self._known[name]

    def _value(self, node: Node) -> Any:
        return worked_out(node, self._group.numbers, self._named)

    def _named(self, node: Name | Call) -> Any:
        if isinstance(node, Call) and node.function not in REDUCTIONS:
            return self._group.near(node, self._value(node.parts[0]))
        return self[node.name] if isinstance(node, Name) else self._group.reduced(node)

    def partial(self, node: Call) -> Any:
        """What a block adds to a reduction."""
        value, axes, numbers = self._value(node.parts[0]), self._group.axes(node), self._group.numbers
        if node.function in ("max", "min"):
            return getattr(numbers, _EXTREME)(value, axes, largest=node.function == "max")
        return numbers.sum(value, axes)
