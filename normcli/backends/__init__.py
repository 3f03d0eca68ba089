"""Where the arithmetic is done. A backend is a module with one function, ``normalize``.

Which module runs is decided here and nowhere else.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from normcli.errors import InputError, UnavailableError, repr_of
from normcli.plan import Plan, either
from normcli.result import Result, State

BACKENDS = ("numpy", "torch")


class Backend(Protocol):
    """What each backend module offers."""

    def normalize(
        self,
        x: Any,
        plan: Plan,
        state: State,
        *,
        device: str | None = None,
        out: Any = None,
        steps: bool = False,
        threads: int | None = None,
    ) -> Result:
        """Normalize ``x`` as planned, from ``state``; ``steps`` asks for centered and normalized too."""
        ...


def backend(name: str) -> Backend:
    """The backend of that name; importing it is all that it costs.

    Raises InputError for an unknown name and UnavailableError where its library is missing.

    >>> backend("numpy").__name__
    'normcli.backends.numpy'
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise InputError(f"backend {repr_of(name)} is not known; use {either(BACKENDS)}")
    try:
        return cast(Backend, import_module(f"normcli.backends.{name}"))
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UnavailableError(
            f"the {name} backend needs PyTorch, which is not installed",
            hint="pip install 'normcli[torch]' installs it (several GB on Linux)",
        ) from None
    except (ImportError, OSError) as error:
        raise UnavailableError(f"{name} is installed but cannot be imported: {error}") from None
