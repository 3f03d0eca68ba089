"""Lines as Python with NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normcli.formula.language import REDUCTIONS, Call, Name, Node, Number
from normcli.formula.spelled import PARENTHESES, parenthesized

_CALLS: Mapping[str, str] = {"sqrt": "np.sqrt", "abs": "np.abs"}


def source(node: Node, names: Mapping[str, str], axes: Mapping[str | None, str]) -> str:
    """An expression as Python; ``names`` are written otherwise, ``axes`` say what a reduction is called with.

    A sum divided by ``n``, or by the number of what a named set of axes holds, is a mean.

    >>> from normcli.formula.language import parsed
    >>> source(parsed("sum(centered^2) / (n - 1)"), {"n": "3"}, {None: "axis=(0,)"})
    '(centered**2).sum(axis=(0,)) / (3 - 1)'
    >>> source(parsed("1 / sqrt(var + eps)"), {}, {})
    '1 / np.sqrt(var + eps)'
    """
    return _written(parenthesized(_with_means(node)), names, axes)


def _with_means(node: Node) -> Node:
    if not isinstance(node, Call):
        return node
    parts = tuple(map(_with_means, node.parts))
    over = parts[0] if len(parts) == 2 and node.function == "/" else None
    if isinstance(over, Call) and over.function == "sum" and parts[1] == Name("N" if over.axes else "n"):
        return Call("mean", over.parts, over.axes)
    return Call(node.function, parts, node.axes)


def _written(node: Any, names: Mapping[str, str], axes: Mapping[str | None, str]) -> str:
    if isinstance(node, Number):
        return f"{node.value:g}" if float(node.value).is_integer() else repr(node.value)
    if isinstance(node, Name):
        return names.get(node.name, node.name)
    parts = [_written(part, names, axes) for part in node.parts]
    if node.function == PARENTHESES:
        return f"({parts[0]})"
    if node.function in REDUCTIONS:
        receiver = parts[0] if isinstance(node.parts[0], Name) else f"({parts[0]})"
        return f"{receiver}.{node.function}({axes[node.axes]})"
    if node.function in _CALLS:
        return f"{_CALLS[node.function]}({parts[0]})"
    if len(parts) == 1:
        return f"-{parts[0]}"
    return "**".join(parts) if node.function == "^" else f" {node.function} ".join(parts)
