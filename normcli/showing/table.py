"""Sections as tables for a terminal or a pipe; the one module that imports rich.

rich shortens what does not fit. Here nothing is ever shortened: widths are worked out first,
a matrix that is too wide is printed in several panels, and the console is made wide enough.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from normcli.showing import check
from normcli.showing.canvas import Canvas, Line
from normcli.showing.panels import GUTTER, cut, widths
from normcli.showing.report import Detail, Report, Section
from normcli.showing.sections import checked, heading, refuse_missing, sections
from normcli.terminal import BAD, GOOD, coloured, has_colours, places, prose, width_of, words
from normcli.words import printable

if TYPE_CHECKING:
    from normcli.teaching.verdict import Check

_UNLIMITED = 1_000_000
_FOLDED = 4  # columns of text; a table of more is cut between them
_NARROWEST = 12  # to which a column of text is folded
_READABLE = 120  # formulas are folded here even where nothing limits the width
_MOST = 20_000  # cells that rich lays out; a million take it a minute and a gigabyte
_MARK = "red"
_ASCII = box.Box("    \n    \n -- \n" + "    \n" * 5, ascii=True)  # as box.SIMPLE_HEAD; what rich puts there has bars


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The report for whoever reads standard output."""
    refuse_missing(report, detail)
    return shown(report, detail, sys.stdout)


def shown(report: Report, detail: Detail, screen: TextIO) -> Iterator[str]:
    """The report as it fits a screen: a check first, then the tables, then a picture, then words.

    The answer of one file among several takes a line.
    """
    if report.check is not None:
        if report.number is not None and report.result is None:
            yield _verdict(f"{printable(report.file)}: ", check.summary(report.check), report.check, screen)
            return
        yield from _judged(report, report.check, detail, screen)
        if report.trace is None and detail.only is None and not report.comparisons:
            return
        yield "\n"
    if report.result is None and report.picture is not None:
        yield from picture(report.picture, screen, report.headline, report.words)
        return
    if report.result is not None:
        yield "\n" if report.number else ""
        yield from tables(heading(report, detail), sections(report, detail), screen)
        if report.picture is not None:
            yield "\n"
            yield from picture(report.picture, screen)
    else:
        yield from tables("", report.sections, screen)
    yield from _words(report.words, screen)


def _judged(report: Report, found: Check, detail: Detail, screen: TextIO) -> Iterator[str]:
    """The verdict first, then the cells that differ (or all), then the slip in words."""
    yield from _words([printable(report.headline)] if report.headline else [], screen)
    yield _verdict("", check.verdict(found), found, screen)
    if cells := checked(report, detail):
        yield "\n"
        yield from tables("", cells, screen)
        yield "\n"
    yield from _words(check.explanation(found), screen)


def _words(lines: Iterable[str], screen: TextIO) -> Iterator[str]:
    yield from (f"{line}\n" for text in lines for line in prose(text, screen, hang=0))


def _verdict(before: str, text: str, found: Check, screen: TextIO) -> str:
    """The verdict, its first words in colour, after the name of the file where there are several."""
    word, colour = ("checks", GOOD) if found.ok else ("does not check", BAD)
    lines = "\n".join(prose(before + text, screen, hang=0)) + "\n"  # every letter where it was
    end = len(before) + len(word)
    return lines[: len(before)] + coloured(lines[len(before) : end], colour, screen) + lines[end:]


def tables(headline: str, sections: Iterable[Section], screen: TextIO) -> Iterator[str]:
    """The headline and the sections; a narrow terminal gets panels and folded formulas."""
    width = width_of(screen)
    console = _console(screen)
    sections = [*sections]
    large = sum(len(section.rows) * len(section.columns) for section in sections) > _MOST
    apart = False
    if headline:
        yield _text(console, Text("\n".join(_folded(headline, width, joint="  ")), style="bold"))
        apart = True
    for panel in (panel for section in sections for panel in _panels(section, width)):
        # A title stands above its table, not in it: rich would fold it to the table's width.
        yield _text(console, *([""] if apart else []), Text("\n".join(_folded(panel.title, width)), style="cyan"))
        apart = True
        if large and not panel.text:
            yield from (f"{line}\n" for line in _lines(panel, "-" if console.options.ascii_only else "─"))
        else:
            yield _text(console, _table(panel, _ASCII if console.options.ascii_only else box.SIMPLE_HEAD))


def _text(console: Console, *blocks: str | Text | Table) -> str:
    with console.capture() as capture:
        console.print(*blocks, sep="\n")
    return "".join(line.rstrip(" ") + "\n" for line in capture.get().splitlines())


def _lines(section: Section, rule: str) -> Iterator[str]:
    """The lines of a large table of numbers as rich would lay them out, without colour, one at a time."""
    columns = widths(section)
    gutter = " " * GUTTER

    def line(cells: list[str]) -> str:
        return gutter.join(cell.rjust(width) for cell, width in zip(cells, columns, strict=True)).rstrip(" ")

    yield line(section.columns)
    yield rule * (sum(columns) + GUTTER * (len(columns) - 1))
    yield from map(line, section.rows)


