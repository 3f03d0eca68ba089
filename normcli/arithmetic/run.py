"""Where the arithmetic is done. A backend is a module with one function, ``normalize``.

Which module runs is decided here and nowhere else.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

from normcli.arithmetic.result import Result, State
from normcli.errors import InputError, with_torch
from normcli.planning.plan import Plan
from normcli.words import either, repr_of

_MODULES = {"numpy": "normcli.arithmetic.reference", "torch": "normcli.arithmetic.torch"}
BACKENDS = tuple(_MODULES)
REFERENCE = "numpy"


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
        grad_output: Any = None,
    ) -> Result:
        """Normalize ``x`` as planned, from ``state``; ``steps`` asks for centered and normalized too.

        ``grad_output``, an array of the tensor's shape, asks for the gradients.
        """
        ...


def chosen(name: str | None, device: str | None) -> str:
    """The backend that is meant: the reference unless another is named, or a device, which implies torch.

    >>> chosen(None, None), chosen(None, "cpu")
    ('numpy', 'torch')
    """
    if name == REFERENCE and device is not None:
        raise InputError("--backend numpy and --device contradict each other: a device implies torch")
    return name or (REFERENCE if device is None else "torch")


def backend(name: str) -> Backend:
    """The backend of that name; importing it is all that it costs.

    Raises InputError for an unknown name and UnavailableError where its library is missing.

    >>> backend("numpy").__name__
    'normcli.arithmetic.reference'
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise InputError(f"backend {repr_of(name)} is not known; use {either(BACKENDS)}")
    return _loaded(name)


@cache
def _loaded(name: str) -> Backend:
    module = _MODULES[name]
    if name == REFERENCE:
        return cast(Backend, import_module(module))
    hint = "pip install 'normcli[torch]' installs it (several GB on Linux)"
    return cast(Backend, with_torch(module, f"the {name} backend needs PyTorch, which is not installed", hint))
