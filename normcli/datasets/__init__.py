"""Datasets: one set of statistics over many files, in many formats, on many machines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["addresses", "engine", "expected", "pooling", "spec", "standardize"]

if TYPE_CHECKING:
    from normcli.datasets import addresses, engine, expected, pooling, spec, standardize


def __getattr__(name: str) -> Any:
    # A module of the room is imported when it is first asked for.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
