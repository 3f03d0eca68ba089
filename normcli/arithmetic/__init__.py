"""Arithmetic: from a plan and arrays to named quantities.

What small calculations need not wait for is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_LATE = {"large", "loops", "threads"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return import_module(f"normcli.arithmetic.{name}")
    raise AttributeError(f"module 'normcli.arithmetic' has no attribute {name!r}")
