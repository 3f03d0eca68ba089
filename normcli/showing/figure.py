"""A plan as a figure: which axes are its rows, its columns and its cells, and which group each element is in.

Everything is worked out from a plan: integers only, no data, no NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any

from normcli.planning.layout import Shape
from normcli.planning.plan import Plan, plan
from normcli.planning.same import channels_of
from normcli.showing.canvas import Edges, Index

_SPATIAL = {1: "L", 2: "HW", 3: "DHW"}

SAMPLES = Edges(most=4, head=2, tail=1)
CHANNELS = Edges(most=12, head=4, tail=4)
PLACES = Edges(most=6, head=2, tail=2)
OUTER = Edges(most=2, head=1, tail=1)  # what is beyond height and width: depth, time


@dataclass(frozen=True)
class Figure:
    """A plan with the roles that its axes play in the picture; ``samples`` may be missing.

    Of the axes in ``flat``, along which nothing changes, one place stands for all.

    >>> figure = Figure(plan("group", (2, 6, 4, 4), "float32", {"groups": 3}))
    >>> figure.names, figure.group((1, 2, 0, 0))
    (('N', 'C', 'H', 'W'), 4)
    """

    plan: Plan
    flat: frozenset[int] = frozenset()

    @property
    def channels(self) -> int:
        """The axis whose places are the columns: the channel axis, or where a framework has it."""
        return channels_of(self.plan)

    @property
    def samples(self) -> int | None:
        """The axis whose places are the rows; None for one unbatched sample."""
        others = [axis for axis in range(len(self.plan.shape)) if axis != self.channels]
        return others[0] if self.plan.layout.is_batched and others else None

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes inside a cell."""
        return tuple(axis for axis in range(len(self.plan.shape)) if axis not in (self.samples, self.channels))

    @property
    def names(self) -> tuple[str, ...]:
        """What the axes are called: N, C and the like where that is known, else by their numbers."""
        rank = len(self.plan.shape)
        layout = self.plan.layout
        is_weight = self.plan.is_free and layout.channel_axis == 0  # which holds no samples
        if is_weight or (layout.channel_axis is None and rank != 4):
            return tuple(f"axis {axis}" for axis in range(rank))
        known = _SPATIAL.get(len(self.spatial), "")
        inside = known or tuple(f"S{place}" for place in range(1, len(self.spatial) + 1))
        roles = {self.samples: "N", self.channels: "C"} | dict(zip(self.spatial, inside, strict=True))
        return tuple(roles[axis] for axis in range(rank))

    def group(self, index: Shape) -> int:
        """The number of the group of statistics that an element belongs to."""
        place = 0
        for position, size in zip(index, self.plan.shape, strict=True):
            place = place * size + position
        layout = self.plan.layout
        number, stride = 0, 1
        for axis in reversed(range(len(layout.view))):
            place, position = divmod(place, layout.view[axis])
            if axis not in layout.axes:
                number += position * stride
                stride *= layout.view[axis]
        return number

    def shown(self, axis: int) -> list[Index]:
        """The places along an axis that the picture has room for."""
        size = self.plan.shape[axis]
        if axis in self.flat:
            return [0]
        if axis == self.samples:
            return SAMPLES.of(size)
        if axis == self.channels:
            return _at_borders(size, self.width) if self.has_borders else CHANNELS.of(size)
        return (PLACES if axis in self.spatial[-2:] else OUTER).of(size)

    @property
    def width(self) -> int:
        """After how many channels the next group begins, or the first one comes again where they take turns."""
        layout, size = self.plan.layout, self.plan.shape[self.channels]
        groups = layout.groups or 1
        return groups if layout.is_interleaved else size // groups

    @property
    def has_borders(self) -> bool:
        """Whether channels are left out, and the borders of their groups would be among them."""
        size = self.plan.shape[self.channels]
        return size > CHANNELS.most and CHANNELS.head < self.width < size

    @property
    def abbreviated(self) -> list[int]:
        """The axes of which only the edges are drawn."""
        return [axis for axis in range(len(self.plan.shape)) if None in self.shown(axis)]

    @cached_property
    def order(self) -> Mapping[int, int]:
        """The groups that are seen, numbered in order: their letters and colours."""
        axes = [[place for place in self.shown(axis) if place is not None] for axis in range(len(self.plan.shape))]
        return {group: number for number, group in enumerate(sorted({self.group(index) for index in product(*axes)}))}


def _at_borders(size: int, width: int) -> list[Index]:
    """The places on both sides of the first border, of the last one, and at the ends; None where some are left out.

    >>> _at_borders(64, 16)
    [0, 1, None, 15, 16, None, 47, 48, None, 62, 63]
    >>> _at_borders(64, 32)
    [0, 1, None, 31, 32, None, 62, 63]
    """
    kept = sorted({0, 1, width - 1, width, size - width - 1, size - width, size - 2, size - 1})
    places: list[Index] = [kept[0]]
    for before, place in pairwise(kept):
        places += [place] if place == before + 1 else [before + 1, place] if place == before + 2 else [None, place]
    return places


def figure_of(kind: str, shape: Shape, options: Mapping[str, Any]) -> Figure:
    """The figure of a kind and a shape.

    >>> figure_of("layer", (2, 3), {}).plan.layout.count
    3
    """
    return Figure(plan(kind, shape, "float32", options))
