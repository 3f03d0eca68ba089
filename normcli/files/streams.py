"""Files and pipes: opened with what is wrong in words, and read no further than is asked for."""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO, cast

from normcli.errors import InputError, UnavailableError
from normcli.files.text import BLANKS
from normcli.words import near, shown

MOST_TEXT = 512 * 2**20  # bytes of text; of a pipe, bytes of an archive too

_CHUNK = 2**20
_HEAD = 9  # bytes that tell the formats apart
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN = {
    b"\x1f\x8b": "is compressed by gzip; unpack it first",
    b"\x80": "looks like a Python pickle, which is never loaded; save the tensor as NPY",
    b"\x89HDF": "is an HDF5 file; save the tensor as NPY",
}


@contextmanager
def opened(path: str, stdin: BinaryIO | None = None) -> Iterator[Source]:
    """A file, or standard input for ``-``, while it is read.

    Raises InputError in one sentence, with a suggestion, for one that is not there, is empty or cannot be
    read, and UnavailableError where what is read does not fit in memory.

    >>> with opened("/etc/hostname/no") as source:
    ...     source.text()
    Traceback (most recent call last):
    normcli.errors.InputError: no file /etc/hostname/no
    """
    name = "standard input" if path == "-" else shown(path, 200)
    try:
        with nullcontext(_standard_input(stdin)) if path == "-" else _opened(path, name) as stream:
            yield Source(stream, name, None if path == "-" else path)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from None
    except MemoryError:
        raise UnavailableError(f"{name} does not fit in memory") from None


class Source:
    """A stream whose first bytes have been read, to tell what it holds; ``name`` stands for it in messages.

    ``size`` is how many bytes it holds, None where only reading can tell; ``path`` is where to find it
    again, None for what can be read but once.

    >>> source = Source(io.BytesIO(b"[1, 2]"), "x")
    >>> source.head, source.text()
    (b'[1, 2]', '[1, 2]')
    """

    def __init__(self, stream: BinaryIO, name: str, path: str | None = None) -> None:
        self.stream, self.name = stream, name
        self.start, self.size = _extent(stream)
        self.path = None if self.size is None else path
        self.head = read_up_to(stream, _HEAD)
        if not self.head:
            raise InputError(f"{name} is empty")

    def whole(self) -> BinaryIO:
        """The stream from its first byte on, to be read once."""
        return cast(BinaryIO, _Rejoined(self.head, self.stream))

    def searchable(self) -> BinaryIO:
        """The stream from its first byte on, read in any order: a pipe is read into memory first."""
        if self.stream.seekable():
            self.stream.seek(self.start)
            return self.stream
        held = self.head + read_up_to(self.stream, MOST_TEXT + 1)
        if len(held) > MOST_TEXT:
            raise _too_long(self.name)
        return io.BytesIO(held)

    def text(self, name: str | None = None) -> str:
        """The text, UTF-8 or UTF-16 with its mark, under another name perhaps; no more of it is held than MOST_TEXT."""
        name = name or self.name
        if self.size is not None and self.size > MOST_TEXT:
            raise _too_long(name)
        decoder = codecs.getincrementaldecoder("utf-16" if self.head.startswith(_UTF16) else "utf-8-sig")()
        pieces: list[str] = []
        piece, total = self.head, 0
        while piece:
            total += len(piece)
            if total > MOST_TEXT:
                raise _too_long(name)
            pieces.append(_decoded(decoder, piece, self.head, name))
            if "\0" in pieces[-1]:
                position = sum(map(len, pieces[:-1])) + pieces[-1].index("\0") + 1
                raise InputError(f"{name} has a NUL byte at position {position}, so it is no text")
            piece = self.stream.read(_CHUNK)
        pieces.append(_decoded(decoder, b"", self.head, name))
        return "".join(pieces)


def read_up_to(stream: BinaryIO, size: int) -> bytes:
    """At most ``size`` bytes: fewer only at the end of the stream, though a pipe gives them piecemeal.

    >>> import io
    >>> read_up_to(io.BytesIO(b"abc"), 2)
    b'ab'
    """
    pieces = bytearray()
    while len(pieces) < size and (piece := stream.read(min(_CHUNK, size - len(pieces)))):
        pieces += piece
    return bytes(pieces)


def exists(path: str) -> bool:
    """Whether there is such a file; whatever no file can be called is none.

    >>> exists("/dev/null"), exists("[" * 100_000)
    (True, False)
    """
    from pathlib import Path

    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a literal may be longer than any name, or hold what no name can
        return False


def missing(path: str, otherwise: str = "") -> InputError:
    """The error for a file that is not there, with the name that was perhaps meant.

    >>> str(missing("/nowhere/x.npy"))
    'no file /nowhere/x.npy'
    """
    from pathlib import Path

    place, name = Path(path), shown(path, 200)
    try:
        if place.is_symlink():
            return InputError(f"{name} is a link to a file that is not there")
        names = [entry.name for entry in place.parent.iterdir()]
    except OSError:  # also a name longer than any file's
        names = []
    meant = near(place.name, names)
    hint = f"did you mean {shown(str(place.with_name(meant)))}?" if meant else None
    return InputError(f"no file {name}{otherwise}", hint=hint)


def _opened(path: str, name: str) -> BinaryIO:
    from pathlib import Path

    if not path.strip(BLANKS):
        raise InputError("the name of a file is empty")
    if not exists(path):
        raise missing(path)
    if Path(path).is_dir():
        raise InputError(f"{name} is a folder, not a file")
    return Path(path).open("rb")


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


def _extent(stream: BinaryIO) -> tuple[int, int | None]:
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


def _decoded(decoder: codecs.IncrementalDecoder, piece: bytes, head: bytes, name: str) -> str:
    try:
        return decoder.decode(piece, final=not piece)
    except UnicodeDecodeError:
        foreign = next((words for mark, words in _FOREIGN.items() if head.startswith(mark)), None)
        raise InputError(f"{name} {foreign or 'is neither NPY, NPZ nor text in UTF-8'}") from None


def _too_long(name: str) -> InputError:
    return InputError(f"{name} holds more than {MOST_TEXT // 2**20} MiB of text; use NPY for tensors of this size")
