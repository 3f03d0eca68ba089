"""The family's lines in compiled loops, slab by slab, called with a description of each.

``loops.c`` is compiled when the package is installed where there is a C compiler; without it,
``compiled()`` is None (``why_not()`` says why), and the lines are interpreted, more slowly. What keeps each
output within 0.5001 units in the last place for tensors of 24 bits or fewer, in float64:

- sums of a tile's values lose nothing that matters, and the sums of tiles are added as pairs;
- the mean is a pair, high + low, and an element's deviation is (x - high) - low.

Nothing overflows on the way: the square of the largest float32 is far inside float64's range. float64
tensors have pairs throughout. Threads work at the same time: ctypes lets go of the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.order import (
    Axes,
    Elements,
    Region,
    axes_of,
    in_order,
    placed,
    shape_of,
    stats_region,
    stats_shape,
)
from normcli.arithmetic.result import State
from normcli.arithmetic.slabs import Partial, Statistics, mean_of
from normcli.dtypes import FLOAT_DTYPES
from normcli.files.stored import Stored
from normcli.formula.extents import needed
from normcli.formula.family import CENTERED, DDOF_1, EVAL, RMS
from normcli.formula.language import Lines, lines, parsed
from normcli.formula.rewrite import replaced
from normcli.planning.layout import Layout
from normcli.planning.plan import Plan

MOST_DIMENSIONS = 16  # as loops.c has it; a tensor has fewer once dimensions of one purpose are merged
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


_BODIES = {needed(replaced(lines(CENTERED), change), ["normalized"]): True for change in ({}, DDOF_1, EVAL)} | {
    needed(lines(RMS), ["normalized"]): False
}  # whether a mean is subtracted
_ENDS = {parsed(f"normalized{end}") for end in ("", " * weight", " + bias", " * weight + bias")}


@cache
def centers(program: Lines) -> bool | None:
    """Whether these lines subtract a mean, if they are what the loops compute; None where they are not."""
    end = next((line.value for line in program if line.name == "output"), None)
    return _BODIES.get(needed(program, ["normalized"])) if end in _ENDS else None


def takes(layout: Layout, x: NDArray[Any], output: NDArray[Any]) -> bool:
    """Whether the loops can take these arrays as they lie; copies in C order they always can."""
    axes = axes_of(layout, x.strides)
    merged, *_ = axes.merged(*(in_order(array, layout, axes) for array in (x, output)))
    return x.flags.aligned and output.flags.aligned and len(merged.shape) <= MOST_DIMENSIONS


class Work:
    """One calculation: its parameters in float64, and the statistics as they come in.

    ``axes`` are those of ``x`` and ``output``; ``given`` holds the statistics that are not the
    tensor's own, as arrays of the shape ``axes.stats``, by the names of ``Statistics``.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        plan: Plan,
        state: State,
        axes: Axes,
        x: Elements,
        output: Elements | None,
        given: Mapping[str, NDArray[np.float64]],
    ) -> None:
        self._library, self.plan, self.needs_statistics = library, plan, not given
        weight, bias = (None if values is None else placed(values, axes) for values in (state.weight, state.bias))
        present = [elements for elements in (x, output) if elements is not None]
        self.axes, self.x, self.output = axes, x, output = (*axes.merged(*present), None)[:3]
        self.weight, self.bias = (
            None if values is None else values.reshape(axes.channels) for values in (weight, bias)
        )
        self._own = threading.local()
        self.statistics = Statistics.empty(axes.stats, plan.dtype)
        for name, values in given.items():
            if (room := getattr(self.statistics, name)) is not None:
                room[...] = values.reshape(axes.stats)
        n = plan.layout.count
        self._base = Slab(
            rank=len(axes.shape),
            dtype=FLOAT_DTYPES.index(plan.dtype),
            x_dtype=FLOAT_DTYPES.index(plan.dtype),
            centers=bool(centers(plan.lines)),
            n=n,
            divisor=n - plan.ddof,
            eps=plan.eps,
            whole_row=axes.shape[-1],
        )
        stats, params = _strides(axes.stats, axes.averaged), _strides(axes.channels)
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
        if not self.needs_statistics:
            self.emit(slab)
            return
        x, y = self._taken(slab), self._room(slab)
        self._library.normcli_whole(self._described(slab, x, y, cut_averaged=False))
        self._put(slab, y)

    def partial(self, slab: Region) -> Partial:
        """Sums, and squares about their mean, of a slab that is a part of longer groups."""
        x = self._taken(slab)
        described = self._described(slab, x, None, cut_averaged=True)
        shape = stats_shape(self.axes, shape_of(slab))
        arrays = {name: np.zeros(shape) for name in ("mean", "mean_low", "var", "var_low", *_SUMS)}
        for name, values in arrays.items():
            setattr(described, name, _address(values))
        described.stat_stride[: described.rank] = _strides(shape, self.axes.averaged)
        self._library.normcli_moments(described)
        n = math.prod(shape_of(slab)) // math.prod(shape)
        high, low, squares, squares_low = (arrays[name] for name in _SUMS)
        return Partial(n=n, high=high, low=low, squares=squares, squares_low=squares_low)

    def keep(self, group: Region, partial: Partial) -> None:
        """The statistics of whole groups, from their sums."""
        at = stats_region(self.axes, group)
        kept = self.statistics
        kept.mean[at], kept.mean_low[at] = mean_of(partial.high, partial.low, self.plan.layout.count)
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
        shape = shape_of(slab)
        size = math.prod(shape)
        held: NDArray[Any] | None = getattr(self._own, name, None)
        if held is None or held.size < size:
            held = np.empty(size, self.x.dtype.newbyteorder("="))
            setattr(self._own, name, held)
        return held[:size].reshape(shape)

    def _described(self, slab: Region, x: NDArray[Any] | None, y: NDArray[Any] | None, *, cut_averaged: bool) -> Slab:
        """A slab as loops.c is told of it, cut along the longest dimension that is averaged over, or is not."""
        described = Slab.from_buffer_copy(self._base)
        shape = shape_of(slab)
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
