"""Arithmetic: from a plan and arrays to named quantities."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["fold", "free", "large", "large_backward", "loops", "ranks", "reference", "result", "threads", "uncompiled"]


def __getattr__(name: str) -> Any:
    # A module of the room is imported when it is first asked for: small calculations need none of these.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
