"""The fast arithmetic for large tensors of half and single precision: float64 inside blocks, threads over slabs.

Every block is worked on in the order in which it lies in memory, so that one set of steps serves
every layout. What keeps each output within 0.5001 units in the last place:

- float64 sums of a block's values, of 24 bits or fewer, lose nothing that matters, and the sums of
  blocks are added as pairs.
- The mean is a pair, high + low, and an element's deviation is (x - high) - low.
- Squares are summed about a centre close to the mean, and runs are merged about the exact mean
  (Chan, Golub and LeVeque 1983, Am. Stat. 37:242, with the centre's own error taken out).

Nothing overflows on the way: the square of the largest float32 is far inside float64's range.
float64 tensors need more than this, and stay with double-double arithmetic. A tensor is cut into
slabs, and slabs into blocks, by its shape alone, so the number of threads does not change a bit.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from normcli.backends.numpy import regions_of, rounded
from normcli.double import Double
from normcli.plan import Plan, Shape
from normcli.result import State

Floats = NDArray[np.float64]
Region = tuple[slice, ...]
T = TypeVar("T")

BLOCK = 2**17  # elements of a block: in float64 half of a second-level cache; shorter steps wait for each other
SLAB = 2**20  # elements of a slab: what one thread works on
_BLOCK_SPAN = 64  # elements that lie side by side in memory, at least, wherever the shape allows
_SLAB_SPAN = 2**14
_DOT = 8192  # longer dot products BLAS would split over threads of its own
_PIECES = 16

_SPLITTER = 2.0**27 + 1


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The tensor's dimensions in the order in which they lie in memory, and what each one is for.

    ``order`` holds, for each, its place among the dimensions in which the plan thinks: the input's
    own, the channel axis split in two for group norm.
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

    def planned(self, values: NDArray[Any]) -> NDArray[Any]:
        """An array of these dimensions in the plan's order."""
        return values.transpose(np.argsort(self.order))


def axes_of(plan: Plan, strides: Sequence[int] | None = None) -> Axes:
    """The axes of a plan, the outermost in memory first (``strides`` of the split shape; C order without)."""
    shape = split_shape(plan)
    averaged, channel = _roles(plan)
    order = tuple(range(len(shape)))
    if strides is not None:
        order = tuple(sorted(order, key=lambda axis: -abs(strides[axis]) if shape[axis] > 1 else -math.inf))
    return Axes(
        shape=tuple(shape[axis] for axis in order),
        order=order,
        averaged=tuple(averaged[axis] for axis in order),
        channel=tuple(channel[axis] for axis in order),
    )


