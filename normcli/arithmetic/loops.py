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
from collections.abc import Mapping, Sequence
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
    stats_shape,
)
from normcli.arithmetic.result import State
from normcli.arithmetic.slabs import Statistics, cells_of
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
_DOUBLE = np.dtype(np.float64)
STATISTICS = ("mean", "mean_low", "var", "rstd", "var_low", "rstd_low")
_SUMS = ("sum", "sum_low", "squares", "squares_low")
_WITH_THE_LOCK = ("once", "updated")  # functions that take arrays themselves
_FUNCTIONS = ("tensor", "moments", "join", *(f"{n}_backward" for n in ("whole", "part", "finish", "emit")))
_CLAIMING = ("tensor", "moments")  # memory, of which they say whether there was enough
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
        ("steps", ctypes.c_int64 * MOST_DIMENSIONS),
        *((name, ctypes.c_int64) for name in ("tile", "threads", "cut", "step", "whole_row")),
        *((name, ctypes.c_double) for name in ("n", "divisor", "eps")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "g", *STATISTICS, *_SUMS, *SHARED, *PART_SUMS)),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", *PARAMETERS)),
    )


def compiled() -> ctypes.CDLL | None:
    """The compiled library, or None where it cannot be used."""
    return _found()[0]


@cache
def with_the_lock(name: str, library: ctypes.CDLL, types: tuple[Any, ...]) -> Any:
    """A function of the library that takes arrays themselves, and so is called with the interpreter's lock held."""
    function = ctypes.PyDLL(library._name)[f"normcli_{name}"]
    function.argtypes, function.restype = types, ctypes.c_int64
    return function


def why_not() -> str | None:
    """Why there are no compiled loops, in words; None where there are."""
    return _found()[1]


def _done(found: int) -> None:
    if not found:
        raise MemoryError


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
            function.argtypes, function.restype = [ctypes.POINTER(Slab)], _done if name in _CLAIMING else None
        for name in _WITH_THE_LOCK:
            getattr(library, f"normcli_{name}")
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
            tile=TILE,
            whole_row=axes.shape[-1],
        )
        self.cells = cells_of(axes, TILE)
        self._base.steps[: self._base.rank] = self.cells
        params = (
            strides_of(axes.channels) if self.weight is not None or self.bias is not None else [0] * len(axes.shape)
        )
        self._base.param_stride[: self._base.rank] = params
        self._base.stat_stride[: self._base.rank] = strides_of(axes.stats, axes.averaged)
        self._starts: dict[str, tuple[int, list[int]]] = {}
        self._place({name: getattr(self.statistics, name) for name in STATISTICS}, axes.stats, axes.averaged)
        self._place({"weight": self.weight, "bias": self.bias}, axes.channels)

    def _place(
        self, arrays: Mapping[str, Floats | None], shape: tuple[int, ...], shrunk: tuple[bool, ...] | None = None
    ) -> None:
        """Tell the slabs to come where in some arrays their own numbers begin."""
        strides = strides_of(shape, shrunk)
        self._starts |= {name: (address_of(values), strides) for name, values in arrays.items() if values is not None}

    def through(self, threads: int) -> None:
        """Do all the work of a tensor in memory, on so many threads."""
        described = self.described_whole()
        described.threads, described.given = threads, not self.needs_statistics
        self._library.normcli_tensor(described)

    def whole(self, slab: Region) -> None:
        """Work through a slab that holds whole groups (or needs no statistics of its own)."""
        y = self._room(slab)
        self._library.normcli_tensor(self._described(slab, x=self._taken(slab), y=y))
        self._put(slab, y)

    def moments(self, slab: Region) -> Floats:
        """What a slab that is a run of longer groups adds up to."""
        described = self._described(slab, x=self._taken(slab))
        sums = np.empty((len(_SUMS), *stats_shape(self.axes, shape_of(slab))))
        described.sum = address_of(sums)
        self._library.normcli_moments(described)
        return sums

    def join(self, groups: Region, runs: Sequence[Floats]) -> None:
        """The statistics of whole groups, from what all their runs add up to."""
        described, sums = self._described(groups), np.stack(runs)
        described.sum = address_of(sums)
        self._library.normcli_join(described)

    def emit(self, slab: Region) -> None:
        """The outputs of a slab whose statistics are known."""
        y = self._room(slab)
        described = self._described(slab, x=self._taken(slab), y=y)
        described.given = True
        self._library.normcli_tensor(described)
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
        return self._described(region, x=np.asarray(self.x), y=self.output)

    def _described(self, slab: Region, **elements: NDArray[Any] | None) -> Slab:
        """A slab as loops.c is told of it."""
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
        return described


def address_of(array: NDArray[Any]) -> int:
    """Where an array's first element lies in memory."""
    address: int = array.__array_interface__["data"][0]
    return address


def strides_of(shape: tuple[int, ...], shrunk: tuple[bool, ...] | None = None) -> list[int]:
    """The strides of a C-ordered array in elements, 0 for dimensions of size 1 (or for those that have shrunk)."""
    none = shrunk or tuple(size == 1 for size in shape)
    return [0 if none[d] else math.prod(shape[d + 1 :]) for d in range(len(shape))]
