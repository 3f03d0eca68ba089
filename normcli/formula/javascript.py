"""Lines as JavaScript: a function of an element, ``v``, that holds the values of all names there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normcli.formula.language import REDUCTIONS, Call, Name, Node, Number, names_in, walked
from normcli.formula.spelled import PARENTHESES, parenthesized

_COUNTS = {"n", "N"}  # never 0
_OPERATORS = "+-*/^"
_CALLS: Mapping[str, str] = {
    "sqrt": "Math.sqrt", "abs": "Math.abs", "sign": "Math.sign", "exp": "Math.exp", "log": "Math.log",
    "larger": "Math.max", "smaller": "Math.min", "equal": "v.equal", "stop": "",
}  # fmt: skip


def javascript(node: Node) -> str:
    """An expression as JavaScript; a sum is the element's own, over the axes of that name.

    What is divided by more than counts goes through its ``over``, for a constant group normalizes to 0 by definition.

    >>> from normcli.formula.language import parsed
    >>> javascript(parsed("sum(centered^2) / n")), javascript(parsed("1 / sqrt(var + eps)"))
    ("v.sum_of(v => v.centered ** 2, '') / v.n", 'v.over(1, Math.sqrt(v.var + v.eps))')
    >>> javascript(parsed("-(x^2) + sum(grad_output, rest)"))
    "(-(v.x ** 2)) + v.sum_of(v => v.grad_output, 'rest')"
    """
    return _written(parenthesized(node, first=False))


def is_translatable(node: Node) -> bool:
    """Whether every function of an expression has a name in JavaScript.

    >>> from normcli.formula.language import parsed
    >>> is_translatable(parsed("sqrt(larger(var, eps))"))
    True
    """
    known = {*_OPERATORS, *REDUCTIONS, *_CALLS}
    return all(part.function in known for part in walked(node) if isinstance(part, Call))


def _written(node: Any) -> str:
    if isinstance(node, Number):
        return f"{node.value:g}" if float(node.value).is_integer() else repr(node.value)
    if isinstance(node, Name):
        return f"v.{node.name}"
    parts = [_written(part) for part in node.parts]
    if node.function == PARENTHESES:
        return f"({parts[0]})"
    if node.function in REDUCTIONS:
        return f"v.{node.function}_of(v => {parts[0]}, '{node.axes or ''}')"
    if node.function in _CALLS:
        return f"{_CALLS[node.function]}({', '.join(parts)})"
    if node.function == "/" and names_in(node.parts[1]) - _COUNTS:
        return f"v.over({parts[0]}, {parts[1]})"
    if len(parts) == 1:
        return f"-({parts[0]})"  # JavaScript refuses -x ** 2
    return f" {'**' if node.function == '^' else node.function} ".join(parts)