def split_shape(plan: Plan) -> Shape:
    """The input's shape, the channel axis split for group norm into groups and channels of a group."""
    axis = plan.layout.channel_axis
    if plan.groups is None or axis is None:
        return plan.shape
    pair = (plan.groups, plan.shape[axis] // plan.groups)
    pair = pair[::-1] if plan.convention.interleaved_groups else pair
    return (*plan.shape[:axis], *pair, *plan.shape[axis + 1 :])


def _roles(plan: Plan) -> tuple[list[bool], list[bool]]:
    """For each dimension of the split shape: whether it is averaged over, whether weight and bias have it."""
    axis, rank = plan.layout.channel_axis, len(plan.shape)
    averaged = [dimension in plan.layout.reported_axes for dimension in range(rank)]
    if axis is None:
        return averaged, averaged
    channel = [dimension == axis for dimension in range(rank)]
    if plan.groups is None:
        return averaged, channel
    pair = [True, False] if plan.convention.interleaved_groups else [False, True]
    return [*averaged[:axis], *pair, *averaged[axis + 1 :]], [*channel[:axis], True, True, *channel[axis + 1 :]]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """mean (with what its rounding left), biased variance and rstd of each group, in the shape ``Axes.stats``."""

    mean: Floats
    mean_low: Floats
    var: Floats
    rstd: Floats


def normalize(
    plan: Plan, state: State, axes: Axes, x: NDArray[Any], output: NDArray[Any], *, threads: int | None
) -> Statistics:
    """Normalize ``x`` into ``output``, both with the dimensions of ``axes``; return the statistics."""
    work = _Work(plan, state, axes, x, output)
    groups, runs = _tiles(axes, axes.shape, SLAB, _SLAB_SPAN)
    with np.errstate(all="ignore"):
        if len(runs) == 1 or plan.source == "running":
            _parallel(work.whole, [_joined(axes, group, run) for group in groups for run in runs], threads or cores())
        else:
            for group in groups:
                work.long(group, [_joined(axes, group, run) for run in runs], threads or cores())
    return work.statistics


class _Work:
    """One calculation: its parameters in float64, and the statistics as they come in."""

    def __init__(self, plan: Plan, state: State, axes: Axes, x: NDArray[Any], output: NDArray[Any]) -> None:
        self.plan, self.axes, self.x, self.output = plan, axes, x, output
        self.weight, self.bias, mean, var = (
            None if values is None else self._placed(values)
            for values in (state.weight, state.bias, state.running_mean, state.running_var)
        )
        self._own = threading.local()
        self._axes = tuple(d for d, averaged in enumerate(axes.averaged) if averaged)
        self._all = "".join(chr(ord("a") + d) for d in range(len(axes.shape)))  # as einsum calls the dimensions
        self._left = "".join(self._all[d] for d, averaged in enumerate(axes.averaged) if not averaged)
        shape = axes.stats
        self.statistics = Statistics(**{name: np.zeros(shape) for name in ("mean", "mean_low", "var", "rstd")})
        if plan.source == "running":
            assert mean is not None and var is not None
            var = np.broadcast_to(var, shape)
            everything = tuple(slice(None) for _ in shape)
            self._keep(everything, np.broadcast_to(mean, shape), np.zeros(shape), var, var)

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        groups, runs = _tiles(self.axes, _shape(slab), BLOCK, _BLOCK_SPAN)
        for group in groups:
            regions = [_within(slab, _joined(self.axes, group, run)) for run in runs]
            if len(regions) == 1 and self.plan.source == "batch":
                block = self._loaded(regions[0])
                self._keep_partial(regions[0], self._partial(block))
                self._emit(block, regions[0], centered=True)
                continue
            if self.plan.source == "batch":
                loaded = (self._loaded(region) for region in regions)
                self._keep_partial(regions[0], merged([self._partial(block, exact=False) for block in loaded]))
            for region in regions:
                self._emit(self._loaded(region), region, centered=False)

    def long(self, group: Region, slabs: list[Region], threads: int) -> None:
        """Work through groups that are longer than a slab: statistics of all slabs first, then outputs."""
        self._keep_partial(group, merged(_parallel(self._partial_of_slab, slabs, threads)))
        _parallel(self._emit_slab, slabs, threads)

    def _partial_of_slab(self, slab: Region) -> Partial:
        groups, runs = _tiles(self.axes, _shape(slab), BLOCK, _BLOCK_SPAN)
        shape = self._stats_shape(_shape(slab))
        found = {name: np.empty(shape) for name in ("high", "low", "squares")}
        for group in groups:
            loaded = (self._loaded(_within(slab, _joined(self.axes, group, run))) for run in runs)
            partial = merged([self._partial(block, exact=False) for block in loaded])
            for name, values in found.items():
                values[group] = getattr(partial, name)
        return Partial(n=math.prod(_shape(slab)) // math.prod(shape), **found)

    def _emit_slab(self, slab: Region) -> None:
        groups, runs = _tiles(self.axes, _shape(slab), BLOCK, _BLOCK_SPAN)
        for group, run in product(groups, runs):
            region = _within(slab, _joined(self.axes, group, run))
            self._emit(self._loaded(region), region, centered=False)

    def _loaded(self, region: Region) -> Floats:
        """A region in float64, in this thread's buffer; a fresh one would cost as much as the arithmetic."""
        part = self.x[region]
        if not hasattr(self._own, "buffer") or self._own.buffer.size < part.size:
            self._own.buffer = np.empty(max(BLOCK, part.size))
        block: Floats = self._own.buffer[: part.size].reshape(part.shape)
        np.copyto(block, part, casting="unsafe")
        return block

    def _partial(self, block: Floats, *, exact: bool = True) -> Partial:
        """The sum over the averaged dimensions, and that of squares; the block becomes deviations.

        Squares are about the exact mean, or about the rounded one, as the merging of runs needs them.
        """
        n = math.prod(block.shape[axis] for axis in self._axes)
        if not self.plan.kind.centers:
            squares = self._sum_of_squares(block)
            return Partial(n=n, high=np.zeros_like(squares), low=np.zeros_like(squares), squares=squares)
        total = self._sum(block)
        low = np.zeros_like(total)
        mean, rest = mean_of(total, low, n)
        _center(block, mean, rest if exact else low)
        return Partial(n=n, high=total, low=low, squares=self._sum_of_squares(block))

    def _sum(self, block: Floats) -> Floats:
        if not self.axes.averaged[-1]:
            return np.asarray(np.einsum(f"{self._all}->{self._left}", block)).reshape(self._stats_shape(block.shape))
        return self._outer_sum(np.einsum("...i->...", block))

    def _sum_of_squares(self, block: Floats) -> Floats:
        if not self.axes.averaged[-1]:
            sums = np.asarray(np.einsum(f"{self._all},{self._all}->{self._left}", block, block))
            return sums.reshape(self._stats_shape(block.shape))
        return self._outer_sum(_dot(block))

    def _outer_sum(self, sums: Floats) -> Floats:
        """Sums over the last dimension, added up over the other averaged ones."""
        return np.asarray(np.add.reduce(sums[..., None], axis=self._axes[:-1], keepdims=True))

    def _stats_shape(self, shape: Shape) -> Shape:
        return tuple(1 if averaged else size for size, averaged in zip(shape, self.axes.averaged, strict=True))

    def _stats_region(self, region: Region) -> Region:
        return tuple(
            slice(0, 1) if averaged else part for part, averaged in zip(region, self.axes.averaged, strict=True)
        )

    def _keep_partial(self, region: Region, partial: Partial) -> None:
        n = self.plan.layout.count
        high, low = mean_of(partial.high, partial.low, n)
        self._keep(region, high, low, partial.squares / n, partial.squares / (n - self.plan.ddof))

    def _keep(self, region: Region, high: Floats, low: Floats, var: Floats, spread: Floats) -> None:
        kept, at = self.statistics, self._stats_region(region)
        kept.mean[at], kept.mean_low[at], kept.var[at] = high, low, var
        kept.rstd[at] = 1 / np.sqrt(spread + self.plan.eps)

    def _emit(self, block: Floats, region: Region, *, centered: bool) -> None:
        """deviation * rstd * weight + bias of a block, rounded once into the output."""
        kept, at = self.statistics, self._stats_region(region)
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
        store(block, self.output[region], self.plan.dtype)

    def _placed(self, values: NDArray[Any]) -> Floats:
        """A parameter in float64, so that it broadcasts over these axes."""
        owned = [
            axis
            for axis in sorted(range(len(self.axes.order)), key=self.axes.order.__getitem__)
            if self.axes.channel[axis]
        ]
        shaped = np.asarray(values, np.float64).reshape([self.axes.shape[axis] for axis in owned])
        in_memory_order = sorted(range(len(owned)), key=owned.__getitem__)
        return shaped.transpose(in_memory_order).reshape(self.axes.channels)


@dataclass(frozen=True, kw_only=True)
class Partial:
    """What n elements of each group add up to: the sum as a pair, and the squares about its rounded mean."""

    n: int
    high: Floats
    low: Floats
    squares: Floats


def merged(partials: Sequence[Partial]) -> Partial:
    """The partials of runs as that of the whole; the sums of squares are moved to the common mean.

    With c the centre of a run, m the common one, d = c - m and e = sum(x - c):
    sum((x - m)^2) = sum((x - c)^2) + d * (2 * e + n * d).
    """
    if len(partials) == 1:
        return partials[0]
    n = sum(partial.n for partial in partials)
    highs, lows = (np.stack([getattr(partial, name) for partial in partials]) for name in ("high", "low"))
    total = Double(highs, lows).sum((0,))
    high, low = total.hi[0], total.lo[0]
    common = mean_of(high, low, n)[0]
    terms = []
    for partial in partials:
        own, rest = mean_of(partial.high, partial.low, partial.n)
        distance = own - common
        terms.append(partial.squares + distance * partial.n * (2 * rest + distance))
    squares = Double(np.stack(terms)).sum((0,)).hi[0]
    return Partial(n=n, high=high, low=low, squares=squares)


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


def _shape(region: Region) -> Shape:
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
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(regions))]
