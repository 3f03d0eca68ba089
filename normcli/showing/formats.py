"""The formats that a report is shown in, one module each, imported when it is asked for.

A format is a module with one function, ``pieces``, from a Report and its Detail to pieces of text, so that
a large tensor is never one string. What the format cannot show is refused before the first piece. A script
writes a calculation alone, and needs its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normcli.showing.report import Detail, Report

FORMATS = {
    "table": "table", "json": "json", "markdown": "markdown", "latex": "latex", "csv": "csv", "python": "numpy_script",
    "torch": "torch_script", "jax": "flax_script", "keras": "keras_script",
}  # fmt: skip
SCRIPTS = tuple(name for name, module in FORMATS.items() if module.endswith("_script"))
LISTS = tuple(name for name in FORMATS if name not in SCRIPTS)  # in which what is no calculation is shown


def pieces(name: str, report: Report, detail: Detail) -> Iterator[str]:
    """The report in the format of that name.

    >>> from normcli.showing.report import Detail, Report
    >>> "".join(pieces("json", Report(document={"a": 1}), Detail()))
    '{"schema": 1, "a": 1}\\n'
    """
    found: Iterator[str] = import_module(f"normcli.showing.{FORMATS[name]}").pieces(report, detail)
    return found
