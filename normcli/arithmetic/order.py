"""A tensor's dimensions in the order in which they lie in memory, and the regions that it is worked on in.

One set of steps so serves every layout. A slab is what a thread takes, a block what fits the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.files.stored import Stored
from normcli.formula.extents import AXES
from normcli.planning.layout import Layout, Shape

Floats = NDArray[np.float64]
Elements = NDArray[Any] | Stored
Region = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Axes:
    """The tensor's dimensions in the order in which they lie in memory, and what each one is for.

    ``order`` holds, for each, its place in the layout's view.
    """

    shape: Shape
    order: tuple[int, ...]
    averaged: tuple[bool, ...]
    channel: tuple[bool, ...]

    @property
    def stats(self) -> Shape:
        """The shape with the averaged dimensions shrunk to 1."""
        return tuple(1 if mean else size for size, mean in zip(self.shape, self.averaged, strict=True))

    @property
    def channels(self) -> Shape:
        """The shape with all but the channel dimensions shrunk to 1."""
        return tuple(size if own else 1 for size, own in zip(self.shape, self.channel, strict=True))

    def taken(self, axes: str | None) -> Shape:
        """The dimensions that a reduction over the axes of that name takes."""
        return tuple(
            axis for axis, role in enumerate(zip(self.averaged, self.channel, strict=True)) if AXES[axes](role)
        )

    def merged(self, *arrays: Elements) -> tuple[Any, ...]:
        """Axes in which neighbours of one purpose are one where all arrays allow it, and the arrays with them.

        The statistics' own dimensions stay in order, so that these axes' are a reshape away.
        """
        blocks: list[list[int]] = []
        for d in range(len(self.shape)):
            if self.shape[d] == 1:
                continue
            if blocks and self._one(blocks[-1][-1], d, arrays):
                blocks[-1].append(d)
            else:
                blocks.append([d])
        blocks = blocks or [[0]]
        shape = tuple(math.prod(self.shape[d] for d in block) for block in blocks)
        axes = Axes(
            shape=shape,
            order=tuple(range(len(blocks))),
            averaged=tuple(self.averaged[block[0]] for block in blocks),
            channel=tuple(self.channel[block[0]] for block in blocks),
        )
        return axes, *(array.reshape(shape, copy=False) for array in arrays)

    def _one(self, outer: int, inner: int, arrays: Sequence[Elements]) -> bool:
        """Whether two dimensions of one purpose lie in all arrays as one would."""
        purposes = ((self.averaged[d], self.channel[d]) for d in (outer, inner))
        return len(set(purposes)) == 1 and all(
            array.strides[outer] == array.strides[inner] * self.shape[inner] for array in arrays
        )

    def planned(self, values: NDArray[Any]) -> NDArray[Any]:
        """An array of these dimensions in the view's order."""
        return values.transpose(np.argsort(self.order))


def axes_of(layout: Layout, strides: Sequence[int]) -> Axes:
    """The axes of a layout for a tensor of these strides, the outermost in memory first."""
    shape, at = layout.view, layout.split_axis
    if at is not None:
        strides = (*strides[:at], strides[at] * shape[at + 1], *strides[at:])
    order = tuple(sorted(range(len(shape)), key=lambda axis: -abs(strides[axis]) if shape[axis] > 1 else -math.inf))
    return Axes(
        shape=tuple(shape[axis] for axis in order),
        order=order,
        averaged=tuple(axis in layout.axes for axis in order),
        channel=tuple(axis in layout.channels for axis in order),
    )


def in_order(elements: Elements, layout: Layout, axes: Axes) -> Elements:
    """A tensor with its dimensions as the axes have them; in a file they lie in that order."""
    if isinstance(elements, Stored):
        return elements.reshape(axes.shape)
    return elements.reshape(layout.view, copy=False).transpose(axes.order)


def placed(values: NDArray[Any], axes: Axes) -> Floats:
    """A parameter in float64, so that it broadcasts over these axes."""
    owned = [axis for axis in sorted(range(len(axes.order)), key=axes.order.__getitem__) if axes.channel[axis]]
    shaped = np.asarray(values, np.float64).reshape([axes.shape[axis] for axis in owned])
    in_memory_order = sorted(range(len(owned)), key=owned.__getitem__)
    return np.ascontiguousarray(shaped.transpose(in_memory_order)).reshape(axes.channels)


