"""normcli conventions: what differs between frameworks."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from normcli import showing
from normcli.commands.options import ListFormat, chosen_format, offered
from normcli.showing.formats import LISTS, pieces


def conventions(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="Only these conventions, or kinds.",
            show_default=False,
            autocompletion=offered(lambda: showing.conventions.names()),
        ),
    ] = None,
    format: ListFormat = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what each framework's convention is, or where two of them differ, and what libraries make of a kind."""
    name = chosen_format(format, json=json, known=LISTS)
    sys.stdout.writelines(pieces(name, showing.conventions.report(names or []), showing.report.Detail()))
