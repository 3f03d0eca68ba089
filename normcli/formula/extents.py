"""What the lines tell before any number is there: which values belong to an element, and how often x is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from normcli.formula.language import REDUCTIONS, Call, Lines, Name, Node, names_in, walked

Role = tuple[bool, bool]  # of a dimension: whether it is averaged over, and whether weight has it
Extent = frozenset[Any]  # the dimensions that something varies over, by their roles or, in a ``Space``, their numbers

# Given names that come with the elements: a number for each, or for each channel of theirs.
GIVEN = frozenset({"x", "grad_output", "weight", "bias"})
_OF_CHANNELS = {"weight", "bias", "running_mean", "running_var"}

# The dimensions that a reduction takes, by the name of its axes: what a mean is over, what weight lacks,
# and what the statistics of a channel are spread over.
AXES: Mapping[str | None, Callable[[Role], bool]] = {
    None: lambda role: role[0],
    "rest": lambda role: not role[1],
    "samples": lambda role: not any(role),
    "places": lambda role: role[0] and not role[1],
    "all": lambda role: True,
}


class Space(NamedTuple):
    """The dimensions of a tensor by their numbers, where a formula may be over any of them."""

    rank: int
    axes: tuple[tuple[str | None, Extent], ...]  # by the names that a formula has for them; None the usual ones
    given: tuple[tuple[str, Extent], ...]  # what each given name varies over

    def over(self, axes: str | None) -> Extent:
        """The dimensions of that name: one of the space's own, or such as axes_0_2, which says its numbers.

        >>> sorted(Space(3, ((None, frozenset({1})),), ()).over("axes_0_2"))
        [0, 2]
        """
        return numbered(axes) or dict(self.axes)[axes]

    def named(self, dimensions: Extent) -> str | None:
        """The name of some dimensions."""
        return next(
            (name for name, own in self.axes if own == dimensions), f"axes_{'_'.join(map(str, sorted(dimensions)))}"
        )


def numbered(axes: str | None) -> Extent:
    """The dimensions that a name gives the numbers of; none for another name.

    >>> sorted(numbered("axes_0_2")), sorted(numbered("rest"))
    ([0, 2], [])
    """
    word, *numbers = (axes or "").split("_")
    plain = word in ("axis", "axes") and numbers and all(map(str.isdecimal, numbers))
    return frozenset(map(int, numbers)) if plain else frozenset()


def over(axes: str | None, roles: Iterable[Any] | Space) -> Extent:
    """The dimensions among these that a reduction over those axes takes.

    >>> over("rest", {(False, True), (True, False)})
    frozenset({(True, False)})
    """
    return roles.over(axes) if isinstance(roles, Space) else frozenset(filter(AXES[axes], roles))


def extents(lines: Lines, roles: Extent | Space) -> dict[str, Extent]:
    """What each name varies over, those given among them; what is not there is one number.

    >>> from normcli.formula.language import lines
    >>> channel, place = (False, True), (True, False)
    >>> found = extents(lines("mean = sum(x) / n; centered = x - mean"), frozenset({channel, place}))
    >>> found["mean"] == {channel}, found["centered"] == {channel, place}
    (True, True)
    """
    if isinstance(roles, Space):
        whole = frozenset(range(roles.rank))
        found = {"x": whole, "grad_output": whole} | dict(roles.given)
    else:
        channels = frozenset(role for role in roles if role[1])
        found = {"x": roles, "grad_output": roles} | dict.fromkeys(_OF_CHANNELS, channels)
    space = roles if isinstance(roles, Space) else None
    for line in lines:
        found[line.name] = extent(line.value, found, space)
    return found


def extent(node: Node, known: Mapping[str, Extent], space: Space | None = None) -> Extent:
    """What an expression varies over, as far as its names do."""
    if isinstance(node, Name):
        return known.get(node.name, frozenset())
    if not isinstance(node, Call):
        return frozenset()
    inside = frozenset[Any]().union(*(extent(part, known, space) for part in node.parts))
    return inside - over(node.axes, space or inside) if node.function in REDUCTIONS else inside


@cache
def elementwise(lines: Lines) -> frozenset[str]:
    """The lines with a value for each element: they depend on what comes with elements, outside a reduction.

    >>> from normcli.formula.language import lines
    >>> sorted(elementwise(lines("mean = sum(x) / n; centered = x - mean; var = sum(centered^2) / n")))
    ['centered']
    """
    found = set(GIVEN)
    for line in lines:
        if _is_elementwise(line.value, found):
            found.add(line.name)
    return frozenset(found - GIVEN)


def _is_elementwise(node: Node, known: set[str]) -> bool:
    if isinstance(node, Call):
        return node.function not in REDUCTIONS and any(_is_elementwise(part, known) for part in node.parts)
    return isinstance(node, Name) and node.name in known


def reductions(node: Node) -> list[Call]:
    """The reductions in an expression."""
    return [part for part in walked(node) if isinstance(part, Call) and part.function in REDUCTIONS]


@cache
def across(lines: Lines) -> frozenset[str]:
    """The lines with sums that go beyond a group of statistics, or take a part of it: their axes have a name.

    >>> from normcli.formula.language import lines
    >>> across(lines("grad_bias = sum(grad_output, rest); mean = sum(x) / n"))
    frozenset({'grad_bias'})
    """
    return frozenset(line.name for line in lines if any(part.axes is not None for part in reductions(line.value)))


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
            names |= names_in(line.value)
    return tuple(reversed(kept))
