"""Planning: from a kind, its options and a shape to a plan; integers only.

What the family need not wait for is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_LATE = {"further", "free"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return import_module(f"normcli.planning.{name}")
    raise AttributeError(f"module 'normcli.planning' has no attribute {name!r}")
