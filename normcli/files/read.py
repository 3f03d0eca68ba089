"""A tensor from the command line, a file or a pipe; what it holds is told by content, not by name."""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError, NormcliError, UnavailableError
from normcli.files import npy
from normcli.files.npy import read_up_to
from normcli.files.text import BLANKS, Numbers, looks_like_tensor, parse, parse_each, to_float64
from normcli.words import count, listed, near, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcli.teaching.printed import Printed

MOST_TEXT = 512 * 2**20  # bytes of text; of a pipe, bytes of an archive too

Parse = Callable[[str, str], list[Numbers]]  # the tensors of a text, which the second word names in messages

_CHUNK = 2**20
_HEAD = 8  # bytes that tell the formats apart
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # with members, and without
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN = {
    b"\x1f\x8b": "is compressed by gzip; unpack it first",
    b"\x80": "looks like a Python pickle, which is never loaded; save the tensor as NPY",
    b"\x89HDF": "is an HDF5 file; save the tensor as NPY",
}
_LARGE_MEMBER = 2**26  # bytes from which on a member that is packed tightly is taken for a bomb
_TIGHT = 100  # times smaller than unpacked; numbers that differ do not pack to a tenth


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that was read, of a floating dtype, and what was lost on the way, in words."""

    array: NDArray[Any]
    warnings: tuple[str, ...] = ()


def read_tensor(
    given: str,
    *,
    what: str = "the tensor",
    key: str | None = None,
    stdin: BinaryIO | None = None,
    dtype: str | None = None,
) -> Tensor:
    """Read a tensor from what stands on the command line: a literal, a path, or ``-`` for standard input.

    A file may hold NPY, NPZ, JSON, CSV or the text that ``print`` shows of a tensor. NPY keeps its
    floating dtype and pasted text the one it names; all else is float64, or ``dtype`` if given.
    ``key`` names one array of an NPZ file (as does ``file.npz::name``) or of a JSON object; ``what``
    stands for a literal in messages. Raises InputError, in one sentence, for what is no tensor, and
    UnavailableError for one that does not fit in memory.

    >>> read_tensor("[[1, 2.5]]").array.tolist(), read_tensor(" -1e-400").warnings
    ([[1.0, 2.5]], ('-1e-400 rounds to 0',))
    """
    return _read(given, what, key, stdin, dtype, keep=False)[0]


def read_tensors(
    given: str, *, what: str = "the tensor", key: str | None = None, dtype: str | None = None
) -> list[Tensor]:
    """As ``read_tensor``, every tensor where the text is JSON Lines: one document to a line.

    >>> [tensor.array.tolist() for tensor in read_tensors("[1, 2]\\n[3, 4]")]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return [tensor for tensor, _ in _read_all(given, what, key, None, dtype, lambda t, n: parse_each(t, n, key=key))]


def read_printed(
    given: str, *, what: str = "the tensor", key: str | None = None, stdin: BinaryIO | None = None
) -> tuple[Printed, tuple[str, ...]]:
    """As ``read_tensor``, but with how every number is written, and what was lost on the way, in words.

    An exponent counts: 1.5e-3 has 4 decimals, 1.5e3 has -2. A number written without a decimal is
    meant exactly, as are the numbers of binary files: they have ``text.EXACT`` decimals.

    >>> read_printed("[[1, -0.50], [1.5e-3, 0.]]")[0].decimals.tolist()
    [[1000, 2], [4, 1000]]
    """
    from normcli.teaching.printed import Printed

    tensor, numbers = _read(given, what, key, stdin, None, keep=True)
    if numbers is None:
        return Printed.exactly(tensor.array, tensor.array.dtype.name), tensor.warnings
    values = to_float64(numbers, what)[0]  # a dtype that the text names has been rounded to before it was printed
    return Printed(values, numbers.decimals(), numbers.dtype, numbers.pasted), tensor.warnings


def read_tensor_text(text: str, what: str = "the tensor", *, key: str | None = None) -> Tensor:
    """Read a tensor from text that is already here: JSON, CSV, or what ``print`` shows.

    >>> str(read_tensor_text("array([[0., 1.]], dtype=float32)").array.dtype)
    'float32'
    """
    return _tensor(parse(text, what, key=key), what)


def _read(
    given: str, what: str, key: str | None, stdin: BinaryIO | None, dtype: str | None, keep: bool
) -> tuple[Tensor, Numbers | None]:
    return _read_all(given, what, key, stdin, dtype, lambda text, name: [parse(text, name, key=key, keep=keep)])[0]


def _read_all(
    given: str, what: str, key: str | None, stdin: BinaryIO | None, dtype: str | None, parsed: Parse
) -> list[tuple[Tensor, Numbers | None]]:
    text = given.strip(BLANKS)
    if not text:
        raise InputError(f"{what} is empty")
    if text == "-":
        found = _from_stream(_standard_input(stdin), "standard input", key, dtype, parsed)
    elif place := _file(given, text, key):
        path, key = place
        with _opened(path) as stream:
            found = _from_stream(stream, _file_name(path), key, dtype, parsed)
    elif looks_like_tensor(text):
        found = [(_tensor(numbers, what), numbers) for numbers in parsed(text, what)]
    else:
        raise _missing(text)
    return [(_cast(tensor, dtype), numbers) for tensor, numbers in found]


