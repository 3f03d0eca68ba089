"""Tensors in memory, which the loops work through in one call: what does not depend on the numbers is kept.

It is kept for each plan, and each arrangement in memory that it has met. Small tensors have pairs throughout, whatever
their dtype, as the interpreted lines have: so their statistics are right to the last digit too.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import loops
from normcli.arithmetic.order import Axes, Floats, axes_of, in_order, placed
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
_ROWS = 4  # mean, mean_low, var and rstd; of pairs also var_low and rstd_low
ROWS = {"mean": 0, "mean_square": 2, "var": 2, "rstd": 3}  # of the statistics, as once.c has them
_ARGUMENTS = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.py_object)


class _Once(ctypes.Structure):
    """The struct Once of ``once.c``, which says what each field means."""

    _fields_ = (("slab", loops.Slab), *((name, ctypes.c_int64) for name in ("size", "groups", "parameters")))


class Whole:
    """The one call that a tensor takes.

    ``names`` are the statistics that the lines have; ``axes`` are None where these lie in the layout's order.
    """

    def __init__(self, library: ctypes.CDLL, plan: Plan, x: NDArray[Any], state: State) -> None:
        self._plan, self._view = plan, plan.layout.stats_view  # as long as it is kept, no other plan has its id
        self._dtype = FLOAT_DTYPES.index(plan.dtype)
        self.exactly = plan.dtype == "float64" or x.size <= _MOST_EXACT
        x = x.astype(np.float64, copy=False) if self.exactly else x
        self._axes = axes = axes_of(plan.layout, x.strides)
        self.axes = None if axes.order == tuple(sorted(axes.order)) else axes
        y = np.empty_like(x)
        values, results = (in_order(array, plan.layout, axes) for array in (x, y))
        slab = loops.Work(library, plan, state, axes, values, results, {}).described_whole()
        if self.exactly:
            slab.dtype = slab.x_dtype = _FLOAT64
        self._strides, self._most_threads = y.strides, max(1, x.size // _SHARE)
        groups = x.size // plan.layout.count
        self._once = ctypes.byref(_Once(slab, x.size, groups, math.prod(plan.weight_shape)))
        self._function = loops.with_the_lock("once", library, _ARGUMENTS)
        self._shape = _ROWS + 2 if self.exactly else _ROWS, groups
        has = {*ROWS, "var_unbiased"} - {"mean_square" if loops.centers(plan.lines) else "mean"}
        self.names = tuple(line.name for line in plan.lines if line.name in has)

    def __call__(
        self, x: NDArray[Any], state: State, out: NDArray[Any] | None, threads: int | None
    ) -> tuple[NDArray[Any], NDArray[np.float64], bool]:
        """The output, the statistics row by row, and whether there is nothing more to be looked at.

        That is so where every number is finite and none comes close to the end of a range. The output is ``out``,
        which lies apart from all that is read, where it is aligned and lies as the tensor does.
        """
        takes = out is not None and out.strides == self._strides and out.dtype == x.dtype and out.flags.aligned
        y = out if out is not None and takes else np.empty_like(x)
        wanted = 1 if self._most_threads == 1 else min(threads or cores(), self._most_threads)
        statistics, is_plain = self._called(self._dtype, x, y, state, wanted)
        if self.exactly and not is_plain and self._dtype != _FLOAT64:  # what is not finite is NumPy's to convert
            x = x.astype(np.float64)
            y = np.empty_like(x)
            self._called(_FLOAT64, x, y, state, wanted)
            with np.errstate(invalid="ignore", over="ignore"):
                y = rounded(y, self._plan.dtype)
        return y, statistics, is_plain

    def _called(
        self, dtype: int, x: NDArray[Any], y: NDArray[Any], state: State, threads: int
    ) -> tuple[NDArray[np.float64], bool]:
        statistics = np.empty(self._shape)
        weight, bias = state.weight, state.bias
        parameters = None if weight is None else self._placed(weight), None if bias is None else self._placed(bias)
        return statistics, self._function(self._once, dtype, threads, (x, y, statistics, *parameters)) == 1

    def _placed(self, values: NDArray[Any]) -> Floats:
        return np.asarray(values, np.float64, order="C") if self.axes is None else placed(values, self._axes)

    def parts(self, rows: NDArray[np.float64]) -> list[tuple[Floats, Floats | None]]:
        """Mean and variance, high and low, as they lie one after the other in the layout's order."""
        laid = (
            rows if self.axes is None else [np.ascontiguousarray(planned(row, self.axes, self._view)) for row in rows]
        )
        return [(laid[0], laid[1] if self.exactly else None), (laid[2], laid[4] if self.exactly else None)]


def named(rows: NDArray[np.float64], axes: Axes | None, view: tuple[int, ...]) -> dict[str, Any]:
    """mean, var and rstd in the shape of the layout's view, as pairs where there are some."""
    mean, mean_low, var, rstd, *low = (planned(row, axes, view) for row in rows)
    if not low:
        return {"mean": mean, "var": var, "rstd": rstd}
    return {"mean": Pair(mean, mean_low), "var": Pair(var, low[0]), "rstd": Pair(rstd, low[1])}


def planned(values: NDArray[np.float64], axes: Axes | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Statistics that lie in an order of their own, in the plan's order and a shape."""
    return values.reshape(shape) if axes is None else axes.planned(values.reshape(axes.stats)).reshape(shape)


_prepared: dict[tuple[Any, ...], Whole] = {}


def prepared(x: NDArray[Any], plan: Plan, state: State) -> tuple[Whole, NDArray[Any]] | None:
    """The call that a tensor takes, and the tensor as it takes it; None where the loops do not have these lines."""
    x = _packed(x, plan)
    key = id(plan), x.strides, state.weight is None, state.bias is None
    found = _prepared.get(key)
    if found is None:
        library = loops.compiled()
        if library is None or loops.centers(plan.lines) is None:
            return None
        if not loops.takes(plan.layout, x, np.empty_like(x)):
            return prepared(x.copy("C"), plan, state)
        if len(_prepared) == _MOST_KEPT:
            _prepared.clear()
        found = _prepared[key] = Whole(library, plan, x, state)
    return found, x


def _packed(x: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """The tensor aligned; one that is widened first lies without gaps too."""
    flags = x.flags
    is_wide = plan.dtype == "float64" or x.size > _MOST_EXACT
    return x if flags.aligned and (is_wide or flags.c_contiguous or flags.f_contiguous) else x.copy("K")
