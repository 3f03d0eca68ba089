"""NPZ archives: NPY data under names. Nothing is unpacked that would fill the memory or the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, cast
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

from normcli.errors import InputError
from normcli.files import npy
from normcli.files.checkpoint import Array, check_stored, chosen, damage_of, tensors_of_torch
from normcli.files.numbers import Tensor
from normcli.files.streams import Source
from normcli.words import shown

_LARGE_MEMBER = 2**26  # bytes from which on a member that is packed tightly is taken for a bomb
_TIGHT = 100  # times smaller than unpacked; numbers that differ do not pack to a tenth


def tensors(source: Source, *, key: str | None, dtype: str | None) -> list[Tensor]:
    """The array of that name as a tensor, or the only one."""
    stream = source.searchable()
    with damage_of(source.name), ZipFile(stream) as archive:
        entry = _chosen(archive, source.name, key)
        inner = f"{source.name}::{shown(_name(entry))}"
        with archive.open(entry) as packed:
            return [npy.read_tensor(cast(BinaryIO, packed), inner, entry.file_size, bfloat16=dtype == "bfloat16")]


def arrays(source: Source, wanted: Callable[[str], bool]) -> Iterator[Array]:
    """The arrays whose names are wanted, or those of the PyTorch checkpoint that the archive is."""
    stream = source.searchable()
    with damage_of(source.name):
        archive = ZipFile(stream)  # open as long as the stream: its arrays are read later
        entries = archive.infolist()
        if _is_pickled(entries):
            check_stored(entries, source.name)
            stream.seek(source.start)
            yield from tensors_of_torch(stream, source.name, wanted)
            return
        if not any(entry.filename.endswith(".npy") for entry in entries):
            raise InputError(f"{source.name} holds no arrays")
        for entry in entries:
            if entry.filename.endswith(".npy") and wanted(_name(entry)):
                yield _array(archive, entry, f"{source.name}::{shown(_name(entry))}")


def _name(entry: ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _is_pickled(entries: list[ZipInfo]) -> bool:
    return any(entry.filename.endswith("data.pkl") for entry in entries)


def entries(archive: ZipFile, name: str) -> list[ZipInfo]:
    """The members that hold arrays; InputError where there are none, or where the archive is a pickle of PyTorch."""
    found = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
    if not found and _is_pickled(archive.infolist()):
        raise InputError(f"{name} is a PyTorch file, a pickle, which is never loaded; save the tensor as NPY")
    return found


def _chosen(archive: ZipFile, name: str, key: str | None) -> ZipInfo:
    """The entry of the archive that holds the array, refused here if it had better not be unpacked."""
    found = entries(archive, name)
    names = [_name(entry) for entry in found]
    entry = found[chosen(names, name, None if key is None else key.removesuffix(".npy"))]
    check_packing(entry, f"{name}::{shown(_name(entry))}")
    return entry


def _array(archive: ZipFile, entry: ZipInfo, inner: str) -> Array:
    check_packing(entry, inner)
    with archive.open(entry) as packed:
        header = npy.read_header(cast(BinaryIO, packed), inner, bfloat16=True)

    def read() -> Tensor:
        with damage_of(inner), archive.open(entry) as packed:
            return npy.read_tensor(cast(BinaryIO, packed), inner, entry.file_size, bfloat16=True)

    return Array(name=_name(entry), shape=header.shape, dtype=header.dtype.name, read=read)


def check_packing(entry: ZipInfo, inner: str) -> None:
    """Refuse an entry of an archive that cannot be unpacked, or had better not be."""
    if entry.flag_bits & 1:
        raise InputError(f"{inner} is encrypted")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA):
        raise InputError(f"{inner} is compressed by method {entry.compress_type}, which is not known")
    if entry.file_size > _LARGE_MEMBER and entry.file_size > _TIGHT * entry.compress_size:
        packed, unpacked = entry.compress_size / 2**20, entry.file_size / 2**20
        raise InputError(f"{inner} would grow from {packed:.1f} to {unpacked:.0f} MiB; unpack it to NPY first")
