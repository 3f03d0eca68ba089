"""Where the arithmetic is done. A backend is a module with one function, ``normalize``.

Which module runs is decided here and nowhere else.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from normcli.errors import InputError
from normcli.plan import Plan, either
from normcli.result import Result, State

BACKENDS = ("numpy", "torch")


class Backend(Protocol):
    """What each backend module offers."""

    def normalize(
        self, x: Any, plan: Plan, state: State, *, device: str, out: Any = None, steps: bool = False
    ) -> Result:
        """Normalize ``x`` as planned, from ``state``; ``steps`` asks for centered and normalized too."""
        ...


def backend(name: str) -> Backend:
    """The backend of that name; importing it is all that it costs.

    >>> backend("numpy").__name__
    'normcli.backends.numpy'
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is not known; use {either(BACKENDS)}")
    return cast(Backend, import_module(f"normcli.backends.{name}"))
