"""A tensor that stays in its file: read and written region by region, at offsets, and never mapped.

A memory map dies by a signal when the file shrinks under it; a read that finds too little is an error
in words. ``Stored`` has as much of an array's manner as ``normcli.arithmetic.slabs`` and the renderers ask for.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normcli.errors import InputError
from normcli.planning.layout import Shape

Region = tuple[slice, ...]


class Stored:
    """Numbers of one dtype in an open file, from ``offset`` on, in C order of ``shape``, or in Fortran order.

    A region (a slice for each dimension, without steps) is read with ``[]`` and written by assigning
    to it, by several threads at once. ``advanced`` is told how much of a calculation on it is done,
    from 0 to 1.

    >>> import tempfile
    >>> with tempfile.TemporaryFile(buffering=0) as file:
    ...     stored = Stored(file, 0, (2, 3), np.dtype(float))
    ...     stored[slice(0, 2), slice(1, 3)] = np.array([[1, 2], [3, 4]])
    ...     stored[slice(1, 2), slice(0, 3)]
    array([[0., 3., 4.]])
    """

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        shape: Shape,
        dtype: np.dtype[Any],
        *,
        fortran_order: bool = False,
        name: str = "the file",
    ) -> None:
        self.file, self.offset, self.shape, self.dtype, self.name = file, offset, shape, dtype, name
        self.fortran_order = fortran_order
        self.ndim, self.size = len(shape), math.prod(shape)
        self.advanced: Callable[[float], None] | None = None
        self.done = 0  # elements that have been worked on, by which that is reckoned
        self._lock = threading.Lock()

    @property
    def strides(self) -> Shape:
        """The distances between neighbours in each dimension, in bytes."""
        if self.fortran_order:
            return tuple(math.prod(self.shape[:d]) * self.dtype.itemsize for d in range(self.ndim))
        return tuple(math.prod(self.shape[d + 1 :]) * self.dtype.itemsize for d in range(self.ndim))

    def reshape(self, shape: Shape, copy: bool | None = None) -> Stored:
        """The same numbers, in the order in which they lie in the file, in another shape of as many."""
        reshaped = Stored(self.file, self.offset, tuple(shape), self.dtype, name=self.name)
        reshaped.advanced = self.advanced
        return reshaped

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[tuple(slice(0, size) for size in self.shape)], dtype)

    def __getitem__(self, region: Region) -> NDArray[Any]:
        """A region as an array of its own."""
        inside = region[::-1] if self.fortran_order else region
        shape = [part.stop - part.start for part in inside]
        found = self.read(inside, np.empty(shape, self.dtype.newbyteorder("=")))
        return found.T if self.fortran_order else found

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Neighbours along the first dimension, as an array of their own."""
        return self[(slice(start, stop), *(slice(0, size) for size in self.shape[1:]))]

    def row(self, index: int) -> Stored | NDArray[Any]:
        """One place along the first dimension, where it lies side by side still in the file."""
        if self.fortran_order:
            return np.asarray(self.rows(index, index + 1)[0])
        return Stored(self.file, self.offset + index * self.strides[0], self.shape[1:], self.dtype, name=self.name)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def gathered(self, indices: Sequence[Sequence[int]]) -> NDArray[Any]:
        """The few elements whose index in each dimension is among those given, as ``numpy.ix_`` gathers them."""
        found = [self[tuple(slice(i, i + 1) for i in place)].item() for place in product(*indices)]
        return np.array(found, np.float64).reshape([len(places) for places in indices])

    def read(self, region: Region, into: NDArray[Any]) -> NDArray[Any]:
        """A region of the file's own dimensions, outermost first, read into a contiguous array of its shape."""
        memory = into.reshape(-1).view(np.uint8).data
        for start, at, size in self._pieces(region):
            piece = memory[at : at + size]
            while piece:
                try:
                    read = self._read_at(piece, self.offset + start)
                except OSError as error:  # said here, or the output would be blamed
                    raise InputError(f"cannot read {self.name}: {error.strerror}") from None
                if not read:
                    raise InputError(f"{self.name} changed while it was read: it is shorter than it was")
                piece, start = piece[read:], start + read
        if not self.dtype.isnative:
            into.byteswap(inplace=True)
        return into

    def __setitem__(self, region: Region, values: NDArray[Any]) -> None:
        memory = np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
        for start, at, size in self._pieces(region):
            piece = memory[at : at + size]
            while piece:
                written = self._write_at(piece, self.offset + start)
                piece, start = piece[written:], start + written

    def _pieces(self, region: Region) -> Iterator[tuple[int, int, int]]:
        """What lies side by side in a region: its place in the file, its place in the region, its size, in bytes."""
        shape = self.shape[::-1] if self.fortran_order else self.shape
        strides = self.strides[::-1] if self.fortran_order else self.strides
        whole = self.ndim  # the dimensions from here on are taken whole
        while whole and (region[whole - 1].start, region[whole - 1].stop) == (0, shape[whole - 1]):
            whole -= 1
        whole = max(whole - 1, 0)  # and of the one before them the elements taken are neighbours
        size = (region[whole].stop - region[whole].start) * strides[whole]
        first = region[whole].start * strides[whole]
        for number, place in enumerate(product(*(range(part.start, part.stop) for part in region[:whole]))):
            yield first + sum(map(operator.mul, place, strides)), number * size, size

    def _read_at(self, piece: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.file.fileno(), [piece], offset)
        with self._lock:
            self.file.seek(offset)
            return self.file.readinto(piece) or 0  # type: ignore[attr-defined]  # a raw file has it

    def _write_at(self, piece: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self.file.fileno(), piece, offset)
        with self._lock:
            self.file.seek(offset)
            return self.file.write(piece)
