"""The reference: one formula, y = (x - mean) / sqrt(var + eps) * weight + bias, in NumPy.

The formula is that of Ioffe and Szegedy (2015, arXiv:1502.03167, algorithm 1) for every kind; a
plan says which elements share a mean. RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) leaves
the mean out.

All arithmetic is double-double (``normcli.arithmetic.pair``) and each output is rounded once, so that a
difference from another implementation always means something. The tensor is worked on in blocks
that fit the cache: whole groups of statistics at a time, or runs inside one long group, whose sums
are merged. A block is read, used and dropped, so where it comes from is nobody's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.pair import Double, difference
from normcli.arithmetic.result import Result, State
from normcli.floats import rounded
from normcli.planning.layout import Shape
from normcli.planning.plan import Plan
from normcli.words import count

if TYPE_CHECKING:
    from normcli.arithmetic.slabs import Elements
    from normcli.files.stored import Stored

Floats = NDArray[np.float64]
Region = tuple[slice, ...]

SMALL = 2**16  # elements; what is larger goes through normcli.arithmetic.slabs
BLOCK = 2**14  # elements: a few float64 temporaries of this size stay in the second-level cache

_FAR = 300  # beyond 2**300 (or below 2**-300) squares are scaled, lest they leave float64's range
_LEAST_VAR = 2.0**-900  # below, squares of float64 numbers come close to the end of its range
_MOST = 2.0**480  # up to here, no sum of their squares comes close to the other end
_EDGE = 990  # beyond 2**990 the parts of a product are too


def normalize(
    x: NDArray[Any],
    plan: Plan,
    state: State,
    *,
    device: str | None = None,
    out: NDArray[Any] | None = None,
    steps: bool = False,
    threads: int | None = None,
) -> Result:
    """Normalize ``x`` (shape ``plan.shape``, dtype ``plan.dtype``) and return all named quantities.

    The output has ``plan.dtype``; everything else is float64. ``out`` receives the output when
    given; ``steps`` keeps centered and normalized too, which takes 16 bytes for each element.
    Large tensors go through ``normcli.arithmetic.slabs``, on ``threads`` threads (by default all cores).
    """
    if x.size > SMALL and not steps:
        result = _large(x, plan, state, out=out, threads=threads)
        if result is not None:
            return result
    return _small(x, plan, state, out=out, steps=steps)


def normalize_stored(
    x: Stored, plan: Plan, state: State, *, out: Elements | None, threads: int | None = None
) -> Result | None:
    """The same for a tensor in a file, slab by slab, into ``out``; without one, the statistics alone.

    None where ``normcli.arithmetic.slabs`` cannot do it, and the tensor must be in memory.
    """
    return _by_kernel(x, plan, state, out, threads)


def _large(
    x: NDArray[Any], plan: Plan, state: State, *, out: NDArray[Any] | None, threads: int | None = None
) -> Result | None:
    """The same by ``normcli.arithmetic.slabs``, in the order in which the elements lie in memory, or None."""
    from normcli.arithmetic import slabs  # small calculations need not wait for it

    read = (x, state.weight, state.bias, state.running_mean, state.running_var)
    apart = out is not None and not any(np.may_share_memory(out, values) for values in read if values is not None)
    output = out if out is not None and apart else np.empty_like(x)
    if not slabs.takes(plan.layout, x, output):
        x, output = np.require(x, requirements=("C", "A")), np.empty(x.shape, x.dtype)
    result = _by_kernel(x, plan, state, output, threads)
    if result is None or out is None or output is out:
        return result
    out[...] = output
    return replace(result, output=out)


def _by_kernel(x: Elements, plan: Plan, state: State, output: Elements | None, threads: int | None) -> Result | None:
    """None for float64 where it is not compiled, or the numbers would leave float64's range on the way."""
    from normcli.arithmetic import loops, slabs  # small calculations need not wait for them

    if plan.dtype == "float64" and loops.compiled() is None:
        return None
    axes = slabs.axes_of(plan.layout, x.strides)
    values = slabs.in_order(x, plan.layout, axes)
    results = None if output is None else slabs.in_order(output, plan.layout, axes)
    found = slabs.normalize(plan, state, axes, values, results, threads=threads)
    mean, var, rstd = (
        Double(*(axes.planned(part).reshape(plan.layout.stats_view) for part in pair if part is not None))
        for pair in ((found.mean, found.mean_low), (found.var, found.var_low), (found.rstd, found.rstd_low))
    )
    if plan.dtype == "float64" and _out_of_range(values, results, mean, var, rstd, state, plan):
        return None
    with np.errstate(all="ignore"):
        named = _named(mean, var, rstd, plan)
        after = _updated(state, mean, var, plan) if plan.updates_running else state
        undefined = int(np.count_nonzero(np.isinf(rstd.hi)))
        warnings = tuple(_warnings(values, results, state, plan, undefined, named["rstd"]))
    return Result(plan=plan, **named, output=output, before=state, after=after, warnings=warnings)


