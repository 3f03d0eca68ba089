"""The picture of the axes: which elements of a tensor share one mean.

It is figure 2 of Y. Wu and K. He, Group Normalization (2018), for any shape: a row for each sample,
a column for each channel, and in each cell the elements of that channel, marked with the letter of
their group of statistics. Everything is worked out from a plan: integers only, no data, no NumPy.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from normcli.errors import InputError
from normcli.planning.kinds import KINDS
from normcli.planning.layout import Shape
from normcli.planning.plan import Plan, plan
from normcli.words import count, either, flag

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
GAP = "."
# Paper and ink: the colours of M. Okabe and K. Ito, which the colour-blind can tell apart as well.
PALETTE = (
    ("#56b4e9", "#000000"),
    ("#e69f00", "#000000"),
    ("#009e73", "#ffffff"),
    ("#f0e442", "#000000"),
    ("#cc79a7", "#000000"),
    ("#0072b2", "#ffffff"),
    ("#d55e00", "#ffffff"),
    ("#bbbbbb", "#000000"),
)

_SPATIAL = {1: "L", 2: "HW", 3: "DHW"}
_MOST_AXES = 8
_MOST_ELEMENTS = 2**63 - 1

Index = int | None  # a place along an axis, or None for what is left out between its edges
Span = tuple[str, str | None]  # text, and the style that it is set in
Line = list[Span]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What a picture is printed on: how many columns, and whether there are colours and more than ASCII."""

    width: int
    colour: bool
    utf8: bool


@dataclass(frozen=True, kw_only=True)
class Edges:
    """How much of an axis is drawn: all of it up to ``most`` places, else its two ends."""

    most: int
    head: int
    tail: int

    def of(self, size: int) -> list[Index]:
        """The places drawn, None where some are left out.

        >>> Edges(most=4, head=2, tail=1).of(20)
        [0, 1, None, 19]
        """
        if size <= self.most:
            return [*range(size)]
        return [*range(self.head), None, *range(size - self.tail, size)]


SAMPLES = Edges(most=4, head=2, tail=1)
CHANNELS = Edges(most=12, head=4, tail=4)
PLACES = Edges(most=6, head=2, tail=2)
OUTER = Edges(most=2, head=1, tail=1)  # what is beyond height and width: depth, time


@dataclass(frozen=True)
class Figure:
    """A plan with the roles that its axes play in the picture; ``samples`` may be missing.

    >>> figure = Figure(plan("group", (2, 6, 4, 4), "float32", {"groups": 3}))
    >>> figure.names, figure.group((1, 2, 0, 0))
    (('N', 'C', 'H', 'W'), 4)
    """

    plan: Plan

    @property
    def channels(self) -> int:
        """The axis whose places are the columns: the channel axis, or where a framework has it."""
        layout, rank = self.plan.layout, len(self.plan.shape)
        if layout.channel_axis is not None:
            return layout.channel_axis
        axis = self.plan.convention.channel_axis
        return axis % rank if -rank <= axis < rank else rank - 1

    @property
    def samples(self) -> int | None:
        """The axis whose places are the rows; None for one unbatched sample."""
        others = [axis for axis in range(len(self.plan.shape)) if axis != self.channels]
        unbatched = self.plan.kind.name == "instance" and len(self.plan.shape) == 2
        return None if unbatched or not others else others[0]

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes inside a cell."""
        return tuple(axis for axis in range(len(self.plan.shape)) if axis not in (self.samples, self.channels))

    @property
    def names(self) -> tuple[str, ...]:
        """What the axes are called: N, C and the like where that is known, else by their numbers."""
        rank = len(self.plan.shape)
        if self.plan.layout.channel_axis is None and rank != 4:
            return tuple(f"axis {axis}" for axis in range(rank))
        known = _SPATIAL.get(len(self.spatial), "")
        inside = known or tuple(f"S{place}" for place in range(1, len(self.spatial) + 1))
        roles = {self.samples: "N", self.channels: "C"} | dict(zip(self.spatial, inside, strict=True))
        return tuple(roles[axis] for axis in range(rank))

    def group(self, index: Shape) -> int:
        """The number of the group of statistics that an element belongs to."""
        place = 0
        for position, size in zip(index, self.plan.shape, strict=True):
            place = place * size + position
        layout = self.plan.layout
        number, stride = 0, 1
        for axis in reversed(range(len(layout.view))):
            place, position = divmod(place, layout.view[axis])
            if axis not in layout.axes:
                number += position * stride
                stride *= layout.view[axis]
        return number

    def shown(self, axis: int) -> list[Index]:
        """The places along an axis that the picture has room for."""
        size = self.plan.shape[axis]
        if axis == self.samples:
            return SAMPLES.of(size)
        if axis == self.channels:
            return CHANNELS.of(size)
        return (PLACES if axis in self.spatial[-2:] else OUTER).of(size)

    @property
    def abbreviated(self) -> list[int]:
        """The axes of which only the edges are drawn."""
        return [axis for axis in range(len(self.plan.shape)) if None in self.shown(axis)]

    @cached_property
    def order(self) -> Mapping[int, int]:
        """The groups that are seen, numbered in order: their letters and colours."""
        axes = [[place for place in self.shown(axis) if place is not None] for axis in range(len(self.plan.shape))]
        return {group: number for number, group in enumerate(sorted({self.group(index) for index in product(*axes)}))}


# --- the grid -------------------------------------------------------------------------------------


def grid(figure: Figure, width: int) -> list[Line]:
    """The picture as lines of spans, columns that do not fit side by side below each other.

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
        for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
            if number and len(_down(figure)) > 1:
                lines.append([])
            lines += _row(figure, row, label.ljust(margin), panel, cell)
    return lines


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


