"""The safetensors format: a JSON header of names, dtypes, shapes and offsets, and then the bytes.

Read with everything checked before memory is taken, and no more of the data than is asked for. The
format: https://github.com/huggingface/safetensors (README.md, "Format"). The package itself lets
duplicate names pass and gives NumPy no bfloat16.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from normcli.errors import InputError, room_for
from normcli.files import npy
from normcli.files.checkpoint import Array
from normcli.files.json import document
from normcli.files.streams import Source, read_up_to
from normcli.words import quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int, ...]

LONGEST_HEADER = 100_000_000  # bytes; the limit that the format's own library sets

_CHUNK = 2**20

# What each dtype is called elsewhere, and how NumPy reads it; bfloat16 is read as its upper half of a float32.
_READABLE = {
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "I64": ("int64", "<i8"),
    "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"),
    "I8": ("int8", "|i1"),
    "U64": ("uint64", "<u8"),
    "U32": ("uint32", "<u4"),
    "U16": ("uint16", "<u2"),
    "U8": ("uint8", "|u1"),
    "BOOL": ("bool", "|b1"),
}
# Further dtypes of the format and their bits: they may stand in a file, but cannot be read.
_OTHERS = {
    "C64": 64, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_BITS = {code: 8 * np.dtype(stored).itemsize for code, (_, stored) in _READABLE.items()} | _OTHERS
_CODES = {name: code for code, (name, _) in _READABLE.items()}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor as the header describes it, and where its bytes lie in the file."""

    code: str  # the format's own name of the dtype: F32, BF16, ...
    shape: Shape
    start: int
    end: int

    @property
    def dtype(self) -> str:
        """The dtype as it is called elsewhere, such as float32; the format's own name for one that cannot be read."""
        return _READABLE[self.code][0] if self.code in _READABLE else self.code


def arrays(source: Source, wanted: Callable[[str], bool]) -> Iterator[Array]:
    """The arrays of a safetensors file whose names are wanted."""
    stream, name = source.searchable(), source.name
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    known = {key: stored for key, stored in read_header(stream, size, name).items() if wanted(key)}
    for key in sorted(known, key=_by_numbers):  # the format's own order is that of the dtypes' sizes
        yield _array(stream, key, known[key], f"{name}::{shown(key)}")


def _array(stream: BinaryIO, key: str, stored: Stored, what: str) -> Array:
    return Array(
        name=key,
        shape=stored.shape,
        dtype=stored.dtype,
        read=lambda: npy.as_floating(read_tensor(stream, stored, what)),
    )


def _by_numbers(name: str) -> list[list[tuple[int, str]]]:
    """A key for sorting by the parts of a name, in which layer10 comes after layer2."""
    pieces = [re.split(r"([0-9]+)", part) for part in name.split(".")]
    # A number is longer than a smaller one: Python makes none of more than 4300 digits.
    return [
        [(len(n := piece.lstrip("0")), n) if piece.isdecimal() else (-1, piece) for piece in part] for part in pieces
    ]


def read_header(stream: BinaryIO, size: int, name: str) -> dict[str, Stored]:
    """What a safetensors file of ``size`` bytes holds, in the header's order; no data is read.

    ``name`` stands for the file in messages. Raises InputError, in one sentence, for what breaks the format.

    >>> import io
    >>> stream = io.BytesIO()
    >>> write(stream, {"bias": np.zeros(2, np.float32)})
    >>> _ = stream.seek(0)
    >>> read_header(stream, 80, "x.safetensors")
    {'bias': Stored(code='F32', shape=(2,), start=72, end=80)}
    """
    length = int.from_bytes(read_up_to(stream, 8), "little")
    if size < 8:
        raise InputError(f"{name} holds {size} bytes; a safetensors file begins with the 8 of its header's length")
    if length > LONGEST_HEADER:
        raise InputError(f"{name} has a bad safetensors header: {length} bytes, where {LONGEST_HEADER} is the most")
    if 8 + length > size:
        raise InputError(f"{name} holds {size} bytes, and its safetensors header alone would take {8 + length}")
    header = read_up_to(stream, length)
    if len(header) < length:
        raise InputError(f"{name} changed while it was read: it ended within its header")
    described = _header(header, name)
    stored = {key: _stored(key, fields, 8 + length, name) for key, fields in described.items() if key != "__metadata__"}
    _check_places(stored, 8 + length, size, name)
    return stored


