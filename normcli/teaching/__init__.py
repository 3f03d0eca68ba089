"""Teaching: the trace of a calculation, the verdict on an answer, and two ways side by side."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["check", "free_check", "free_traced", "printed", "trace", "versus", "worked"]

if TYPE_CHECKING:
    from normcli.teaching import check, printed, trace, versus, worked


def __getattr__(name: str) -> Any:
    # A module of the room is imported when it is first asked for.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
