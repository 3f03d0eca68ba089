"""Tables of numbers: CSV and its like, a row to a line, and a number by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from normcli.errors import InputError
from normcli.files.numbers import Numbers, number
from normcli.files.text import BLANKS, refuse_word
from normcli.words import count, quoted

_NAME = r"[^\W\d]"  # how the name of a column begins


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line of a table, cut into its cells."""

    line: int
    cells: list[str]


def parse(text: str, name: str, *, keep: bool, **_: object) -> list[Numbers]:
    """The number that the text is, or its rows of numbers, one to a line, below a row of names or not.

    One row, or one bare number to a line, is a tensor of one axis.

    >>> [parse(text, "x", keep=False)[0].shape for text in ("1", "1,2", "1,2\\n3,4")]
    [(), (2,), (2, 2)]
    """
    scalar = number(text.strip(BLANKS), keep=keep)
    if scalar is not None:
        return [Numbers(leaves=[scalar], shape=(), text=text)]
    rows, separator = _rows(text, name)
    if not rows:
        raise InputError(f"{name} is empty")
    warnings: tuple[str, ...] = ()
    if _are_names(rows[0].cells):
        names = rows.pop(0).cells
        if not rows:
            raise InputError(f"{name} holds no tensor, but {quoted(' '.join(names), 24)}")
        if not names[0]:
            warnings = ("the first column has no name; its numbers are read as data",)
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            odd = f"line {row.line} has {count(len(row.cells), 'value')}"
            raise InputError(f"{name} is ragged: {odd}, line {rows[0].line} has {width}")
    leaves = _cell_numbers(rows, name, keep=keep)
    flat = len(rows) == 1 or (separator is None and width == 1)
    shape = (len(leaves),) if flat else (len(rows), width)
    return [Numbers(leaves=leaves, shape=shape, text=text, warnings=warnings)]


def _rows(text: str, name: str) -> tuple[list[_Row], str | None]:
    """The lines that hold something, and what separates their cells; None: blanks do."""
    ended = text.replace("\r\n", "\n").replace("\r", "\n")  # a lone CR ended the lines of old Macs
    lines = [(number, line) for number, line in enumerate(ended.split("\n"), 1) if line.strip(BLANKS)]
    lines = [(number, line) for number, line in lines if not line.lstrip(BLANKS).startswith("#")]
    separator = next((sign for sign in "\t;," if any(sign in line for _, line in lines)), None)
    return [_Row(line=number, cells=_cells(line, separator, number, name)) for number, line in lines], separator


def _cells(line: str, separator: str | None, number: int, name: str) -> list[str]:
    if separator is None:
        return re.split(r"[ \t]+", line.strip(BLANKS))
    if '"' not in line:
        return [cell.strip(BLANKS) for cell in line.split(separator)]
    import csv

    try:
        return [cell.strip(BLANKS) for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    except csv.Error as error:  # a cell of more than 128 KiB
        raise InputError(f"{name} cannot be read in line {number}: {error}") from None


def _are_names(cells: list[str]) -> bool:
    """Whether a row names the columns: words, none of which is a number; an index may have no name."""
    words = cells if cells[0] else cells[1:]
    return bool(words) and all(number(word, keep=False) is None and re.compile(_NAME).match(word) for word in words)


def _cell_numbers(rows: list[_Row], name: str, *, keep: bool) -> list[Any]:
    leaves = [number(cell, keep=keep) for row in rows for cell in row.cells]
    if None in leaves:
        at, column = divmod(leaves.index(None), len(rows[0].cells))
        _refuse_cell(rows[at].cells[column], f"line {rows[at].line}, column {column + 1}", name)
    return leaves


def _refuse_cell(cell: str, place: str, name: str) -> NoReturn:
    if not cell:
        raise InputError(f"{name} has an empty cell at {place}")
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", cell):
        raise InputError(f"{name} has a decimal comma in {quoted(cell, 24)} at {place}; write a decimal point")
    refuse_word(cell, place, name)
