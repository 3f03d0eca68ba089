"""Tensors that the loops work through in one call: what does not depend on the numbers is kept.

It is kept for each plan, and each arrangement in memory that it has met. Small tensors have pairs throughout, whatever
their dtype, as the interpreted lines have: so their statistics are right to the last digit too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import loops
from normcli.arithmetic.order import axes_of, in_order, placed
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import State
from normcli.arithmetic.threads import cores
from normcli.dtypes import FLOAT_DTYPES
from normcli.floats import rounded
from normcli.planning.plan import Plan

_MOST_EXACT = 2**12  # elements whose pairs cost no more than the call
_MOST_KEPT = 128
_SHARE = 2**15  # elements at least that are worth a thread which waits for them
_FLOAT64 = FLOAT_DTYPES.index("float64")
_NAMES = ("mean", "mean_low", "var", "rstd", "var_low", "rstd_low")


class Whole:
    """The one call that a tensor takes."""

    def __init__(self, plan: Plan, x: NDArray[Any], state: State) -> None:
        library = loops.compiled()
        assert library is not None
        self._function = library.normcli_tensor
        self._plan, self._view = plan, plan.layout.stats_view  # as long as it is kept, no other plan has its id
        self.exactly = x.dtype == np.float64
        self._axes = axes = axes_of(plan.layout, x.strides)
        y = np.empty_like(x)
        values, results = (in_order(array, plan.layout, axes) for array in (x, y))
        work = loops.Work(library, plan, state, axes, values, results, {})
        self._slab = work.described_whole()
        if self.exactly:
            self._slab.dtype = self._slab.x_dtype = _FLOAT64
        self._strides, self._most_threads = y.strides, max(1, x.size // _SHARE)
        self._groups = x.size // plan.layout.count
        self._stats = axes.stats
        self._is_in_order = axes.order == tuple(sorted(axes.order))

    def __call__(
        self, x: NDArray[Any], state: State, out: NDArray[Any] | None, threads: int | None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """The output, and mean, var and rstd in the shape of the layout's view, as pairs where there are some."""
        slab = loops.Slab.from_buffer_copy(self._slab)
        slab.threads = 1 if self._most_threads == 1 else min(threads or cores(), self._most_threads)
        y = np.empty_like(x) if out is None or out.strides != self._strides or out.dtype != x.dtype else out
        count = len(_NAMES) if self.exactly else len(_NAMES) - 2
        statistics = np.empty((count, self._groups))
        start, step = loops.address_of(statistics), 8 * self._groups
        for number, name in enumerate(_NAMES[:count]):
            setattr(slab, name, start + number * step)
        slab.x, slab.y = loops.address_of(x), loops.address_of(y)
        held = []  # until the call is done
        for name, values in (("weight", state.weight), ("bias", state.bias)):
            if values is not None:
                held.append(placed(values, self._axes))
                setattr(slab, name, loops.address_of(held[-1]))
        self._function(slab)
        mean, mean_low, var, rstd, *low = map(self._planned, statistics)
        if not self.exactly:
            return y, {"mean": mean, "var": var, "rstd": rstd}
        var_low, rstd_low = low
        with np.errstate(invalid="ignore", over="ignore"):
            sure = rstd + rstd_low
            named = {
                "mean": Pair(mean, mean_low),
                "var": Pair(var, var_low),
                "rstd": Pair(sure, rstd_low - (sure - rstd)),
            }
            return (y if self._plan.dtype == "float64" else rounded(y, self._plan.dtype)), named

    def _planned(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._is_in_order:
            return values.reshape(self._view)
        return self._axes.planned(values.reshape(self._stats)).reshape(self._view)


_prepared: dict[tuple[Any, ...], Whole] = {}


def normalized(
    x: NDArray[Any], plan: Plan, state: State, *, out: NDArray[Any] | None = None, threads: int | None = 1
) -> tuple[NDArray[Any], dict[str, Any]] | None:
    """The output and the statistics; None where the loops do not take the tensor as it lies.

    The output is ``out``, which lies apart from all that is read, where it is aligned and lies as the tensor does.
    """
    if x.size <= _MOST_EXACT and plan.dtype != "float64":
        x = x.astype(np.float64)
    key = id(plan), x.strides, state.weight is None, state.bias is None
    prepared = _prepared.get(key)
    if prepared is None:
        if not loops.takes(plan.layout, x, np.empty_like(x)):
            return None
        if len(_prepared) == _MOST_KEPT:
            _prepared.clear()
        prepared = _prepared[key] = Whole(plan, x, state)
    if not x.flags.aligned:
        return None
    return prepared(x, state, out if out is not None and out.flags.aligned else None, threads)
