"""Changes of lines: another value for a name, or a rule that fits a part of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from normcli.formula.language import Call, Line, Lines, Name, Node, lines, parsed, substituted


def replaced(program: Lines, changes: Mapping[str, str]) -> Lines:
    """The lines with others in the place of some: a value for the same name, or a whole line.

    >>> from normcli.formula.spelled import spelled
    >>> short = lines("var = sum(x^2) / n; rstd = 1 / sqrt(var + eps)")
    >>> [spelled(line.value) for line in replaced(short, {"var": "running_var"})]
    ['running_var', '1 / sqrt(var + eps)']
    """
    found = []
    for line in program:
        if line.name not in changes:
            found.append(line)
            continue
        text = changes[line.name]
        found += lines(text) if "=" in text else (Line(line.name, parsed(text), line.role),)
    return tuple(found)


def rewritten(program: Lines, rules: str) -> Lines | None:
    """The lines after ``pattern -> other``, or several with ; between them; None where one fits nowhere.

    A single capital letter fits anything.

    >>> from normcli.formula.spelled import spelled
    >>> found = rewritten(lines("rstd = 1 / sqrt(var + eps)"), "sqrt(V + eps) -> sqrt(V) + eps")
    >>> spelled(found[0].value)
    '1 / (sqrt(var) + eps)'
    """
    for pattern, other in _rules(rules):
        changed = tuple(Line(line.name, _applied(line.value, pattern, other), line.role) for line in program)
        if changed == program:
            return None
        program = changed
    return program


@cache
def _rules(text: str) -> tuple[tuple[Node, Node], ...]:
    sides = (rule.split("->") for rule in text.split(";"))
    return tuple((parsed(pattern), parsed(other)) for pattern, other in sides)


def _applied(node: Node, pattern: Node, other: Node) -> Node:
    """The expression with the rule applied wherever it fits, the outermost first."""
    found = fit(pattern, node)
    if found is not None:
        return substituted(other, found)
    if not isinstance(node, Call):
        return node
    return Call(node.function, tuple(_applied(part, pattern, other) for part in node.parts), node.axes)


def fit(pattern: Node, node: Node) -> dict[Node, Node] | None:
    """What the capital letters of a pattern stand for in an expression; None where it does not fit.

    >>> fit(parsed("A + eps"), parsed("var + eps"))
    {Name(name='A'): Name(name='var')}
    """
    if isinstance(pattern, Name) and len(pattern.name) == 1 and pattern.name.isupper() and pattern.name != "N":
        return {pattern: node}
    if not isinstance(pattern, Call):
        return {} if pattern == node else None
    alike = isinstance(node, Call) and node[0] == pattern[0] and node[2] == pattern[2]
    if not alike or len(node.parts) != len(pattern.parts):  # type: ignore[union-attr]
        return None
    found: dict[Node, Node] = {}
    for one, part in zip(pattern.parts, node.parts, strict=True):  # type: ignore[union-attr]
        inner = fit(one, part)
        if inner is None or any(found.get(name, value) != value for name, value in inner.items()):
            return None
        found |= inner
    return found
