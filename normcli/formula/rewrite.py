"""Changes of lines: another value for a name, or a rule that fits a part of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

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

    A single capital letter fits anything. A rule of lines (``name = pattern -> line; line``) fits a whole value,
    and the lines take the place of that one.

    >>> from normcli.formula.spelled import spelled
    >>> program = lines("rstd = 1 / sqrt(var + eps)")
    >>> spelled(rewritten(program, "sqrt(V + eps) -> sqrt(V) + eps")[0].value)
    '1 / (sqrt(var) + eps)'
    >>> [spelled(line.value) for line in rewritten(program, "rstd = 1 / R -> std = R; rstd = 1 / std")]
    ['sqrt(var + eps)', '1 / std']
    """
    for pattern, other in _rules(rules):
        changed = tuple(new for line in program for new in _changed(line, pattern, other))
        if changed == program:
            return None
        program = changed
    return program


@cache
def _rules(text: str) -> tuple[tuple[Node | Line, Node | Lines], ...]:
    """Pairs of what a rule fits and what it makes of that: two expressions, or a line and lines."""
    sides: list[list[str]] = []
    for part in text.split(";"):
        if "->" in part:
            sides.append(part.split("->"))
        else:
            sides[-1][1] += f";{part}"
    return tuple(
        (lines(pattern)[0], lines(other)) if "=" in pattern else (parsed(pattern), parsed(other))
        for pattern, other in sides
    )


def _changed(line: Line, pattern: Node | Line, other: Any) -> Lines:
    if not isinstance(pattern, Line):
        return (Line(line.name, _applied(line.value, pattern, other), line.role),)
    found = fit(pattern.value, line.value) if pattern.name == line.name else None
    if found is None:
        return (line,)
    return tuple(Line(new.name, substituted(new.value, found), new.role) for new in other)


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


def with_sums(node: Node) -> Node:
    """The same with means as sums over n.

    >>> from normcli.formula.language import parsed
    >>> with_sums(parsed("mean(x)")) == parsed("sum(x) / n")
    True
    """
    if not isinstance(node, Call):
        return node
    parts = tuple(map(with_sums, node.parts))
    if node.function == "mean":
        return Call("/", (Call("sum", parts, node.axes), Name("N" if node.axes else "n")))
    return Call(node.function, parts, node.axes)
