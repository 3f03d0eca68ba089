"""The formula: its language, the lines of the family, and what is read off them; it knows no plan and no arrays.

What a forward pass need not wait for is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_LATE = {"gradient"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return import_module(f"normcli.formula.{name}")
    raise AttributeError(f"module 'normcli.formula' has no attribute {name!r}")
