"""The reference: the lines of a plan, worked out so exactly that each output is rounded once.

A difference from another implementation so always means something. The tensor is worked on in blocks
that fit the cache: whole groups of statistics at a time, or blocks inside one long group. A block is read,
used and dropped, so where it comes from is nobody's business.

Large tensors go through compiled loops where the lines are the family's.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

import normcli.arithmetic as room
from normcli.arithmetic.evaluate import Block, Group
from normcli.arithmetic.numbers import PAIRS, SINGLES, WIDES, Pairs, is_far
from normcli.arithmetic.order import Elements, Region, axes_of, cut, in_order, joined, met, placed, shape_of
from normcli.arithmetic.outcome import as_floats, constants, outcome
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import Result, State
from normcli.arithmetic.warned import blocks
from normcli.files.stored import Stored
from normcli.floats import rounded
from normcli.formula.extents import elementwise, needed, readings
from normcli.formula.family import used
from normcli.planning.plan import Plan

SMALL = 2**16  # elements; what is larger goes through the compiled loops
BLOCK = 2**14  # elements: a few pairs of temporaries of this size stay in the second-level cache
_SINGLE_BLOCK = 2**17
_SPAN = 64  # elements that lie side by side in memory, at least, wherever the shape allows


def normalize(
    x: Elements,
    plan: Plan,
    state: State,
    *,
    device: str | None = None,
    out: Elements | None = None,
    steps: bool = False,
    threads: int | None = None,
) -> Result:
    """Normalize ``x`` (shape ``plan.shape``, dtype ``plan.dtype``) and return all named quantities.

    The output has ``plan.dtype``; everything else is float64. ``out`` receives the output when
    given; a tensor in a file without one has its statistics alone worked out. ``steps`` keeps what
    belongs to each element too, which takes 8 bytes for each element and name.
    """
    if x.size > SMALL and not steps:
        result: Result | None = room.large.normalize(x, plan, state, out=out, threads=threads)
        if result is not None:
            return result
    return by_lines(x, plan, state, out=out, steps=steps, threads=threads)


def by_lines(
    x: Elements, plan: Plan, state: State, *, out: Elements | None = None, steps: bool = False, threads: int | None = 1
) -> Result:
    """The same, the lines interpreted, whatever the size."""
    # What is written to may be x itself, or a parameter; a file is not.
    output: Elements | None = np.empty_like(x) if isinstance(x, np.ndarray) else out
    layout = plan.layout
    work = _Work(x, plan, state, steps=steps, output=output is not None)
    with np.errstate(all="ignore"):  # NaN and overflow are reported in words, by the result's warnings
        undefined = work.through(None if output is None else in_order(output, layout, work.axes), threads)
    if isinstance(out, np.ndarray) and isinstance(output, np.ndarray):
        out[...] = output
        output = out
    statistics = {
        name: Pair(*(work.axes.planned(part).reshape(layout.stats_view) for part in (value.hi, value.lo)))
        for name, value in work.statistics.items()
    }
    elements = {name: work.axes.planned(values).reshape(plan.shape) for name, values in work.elements.items()}
    return outcome(x, output, plan, state, statistics, elements, undefined)


class _Work:
    """One calculation: what is given, in the order of memory, and what has been worked out."""

    def __init__(self, x: Elements, plan: Plan, state: State, *, steps: bool, output: bool) -> None:
        self.axes = axes_of(plan.layout, x.strides)
        self.x = in_order(x, plan.layout, self.axes)
        given = {name: getattr(state, name) for name in ("weight", "bias", "running_mean", "running_var")}
        self._given = {name: placed(value, self.axes) for name, value in given.items() if value is not None}
        own, shape, names = elementwise(plan.lines), self.axes.stats, [line.name for line in plan.lines]
        self.statistics = {name: Pair(np.empty(shape), np.empty(shape)) for name in names if name not in own}
        kept = [name for name in names if steps and name in own and name != "output"]
        self.elements = {name: np.empty(self.axes.shape) for name in kept}
        wanted = [*self.statistics, *self.elements, *(["output"] if output else [])]
        self._lines = needed(used(plan.lines, frozenset(self._given)), wanted)
        constant = constants(plan, state)
        numbers = [np.array([*constant.values()]), *self._given.values()]
        if plan.dtype != "float64" and x.size > SMALL:
            self._numbers: Pairs = SINGLES
        else:
            self._numbers = WIDES if any(map(is_far, [*numbers, *blocks(self.x)])) else PAIRS
        self._constants = {name: self._numbers.number(value) for name, value in constant.items()}
        most = _SINGLE_BLOCK if self._numbers is SINGLES else BLOCK
        self._groups, self._runs = cut(self.axes, self.axes.shape, most, _SPAN)
        self._readings = len(readings(self._lines)) + output if len(self._runs) > 1 else 1
        self._dtype = plan.dtype
        self._lock = threading.Lock()

    def through(self, output: Elements | None, threads: int | None) -> int:
        """Do all of it, with the output rounded into ``output``; how many groups were divided by 0."""
        if self.x.size <= SMALL:
            return sum(self._group(group, output, map) for group in self._groups)
        threads = threads or room.threads.cores()
        if len(self._groups) >= 2 * threads:
            return sum(room.threads.parallel(lambda group: self._group(group, output, map), self._groups, threads))
        together = lambda function, items: room.threads.parallel(function, [*items], threads)  # noqa: E731
        return sum(self._group(group, output, together) for group in self._groups)

    def _group(self, region: Region, output: Elements | None, at_once: Callable[..., Iterable[Any]]) -> int:
        """Some whole groups of statistics."""
        regions = [joined(self.axes, region, run) for run in self._runs]
        running = {
            name: self._numbers.statistic(met(values, region))
            for name, values in self._given.items()
            if name.startswith("running")
        }
        averaged = tuple(axis for axis, inside in enumerate(self.axes.averaged) if inside)
        blocks = [partial(self._read, block) for block in regions]
        group = Group(self._lines, self._numbers, self._constants | running, blocks, {None: averaged}, at_once)
        for name, kept in self.statistics.items():
            kept.hi[region], kept.lo[region] = group[name].hi, group[name].lo

        def emit(at: tuple[Region, Block]) -> None:
            place, block = at
            for name, values in self.elements.items():
                values[place] = as_floats(block[name])
            if output is not None:
                output[place] = rounded(as_floats(block["output"]), self._dtype)

        if output is not None or self.elements:
            [*at_once(emit, zip(regions, group.blocks(), strict=True))]
        return int(np.count_nonzero(np.isinf(group["rstd"].pair.hi))) if "rstd" in self.statistics else 0

    def _read(self, region: Region) -> dict[str, Any]:
        """What belongs to each element of a block; of a file, an array read from it."""
        found = {"x": self._numbers.array(self.x[region])}
        for name in ("weight", "bias"):
            if name in self._given:
                found[name] = self._numbers.array(met(self._given[name], region))
        if isinstance(self.x, Stored) and self.x.advanced is not None:
            with self._lock:
                self.x.done += math.prod(shape_of(region))
                self.x.advanced(self.x.done / (self.x.size * self._readings))
        return found
