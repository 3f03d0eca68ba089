"""The running statistics after a batch, channel by channel in a compiled loop."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from normcli.arithmetic import loops
from normcli.arithmetic.order import Floats
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import State
from normcli.planning.plan import Plan


class _Running(ctypes.Structure):
    """The struct Running of ``running.c``, which says what each field means."""

    _fields_ = (
        ("channels", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("momentum", "n", "over")),
        *((name, ctypes.c_void_p) for name in ("mean", "mean_low", "var", "var_low", "old_mean", "old_var", "new_mean",
                                               "new_var")),
    )  # fmt: skip


@cache
def _function() -> Any:
    """The compiled function; None where there is none, or one for another struct."""
    library = loops.compiled()
    if library is None or not hasattr(library, "normcli_running"):
        return None
    size = ctypes.c_int64.in_dll(library, "normcli_running_size").value
    library.normcli_running.restype = None
    return library.normcli_running if size == ctypes.sizeof(_Running) else None


def updated(plan: Plan, state: State, statistics: Mapping[str, Any]) -> State | None:
    """The state after this batch; None where several samples share a channel, whose statistics are averaged first."""
    function, layout = _function(), plan.layout
    channels = plan.weight_shape[0]
    if function is None or layout.stats_view != layout.channels_view:
        return None
    held = {name: _parts(statistics[name]) for name in ("mean", "var")}
    old = [np.ascontiguousarray(getattr(state, name), np.float64) for name in ("running_mean", "running_var")]
    new = np.empty((2, channels))
    each = _Running(channels=channels, momentum=plan.new_weight(state.num_batches_tracked), n=layout.count)
    each.over = layout.count - 1 if plan.running_ddof else 0
    for name, (high, low) in held.items():
        setattr(each, name, loops.address_of(high))
        setattr(each, f"{name}_low", None if low is None else loops.address_of(low))
    each.old_mean, each.old_var = map(loops.address_of, old)
    each.new_mean, each.new_var = map(loops.address_of, new)
    function(ctypes.byref(each))
    return replace(state, running_mean=new[0], running_var=new[1], num_batches_tracked=state.num_batches_tracked + 1)


def _parts(value: Any) -> tuple[Floats, Floats | None]:
    """A statistic's parts, as they lie one after the other in memory."""
    if not isinstance(value, Pair):
        return np.ascontiguousarray(value), None
    return np.ascontiguousarray(value.hi), np.ascontiguousarray(np.broadcast_to(value.lo, value.hi.shape))
