"""The compiled inner loops of ``normcli.arithmetic.slabs``, called with a description of each slab.

``loops.c`` is compiled when the package is installed where there is a C compiler; without it,
``compiled()`` is None (``why_not()`` says why), ``normcli.arithmetic.slabs`` does the same in NumPy, and float64
tensors stay with double-double arithmetic. Threads work at the same time: ctypes lets go of the
interpreter's lock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import slabs
from normcli.arithmetic.result import State
from normcli.arithmetic.slabs import MOST_DIMENSIONS, Axes, Elements, Partial, Region, Work, stats_region
from normcli.dtypes import FLOAT_DTYPES
from normcli.files.stored import Stored
from normcli.planning.plan import Plan

TILE = 2**16  # elements of a tile: in single precision a quarter of a megabyte, which a second-level cache holds
_STATISTICS = ("mean", "mean_low", "var", "rstd", "var_low", "rstd_low")
_SUMS = ("sum", "sum_low", "squares", "squares_low")


class Slab(ctypes.Structure):
    """The struct of the same name in ``loops.c``, which says what each field means."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rank", "dtype", "x_dtype", "centers")),
        *(
            (name, ctypes.c_int64 * MOST_DIMENSIONS)
            for name in ("shape", "x_stride", "y_stride", "stat_stride", "param_stride")
        ),
        *((name, ctypes.c_int64) for name in ("cut", "step", "whole_row")),
        *((name, ctypes.c_double) for name in ("n", "divisor", "eps")),
        *((name, ctypes.c_void_p) for name in ("x", "y", *_STATISTICS, *_SUMS, "weight", "bias")),
    )


def compiled() -> ctypes.CDLL | None:
    """The compiled library, or None where it cannot be used."""
    return _found()[0]


def why_not() -> str | None:
    """Why there are no compiled loops, in words; None where there are."""
    return _found()[1]


@cache
def _found() -> tuple[ctypes.CDLL | None, str | None]:
    found = importlib.util.find_spec("normcli.arithmetic._loops")
    if found is None or found.origin is None:
        return None, "not compiled when normcli was installed"
    try:
        library = ctypes.CDLL(found.origin)
        told = (ctypes.c_int64 * len(_SLAB)).in_dll(library, "normcli_slab")
        for name in ("whole", "moments", "finish", "emit"):
            function = getattr(library, f"normcli_{name}")
            function.argtypes, function.restype = [ctypes.POINTER(Slab)], None
    except (OSError, AttributeError, ValueError) as error:  # not to be loaded; without what is sought in it
        return None, f"they cannot be loaded: {error}"
    if [*told] != _SLAB:
        return None, "they were compiled from another version of normcli"
    return library, None


_SLAB = [ctypes.sizeof(Slab), *(getattr(Slab, field[0]).offset for field in Slab._fields_)]


