"""A report as Markdown: tables as GitHub draws them, numbers flush right, formulas as code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from normcli.showing.report import Detail, Report
from normcli.showing.sections import checked, heading, refuse_missing, sections, words


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The report in Markdown.

    >>> from normcli.showing.report import Section
    >>> section = Section(part="state", title="layers", columns=["layer", "size"], rows=[["a_b", "2"]])
    >>> print("".join(pieces(Report(sections=(section,)), Detail())))
    **layers**
    <BLANKLINE>
    | layer | size |
    | :-- | --: |
    | a\\_b | 2 |
    <BLANKLINE>
    """
    refuse_missing(report, detail)
    return _pieces(report, detail)


def _pieces(report: Report, detail: Detail) -> Iterator[str]:
    yield "\n" if report.number else ""
    blocks = [f"{_marked(text)}\n" for text in [heading(report, detail, "; "), *words(report)] if text]
    yield "\n".join(blocks)
    for index, section in enumerate([*checked(report, detail), *sections(report, detail)]):
        yield "\n" if index or blocks else ""
        yield f"**{_marked(section.title)}**\n\n"
        yield _marked_row([_marked(head) for head in section.columns])
        yield _marked_row([":--" if section.is_words(column) else "--:" for column in range(len(section.columns))])
        for row in section.rows:
            formulas = section.part == "trace"
            yield _marked_row([
                f"`{cell.replace('|', '&#124;')}`" if formulas and column in (1, 2) and cell else _marked(cell)
                for column, cell in enumerate(row)
            ])  # fmt: skip


def _marked_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _marked(text: str) -> str:
    """Text with what Markdown would take for markup escaped; a line stays one line."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