def _tensor(numbers: Numbers, name: str) -> Tensor:
    array, warnings = to_float64(numbers, name)
    return _cast(Tensor(array=array, warnings=warnings), numbers.dtype)


def _cast(tensor: Tensor, dtype: str | None) -> Tensor:
    """The tensor in a dtype; a name that is not known is left for the plan to refuse."""
    if dtype not in FLOAT_DTYPES or dtype == tensor.array.dtype.name:
        return tensor
    from normcli.floats import rounded

    with np.errstate(all="ignore"):
        array = rounded(tensor.array.astype(np.float64), dtype)
    beyond = int(np.count_nonzero(np.isinf(array)) - np.count_nonzero(np.isinf(tensor.array)))
    if not beyond:
        return replace(tensor, array=array)
    warning = f"{count(beyond, 'value')} beyond the range of {dtype} became infinite"
    return Tensor(array=array, warnings=(*tensor.warnings, warning))


def _file(given: str, text: str, key: str | None) -> tuple[str, str | None] | None:
    """The path that is meant, with the name of the array in it; None where no such file is there."""
    if text.startswith("["):
        return None
    for path in (given, text):
        if _exists(path):
            return path, key
    path, _, name = text.rpartition("::")
    return (path, name) if path and _exists(path) else None


def _exists(path: str) -> bool:
    from pathlib import Path

    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a literal may be longer than any name, or hold what no name can
        return False


def open_file(path: str) -> BinaryIO:
    """The file, or standard input for ``-``, open to be read; InputError, with a suggestion, where it is not there.

    >>> with open_file("/dev/null") as stream:
    ...     stream.read()
    b''
    """
    if path == "-":
        return _standard_input(None)
    if not path.strip(BLANKS):
        raise InputError("the name of a file is empty")
    if not _exists(path):
        raise _missing(path, "")
    return _opened(path)


def _missing(text: str, otherwise: str = ", and it is not a tensor literal") -> InputError:
    from pathlib import Path

    path = Path(text)
    try:
        if path.is_symlink():
            return InputError(f"{_file_name(text)} is a link to a file that is not there")
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:  # also a name longer than any file's
        names = []
    meant = near(path.name, names)
    hint = f"did you mean {shown(str(path.with_name(meant)))}?" if meant else None
    return InputError(f"no file {_file_name(text)}{otherwise}", hint=hint)


def _file_name(path: str) -> str:
    return shown(path, 200)


def _opened(path: str) -> BinaryIO:
    from pathlib import Path

    if Path(path).is_dir():
        raise InputError(f"{_file_name(path)} is a folder, not a file")
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise InputError(f"cannot read {_file_name(path)}: {error.strerror}") from None


def _standard_input(stdin: BinaryIO | None) -> BinaryIO:
    stream = stdin or getattr(sys.stdin, "buffer", None)
    if stream is None or stream.closed:
        raise InputError("standard input is closed; give a file or a literal")
    if stream.isatty():
        raise InputError(
            "standard input is a terminal, and nothing is piped in",
            hint="give a file or a literal such as '[[1, 2], [3, 4]]', or pipe into -",
        )
    return cast(BinaryIO, stream)


def _from_stream(
    stream: BinaryIO, name: str, key: str | None, dtype: str | None, parsed: Parse
) -> list[tuple[Tensor, Numbers | None]]:
    try:
        start, size = extent(stream)
        head = read_up_to(stream, _HEAD)
        if not head:
            raise InputError(f"{name} is empty")
        if head.startswith(ZIP):
            return [(_from_npz(archive_bytes(stream, start, head, name), name, key, dtype), None)]
        if head.startswith(npy.MAGIC[:1]):  # no text begins with this byte
            if key is not None:
                raise InputError(f"{name} holds one array without a name; there is no {shown(key)} to choose")
            return [(_from_npy(cast(BinaryIO, _Rejoined(head, stream)), name, size, dtype), None)]
        named = f"{name} (text, not NPY)" if name.endswith((".npy", ".npz")) else name
        return [(_tensor(numbers, named), numbers) for numbers in parsed(read_text(stream, head, size, named), named)]
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from None
    except MemoryError:
        raise UnavailableError(f"{name} does not fit in memory") from None


def extent(stream: BinaryIO) -> tuple[int, int | None]:
    """Where the stream stands, and how many bytes follow; None where only reading can tell."""
    try:
        about = os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return 0, None
    if not stat.S_ISREG(about.st_mode) or not about.st_size:  # files of /proc say 0, whatever they hold
        return 0, None
    start = stream.tell()
    return start, about.st_size - start


