"""The fast arithmetic for large tensors: slabs for threads, blocks for the cache, in the order of memory.

A tensor is worked on in the order in which it lies in memory, so that one set of steps serves every
layout. It is cut into slabs, and groups longer than a slab are merged from theirs; where the cuts are
depends on the shape alone, so the number of threads does not change a bit. What keeps each output
within 0.5001 units in the last place, in float64 inside a block:

- float64 sums of a block's values, of 24 bits or fewer, lose nothing that matters, and the sums of
  blocks are added as pairs.
- The mean is a pair, high + low, and an element's deviation is (x - high) - low.
- Squares are summed about a block's own mean, and blocks are merged about the common one (Chan, Golub
  and LeVeque 1983, Am. Stat. 37:242).

Nothing overflows on the way: the square of the largest float32 is far inside float64's range. float64
tensors need pairs throughout, which ``normcli.arithmetic.loops`` has in C; without it they stay with
``normcli.arithmetic.reference``'s double-double arithmetic.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.pair import Double
from normcli.arithmetic.reference import regions_of
from normcli.arithmetic.result import State
from normcli.files.stored import Stored
from normcli.floats import rounded
from normcli.planning.layout import Layout, Shape
from normcli.planning.plan import Plan

Floats = NDArray[np.float64]
Elements = NDArray[Any] | Stored
Region = tuple[slice, ...]
T = TypeVar("T")

BLOCK = 2**17  # elements of a block: in float64 half of a second-level cache; shorter steps wait for each other
SLAB = 2**20  # elements of a slab at most: what one thread works on
_LEAST_SLAB = 2**18  # to start a thread for less takes longer than it saves
_READERS = 8  # threads at most that hold slabs of a file in memory
_SLABS = 8  # of a tensor too small for the largest
_BLOCK_SPAN = 64  # elements that lie side by side in memory, at least, wherever the shape allows
_SLAB_SPAN = 2**11
_DOT = 8192  # longer dot products BLAS would split over threads of its own
_PIECES = 16
MOST_DIMENSIONS = 16  # as loops.c has it; a tensor has fewer once dimensions of one purpose are merged

_SPLITTER = 2.0**27 + 1


@dataclass(frozen=True, kw_only=True)
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
    shape, at = layout.view, layout.channel_axis
    if at is not None and len(shape) > len(strides):  # the channel axis is split in two
        strides = (*strides[:at], strides[at] * shape[at + 1], *strides[at:])
    order = tuple(sorted(range(len(shape)), key=lambda axis: -abs(strides[axis]) if shape[axis] > 1 else -math.inf))
    return Axes(
        shape=tuple(shape[axis] for axis in order),
        order=order,
        averaged=tuple(axis in layout.axes for axis in order),
        channel=tuple(axis in layout.channels for axis in order),
    )


def takes(layout: Layout, x: NDArray[Any], output: NDArray[Any]) -> bool:
    """Whether the inner loops can take these arrays as they lie; copies in C order they always can."""
    axes = axes_of(layout, x.strides)
    merged, *_ = axes.merged(*(in_order(array, layout, axes) for array in (x, output)))
    return x.flags.aligned and output.flags.aligned and len(merged.shape) <= MOST_DIMENSIONS


def in_order(elements: Elements, layout: Layout, axes: Axes) -> Elements:
    """A tensor with its dimensions as the axes have them; in a file they lie in that order."""
    if isinstance(elements, Stored):
        return elements.reshape(axes.shape)
    return elements.reshape(layout.view, copy=False).transpose(axes.order)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """mean, biased variance and rstd of each group, in the shape ``Axes.stats``, and what their rounding left.

    What is left of variance and rstd matters for float64 tensors only; others have none.
    """

    mean: Floats
    mean_low: Floats
    var: Floats
    rstd: Floats
    var_low: Floats | None = None
    rstd_low: Floats | None = None

    @classmethod
    def empty(cls, shape: Shape, dtype: str) -> Statistics:
        """Statistics that are still to be worked out, for a tensor of ``dtype``."""
        names = [field.name for field in fields(cls)][: 6 if dtype == "float64" else 4]
        return cls(**{name: np.empty(shape) for name in names})

    def reshaped(self, shape: Shape) -> Statistics:
        """The same statistics in another shape."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Statistics(**{name: part.reshape(shape) for name, part in parts.items() if part is not None})


