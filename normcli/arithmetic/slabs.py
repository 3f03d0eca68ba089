"""Large tensors, slab by slab: what each thread takes of a tensor, and how its parts come together.

A tensor is cut into slabs in the order in which it lies in memory, and groups longer than a slab are merged
from theirs. Where the cuts are depends on the shape alone, so the number of threads does not change a bit.
Squares are summed about a slab's own mean, and slabs are merged about the common one (Chan, Golub and
LeVeque 1983, Am. Stat. 37:242).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np

from normcli.arithmetic.order import Axes, Elements, Floats, Region, cut, joined, shape_of
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.threads import cores, parallel
from normcli.files.stored import Stored
from normcli.planning.layout import Shape

T = TypeVar("T")

SLAB = 2**20  # elements of a slab at most: what one thread works on
LEAST_SLAB = 2**18  # to start a thread for less takes longer than it saves
_READERS = 8  # threads at most that hold slabs of a file in memory
_SLABS = 8  # of a tensor too small for the largest
_SLAB_SPAN = 2**11  # elements that lie side by side in memory, at least, wherever the shape allows
_SPLITTER = 2.0**27 + 1


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
    """A calculation whose steps are done for one slab at a time."""

    axes: Axes
    x: Elements
    output: Elements | None
    statistics: Statistics
    needs_statistics: bool  # of the tensor; otherwise they are given

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        ...

    def partial(self, slab: Region) -> Partial:
        """Sums, and squares about their mean, of a slab that is a part of longer groups."""
        ...

    def keep(self, group: Region, partial: Partial) -> None:
        """The statistics of whole groups, from their sums."""
        ...

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        ...


def work_through(work: Work, threads: int | None, *, later: int = 0) -> None:
    """Do all the work, on so many threads, by default on all cores; ``later`` passes over the tensor are to follow."""
    x, threads = work.x, workers(work.x, threads)
    with np.errstate(all="ignore"):
        groups, runs = slabs_of(work.axes)
        if len(runs) == 1 or not work.needs_statistics:
            slabs = [joined(work.axes, group, run) for group in groups for run in runs]
            parallel(counted(work.whole, x, passes=1 + later), slabs, threads)
            return
        inside = 1 if len(groups) >= 2 * threads else threads  # threads that share a group
        passes = (1 if work.output is None else 2) + later
        partial, emit = counted(work.partial, x, passes=passes), counted(work.emit, x, passes=passes)

        def long(group: Region) -> None:
            slabs = [joined(work.axes, group, run) for run in runs]
            work.keep(slabs[0], merged(parallel(partial, slabs, inside)))
            if work.output is not None:
                parallel(emit, slabs, inside)

        parallel(long, groups, threads if inside == 1 else 1)


def workers(x: Elements, threads: int | None) -> int:
    """How many threads work on a tensor: those asked for, or all cores; fewer on a file, whose slabs they hold."""
    return min(threads or cores(), _READERS) if isinstance(x, Stored) else threads or cores()


def slabs_of(axes: Axes) -> tuple[list[Region], list[Region]]:
    """The slabs of a tensor: the regions of its kept dimensions, and the runs inside a group."""
    slab = min(SLAB, max(LEAST_SLAB, math.prod(axes.shape) // _SLABS))
    return cut(axes, axes.shape, slab, _SLAB_SPAN)


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
        Pair(*(np.stack([getattr(partial, name) for partial in partials]) for name in names))
        for names in (("high", "low"), ("squares", "squares_low"))
    )
    counts = Pair(np.array([float(partial.n) for partial in partials]).reshape(-1, *[1] * partials[0].high.ndim))
    total = sums.sum((0,))
    distance = sums / counts - total / Pair(np.float64(n))
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
