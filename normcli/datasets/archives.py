"""Arrays under names in one file: NPZ and safetensors."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator
from typing import BinaryIO, cast
from zipfile import ZipFile

from normcli.datasets.addresses import File, reached
from normcli.datasets.arrays import Array, of_stream, opened
from normcli.datasets.formats import family_of
from normcli.datasets.plain import of_npy
from normcli.datasets.spec import Spec
from normcli.errors import InputError
from normcli.files import npz, safetensors
from normcli.files.checkpoint import chosen, damage_of
from normcli.files.streams import Source
from normcli.words import shown


def arrays(file: File, spec: Spec) -> Iterator[Array]:
    """The array of the member's name, all those that a pattern matches, or the only one."""
    read = _safetensors if family_of(file.address) == "safetensors" else _npz
    with opened(file, 0) as stream, reached(file.address):
        yield from read(stream, file)


def matched(names: list[str], file: File) -> list[int]:
    """Which of the names are meant: those that a pattern matches, or the one that is named or alone.

    >>> matched(["a1", "a2", "b"], File("x.npz", "a*"))
    [0, 1]
    """
    outer = shown(file.address, 200)
    if file.member is not None and file.member not in names and any(sign in file.member for sign in "*?["):
        found = [index for index, name in enumerate(names) if fnmatch.fnmatchcase(name, file.member)]
        if found:
            return found
    return [chosen(names, outer, file.member)]


def _npz(stream: BinaryIO, file: File) -> Iterator[Array]:
    outer = shown(file.address, 200)
    with damage_of(outer), ZipFile(stream) as archive:
        entries = npz.entries(archive, outer)
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        for index in matched(names, file):
            inner = f"{outer}::{shown(names[index])}"
            npz.check_packing(entries[index], inner)
            with archive.open(entries[index]) as packed:
                yield of_npy(cast(BinaryIO, packed), inner, entries[index].file_size)


def _safetensors(stream: BinaryIO, file: File) -> Iterator[Array]:
    outer = shown(file.address, 200)
    found = list(safetensors.places(Source(stream, outer)))
    for index in matched([key for key, *_ in found], file):
        key, shape, dtype, offset = found[index]
        inner = f"{outer}::{shown(key)}"
        if not math.prod(shape):
            raise InputError(f"{inner} has no elements (shape {shape})")
        yield of_stream(stream, offset, shape, dtype, inner, turned=False)
