"""The backward pass of large tensors through the compiled loops: what x, weight and bias receive of grad_output.

With d = g * weight, grad_input = d * rstd - slope * (x - mean) - shift, where shift is rstd times the mean of d over a
group and slope = rstd^3 * sum(d * (x - mean)) / (n - ddof); both are 0 where the statistics are given, and all
statistics are those of the forward pass. A tile of short groups is read from memory once for sums and gradients.
Longer groups are read twice, and cut across the parameters, so that what weight and bias receive is complete wherever
it can be.
"""

from __future__ import annotations

import math
import operator
import sys
import threading
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import loops
from normcli.arithmetic.order import (
    Axes,
    Elements,
    Floats,
    Region,
    axes_of,
    in_order,
    joined,
    met,
    shape_of,
    stats_region,
)
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import State
from normcli.arithmetic.slabs import counted, slabs_of, workers
from normcli.arithmetic.threads import parallel
from normcli.arithmetic.warned import blocks
from normcli.files.stored import Stored
from normcli.planning.kinds import PARAMETERS
from normcli.planning.layout import Shape

PASSES = {"batch": 2, "running": 1}  # over a tensor, by the source of its statistics
_SHORT = 2 * loops.TILE  # elements of a group at most that is read once; in single precision both tensors fit a cache
_SHARERS = 4  # elements at least that add to one parameter in a tile that is read once
_LEAST, _MOST = 2.0**-900, 2.0**480  # between these, no product comes close to the ends of float64's range
_ORDINARY = 2.0**100  # weights up to here, and from its inverse on, do not lead there


def gradients(
    forward: loops.Work,
    state: State,
    x: Elements,
    grad_output: Elements,
    grad_input: Elements | None,
    threads: int | None,
) -> dict[str, Any] | None:
    """What flowed in and what came out, by their names, from a forward pass over ``x`` that is done.

    Of a tensor in a file, the gradient is written to ``grad_input``, or nowhere without one. Those of weight and bias
    have the shape of weight, in float64. None where numbers left float64's range.
    """
    plan = forward.plan
    axes = axes_of(plan.layout, x.strides)
    found = forward.statistics.reshaped(axes.stats)
    statistics = {field.name: part for field in fields(found) if (part := getattr(found, field.name)) is not None}
    is_given = plan.source == "running"
    if np.isinf(found.rstd).any() or (is_given and not all(np.isfinite(part).all() for part in statistics.values())):
        return None
    if not _is_ordinary(state.weight, plan.dtype):
        return None
    elements, g = (in_order(values, plan.layout, axes) for values in (x, grad_output))
    target = None if grad_input is None else in_order(grad_input, plan.layout, axes)
    work = _Work(forward, state, axes, elements, target, statistics, g)
    with np.errstate(all="ignore"):
        work.through(threads)
        if "float64" in (plan.dtype, g.dtype.name) and _out_of_range(work):
            return None
    named = {"grad_output": grad_output} | ({} if grad_input is None else {plan.gradient_name("x"): grad_input})
    lines = {line.name for line in plan.gradient_lines}
    for parameter in ("weight", "bias"):
        if (name := plan.gradient_name(parameter)) in lines:
            values = work.gradients[f"grad_{parameter}"].reshape(axes.channels)
            named[name] = axes.planned(values).reshape(plan.weight_shape)
    return named


