"""Something to be done on a worker."""

from __future__ import annotations

from typing import Any, NamedTuple


class Task(NamedTuple):
    """Its number, what to call it, and the arguments of the function that does it."""

    number: int
    name: str
    arguments: tuple[Any, ...]
