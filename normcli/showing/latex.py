"""A report as a piece of a LaTeX document: the trace as aligned steps, a matrix in brackets, tables.

All of it fits the column of an article: what is larger is shown by its edges, or cut into pieces
in a full report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from normcli.digits import aligned
from normcli.formula import tex
from normcli.formula.language import Name
from normcli.showing.panels import cut
from normcli.showing.report import Detail, Report, Section
from normcli.showing.sections import checked, heading, refuse_missing, sections, words

if TYPE_CHECKING:
    from normcli.teaching.trace import Step, Trace

_GAP = "..."
_WIDEST, _LONGEST = 10, 40  # columns and rows of a matrix that a page takes
_ACROSS, _SMALL = 62, 86  # characters that stand side by side there, in brackets and in a table of small type


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The report for a document that loads amsmath.

    >>> print("".join(pieces(Report(words=("100 % of it",)), Detail())))
    % needs \\usepackage{amsmath}
    \\noindent 100 \\% of it\\par\\medskip
    <BLANKLINE>
    """
    refuse_missing(report, detail)
    return _pieces(report, detail)


def _pieces(report: Report, detail: Detail) -> Iterator[str]:
    blocks = [text for text in [heading(report, detail, "; "), *words(report)] if text]
    tables = [*checked(report, detail), *sections(report, detail)]
    yield "\n" if report.number else ""
    yield "% needs \\usepackage{amsmath}\n" if blocks or tables else ""
    yield from (f"\\noindent {tex.escaped(text)}\\par\\medskip\n" for text in blocks)
    for section in tables:
        if section.part == "trace" and report.trace is not None:
            yield from _aligned(report.trace, detail.precision, full=detail.full)
        elif section.is_matrix:
            yield from _bracketed(section, full=detail.full)
        else:
            yield from _tabular(section, full=detail.full)


def _aligned(trace: Trace, precision: int, *, full: bool) -> Iterator[str]:
    words = {"centered": "the centered value", "weight": "weight", "bias": "bias", "rstd": "rstd", "m": "momentum"}
    texts = " ".join(step.formula for step in trace.steps)
    names = [f"${tex.SYMBOLS[name]}$ {word}" for name, word in words.items() if re.search(rf"\b{name}\b", texts)]
    yield f"\\noindent Trace of {tex.escaped(trace.title)}" + (f"; {', '.join(names)}" if names else "") + ".\n"
    yield "\\begingroup\\allowdisplaybreaks\n\\begin{align*}\n"
    yield from _steps(trace, precision, full=full)
    yield "\n\\end{align*}\n\\endgroup\n"


def displayed(trace: Trace, precision: int) -> str:
    r"""The steps of a trace as one display, which a notebook sets.

    >>> from normcli.teaching.python import trace
    >>> print(displayed(trace([[1, 3]], "layer", eps=0), 4).splitlines()[3])
      &= \frac{\sum x}{n} = \frac{1 + 3}{2} = 2.0000 \\[1ex]
    """
    return f"$$\n\\begin{{aligned}}\n{''.join(_steps(trace, precision, full=False))}\n\\end{{aligned}}\n$$"


def _steps(trace: Trace, precision: int, *, full: bool) -> Iterator[str]:
    for index, step in enumerate(trace.steps):
        yield " \\\\[1ex]\n" if index else ""
        yield f"{tex.formula(Name(step.step))}\n"
        yield _stacked(_sides(step, precision, full=full))


def _sides(step: Step, precision: int, *, full: bool) -> Iterator[tuple[str, list[str]]]:
    """What a step's symbol is equal to: its formula, the numbers filled in, and the value, or nearly."""
    numbers = step.value if isinstance(step.value, list) else [step.value]
    shown = aligned(numbers, precision)
    exact = all(
        number != number or math.isclose(float(text), number, rel_tol=1e-12)
        for text, number in zip(shown, numbers, strict=True)
    )
    shown = shown if full or len(shown) <= 8 else [*shown[:3], _GAP, *shown[-3:]]
    value = tex.values(shown) if len(shown) > 1 else [tex.number(shown[0])]
    yield "=", [tex.formula(step.tree)]
    if (substituted := tex.lines(step.filled)) != value:
        yield "=", substituted
    yield "=" if exact else r"\approx", value


def _stacked(sides: Iterable[tuple[str, list[str]]]) -> str:
    """The sides of an equation, on one line as far as they fit it, else below one another."""
    lines: list[str] = []
    for relation, (first, *more) in sides:
        longer = f"{lines[-1]} {relation} {first}" if lines else ""
        chained = not more and r",\;" not in longer and r"\quad" not in longer  # a list is a line of its own
        if lines and chained and tex.width(longer) <= tex.LINE:
            lines[-1] = longer
        else:
            lines += [f"  &{relation} {first}", *(rf"  &\quad {line}" for line in more)]
    ends = [r" \\[0.5ex]" if r"\frac" in line else r" \\" for line in lines[:-1]]
    return "\n".join(f"{line}{end}" for line, end in zip(lines, [*ends, ""], strict=True))