@contextmanager
def progress_bar(what: str, size: int | None = None) -> Iterator[Callable[[float], None]]:
    """A bar on standard error that goes when it is done; it is told how much is done: from 0 to 1, or of bytes.

    Of bytes it shows the rate too.
    """
    from rich import progress as bars  # rarely needed

    colours = "auto" if has_colours(sys.stderr) else None
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False, color_system=colours)  # type: ignore[arg-type]
    rate = () if size is None else (bars.TransferSpeedColumn(),)
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        *rate,
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=1.0 if size is None else size)
        yield lambda fraction: progress.update(task, completed=fraction)


def picture(
    draw: Callable[[Canvas], list[Line]], screen: TextIO, headline: str = "", sentences: Sequence[str] = ()
) -> Iterator[str]:
    """A picture between its headline and its words; ``draw`` is told what there is to draw on."""
    width = width_of(screen) or _READABLE
    console = _console(screen)
    utf8 = (screen.encoding or "").lower().replace("-", "") == "utf8"
    canvas = Canvas(width=width, colour=console.color_system is not None, utf8=utf8)
    above = [Text("\n".join(_folded(headline, width)), style="bold"), Text()] if headline else []
    drawn = [Text.assemble(*((text, style or "") for text, style in line)) for line in draw(canvas)]
    below = [Text("\n".join(_folded(sentence, width))) for sentence in sentences]
    yield _text(console, *above, *drawn, *([Text()] if sentences else []), *below)


class Screen(StringIO):
    """A terminal that keeps what is printed on it, in colour whatever the environment says."""

    encoding = "utf-8"
    colours = True

    def isatty(self) -> bool:
        """It is a terminal."""
        return True

    def svg(self, template: str) -> str:
        """What was printed, as a picture made with a template of rich's."""
        from rich.ansi import AnsiDecoder  # rarely needed, as is the other
        from rich.terminal_theme import DEFAULT_TERMINAL_THEME

        lines = [*AnsiDecoder().decode(self.getvalue())]
        width = max((line.cell_len for line in lines), default=1)
        console = Console(file=StringIO(), record=True, width=width, color_system="truecolor", force_terminal=True,
                          legacy_windows=False, no_color=False)  # fmt: skip
        for line in [*lines, ""]:  # rich clips each line to a box, and forgets that of the last
            console.print(line, no_wrap=True, overflow="ignore", crop=False)
        return console.export_svg(code_format=template, theme=DEFAULT_TERMINAL_THEME, font_aspect_ratio=0.6) + "\n"


def _console(stream: TextIO) -> Console:
    if isinstance(stream, Screen):
        return Console(file=stream, width=_UNLIMITED, markup=False, highlight=False, emoji=False, legacy_windows=False,
                       color_system="truecolor", force_terminal=True, force_jupyter=False, no_color=False)  # fmt: skip
    colours = has_colours(stream)
    dumb = os.environ.get("TERM") in ("dumb", "unknown")  # where rich would have none, also if they are asked for
    return Console(
        file=stream,
        force_jupyter=False,  # in a notebook rich would show what it is to give back
        width=_UNLIMITED,  # widths are settled here, and rich must not think again
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
        # Without this rich would still set bold and dim under NO_COLOR and on a dumb terminal.
        color_system=None if not colours else "standard" if dumb else "auto",
        force_terminal=True if colours else None,
        no_color=False,
    )


def _table(section: Section, drawn: box.Box) -> Table:
    table = Table(
        box=drawn,
        show_edge=False,
        pad_edge=False,
        padding=(0, GUTTER - 1, 0, 0),  # the box draws a blank between columns as well
    )
    for index, head in enumerate(section.columns):
        table.add_column(
            Text(head),
            justify="left" if section.is_words(index) else "right",
            style="dim" if index < section.labels else "",
            no_wrap=True,
        )
    for place, row in enumerate(section.rows):
        cells = [Text(cell) for cell in row]
        for column, cell in enumerate(cells):
            if (start := section.marks.get((place, column))) is not None:
                cell.stylize(_MARK, start)
        table.add_row(*cells)
    return table


def _panels(section: Section, width: int | None) -> list[Section]:
    """The section as it fits: formulas folded at blanks, or a matrix cut between columns."""
    if section.text and len(section.columns) <= _FOLDED:
        return [_with_folded_text(section, width or _READABLE)]
    return [section] if width is None else cut(section, width)


def _with_folded_text(section: Section, width: int) -> Section:
    """Fold the widest columns at blanks, never inside a number, until the table fits if it can."""
    columns = widths(section)
    excess = sum(columns) + GUTTER * (len(columns) - 1) - width
    for column in sorted(range(len(columns)), key=columns.__getitem__, reverse=True):
        if excess <= 0:
            break
        longest_word = max(places(word) for row in section.rows for word in row[column].split(" "))
        least = max(len(section.columns[column]), longest_word, _NARROWEST)
        narrowed = max(columns[column] - excess, min(columns[column], least))
        excess -= columns[column] - narrowed
        columns[column] = narrowed
    rows = [["\n".join(_folded(cell, columns[column])) for column, cell in enumerate(row)] for row in section.rows]
    return section._replace(rows=rows)


def _folded(text: str, width: int | None, joint: str = " ") -> list[str]:
    """The text in lines of at most ``width``, broken at ``joint`` only."""
    terms = words(text, width) if width is not None and joint == " " else text.split(joint)
    lines = [""]
    for term in terms:
        longer = f"{lines[-1]}{joint}{term}" if lines[-1] else term
        if width is not None and lines[-1] and places(longer) > width:
            lines.append(term)
        else:
            lines[-1] = longer
    return lines
