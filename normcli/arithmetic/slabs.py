"""Large tensors, slab by slab: where a tensor is cut, and in what order slabs of a file are worked on.

A tensor is cut in the order in which it lies in memory, and groups longer than a slab are merged from theirs.
Where the cuts are depends on the shape alone, so neither the number of threads nor a file changes a bit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np

from normcli.arithmetic.order import Axes, Elements, Floats, Region, cut, cut_at, joined, shape_of, steps_of
from normcli.arithmetic.threads import cores, parallel
from normcli.files.stored import Stored
from normcli.planning.layout import Shape

T = TypeVar("T")

SLAB = 2**20  # elements of a slab at most: what one thread works on
LEAST_SLAB = 2**18  # to start a thread for less takes longer than it saves
LEAST_RUN = 2**16  # of groups longer than a slab
_LEAST_CELL = 2**13  # of shorter ones, which threads that wait take
_READERS = 8  # threads at most that hold slabs of a file in memory
_SLABS = 8  # of a tensor too small for the largest
_SLAB_SPAN = 2**11  # elements that lie side by side in memory, at least, wherever the shape allows
_LEAST_SPAN = 2**8  # where that keeps groups whole: to merge them takes longer than to skip from row to row


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
    def of(cls, shape: Shape, dtype: str, given: Mapping[str, Floats]) -> Statistics:
        """Those given, of as many elements; without any, room for what is to be worked out for ``dtype``."""
        names = [field.name for field in fields(cls)][: 6 if dtype == "float64" else 4]
        if not given:
            return cls(**{name: np.empty(shape) for name in names})
        return cls(**{name: np.ascontiguousarray(given[name]).reshape(shape) for name in names})

    def reshaped(self, shape: Shape) -> Statistics:
        """The same statistics in another shape."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Statistics(**{name: part.reshape(shape) for name, part in parts.items() if part is not None})


class Work(Protocol):
    """A calculation on a tensor in a file, whose steps are done for one slab at a time."""

    axes: Axes
    x: Elements
    output: Elements | None
    cells: Shape  # how much of each dimension a cell takes
    needs_statistics: bool  # of the tensor; otherwise they are given

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        ...

    def moments(self, slab: Region) -> Floats:
        """What a slab that is a run of longer groups adds up to."""
        ...

    def join(self, groups: Region, runs: Sequence[Floats]) -> None:
        """The statistics of whole groups, from what all their runs add up to."""
        ...

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        ...


def work_through(work: Work, threads: int | None, *, later: int = 0) -> None:
    """Do all the work, on so many threads, by default on all cores; ``later`` passes over the tensor are to follow."""
    x, threads = work.x, workers(work.x, threads)
    groups, runs = cut_at(work.axes, work.axes.shape, _grown(work.axes, work.cells))
    if len(runs) == 1 or not work.needs_statistics:
        slabs = [joined(work.axes, group, run) for group in groups for run in runs]
        parallel(counted(work.whole, x, passes=1 + later), slabs, threads)
        return
    inside = 1 if len(groups) >= 2 * threads else threads  # threads that share a group
    passes = (1 if work.output is None else 2) + later
    moments, emit = counted(work.moments, x, passes=passes), counted(work.emit, x, passes=passes)
    everything = tuple(slice(0, size) for size in work.axes.shape)

    def long(group: Region) -> None:
        slabs = [joined(work.axes, group, run) for run in runs]
        work.join(joined(work.axes, group, everything), parallel(moments, slabs, inside))
        if work.output is not None:
            parallel(emit, slabs, inside)

    parallel(long, groups, threads if inside == 1 else 1)


def cells_of(axes: Axes, tile: int) -> Shape:
    """How much of each dimension a cell takes: a run of groups longer than a slab, and of others about a tile."""
    size = math.prod(axes.shape)
    long = steps_of(axes, axes.shape, _most(size, LEAST_RUN), _SLAB_SPAN)
    for span in (_SLAB_SPAN, _LEAST_SPAN):
        if not _cuts_groups(axes, steps_of(axes, axes.shape, _most(size, LEAST_RUN), span)):
            few = steps_of(axes, axes.shape, max(_LEAST_CELL, min(tile, size // _SLABS)), span)
            return tuple(n if mean else step for mean, step, n in zip(axes.averaged, few, axes.shape, strict=True))
    return long


def _cuts_groups(axes: Axes, steps: Shape) -> bool:
    return any(mean and step < n for mean, step, n in zip(axes.averaged, steps, axes.shape, strict=True))


def _grown(axes: Axes, cells: Shape) -> Shape:
    """How much of each dimension a slab takes: as many cells of whole groups as it can hold."""
    most, steps = _most(math.prod(axes.shape), LEAST_RUN), list(cells)
    for d in reversed(range(len(cells)) if not _cuts_groups(axes, cells) else ()):
        steps[d] = min(axes.shape[d], steps[d] * max(1, most // math.prod(steps)))
    return tuple(steps)


def workers(x: Elements, threads: int | None) -> int:
    """How many threads work on a tensor: those asked for, or all cores; fewer on a file, whose slabs they hold."""
    return min(threads or cores(), _READERS) if isinstance(x, Stored) else threads or cores()


def slabs_of(axes: Axes) -> tuple[list[Region], list[Region]]:
    """The slabs of a backward pass: the regions of a tensor's kept dimensions, and the runs inside a group."""
    return cut(axes, axes.shape, _most(math.prod(axes.shape), LEAST_SLAB), _SLAB_SPAN)


def _most(size: int, least: int) -> int:
    return min(SLAB, max(least, size // _SLABS))


def counted(step: Callable[[Region], T], x: Elements, *, passes: int, as_many: int = 1) -> Callable[[Region], T]:
    """A step on a slab that tells a tensor in a file how much of the work is done: ``as_many`` of these passes."""
    if not isinstance(x, Stored) or x.advanced is None:
        return step
    advanced, lock, whole = x.advanced, threading.Lock(), x.size * passes

    def counted(slab: Region) -> T:
        result = step(slab)
        with lock:
            x.done += as_many * math.prod(shape_of(slab))
            advanced(x.done / whole)
        return result

    return counted
