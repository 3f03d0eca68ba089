"""Lines as Python with NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normcli.formula import language
from normcli.formula.language import CASTS, REDUCTIONS, WINDOWS, Call, Name, Node, Number, names_in
from normcli.formula.spelled import PARENTHESES, parenthesized

_OPERATORS = "+-*/^"
_COUNTS = {"n", "N"}  # never 0
_CALLS: Mapping[str, str] = {
    "sqrt": "np.sqrt", "abs": "np.abs", "sign": "np.sign", "exp": "np.exp", "log": "np.log",
    "larger": "np.maximum", "smaller": "np.minimum",
}  # fmt: skip
_COMPARED = {"greater": ">", "equal": "=="}
WINDOW = """\
def window(values, axis, before, after):
    padded = np.pad(values, [(before, after) if i == axis else (0, 0) for i in range(values.ndim)])
    size = values.shape[axis]
    return sum(np.take(padded, range(start, start + size), axis) for start in range(before + after + 1))
"""
_TYPES: Mapping[str, str] = {name: "ml_dtypes.bfloat16" if name == "bfloat16" else f"np.{name}" for name in CASTS}


def source(
    node: Node, names: Mapping[str, str], axes: Mapping[str | None, str], *, by_zero: bool = False, then: str = ""
) -> str:
    """An expression as Python; ``names`` are written otherwise, ``axes`` say what a reduction is called with.

    A sum divided by the number of what it goes over is a mean. ``by_zero`` says that a quotient may be
    one by 0, which is 0 here: a constant group normalizes to 0 by definition. ``then`` is called on the whole.

    >>> from normcli.formula.language import parsed
    >>> source(parsed("sum(centered^2) / (n - 1)"), {"n": "3"}, {None: "axis=(0,)"})
    '(centered**2).sum(axis=(0,)) / (3 - 1)'
    >>> source(parsed("1 / sqrt(var + eps)"), {}, {})
    '1 / np.sqrt(var + eps)'
    """
    tree = parenthesized(_with_means(node))
    text = _Writer(names, axes, by_zero).written(tree)
    return (f"({text})" if then and isinstance(tree, Call) and tree.function in _OPERATORS else text) + then


def _with_means(node: Node) -> Node:
    if not isinstance(node, Call):
        return node
    parts = tuple(map(_with_means, node.parts))
    over = parts[0] if len(parts) == 2 and node.function == "/" else None
    if isinstance(over, Call) and over.function == "sum" and parts[1] == Name("N" if over.axes else "n"):
        return Call("mean", over.parts, over.axes)
    return Call(node.function, parts, node.axes)


class _Writer:
    def __init__(self, names: Mapping[str, str], axes: Mapping[str | None, str], by_zero: bool) -> None:
        self._names, self._axes, self._by_zero = names, axes, by_zero

    def written(self, node: Any) -> str:
        if isinstance(node, Number):
            return f"{node.value:g}" if float(node.value).is_integer() else repr(node.value)
        if isinstance(node, Name):
            return self._names.get(node.name, node.name)
        parts = [self.written(part) for part in node.parts]
        if node.function == PARENTHESES:
            return f"({parts[0]})"
        if node.function in REDUCTIONS:
            receiver = parts[0] if isinstance(node.parts[0], Name) else f"({parts[0]})"
            return f"{receiver}.{node.function}({self._axes[node.axes]})"
        if node.function in _CALLS:
            return f"{_CALLS[node.function]}({', '.join(parts)})"
        if node.function in _COMPARED:
            return f"np.where({parts[0]} {_COMPARED[node.function]} {parts[1]}, 1.0, 0.0)"
        if node.function in WINDOWS:
            near = ("before", "after") if node.function == language.WINDOW else ("after", "before")
            sizes = ", ".join(self._names[name] for name in near)
            return f"window({parts[0]}, {self._axes[node.axes]}, {sizes})"
        if node.function == "stop":
            return parts[0]
        if node.function in _TYPES:
            return f"np.asarray({parts[0]}, {_TYPES[node.function]}).astype(np.float64)"
        if node.function == "/" and self._by_zero and names_in(node.parts[1]) - _COUNTS:
            like = "root" if isinstance(node.parts[0], Number) else parts[0]
            return f"np.divide({parts[0]}, root := {parts[1]}, out=np.zeros_like({like}), where=root != 0)"
        if len(parts) == 1:
            return f"-{parts[0]}"
        return "**".join(parts) if node.function == "^" else f" {node.function} ".join(parts)