def _out_of_range(
    x: Elements, output: Elements | None, mean: Double, var: Double, rstd: Double, state: State, plan: Plan
) -> bool:
    """Whether finite float64 numbers have left float64's range on the way, or come close to its lower end."""
    if plan.source == "batch" and ((var.hi < _LEAST_VAR) & ((var.hi != 0) | (plan.eps == 0))).any():
        return True
    if not all(np.isfinite(part.hi).all() for part in (mean, var, rstd)):
        return any(np.abs(block[np.isfinite(block)]).max(initial=0) > _MOST for block in _blocks(x))
    if output is None or _surely_finite(state, plan, rstd.hi):
        return False
    return any(
        (np.isfinite(block) & ~np.isfinite(result)).any()
        for block, result in zip(_blocks(x), _blocks(output), strict=True)
    )


def _blocks(elements: Elements) -> Iterator[NDArray[Any]]:
    """The elements in pieces that fit in memory, in the order of their dimensions."""
    if isinstance(elements, np.ndarray):
        yield elements
        return
    for region in regions_of(elements.shape, 2**20):
        yield elements[region]


def _small(x: NDArray[Any], plan: Plan, state: State, *, out: NDArray[Any] | None, steps: bool) -> Result:
    layout = plan.layout
    view = x.reshape(layout.view)
    output = np.empty(layout.view, x.dtype)
    centered, normalized = (np.empty(layout.view if steps else 0) for _ in range(2))
    mean, var, rstd = (Double(np.zeros(layout.stats_view), np.zeros(layout.stats_view)) for _ in range(3))
    weight, bias, running_mean, running_var = (
        None if values is None else Double(np.asarray(values, np.float64).reshape(layout.channels_view))
        for values in (state.weight, state.bias, state.running_mean, state.running_var)
    )
    undefined = 0
    with np.errstate(all="ignore"):  # NaN and overflow are reported in words, by the result's warnings
        for groups in regions_of(layout.stats_view, max(1, BLOCK // layout.count)):
            runs = _runs(plan, groups)
            blocks = _Blocks(view, runs)
            running = (_at(running_mean, groups), _at(running_var, groups)) if plan.source == "running" else None
            scale = _scale(blocks, plan, running)
            group = _group_statistics(blocks, plan, scale, running)
            for kept, value, power in ((mean, group.mean, 1), (var, group.var, 2), (rstd, group.rstd, -1)):
                kept[groups] = value.scaled(power * scale)
            undefined += int(np.count_nonzero(np.isinf(group.rstd.hi)))
            for run, block in zip(runs, blocks, strict=True):
                deviation = group.centered(block.scaled(-scale))
                y = scaled = _times(deviation, group.rstd)
                if weight is not None:
                    y = y * _at(weight, run)
                if bias is not None:
                    y = y + _at(bias, run)
                output[run] = rounded(y.hi, plan.dtype)
                if steps:
                    centered[run], normalized[run] = deviation.scaled(scale).hi, scaled.hi
        named = _named(mean, var, rstd, plan)
        after = _updated(state, mean, var, plan) if plan.updates_running else state
    output = output.reshape(plan.shape)
    if out is not None:
        out[...] = output
    return Result(
        plan=plan,
        **named,
        centered=centered.reshape(plan.shape) if steps and plan.kind.centers else None,
        normalized=normalized.reshape(plan.shape) if steps else None,
        output=output if out is None else out,
        before=state,
        after=after,
        warnings=tuple(_warnings(x, output, state, plan, undefined, named["rstd"])),
    )


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The statistics of some groups, in units of 2**scale."""

    mean: Double
    missing: Double  # what mean.hi lacks of the mean, to the last bit: an element may lie that close to it
    var: Double
    rstd: Double

    def centered(self, block: Double) -> Double:
        return difference(block.hi, self.mean.hi) - self.missing


def _group_statistics(
    blocks: _Blocks, plan: Plan, scale: NDArray[np.int64], running: tuple[Double, Double] | None
) -> _Group:
    zero, axes = Double(np.zeros(scale.shape)), plan.layout.axes
    eps = _number(plan.eps)
    if running is not None:
        mean, var = running[0].scaled(-scale), running[1]
        rstd = (_number(1) / (var + eps).sqrt()).scaled(scale)
        return _Group(mean=mean, missing=zero, var=var.scaled(-2 * scale), rstd=rstd)
    n = _number(plan.layout.count)
    total = _total(block.scaled(-scale).sum(axes) for block in blocks) if plan.kind.centers else zero
    mean = total / n
    missing = (total - Double(mean.hi) * n) / n
    group = _Group(mean=mean, missing=missing.where(~np.isfinite(missing.hi), zero), var=zero, rstd=zero)
    squares = _total(_squared(group.centered(block.scaled(-scale))).sum(axes) for block in blocks)
    std = (squares / _number(plan.layout.count - plan.ddof) + eps.scaled(-2 * scale)).sqrt()
    std = std.where(squares.hi == 0, eps.sqrt().scaled(-scale))  # scaled eps alone may be below float64's range
    return replace(group, var=squares / n, rstd=_number(1) / std)


def _scale(blocks: _Blocks, plan: Plan, running: tuple[Double, Double] | None) -> NDArray[np.int64]:
    """The power of two to divide each group by, 0 unless its arithmetic would leave float64's range."""
    stats = [size if axis not in plan.layout.axes else 1 for axis, size in enumerate(blocks.shape)]
    if plan.dtype != "float64":
        return np.zeros(stats, np.int64)
    largest = np.zeros(stats)
    for block in blocks:
        finite = np.where(np.isfinite(block.hi), np.abs(block.hi), 0.0)
        largest = np.maximum(largest, finite.max(axis=plan.layout.axes, keepdims=True))
    if running is not None:  # nothing is squared, and small elements must not vanish beside large ones
        exponent = np.frexp(np.maximum(largest, np.abs(running[0].hi)))[1].astype(np.int64)
        return np.maximum(exponent - _EDGE, 0)
    exponent = np.frexp(largest)[1].astype(np.int64)
    # Far below sqrt(eps) the group's own size no longer matters, and eps must stay finite.
    least = (math.frexp(plan.eps)[1] - _EDGE) // 2 if plan.eps else -1100
    small = np.where((exponent < -_FAR) & (largest > 0), np.maximum(exponent, least), 0)
    return np.where(exponent > _FAR, exponent - _FAR, small)


def _times(deviation: Double, rstd: Double) -> Double:
    """deviation * rstd, where a deviation of 0 gives 0 also when var + eps is 0 (by definition)."""
    product = deviation * rstd
    if np.isinf(rstd.hi).any():
        product = product.where(np.isinf(rstd.hi) & (deviation.hi == 0), _number(0))
    return product


def _named(mean: Double, var: Double, rstd: Double, plan: Plan) -> dict[str, Any]:
    """The statistics under the names of a Result, in the shape of one value for each group."""
    if not plan.kind.centers:
        named = {"mean_square": var, "rstd": rstd}
    else:
        named = {"mean": mean, "var": var, "rstd": rstd}
        if plan.source == "batch" and plan.layout.count > 1:
            named["var_unbiased"] = _divided(var, plan, ddof=1)
    return {name: value.hi.reshape(plan.layout.stats_shape) for name, value in named.items()}


def _divided(var: Double, plan: Plan, ddof: int) -> Double:
    """The biased variance, as it is when the sum is divided by n - ddof."""
    n = plan.layout.count
    if not ddof:
        return var
    if var.lo.ndim == 0:  # half and single precision, whose large tensors' statistics are no pairs
        return Double(var.hi * (n / (n - ddof)))
    return var * (_number(n) / _number(n - ddof))


def _updated(state: State, mean: Double, var: Double, plan: Plan) -> State:
    """The state after this batch: (1 - m) * old + m * batch for both running statistics.

    With several groups for each channel (instance), their statistics are averaged first, as
    torch's InstanceNorm does (aten/src/ATen/native/Normalization.cpp, instance_norm).
    """
    layout = plan.layout
    others = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
    groups = _number(math.prod(layout.stats_view) // math.prod(plan.weight_shape))
    var = _divided(var, plan, plan.running_ddof)
    new = _number(plan.new_weight(state.num_batches_tracked))
    running = []
    for old, batch in ((state.running_mean, mean), (state.running_var, var)):
        assert old is not None
        kept = Double(np.asarray(old, np.float64).reshape(layout.channels_view)) * (_number(1) - new)
        running.append((kept + batch.sum(others) / groups * new).hi.reshape(plan.weight_shape))
    return replace(
        state,
        running_mean=running[0],
        running_var=running[1],
        num_batches_tracked=state.num_batches_tracked + 1,
    )


def _warnings(
    x: Elements,
    output: Elements | None,
    state: State,
    plan: Plan,
    undefined: int,
    rstd: Floats,
) -> Iterator[str]:
    zero = 0
    if plan.source == "running":
        assert state.running_var is not None
        spread = np.asarray(state.running_var, np.float64) + plan.eps
        if negative := int(np.count_nonzero(spread < 0)):
            yield f"running_var is negative in {count(negative, 'channel')}: the output there is NaN"
        zero = int(np.count_nonzero(spread == 0))
        if zero:
            yield f"running_var + eps is 0 in {count(zero, 'channel')}: the output there is infinite, or 0 at the mean"
    elif plan.layout.count == 1 and plan.kind.centers:
        yield "each group of statistics has 1 value, so every normalized value is 0"
    if plan.source == "batch" and undefined:
        what = "variance" if plan.kind.centers else "mean square"
        yield f"{count(undefined, 'group')} of statistics with {what} 0 and eps 0: normalized is 0 by definition"
    if _surely_finite(state, plan, rstd) or (output is not None and all(np.isfinite(y).all() for y in _blocks(output))):
        return
    nan, infinite = (sum(int(np.count_nonzero(test(block))) for block in _blocks(x)) for test in (np.isnan, np.isinf))
    if nan or infinite:
        yield f"the input holds {nan} NaN and {count(infinite, 'infinity', 'infinities')}"
        return
    overflow = 0 if output is None or zero else sum(int(np.count_nonzero(np.isinf(y))) for y in _blocks(output))
    if overflow:
        yield f"{count(overflow, 'output value')} beyond the range of {plan.dtype} became infinite"


def _surely_finite(state: State, plan: Plan, rstd: Floats) -> bool:
    """Whether no output can be infinite or NaN: |normalized| is at most the root of n."""
    if plan.source == "running" or not np.isfinite(rstd).all():
        return False
    weight, bias = (0.0 if values is None else float(np.abs(values).max()) for values in (state.weight, state.bias))
    bound = math.sqrt(plan.layout.count) * (weight if state.weight is not None else 1.0) + bias
    return bound < 6e4  # float16, which ends at 65504, has the shortest range


def _squared(value: Double) -> Double:
    return value * value


def _number(value: float) -> Double:
    return Double(np.float64(value))


def _total(values: Iterable[Double]) -> Double:
    return reduce(Double.__add__, values)


class _Blocks:
    """The float64 blocks of some regions of the tensor, in order; a single one is read once."""

    def __init__(self, view: NDArray[Any], regions: list[Region]) -> None:
        self._view, self._regions = view, regions
        self._kept = self._read(regions[0]) if len(regions) == 1 else None
        self.shape = view[regions[0]].shape

    def __iter__(self) -> Iterator[Double]:
        return (self._read(region) if self._kept is None else self._kept for region in self._regions)

    def _read(self, region: Region) -> Double:
        return Double(self._view[region].astype(np.float64))


def regions_of(shape: Shape, most: int) -> Iterator[Region]:
    """Regions of at most ``most`` elements that cover ``shape``, in C order."""
    inner = 1
    steps: list[int] = []
    for size in reversed(shape):
        steps.insert(0, max(1, min(size, most // inner)))
        inner *= size
    starts = product(*(range(0, size, step) for size, step in zip(shape, steps, strict=True)))
    for start in starts:
        yield tuple(slice(at, min(at + step, size)) for at, step, size in zip(start, steps, shape, strict=True))


def _runs(plan: Plan, groups: Region) -> list[Region]:
    """The regions of the view that make up some groups of statistics: one, unless they are long."""
    axes = plan.layout.axes
    averaged = tuple(size if axis in axes else 1 for axis, size in enumerate(plan.layout.view))
    return [
        tuple(run[axis] if axis in axes else groups[axis] for axis in range(len(averaged)))
        for run in regions_of(averaged, BLOCK)
    ]


def _at(values: Double | None, region: Region) -> Double:
    """The part of broadcast values that meets a region of the view."""
    assert values is not None
    return values[tuple(part if size > 1 else slice(None) for part, size in zip(region, values.shape, strict=True))]
