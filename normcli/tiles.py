"""The compiled inner loops of ``normcli.kernel``, called with a description of each slab.

``tiles.c`` is compiled when the package is installed where there is a C compiler; without it,
``compiled()`` is None, ``normcli.kernel`` does the same in NumPy, and float64 tensors stay with
double-double arithmetic. Threads work at the same time: ctypes lets go of the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli import kernel
from normcli.kernel import Axes, Partial, Region, Work, stats_region
from normcli.plan import Plan
from normcli.result import State

MOST_DIMENSIONS = 16  # as tiles.c has it; a tensor has fewer once dimensions of one purpose are merged
TILE = 2**16  # elements of a tile: in single precision a quarter of a megabyte, which a second-level cache holds
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_STATISTICS = ("mean", "mean_low", "var", "rstd", "var_low", "rstd_low")
_SUMS = ("sum", "sum_low", "squares", "squares_low")


class Slab(ctypes.Structure):
    """The struct of the same name in ``tiles.c``, which says what each field means."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rank", "dtype", "centers")),
        *(
            (name, ctypes.c_int64 * MOST_DIMENSIONS)
            for name in ("shape", "x_stride", "y_stride", "stat_stride", "param_stride")
        ),
        *((name, ctypes.c_int64) for name in ("cut", "step")),
        *((name, ctypes.c_double) for name in ("n", "divisor", "eps")),
        *((name, ctypes.c_void_p) for name in ("x", "y", *_STATISTICS, *_SUMS, "weight", "bias")),
    )


@cache
def compiled() -> ctypes.CDLL | None:
    """The compiled library, or None where it was not built."""
    found = importlib.util.find_spec("normcli._tiles")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(found.origin)
    for name in ("whole", "moments", "finish", "emit"):
        function = getattr(library, f"normcli_{name}")
        function.argtypes, function.restype = [ctypes.POINTER(Slab)], None
    return library


class CompiledWork(Work):
    """``normcli.kernel.Work`` with its three steps on a slab in C."""

    def __init__(
        self,
        library: ctypes.CDLL,
        plan: Plan,
        state: State,
        axes: Axes,
        x: NDArray[Any],
        output: NDArray[Any],
    ) -> None:
        super().__init__(plan, state, axes, x, output)
        self._library = library
        n = plan.layout.count
        self._base = Slab(
            rank=len(self.axes.shape),
            dtype=_DTYPES.index(plan.dtype),
            centers=plan.kind.centers,
            n=n,
            divisor=n - plan.ddof,
            eps=plan.eps,
        )
        strides = {"x_stride": self.x.strides, "y_stride": self.output.strides}
        strides |= {"stat_stride": _strides(self.axes.stats, self.axes.averaged)}
        for name, values in (strides | {"param_stride": _strides(self.axes.channels)}).items():
            getattr(self._base, name)[: self._base.rank] = values
        pointers: dict[str, tuple[NDArray[Any] | None, str]] = {
            "x": (self.x, "x_stride"),
            "y": (self.output, "y_stride"),
        }
        pointers |= {name: (getattr(self.statistics, name), "stat_stride") for name in _STATISTICS}
        pointers |= {name: (getattr(self, name), "param_stride") for name in ("weight", "bias")}
        self._starts = {
            name: (values.ctypes.data, tuple(getattr(self._base, stride)[: self._base.rank]), 1 if name in "xy" else 8)
            for name, (values, stride) in pointers.items()
            if values is not None
        }

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        if self.plan.source == "running":
            self.emit(slab)
        else:
            self._library.normcli_whole(self._described(slab, cut_averaged=False))

    def partial(self, slab: Region) -> Partial:
        """Sums, and squares about their mean, of a slab that is a part of longer groups."""
        described = self._described(slab, cut_averaged=True)
        shape = kernel.stats_shape(self.axes, kernel.shape_of(slab))
        arrays = {name: np.zeros(shape) for name in ("mean", "mean_low", "var", "var_low", *_SUMS)}
        for name, values in arrays.items():
            setattr(described, name, values.ctypes.data)
        described.stat_stride[: described.rank] = _strides(shape, self.axes.averaged)
        self._library.normcli_moments(described)
        n = math.prod(kernel.shape_of(slab)) // math.prod(shape)
        high, low, squares, squares_low = (arrays[name] for name in _SUMS)
        return Partial(n=n, high=high, low=low, squares=squares, squares_low=squares_low)

    def keep(self, group: Region, partial: Partial) -> None:
        """The statistics of whole groups, from their sums."""
        at = stats_region(self.axes, group)
        kept = self.statistics
        kept.mean[at], kept.mean_low[at] = kernel.mean_of(partial.high, partial.low, self.plan.layout.count)
        kept.var[at] = partial.squares
        if kept.var_low is not None:
            kept.var_low[at] = partial.squares_low
        self._library.normcli_finish(self._described(group, cut_averaged=False))

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        self._library.normcli_emit(self._described(slab, cut_averaged=False))

    def _described(self, slab: Region, *, cut_averaged: bool) -> Slab:
        """A slab as tiles.c is told of it, cut along the longest dimension that is averaged over, or is not."""
        described = Slab.from_buffer_copy(self._base)
        shape = kernel.shape_of(slab)
        described.shape[: len(shape)] = shape
        for name, (start, strides, size) in self._starts.items():
            places = sum(part.start * stride for part, stride in zip(slab, strides, strict=True))
            setattr(described, name, start + size * places)
        candidates = [d for d, averaged in enumerate(self.axes.averaged) if averaged == cut_averaged]
        described.cut = max(candidates, key=lambda d: shape[d], default=0)
        described.step = max(1, TILE * shape[described.cut] // math.prod(shape))
        if not candidates:
            described.step = shape[0]
        return described


def _strides(shape: tuple[int, ...], shrunk: tuple[bool, ...] | None = None) -> list[int]:
    """The strides of a C-ordered array in elements, 0 for dimensions of size 1 (or for those that have shrunk)."""
    none = shrunk or tuple(size == 1 for size in shape)
    return [0 if none[d] else math.prod(shape[d + 1 :]) for d in range(len(shape))]
