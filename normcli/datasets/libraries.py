"""Libraries that come with an extra: imported when an address needs one, and named where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from normcli.errors import UnavailableError


def library(module: str, what: str, *, extra: str) -> Any:
    """A library that ``what`` needs; UnavailableError, with the extra that brings it, where it is not there.

    >>> library("no_such_library", "x.zarr", extra="zarr")
    Traceback (most recent call last):
    normcli.errors.UnavailableError: x.zarr needs no_such_library, which is not installed
    """
    try:
        found = import_module(module)
        if module == "fsspec":
            import_module("fsspec.core")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            message = f"{what} needs {module.partition('.')[0]}, which is not installed"
            raise UnavailableError(message, hint=f"pip install 'normcli[{extra}]'") from None
        reason = " ".join(str(error).split())
        raise UnavailableError(f"{what} needs {module}, which cannot be imported: {reason}") from None
    return found
