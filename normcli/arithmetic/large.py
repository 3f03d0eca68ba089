"""Large tensors through the compiled loops, or NumPy in their place, in the order of the elements in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import normcli.arithmetic as room
from normcli.arithmetic import loops, running, slabs, whole
from normcli.arithmetic.evaluate import Group
from normcli.arithmetic.numbers import PAIRS, SINGLES
from normcli.arithmetic.order import Axes, Elements, axes_of, in_order, placed
from normcli.arithmetic.outcome import as_floats, constants, outcome
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import Named, Result, State
from normcli.arithmetic.threads import cores
from normcli.arithmetic.warned import blocks, surely_finite, warnings
from normcli.files.stored import Stored
from normcli.planning.plan import Plan

_LEAST_VAR = 2.0**-900  # below, squares of float64 numbers come close to the end of its range
_MOST = 2.0**480  # up to here, no sum of their squares comes close to the other end


def normalize(
    x: Elements,
    plan: Plan,
    state: State,
    *,
    out: Elements | None,
    threads: int | None,
    grad_output: Elements | None = None,
    grad_input: Elements | None = None,
) -> Result | None:
    """The Result; None where the loops, or NumPy in their place, are not for this, or numbers left float64's range."""
    is_compiled = loops.compiled() is not None
    if not is_compiled and (plan.dtype == "float64" or plan.cast or grad_output is not None):
        return None
    if plan.weight_offset or plan.cast:
        added = _with_offset(plan, state)
        if added is None:
            return None
        if plan.cast is None:
            result = normalize(
                x, plan.plain, added, out=out, threads=threads, grad_output=grad_output, grad_input=grad_input
            )
        else:
            result = None if grad_output is not None else _with_cast(x, plan, added, out, threads)
        return None if result is None else replace(result, plan=plan, before=state, after=state)
    if is_compiled and isinstance(x, np.ndarray) and plan.source == "batch" and grad_output is None:
        return _at_once(x, plan, state, out, threads)
    if loops.centers(plan.lines) is None:
        return None
    if isinstance(x, Stored):
        return _normalized(x, plan, state, out, threads, grad_output, grad_input)
    assert out is None or isinstance(out, np.ndarray)
    output = np.empty_like(x) if out is None or not _is_apart(out, x, grad_output, state) else out
    if isinstance(grad_output, np.ndarray):
        grad_input = np.empty_like(x)
        if not loops.takes(plan.layout, x, output, grad_output, grad_input):
            x, grad_output = (np.require(values, requirements=("C", "A")) for values in (x, grad_output))
            output, grad_input = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    elif not loops.takes(plan.layout, x, output):
        x, output = np.require(x, requirements=("C", "A")), np.empty(x.shape, x.dtype)
    result = _normalized(x, plan, state, output, threads, grad_output, grad_input)
    if result is None or out is None or output is out:
        return result
    out[...] = output
    return replace(result, output=out)


def _is_apart(out: NDArray[Any], x: Elements, grad_output: Elements | None, state: State) -> bool:
    """Whether an array shares no memory with any that is read."""
    read = (x, grad_output, state.weight, state.bias, state.running_mean, state.running_var)
    return not any(isinstance(values, np.ndarray) and np.may_share_memory(out, values) for values in read)


def _with_offset(plan: Plan, state: State) -> State | None:
    """The state with the offset added to its weight.

    That is exact in float64 for weights of 24 bits down to 2^-29; None where it is not, but for tensors of fewer bits
    than float64, to whose outputs so little is nothing.
    """
    if state.weight is None:
        return state
    total = Pair(np.asarray(state.weight, np.float64)) + Pair(np.float64(plan.weight_offset))
    return None if plan.dtype == "float64" and total.lo.any() else replace(state, weight=total.hi)


