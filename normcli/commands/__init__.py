"""Commands: the command line, a thin skin over the rest."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "axes", "calculate", "check", "conventions", "fold", "formula", "help", "show", "state", "stats", "texts", "typed",
]  # fmt: skip

if TYPE_CHECKING:
    from normcli.commands import axes, calculate, check, conventions, fold, help, show, state, stats


def __getattr__(name: str) -> Any:
    # A module of the room is imported when it is first asked for.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
