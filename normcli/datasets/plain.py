"""NPY files, large and tiny: a large one is read block by block, a tiny one in a single read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normcli.datasets.addresses import File, reached
from normcli.datasets.arrays import Array, of_stream, opened
from normcli.datasets.spec import Spec
from normcli.errors import InputError
from normcli.files.npy import Header, read_header

TINY = 2**16  # bytes; up to here, to read a file is to find it


def arrays(file: File, spec: Spec) -> Iterator[Array]:
    """The one array of an NPY file, which has no members."""
    if file.member is not None:
        raise InputError(f"{file.name}: an NPY file holds one array without a name")
    with opened(file, 0) as stream, reached(file.address):
        yield of_npy(stream, file.name, file.size)


def of_npy(stream: BinaryIO, name: str, size: int | None) -> Array:
    """NPY data in a stream that stands at its start, its size compared with what the header asks for."""
    start = stream.tell()
    header = read_header(stream, name, bfloat16=True)
    _check(header, name, size)
    return of_stream(stream, start + header.data_offset, header.shape, header.dtype, name, turned=header.fortran_order)


def small(path: str, name: str) -> NDArray[Any]:
    """The array of a tiny NPY file, as it lies in the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            data = os.read(descriptor, TINY + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from None
    header = None
    if data[6:8] == b"\x01\x00":
        header = _parsed(data[: 10 + int.from_bytes(data[8:10], "little")])
    if header is None:
        header = read_header(io.BytesIO(data), name, bfloat16=True)
    if len(data) != header.data_offset + header.nbytes or not len(data) - header.data_offset:
        _check(header, name, len(data))
    values = np.frombuffer(data, header.dtype, offset=header.data_offset)
    return values.reshape(header.shape, order="F" if header.fortran_order else "C")


@lru_cache(64)
def _parsed(head: bytes) -> Header | None:
    """What a header says, worked out once for all files that have the same; None for what is wrong with it."""
    try:
        return read_header(io.BytesIO(head), "", bfloat16=True)
    except InputError:
        return None


def _check(header: Header, name: str, size: int | None) -> None:
    if 0 in header.shape:
        raise InputError(f"{name} has no elements (shape {header.shape})")
    there = None if size is None else size - header.data_offset
    if there is not None and there != header.nbytes:
        after = f"{there - header.nbytes} bytes after the end of its data"
        raise InputError(
            f"{name} "
            + (f"has {after}" if there > header.nbytes else f"holds {there} of {header.nbytes} bytes of data")
        )