def _bracketed(section: Section, *, full: bool) -> Iterator[str]:
    section = section._replace(rows=[*section.rows]) if full else _edges(section)
    for panel in cut(section, _room(section, _ACROSS)):
        for rows in _pages(panel):
            heads = panel.columns[1:]
            columns = f", columns {heads[0]} to {heads[-1]}" if len(heads) < len(section.columns) - 1 else ""
            lines = f", rows {rows[0][0]} to {rows[-1][0]}" if len(rows) < len(panel.rows) else ""
            yield f"\\noindent {tex.escaped(section.title + columns + lines)}\n"
            yield f"\\[\n\\left[\\begin{{array}}{{{'r' * len(heads)}}}\n"
            yield " \\\\\n".join("  " + " & ".join(_cell(cell, set(row) == {_GAP}) for cell in row[1:]) for row in rows)
            yield "\n\\end{array}\\right]\n\\]\n"


def _edges(section: Section) -> Section:
    """The section by its edges, as a page takes it, with what is left out said in words."""
    rows = [*section.rows]
    height, width = len(rows), len(section.columns) - section.labels
    across = width if section.is_matrix and width > _WIDEST else 0  # only a matrix is cut across
    if height <= _LONGEST and not across:
        return section._replace(rows=rows)
    columns = [*range(section.labels + 3), None, *range(-3, 0)] if across else [*range(len(section.columns))]
    lines: list[int | None] = [0, 1, 2, None, -3, -2, -1] if height > _LONGEST else [*range(height)]
    said = f": 6 of {height} shown"
    if section.is_matrix:
        shown = (height if height <= _LONGEST else 6) * (6 if across else width)
        said = f": edges of {height} x {width} shown, {height * width - shown} of {height * width} elements left out"
    return section._replace(
        title=f"{section.title}{said} (see --full)",
        columns=[_GAP if j is None else section.columns[j] for j in columns],
        rows=[[_GAP if i is None or j is None else rows[i][j] for j in columns] for i in lines],
    )


def _pages(section: Section) -> Iterator[list[list[str]]]:
    rows = iter(section.rows)
    while page := list(islice(rows, _LONGEST)):
        yield page


def _room(section: Section, characters: int) -> int:
    """How many characters of the section fit: powers of ten are wider than they are written."""
    powers = any(re.search("[0-9]e[-+]", cell) for row in islice(section.rows, _LONGEST) for cell in row)
    return characters * 3 // 4 if powers else characters


def _cell(cell: str, down: bool = False) -> str:
    return (r"\vdots" if down else r"\cdots") if cell == _GAP else tex.number(cell)


def _tabular(section: Section, *, full: bool) -> Iterator[str]:
    words = [section.is_words(column) for column in range(len(section.columns))]
    rows = [*section.rows]
    if any(flush and max((len(row[c]) for row in rows), default=0) > 40 for c, flush in enumerate(words)):
        yield from _table(section.title, section.columns, rows, words)
        return
    section = section._replace(rows=rows) if full else _edges(section)
    for panel in cut(section, _room(section, _SMALL), gutter=1):
        flush = [words[section.columns.index(head)] for head in panel.columns]
        for at, page in enumerate(_pages(panel)):
            yield from _table(f"{panel.title}, continued" if at else panel.title, panel.columns, page, flush)


def _table(title: str, heads: list[str], rows: list[list[str]], words: list[bool]) -> Iterator[str]:
    widest = [max(len(row[c]) for row in [heads, *rows]) + 2 for c in range(len(heads))]
    long = {c for c in range(len(heads)) if words[c] and widest[c] > 42}
    columns = "".join(
        f"p{{{0.7 / len(long):.2f}\\linewidth}}" if c in long else "l" if flush else "r"
        for c, flush in enumerate(words)
    )
    wide = sum(widest[c] for c in range(len(heads)) if c not in long) > 66
    size = "\\scriptsize\\setlength{\\tabcolsep}{2pt}" if wide else ""
    yield f"\\noindent {tex.escaped(title)}\\par\\nobreak\\smallskip\n"
    yield f"{{\\noindent{size}\n\\begin{{tabular}}{{{columns}}}\n"
    yield "  " + " & ".join(tex.escaped(head) for head in heads) + " \\\\\n  \\hline\\rule{0pt}{2.6ex}%\n"
    for row in rows:
        cells = (tex.escaped(cell) if words[c] else f"${_number(cell)}$" if cell else "" for c, cell in enumerate(row))
        yield "  " + " & ".join(cells) + " \\\\\n"
    yield "\\end{tabular}\\par}\\medskip\n"


def _number(cell: str) -> str:
    """A number of a table, or the short text that stands in its place."""
    if cell == _GAP:
        return r"\cdots"
    try:
        float(cell)
    except ValueError:
        return rf"\text{{{tex.escaped(cell)}}}"
    return tex.number(cell)
