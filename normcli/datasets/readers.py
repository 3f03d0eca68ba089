"""The reader of a file: by its suffix, or by its first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from normcli.datasets.addresses import File, reached
from normcli.datasets.arrays import opened
from normcli.datasets.formats import FAMILIES, family_by_content, family_of, is_store
from normcli.datasets.spec import Spec
from normcli.errors import InputError
from normcli.words import either

if TYPE_CHECKING:
    from normcli.datasets.arrays import Array


def arrays(file: File, spec: Spec) -> Iterator[Array]:
    """The arrays of a file, one after the other; what cannot be read is an InputError that names the file.

    >>> list(arrays(File("/nowhere/x.npy"), Spec()))
    Traceback (most recent call last):
    normcli.errors.InputError: no file /nowhere/x.npy
    """
    found: Iterator[Array] = import_module(f"normcli.datasets.{FAMILIES[family(file)].reader}").arrays(file, spec)
    return found


def family(file: File) -> str:
    """The format of a file."""
    found = "Zarr" if is_store(file.address) else family_of(file.address)
    if found is None:
        with opened(file) as stream, reached(file.address):
            found = family_by_content(stream.read(512))
    if found is None:
        raise InputError(f"cannot tell the format of {file.name}; the formats are {either(sorted(FAMILIES))}")
    return found
