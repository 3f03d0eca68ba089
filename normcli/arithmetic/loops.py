"""The family's lines in compiled loops, slab by slab, called with a description of each.

``loops.c`` is compiled when the package is installed where there is a C compiler; without it,
``compiled()`` is None (``why_not()`` says why), and the lines are interpreted, more slowly. What keeps each
output within 0.5001 units in the last place for tensors of 24 bits or fewer, in float64:

- sums of a tile's values, and of their squares, about a number near the mean lose nothing that matters (``sums.c``
  says why), and the sums of tiles are added as pairs;
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
    Floats,
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
LEAST_WIDTH = 256  # of a tile whose statistics lie side by side
_DOUBLE = np.dtype(np.float64)
_STATISTICS = ("mean", "mean_low", "var", "rstd", "var_low", "rstd_low")
_SUMS = ("sum", "sum_low", "squares", "squares_low")
_FUNCTIONS = ("whole", "moments", "finish", "emit", *(f"{n}_backward" for n in ("whole", "part", "finish", "emit")))
SHARED = ("shift", "shift_low", "slope", "slope_low", "size")
PART_SUMS = ("shifts", "shifts_low", "slopes", "slopes_low")
PARAMETERS = ("grad_weight", "grad_weight_low", "grad_bias", "grad_bias_low")


class Slab(ctypes.Structure):
    """The struct of the same name in ``loops.c``, which says what each field means."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rank", "dtype", "x_dtype", "g_dtype", "centers", "given")),
        *(
            (name, ctypes.c_int64 * MOST_DIMENSIONS)
            for name in ("shape", "x_stride", "y_stride", "g_stride", "stat_stride", "param_stride")
        ),
        *((name, ctypes.c_int64) for name in ("cut", "step", "whole_row")),
        *((name, ctypes.c_double) for name in ("n", "divisor", "eps")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "g", *_STATISTICS, *_SUMS, *SHARED, *PART_SUMS)),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", *PARAMETERS)),
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
        for name in _FUNCTIONS:
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


def takes(layout: Layout, *arrays: NDArray[Any]) -> bool:
    """Whether the loops can take these arrays as they lie, x first; copies in C order they always can."""
    axes = axes_of(layout, arrays[0].strides)
    merged, *_ = axes.merged(*(in_order(array, layout, axes) for array in arrays))
    return all(array.flags.aligned for array in arrays) and len(merged.shape) <= MOST_DIMENSIONS


