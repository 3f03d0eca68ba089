"""Lines as text, as a person would write them, and with numbers in the place of names.

A tree with numbers filled in holds, besides what formulas have, texts of numbers, sums written out
(``terms``), lists, and ``about`` for what is rounded. Where parentheses go is settled here for every
way of writing: a negative number has them unless it comes first in its parentheses, in sums always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from normcli.formula.language import REDUCTIONS, Call, Name, Node, Number

TERMS, LIST, ABOUT, PARENTHESES = "terms", "list", "about", "()"
CLOSE = "close"  # the axes of an operator that is written without blanks around it
GAP = Name("...")
_AS_FUNCTION = {"largest": "max", "smallest": "min"}  # with their numbers written out
_BINDS: Mapping[str, int] = {LIST: -1, "=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "^": 3}
_NEGATED, _TIGHTEST = 2.5, 4


class Text(str):
    """A number as it is written, in the place of a name."""

    __slots__ = ()


def inlined(node: Node, name: str, value: Node) -> Node:
    """An expression with another one in the place of a name, written without blanks and axes.

    >>> from normcli.formula.language import parsed
    >>> spelled(inlined(parsed("m * batch"), "batch", parsed("sum(mean) / N")))
    'm * sum(mean)/N'
    """
    if node == Name(name):
        return _close(value)
    if not isinstance(node, Call):
        return node
    parts = [inlined(part, name, value) for part in node.parts]
    if node.function == "*" and node.parts[1] == Name(name):
        return _times(parts[0], parts[1])
    return Call(node.function, tuple(parts), node.axes)


def _close(node: Node) -> Node:
    if not isinstance(node, Call):
        return node
    axes = None if node.function in REDUCTIONS else CLOSE
    return Call(node.function, tuple(map(_close, node.parts)), axes)


def _times(left: Node, right: Node) -> Node:
    """A product with what is itself a product or a quotient, as it reads without parentheses."""
    if isinstance(right, Call) and right.function in ("*", "/"):
        return Call(right.function, (_times(left, right.parts[0]), right.parts[1]), right.axes)
    return Call("*", (left, right))


def spelled(node: Any) -> str:
    """An expression as text that reads back to it.

    >>> from normcli.formula.language import parsed
    >>> spelled(parsed("(1-m)*old + m*mean")), spelled(parsed("x-(a-b)")), spelled(parsed("-(x^2)"))
    ('(1 - m) * old + m * mean', 'x - (a - b)', '-x^2')
    >>> spelled(parsed("clip(a, -b, b)"))
    'clip(a, -b, b)'
    >>> spelled(Call("-", (Text("-6"), Text("-3")))), spelled(Call("^", (Text("-2"), Number(2))))
    ('-6 - (-3)', '(-2)^2')
    """
    return put_together(whole(node))


def put_together(node: Any) -> str:
    """A tree with its parentheses in it as text."""
    if isinstance(node, Text):
        return node
    if isinstance(node, Number):
        return f"{node.value:g}" if float(node.value).is_integer() else repr(node.value)
    if isinstance(node, Name):
        return node.name
    parts = [put_together(part) for part in node.parts]
    if node.function == PARENTHESES:
        return f"({parts[0]})"
    if node.function == ABOUT:
        return f"~{parts[0]}"
    if node.function == LIST:
        return ", ".join(parts)
    if node.function == TERMS:
        return " + ".join(parts)
    if node.function == "smaller" and isinstance(node.parts[0], Call) and node.parts[0].function == "larger":
        return f"clip({', '.join(map(put_together, (*node.parts[0].parts, node.parts[1])))})"
    if node.function not in _BINDS:
        name = _AS_FUNCTION.get(node.function, node.function)
        return f"{name}({', '.join([*parts, *([node.axes] if node.axes else [])])})"
    if len(parts) == 1:
        return f"-{parts[0]}"
    return (node.function if node.function == "^" or node.axes == CLOSE else f" {node.function} ").join(parts)


def whole(node: Any) -> Any:
    """The tree with its parentheses in it; a sum that is all of it has none.

    >>> spelled(Call(TERMS, (Text("1"), Text("-2"))))
    '1 + (-2)'
    """
    tree = parenthesized(node)
    return tree.parts[0] if isinstance(node, Call) and node.function == TERMS else tree


def parenthesized(node: Any, *, first: bool = True) -> Any:
    """The tree with its parentheses in it; ``first`` says whether it comes first between some."""
    if isinstance(node, Text):
        negative = node.removeprefix("~").startswith("-") and not first
        return Call(PARENTHESES, (node,)) if negative else node  # type: ignore[arg-type]
    if not isinstance(node, Call):
        return node
    if node.function == TERMS:
        inside = Call(TERMS, tuple(parenthesized(part, first=False) for part in node.parts), node.axes)
        return Call(PARENTHESES, (inside,))
    if node.function not in _BINDS or node.function in (LIST, "="):
        if node.function in (LIST, "="):
            return Call(node.function, tuple(parenthesized(part) for part in node.parts), node.axes)
        return Call(node.function, tuple(map(_argument, node.parts)), node.axes)
    binds = _BINDS[node.function]
    if len(node.parts) == 1:
        inner = _within(node.parts[0], 3, first=False)
        return Call("-", (inner,)) if first else Call(PARENTHESES, (Call("-", (inner,)),))
    power = node.function == "^"
    left = _within(node.parts[0], binds + power, first=first and not power)
    right = _within(node.parts[1], binds + 1, first=False)
    return Call(node.function, (left, right), node.axes)


def _argument(node: Any) -> Any:
    """What stands alone between the parentheses of a function."""
    tree = parenthesized(node)
    return tree.parts[0] if isinstance(node, Call) and node.function == TERMS else tree


def _within(node: Any, binds: float, *, first: bool) -> Any:
    if _binding(node) >= binds:
        return parenthesized(node, first=first)
    return Call(PARENTHESES, (parenthesized(node),))


def _binding(node: Any) -> float:
    """How tightly the parts of an expression hold together."""
    if not isinstance(node, Call):
        return _TIGHTEST
    return _NEGATED if node.function == "-" and len(node.parts) == 1 else _BINDS.get(node.function, _TIGHTEST)


def mapped(node: Any, leaf: Callable[[Any], Any]) -> Any:
    """The tree with each of its leaves changed."""
    if not isinstance(node, Call):
        return leaf(node)
    return Call(node.function, tuple(mapped(part, leaf) for part in node.parts), node.axes)
