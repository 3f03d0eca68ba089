"""One tensor, with all that was ever worked out from it: hypotheses share what they have in common.

What the lines make of the input alone is exact (pairs, rounded once); the rest is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.numbers import PAIRS, WIDES, Float, Pairs, is_far
from normcli.formula.language import Call, Name, Node
from normcli.planning.layout import Layout

Array = NDArray[np.float64]
Found = TypeVar("Found")


_MOST_HELD = 2**27  # bytes of what can be worked out again


class Sheet:
    """One tensor, and everything that was worked out from it."""

    def __init__(self, x: NDArray[np.floating]) -> None:
        self.x: Array = np.asarray(x, np.float64)
        self._numbers: Pairs = WIDES if is_far(self.x) else PAIRS
        self._known: dict[Any, Any] = {}
        self._exactly: dict[Any, Any] = {}
        self._held = 0

    def once(self, key: Any, function: Callable[[], Found]) -> Found:
        """The value of a function that is called the first time that it is asked for, or where it was long ago."""
        if key not in self._known:
            found = function()
            self._held += _bytes(found)
            if self._held > _MOST_HELD:
                self._known.clear()
                self._held = _bytes(found)
            self._known[key] = found
        known: Found = self._known[key]
        return known

    def one(self, layout: Layout) -> Layout:
        """The same layout for all that are equal."""
        return self.once(layout, lambda: layout)

    def exact(self, key: int, tree: Node, layout: Layout) -> Float:
        """What an expression over x and n gives, rounded once; ``key`` stands for the expression."""
        if (key, id(layout)) not in self._exactly:
            value_of = partial(self._exact, layout)
            self._exactly[key, id(layout)] = layout, Float(worked_out(tree, self._numbers, value_of).hi)
        found: Float = self._exactly[key, id(layout)][1]
        return found

    def _exact(self, layout: Layout, node: Name | Call) -> Any:
        if (node, id(layout)) not in self._exactly:
            self._exactly[node, id(layout)] = self._of_group(layout, node)
        return self._exactly[node, id(layout)]

    def _of_group(self, layout: Layout, node: Name | Call) -> Any:
        n = self._numbers.number(layout.count)
        if isinstance(node, Name):
            return self._numbers.array(grouped(self.x, layout)) if node.name == "x" else n
        total = self._numbers.sum(worked_out(node.parts[0], self._numbers, partial(self._exact, layout)), (1,))
        return total / n if node.function == "mean" else total

    def grouped(self, values: Array, layout: Layout, own: Layout | None = None) -> Float:
        """An array of the tensor's shape in groups of statistics; one of the channels' where they are ``own``'s."""
        key = id(values), id(layout), own is None
        return self.once(key, lambda: (values, Float(grouped(self._by(values, own), layout))))[1]

    @cached_property
    def sizes(self) -> Array:
        """The sizes of the elements."""
        return np.abs(self.x)

    def _by(self, values: Array, own: Layout | None) -> Array:
        return values if own is None else by_channel(values, own, self.x.shape)


def grouped(values: Array, layout: Layout) -> Array:
    """An array of the tensor's shape as (groups of statistics, n)."""
    return values.reshape(layout.view).transpose(_order(layout)).reshape(-1, layout.count)


def ungrouped(groups: Array, layout: Layout, shape: Sequence[int]) -> Array:
    """The inverse of ``grouped``; a column of statistics is spread over its groups."""
    order = _order(layout)
    view = [layout.view[axis] for axis in order]
    size = int(np.prod(view)) // layout.count
    whole = groups if groups.shape == (size, layout.count) else np.broadcast_to(groups, (size, layout.count))
    return whole.reshape(view).transpose(np.argsort(order)).reshape(shape)


def by_channel(values: Array, own: Layout, shape: Sequence[int]) -> Array:
    """One number for each channel of a layout, spread over a tensor."""
    return np.broadcast_to(np.reshape(values, own.channels_view), own.view).reshape(shape)


def _bytes(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(_bytes, value))
    return int(getattr(getattr(value, "hi", value), "nbytes", 0))


def _order(layout: Layout) -> tuple[int, ...]:
    return (*(axis for axis in range(len(layout.view)) if axis not in layout.axes), *layout.axes)
