"""An array that is read block by block, wherever it lies, and the order of its blocks."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normcli.datasets.addresses import File, filesystem, reached
from normcli.errors import InputError, room_for
from normcli.files.stored import Region, Stored
from normcli.files.streams import missing
from normcli.planning.layout import Shape

BLOCK = 2**21  # bytes that are read at a time: what was read is in the cache still when it is added up
_AHEAD = 2**23  # bytes after it at which the system is asked to read on meanwhile
_CHUNKED = 2**23  # where reading costs more for each call
_LARGEST = 2**30  # bytes of a block that cannot be made smaller (a chunk that is packed as a whole)
Reader = Callable[[Region, "NDArray[Any] | None"], NDArray[Any]]


@dataclass(kw_only=True)
class Array:
    """Numbers of one shape; ``read`` gives a region of them, in the memory it is lent if it can use that.

    ``chunks`` is what the format can read at once, ``turned`` says that axes are in reverse order, ``sample`` that
    the whole array is one sample of the data, ``image`` that its channels are last, ``columns`` names these.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    read: Reader
    chunks: Shape | None = None
    turned: bool = False
    sample: bool = False
    image: bool = False
    columns: tuple[str, ...] = ()
    lent: bool = False  # whether it reads into memory that is lent

    @classmethod
    def of(cls, values: NDArray[Any], name: str, **more: Any) -> Array:
        """What is in memory already."""
        return cls(name=name, shape=values.shape, dtype=values.dtype, read=lambda region, into: values[region], **more)

    @classmethod
    def stored(cls, stored: Stored, name: str, **more: Any) -> Array:
        """What lies in an open file, in C order or (turned) in Fortran order."""
        flat = Stored(stored.file, stored.offset, stored.shape, stored.dtype, name=name)
        if stored.fortran_order:
            flat.shape = stored.shape[::-1]
        flat._read_at = stored._read_at  # type: ignore[method-assign]
        ahead = not isinstance(stored, Streamed) and hasattr(os, "posix_fadvise")

        def read(region: Region, into: NDArray[Any] | None) -> NDArray[Any]:
            shape = tuple(part.stop - part.start for part in region)
            if ahead:  # the system reads while this is added up
                *_, (start, _, size) = flat._pieces(region)
                end = flat.offset + start + size
                os.posix_fadvise(stored.file.fileno(), end + _AHEAD, size, os.POSIX_FADV_WILLNEED)
            if into is None:
                return flat[region]
            return flat.read(region, into.view(flat.dtype.newbyteorder("="))[: math.prod(shape)].reshape(shape))

        return cls(
            name=name, shape=flat.shape, dtype=flat.dtype, read=read, turned=stored.fortran_order,
            lent=True, **more,
        )  # fmt: skip


class Streamed(Stored):
    """The same of a file-like object without a descriptor: a member of an archive, or what is remote."""

    def _read_at(self, piece: memoryview, offset: int) -> int:
        with self._lock:
            if self.file.tell() != offset:
                self.file.seek(offset)
            found = self.file.read(len(piece))
            piece[: len(found)] = found
            return len(found)


def opened(file: File, buffering: int = -1) -> BinaryIO:
    """A file to be read, local or remote, with a buffer or without (0); InputError in words where it cannot be."""
    if file.remote:
        system, path = filesystem(file.address)
        with reached(file.address):
            stream: BinaryIO = system.open(path, "rb", block_size=_CHUNKED)
            return stream
    try:
        return open(file.address, "rb", buffering=buffering)  # noqa: PTH123  # whoever reads it closes it
    except FileNotFoundError:
        raise missing(file.address) from None
    except OSError as error:
        raise InputError(f"cannot read {file.name}: {error.strerror or error}") from None


def held(file: File, most: int) -> io.BytesIO:
    """A whole file in memory, if it is no longer than ``most`` bytes."""
    with opened(file) as stream, reached(file.address):
        found = stream.read(most + 1)
    if len(found) > most:
        raise InputError(f"{file.name} holds more than {most // 2**20} MiB, which is too much for one sample")
    return io.BytesIO(found)


def of_stream(stream: BinaryIO, offset: int, shape: Shape, dtype: np.dtype[Any], name: str, *, turned: bool) -> Array:
    """An array that lies in a stream from an offset on."""
    kind = Stored if isinstance(stream, io.FileIO) else Streamed
    return Array.stored(kind(stream, offset, shape, dtype, fortran_order=turned, name=name), name)


