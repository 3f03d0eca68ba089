"""Lines as text, as a person would write them."""

from __future__ import annotations

from collections.abc import Callable

from normcli.formula.language import Call, Node, Number

_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}
_TIGHTEST = 4


def spelled(node: Node, shown: Callable[[Node], Node] = lambda node: node) -> str:
    """An expression as text that reads back to it.

    >>> from normcli.formula.language import parsed
    >>> spelled(parsed("(1-m)*old + m*mean")), spelled(parsed("x-(a-b)")), spelled(parsed("-(x^2)"))
    ('(1 - m) * old + m * mean', 'x - (a - b)', '-x^2')
    """
    return _spelled(node)[0]


def _spelled(node: Node) -> tuple[str, int]:
    """The text, and how tightly its last operation binds."""
    if isinstance(node, Number):
        return f"{node.value:g}" if float(node.value).is_integer() else repr(node.value), _TIGHTEST
    if not isinstance(node, Call):
        return node.name, _TIGHTEST
    binds = _BINDS.get(node.function)
    if binds is None:
        parts = [_spelled(part)[0] for part in node.parts] + ([node.axes] if node.axes else [])
        return f"{node.function}({', '.join(parts)})", _TIGHTEST
    if len(node.parts) == 1:
        return f"-{_within(node.parts[0], 2)}", 1
    left, right = node.parts
    tighter = binds + (node.function in "-/^")
    around = "" if node.function == "^" else " "
    first = _within(left, binds + (node.function == "^"))
    return f"{first}{around}{node.function}{around}{_within(right, tighter)}", binds


def _within(node: Node, binds: int) -> str:
    text, own = _spelled(node)
    return text if own >= binds else f"({text})"