class _Work(loops.Work):
    """One backward pass: besides the statistics, shift and slope of each group, and the sums for the parameters."""

    grad_output: Elements

    def __init__(
        self,
        forward: loops.Work,
        state: State,
        axes: Axes,
        x: Elements,
        grad_input: Elements | None,
        statistics: Mapping[str, Floats],
        grad_output: Elements,
    ) -> None:
        library, plan = loops.compiled(), forward.plan
        assert library is not None
        super().__init__(library, plan, replace(state, bias=None), axes, x, grad_input, statistics, grad_output)
        axes = self.axes
        names = loops.SHARED if plan.dtype == "float64" else loops.SHARED[:-1]
        self.shared = {name: np.zeros(axes.stats) for name in names}
        self.gradients: dict[str, Floats] = {}
        self._place(self.shared, axes.stats, axes.averaged)
        if plan.affine:
            self._base.param_stride[: self._base.rank] = loops.strides_of(axes.channels)
        self._passes = PASSES[plan.source]
        if isinstance(self.x, Stored) and isinstance(forward.x, Stored):
            self.x.done = forward.x.done
            self._passes += self.x.done // x.size

    def through(self, threads: int | None) -> None:
        """Do all the work, on so many threads."""
        threads = workers(self.x, threads)
        groups, runs = slabs_of(self.axes)
        n = self.plan.layout.count
        owned = (
            size
            for size, mean, own in zip(self.axes.shape, self.axes.averaged, self.axes.channel, strict=True)
            if mean and own
        )
        once = len(runs) == 1 and n <= _SHORT and max(n, loops.TILE) >= _SHARERS * math.prod(owned)
        needs_sums = self.plan.source == "batch"
        if needs_sums and once:
            slabs = [joined(self.axes, group, run) for group in groups for run in runs]
            self._each("whole", slabs, threads, as_many=2)
            return
        across = replace(self.axes, averaged=tuple(not own for own in self.axes.channel))
        groups, runs = slabs_of(across)
        slabs = [joined(across, group, run) for group in groups for run in runs]
        if needs_sums:
            parts: dict[tuple[int, ...], list[dict[str, Floats]]] = {}
            sums = parallel(counted(self._sums, self.x, passes=self._passes), slabs, threads)
            first: dict[tuple[int, ...], Region] = {}
            for slab, part in zip(slabs, sums, strict=True):
                place = _start(stats_region(self.axes, slab))
                first.setdefault(place, slab)
                parts.setdefault(place, []).append(part)
            parallel(lambda place: self._share(first[place], parts[place]), [*parts], threads)
        self._each("emit", slabs, threads)

    def _each(self, step: str, slabs: list[Region], threads: int, as_many: int = 1) -> None:
        """A step of the loops with every slab, and what weight and bias receive."""
        received = _Received(self.axes, slabs) if self.plan.affine else None

        def done(slab: Region) -> None:
            if received is None:
                self._done(step, slab, {})
                return
            shape = (len(loops.PARAMETERS), *received.shape_of(slab))
            room = self._held("sums", shape) if received.complete else np.empty(shape)  # which waits to be added
            room[...] = 0
            sums = dict(zip(loops.PARAMETERS, room, strict=True))
            self._done(step, slab, sums)
            received.add(slab, sums)

        parallel(counted(done, self.x, passes=self._passes, as_many=as_many), slabs, threads)
        self.gradients = {} if received is None else received.sums

    def _done(self, step: str, slab: Region, sums: Mapping[str, Floats]) -> None:
        y = self._room(slab)
        described = self._described(slab, x=self._taken(slab), g=self._taken(slab, "g"), y=y)
        if step == "whole" and "size" not in self.shared:  # nobody asks for these later
            last = [size - 1 for size in shape_of(slab)]
            span = 1 + sum(map(operator.mul, last, described.stat_stride))
            for name, values in zip(self.shared, self._held("shared", (len(self.shared), span)), strict=True):
                setattr(described, name, loops.address_of(values))
        if sums:
            shape = sums["grad_weight"].shape
            described.param_stride[: described.rank] = loops.strides_of(shape)
            parameters = dict(sums)
            if self.weight is not None:
                parameters["weight"] = np.ascontiguousarray(met(self.weight, slab))
            for name, values in parameters.items():
                setattr(described, name, loops.address_of(values))
        getattr(self._library, f"normcli_{step}_backward")(described)
        self._put(slab, y)

    def _sums(self, slab: Region) -> dict[str, Floats]:
        """The sums of a slab that is a part of longer groups."""
        described = self._described(slab, x=self._taken(slab), g=self._taken(slab, "g"))
        at = stats_region(self.axes, slab)
        means = {name: np.ascontiguousarray(getattr(self.statistics, name)[at]) for name in ("mean", "mean_low")}
        sums = {name: np.zeros(means["mean"].shape) for name in (*self.shared, *loops.PART_SUMS)}
        self._point(described, means | sums, self.axes.averaged)
        self._library.normcli_part_backward(described)
        return sums

    def _share(self, slab: Region, parts: list[dict[str, Floats]]) -> None:
        """Shift and slope of whole groups, from the sums of all slabs that they are in."""
        at = stats_region(self.axes, slab)
        for name in ("shift", "slope"):
            high, low = (np.stack([part[f"{name}s{half}"] for part in parts]) for half in ("", "_low"))
            total = Pair(high, low).sum((0,))
            self.shared[name][at], self.shared[f"{name}_low"][at] = total.hi[0], total.lo[0]
        if "size" in self.shared:
            self.shared["size"][at] = sum(part["size"] for part in parts)
        self._library.normcli_finish_backward(self._described(slab))


