"""What the lines tell before any number is there: which values belong to an element, and how often x is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from normcli.formula.language import REDUCTIONS, Call, Lines, Name, Node, walked


@cache
def elementwise(lines: Lines, given: frozenset[str] = frozenset({"x"})) -> frozenset[str]:
    """The names with a value for each element: they depend on x outside a reduction.

    >>> from normcli.formula.language import lines
    >>> sorted(elementwise(lines("mean = sum(x) / n; centered = x - mean; var = sum(centered^2) / n")))
    ['centered', 'x']
    """
    found = set(given)
    for line in lines:
        if _is_elementwise(line.value, found):
            found.add(line.name)
    return frozenset(found)


def _is_elementwise(node: Node, known: set[str]) -> bool:
    if isinstance(node, Call):
        return node.function not in REDUCTIONS and any(_is_elementwise(part, known) for part in node.parts)
    return isinstance(node, Name) and node.name in known


@cache
def readings(lines: Lines) -> tuple[tuple[Call, ...], ...]:
    """The reductions that one reading of the elements serves, reading by reading: each needs those before it.

    >>> from normcli.formula.language import lines
    >>> len(readings(lines("mean = sum(x) / n; var = sum((x - mean)^2) / n")))
    2
    """
    levels: dict[Node, int] = {}
    named: dict[str, int] = {}
    for line in lines:
        named[line.name] = max((_level(part, named, levels) for part in walked(line.value)), default=0)
    found = {level: [node for node, own in levels.items() if own == level] for level in sorted(set(levels.values()))}
    return tuple(tuple(node for node in nodes if isinstance(node, Call)) for nodes in found.values())


def _level(node: Node, named: Mapping[str, int], levels: dict[Node, int]) -> int:
    if isinstance(node, Name):
        return named.get(node.name, 0)
    if not isinstance(node, Call):
        return 0
    level = max(_level(part, named, levels) for part in node.parts)
    if node.function in REDUCTIONS:
        level += 1
        levels[node] = level
    return level


def needed(lines: Lines, wanted: Iterable[str]) -> Lines:
    """The lines that the wanted ones depend on, and themselves.

    >>> from normcli.formula.language import lines
    >>> [line.name for line in needed(lines("mean = sum(x) / n; centered = x - mean"), ["mean"])]
    ['mean']
    """
    names = set(wanted)
    kept = []
    for line in reversed(lines):
        if line.name in names:
            kept.append(line)
            names |= {part.name for part in walked(line.value) if isinstance(part, Name)}
    return tuple(reversed(kept))
