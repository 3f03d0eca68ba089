"""The picture of the axes: which elements of a tensor share one mean.

It is figure 2 of Y. Wu and K. He, Group Normalization (2018), for any shape: a row for each sample,
a column for each channel, and in each cell the elements of that channel, marked with the letter of
their group of statistics. Everything is worked out from a plan: integers only, no data, no NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

from normcli.planning.layout import Shape
from normcli.planning.plan import Plan
from normcli.planning.same import Same, same
from normcli.showing.canvas import PALETTE, Index, Line, Span
from normcli.showing.figure import Figure
from normcli.showing.report import Report, Section
from normcli.words import count, either, flag

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
GAP = "."


# --- the grid -------------------------------------------------------------------------------------


def grid(figure: Figure, width: int) -> list[Line]:
    """The picture as lines of spans, columns that do not fit side by side below each other.

    >>> from normcli.planning.plan import plan
    >>> figure = Figure(plan("group", (1, 4, 1, 2), "float32", {"groups": 2}))
    >>> for line in grid(figure, 60):
    ...     print("".join(text for text, _ in line).rstrip())
          C 0  C 1  C 2  C 3
    N 0   A A  A A  B B  B B
    """
    rows: list[Index] = [0] if figure.samples is None else figure.shown(figure.samples)
    labels = _labels(figure, rows)
    margin = max(map(len, labels)) + 3
    columns = figure.shown(figure.channels)
    heads = [_head(figure.names[figure.channels], column) for column in columns]
    cell = max(2 * len(_across(figure)) - 1, max(map(len, heads)))
    together = max(1, (width - margin + 2) // (cell + 2))
    lines: list[Line] = []
    for start in range(0, len(columns), together):
        panel = columns[start : start + together]
        if start:
            lines.append([])
        lines.append([(" " * margin + "  ".join(head.ljust(cell) for head in heads[start : start + together]), None)])
        lines += _rows(figure, rows, [label.ljust(margin) for label in labels], panel, cell + 2)
    return lines


def tight(figure: Figure) -> list[Line]:
    """The same with one blank between columns and places alone above them, to stand beside others.

    >>> from normcli.planning.plan import plan
    >>> figure = Figure(plan("group", (2, 4, 2), "float32", {"groups": 2}), flat=frozenset([2]))
    >>> for line in tight(figure):
    ...     print("".join(text for text, _ in line).rstrip())
         0 1 2 3
    N 0  A A B B
    N 1  C C D D
    """
    rows: list[Index] = [0] if figure.samples is None else figure.shown(figure.samples)
    labels = _labels(figure, rows)
    margin = max(map(len, labels)) + 2
    columns = figure.shown(figure.channels)
    heads = [".." if column is None else str(column) for column in columns]
    across = len(_across(figure))
    cell = max(2 * across - 1, max(map(len, heads))) + (1 if across == 1 else 2)
    head: Line = [(" " * margin + "".join(head.ljust(cell) for head in heads), None)]
    return [head, *_rows(figure, rows, [label.ljust(margin) for label in labels], columns, cell)]


def _labels(figure: Figure, rows: list[Index]) -> list[str]:
    if figure.samples is None:
        return [""]
    return [_head(figure.names[figure.samples], row) for row in rows]


def _head(name: str, place: Index) -> str:
    """What stands above a column or before a row; of an axis that has no name of its own, the place alone."""
    return "..." if place is None else str(place) if name.startswith("axis") else f"{name} {place}"


def _across(figure: Figure) -> list[Index]:
    """The places from left to right in a cell."""
    return figure.shown(figure.spatial[-1]) if figure.spatial else [0]


def _down(figure: Figure) -> list[tuple[Index, ...]]:
    """The places from top to bottom in a cell: every axis in it but the last."""
    every = product(*(figure.shown(axis) for axis in figure.spatial[:-1]))
    # What is left out of depth or time is one line, however high the planes are.
    return list(dict.fromkeys((None,) * len(outer) if None in outer[:-1] else outer for outer in every))


def _rows(figure: Figure, rows: list[Index], labels: list[str], columns: list[Index], cell: int) -> Iterator[Line]:
    """The lines of all samples, a blank one between them where each takes several."""
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        if number and len(_down(figure)) > 1:
            yield []
        yield from _row(figure, row, label, columns, cell)


def _row(figure: Figure, row: Index, label: str, columns: list[Index], cell: int) -> Iterator[Line]:
    """The lines of one sample; ``cell`` is the width of one with the blanks after it."""
    if row is None:
        yield [(label, None)]
        return
    for number, outer in enumerate(_down(figure)):
        line: Line = [(label if number == 0 else " " * len(label), None)]
        for column in columns:
            spans = list(_cell_line(figure, row, column, outer))
            blank = cell - sum(len(text) for text, _ in spans)
            line += [*spans, (" " * blank, None)]
        yield line


def _cell_line(figure: Figure, row: int, column: Index, outer: tuple[Index, ...]) -> Iterator[Span]:
    across = _across(figure)
    for place, last in enumerate(across):
        text = GAP
        style = None
        if column is not None and last is not None and None not in outer:
            number = figure.order[figure.group(_index(figure, row, column, (*outer, last)))]
            text = LETTERS[number % len(LETTERS)]
            style = _style(number)
        yield text, style
        if place + 1 < len(across):
            yield " ", style


def _style(number: int) -> str:
    """The colours of a group of statistics; the second time round they begin one later.

    So neighbours differ as well where a row has as many groups as there are colours.
    """
    turn, place = divmod(number, len(PALETTE))
    paper, ink = PALETTE[(place + turn) % len(PALETTE)]
    return f"{ink} on {paper}"


def _index(figure: Figure, row: int, column: int, inside: tuple[Index, ...]) -> Shape:
    """The index of an element in the tensor's own order of axes."""
    places = dict(zip(figure.spatial, inside, strict=False)) | {figure.channels: column}
    if figure.samples is not None:
        places[figure.samples] = row
    return tuple(places[axis] or 0 for axis in range(len(figure.plan.shape)))