class _Received:
    """What weight and bias receive: the sums of slabs, added in the slabs' order, whichever is done first."""

    def __init__(self, axes: Axes, slabs: list[Region]) -> None:
        places = [
            tuple(part if own else slice(0, 1) for part, own in zip(slab, axes.channel, strict=True)) for slab in slabs
        ]
        self._places = {
            _start(slab): (number, place) for number, (slab, place) in enumerate(zip(slabs, places, strict=True))
        }
        self.complete = len({_start(place) for place in places}) == len(slabs)  # no parameter is in two of them
        self.sums = {name: np.zeros(axes.channels) for name in PARAMETERS}
        self._low = {} if self.complete else {name: np.zeros(axes.channels) for name in PARAMETERS}
        self._waiting: dict[int, tuple[Region, Mapping[str, Floats]]] = {}
        self._next, self._lock = 0, threading.Lock()

    def shape_of(self, slab: Region) -> Shape:
        """The shape of a slab's parameters."""
        return shape_of(self._places[_start(slab)][1])

    def add(self, slab: Region, sums: Mapping[str, Floats]) -> None:
        """Add a slab's sums, once those of the slabs before it are there."""
        number, place = self._places[_start(slab)]
        if self.complete:
            for name, total in self.sums.items():
                np.add(sums[name], sums[f"{name}_low"], out=total[place])
            return
        with self._lock:
            self._waiting[number] = place, sums
            while self._next in self._waiting:
                place, sums = self._waiting.pop(self._next)
                self._next += 1
                for name, total in self.sums.items():
                    low = self._low[name]
                    found = Pair(total[place], low[place]) + Pair(sums[name], sums[f"{name}_low"])
                    total[place], low[place] = found.hi, found.lo


def _start(region: Region) -> tuple[int, ...]:
    return tuple(part.start for part in region)


def _is_ordinary(weight: NDArray[Any] | None, dtype: str) -> bool:
    """Whether no product with the weight can leave float64's range, where the other factor is far from its ends."""
    if weight is None:
        return True
    least = 1 / _ORDINARY if dtype == "float64" else 0.0  # what underflows there is 0 in fewer bits
    inside = float(weight.max()) <= _ORDINARY and float(weight.min()) >= -_ORDINARY
    return inside and (not least or not ((np.abs(weight) < least) & (weight != 0)).any())


def _out_of_range(work: _Work) -> bool:
    """Whether finite float64 numbers have left float64's range on the way, or come close to its lower end."""
    statistics, shared = work.statistics, work.shared
    if "size" in shared and work.plan.source == "batch":
        rstd, size = statistics.rstd, shared["size"]
        if ((statistics.var < _LEAST) & ((statistics.var != 0) | (work.plan.eps == 0))).any():
            return True
        for factor in (size, size * rstd, size * rstd * rstd):
            if (((factor > 0) & (factor < _LEAST)) | ((factor > _MOST) & (factor <= sys.float_info.max))).any():
                return True
    values = (statistics.mean, statistics.var, statistics.rstd, *shared.values(), *work.gradients.values())
    if all(np.isfinite(part).all() for part in values):
        return work.plan.source == "running" and work.output is not None and _overflowed(work)
    read = (work.x, work.grad_output)
    if all(np.isfinite(block).all() for elements in read for block in blocks(elements)):
        return True
    return any(
        np.abs(block[np.isfinite(block)]).max(initial=0) > _MOST for elements in read for block in blocks(elements)
    )


def _overflowed(work: _Work) -> bool:
    assert work.output is not None
    return any(
        (np.isfinite(block) & ~np.isfinite(result)).any()
        for block, result in zip(blocks(work.grad_output), blocks(work.output), strict=True)
    )
