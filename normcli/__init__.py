"""normcli: a calculator for tensor normalization.

>>> import normcli
>>> normcli.normalize([[1, 2], [3, 6]], "layer", eps=0).output.tolist()
[[-1.0, 1.0], [-1.0, 1.0]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Result", "normalize"]

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.calculate import normalize


def __getattr__(name: str) -> Any:
    # NumPy is imported with the first calculation, so that `normcli --help` need not wait for it.
    if name == "normalize":
        from normcli.calculate import normalize

        return normalize
    if name == "Result":
        from normcli.arithmetic.result import Result

        return Result
    raise AttributeError(f"module 'normcli' has no attribute {name!r}")
