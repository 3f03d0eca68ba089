"""normcli: a calculator for tensor normalization.

>>> import normcli
>>> normcli.normalize([[1, 2], [3, 6]], "layer", eps=0).output.tolist()
[[-1.0, 1.0], [-1.0, 1.0]]
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"
__all__ = ["Pooled", "Result", "axes", "check", "layers", "normalize", "stats", "testing", "trace", "versus"]

# NumPy is imported with the first calculation, so that `normcli --help` need not wait for it. What a name is,
# is said to type checkers in __init__.pyi: the doors between the rooms count imports for types too.
_MODULES = ("layers", "testing")
_HOMES = {
    "Pooled": "normcli.datasets.pooling",
    "Result": "normcli.arithmetic.result",
    "axes": "normcli.showing.python",
    "check": "normcli.teaching.python",
    "mimebundle": "normcli.showing.python",
    "normalize": "normcli.calculate",
    "stats": "normcli.datasets.pooling",
    "told": "normcli.showing.python",
    "trace": "normcli.teaching.python",
    "versus": "normcli.teaching.python",
    "with_state": "normcli.layers",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"normcli.{name}")
    raise AttributeError(f"module 'normcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
