"""Merging in a fixed tree: neighbours by number, whatever the order in which they come in."""

from __future__ import annotations

from normcli.datasets.shards import Part, joined


class Tree:
    """The parts of so many shards, each merged with its neighbour as soon as both are there.

    >>> tree = Tree(3)
    >>> for number in (2, 0, 1):
    ...     tree.put(number, Part(bad=((number, "x"),)))
    >>> [number for number, _ in tree.whole().bad]
    [0, 1, 2]
    """

    def __init__(self, leaves: int) -> None:
        self._counts = [leaves]
        while self._counts[-1] > 1:
            self._counts.append(-(-self._counts[-1] // 2))
        self._held: dict[tuple[int, int], Part] = {}

    def put(self, number: int, part: Part) -> None:
        """A shard's part; InputError where its channels are not those of its neighbours."""
        level = 0
        while level < len(self._counts) - 1:
            other = number ^ 1
            if other < self._counts[level]:
                if (level, other) not in self._held:
                    break
                neighbour = self._held.pop((level, other))
                part = joined(*((part, neighbour) if number < other else (neighbour, part)))
            level, number = level + 1, number // 2
        self._held[level, number] = part

    def whole(self) -> Part:
        """All of them, once each has been put."""
        (part,) = self._held.values()
        return part
