"""The formats that a report is shown in, one module each, imported when it is asked for.

A format is a module with one function, ``pieces``, from a Report and its Detail to pieces of text, so that
a large tensor is never one string. What the format cannot show is refused before the first piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normcli.showing.report import Detail, Report

SCRIPT = "python"  # which writes a calculation alone, and needs its input
FORMATS = {"table": "table", "json": "json", "markdown": "markdown", "latex": "latex", "csv": "csv", SCRIPT: "script"}
LISTS = tuple(name for name in FORMATS if name != SCRIPT)  # in which what is no calculation is shown


def pieces(name: str, report: Report, detail: Detail) -> Iterator[str]:
    """The report in the format of that name.

    >>> from normcli.showing.report import Detail, Report
    >>> "".join(pieces("json", Report(document={"a": 1}), Detail()))
    '{"a": 1}\\n'
    """
    found: Iterator[str] = import_module(f"normcli.showing.{FORMATS[name]}").pieces(report, detail)
    return found