class Work:
    """One calculation: its parameters in float64, and the statistics as they come in.

    ``axes`` are those of ``x``, ``output`` and ``grad_output``; ``given`` holds the statistics that are not the
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
        grad_output: Elements | None = None,
    ) -> None:
        self._library, self.plan, self.needs_statistics = library, plan, not given
        weight, bias = (None if values is None else placed(values, axes) for values in (state.weight, state.bias))
        present = [elements for elements in (x, output, grad_output) if elements is not None]
        axes, self.x, *others = axes.merged(*present)
        self.axes = axes
        self.output = others.pop(0) if output is not None else None
        self.grad_output = others.pop(0) if grad_output is not None else None
        self.weight, self.bias = (
            None if values is None else values.reshape(axes.channels) for values in (weight, bias)
        )
        self._own = threading.local()
        self.statistics = Statistics.of(axes.stats, plan.dtype, given)
        n = plan.layout.count
        self._base = Slab(
            rank=len(axes.shape),
            dtype=FLOAT_DTYPES.index(plan.dtype),
            x_dtype=FLOAT_DTYPES.index(plan.dtype),
            centers=bool(centers(plan.lines)),
            g_dtype=FLOAT_DTYPES.index(plan.dtype if grad_output is None else grad_output.dtype.name),
            given=plan.source == "running",
            n=n,
            divisor=n - plan.ddof,
            eps=plan.eps,
            whole_row=axes.shape[-1],
        )
        params = (
            strides_of(axes.channels) if self.weight is not None or self.bias is not None else [0] * len(axes.shape)
        )
        self._base.param_stride[: self._base.rank] = params
        self._base.stat_stride[: self._base.rank] = strides_of(axes.stats, axes.averaged)
        self._starts: dict[str, tuple[int, list[int]]] = {}
        self._place({name: getattr(self.statistics, name) for name in _STATISTICS}, axes.stats, axes.averaged)
        self._place({"weight": self.weight, "bias": self.bias}, axes.channels)

    def _place(
        self, arrays: Mapping[str, Floats | None], shape: tuple[int, ...], shrunk: tuple[bool, ...] | None = None
    ) -> None:
        """Tell the slabs to come where in some arrays their own numbers begin."""
        strides = strides_of(shape, shrunk)
        self._starts |= {name: (address_of(values), strides) for name, values in arrays.items() if values is not None}

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        if not self.needs_statistics:
            self.emit(slab)
            return
        x, y = self._taken(slab), self._room(slab)
        self._library.normcli_whole(self._described(slab, cut_averaged=False, x=x, y=y))
        self._put(slab, y)

    def partial(self, slab: Region) -> Partial:
        """Sums, and squares about their mean, of a slab that is a part of longer groups."""
        x = self._taken(slab)
        described = self._described(slab, cut_averaged=True, x=x)
        shape = stats_shape(self.axes, shape_of(slab))
        arrays = {name: np.zeros(shape) for name in ("mean", "mean_low", "var", "rstd", "var_low", *_SUMS)}
        self._point(described, arrays, self.axes.averaged)
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
        self._library.normcli_finish(self._described(group, cut_averaged=False))

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        x, y = self._taken(slab), self._room(slab)
        if y is not None:
            self._library.normcli_emit(self._described(slab, cut_averaged=False, x=x, y=y))
            self._put(slab, y)

    def _taken(self, slab: Region, name: str = "x") -> NDArray[Any]:
        """The elements of a slab; those of a file are read into this thread's buffer."""
        elements = self.x if name == "x" else self.grad_output
        assert elements is not None
        if isinstance(elements, Stored):
            return elements.read(slab, self._buffer(name, slab, elements.dtype))
        return np.asarray(elements[slab])

    def _room(self, slab: Region) -> NDArray[Any] | None:
        """Where the outputs of a slab are to be written."""
        if self.output is None:
            return None
        return self._buffer("y", slab, self.output.dtype) if isinstance(self.output, Stored) else self.output[slab]

    def _put(self, slab: Region, y: NDArray[Any] | None) -> None:
        if isinstance(self.output, Stored):
            assert y is not None
            self.output[slab] = y

    def _buffer(self, name: str, slab: Region, dtype: np.dtype[Any]) -> NDArray[Any]:
        return self._held(name, shape_of(slab), dtype.newbyteorder("="))

    def _held(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any] = _DOUBLE) -> NDArray[Any]:
        """This thread's own memory for something, used anew with every slab: to get new memory takes long."""
        size = math.prod(shape)
        held: NDArray[Any] | None = getattr(self._own, name, None)
        if held is None or held.size < size:
            held = np.empty(size, dtype)
            setattr(self._own, name, held)
        return held[:size].reshape(shape)

    def _point(self, described: Slab, arrays: Mapping[str, Floats], averaged: tuple[bool, ...]) -> None:
        """Have a slab use statistics of its own, which are all of one shape."""
        for name, values in arrays.items():
            setattr(described, name, address_of(values))
        described.stat_stride[: described.rank] = strides_of(next(iter(arrays.values())).shape, averaged)

    def described_whole(self) -> Slab:
        """The tensor as one slab."""
        region = tuple(slice(0, size) for size in self.axes.shape)
        return self._described(region, cut_averaged=False, x=np.asarray(self.x), y=self.output)

    def _described(self, slab: Region, *, cut_averaged: bool, **elements: NDArray[Any] | None) -> Slab:
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
        for name, array in elements.items():
            if array is not None:
                setattr(described, name, address_of(array))
                getattr(described, f"{name}_stride")[: len(shape)] = array.strides
        candidates = [d for d, averaged in enumerate(self.axes.averaged) if averaged == cut_averaged]
        described.cut = max(candidates, key=lambda d: shape[d], default=0)
        described.step = max(1, TILE * shape[described.cut] // math.prod(shape))
        if described.cut == len(shape) - 1 and not cut_averaged:
            tiles = max(1, shape[-1] // max(described.step, LEAST_WIDTH))
            described.step = -(-shape[-1] // tiles // 16) * 16
        if not candidates:
            described.step = shape[0]
        return described


def address_of(array: NDArray[Any]) -> int:
    """Where an array's first element lies in memory."""
    address: int = array.__array_interface__["data"][0]
    return address


def strides_of(shape: tuple[int, ...], shrunk: tuple[bool, ...] | None = None) -> list[int]:
    """The strides of a C-ordered array in elements, 0 for dimensions of size 1 (or for those that have shrunk)."""
    none = shrunk or tuple(size == 1 for size in shape)
    return [0 if none[d] else math.prod(shape[d + 1 :]) for d in range(len(shape))]
