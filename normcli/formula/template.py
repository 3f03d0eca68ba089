"""Lines as text with places for numbers: written once, and filled in for each element.

A place is ``#``, or ``@`` where a negative number has parentheses; ``{`` and ``}`` are about each term of a sum.
A template of names has the name behind each place, and of a sum one term for all, ``[axes:term]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from normcli.formula.language import REDUCTIONS, Call, Name, Node, Number
from normcli.formula.spelled import GAP, PARENTHESES, TERMS, Text, mapped, put_together, spelled, whole

_PLACE = "-#"  # negative, so that parentheses go where a negative number has them


def of_numbers(filled: Any) -> tuple[str, list[str]]:
    """A tree with its numbers filled in as a template, and the numbers in order.

    >>> of_numbers(Call("-", (Text("6"), Text("-3"))))
    ('# - @', ['6', '-3'])
    """
    numbers: list[str] = []

    def taken(leaf: Any) -> Any:
        if not isinstance(leaf, Text):
            return leaf
        numbers.append(leaf)
        return Text(_PLACE)

    template, text = put_together(_placed(whole(mapped(filled, taken)))), spelled(filled)
    return (template, numbers) if with_numbers(template, numbers) == text else (text, [])


def of_names(node: Node) -> str:
    """An expression as a template of names.

    >>> from normcli.formula.language import parsed
    >>> of_names(parsed("sum(x^2) / n - mean")), of_names(parsed("max(x)"))
    ('([:@x^2]) / @n - @mean', 'max([:@x])')
    """
    return put_together(_placed(whole(_with_terms(node))))


def with_numbers(template: str, numbers: Iterable[str]) -> str:
    """The template with its numbers, and no marks about the terms.

    >>> with_numbers("({#} + {@}) / #", ["1", "-2", "3"])
    '(1 + (-2)) / 3'
    """
    left = iter(numbers)
    return re.sub("[#@]", lambda place: _guarded(next(left), place[0]), re.sub("[{}]", "", template))


def _guarded(number: str, place: str) -> str:
    return f"({number})" if place == "@" and number.removeprefix("~").startswith("-") else number


def _with_terms(node: Node) -> Any:
    if isinstance(node, Name):
        return Text(_PLACE + node.name)
    if isinstance(node, Number):
        return node
    if node.function == "^":
        return Call("^", (_with_terms(node.parts[0]), node.parts[1]))
    parts = tuple(map(_with_terms, node.parts))
    if node.function not in REDUCTIONS:
        return Call(node.function, parts)
    terms = Call(TERMS, parts, node.axes or "")
    return Call(node.function, (terms,)) if node.function in ("max", "min") else terms


def _placed(node: Any) -> Any:
    """The tree with marks about its places and terms; its parentheses are in it."""
    if isinstance(node, Text):
        return Text(node.removeprefix("-")) if node.startswith(_PLACE) else node
    if not isinstance(node, Call):
        return node
    if node.function == PARENTHESES and isinstance(inside := node.parts[0], Text) and inside.startswith(_PLACE):
        return Text("@" + inside.removeprefix(_PLACE))
    parts = tuple(map(_placed, node.parts))
    if node.function not in (TERMS, "largest", "smallest"):
        return Call(node.function, parts, node.axes)
    if node.axes is not None:
        return Text(f"[{node.axes}:{put_together(parts[0])}]")
    terms: list[Any] = [part if part == GAP else Text(f"{{{put_together(part)}}}") for part in parts]
    return Call(node.function, tuple(terms))