def _with_cast(x: Elements, plan: Plan, state: State, out: Elements | None, threads: int | None) -> Result | None:
    """The Result where normalized values are rounded before the weight multiplies: twice through the loops.

    What comes of the first time is normalized already, with mean 0 and rstd 1. None for a tensor in a file.
    """
    library, layout = loops.compiled(), plan.layout
    first = normalize(x, plan.bare, State(), out=None, threads=threads) if isinstance(x, np.ndarray) else None
    if library is None or first is None:
        return None
    y, output = np.require(first.output, requirements=("C", "A")), np.empty(plan.shape, x.dtype)
    axes = axes_of(layout, y.strides)
    given = {name: np.full(axes.stats, float(name in ("var", "rstd"))) for name in loops.STATISTICS}
    values, results = (in_order(array, layout, axes) for array in (y, output))
    loops.Work(library, plan.plain, state, axes, values, results, given).through(threads or cores())
    if isinstance(out, np.ndarray):
        out[...] = output
        output = out
    rstd = first.named["rstd"]
    said = warnings(x, output, state, plan.plain, rstd, int(np.count_nonzero(np.isinf(rstd))))
    return replace(first, output=output, warnings=tuple(said))


def _at_once(x: NDArray[Any], plan: Plan, state: State, out: Any, threads: int | None) -> Result | None:
    """The Result of a tensor by its one call; None where the loops are not for its lines or numbers."""
    found = whole.prepared(x, plan, state)
    if found is None:
        return None
    call, x = found
    y, rows, is_plain = call(x, state, out if out is not None and _is_apart(out, x, None, state) else None, threads)
    output = y
    if out is not None and y is not out:
        out[...] = y
        output = out
    if is_plain and plan.layout.count > 1:
        return _plain(output, plan, state, call, rows)
    statistics = whole.named(rows, call.axes, plan.layout.stats_view)
    if not loops.centers(plan.lines):
        statistics = {"mean_square": statistics["var"], "rstd": statistics["rstd"]}
    is_near_the_end = call.exactly and (plan.dtype == "float64" or 0 < plan.eps < _LEAST_VAR)
    if is_near_the_end and _out_of_range(x, y, statistics, state, plan):
        return None
    return _result(x, output, plan, state, statistics, {})


def _plain(output: Any, plan: Plan, state: State, call: whole.Whole, rows: NDArray[np.float64]) -> Result:
    """The Result of a tensor of which there is nothing to be said; what nobody asks for is not worked out."""
    named = Named({name: partial(_statistic, name, rows, call.axes, plan) for name in call.names})
    if plan.updates_running:
        after = running.updated(plan, state, *call.parts(rows))
        return Result(plan=plan, named=named, output=output, before=state, after=state if after is None else after)
    return Result(plan=plan, named=named, output=output, before=state, after=state)


def _statistic(name: str, rows: NDArray[np.float64], axes: Axes | None, plan: Plan) -> NDArray[np.float64]:
    if name == "var_unbiased":
        found = _unbiased(plan, whole.named(rows, axes, plan.layout.stats_view)["var"])
        return as_floats(found).reshape(plan.layout.stats_shape)
    return whole.planned(rows[whole.ROWS[name]], axes, plan.layout.stats_shape)