def _row(figure: Figure, row: Index, label: str, columns: list[Index], cell: int) -> Iterator[Line]:
    """The lines of one sample."""
    if row is None:
        yield [(label, None)]
        return
    for number, outer in enumerate(_down(figure)):
        line: Line = [(label if number == 0 else " " * len(label), None)]
        for column in columns:
            spans = list(_cell_line(figure, row, column, outer))
            blank = cell + 2 - sum(len(text) for text, _ in spans)
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


@dataclass(frozen=True, kw_only=True)
class Same:
    """Another kind that averages over the same elements here, with the option that makes it so."""

    kind: str
    options: Mapping[str, Any]
    weight_shape: Shape
    same_weight: bool  # whether weight and bias belong to the same elements as well
    centers: bool


def same(settled: Plan) -> list[Same]:
    """The other kinds whose groups of statistics are exactly these.

    Instance norm is group norm with one group for each channel:

    >>> same(plan("instance", (2, 6, 4, 4), "float32", {}))[0].options
    {'groups': 6}
    """
    shape, found = settled.shape, []
    for kind, options in _candidates(settled):
        try:
            options = options | _channels(settled, kind, options)
            other = plan(kind, shape, settled.dtype, options | _convention(settled, kind))
        except InputError:
            continue  # a kind that cannot take this shape computes nothing here
        if _partition(other) == _partition(settled):
            found.append(
                Same(
                    kind=kind,
                    options=options,
                    weight_shape=other.weight_shape,
                    same_weight=_belonging(other) == _belonging(settled),
                    centers=other.kind.centers,
                )
            )
    return found