# --- in words -------------------------------------------------------------------------------------


def report(figure: Figure) -> Report:
    """The picture, what is said about it, and both as a table and as a document."""
    return Report(
        headline=headline(figure),
        words=tuple(words(figure)),
        sections=(section(figure),),
        picture=lambda canvas: grid(figure, canvas.width),
        document=document(figure),
    )


def section(figure: Figure) -> Section:
    """The picture as a table, a row for each line of it.

    >>> from normcli.planning.plan import plan
    >>> section(Figure(plan("group", (1, 4, 1, 2), "float32", {"groups": 2}))).rows
    [['N 0', 'A A', 'A A', 'B B', 'B B']]
    """
    rows: list[Index] = [0] if figure.samples is None else figure.shown(figure.samples)
    columns = figure.shown(figure.channels)
    heads = [_head(figure.names[figure.channels], column) for column in columns]
    lines: list[list[str]] = []
    for row, label in zip(rows, _labels(figure, rows), strict=True):
        if row is None:
            lines.append([label, *("" for _ in columns)])
            continue
        for number, outer in enumerate(_down(figure)):
            cells = ("".join(text for text, _ in _cell_line(figure, row, column, outer)) for column in columns)
            lines.append(["" if number else label, *cells])
    return Section(part="axes", title="groups of statistics", columns=["", *heads], rows=lines, text=True)


def headline(figure: Figure) -> str:
    """What is drawn, and how to read it."""
    what = "one mean" if figure.plan.kind.centers else "one mean square"
    return f"{titled(figure)} of {figure.plan.shape}: equal letters share {what}"


def titled(figure: Figure) -> str:
    """The layer's name with the options that shape its groups of statistics."""
    shaping = (f"{flag(name)} {_written(value)}" for name, value in _shaping(figure.plan).items())
    return " ".join([figure.plan.kind.title, *shaping])


def words(figure: Figure, *, legend: bool = True) -> list[str]:
    """The picture in sentences: how many means, over what, whose weight, and what else would be the same."""
    settled = figure.plan
    return [
        *([_legend(figure), *left_out(figure)] if legend else []),
        means(figure),
        _weights(figure),
        *_sames(same(settled), settled),
    ]


def _legend(figure: Figure) -> str:
    names = figure.names
    rows = f"Rows are {names[figure.samples]}, columns " if figure.samples is not None else "Columns are "
    unnamed = f"{rows}{names[figure.channels]}. " if names[0].startswith("axis") else ""
    if not figure.spatial:
        return f"{unnamed}Each letter is one element."
    inside = " x ".join(names[axis] for axis in figure.spatial)
    sizes = " x ".join(str(figure.plan.shape[axis]) for axis in figure.spatial)
    return f"{unnamed}Each block is {inside} = {sizes} elements, a letter for each."


def left_out(figure: Figure) -> Iterator[str]:
    """What of the tensor is not drawn, and what repeats."""
    drawn = []
    for axis in figure.abbreviated:
        kept = sum(place is not None for place in figure.shown(axis))
        where = " at the borders of groups" if axis == figure.channels and figure.has_borders else ""
        drawn.append(f"{kept} of {figure.plan.shape[axis]} along {figure.names[axis]}{where}")
    if drawn:
        yield f"Only the edges are drawn: {', '.join(drawn)}."
    if len(figure.order) > len(LETTERS):
        yield f"{len(figure.order)} groups of statistics are drawn; the letters repeat after {len(LETTERS)}."


