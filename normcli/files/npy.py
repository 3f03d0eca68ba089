"""The NPY format, read with every size checked before memory is taken, and nothing ever unpickled.

NumPy's own reader trusts the header: it reads it whole however long it says it is, takes memory for
whatever shape it names, ignores what follows the data, and cannot read a pipe.
"""

from __future__ import annotations

import ast
import math
import os
import re
import stat
import sys
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from normcli.errors import InputError, room_for
from normcli.files.numbers import Tensor, rounding_warnings
from normcli.files.stored import Stored
from normcli.files.streams import Source, read_up_to
from normcli.words import count, quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"

_LONGEST_HEADER = 2**16  # bytes; that of a plain array has about 120
_MOST_AXES = 64  # NumPy's own limit
_CHUNK = 2**20  # bytes; a read of this size costs little more than the copying
_EXACT = 2**53  # up to here float64 holds every integer

_KEYS = {"descr", "fortran_order", "shape"}
_DESCR = re.compile(r"([<>|=]?)([A-Za-z])(\d*)(?:\[.*\])?")
_READABLE = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}
_REFUSED = {
    "O": "Python objects",
    "b": "bool values",
    "c": "complex numbers",
    "f": "longdouble or 8-bit floating values",
    "i": "integers of an unusual size",
    "u": "integers of an unusual size",
    "S": "byte strings",
    "U": "strings",
    "M": "datetime values",
    "m": "timedelta values",
    "V": "raw bytes",
}


class Header(NamedTuple):
    """What an NPY header says: the stored dtype, the shape, and where the data begins."""

    dtype: np.dtype[Any]  # in the file's byte order
    shape: tuple[int, ...]
    fortran_order: bool
    data_offset: int  # bytes from the start of the NPY data, the magic included

    @property
    def nbytes(self) -> int:
        """How many bytes of data the shape and the dtype ask for, as an exact integer."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: BinaryIO, name: str, *, bfloat16: bool = False) -> Header:
    """Read the header of NPY data; the stream is left at the first byte of the data.

    ``name`` stands for the data in messages. ``bfloat16`` takes values of two bytes without a type,
    which is how NumPy stores bfloat16, for bfloat16. Raises InputError for what is no NPY header and
    for a dtype that holds no real numbers.

    >>> import io
    >>> stream = io.BytesIO()
    >>> write_array(stream, np.ones((2, 3), "f4"))
    >>> _ = stream.seek(0)
    >>> header = read_header(stream, "x.npy")
    >>> header.dtype, header.shape, header.fortran_order, header.data_offset
    (dtype('float32'), (2, 3), False, 128)
    """
    magic = read_up_to(stream, len(MAGIC))
    if not magic:
        raise InputError(f"{name} is empty")
    if magic != MAGIC:
        raise InputError(f"{name} is not an NPY file")
    version = tuple(_exactly(stream, 2, name))
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise InputError(f"{name} is of NPY version {version[0]}.{version[1]}; 1.0, 2.0 and 3.0 can be read")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(_exactly(stream, width, name), "little")
    if length > _LONGEST_HEADER:
        raise InputError(f"{name} has a bad header length: {length} bytes, where {_LONGEST_HEADER} is the most")
    fields = _fields(_exactly(stream, length, name), "utf-8" if version == (3, 0) else "latin-1", name)
    return Header(
        dtype=_dtype(fields["descr"], name, bfloat16),
        shape=_shape(fields["shape"], name),
        fortran_order=fields["fortran_order"],
        data_offset=len(MAGIC) + 2 + width + length,
    )


def read_data(stream: BinaryIO, header: Header, name: str, size: int | None = None) -> NDArray[Any]:
    """Read the data that follows a header, as stored but in this machine's byte order.

    ``size`` is the number of bytes from the start of the NPY data to its end, or None where only
    reading can tell (a pipe): then memory is taken as the bytes come in. Raises InputError where the
    bytes are fewer or more than the header asks for, UnavailableError where they do not fit in memory.
    """
    if 0 in header.shape:
        raise InputError(f"{name} has no elements (shape {header.shape})")
    there = None if size is None else size - header.data_offset
    if there is not None:
        _check_size(there, header.nbytes, name)
    with room_for(name, header.nbytes, at_once=there is not None):
        flat = _of_unknown_size(stream, header, name) if there is None else _of_known_size(stream, header, name)
    if not header.dtype.isnative:
        flat = flat.byteswap(inplace=True).view(header.dtype.newbyteorder("="))
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def read_tensor(stream: BinaryIO, name: str, size: int | None = None, *, bfloat16: bool = False) -> Tensor:
    """Read NPY data as a tensor of a floating dtype; integers become float64 (see ``as_floating``).

    The parameters and the errors are those of ``read_header`` and ``read_data``.

    >>> import io
    >>> read_tensor(io.BytesIO(npy_bytes(np.array([1, 2]))), "x.npy").array
    array([1., 2.])
    """
    return as_floating(read_data(stream, read_header(stream, name, bfloat16=bfloat16), name, size))


def tensors(source: Source, *, key: str | None, dtype: str | None) -> list[Tensor]:
    """The one tensor of an NPY file or pipe, which has no name to be chosen by."""
    if key is not None:
        raise InputError(f"{source.name} holds one array without a name; there is no {shown(key)} to choose")
    return [read_tensor(source.whole(), source.name, source.size, bfloat16=dtype == "bfloat16")]


def arrays(source: Source, wanted: object) -> NoReturn:
    """Refuse an NPY file where arrays are looked for by name."""
    raise InputError(
        f"{source.name} holds one array without a name; a state is several: weight, bias, running_mean, ..."
    )


def as_floating(array: NDArray[Any]) -> Tensor:
    """The array itself if it is floating, else its integers as float64, and what was lost, in words.

    >>> as_floating(np.array([1, 2**53 + 1])).warnings
    ('9007199254740993 is rounded to float64',)
    """
    if array.dtype.kind not in "iu":
        return Tensor(array=array)
    floating = array.astype(np.float64)
    lost = _rounded_integers(array, floating) if array.dtype.itemsize == 8 else []
    return Tensor(array=floating, warnings=rounding_warnings(lost))


def write_array(stream: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array as NPY, in Fortran order if it lies so; bfloat16, which NPY cannot name, is widened to float32."""
    values = np.asarray(array)
    turned = values.flags.f_contiguous and not values.flags.c_contiguous
    values = np.asarray(values.T if turned else values, order="C")
    if values.dtype.name == "bfloat16":
        values = values.astype(np.float32)
    write_header(stream, array.shape, values.dtype, fortran_order=turned)
    # Written from here, not by NumPy: where the disk is full its writer drops the reason.
    stream.write(values.reshape(-1).view(np.uint8).data)


