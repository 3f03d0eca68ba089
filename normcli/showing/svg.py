"""What a terminal shows, kept as a picture (SVG): generic fonts, an own background, nothing from a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from normcli.showing.report import Detail, Report
from normcli.showing.sections import headline
from normcli.showing.table import Screen, shown

_COLUMN, _LINE, _MARGIN = 8.4, 18, 16  # at a font size of 14, in which a letter of most fonts is 0.6 wide
_INK, _PAPER = "#1a1a1a", "#ffffff"
_DIM = "#6b6b6b"
_WORDS = re.compile(r"\S+(?: \S+)*")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Text that is set alike: where it begins on its line, and its colours as #rrggbb."""

    column: int
    text: str
    ink: str | None = None
    paper: str | None = None
    bold: bool = False
    dim: bool = False


def screenshot(reports: Sequence[Report], detail: Detail) -> str:
    """What a screen of our own shows when everything is printed on it."""
    screen = Screen()
    for report in reports:
        screen.writelines(shown(report, detail, screen))
    return svg(screen.runs(), headline(reports[0].calculated))


def svg(lines: list[list[Run]], title: str) -> str:
    """The lines as a picture.

    >>> svg([[Run(column=2, text="a < b")]], "x").splitlines()[-2]
    '<text x="32.8" y="29.0" textLength="42.0">a &lt; b</text>'
    """
    columns = max((run.column + len(run.text) for line in lines for run in line), default=0)
    width, height = columns * _COLUMN + 2 * _MARGIN, len(lines) * _LINE + 2 * _MARGIN
    # Paper below all the letters: blocks that touch must not cut them.
    drawn = [part for draw in (_papers, _letters) for number, line in enumerate(lines) for part in draw(number, line)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" '
        f'fill="{_INK}">'
    )
    paper = f'<rect width="{width:.0f}" height="{height}" fill="{_PAPER}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", paper, *drawn, "</svg>"]) + "\n"


def _papers(number: int, line: list[Run]) -> Iterator[str]:
    for run in line:
        if run.paper:
            x, y = _MARGIN + run.column * _COLUMN, _MARGIN + number * _LINE
            size = f'width="{len(run.text) * _COLUMN:.1f}" height="{_LINE}"'
            # Crisp, or a thin line of white would show between blocks that touch.
            yield f'<rect x="{x:.1f}" y="{y}" {size} fill="{run.paper}" shape-rendering="crispEdges"/>'


def _letters(number: int, line: list[Run]) -> Iterator[str]:
    y = _MARGIN + number * _LINE + 13
    for run in line:
        colour = _DIM if run.dim else run.ink
        style = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if run.bold else "")
        # Column by column: a viewer with another font must not shift what is further right.
        for words in _WORDS.finditer(run.text):
            x = _MARGIN + (run.column + words.start()) * _COLUMN
            length = len(words.group()) * _COLUMN
            yield f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}"{style}>{escape(words.group())}</text>'
