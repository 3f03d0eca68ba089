"""The reference: the lines of a plan, worked out so exactly that each output is rounded once.

A difference from another implementation so always means something. The tensor is worked on in blocks
that fit the cache: whole groups of statistics at a time, or blocks inside one long group. A block is read,
used and dropped, so where it comes from is nobody's business.

Large tensors go through compiled loops where the lines are the family's.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

import normcli.arithmetic as room
from normcli.arithmetic.evaluate import Block, Group, size_of, worked_out
from normcli.arithmetic.numbers import DOUBLES, FAR_GRADIENT, PAIRS, SINGLES, WIDES, Pairs, is_far
from normcli.arithmetic.order import Elements, Floats, Region, axes_of, cut, in_order, joined, met, placed, shape_of
from normcli.arithmetic.outcome import as_floats, constants, outcome
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import Result, State
from normcli.arithmetic.warned import blocks
from normcli.files.stored import Stored
from normcli.floats import numpy_dtype, rounded
from normcli.formula.extents import AXES, across, elementwise, needed, readings, reductions
from normcli.formula.family import used
from normcli.formula.language import Call, Name
from normcli.planning.plan import Plan

SMALL = 2**16  # elements; what is larger takes long without the compiled loops
_FEW = 2**12  # elements; the first tensor of so few is done before the loops are loaded
BLOCK = 2**14  # elements: a few pairs of temporaries of this size stay in the second-level cache
_SINGLE_BLOCK = 2**17
_AT_ONCE = 64  # groups for each thread, before what they add to sums is added up
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
    grad_output: Elements | None = None,
    grad_input: Stored | None = None,
) -> Result:
    """Normalize ``x`` (shape ``plan.shape``, dtype ``plan.dtype``) and return all named quantities.

    The output has ``plan.dtype``; everything else is float64. ``out`` receives the output when
    given; a tensor in a file without one has its statistics alone worked out. ``steps`` keeps what
    belongs to each element too, which takes 8 bytes for each element and name. With ``grad_output``, of
    the tensor's shape, the gradients are worked out too; that of a tensor in a file where ``grad_input`` receives it.
    """
    if plan.is_free:
        free: Result = room.free.normalize(x, plan, state, out=out, steps=steps, grad_output=grad_output)
        return free
    backward = {"grad_output": grad_output, "grad_input": grad_input}
    if not steps and (x.size > SMALL or (grad_output is None and _is_worth_the_loops(x.size))):
        result: Result | None = room.large.normalize(x, plan, state, out=out, threads=threads, **backward)
        if result is not None:
            return result
    return by_lines(x, plan, state, out=out, steps=steps, threads=threads, **backward)


_earlier = itertools.count()


def _is_worth_the_loops(size: int) -> bool:
    """Whether to load the loops, which give the same numbers: a process that has had a tensor will have more."""
    return (size > _FEW or next(_earlier) > 0) and room.loops.compiled() is not None


def by_lines(
    x: Elements,
    plan: Plan,
    state: State,
    *,
    out: Elements | None = None,
    steps: bool = False,
    threads: int | None = 1,
    grad_output: Elements | None = None,
    grad_input: Elements | None = None,
) -> Result:
    """The same, the lines interpreted, whatever the size."""
    # What is written to may be x itself, or a parameter; a file is not.
    output: Elements | None = np.empty_like(x) if isinstance(x, np.ndarray) else out
    layout = plan.layout
    results: dict[str, Elements] = {} if output is None else {"output": output}
    gradients: dict[str, Any] = {}
    if grad_output is not None:
        if isinstance(x, np.ndarray):
            grad_input = np.empty(plan.shape, numpy_dtype(plan.dtype))
        gradients = {} if grad_input is None else {plan.gradient_name("x"): grad_input}
        results |= gradients
        gradients["grad_output"] = grad_output
    work = _Work(x, plan, state, steps=steps, results=frozenset(results), grad_output=grad_output)
    targets = {name: in_order(target, layout, work.axes) for name, target in results.items()}
    with np.errstate(all="ignore"):  # NaN and overflow are reported in words, by the result's warnings
        undefined = work.through(targets, threads)
        for name, values in work.parameters().items():
            gradients[name] = work.axes.planned(values).reshape(plan.weight_shape)
    if isinstance(out, np.ndarray) and isinstance(output, np.ndarray):
        out[...] = output
        output = out
    statistics = {
        name: Pair(*(work.axes.planned(part).reshape(layout.stats_view) for part in (value.hi, value.lo)))
        for name, value in work.statistics.items()
        if name not in gradients
    }
    elements = {name: work.axes.planned(values).reshape(plan.shape) for name, values in work.elements.items()}
    return outcome(x, output, plan, state, statistics, elements, undefined, gradients)


Part = tuple[Call, Region, Any]  # what a block adds to a sum that goes beyond its group of statistics, and where


class _Work:
    """One calculation: what is given, in the order of memory, and what has been worked out."""

    def __init__(
        self,
        x: Elements,
        plan: Plan,
        state: State,
        *,
        steps: bool,
        results: frozenset[str],
        grad_output: Elements | None,
    ) -> None:
        self.axes = axes_of(plan.layout, x.strides)
        self.x = in_order(x, plan.layout, self.axes)
        self._gradient = None if grad_output is None else in_order(grad_output, plan.layout, self.axes)
        given = {name: getattr(state, name) for name in ("weight", "bias", "running_mean", "running_var")}
        self._given = {name: placed(value, self.axes) for name, value in given.items() if value is not None}
        program, rounded_ = plan.lines, {"output"}  # to the tensor's dtype
        self._parameters: list[str] = []
        if grad_output is not None:
            program += plan.gradient_lines
            rounded_.add(plan.gradient_name("x"))
            self._parameters = [plan.gradient_name(name) for name in ("weight", "bias")]
        own, beyond, names = elementwise(program), across(program), [line.name for line in program]
        shape = self.axes.stats
        self.statistics = {name: Pair(np.empty(shape), np.empty(shape)) for name in names if name not in own | beyond}
        kept = [name for name in names if steps and name in own and name not in rounded_]
        self.elements = {name: np.empty(self.axes.shape) for name in kept}
        wanted = [*self.statistics, *self.elements, *beyond]
        lines = needed(used(program, frozenset(self._given)), [*wanted, *results])
        self._lines = tuple(line for line in lines if line.name not in beyond)
        self._beyond = {line.name: line.value for line in lines if line.name in beyond}
        sums = [node for value in self._beyond.values() for node in reductions(value)]
        self._totals = {node: self._zeros(node) for one in sums for node in (one, size_of(one))}
        self._cancelling = frozenset(names[len(plan.lines) :])
        constant = {**plan.neutral, **constants(plan, state)}  # where nobody gave them
        self._numbers = self._chosen(plan, np.array([*constant.values()]))
        self._constants = {name: self._numbers.number(value) for name, value in constant.items()}
        most = _SINGLE_BLOCK if self._numbers is SINGLES else BLOCK
        self._groups, self._runs = cut(self.axes, self.axes.shape, most, _SPAN)
        self._readings = len(readings(self._lines)) + bool(results) if len(self._runs) > 1 else 1
        self._dtype = plan.dtype
        self._lock = threading.Lock()

    def _chosen(self, plan: Plan, constant: NDArray[np.float64]) -> Pairs:
        """The number type that these numbers take."""
        single = plan.dtype != "float64" and self.x.size > SMALL
        given = [constant, *self._given.values()]
        if self._gradient is not None:
            far = any(is_far(values, FAR_GRADIENT) for values in chain(given, blocks(self._gradient), blocks(self.x)))
            return WIDES if far else DOUBLES if single else PAIRS
        if single:
            return SINGLES
        return WIDES if any(map(is_far, chain(given, blocks(self.x)))) else PAIRS

    def _zeros(self, node: Call) -> Pair:
        taken = self.axes.taken(node.axes)
        shape = [1 if axis in taken else size for axis, size in enumerate(self.axes.shape)]
        return Pair(np.zeros(shape), np.zeros(shape))

    def through(self, targets: Mapping[str, Elements], threads: int | None) -> int:
        """Do all of it, with what is rounded into ``targets``; how many groups were divided by 0."""
        undefined = 0
        for divided, parts in self._done(targets, threads):
            undefined += divided
            for node, place, part in parts:  # in order, so that the sum does not depend on the threads
                total = self._totals[node]
                more = Pair(total.hi[place], total.lo[place]) + Pair(part.hi, part.lo)
                total.hi[place], total.lo[place] = more.hi, more.lo
        return undefined

    def _done(self, targets: Mapping[str, Elements], threads: int | None) -> Iterator[tuple[int, list[Part]]]:
        if self.x.size <= SMALL:
            yield from (self._group(group, targets, map) for group in self._groups)
            return
        threads = threads or room.threads.cores()
        if len(self._groups) >= 2 * threads:
            alone = partial(self._group, targets=targets, at_once=map)
            for start in range(0, len(self._groups), _AT_ONCE * threads):
                yield from room.threads.parallel(alone, self._groups[start : start + _AT_ONCE * threads], threads)
            return
        together = lambda function, items: room.threads.parallel(function, [*items], threads)  # noqa: E731
        yield from (self._group(group, targets, together) for group in self._groups)

    def _group(
        self, region: Region, targets: Mapping[str, Elements], at_once: Callable[..., Iterable[Any]]
    ) -> tuple[int, list[Part]]:
        """Some whole groups of statistics."""
        regions = [joined(self.axes, region, run) for run in self._runs]
        running = {
            name: self._numbers.statistic(met(values, region))
            for name, values in self._given.items()
            if name.startswith("running")
        }
        blocks = [partial(self._read, block) for block in regions]
        axes = {name: self.axes.taken(name) for name in AXES}
        group = Group(self._lines, self._numbers, self._constants | running, blocks, axes, at_once, self._cancelling)
        for name, kept in self.statistics.items():
            kept.hi[region], kept.lo[region] = group[name].hi, group[name].lo

        def emit(at: tuple[Region, Block]) -> list[Part]:
            place, block = at
            for name, values in self.elements.items():
                values[place] = as_floats(block[name])
            for name, target in targets.items():
                target[place] = rounded(as_floats(block[name]), self._dtype)
            return [(node, self._place(place, node), block.partial(node)) for node in self._totals]

        found: Iterable[list[Part]] = []
        if targets or self.elements or self._totals:
            found = at_once(emit, zip(regions, group.blocks(), strict=True))
        parts = [part for some in found for part in some]
        return int(np.count_nonzero(np.isinf(group["rstd"].pair.hi))) if "rstd" in self.statistics else 0, parts

    def _place(self, region: Region, node: Call) -> Region:
        """Where a region's part of a sum lies in the whole."""
        taken = self.axes.taken(node.axes)
        return tuple(slice(0, 1) if axis in taken else part for axis, part in enumerate(region))

    def parameters(self) -> dict[str, Floats]:
        """What has one value for each place of weight and bias."""
        known: dict[str, Any] = {name: Pair(values) for name, values in self._given.items()}

        def value_of(node: Name | Call) -> Any:
            if isinstance(node, Call):
                return PAIRS.settled(self._totals[node], self._totals[size_of(node)])
            return known[node.name] if node.name in known else PAIRS.number(self._constants[node.name].hi)

        found = {name: worked_out(value, PAIRS, value_of).hi for name, value in self._beyond.items()}
        return found | {name: self.statistics[name].hi for name in self._parameters if name in self.statistics}

    def _read(self, region: Region) -> dict[str, Any]:
        """What belongs to each element of a block; of a file, an array read from it."""
        found = {"x": self._numbers.array(self.x[region])}
        if self._gradient is not None:
            found["grad_output"] = self._numbers.array(self._gradient[region])
        for name in ("weight", "bias"):
            if name in self._given:
                found[name] = self._numbers.array(met(self._given[name], region))
        if isinstance(self.x, Stored) and self.x.advanced is not None:
            with self._lock:
                self.x.done += math.prod(shape_of(region))
                self.x.advanced(self.x.done / (self.x.size * self._readings))
        return found
