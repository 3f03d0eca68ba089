"""A report as CSV.

Every number in full: no edges, no rounding; NaN and the infinities by the words that JSON output has.

A part alone is a table of its own: the output of one or two axes a matrix without a head, as a spreadsheet
and normcli read it; statistics with a row for each group, or a long table where they differ in shape; the trace
with a row for each step; a checked answer with a row for each cell, a comparison with a row for each quantity. The
whole result, whose parts differ in shape, is one long table with a row for each number, as databases and data
frames want it: quantity, i0, i1, ... (empty where a quantity has fewer axes), value. A checked answer and
a comparison stand before a part that is asked for beside them, with a blank line between. Several inputs
make one table, their number in the first column.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.planning.kinds import GRADIENTS
from normcli.showing.report import Detail, Report
from normcli.showing.sections import refuse_missing, tensor, words

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.teaching.verdict import Check
    from normcli.teaching.versus import Comparison

_ROWS = 256  # rows of CSV that are written at a time
_NUMBERS = 2**14  # numbers of a matrix that are text at a time
_MEASURES = ("max_abs", "max_rel", "max_ulp", "beyond_one_ulp", "at", "reference", "other")


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The tables of a report as CSV.

    >>> from normcli.showing.report import Section
    >>> section = Section(part="state", title="layers", columns=["layer", "size"], rows=[["bn", "(2,)"]])
    >>> print("".join(pieces(Report(sections=(section,)), Detail())))
    layer,size
    bn,"(2,)"
    <BLANKLINE>
    """
    refuse_missing(report, detail)
    return _pieces(report, detail)


def _pieces(report: Report, detail: Detail) -> Iterator[str]:
    tables = list(_tables(report, detail))
    if report.number is not None and len(tables) == 1:  # one table goes through all the inputs
        ((head, rows),) = tables
        name, place = ("file", report.file) if report.file else ("input", str(report.number))
        yield from _written([[name, *head]] if report.number == 0 else [])
        yield from _written([place, *row] for row in rows)
    else:
        for index, (head, rows) in enumerate(tables):
            yield "\n" if index or report.number else ""
            yield from _written(chain([head] if head else [], rows))
    if sys.stderr is not None:  # a table of cells has no place for a verdict in words
        sys.stderr.writelines(f"{line}\n" for line in words(report))


def _tables(report: Report, detail: Detail) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The head and the rows of each table: what is said of the result, then the part of it that is asked for."""
    if report.check is not None:
        yield ["quantity", "index", "yours", "exact", "difference", "allowed", "ok"], _checked_rows(report.check)
    if report.comparisons:
        yield ["versus", "quantity", *_MEASURES], _compared_rows(report.comparisons)
    yield from ((section.columns, iter(section.rows)) for section in report.sections)
    part = detail.part(report)
    if report.result is None or (
        part in (None, "trace") and report.trace is None and (report.check is not None or report.comparisons)
    ):
        return
    yield _part(report.result, report, part)


def _part(result: Result, report: Report, only: str | None) -> tuple[list[str], Iterator[list[str]]]:
    """The head, empty for a matrix, and the rows of the part that is asked for, or of the whole result."""
    alone = tensor(result, only) if only in ("output", *GRADIENTS) else None
    if alone is not None and report.number is None and np.ndim(alone) <= 2:
        return [], _matrix_rows(alone)
    if report.trace is not None and only in (None, "trace"):
        steps = report.trace.steps
        rows = ([step.step, step.formula, step.substituted, _values(step.value)] for step in steps)
        return ["step", "formula", "substituted", "value"], rows
    named = _quantities(result) if only is None or alone is None else {only: np.asarray(alone)}
    if only in ("statistics", "running"):
        named = _of_part(named, only)
        if len({np.shape(values) for values in named.values()}) == 1:
            head, *rest = _columns(named)
            return head, iter(rest)
    axes = max(report.axes, *(np.ndim(values) for values in named.values()))
    head = ["quantity", *(f"i{axis}" for axis in range(axes)), "value"]
    return head, chain.from_iterable(_long(name, values, axes) for name, values in named.items())


def _checked_rows(check: Check) -> Iterator[list[str]]:
    for compared in check.quantities:
        columns = (compared.yours, compared.exact, compared.difference, compared.allowed)
        for index in np.ndindex(compared.yours.shape):
            numbers = [_value(float(values[index])) for values in columns]
            yield [compared.name, " ".join(map(str, index)), *numbers, "false" if compared.wrong[index] else "true"]


def _compared_rows(comparisons: Sequence[Comparison]) -> Iterator[list[str]]:
    for comparison in comparisons:
        for quantity, difference in comparison.quantities.items():
            measured = (getattr(difference, name) for name in _MEASURES)
            texts = (" ".join(map(str, one)) if isinstance(one, tuple) else _value(one) for one in measured)
            yield [comparison.name, quantity, *texts]


def _quantities(result: Result) -> dict[str, Any]:
    found = result.statistics() | result.of_ranks()
    if result.plan.track_running_stats:
        found |= {"running_mean": result.after.running_mean, "running_var": result.after.running_var}
        found |= {"num_batches_tracked": np.array(result.after.num_batches_tracked)}
    return (found if result.output is None else found | {"output": result.output}) | result.gradients()


def _of_part(named: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The statistics, or the running ones."""
    running, others = ("running_mean", "running_var"), ("output", "num_batches_tracked")
    return {
        name: values
        for name, values in named.items()
        if name not in others and not name.startswith("grad_") and (name in running) == (part == "running")
    }


def _columns(named: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row for each group of statistics (or channel), its index first."""
    arrays = {name: np.atleast_1d(np.asarray(values, np.float64)) for name, values in named.items()}
    shape = next(iter(arrays.values())).shape
    yield [*(f"i{axis}" for axis in range(len(shape))), *arrays]
    for index in np.ndindex(shape):
        yield [*map(str, index), *(_value(float(values[index])) for values in arrays.values())]


def _matrix_rows(values: Any) -> Iterator[list[str]]:
    rows = len(values) if np.ndim(values) == 2 else 1
    step = max(1, _NUMBERS // np.shape(values)[-1])
    for start in range(0, rows, step):
        block = (
            values[slice(start, min(start + step, rows)), slice(0, np.shape(values)[1])]
            if np.ndim(values) == 2
            else values
        )
        for row in np.atleast_2d(np.asarray(block, np.float64)).tolist():
            yield [_value(number) for number in row]


def _long(name: str, values: Any, axes: int) -> Iterator[list[str]]:
    array = np.asarray(values)
    blank = [""] * (axes - array.ndim)
    for index in np.ndindex(array.shape):
        number = array[index]
        text = str(int(number)) if name == "num_batches_tracked" else _value(float(number))
        yield [name, *map(str, index), *blank, text]


def _values(value: float | list[float]) -> str:
    return " ".join(_value(number) for number in value) if isinstance(value, list) else _value(value)


def _value(number: float) -> str:
    if number != number:
        return "NaN"
    return repr(number).replace("inf", "Infinity")


def _written(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    rows = iter(rows)
    while block := list(islice(rows, _ROWS)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(block)
        yield text.getvalue()
