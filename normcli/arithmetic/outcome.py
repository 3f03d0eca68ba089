"""From the statistics of all groups to the Result: the running update, shapes, and what is to be said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from normcli.arithmetic.evaluate import Group
from normcli.arithmetic.numbers import SINGLES
from normcli.arithmetic.order import Elements
from normcli.arithmetic.pair import Floats, Pair
from normcli.arithmetic.result import Named, Result, State
from normcli.arithmetic.warned import gradient_warnings, warnings
from normcli.formula.language import names_in
from normcli.planning.plan import Plan


def constants(plan: Plan, state: State) -> dict[str, float]:
    """The numbers of the lines that the plan knows."""
    layout = plan.layout
    samples = math.prod(layout.stats_view) // math.prod(plan.weight_shape)
    m = plan.new_weight(state.num_batches_tracked) if plan.updates_running else 0.0
    return {"eps": plan.eps, "n": layout.count, "N": samples, "m": m}


def outcome(
    x: Elements,
    output: Elements | None,
    plan: Plan,
    state: State,
    statistics: Mapping[str, Any],
    elements: Mapping[str, Any],
    undefined: int,
    gradients: Mapping[str, Any] | None = None,
    after: State | None = None,
) -> Result:
    """The Result of a calculation whose ``statistics`` have the shape ``plan.layout.stats_view``.

    A statistic that is a function is worked out when it is asked for. ``gradients``, where they were asked for,
    are what flowed in and what came out; ``after`` is the state after this batch, where it is known already.
    """
    with np.errstate(all="ignore"):
        shape = plan.layout.stats_shape
        named: dict[str, Any] = {
            name: partial(_later, value, shape) if callable(value) else as_floats(value).reshape(shape)
            for name, value in statistics.items()
        }
        if after is None:
            after = _updated(plan, state, statistics) if plan.updates_running else state
        said = [*warnings(x, output, state, plan, named.get("rstd"), undefined)]
        said += gradient_warnings(gradients, plan, undefined) if gradients else []
    if elements or gradients:
        named |= {**elements, **(gradients or {})}
    lines = plan.lines + (plan.gradient_lines if gradients else ())
    ordered = {line.name: named[line.name] for line in lines if line.name in named}
    if gradients:
        ordered["grad_output"] = named["grad_output"]
    return Result(plan=plan, named=Named(ordered), output=output, before=state, after=after, warnings=tuple(said))


def _later(value: Callable[[], Any], shape: tuple[int, ...]) -> Floats:
    return as_floats(value()).reshape(shape)


def _updated(plan: Plan, state: State, statistics: Mapping[str, Any]) -> State:
    """The state after this batch."""
    layout, lines = plan.layout, plan.running_lines
    given: dict[str, Any] = {name: SINGLES.number(value) for name, value in constants(plan, state).items()}
    for name in ("running_mean", "running_var"):
        given[name] = Pair(np.asarray(getattr(state, name), np.float64).reshape(layout.channels_view))
    samples = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
    taken = {name for line in lines for name in names_in(line.value)} & statistics.keys()
    given |= {name: value() if callable(value := statistics[name]) else value for name in taken}
    group = Group(lines, SINGLES, given, [dict], {"samples": samples})
    shown = [line for line in lines if line.role == "shown"]
    after: dict[str, Any] = {line.name: as_floats(group.value(line.value)).reshape(plan.weight_shape) for line in shown}
    return replace(state, **after, num_batches_tracked=state.num_batches_tracked + 1)


def as_floats(value: Any) -> Floats:
    """A number type's value in float64."""
    found: Floats = value if isinstance(value, np.ndarray) else value.hi
    return found
