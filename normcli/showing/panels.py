"""A table that is too wide, cut between its columns into panels that fit."""

from __future__ import annotations

from normcli.showing.report import Section
from normcli.terminal import places

GUTTER = 2  # blanks between columns


def cut(section: Section, width: int, gutter: int = GUTTER) -> list[Section]:
    """The section in panels of at most ``width`` characters, each with the label columns.

    A single column is never cut, however wide it is.

    >>> rows = [["0", "1.00", "2.00", "3.00"]]
    >>> wide = Section(part="output", title="y", columns=["", "0", "1", "2"], rows=rows)
    >>> [panel.rows for panel in cut(wide, 14)], [panel.title for panel in cut(wide, 14)]
    ([[['0', '1.00', '2.00']], [['0', '3.00']]], ['y', 'y, continued'])
    """
    columns, labels = widths(section), section.labels
    room = width - sum(columns[:labels]) - gutter * labels
    panels: list[list[int]] = [[]]
    used = 0
    for column in range(labels, len(columns)):
        needed = columns[column] + gutter
        if panels[-1] and used + needed > room + gutter:
            panels.append([])
            used = 0
        panels[-1].append(column)
        used += needed
    if len(panels) == 1:
        return [section]
    return [_columns(section, [*range(labels), *panel], part) for part, panel in enumerate(panels, 1)]


def widths(section: Section) -> list[int]:
    """How many places of a terminal each column needs."""
    found = [0] * len(section.columns)
    for row in [section.columns, *section.rows]:
        for column, cell in enumerate(row):
            found[column] = max(found[column], *(places(line) for line in cell.split("\n")))
    return found


def _columns(section: Section, kept: list[int], part: int) -> Section:
    return section._replace(
        title=section.title if part == 1 else f"{section.title}, continued",
        columns=[section.columns[column] for column in kept],
        rows=[[row[column] for column in kept] for row in section.rows],
        marks={(row, kept.index(column)): at for (row, column), at in section.marks.items() if column in kept},
    )
