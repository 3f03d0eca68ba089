"""Tables, block of rows by block of rows: CSV and its like, and Parquet; every column of numbers is a channel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.datasets.addresses import File, reached
from normcli.datasets.archives import matched
from normcli.datasets.arrays import Array, opened
from normcli.datasets.formats import family_of
from normcli.datasets.libraries import library
from normcli.datasets.spec import Spec
from normcli.errors import InputError
from normcli.files.numbers import number
from normcli.files.text import BLANKS
from normcli.words import listed, shown

_ROWS = 2**14
_LONGEST = 2**24  # bytes of a line


def arrays(file: File, spec: Spec) -> Iterator[Array]:
    """The blocks of rows of a table, each an array of its own; the member names a column, or some by a pattern."""
    yield from (_parquet if family_of(file.address) == "Parquet" else _text)(file)


# --- text -----------------------------------------------------------------------------------------


def _text(file: File) -> Iterator[Array]:
    with opened(file) as raw, reached(file.address):
        lines = _lines(raw, file.name)
        first = next(lines, None)
        if first is None:
            raise InputError(f"{file.name} is empty")
        sign = next((sign for sign in "\t;," if sign in first), None)
        cells = [cell.strip(BLANKS).strip('"') for cell in first.split(sign)]
        names: tuple[str, ...] = ()
        if all(number(cell, keep=False) is None for cell in cells if cell) and any(cells):
            names = tuple(cells)
        columns = _columns(names, len(cells), file)
        chosen = tuple(names[column] for column in columns) if names else ()
        waiting, at = ([] if names else [first]), 1 + bool(names)
        while rows := waiting + list(islice(lines, _ROWS - len(waiting))):
            yield Array.of(_numbers(rows, sign, columns, file, at), file.name, columns=chosen)
            waiting, at = [], at + len(rows)


def _columns(names: tuple[str, ...], width: int, file: File) -> list[int]:
    if file.member is None:
        return list(range(width))
    if not names:
        raise InputError(f"{file.name}: the columns have no names; --select ':,0:1' takes the first")
    return matched(list(names), file)


def _lines(stream: Any, name: str) -> Iterator[str]:
    """The lines that hold something, decoded, none longer than can be."""
    try:
        while raw := stream.readline(_LONGEST):
            if len(raw) == _LONGEST:
                raise InputError(f"{name} has a line of more than {_LONGEST // 2**20} MiB")
            line = raw.decode().removeprefix("\ufeff")
            if "\0" in line:
                raise InputError(f"{name} has a NUL byte, so it is no text")
            if line.strip(BLANKS) and not line.lstrip(BLANKS).startswith("#"):
                yield line
    except UnicodeDecodeError:
        raise InputError(f"{name} is no text in UTF-8") from None


def _numbers(rows: list[str], sign: str | None, columns: list[int], file: File, at: int) -> NDArray[np.float64]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found: NDArray[np.float64] = np.loadtxt(
                rows, np.float64, delimiter=sign, usecols=columns, ndmin=2, comments=None, quotechar='"'
            )
    except (ValueError, Warning) as error:
        reason = str(error).partition(";")[0].partition(" at row")[0]
        raise InputError(
            f"{file.name} cannot be read near line {_wrong(rows, sign, columns, at)}: {shown(reason)}"
        ) from None
    return found


def _wrong(rows: list[str], sign: str | None, columns: list[int], at: int) -> int:
    """The number of the first line (blank ones not counted) that holds no such row."""
    for index, row in enumerate(rows):
        cells = row.split(sign)
        if len(cells) <= max(columns) or any(number(cells[c].strip(BLANKS), keep=False) is None for c in columns):
            return at + index
    return at


# --- Parquet --------------------------------------------------------------------------------------


def _parquet(file: File) -> Iterator[Array]:
    parquet = library("pyarrow.parquet", file.name, extra="parquet")
    arrow = library("pyarrow", file.name, extra="parquet")
    with opened(file) as stream, reached(file.address):
        try:
            table = parquet.ParquetFile(stream, pre_buffer=False)
            schema = table.schema_arrow
            names = _numeric(schema, arrow, file)
            for batch in table.iter_batches(_ROWS, columns=names):
                if batch.num_rows:
                    values = [_values(batch.column(name), name, file) for name in names]
                    columns = [_labels(name, part.shape[1]) for name, part in zip(names, values, strict=True)]
                    yield Array.of(np.hstack(values), file.name, columns=tuple(chain.from_iterable(columns)))
        except arrow.ArrowException as error:
            raise InputError(f"{file.name} is damaged: {shown(str(error))}") from None


def _numeric(schema: Any, arrow: Any, file: File) -> list[str]:
    """The columns of numbers (lists of them too), or those that the member names."""
    types = arrow.types
    names = []
    for field in schema:
        kind = field.type
        inner = (
            kind.value_type
            if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
            else kind
        )
        if types.is_integer(inner) or types.is_floating(inner):
            names.append(field.name)
    if file.member is not None:
        every = list(schema.names)
        wanted = [every[index] for index in matched(every, file)]
        if odd := [name for name in wanted if name not in names]:
            raise InputError(f"{file.name}: {listed(odd)} holds no numbers")
        return wanted
    if not names:
        raise InputError(f"{file.name} has no column of numbers: {listed(schema.names)}")
    return names


def _labels(name: str, width: int) -> list[str]:
    return [name] if width == 1 else [f"{name}[{at}]" for at in range(width)]


def _values(column: Any, name: str, file: File) -> NDArray[np.float64]:
    """A column as float64 of shape (rows, width); what is missing is NaN."""
    if hasattr(column, "flatten") and hasattr(column.type, "value_type"):
        flat, rows = column.flatten(), len(column)
        if column.null_count or len(flat) % rows or len({len(item) for item in column}) > 1:
            raise InputError(f"{file.name}: the lists of {shown(name)} have different lengths")
        return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64).reshape(rows, -1)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64).reshape(-1, 1)
