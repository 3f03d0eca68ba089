"""normcli: a calculator for tensor normalization.

>>> import normcli
>>> normcli.normalize([[1, 2], [3, 6]], "layer", eps=0).output.tolist()
[[-1.0, 1.0], [-1.0, 1.0]]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Result", "normalize"]

if TYPE_CHECKING:
    from normcli import layers as layers
    from normcli.arithmetic.result import Result
    from normcli.calculate import normalize

# NumPy is imported with the first calculation, so that `normcli --help` need not wait for it.
_HOMES = {"Result": "normcli.arithmetic.result", "normalize": "normcli.calculate", "with_state": "normcli.layers"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "layers":
        return import_module("normcli.layers")
    raise AttributeError(f"module 'normcli' has no attribute {name!r}")
