"""What is given on the command line as a list of files: globs, braces, folders, remote addresses, members."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from normcli.datasets.formats import FAMILIES, family_of, is_store
from normcli.datasets.libraries import library
from normcli.errors import InputError
from normcli.files.streams import missing
from normcli.words import count, either, listed, shown

_BRACES = re.compile(r"\{([^{}]*(?:\.\.|,)[^{}]*)\}")
_MAGIC = re.compile(r"[*?\[]")
_MOST = 10_000_000  # files; a mistyped range had better end


class File(NamedTuple):
    """A file (or a store that is a folder): where it is, the member meant, its size and when it changed last."""

    address: str
    member: str | None = None
    size: int = 0
    stamp: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return shown(self.address if self.member is None else f"{self.address}::{self.member}", 200)

    @property
    def remote(self) -> bool:
        """Whether it is reached by fsspec."""
        return "://" in self.address


def expanded(given: Iterable[str]) -> list[File]:
    """The files meant by some addresses, those of each in the order of their names, each file once.

    Raises InputError, in one sentence, for an address that names nothing and for a folder of several formats,
    UnavailableError where the library for remote addresses is missing.

    >>> expanded(["/nowhere/*.npy"])
    Traceback (most recent call last):
    normcli.errors.InputError: no file matches /nowhere/*.npy
    """
    found: dict[tuple[str, str | None], File] = {}
    for text in given:
        for file in _files(text.strip()):
            found.setdefault((file.address, file.member), file)
            if len(found) > _MOST:
                raise InputError(f"{shown(text)} names more than {_MOST} files")
    return list(found.values())


def _files(text: str) -> Iterator[File]:
    if not text:
        raise InputError("an address is empty")
    address, member = _split(text)
    names = [address] if "://" not in address and Path(address).exists() else list(_braced(address))
    for name in names:
        yield from (_remote if "://" in name else _local)(name, member)


def _split(text: str) -> tuple[str, str | None]:
    """The address and the member after ``::``; fsspec's own chains (``zip://a::s3://b``) are left whole.

    >>> _split("train.tar::img.npy"), _split("zip://x.npy::s3://b/a.zip")
    (('train.tar', 'img.npy'), ('zip://x.npy::s3://b/a.zip', None))
    """
    address, mark, member = text.rpartition("::")
    if not mark or "://" in member or not address or ("://" not in text and Path(text).exists()):
        return text, None
    return address, member


def _braced(text: str) -> Iterator[str]:
    """The texts that braces stand for.

    >>> list(_braced("a{08..11}.{x,y}"))[:3], len(list(_braced("{2..0}")))
    (['a08.x', 'a08.y', 'a09.x'], 3)
    """
    match = _BRACES.search(text)
    if match is None:
        yield text
        return
    before, inside, after = text[: match.start()], match[1], text[match.end() :]
    for choice in _choices(inside):
        yield from _braced(f"{before}{choice}{after}")


def _choices(inside: str) -> Iterable[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if ends is None:
        return inside.split(",")
    first, last = int(ends[1]), int(ends[2])
    if abs(last - first) > _MOST:
        raise InputError(f"{{{inside}}} is more than {_MOST} files")
    width = len(ends[1]) if ends[1].startswith("0") or ends[2].startswith("0") else 0
    step = 1 if last >= first else -1
    return (f"{number:0{width}d}" for number in range(first, last + step, step))


def _local(path: str, member: str | None) -> Iterator[File]:
    if not os.path.lexists(path) and _MAGIC.search(path):
        names = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  # the pattern may be absolute
        names = [name for name in names if not Path(name).is_dir() or is_store(name)]
        if not names:
            raise InputError(f"no file matches {shown(path, 200)}")
        yield from (_file(name, member) for name in names)
    elif not Path(path).exists():
        raise missing(path)
    elif Path(path).is_dir() and not is_store(path):
        yield from _folder(path, member)
    else:
        yield _file(path, member)


def _file(path: str, member: str | None) -> File:
    about = Path(path).stat()
    return File(path, member, 0 if Path(path).is_dir() else about.st_size, str(about.st_mtime_ns))


def _folder(folder: str, member: str | None) -> Iterator[File]:
    """The data in a folder and below, by name; a store in it is one."""
    found: list[File] = []

    def walk(place: str) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if is_store(entry.path):
                        found.append(_file(entry.path, member))
                    else:
                        walk(entry.path)
                elif family_of(entry.name) is not None:
                    about = entry.stat()
                    found.append(File(entry.path, member, about.st_size, str(about.st_mtime_ns)))

    walk(folder)
    yield from _of_one_family(sorted(found), folder)


def _of_one_family(found: list[File], folder: str) -> list[File]:
    """What a folder holds, if that is of one format."""
    if not found:
        raise InputError(f"{shown(folder, 200)} holds no data; the formats are {either(sorted(FAMILIES))}")
    families: dict[str, int] = {}
    for file in found:
        family = str(family_of(file.address))
        families[family] = families.get(family, 0) + 1
    if len(families) > 1:
        held = " and ".join(count(number, f"{family} file") for family, number in sorted(families.items()))
        raise InputError(
            f"{shown(folder, 200)} holds {held}; say which",
            hint=f"a glob takes one kind: '{shown(folder)}/**/*{Path(found[0].address).suffix}'",
        )
    return found


def _remote(url: str, member: str | None) -> Iterator[File]:
    system, path = filesystem(url)
    protocol = url.partition("://")[0]
    with reached(url):
        if is_store(path):
            yield File(url, member)
            return
        if _MAGIC.search(path) and not protocol.startswith("http"):
            about = [item for item in system.glob(path, detail=True).values() if item.get("type") == "file"]
            if not about:
                raise InputError(f"no file matches {shown(url, 200)}")
        else:
            one = system.info(path)
            if one.get("type") != "directory":
                yield _remote_file(url, member, one)
                return
            about = [item for item in system.find(path, detail=True).values() if family_of(str(item["name"]))]
    found = [_remote_file(system.unstrip_protocol(str(item["name"])), member, item) for item in about]
    yield from sorted(found) if _MAGIC.search(path) else _of_one_family(sorted(found), url)


def _remote_file(url: str, member: str | None, about: Any) -> File:
    stamp = about.get("ETag") or about.get("LastModified") or about.get("mtime") or about.get("created") or ""
    return File(url, member, int(about.get("size") or 0), str(stamp))


def filesystem(url: str) -> tuple[Any, str]:
    """The file system that a remote address names, and the path in it."""
    fsspec = library("fsspec", "remote addresses", extra="s3" if url.startswith("s3") else "remote")
    with reached(url):
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    return found


class reached:  # noqa: N801  # a context manager, named as a function
    """What is done within goes over a network: what a library raises of it is an InputError, in words."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, InputError):
            return
        if isinstance(error, MemoryError) or type(error).__module__.startswith("normcli"):
            return
        cause = error.__cause__  # a host that cannot be reached, of which fsspec makes a file that is not there
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            error = cause
        if isinstance(error, FileNotFoundError):
            raise InputError(f"no file {shown(self.url, 200)}") from None
        reason = shown(" ".join(str(error).split()) or type(error).__name__, 200)
        raise InputError(f"cannot read {shown(self.url, 200)}: {reason}") from None


def names(files: Iterable[File]) -> str:
    """Some files in one line."""
    return listed(file.name for file in files)