def steps(array: Array, kept: tuple[int, ...]) -> Shape:
    """How far a block reaches along each axis: neighbours in C order, or whole chunks.

    >>> values = Array.of(np.zeros((4096, 3, 100, 100), np.float32), "x")
    >>> steps(values, (1,))
    (17, 3, 100, 100)
    """
    size, most = array.dtype.itemsize, BLOCK if array.chunks is None else _CHUNKED
    reach = list(array.chunks or [1] * len(array.shape))
    for axis in reversed(range(len(array.shape))):
        others = math.prod(reach[:axis]) * math.prod(reach[axis + 1 :]) * size
        room = max(1, most // others) // reach[axis] * reach[axis]
        reach[axis] = min(max(reach[axis], room), array.shape[axis])
        if reach[axis] < array.shape[axis]:
            break
    reach = [min(one, whole) for one, whole in zip(reach, array.shape, strict=True)]
    if math.prod(reach) * size > _LARGEST:
        raise InputError(
            f"{array.name} is stored in chunks of {math.prod(reach) * size / 2**30:.1f} GiB; "
            f"{_LARGEST // 2**30} GiB is the most that is read at once"
        )
    return tuple(reach)


def blocks(
    array: Array, reach: Shape, taken: tuple[slice, ...], part: int, parts: int
) -> Iterator[tuple[Region, NDArray[Any]]]:
    """The blocks of one of several equal parts, each with its place among what is taken of the array."""
    whole = all(s == slice(0, n, 1) for s, n in zip(taken, array.shape, strict=True))
    regions = _regions(array.shape, reach, part, parts)
    pairs = ((region, region if whole else _among(region, taken)) for region in regions)
    meant = ((region, place) for region, place in pairs if place is not None)
    for region, place, block in _read(array, meant, math.prod(reach) * array.dtype.itemsize):
        if not whole:
            inside = tuple(_inside(part_, one) for part_, one in zip(region, taken, strict=True))
            block = block[inside]
        yield place, block


def _regions(shape: Shape, reach: Shape, part: int, parts: int) -> Iterator[Region]:
    """The regions of one of several equal parts."""
    counts = tuple(-(-size // step) for size, step in zip(shape, reach, strict=True))
    number = math.prod(counts)
    for index in range(number * part // parts, number * (part + 1) // parts):
        starts = np.unravel_index(index, counts) if counts else ()
        yield tuple(
            slice(int(at) * step, min((int(at) + 1) * step, size))
            for at, step, size in zip(starts, reach, shape, strict=True)
        )


def _read(
    array: Array, meant: Iterator[tuple[Region, Region]], size: int
) -> Iterator[tuple[Region, Region, NDArray[Any]]]:
    """What lies in each region, good until the next is asked for, which a thread reads meanwhile."""
    if not array.lent:
        yield from ((region, place, array.read(region, None)) for region, place in meant)
        return
    with room_for(array.name, 2 * size):
        buffers = np.empty((2, size), np.uint8)
    if parent_process() is not None:  # the other workers keep the cores busy, and a thread would only cost
        yield from ((region, place, array.read(region, buffers[0])) for region, place in meant)
        return
    first = next(meant, None)
    if first is None:
        return
    (region, place), found = first, array.read(first[0], buffers[0])
    with ThreadPoolExecutor(1) as reader:  # whose thread begins with the first that it is given
        for number, (after, its_place) in enumerate(meant, 1):
            coming = reader.submit(array.read, after, buffers[number % 2])
            yield region, place, found
            region, place, found = after, its_place, coming.result()
    yield region, place, found


def _inside(region: slice, taken: slice) -> slice:
    """The places of a region that are taken, counted from the region's start."""
    first = max(taken.start, region.start + (taken.start - region.start) % taken.step)
    return slice(first - region.start, max(min(taken.stop, region.stop) - region.start, 0), taken.step)


def _among(region: Region, taken: tuple[slice, ...]) -> Region | None:
    """The places that a region's elements have among those taken; None where none of them are."""
    found = []
    for part, one in zip(region, taken, strict=True):
        inside = _inside(part, one)
        size = len(range(inside.start, inside.stop, inside.step))
        if not size:
            return None
        at = (inside.start + part.start - one.start) // one.step
        found.append(slice(at, at + size))
    return tuple(found)
