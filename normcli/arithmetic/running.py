"""The running statistics after a batch, channel by channel in a compiled loop."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import loops
from normcli.arithmetic.order import Floats
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import State
from normcli.planning.plan import Plan

_ARGUMENTS = (*[ctypes.c_int64] * 2, *[ctypes.c_double] * 4, ctypes.py_object)
Parts = tuple[Floats, Floats | None]  # of a statistic: high and low, one after the other in memory as the view has them


def updated(plan: Plan, state: State, mean: Parts, var: Parts) -> State | None:
    """The state after this batch; where several samples share a channel, their statistics are averaged first."""
    library, layout = loops.compiled(), plan.layout
    if library is None:
        return None
    channels = plan.weight_shape[0]
    samples = rows = math.prod(layout.stats_view) // channels  # the samples come first
    n, over = layout.count, layout.count - 1 if plan.running_ddof else 0
    if samples > 1 and mean[1] is None:  # floats are averaged as the lines do it: without pairs
        unbiased = var[0] * n / over if over else var[0]
        mean, var, rows, over = (_summed(plan, mean[0]), None), (_summed(plan, unbiased), None), 1, 0
    new = np.empty((2, channels))
    momentum = plan.new_weight(state.num_batches_tracked)
    old = _floats(state.running_mean), _floats(state.running_var)
    loops.with_the_lock("updated", library, _ARGUMENTS)(
        rows, channels, samples, n, over, momentum, (*mean, *var, *old, new)
    )
    return State(
        weight=state.weight,
        bias=state.bias,
        running_mean=new[0],
        running_var=new[1],
        num_batches_tracked=state.num_batches_tracked + 1,
    )


def _floats(values: NDArray[Any] | None) -> Floats:
    return np.asarray(values, np.float64, order="C")


def _summed(plan: Plan, values: Floats) -> Floats:
    """The sum over the samples."""
    layout = plan.layout
    samples = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
    return np.ascontiguousarray(np.add.reduce(values.reshape(layout.stats_view), axis=samples))


def parts(value: Any) -> Parts:
    """A statistic's parts, as they lie one after the other in memory."""
    if not isinstance(value, Pair):
        return np.ascontiguousarray(value), None
    return np.ascontiguousarray(value.hi), np.ascontiguousarray(np.broadcast_to(value.lo, value.hi.shape))
