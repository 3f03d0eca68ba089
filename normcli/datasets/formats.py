"""The one table of formats: suffixes and first bytes, and the module that reads such a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Format(NamedTuple):
    """A format: its reader (a module of normcli.datasets with ``arrays``), its suffixes, how its files begin."""

    reader: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...] = ()


FAMILIES: Mapping[str, Format] = {
    "NPY": Format("plain", (".npy",), (b"\x93NUMPY",)),
    "NPZ": Format("archives", (".npz",), (b"PK\x03\x04", b"PK\x05\x06")),
    "safetensors": Format("archives", (".safetensors",)),
    "CSV": Format("tables", (".csv", ".tsv", ".txt")),
    "Parquet": Format("tables", (".parquet", ".pq"), (b"PAR1",)),
    "Zarr": Format("stores", (".zarr",)),
    "HDF5": Format("stores", (".h5", ".hdf5", ".nc", ".nc4"), (b"\x89HDF\r\n\x1a\n",)),
    "image": Format("images", (".png", ".jpg", ".jpeg"), (b"\x89PNG\r\n", b"\xff\xd8\xff")),
    "tar": Format("images", (".tar", ".tar.gz", ".tgz")),
}
_BY_SUFFIX = {suffix: family for family, format_ in FAMILIES.items() for suffix in format_.suffixes}
_STORE_MARKS = (".zarray", ".zgroup", "zarr.json")


def family_of(name: str) -> str | None:
    """The format that a name's suffix tells.

    >>> family_of("a/b.TAR.gz"), family_of("a.zarr"), family_of("a")
    ('tar', 'Zarr', None)
    """
    low = name.lower().rstrip("/")
    base, _, last = low.rpartition("/")[2].rpartition(".")
    found = _BY_SUFFIX.get(f".{last}")
    return found or _BY_SUFFIX.get(f".{base.rpartition('.')[2]}.{last}")


def family_by_content(head: bytes) -> str | None:
    """The format that the first bytes tell.

    >>> family_by_content(b"\\x93NUMPY\\x01\\x00")
    'NPY'
    """
    for family, format_ in FAMILIES.items():
        if head.startswith(format_.magic or (b"\0" * 99,)):
            return family
    return "tar" if head[257:262] == b"ustar" else None


def is_store(path: str) -> bool:
    """Whether a path is a Zarr store, which is a folder."""
    if path.rstrip("/").lower().endswith(".zarr"):
        return True
    local = "://" not in path and Path(path).is_dir()
    return local and any(Path(path, mark).exists() for mark in _STORE_MARKS)
