"""Finished shards in a file, written as they come in, so that a run that was broken off goes on from there.

The file begins with a line that says what is pooled, by a digest of the files (with their sizes and times) and the
options; a record for each shard follows: its number, a length, and an NPZ archive of that length. Nothing in it is
unpickled, and a record that is cut off is written anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from normcli.datasets.shards import Part, Shard
from normcli.datasets.spec import Spec
from normcli.errors import InputError, UnavailableError
from normcli.files.json import document
from normcli.files.write import write_npz
from normcli.words import shown

_HEAD = b"normcli stats, shards done, version 1: "
_NUMBERS = 16  # bytes of a record's number and length
_WORDS = ("bad", "dtypes", "columns", "image", "example")


def packed(part: Part) -> bytes:
    """A part as the bytes of an NPZ archive.

    >>> unpacked(packed(Part(bad=((3, "x"),), dtypes=("uint8",)))).bad
    ((3, 'x'),)
    """
    stream = io.BytesIO()
    words = json.dumps({name: getattr(part, name) for name in _WORDS})
    arrays: dict[str, Any] = {"files": part.files, "words": np.frombuffer(words.encode(), np.uint8)}
    arrays |= {name: value for name in ("total", "samples", "rows") if (value := getattr(part, name)) is not None}
    write_npz(stream, arrays)
    return stream.getvalue()


def unpacked(data: bytes) -> Part:
    """The part that some bytes hold."""
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    words = document(arrays.pop("words").tobytes().decode(), "the file of --resume")
    words |= {name: tuple(words[name]) for name in ("dtypes", "columns")}
    words["bad"] = tuple((int(number), str(text)) for number, text in words["bad"])
    return Part(**arrays, **words)


class Resume:
    """The file of ``--resume``, or none: what it holds is read when it is opened, and what comes is appended."""

    def __init__(self, path: str | None, shards: Sequence[Shard], spec: Spec) -> None:
        self.done: dict[int, Part] = {}
        self._stream: Any = None
        if path is None:
            return
        self._name, digest = shown(path, 200), _digest(shards, spec)
        head, end = _HEAD + digest.encode() + b"\n", 0
        place = Path(path)
        try:
            if place.exists() and place.stat().st_size:
                with place.open("rb") as stream:
                    found = stream.readline(200)
                    if not found.startswith(_HEAD):
                        raise InputError(f"{self._name} is no file of --resume; give the name of a new one")
                    if found != head:
                        raise InputError(
                            f"{self._name} is of other files or options, or the files have changed since",
                            hint="remove it to begin anew",
                        )
                    end = stream.tell()
                    for number, part, after in _records(stream, len(shards)):
                        self.done[number], end = part, after
            self._stream = place.open("r+b" if end else "wb")
            if end:
                self._stream.truncate(end)
                self._stream.seek(end)
            else:
                self._stream.write(head)
        except OSError as error:
            raise InputError(f"cannot write {self._name}: {error.strerror or error}") from None

    def __enter__(self) -> Resume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def keep(self, number: int, part: Part) -> None:
        """Append a finished shard."""
        if self._stream is None:
            return
        data = packed(part)
        try:
            self._stream.write(number.to_bytes(8, "little") + len(data).to_bytes(8, "little") + data)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise UnavailableError(f"cannot write {self._name}: {error.strerror or error}") from None


def _records(stream: Any, shards: int) -> Iterator[tuple[int, Part, int]]:
    """The records that are there whole, each with the place of its end."""
    size = os.fstat(stream.fileno()).st_size
    while len(head := stream.read(_NUMBERS)) == _NUMBERS:
        number, length = int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little")
        if number >= shards or stream.tell() + length > size:
            return
        try:
            part = unpacked(stream.read(length))
        except Exception:  # cut off or damaged: it and what follows is done anew
            return
        yield number, part, stream.tell()


def _digest(shards: Sequence[Shard], spec: Spec) -> str:
    text = hashlib.sha256(repr(spec).encode())
    for shard in shards:
        text.update(repr((shard.number, shard.first, shard.part, shard.parts)).encode())
        for file in shard.files if shard.part == 0 else ():
            text.update(repr(tuple(file)).encode())
    return text.hexdigest()