def stats_shape(axes: Axes, shape: Shape) -> Shape:
    """The shape of a region's statistics: 1 for each dimension that is averaged over."""
    return tuple(1 if averaged else size for size, averaged in zip(shape, axes.averaged, strict=True))


def stats_region(axes: Axes, region: Region) -> Region:
    """Where a region's statistics lie among those of the whole tensor."""
    return tuple(slice(0, 1) if averaged else part for part, averaged in zip(region, axes.averaged, strict=True))


def regions_of(shape: Shape, most: int) -> Iterator[Region]:
    """Regions of at most ``most`` elements that cover ``shape``, in C order."""
    return _regions(shape, _steps(shape, most))


def _steps(shape: Shape, most: int) -> Shape:
    """How much of each dimension a region of at most so many elements takes."""
    inner = 1
    steps: list[int] = []
    for size in reversed(shape):
        steps.insert(0, max(1, min(size, most // inner)))
        inner *= size
    return tuple(steps)


def _regions(shape: Shape, steps: Shape) -> Iterator[Region]:
    starts = product(*(range(0, size, step) for size, step in zip(shape, steps, strict=True)))
    for start in starts:
        yield tuple(slice(at, min(at + step, size)) for at, step, size in zip(start, steps, shape, strict=True))


def cut(axes: Axes, shape: Shape, most: int, span: int) -> tuple[list[Region], list[Region]]:
    """Regions of at most about ``most`` elements: those of the kept dimensions, and the runs inside a group."""
    return cut_at(axes, shape, steps_of(axes, shape, most, span))


def cut_at(axes: Axes, shape: Shape, steps: Shape) -> tuple[list[Region], list[Region]]:
    """Regions of these steps: those of the kept dimensions, and the runs inside a group."""
    averaged = tuple(size if mean else 1 for size, mean in zip(shape, axes.averaged, strict=True))
    kept = tuple(1 if mean else size for size, mean in zip(shape, axes.averaged, strict=True))
    return list(_regions(kept, steps)), list(_regions(averaged, steps))


def steps_of(axes: Axes, shape: Shape, most: int, span: int) -> Shape:
    """How much of each dimension a region of at most about ``most`` elements takes.

    A region is made of pieces of at least ``span`` elements that lie side by side, where the shape
    allows: a column of a wide matrix is not read alone.
    """
    averaged = tuple(size if mean else 1 for size, mean in zip(shape, axes.averaged, strict=True))
    kept = tuple(1 if mean else size for size, mean in zip(shape, axes.averaged, strict=True))
    n = math.prod(averaged)
    inner = 1  # averaged elements that lie side by side at the end
    for size, mean in zip(reversed(shape), reversed(axes.averaged), strict=True):
        if size > 1 and not mean:
            break
        inner *= size
    beside = min(math.prod(kept), max(1, span // inner))
    groups = max(1, most // n, beside)
    runs = max(1, most // min(groups, math.prod(kept)))
    inside = zip(axes.averaged, _steps(averaged, runs), _steps(kept, groups), strict=True)
    return tuple(run if mean else group for mean, run, group in inside)


def joined(axes: Axes, group: Region, run: Region) -> Region:
    """The region of some groups of statistics that a run inside them makes up."""
    return tuple(run[d] if mean else group[d] for d, mean in enumerate(axes.averaged))


def within(slab: Region, region: Region) -> Region:
    """A region of a slab as a region of the tensor."""
    return tuple(
        slice(outer.start + part.start, outer.start + part.stop) for outer, part in zip(slab, region, strict=True)
    )


def shape_of(region: Region) -> Shape:
    """The shape of what a region cuts out."""
    return tuple(part.stop - part.start for part in region)


def met(values: Floats, region: Region) -> Floats:
    """The part of broadcast values that meets a region."""
    return values[tuple(part if size > 1 else slice(None) for part, size in zip(region, values.shape, strict=True))]
