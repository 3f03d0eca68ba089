"""Arrays to files and to JSON text: every number exact, and never a file that is there in part."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from normcli.errors import InputError, UnavailableError
from normcli.files.json import json_chunks
from normcli.files.npy import write_array
from normcli.words import either, quoted, shown

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ROWS = 2**14  # elements of a table turned into Python numbers at a time
_STREAMS = {"/dev", "/dev/fd"}  # /dev/stdout may be a regular file, but one that somebody else has open
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_on_their_way: set[Path] = set()  # files that are not yet in their place
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_suffix(path: str, known: Iterable[str], what: str = "the name of the file") -> None:
    """Refuse a path whose suffix names none of the formats that are known; ``what`` stands for an empty one.

    >>> check_suffix("axes.png", [".svg"])
    Traceback (most recent call last):
    normcli.errors.InputError: cannot tell the format of 'axes.png' by its suffix; use .svg
    """
    from pathlib import PurePath

    if not path:
        raise InputError(f"{what} is empty; give one that ends in {either(known)}")
    if PurePath(path).suffix.lower() not in known:
        raise InputError(f"cannot tell the format of {quoted(path)} by its suffix; use {either(known)}")


def suffix(path: str) -> str:
    """The suffix of a path, in small letters.

    >>> suffix("a/b.JSON")
    '.json'
    """
    from pathlib import PurePath

    return PurePath(path).suffix.lower()


def output_format(path: str, rank: int) -> str:
    """The format that the path's suffix names; InputError for others, and for CSV of more than two axes.

    >>> output_format("out/y.NPY", 3)
    '.npy'
    """
    from pathlib import PurePath

    suffix = PurePath(path).suffix.lower()
    check_suffix(path, OUTPUTS)
    if suffix == ".csv" and rank not in (1, 2):
        raise InputError(f"CSV holds tensors of 1 or 2 axes, and this one has {rank}; use .npy, .npz or .json")
    return suffix


def write_tensor(path: str, array: NDArray[Any]) -> None:
    """Write the array in the format of the path's suffix: .npy, .npz (key ``output``), .json or .csv.

    In CSV an array of one axis is one row. The errors are those of ``output_format`` and ``whole_file``.

    >>> write_tensor("/nowhere/y.npy", np.ones(3))
    Traceback (most recent call last):
    normcli.errors.InputError: cannot write /nowhere/y.npy: No such file or directory
    """
    output_format(path, array.ndim)
    with whole_file(path) as stream:
        write_tensor_to(stream, path, array)


def write_tensor_to(stream: BinaryIO, path: str, array: NDArray[Any], name: str = "output") -> None:
    """Write the array to a stream, in the format of the suffix of the path that it goes to; ``name`` is its key."""
    OUTPUTS[output_format(path, array.ndim)](stream, array, name)


def write_text(path: str, text: str) -> None:
    """Write the text in UTF-8; the errors are those of ``whole_file``."""
    with whole_file(path) as stream:
        stream.write(text.encode())


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A stream whose bytes are at ``path`` when the block ends without an exception, and not before.

    The file is written beside its place and moved there when it is whole: whatever happens on the
    way (an error, Ctrl-C, SIGTERM, SIGHUP), a file that was there before stays as it was, and nothing
    else remains. A file that is replaced keeps its mode bits; a symbolic link stays, and what it
    points to is replaced. Devices and pipes are written directly. Raises InputError for a path that
    cannot be written to, UnavailableError for a full disk.

    >>> with whole_file("/dev/null") as stream:
    ...     _ = stream.write(b"gone")
    """
    from pathlib import Path

    try:
        with _opened(Path(path)) as stream:
            yield stream
    except BrokenPipeError:
        raise  # whoever was reading has seen enough: that is no error
    except OSError as error:
        if error.errno is None or error.errno in _FULL:
            reason = error.strerror or "not all bytes were taken; is the disk full?"
            raise UnavailableError(f"cannot write {shown(path, 200)}: {reason}") from error
        raise InputError(f"cannot write {shown(path, 200)}: {error.strerror}") from error


def is_replaceable(path: str) -> bool:
    """Whether ``whole_file`` writes beside the path, where bytes can be written in any order."""
    from pathlib import Path

    place = Path(path)
    return str(place.parent) not in _STREAMS and (place.is_file() or not place.exists())


def _opened(place: Path) -> AbstractContextManager[BinaryIO]:
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not is_replaceable(str(place)):
        return place.open("wb")
    target = type(place)(os.path.realpath(place))
    if target.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link to itself")
    return _beside(target)


@contextmanager
def _beside(target: Path) -> Iterator[BinaryIO]:
    """A new file in the target's folder, moved over the target in the end."""
    mode = _mode(target)
    temporary = target.parent / f".normcli-{os.getpid()}-{os.urandom(4).hex()}.tmp"
    with _removed_by_signals(temporary):
        try:
            with temporary.open("x+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if mode is not None:
                temporary.chmod(mode)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def _removed_by_signals(temporary: Path) -> Iterator[None]:
    """Until the block ends, SIGTERM and SIGHUP remove the file before they end the process.

    Ctrl-C needs no such thing: it is an exception. A signal that is ignored (nohup) or heard by
    somebody else is left alone, and only the main thread can hear of any.
    """
    heard = threading.current_thread() is threading.main_thread()
    taken = [number for number in _ENDING if heard and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _end)
    _on_their_way.add(temporary)
    try:
        yield
    finally:
        _on_their_way.discard(temporary)
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: object) -> None:
    for temporary in _on_their_way:
        temporary.unlink(missing_ok=True)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _mode(target: Path) -> int | None:
    """The mode bits of a file that is there; to move over one that may not be written to is refused."""
    if not target.exists():
        return None
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_IMODE(target.stat().st_mode)


def write_npz(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays under their names."""
    from zipfile import ZipFile

    with ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_array(cast(BinaryIO, member), array)


def _write_npy(stream: BinaryIO, array: NDArray[Any], name: str) -> None:
    write_array(stream, array)


def _write_npz(stream: BinaryIO, array: NDArray[Any], name: str) -> None:
    write_npz(stream, {name: array})


def _write_json(stream: BinaryIO, array: NDArray[Any], name: str) -> None:
    for chunk in json_chunks(array):
        stream.write(chunk.encode("ascii"))
    stream.write(b"\n")


def _write_csv(stream: BinaryIO, array: NDArray[Any], name: str) -> None:
    table = np.atleast_2d(array)
    rows = max(1, _ROWS // max(1, table.shape[1]))
    for start in range(0, len(table), rows):
        for row in table[start : start + rows].astype(np.float64).tolist():
            stream.write(",".join(map(repr, row)).encode("ascii") + b"\n")


PAGES = (".html", ".htm")
OUTPUTS: Mapping[str, Callable[[BinaryIO, NDArray[Any], str], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".json": _write_json,
    ".csv": _write_csv,
}
