"""Showing: what was found as text, a module for each output format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "axes",
    "beside",
    "check",
    "conventions",
    "cube",
    "figure",
    "fold",
    "formats",
    "html",
    "picture",
    "report",
    "state",
    "stats",
    "svg",
    "table",
    "versus",
]

if TYPE_CHECKING:
    from normcli.showing import (
        axes,
        beside,
        check,
        conventions,
        cube,
        figure,
        fold,
        formats,
        html,
        picture,
        report,
        state,
        stats,
        svg,
        table,
        versus,
    )


def __getattr__(name: str) -> Any:
    # A module of the room is imported when it is first asked for.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
