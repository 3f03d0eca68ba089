"""normcli check: worked examples in files, verified; the mistake in a wrong one named."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

import normcli.files
from normcli import showing, teaching
from normcli.commands.options import ListFormat, chosen_format
from normcli.commands.texts import tolerance
from normcli.errors import InputError, NormcliError, complain
from normcli.showing.formats import LISTS, pieces
from normcli.words import count

if TYPE_CHECKING:
    from normcli.showing.report import Report


def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE...", help="Worked examples (JSON); - is standard input.", show_default=False),
    ] = None,
    init: Annotated[bool, typer.Option("--init", help="Print a worked example to start from.")] = False,
    format: ListFormat = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each file.")] = False,
    atol: Annotated[
        str | None,
        typer.Option(metavar="FLOAT", help="A plain tolerance instead of the derived one: atol + rtol * |exact|."),
    ] = None,
    rtol: Annotated[str | None, typer.Option(metavar="FLOAT", help="The same, relative to the exact number.")] = None,
    cells: Annotated[bool, typer.Option("--cells", help="Show every cell, and what is allowed for it.")] = False,
    html: Annotated[
        str | None,
        typer.Option(
            "--html", metavar="FILE.html", help="Keep it as a page to point at and to change.", show_default=False
        ),
    ] = None,
) -> None:
    """Verify worked examples and name the mistake in those that are wrong."""
    gc.enable()
    given = {name: tolerance(text, name) for name, text in (("atol", atol), ("rtol", rtol)) if text is not None}
    if init and (files or json or cells or format or html or given):
        raise InputError("--init prints a worked example and checks nothing; give it alone")
    if init:
        sys.stdout.write(teaching.worked.TEMPLATE)
        return
    if not files:
        raise InputError("check needs a FILE, or - for standard input", "normcli check --init prints one to start from")
    if files.count("-") > 1:
        raise InputError("standard input (-) is given twice; it can be read once")
    name, detail = chosen_format(format, json=json, known=LISTS), showing.report.Detail(cells=cells)
    if html is not None:
        normcli.files.write.check_suffix(html, normcli.files.write.PAGES, "--html")
    code, shown = 0, []
    for report, exit_code in _reports(files, given, calculated=html is not None):
        code = max(code, exit_code)
        shown.append(report)
        sys.stdout.writelines(pieces(name, report._replace(result=None, x=None), detail))
    if html is not None:
        normcli.files.write.write_text(html, showing.html.page(shown, detail))
    if code:
        raise typer.Exit(code)


def _reports(files: list[str], within: Mapping[str, float], *, calculated: bool) -> Iterator[tuple[Report, int]]:
    """What is to be said of each file, with its exit code, a broken one without stopping at it; then of all.

    ``calculated`` says that the calculation itself belongs to it.
    """
    tally = {"check": 0, "do not": 0, "could not be read": 0}
    read = 0
    for file in files:
        try:
            example, found = teaching.worked.check_file(file, within)
        except NormcliError as error:
            tally["could not be read"] += 1
            complain(str(error), error.hint)
            yield showing.report.Report(document={"file": file, "error": str(error)}), error.exit_code
            continue
        tally["check" if found.ok else "do not"] += 1
        yield (
            showing.report.Report(
                result=teaching.worked.calculation(example) if calculated else None,
                x=example.x.values if calculated else None,
                check=found,
                headline=example.title,
                file=file,
                number=read if len(files) > 1 else None,
                document={"file": file, "title": example.title},
            ),
            0 if found.ok else 1,
        )
        read += 1
    if len(files) > 1:
        said = ", ".join(f"{number} {what}" for what, number in tally.items() if number)
        yield showing.report.Report(words=(f"{count(len(files), 'file')}: {said}",), number=read), 0