def read_tensor(stream: BinaryIO, stored: Stored, what: str) -> NDArray[Any]:
    """The numbers of one tensor, in this machine's byte order; bfloat16 becomes float32, which holds it exactly.

    ``what`` stands for the tensor in messages. Raises InputError for a dtype that cannot be read.
    """
    if stored.code not in _READABLE:
        raise InputError(f"{what} is of dtype {stored.code}, which cannot be read; save it as F32 or BF16")
    with room_for(what, stored.end - stored.start):
        flat = np.empty(math.prod(stored.shape), _READABLE[stored.code][1])
    into = flat.view(np.uint8)
    stream.seek(stored.start)
    filled = 0
    while filled < len(into) and (piece := stream.read(min(_CHUNK, len(into) - filled))):
        into[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled < len(into):
        raise InputError(f"{what} changed while it was read: it ended after {filled} of {len(into)} bytes")
    if stored.code == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    return native.reshape(stored.shape)


def write(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of NumPy's own real dtypes, in the order given; bfloat16 is widened to float32."""
    header: dict[str, Any] = {}
    data: list[NDArray[Any]] = []
    end = 0
    for key, array in arrays.items():
        values = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        code = _CODES[values.dtype.name]
        values = np.asarray(values, _READABLE[code][1], order="C")
        header[key] = {"dtype": code, "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
        data.append(values)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # so that the data begins at a multiple of 8
    stream.write(len(text).to_bytes(8, "little") + text)
    for values in data:
        stream.write(values.reshape(-1).view(np.uint8).data)


def _header(header: bytes, name: str) -> dict[str, Any]:
    try:
        found = document(header.decode("utf-8"), f"the safetensors header of {name}")
    except UnicodeDecodeError:
        raise InputError(f"{name} has a bad safetensors header: it is not UTF-8") from None
    if not isinstance(found, dict):
        raise InputError(f"{name} has a bad safetensors header: it is not a JSON object")
    return found


def _stored(key: str, fields: Any, data_start: int, name: str) -> Stored:
    """What the header says of one tensor, each part checked by itself."""
    what = f"{name} has a bad safetensors header: {quoted(key)}"
    if not isinstance(fields, dict):
        raise InputError(f"{what} is not described by a JSON object")
    for part in ("dtype", "shape", "data_offsets"):
        if part not in fields:
            raise InputError(f"{what} has no {part}")
    code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(code, str) or code not in _BITS:
        raise InputError(f"{what} has the unknown dtype {shown(json.dumps(code))}")
    if not _are_sizes(shape):
        raise InputError(f"{what} has the shape {shown(json.dumps(shape))}; it must be a list of whole numbers from 0")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InputError(f"{what} has the data_offsets {shown(json.dumps(offsets))}; they must be [BEGIN, END]")
    bits = math.prod(shape) * _BITS[code]
    if bits != 8 * (offsets[1] - offsets[0]):
        needed = f"{bits / 8:g}" if bits < 2**60 else "more than any disk's number of"
        there = offsets[1] - offsets[0]
        raise InputError(f"{what} needs {needed} bytes for its shape and dtype; its data_offsets hold {there}")
    return Stored(code=code, shape=tuple(shape), start=data_start + offsets[0], end=data_start + offsets[1])


def _are_sizes(value: Any) -> bool:
    """Whether it is a list of whole numbers from 0 to 2**63, few enough to be the sizes of a tensor."""
    return isinstance(value, list) and len(value) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_places(stored: Mapping[str, Stored], data_start: int, size: int, name: str) -> None:
    """The tensors must lie one after the other and fill the file: no hole, no overlap, nothing left."""
    end = data_start
    for key, tensor in sorted(stored.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            problem = "overlaps the tensor before it" if tensor.start < end else "leaves a hole before it"
            raise InputError(f"{name} has a bad safetensors header: {quoted(key)} {problem}")
        end = tensor.end
        if end > size:
            needed, there = end - data_start, size - data_start
            raise InputError(f"{name} holds {there} bytes of data, and {quoted(key)} would end at byte {needed}")
    if end < size:
        raise InputError(f"{name} has {size - end} bytes after the end of its data")
