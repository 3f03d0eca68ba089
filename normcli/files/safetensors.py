"""The safetensors format, read by its own library.

The library takes the last of two tensors of one name for the only one, and says what breaks the
format in words for programmers; the header is therefore looked at here first. Nothing is mapped: a
file that shrinks under a map ends the process.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from normcli.errors import InputError, room_for
from normcli.files.checkpoint import Array, chosen
from normcli.files.json import document
from normcli.files.npy import as_floating
from normcli.files.numbers import Shape, Tensor
from normcli.files.streams import Source, read_up_to
from normcli.floats import as_float_array, numpy_dtype
from normcli.words import quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_HEADER = 100_000_000  # bytes; the limit that the format's own library sets

# What the format's dtypes are called elsewhere. It has others, which NumPy has not.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CODES = {name: code for code, name in _DTYPES.items()}


def tensors(source: Source, *, key: str | None, dtype: str | None) -> list[Tensor]:
    """The array of that name as a tensor, or the only one."""
    found = list(arrays(source, lambda name: True))
    array = found[chosen([array.name for array in found], source.name, key)]
    tensor = array.read()
    return [replace(tensor, array=as_float_array(tensor.array, name=f"{source.name}::{shown(array.name)}"))]


def arrays(source: Source, wanted: Callable[[str], bool]) -> Iterator[Array]:
    """The arrays of a safetensors file whose names are wanted; a file is read at offsets, a pipe is held in memory."""
    stream = source.searchable()
    _check_header(stream, source)
    found = {array.name: array for array in _arrays(stream, source) if wanted(array.name)}
    yield from (found[name] for name in sorted(found, key=_by_numbers))  # the library has an order of its own


def write(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of NumPy's own real dtypes, in the order given; bfloat16 is widened to float32."""
    header: dict[str, Any] = {}
    data: list[NDArray[Any]] = []
    end = 0
    for key, array in arrays.items():
        values = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        values = np.asarray(values, values.dtype.newbyteorder("<"), order="C")
        offsets = [end, end + values.nbytes]
        header[key] = {"dtype": _CODES[values.dtype.name], "shape": list(values.shape), "data_offsets": offsets}
        end += values.nbytes
        data.append(values)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # so that the data begins at a multiple of 8
    stream.write(len(text).to_bytes(8, "little") + text)
    for values in data:
        stream.write(values.reshape(-1).view(np.uint8).data)


def places(source: Source) -> Iterator[tuple[str, Shape, np.dtype[Any], int]]:
    """Where each array of a file lies: its name, shape, dtype and first byte; what cannot be read is refused.

    >>> from io import BytesIO
    >>> stream = BytesIO()
    >>> write(stream, {"w": np.zeros((2, 3), np.float32)})
    >>> _ = stream.seek(0)
    >>> list(places(Source(stream, "x")))
    [('w', (2, 3), dtype('float32'), 72)]
    """
    stream = source.searchable()
    found, begins = _check_header(stream, source)
    for key, fields in found.items():
        what = f"{source.name}::{shown(key)}"
        match fields:
            case {"dtype": str(code), "shape": [*sizes], "data_offsets": [int(begin), int(end)]}:
                dtype = numpy_dtype(_DTYPES[code]) if code in _DTYPES else None
                if dtype is None or dtype.kind == "b":
                    raise InputError(f"{what} is of dtype {shown(code)}, which cannot be read; save it as F32 or BF16")
                shape = tuple(size for size in sizes if type(size) is int and size >= 0)
                if len(shape) < len(sizes) or math.prod(shape) * dtype.itemsize != end - begin:
                    raise InputError(f"{what} has a shape that does not fit its {end - begin} bytes")
                yield key, shape, dtype, begins + begin
            case _ if key != "__metadata__":
                raise InputError(f"{what} has a bad entry in the safetensors header")


def _check_header(stream: BinaryIO, source: Source) -> tuple[dict[str, Any], int]:
    """Refuse a header that is none, that has a name twice, or of which the data is cut off; no data is read.

    Given are its entries, and where the data begins.
    """
    name, start = source.name, stream.tell()
    size = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    length = int.from_bytes(stream.read(8), "little")
    if size < 8:
        raise InputError(f"{name} holds {size} bytes; a safetensors file begins with the 8 of its header's length")
    if length > LONGEST_HEADER:
        raise InputError(f"{name} has a bad safetensors header: {length} bytes, where {LONGEST_HEADER} is the most")
    if 8 + length > size:
        raise InputError(f"{name} holds {size} bytes, and its safetensors header alone would take {8 + length}")
    header = read_up_to(stream, length)
    stream.seek(start)
    try:
        found = document(header.decode("utf-8"), f"the safetensors header of {name}")
    except UnicodeDecodeError:
        raise InputError(f"{name} has a bad safetensors header: it is not UTF-8") from None
    if not isinstance(found, dict):
        raise InputError(f"{name} has a bad safetensors header: it is not a JSON object")
    there, ends = size - 8 - length, []
    for key, fields in found.items():
        match fields:
            case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
                ends.append((end, key))
    if beyond := [end for end in ends if end[0] > there]:
        end, key = min(beyond)
        raise InputError(f"{name} holds {there} bytes of data, and {quoted(key)} would end at byte {end}")
    if ends and (end := max(ends)[0]) < there:
        raise InputError(f"{name} has {there - end} bytes after the end of its data")
    return found, start + 8 + length


def _arrays(stream: BinaryIO, source: Source) -> Iterator[Array]:
    """What the library says is there."""
    from safetensors import deserialize, safe_open

    with _refused(f"{source.name} has a bad safetensors header"):
        if source.path is None:
            for key, stored in deserialize(stream.read()):
                values = partial(np.frombuffer, stored["data"])
                yield _array(key, stored["dtype"], tuple(stored["shape"]), values, source.name)
            return
        file = safe_open(source.path, "numpy", backend="pread")
        for key in file.keys():  # noqa: SIM118  # it is no mapping
            part = file.get_slice(key)
            values = partial(_tensor, file, key)
            yield _array(key, part.get_dtype(), tuple(part.get_shape()), values, source.name)


def _tensor(file: Any, key: str, dtype: Any) -> NDArray[Any]:
    values: NDArray[Any] = file.get_tensor(key)
    return values


def _array(key: str, code: str, shape: Shape, values: Callable[[Any], NDArray[Any]], name: str) -> Array:
    what = f"{name}::{shown(key)}"

    def read() -> Tensor:
        if code not in _DTYPES:
            raise InputError(f"{what} is of dtype {code}, which cannot be read; save it as F32 or BF16")
        dtype = numpy_dtype(_DTYPES[code])  # also makes bfloat16 known to NumPy, by whose names the library goes
        with _refused(f"{what} cannot be read"), room_for(what, math.prod(shape) * dtype.itemsize):
            array = values(dtype).reshape(shape)
        return as_floating(array.astype(np.float32) if code == "BF16" else array)

    return Array(name=key, shape=shape, dtype=_DTYPES.get(code, code), read=read)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        reason = re.sub(r"^(Error while deserializing( header)?: )?(invalid JSON in header: )?", "", str(error))
        raise InputError(f"{what}: {shown(reason, 200)}") from None


def _by_numbers(name: str) -> list[list[tuple[int, str]]]:
    """A key for sorting by the parts of a name, in which layer10 comes after layer2."""
    pieces = [re.split(r"([0-9]+)", part) for part in name.split(".")]
    # A number is longer than a smaller one: Python makes none of more than 4300 digits.
    return [
        [(len(n := piece.lstrip("0")), n) if piece.isdecimal() else (-1, piece) for piece in part] for part in pieces
    ]
