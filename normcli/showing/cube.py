"""The picture of the axes as a drawing: a block of N by C by H x W cells, seen from a corner (SVG).

The cells of the first mean are dark, as in figure 2 of Wu and He (2018); those of the other means
have pale colours, one for each, and a heavy line runs between two groups. Names of generic fonts, an own
background, nothing from a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import pairwise, product
from textwrap import wrap

from normcli.planning.layout import Shape, number_of
from normcli.showing.axes import headline, words
from normcli.showing.canvas import PALETTE, Edges, Index
from normcli.showing.figure import Figure

_WIDTH = 720
_MARGIN = 36
_ROOM = 140  # for the names beside the block
_DEEP = Edges(most=8, head=3, tail=2)  # samples, from the front to the back
_HIGH = Edges(most=16, head=8, tail=3)  # elements of a channel, from the top down
_LARGEST = 52.0  # side of a cell
_TALLEST = 280.0  # the block without its slopes
_ACROSS, _UP = math.cos(math.pi / 6), math.sin(math.pi / 6)
_FIRST = "#0b5cad"
_LEFT_OUT = "#ffffff"
_TINT = 0.62  # how much white there is in the colours of the other means
_SHADES = {"top": 1.0, "right": 0.94, "left": 0.86}
_LETTERS_IN_LINE = 86
_LINE = 20

Point = tuple[float, float]
Cell = tuple[Index, Index, Index]  # sample, channel, place in the channel


@dataclass(frozen=True)
class Block:
    """The cells that are drawn along each direction, and how large."""

    figure: Figure

    @cached_property
    def samples(self) -> list[Index]:
        """Places along N, from the front to the back on the left."""
        axis = self.figure.samples
        return [0] if axis is None else _DEEP.of(self.figure.plan.shape[axis])

    @cached_property
    def channels(self) -> list[Index]:
        """Places along C, from the front to the back on the right."""
        return self.figure.shown(self.figure.channels)

    @cached_property
    def places(self) -> list[Index]:
        """Places in a channel, all its axes in one, from the top down."""
        return _HIGH.of(math.prod(self.figure.plan.shape[axis] for axis in self.figure.spatial))

    @property
    def side(self) -> float:
        """The length of a cell along N and C."""
        return min(_LARGEST, (_WIDTH - 2 * _ROOM) / (_ACROSS * (len(self.samples) + len(self.channels))))

    @property
    def height(self) -> float:
        """The height of a cell."""
        return min(self.side, _TALLEST / len(self.places))

    def point(self, sample: float, channel: float, place: float) -> Point:
        """Where a corner of the cells is on the page; the front corner's top is where both directions begin."""
        across = (channel - sample) * self.side * _ACROSS
        down = place * self.height - (sample + channel) * self.side * _UP
        left = len(self.samples) * self.side * _ACROSS
        spare = _WIDTH - (len(self.samples) + len(self.channels)) * self.side * _ACROSS
        return spare / 2 + left + across, self.top + down

    @property
    def top(self) -> float:
        """The line on the page of the front corner's top."""
        return 84 + (len(self.samples) + len(self.channels)) * self.side * _UP

    @property
    def bottom(self) -> float:
        """The line on the page below the block."""
        return self.top + len(self.places) * self.height

    @cached_property
    def order(self) -> Mapping[int, int]:
        """The groups of statistics on the three faces, numbered in order."""
        faces = (cell for _, cell, _ in self.faces() if None not in cell)
        return {group: number for number, group in enumerate(sorted({self._group(cell) for cell in faces}))}

    def faces(self) -> Iterator[tuple[str, Cell, list[Point]]]:
        """Each face of a cell that is seen: the side of the block, the cell and the corners."""
        for (n, sample), (c, channel) in product(enumerate(self.samples), enumerate(self.channels)):
            around = ((0, 0), (0, 1), (1, 1), (1, 0))
            yield "top", (sample, channel, 0), [self.point(n + i, c + j, 0) for i, j in around]
        for (c, channel), (z, place) in product(enumerate(self.channels), enumerate(self.places)):
            around = ((0, 0), (1, 0), (1, 1), (0, 1))
            yield "right", (0, channel, place), [self.point(0, c + i, z + j) for i, j in around]
        for (n, sample), (z, place) in product(enumerate(self.samples), enumerate(self.places)):
            around = ((0, 0), (1, 0), (1, 1), (0, 1))
            yield "left", (sample, 0, place), [self.point(n + i, 0, z + j) for i, j in around]

    def colour(self, cell: Cell, side: str) -> str:
        """The colour of a cell's face."""
        if None in cell:
            return _LEFT_OUT
        number = self.order[self._group(cell)]
        paper = _FIRST if number == 0 else _tinted(PALETTE[number % len(PALETTE)][0])
        return _mixed(paper, "#000000", 1 - _SHADES[side])

    def borders(self) -> Iterator[str]:
        """The edges between cells of two groups, as parts of a path."""
        seen: dict[frozenset[str], int | None] = {}
        for _, cell, corners in self.faces():
            group = None if None in cell else self._group(cell)
            points = [f"{x:.1f},{y:.1f}" for x, y in corners]
            for start, end in pairwise([*points, points[0]]):
                edge = frozenset((start, end))
                if None not in (group, seen.get(edge)) and seen[edge] != group:
                    yield f"M{start}L{end}"
                seen[edge] = group

    def _group(self, cell: Cell) -> int:
        at = self.element(cell)
        assert at is not None
        return self.figure.group(at)

    def element(self, cell: Cell) -> Shape | None:
        """The index of a cell's element; None where cells are left out."""
        if None in cell:
            return None
        figure, shape = self.figure, self.figure.plan.shape
        sample, channel, rest = (place or 0 for place in cell)
        at = {figure.channels: channel}
        if figure.samples is not None:
            at[figure.samples] = sample
        for axis in reversed(figure.spatial):
            rest, at[axis] = divmod(rest, shape[axis])
        return tuple(at[axis] for axis in range(len(shape)))


