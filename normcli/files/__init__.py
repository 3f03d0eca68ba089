"""Files: whatever holds a tensor, read and written; nothing is unpickled or evaluated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["read", "write"]

if TYPE_CHECKING:
    from normcli.files import read, write


def __getattr__(name: str) -> Any:
    # A module of the room is imported when it is first asked for.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