def _candidates(settled: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    shape = settled.shape
    for kind in ("batch", "instance"):
        if kind != settled.kind.name:
            yield kind, {}
    # At most one number of groups, and one set of trailing axes, gives as many groups of statistics as there are.
    groups, rest = divmod(math.prod(settled.layout.stats_shape), shape[0])
    if settled.kind.name != "group" and not rest:
        yield "group", {"groups": groups}
    for kind in ("layer", "rms"):
        trailing = next((n for n in range(1, len(shape) + 1) if math.prod(shape[-n:]) == settled.layout.count), None)
        if kind != settled.kind.name and trailing:
            yield kind, {"normalized_shape": shape[-trailing:]}


def _convention(settled: Plan, kind: str) -> dict[str, Any]:
    return {"convention": settled.convention.name} if kind in settled.convention.eps else {}


def _channels(settled: Plan, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The channel axis as an option of another kind, where that kind would not take it by itself."""
    if "channel_axis" not in KINDS[kind].options:
        return {}
    given, wanted = options | _convention(settled, kind), Figure(settled).channels
    try:
        by_itself = plan(kind, settled.shape, settled.dtype, given).layout.channel_axis
    except InputError:
        by_itself = None
    return {} if by_itself == wanted else {"channel_axis": wanted}


def _partition(settled: Plan) -> list[tuple[int, bool]]:
    """The groups of statistics, such that equal lists are equal groups: runs of averaged and kept dimensions."""
    return _runs(settled.layout.view, settled.layout.axes)


def _belonging(settled: Plan) -> list[tuple[int, bool]]:
    """Which elements share a weight, such that equal lists mean the same."""
    return _runs(settled.layout.view, settled.layout.channels)


def _runs(view: Shape, marked: Shape) -> list[tuple[int, bool]]:
    """The dimensions of a view, those of size 1 left out and neighbours that are alike put together.

    In row-major order this list says it all: the first place where a different group begins gives
    the last size, the first place where the group comes back the one before, and so on.

    >>> _runs((2, 1, 3, 2, 16), (1, 3, 4))
    [(6, False), (32, True)]
    """
    runs: list[tuple[int, bool]] = []
    for axis, size in enumerate(view):
        if size > 1:
            alike = runs and runs[-1][1] == (axis in marked)
            runs[-1:] = [(runs[-1][0] * size, axis in marked)] if alike else [*runs[-1:], (size, axis in marked)]
    return runs


def headline(figure: Figure) -> str:
    """What is drawn, and how to read it."""
    settled = figure.plan
    what = "one mean" if settled.kind.centers else "one mean square"
    parts = [settled.kind.title, *(f"{flag(name)} {_written(value)}" for name, value in _shaping(settled).items())]
    return f"{' '.join(parts)} of {settled.shape}: equal letters share {what}"


def words(figure: Figure, *, legend: bool = True) -> list[str]:
    """The picture in sentences: how many means, over what, whose weight, and what else would be the same."""
    settled = figure.plan
    return [
        *([_legend(figure), *_left_out(figure)] if legend else []),
        _means(figure),
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


def _left_out(figure: Figure) -> Iterator[str]:
    drawn = []
    for axis in figure.abbreviated:
        kept = sum(place is not None for place in figure.shown(axis))
        drawn.append(f"{kept} of {figure.plan.shape[axis]} along {figure.names[axis]}")
    if drawn:
        yield f"Only the edges are drawn: {', '.join(drawn)}."
    if len(figure.order) > len(LETTERS):
        yield f"{len(figure.order)} groups of statistics are drawn; the letters repeat after {len(LETTERS)}."


def _means(figure: Figure) -> str:
    settled = figure.plan
    noun = "mean" if settled.kind.centers else "mean square"
    number = math.prod(settled.layout.stats_shape)
    kept = [name for axis, name in enumerate(figure.names) if axis not in settled.layout.reported_axes]
    each = {
        "batch": "each channel",
        "instance": "each channel of each sample",
        "group": "each sample and group of channels",
    }.get(settled.kind.name, f"each place along {' x '.join(kept)}")
    per = f", one for {each}" if number > 1 else ""
    return f"{count(number, noun)}{per}, over {count(settled.layout.count, 'element')} each ({_over(figure)})."


def _over(figure: Figure) -> str:
    settled = figure.plan
    axes = [figure.names[axis] for axis in settled.layout.reported_axes]
    if settled.groups is None:
        return " x ".join(axes) if axes else "nothing else shares it"
    width = settled.shape[figure.channels] // settled.groups
    taken = "every " + _ordinal(settled.groups) + " channel: " if settled.convention.interleaved_groups else ""
    taken = taken if 1 < settled.groups < settled.shape[figure.channels] else ""
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


# --- the command ----------------------------------------------------------------------------------


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


def figure_of(kind: str, shape: Shape, options: Mapping[str, Any]) -> Figure:
    """The figure of a kind and a shape; InputError for what the kind refuses, or cannot be drawn.

    >>> figure_of("layer", (2, 3), {}).plan.layout.count
    3
    """
    if not shape:
        raise InputError("--shape is empty; give the sizes of the tensor, such as --shape 2,6,4,4")
    if min(shape) < 1:
        raise InputError(f"--shape holds {min(shape)}; every size must be 1 or more")
    if len(shape) > _MOST_AXES:
        raise InputError(f"--shape has {len(shape)} axes; {_MOST_AXES} can be drawn")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise InputError(f"--shape holds more than {_MOST_ELEMENTS:.3g} elements, which is more than any tensor has")
    return Figure(plan(kind, shape, "float32", options))


def show_axes(kind: str, shape: Shape, options: Mapping[str, Any], *, as_json: bool, svg: str | None) -> None:
    """Print the picture of a kind, or its document; draw it into a file as well if one is named."""
    if svg is not None:
        from normcli.files.write import check_suffix

        check_suffix(svg, [".svg"], "--svg")
    figure = figure_of(kind, shape, options)
    if svg is not None:
        from normcli.files.write import write_text
        from normcli.showing import cube

        write_text(svg, cube.svg(figure))
    if as_json:
        sys.stdout.write(json.dumps(document(figure)) + "\n")
        return
    from normcli.showing.table import print_picture

    print_picture(headline(figure), lambda canvas: grid(figure, canvas.width), words(figure))