class CompiledWork(Work):
    """``normcli.arithmetic.slabs.Work`` with its three steps on a slab in C."""

    def __init__(
        self, library: ctypes.CDLL, plan: Plan, state: State, axes: Axes, x: Elements, output: Elements | None
    ) -> None:
        super().__init__(plan, state, axes, x, output)
        self._library = library
        n = plan.layout.count
        self._base = Slab(
            rank=len(self.axes.shape),
            dtype=FLOAT_DTYPES.index(plan.dtype),
            x_dtype=FLOAT_DTYPES.index(plan.dtype),
            centers=plan.kind.centers,
            n=n,
            divisor=n - plan.ddof,
            eps=plan.eps,
            whole_row=self.axes.shape[-1],
        )
        stats, params = _strides(self.axes.stats, self.axes.averaged), _strides(self.axes.channels)
        if self.weight is None and self.bias is None:
            params = [0] * len(params)
        self._base.stat_stride[: self._base.rank], self._base.param_stride[: self._base.rank] = stats, params
        arrays = {name: (getattr(self.statistics, name), stats) for name in _STATISTICS}
        arrays |= {name: (getattr(self, name), params) for name in ("weight", "bias")}
        self._starts = {
            name: (_address(values), strides) for name, (values, strides) in arrays.items() if values is not None
        }

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        if self.plan.source == "running":
            self.emit(slab)
            return
        x, y = self._taken(slab), self._room(slab)
        self._library.normcli_whole(self._described(slab, x, y, cut_averaged=False))
        self._put(slab, y)

    def partial(self, slab: Region) -> Partial:
        """Sums, and squares about their mean, of a slab that is a part of longer groups."""
        x = self._taken(slab)
        described = self._described(slab, x, None, cut_averaged=True)
        shape = slabs.stats_shape(self.axes, slabs.shape_of(slab))
        arrays = {name: np.zeros(shape) for name in ("mean", "mean_low", "var", "var_low", *_SUMS)}
        for name, values in arrays.items():
            setattr(described, name, _address(values))
        described.stat_stride[: described.rank] = _strides(shape, self.axes.averaged)
        self._library.normcli_moments(described)
        n = math.prod(slabs.shape_of(slab)) // math.prod(shape)
        high, low, squares, squares_low = (arrays[name] for name in _SUMS)
        return Partial(n=n, high=high, low=low, squares=squares, squares_low=squares_low)

    def keep(self, group: Region, partial: Partial) -> None:
        """The statistics of whole groups, from their sums."""
        at = stats_region(self.axes, group)
        kept = self.statistics
        kept.mean[at], kept.mean_low[at] = slabs.mean_of(partial.high, partial.low, self.plan.layout.count)
        kept.var[at] = partial.squares
        if kept.var_low is not None:
            kept.var_low[at] = partial.squares_low
        self._library.normcli_finish(self._described(group, None, None, cut_averaged=False))

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        x, y = self._taken(slab), self._room(slab)
        if y is not None:
            self._library.normcli_emit(self._described(slab, x, y, cut_averaged=False))
            self._put(slab, y)

    def _taken(self, slab: Region) -> NDArray[Any]:
        """The elements of a slab; those of a file are read into this thread's buffer."""
        return self.x.read(slab, self._buffer("x", slab)) if isinstance(self.x, Stored) else np.asarray(self.x[slab])

    def _room(self, slab: Region) -> NDArray[Any] | None:
        """Where the outputs of a slab are to be written."""
        if self.output is None:
            return None
        return self._buffer("y", slab) if isinstance(self.output, Stored) else self.output[slab]

    def _put(self, slab: Region, y: NDArray[Any] | None) -> None:
        if isinstance(self.output, Stored):
            assert y is not None
            self.output[slab] = y

    def _buffer(self, name: str, slab: Region) -> NDArray[Any]:
        shape = slabs.shape_of(slab)
        size = math.prod(shape)
        held: NDArray[Any] | None = getattr(self._own, name, None)
        if held is None or held.size < size:
            held = np.empty(size, self.x.dtype.newbyteorder("="))
            setattr(self._own, name, held)
        return held[:size].reshape(shape)

    def _described(self, slab: Region, x: NDArray[Any] | None, y: NDArray[Any] | None, *, cut_averaged: bool) -> Slab:
        """A slab as loops.c is told of it, cut along the longest dimension that is averaged over, or is not."""
        described = Slab.from_buffer_copy(self._base)
        shape = slabs.shape_of(slab)
        described.shape[: len(shape)] = shape
        for name, (start, strides) in self._starts.items():
            setattr(
                described,
                name,
                start + 8 * sum(part.start * stride for part, stride in zip(slab, strides, strict=True)),
            )
        if x is not None:
            described.x, described.x_stride[: len(shape)] = _address(x), x.strides
        if y is not None:
            described.y, described.y_stride[: len(shape)] = _address(y), y.strides
        candidates = [d for d, averaged in enumerate(self.axes.averaged) if averaged == cut_averaged]
        described.cut = max(candidates, key=lambda d: shape[d], default=0)
        described.step = max(1, TILE * shape[described.cut] // math.prod(shape))
        if not candidates:
            described.step = shape[0]
        return described


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _strides(shape: tuple[int, ...], shrunk: tuple[bool, ...] | None = None) -> list[int]:
    """The strides of a C-ordered array in elements, 0 for dimensions of size 1 (or for those that have shrunk)."""
    none = shrunk or tuple(size == 1 for size in shape)
    return [0 if none[d] else math.prod(shape[d + 1 :]) for d in range(len(shape))]