def write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], *, fortran_order: bool) -> None:
    """Write the header of NPY data, which is to follow."""
    fields = {"descr": dtype.str, "fortran_order": fortran_order, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array as the bytes of an NPY file.

    >>> npy_bytes(np.zeros(3))[:6] == MAGIC
    True
    """
    from io import BytesIO

    stream = BytesIO()
    write_array(stream, array)
    return stream.getvalue()


def opened(path: str) -> Stored | None:
    """The floating numbers of an NPY file that is there whole, left in the file; None for anything else.

    What is wrong with a file is for ``normcli.files.read`` to say.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123  # it stays open as long as its numbers are used
    except (OSError, ValueError):
        return None
    try:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or file.read(len(MAGIC)) != MAGIC:
            raise InputError("no NPY file")
        file.seek(0)
        header = read_header(file, path)
        if header.dtype.kind != "f" or not header.shape or about.st_size != header.data_offset + header.nbytes:
            raise InputError("not floating numbers alone")
    except (InputError, OSError):
        file.close()
        return None
    turned, name = header.fortran_order, shown(path, 200)
    return Stored(file, header.data_offset, header.shape, header.dtype, fortran_order=turned, name=name)


def created(file: BinaryIO, like: Stored) -> Stored:
    """Room for an output like its input: an NPY header in a new file, the numbers still to be written.

    The file is held under a descriptor of its own, until it is closed.
    """
    dtype = like.dtype.newbyteorder("=")
    write_header(file, like.shape, dtype, fortran_order=like.fortran_order)
    file.flush()
    own = os.fdopen(os.dup(file.fileno()), "r+b", buffering=0)
    return Stored(own, file.tell(), like.shape, dtype, fortran_order=like.fortran_order, name="the output")


def _exactly(stream: BinaryIO, size: int, name: str) -> bytes:
    found = read_up_to(stream, size)
    if len(found) < size:
        raise InputError(f"{name} ends within its NPY header")
    return found


def _fields(header: bytes, encoding: str, name: str) -> dict[str, Any]:
    """The header's dictionary with exactly the keys it must have."""
    try:
        text = header.decode(encoding).strip()
        keys, fields = _literal(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        readable = header.decode("latin-1").strip()
        raise InputError(f"{name} has a bad NPY header: {quoted(readable)}") from None
    if len(keys) != len(fields):
        raise InputError(f"{name} has a bad NPY header: a key appears twice")
    for problem, odd in (("lacks the key", _KEYS - set(fields)), ("has the unknown key", set(fields) - _KEYS)):
        if odd:
            raise InputError(f"{name} has a bad NPY header: it {problem} {shown(_repr(min(odd, key=_repr)))}")
    if not isinstance(fields["fortran_order"], bool):
        raise InputError(f"{name} has a bad NPY header: fortran_order is {shown(_repr(fields['fortran_order']))}")
    return fields


def _literal(text: str) -> tuple[list[Any], dict[Any, Any]]:
    """The keys as they are written, twice if they are written twice, and the dictionary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's remarks on odd literals are not for the reader of a file
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError:
            # Python 2 wrote its long integers as 3L.
            tree = ast.parse(re.sub(r"(?<=\d)L\b", "", text), mode="eval").body
    if not isinstance(tree, ast.Dict):
        raise ValueError("not a dictionary")
    return list(tree.keys), ast.literal_eval(tree)


def _dtype(descr: Any, name: str, bfloat16: bool) -> np.dtype[Any]:
    """The dtype that a descr names; every one that holds no real numbers is refused in words."""
    if isinstance(descr, list):
        raise InputError(f"{name} has named fields ({_field_names(descr)}); save one of them as an array of its own")
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) and len(descr) < 80 else None
    if match is None or match[2] not in _REFUSED:
        raise InputError(f"{name} has an unknown NPY type: {shown(_repr(descr))}")
    order, kind, size = match.groups()
    if kind in _READABLE and size in map(str, _READABLE[kind]):
        return np.dtype(order + kind + size)
    if kind + size == "V2":
        if not bfloat16:
            raise InputError(
                f"{name} holds values of 2 bytes without a type, which may be bfloat16",
                hint="--dtype bfloat16 reads them as bfloat16",
            )
        import ml_dtypes  # NumPy has no bfloat16 of its own; imported only where it is used

        brain: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return brain
    holds = "contains" if kind == "O" else "holds"
    raise InputError(f"{name} {holds} {_REFUSED[kind]} ({kind}{shown(size, 20)}); only real numbers can be normalized")


def _field_names(descr: list[Any]) -> str:
    names = [str(field[0]) for field in descr if isinstance(field, tuple) and field]
    return shown(", ".join(names))


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape):
        raise InputError(f"{name} has a bad shape in its NPY header: {shown(_repr(shape))}")
    if len(shape) > _MOST_AXES:
        raise InputError(f"{name} has {count(len(shape), 'axis', 'axes')}; {_MOST_AXES} is the most")
    if any(size > sys.maxsize for size in shape) or (0 not in shape and math.prod(shape) > sys.maxsize):
        raise InputError(f"{name} has a bad shape in its NPY header: {shown(_repr(shape))} is larger than any memory")
    return shape


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _check_size(there: int, needed: int, name: str) -> None:
    if there < needed:
        raise InputError(f"{name} holds {there} of {needed} bytes of data")
    if there > needed:
        raise _surplus(name, f"{count(there - needed, 'byte')} after")


def _surplus(name: str, surplus: str) -> InputError:
    return InputError(
        f"{name} has {surplus} the end of its data", hint="an NPY file holds one array; NPZ holds several"
    )


def _of_known_size(stream: BinaryIO, header: Header, name: str) -> NDArray[Any]:
    flat = np.empty(math.prod(header.shape), header.dtype)
    into = flat.view(np.uint8)
    filled = 0
    while filled < len(into) and (piece := stream.read(min(_CHUNK, len(into) - filled))):
        into[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled < len(into):
        raise InputError(f"{name} changed while it was read: it ended after {filled} of {len(into)} bytes of data")
    if stream.read(1):  # for a member of an NPZ this is also what checks its checksum
        raise InputError(f"{name} changed while it was read: it grew")
    return flat


def _of_unknown_size(stream: BinaryIO, header: Header, name: str) -> NDArray[Any]:
    pieces = bytearray()
    while len(pieces) <= header.nbytes and (piece := stream.read(min(_CHUNK, header.nbytes + 1 - len(pieces)))):
        pieces += piece
    if len(pieces) < header.nbytes:
        raise InputError(f"{name} holds {len(pieces)} of {header.nbytes} bytes of data")
    if len(pieces) > header.nbytes:
        raise _surplus(name, "bytes after")
    return np.frombuffer(pieces, header.dtype)


def _rounded_integers(integers: NDArray[Any], floating: NDArray[np.float64]) -> list[int]:
    """The integers that float64 does not hold, in the array's order."""
    large = np.abs(floating) >= _EXACT
    if not large.any():
        return []
    exact, near = integers[large], floating[large]
    fits = near < float(np.iinfo(exact.dtype).max)  # the maximum itself rounds up, beyond the dtype
    back = np.where(fits, near, 0).astype(exact.dtype)
    lost: list[int] = exact[~fits | (back != exact)].tolist()
    return lost
