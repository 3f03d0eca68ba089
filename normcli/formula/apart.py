"""A line of its own for each reduction that stands inside what varies more than it does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from normcli.formula.extents import Extent, Space, extent, extents, over
from normcli.formula.language import REDUCTIONS, Call, Line, Lines, Name, Node

Words = Callable[[Call, Mapping[Node, Node]], Iterable[str]]


def counted(reduction: Call, names: Mapping[Node, Node]) -> Iterator[str]:
    """Words for a reduction, the first of which that is free is its name: its function with a number."""
    return (f"{reduction.function}_{i}" for i in range(1, 1000))


def apart(program: Sequence[Line], roles: Extent | Space, taken: Collection[str] = (), words: Words = counted) -> Lines:
    """The lines, with such a reduction's before the one that it stands in: there it is worked out, and shown, once.

    ``taken`` are names that new lines may not have, besides those of the program; ``words`` gives those that they may,
    from the reduction and the names of those before it.

    >>> from normcli.formula.language import lines
    >>> one = Space(1, ((None, frozenset({0})),), ())
    >>> [line.name for line in apart(lines("y = (x - mean(x)) / max(x)"), one)]
    ['mean_1', 'max_1', 'y']
    """
    known, space = extents(tuple(program), roles), roles if isinstance(roles, Space) else None
    used = {*taken, *(line.name for line in program)}
    found: list[Line] = []
    names: dict[Node, Node] = {}

    def settled(node: Node, domain: Extent) -> Node:
        if not isinstance(node, Call):
            return node
        is_reduction = node.function in REDUCTIONS
        varied = extent(node, known, space)
        inside = varied | over(node.axes, roles) if is_reduction else domain
        own = node._replace(parts=tuple(settled(part, inside) for part in node.parts))
        if not is_reduction or varied == domain:
            return own
        if own not in names:
            name = next(word for word in words(own, names) if word not in used)
            used.add(name)
            found.append(Line(name, own))
            names[own] = Name(name)
        return names[own]

    for line in program:
        value = settled(line.value, known[line.name])
        names.setdefault(value, Name(line.name))
        found.append(line._replace(value=value))
    return tuple(found)