def normalize(
    plan: Plan, state: State, axes: Axes, x: Elements, output: Elements | None, *, threads: int | None
) -> Statistics:
    """Normalize ``x`` into ``output``, both with the dimensions of ``axes``; return the statistics.

    Without an ``output`` the statistics are all that is worked out.
    """
    threads = threads or cores()
    if isinstance(x, Stored):
        threads = min(threads, _READERS)
    with np.errstate(all="ignore"):
        work = _work(plan, state, axes, x, output)
        slab = min(SLAB, max(_LEAST_SLAB, x.size // _SLABS))
        groups, runs = _tiles(work.axes, work.axes.shape, slab, _SLAB_SPAN)
        if len(runs) == 1 or plan.source == "running":
            slabs = [_joined(work.axes, group, run) for group in groups for run in runs]
            _parallel(_counted(work.whole, x, passes=1), slabs, threads)
            return work.statistics.reshaped(axes.stats)
        inside = 1 if len(groups) >= 2 * threads else threads  # threads that share a group
        passes = 1 if output is None else 2
        partial, emit = _counted(work.partial, x, passes=passes), _counted(work.emit, x, passes=passes)

        def long(group: Region) -> None:
            slabs = [_joined(work.axes, group, run) for run in runs]
            work.keep(slabs[0], merged(_parallel(partial, slabs, inside)))
            if output is not None:
                _parallel(emit, slabs, inside)

        _parallel(long, groups, threads if inside == 1 else 1)
    return work.statistics.reshaped(axes.stats)


def _counted(step: Callable[[Region], T], x: Elements, *, passes: int) -> Callable[[Region], T]:
    """A step on a slab that tells a tensor in a file how much of the work is done."""
    if not isinstance(x, Stored) or x.advanced is None:
        return step
    advanced, lock, whole = x.advanced, threading.Lock(), x.size * passes

    def counted(slab: Region) -> T:
        result = step(slab)
        with lock:
            x.done += math.prod(shape_of(slab))
            advanced(x.done / whole)
        return result

    return counted


def _work(plan: Plan, state: State, axes: Axes, x: Elements, output: Elements | None) -> Work:
    from normcli.arithmetic import loops  # it builds on this module

    library = loops.compiled()
    if library is None:
        return Work(plan, state, axes, x, output)
    return loops.CompiledWork(library, plan, state, axes, x, output)


class Work:
    """One calculation in NumPy: its parameters in float64, and the statistics as they come in."""

    def __init__(self, plan: Plan, state: State, axes: Axes, x: Elements, output: Elements | None) -> None:
        self.plan = plan
        weight, bias, running_mean, running_var = (
            None if values is None else _placed(values, axes)
            for values in (state.weight, state.bias, state.running_mean, state.running_var)
        )
        present = [elements for elements in (x, output) if elements is not None]
        self.axes, self.x, self.output = axes, x, output = (*axes.merged(*present), None)[:3]
        self.weight, self.bias = (
            None if values is None else values.reshape(axes.channels) for values in (weight, bias)
        )
        self._own = threading.local()
        self._axes = tuple(d for d, averaged in enumerate(axes.averaged) if averaged)
        self._all = "".join(chr(ord("a") + d) for d in range(len(axes.shape)))  # as einsum calls the dimensions
        self._left = "".join(self._all[d] for d, averaged in enumerate(axes.averaged) if not averaged)
        self.statistics = Statistics.empty(axes.stats, plan.dtype)
        if plan.source == "running":
            assert running_mean is not None and running_var is not None
            rstd = Double(np.float64(1)) / (Double(running_var) + Double(np.float64(plan.eps))).sqrt()
            known = {"mean": running_mean, "mean_low": np.zeros_like(running_mean), "var": running_var, "rstd": rstd.hi}
            known |= {"var_low": np.zeros_like(running_var), "rstd_low": rstd.lo} if plan.dtype == "float64" else {}
            for name, values in known.items():
                getattr(self.statistics, name)[...] = values.reshape(axes.channels)

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        groups, runs = _tiles(self.axes, shape_of(slab), BLOCK, _BLOCK_SPAN)
        for group in groups:
            regions = [_within(slab, _joined(self.axes, group, run)) for run in runs]
            if len(regions) == 1 and self.plan.source == "batch":
                block = self._loaded(regions[0])
                self.keep(regions[0], self._partial(block))
                self._emit(block, regions[0], centered=True)
                continue
            if self.plan.source == "batch":
                self.keep(regions[0], merged([self._partial(self._loaded(region)) for region in regions]))
            for region in regions:
                self._emit(self._loaded(region), region, centered=False)

    def partial(self, slab: Region) -> Partial:
        """Sums, and squares about their mean, of a slab that is a part of longer groups."""
        groups, runs = _tiles(self.axes, shape_of(slab), BLOCK, _BLOCK_SPAN)
        shape = stats_shape(self.axes, shape_of(slab))
        found = {name: np.empty(shape) for name in ("high", "low", "squares", "squares_low")}
        for group in groups:
            loaded = (self._loaded(_within(slab, _joined(self.axes, group, run))) for run in runs)
            partial = merged([self._partial(block) for block in loaded])
            for name, values in found.items():
                values[group] = getattr(partial, name)
        return Partial(n=math.prod(shape_of(slab)) // math.prod(shape), **found)

    def keep(self, group: Region, partial: Partial) -> None:
        """The statistics of whole groups, from their sums."""
        kept, at, n = self.statistics, stats_region(self.axes, group), self.plan.layout.count
        kept.mean[at], kept.mean_low[at] = mean_of(partial.high, partial.low, n)
        kept.var[at] = partial.squares / n
        kept.rstd[at] = 1 / np.sqrt(partial.squares / (n - self.plan.ddof) + self.plan.eps)

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        groups, runs = _tiles(self.axes, shape_of(slab), BLOCK, _BLOCK_SPAN)
        for group, run in product(groups, runs):
            region = _within(slab, _joined(self.axes, group, run))
            self._emit(self._loaded(region), region, centered=False)

    def _loaded(self, region: Region) -> Floats:
        """A region in float64, in this thread's buffer; a fresh one would cost as much as the arithmetic."""
        part = self.x[region]  # of a file, an array read from it
        if not hasattr(self._own, "buffer") or self._own.buffer.size < part.size:
            self._own.buffer = np.empty(max(BLOCK, part.size))
        block: Floats = self._own.buffer[: part.size].reshape(part.shape)
        np.copyto(block, part, casting="unsafe")
        return block

    def _partial(self, block: Floats) -> Partial:
        """The sum over the averaged dimensions, and that of squares; the block becomes deviations."""
        n = math.prod(block.shape[axis] for axis in self._axes)
        none = np.zeros(stats_shape(self.axes, block.shape))
        if not self.plan.kind.centers:
            return Partial(n=n, high=none, low=none, squares=self._sum_of_squares(block), squares_low=none)
        total = self._sum(block)
        _center(block, *mean_of(total, none, n))
        return Partial(n=n, high=total, low=none, squares=self._sum_of_squares(block), squares_low=none)

    def _sum(self, block: Floats) -> Floats:
        if not self.axes.averaged[-1]:
            return np.asarray(np.einsum(f"{self._all}->{self._left}", block)).reshape(
                stats_shape(self.axes, block.shape)
            )
        return self._outer_sum(np.einsum("...i->...", block))

    def _sum_of_squares(self, block: Floats) -> Floats:
        if not self.axes.averaged[-1]:
            sums = np.asarray(np.einsum(f"{self._all},{self._all}->{self._left}", block, block))
            return sums.reshape(stats_shape(self.axes, block.shape))
        return self._outer_sum(_dot(block))

    def _outer_sum(self, sums: Floats) -> Floats:
        """Sums over the last dimension, added up over the other averaged ones."""
        return np.asarray(np.add.reduce(sums[..., None], axis=self._axes[:-1], keepdims=True))

    def _emit(self, block: Floats, region: Region, *, centered: bool) -> None:
        """deviation * rstd * weight + bias of a block, rounded once into the output."""
        if self.output is None:
            return
        kept, at = self.statistics, stats_region(self.axes, region)
        if not centered and self.plan.kind.centers:
            _center(block, kept.mean[at], kept.mean_low[at])
        rstd = kept.rstd[at]
        undefined = np.isinf(rstd)
        zero = (undefined & (block == 0)) if undefined.any() else None
        np.multiply(block, rstd, out=block)
        if zero is not None:
            block[zero] = 0.0  # by definition, where var + eps is 0
        if self.weight is not None:
            np.multiply(block, _met(self.weight, region), out=block)
        if self.bias is not None:
            np.add(block, _met(self.bias, region), out=block)
        room = self.output[region] if isinstance(self.output, np.ndarray) else np.empty(block.shape, self.x.dtype)
        store(block, room, self.plan.dtype)
        if isinstance(self.output, Stored):
            self.output[region] = room


def _placed(values: NDArray[Any], axes: Axes) -> Floats:
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


@dataclass(frozen=True, kw_only=True)
class Partial:
    """What n elements of each group add up to, as pairs: their sum, and their squares about their own mean."""

    n: int
    high: Floats
    low: Floats
    squares: Floats
    squares_low: Floats


def merged(partials: Sequence[Partial]) -> Partial:
    """The partials of runs as that of the whole.

    Squares about the mean m of a run become those about the common mean c, to which each run adds
    n * (m - c)^2 (Chan, Golub and LeVeque 1983).
    """
    if len(partials) == 1:
        return partials[0]
    n = sum(partial.n for partial in partials)
    sums, squares = (
        Double(*(np.stack([getattr(partial, name) for partial in partials]) for name in names))
        for names in (("high", "low"), ("squares", "squares_low"))
    )
    counts = Double(np.array([float(partial.n) for partial in partials]).reshape(-1, *[1] * partials[0].high.ndim))
    total = sums.sum((0,))
    distance = sums / counts - total / Double(np.float64(n))
    squares = (squares + distance * distance * counts).sum((0,))
    return Partial(n=n, high=total.hi[0], low=total.lo[0], squares=squares.hi[0], squares_low=squares.lo[0])


def mean_of(high: Floats, low: Floats, n: int) -> tuple[Floats, Floats]:
    """(high + low) / n as a pair; where it is not finite, the low part is 0.

    >>> [float(part) for part in mean_of(np.array(1.0), np.array(0.0), 4)]
    [0.25, 0.0]
    """
    mean = high / n
    scaled = _SPLITTER * mean  # Veltkamp: 26 bits at a time, so that the products with n are exact
    upper = scaled - (scaled - mean)
    rest = (((high - upper * n) - (mean - upper) * n) + low) / n
    return mean, np.where(np.isfinite(rest), rest, 0.0)


def store(values: Floats, target: NDArray[Any], dtype: str) -> None:
    """Round float64 values once into a target of ``dtype``.

    bfloat16 goes through float32; that rounds twice only where float32 lands halfway between two
    bfloat16 numbers, and those few are rounded again from float64.
    """
    if dtype != "bfloat16":
        np.copyto(target, values, casting="unsafe")
        return
    single = values.astype(np.float32)
    np.copyto(target, single, casting="unsafe")
    halfway = (single.view(np.uint32) & 0xFFFF) == 0x8000
    if halfway.any():
        target[halfway] = rounded(values[halfway], dtype)


def _center(block: Floats, mean: Floats, rest: Floats) -> None:
    np.subtract(block, mean, out=block)
    if rest.any():
        np.subtract(block, rest, out=block)


def _dot(block: Floats) -> Floats:
    """The sum of squares over the last dimension."""
    length = block.shape[-1]
    if length <= _DOT:
        return np.asarray(np.vecdot(block, block))
    if length % _PIECES == 0 and length // _PIECES <= _DOT:
        pieces = block.reshape(*block.shape[:-1], _PIECES, -1)
        return np.asarray(np.vecdot(pieces, pieces).sum(axis=-1))
    return np.asarray(np.einsum("...i,...i->...", block, block))


def _tiles(axes: Axes, shape: Shape, most: int, span: int) -> tuple[list[Region], list[Region]]:
    """Regions of at most about ``most`` elements: those of the kept dimensions, and the runs inside a group.

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
    return list(regions_of(kept, groups)), list(regions_of(averaged, runs))


def _joined(axes: Axes, group: Region, run: Region) -> Region:
    return tuple(run[d] if mean else group[d] for d, mean in enumerate(axes.averaged))


def _within(slab: Region, region: Region) -> Region:
    """A region of a slab as a region of the tensor."""
    return tuple(
        slice(outer.start + part.start, outer.start + part.stop) for outer, part in zip(slab, region, strict=True)
    )


def shape_of(region: Region) -> Shape:
    """The shape of what a region cuts out."""
    return tuple(part.stop - part.start for part in region)


def _met(values: Floats, region: Region) -> Floats:
    """The part of broadcast values that meets a region."""
    return values[tuple(part if size > 1 else slice(None) for part, size in zip(region, values.shape, strict=True))]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parallel(function: Callable[[Region], T], regions: Sequence[Region], threads: int) -> list[T]:
    """The function of every region, worked out by some threads, in order; the first failure is raised."""
    if threads == 1 or len(regions) == 1:
        return [function(region) for region in regions]
    waiting = list(reversed(list(enumerate(regions))))
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def work() -> None:
        with np.errstate(all="ignore"):  # a setting of each thread
            while not failures:
                try:
                    index, region = waiting.pop()
                except IndexError:
                    return
                try:
                    results[index] = function(region)
                except BaseException as error:
                    failures.append(error)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(regions)) - 1)]
    for helper in helpers:
        helper.start()
    try:
        work()
        for helper in helpers:
            helper.join()
    except BaseException as error:  # Ctrl-C: what the helpers read from and write to must outlast them
        failures.append(error)
        for helper in helpers:
            helper.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(regions))]