def means(figure: Figure) -> str:
    """How many means there are, one for what, over how many elements."""
    settled = figure.plan
    noun = "mean" if settled.kind.centers else "mean square"
    number = math.prod(settled.layout.stats_shape)
    kept = [name for axis, name in enumerate(figure.names) if axis not in settled.layout.reported_axes]
    each = settled.kind.each or f"each place along {' x '.join(kept)}"
    per = f", one for {each}" if number > 1 else ""
    return f"{count(number, noun)}{per}, over {count(settled.layout.count, 'element')} each ({_over(figure)})."


def _over(figure: Figure) -> str:
    settled = figure.plan
    axes = [figure.names[axis] for axis in settled.layout.reported_axes]
    groups = settled.layout.groups
    if groups is None:
        return " x ".join(axes) if axes else "nothing else shares it"
    width = settled.shape[figure.channels] // groups
    taken = f"every {_ordinal(groups)} channel: " if settled.layout.is_interleaved else ""
    taken = taken if 1 < groups < settled.shape[figure.channels] else ""
    inside = [f"{width} of C", *(figure.names[axis] for axis in figure.spatial)]
    return taken + " x ".join(inside)


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 10 <= number % 100 <= 13 else suffix}"


def _weights(figure: Figure) -> str:
    settled = figure.plan
    what = "Weight and bias have" if "bias" in settled.kind.options else "Weight (there is no bias) has"
    axes = _weight_axes(figure)
    names = ", ".join(figure.names[axis] for axis in axes)
    noun = "" if names.startswith("axis") else "axis " if len(axes) == 1 else "axes "
    off = "" if settled.affine else "; off unless --affine is given"
    return f"{what} shape {settled.weight_shape}, along {noun}{names}{off}."


def _weight_axes(figure: Figure) -> list[int]:
    settled = figure.plan
    rank = len(settled.shape)
    return (
        [figure.channels] if settled.normalized_shape is None else [*range(rank - len(settled.normalized_shape), rank)]
    )


def _sames(others: list[Same], settled: Plan) -> Iterator[str]:
    """What else would compute the same here, in three degrees."""
    alike = [other for other in others if other.centers == settled.kind.centers]
    whole = [_named(other) for other in alike if other.same_weight]
    normalized = [f"{_named(other)} (weight of shape {other.weight_shape})" for other in alike if not other.same_weight]
    elements = [_named(other) for other in others if other.centers != settled.kind.centers]
    if not alike:
        yield "No other kind computes the same here."
    if whole:
        yield f"The same here, weight and all: {either(whole)}."
    if normalized:
        yield f"The same before weight and bias: {either(normalized)}."
    if elements:
        no = "subtracts no mean" if settled.kind.centers else "subtracts a mean"
        yield f"Over the same elements, but {no}: {either(elements)}."


def _named(other: Same) -> str:
    return " ".join([other.kind, *(f"{flag(name)} {_written(value)}" for name, value in other.options.items())])


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shaping(settled: Plan) -> dict[str, Any]:
    """The options that shape the groups of statistics."""
    options: dict[str, Any] = {"groups": settled.groups, "normalized_shape": settled.normalized_shape}
    return {name: value for name, value in options.items() if value is not None}


def document(figure: Figure) -> dict[str, Any]:
    """The picture as the object that --json prints."""
    settled = figure.plan
    return {
        "kind": settled.kind.name,
        "convention": settled.convention.name,
        "shape": list(settled.shape),
        "names": list(figure.names),
        "options": {
            name: value
            for name, value in settled.options().items()
            if name in ("groups", "channel_axis", "normalized_shape")
        },
        "axes": list(settled.layout.reported_axes),
        "means": math.prod(settled.layout.stats_shape),
        "count": settled.layout.count,
        "statistics_shape": list(settled.layout.stats_shape),
        "view": {"shape": list(settled.layout.view), "averaged": list(settled.layout.axes)},
        "weight": {"shape": list(settled.weight_shape), "axes": _weight_axes(figure), "affine": settled.affine},
        "same": [
            {
                "kind": other.kind,
                "options": dict(other.options),
                "same_normalized": other.centers == settled.kind.centers,
                "same_weight": other.same_weight,
                "weight_shape": list(other.weight_shape),
            }
            for other in same(settled)
        ],
    }