class _Rejoined(io.RawIOBase):
    """A stream with the bytes that told its format put back in front."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece


def _from_npy(stream: BinaryIO, name: str, size: int | None, dtype: str | None) -> Tensor:
    header = npy.read_header(stream, name, bfloat16=dtype == "bfloat16")
    array, warnings = npy.as_floating(npy.read_data(stream, header, name, size))
    return Tensor(array=array, warnings=warnings)


def archive_bytes(stream: BinaryIO, start: int, head: bytes, name: str) -> BinaryIO:
    """The archive as a stream that can be searched: a pipe is read into memory first."""
    if stream.seekable():
        stream.seek(start)
        return stream
    held = head + read_up_to(stream, MOST_TEXT + 1)
    if len(held) > MOST_TEXT:
        raise _too_long(name)
    return io.BytesIO(held)


def _from_npz(stream: BinaryIO, name: str, key: str | None, dtype: str | None) -> Tensor:
    from zipfile import ZipFile

    try:
        with ZipFile(stream) as archive:
            member = _member(archive, name, key)
            inner = f"{name}::{shown(member.filename.removesuffix('.npy'))}"
            with archive.open(member) as packed:
                return _from_npy(cast(BinaryIO, packed), inner, member.file_size, dtype)
    except (NormcliError, MemoryError):
        raise
    except Exception as error:  # zipfile raises a dozen types on damaged archives
        raise InputError(f"{name} is damaged: {shown(str(error) or type(error).__name__)}") from None


def _member(archive: Any, name: str, key: str | None) -> Any:
    """The entry of the archive that holds the array, refused here if it had better not be unpacked."""
    entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if not entries:
        if any(entry.filename.endswith("data.pkl") for entry in archive.infolist()):
            raise InputError(f"{name} is a PyTorch file, a pickle, which is never loaded; save the tensor as NPY")
        raise InputError(f"{name} holds no arrays")
    if key is None and len(entries) > 1:
        first = shown(names[0])
        raise InputError(
            f"{name} holds {len(entries)} arrays: {listed(names)}; choose one",
            hint=f"{name}::{first} is the first",
        )
    key = names[0] if key is None else key.removesuffix(".npy")
    if names.count(key) != 1:
        problem = "two arrays" if key in names else "no array"
        raise InputError(f"{name} holds {problem} named {shown(key)}; it has {listed(names)}")
    entry = entries[names.index(key)]
    check_packing(entry, f"{name}::{shown(key)}")
    return entry


def check_packing(entry: Any, inner: str) -> None:
    """Refuse an entry of an archive that cannot be unpacked, or had better not be."""
    from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED

    if entry.flag_bits & 1:
        raise InputError(f"{inner} is encrypted")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA):
        raise InputError(f"{inner} is compressed by method {entry.compress_type}, which is not known")
    if entry.file_size > _LARGE_MEMBER and entry.file_size > _TIGHT * entry.compress_size:
        packed, unpacked = entry.compress_size / 2**20, entry.file_size / 2**20
        raise InputError(f"{inner} would grow from {packed:.1f} to {unpacked:.0f} MiB; unpack it to NPY first")


def read_file_text(path: str, name: str) -> str:
    """The text of a file, or of standard input for ``-``, which ``name`` stands for in messages.

    The errors are those of ``open_file`` and ``read_text``.

    >>> read_file_text("/dev/null", "the file")
    ''
    """
    with open_file(path) as stream:
        try:
            size = extent(stream)[1]
            return read_text(stream, read_up_to(stream, _HEAD), size, name)
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror or error}") from None


def read_text(stream: BinaryIO, head: bytes, size: int | None, name: str) -> str:
    """The stream's text, UTF-8 or UTF-16 with its mark; no more of it is held than MOST_TEXT."""
    if size is not None and size > MOST_TEXT:
        raise _too_long(name)
    decoder = codecs.getincrementaldecoder("utf-16" if head.startswith(_UTF16) else "utf-8-sig")()
    pieces: list[str] = []
    piece, total = head, 0
    while piece:
        total += len(piece)
        if total > MOST_TEXT:
            raise _too_long(name)
        pieces.append(_decoded(decoder, piece, head, name))
        if "\0" in pieces[-1]:
            position = sum(map(len, pieces[:-1])) + pieces[-1].index("\0") + 1
            raise InputError(f"{name} has a NUL byte at position {position}, so it is no text")
        piece = stream.read(_CHUNK)
    pieces.append(_decoded(decoder, b"", head, name))
    return "".join(pieces)


def _decoded(decoder: codecs.IncrementalDecoder, piece: bytes, head: bytes, name: str) -> str:
    try:
        return decoder.decode(piece, final=not piece)
    except UnicodeDecodeError:
        foreign = next((words for mark, words in _FOREIGN.items() if head.startswith(mark)), None)
        raise InputError(f"{name} {foreign or 'is neither NPY, NPZ nor text in UTF-8'}") from None


def _too_long(name: str) -> InputError:
    return InputError(f"{name} holds more than {MOST_TEXT // 2**20} MiB of text; use NPY for tensors of this size")