def svg(*figures: Figure) -> str:
    """The drawing, with what is said about it below; several beside each other, two in a row.

    >>> from normcli.planning.plan import plan
    >>> svg(Figure(plan("batch", (2, 3), "float32", {}))).count("<polygon")
    11
    """
    drawings = [_drawing(figure) for figure in figures]
    if len(drawings) == 1:
        (height, parts), title = drawings[0], headline(figures[0])
        return _page(_WIDTH, height, title, parts)
    inside: list[str] = []
    below = 0.0
    for start in range(0, len(drawings), 2):
        row = drawings[start : start + 2]
        for number, (_, parts) in enumerate(row):
            inside += [f'<g transform="translate({number * _WIDTH} {below:.0f})">', *parts, "</g>"]
        below += max(height for height, _ in row)
    titles = ", ".join(figure.plan.kind.title for figure in figures)
    return _page(2 * _WIDTH, below, f"{titles} of {figures[0].plan.shape}", inside)


def _page(width: int, height: float, title: str, parts: Iterable[str]) -> str:
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" font-family="Helvetica, Arial, sans-serif" fill="#1a1a1a">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _drawing(figure: Figure) -> tuple[float, list[str]]:
    """The height of a figure's part of the page, and what is on it."""
    block = Block(figure)
    lines = [line for sentence in _said(block) for line in _folded(sentence)]
    first = block.bottom + 64
    height = first + _LINE * len(lines) + 12
    title = headline(figure).split(":")[0]
    return height, [
        _text(_WIDTH / 2, 44, title, 'text-anchor="middle" font-size="20" font-weight="bold"'),
        '<g stroke="#333333" stroke-width="0.8" stroke-linejoin="round">',
        *(_polygon(corners, block.colour(cell, side)) for side, cell, corners in block.faces()),
        f'<path d="{"".join(block.borders())}" stroke-width="2.4" stroke-linecap="round"/>',
        "</g>",
        *_axes(block),
        *(_text(_MARGIN, first + _LINE * n, line, 'font-size="14"') for n, line in enumerate(lines)),
    ]


def drawing(figure: Figure, chosen: Shape) -> str:
    """The block alone, for a page that gives it its colours: each face has the number of its element.

    The faces of the elements that share their mean with the chosen one are lit.
    """
    block = Block(figure)
    shape, group = figure.plan.shape, figure.group(chosen)
    faces = []
    for side, cell, corners in block.faces():
        at = block.element(cell)
        lit = " lit" if at is not None and figure.group(at) == group else ""
        number = "" if at is None else f" data-i={number_of(at, shape)}"
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y in corners)
        faces.append(f'<polygon class="{side}{lit}"{number} points="{points}"/>')
    left = block.point(len(block.samples), 0, 0)[0] - _ROOM
    top, wide = block.top - (len(block.samples) + len(block.channels)) * block.side * _UP - 4, _WIDTH - 2 * left
    box = f"{left:.0f} {top:.0f} {wide:.0f} {block.bottom - top + 36:.0f}"
    label = escape(headline(figure).split(":")[0])
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{"".join([*faces, *_axes(block, 1.5 * _LINE)])}</svg>'


def _axes(block: Block, line_height: float = _LINE) -> Iterator[str]:
    """The names of the three directions, each beside its edge."""
    figure = block.figure
    shape, names, below = figure.plan.shape, figure.names, len(block.places)
    style = 'font-size="16" font-style="italic"'
    if figure.samples is not None:
        x, y = block.point(len(block.samples) / 2, 0, below)
        label = f"{names[figure.samples]} = {shape[figure.samples]}"
        yield _text(x - 10, y + 20, label, f'{style} text-anchor="end"')
    x, y = block.point(0, len(block.channels) / 2, below)
    yield _text(x + 10, y + 20, f"{names[figure.channels]} = {shape[figure.channels]}", style)
    x, y = block.point(0, len(block.channels), below / 2)
    for line, axis in enumerate(figure.spatial):
        lift = (len(figure.spatial) - 1) / 2
        yield _text(x + 12, y + 5 + line_height * (line - lift), f"{names[axis]} = {shape[axis]}", style)


def _said(block: Block) -> Iterator[str]:
    settled = block.figure.plan
    yield f"Dark: the elements of the first {'mean' if settled.kind.centers else 'mean square'}."
    if any(None in kept for kept in (block.samples, block.channels, block.places)):
        yield "White: left out, only the edges are drawn."
    yield from words(block.figure, legend=False)


def _folded(sentence: str) -> list[str]:
    return wrap(sentence, _LETTERS_IN_LINE)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _polygon(corners: list[Point], colour: str) -> str:
    return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" fill="{colour}"/>'


def _tinted(colour: str) -> str:
    return _mixed(colour, "#ffffff", _TINT)


def _mixed(colour: str, other: str, share: float) -> str:
    """Two colours mixed, ``share`` of the other.

    >>> _mixed("#000000", "#ffffff", 0.5)
    '#808080'
    """
    pairs = ((int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(own + (theirs - own) * share):02x}" for own, theirs in pairs)