def _normalized(
    x: Elements,
    plan: Plan,
    state: State,
    output: Elements | None,
    threads: int | None,
    grad_output: Elements | None,
    grad_input: Elements | None,
) -> Result | None:
    library, layout = loops.compiled(), plan.layout
    axes = axes_of(layout, x.strides)
    values = in_order(x, layout, axes)
    results = None if output is None else in_order(output, layout, axes)
    given: dict[str, NDArray[np.float64]] = {}
    numbers: dict[str, Any] = {name: PAIRS.number(value) for name, value in constants(plan, state).items()}
    if plan.source == "running":
        running = {
            name: Pair(np.broadcast_to(placed(getattr(state, name), axes), axes.stats))
            for name in ("running_mean", "running_var")
        }
        group = Group(plan.lines, PAIRS, numbers | running, [dict], {})
        for name in ("mean", "var", "rstd"):
            with np.errstate(all="ignore"):
                given[name], given[f"{name}_low"] = group[name].hi, np.broadcast_to(group[name].lo, axes.stats)
    if library is None:
        work: Any = room.uncompiled.Work(plan, state, axes, values, results, given)
    else:
        work = loops.Work(library, plan, state, axes, values, results, given)
    if library is not None and isinstance(x, Stored):
        slabs.work_through(work, threads, later=0 if grad_output is None else room.large_backward.PASSES[plan.source])
    else:
        work.through(threads or cores())
    found = work.statistics.reshaped(axes.stats)
    spread = "var" if loops.centers(plan.lines) else "mean_square"
    parts: dict[str, tuple[Any, Any]] = {"mean": (found.mean, found.mean_low)} if spread == "var" else {}
    parts |= {spread: (found.var, found.var_low), "rstd": (found.rstd, found.rstd_low)}
    statistics: dict[str, Any] = {
        name: _joined(*(axes.planned(part).reshape(layout.stats_view) for part in pair if part is not None), plan=plan)
        for name, pair in parts.items()
    }
    if plan.dtype == "float64" and _out_of_range(values, results, statistics, state, plan):
        return None
    gradients: dict[str, Any] | None = {}
    if grad_output is not None:
        gradients = room.large_backward.gradients(work, state, x, grad_output, grad_input, threads)
    return None if gradients is None else _result(x, output, plan, state, statistics, gradients)


def _result(
    x: Elements,
    output: Elements | None,
    plan: Plan,
    state: State,
    statistics: dict[str, Any],
    gradients: dict[str, Any],
) -> Result:
    if any(line.name == "var_unbiased" for line in plan.lines):
        statistics["var_unbiased"] = partial(_unbiased, plan, statistics["var"])
    undefined = int(np.count_nonzero(np.isinf(as_floats(statistics["rstd"]))))
    after = (
        running.updated(plan, state, *map(running.parts, (statistics["mean"], statistics["var"])))
        if plan.updates_running
        else None
    )
    return outcome(x, output, plan, state, statistics, {}, undefined, gradients, after)


def _unbiased(plan: Plan, var: Any) -> Any:
    """The loops give the variance that is divided by n, from which the kind's own lines have the other."""
    group = Group(plan.kind.program, SINGLES, {"n": SINGLES.number(plan.layout.count), "var": var}, [dict], {})
    with np.errstate(all="ignore"):
        return group["var_unbiased"]


def _joined(high: NDArray[np.float64], low: NDArray[np.float64] | None = None, *, plan: Plan) -> Any:
    """A statistic as a pair, or, of tensors of fewer bits than float64, in float64."""
    return high if plan.dtype != "float64" else Pair(high, 0.0 if low is None else low)


def _out_of_range(
    x: Elements, output: Elements | None, statistics: Mapping[str, Pair], state: State, plan: Plan
) -> bool:
    """Whether finite float64 numbers have left float64's range on the way, or come close to its lower end."""
    var, rstd = statistics["var" if "var" in statistics else "mean_square"], statistics["rstd"]
    if plan.source == "batch" and ((var.hi < _LEAST_VAR) & ((var.hi != 0) | (plan.eps < _LEAST_VAR))).any():
        return True
    mean = statistics["mean"].hi if "mean" in statistics else np.zeros(())
    if ((np.abs(mean) < _LEAST_VAR) & (mean != 0)).any():
        return True
    if not all(np.isfinite(part.hi).all() for part in statistics.values()):
        return any(np.abs(block[np.isfinite(block)]).max(initial=0) > _MOST for block in blocks(x))
    if output is None or surely_finite(state, plan, rstd.hi):
        return False
    return any(
        (np.isfinite(block) & ~np.isfinite(result)).any()
        for block, result in zip(blocks(x), blocks(output), strict=True)
    )
