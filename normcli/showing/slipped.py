"""The lines behind a wrong answer beside the right ones, with the numbers of the first cell that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from normcli.planning.layout import number_of, place_of
from normcli.teaching import trace

if TYPE_CHECKING:
    from normcli.planning.layout import Shape
    from normcli.planning.plan import Plan
    from normcli.showing.report import Report
    from normcli.teaching.verdict import Cell

_MOST = 3  # explanations whose lines are shown


class Filled(NamedTuple):
    """A formula, and what it is with its numbers where these are known."""

    formula: str
    filled: str = ""
    value: str = ""


class Pair(NamedTuple):
    """The line of a slip beside the right one, and the cell whose numbers they have."""

    slipped: Filled
    right: Filled
    at: str


def slips_with_numbers(report: Report, precision: int) -> Iterator[Pair]:
    """The lines of the first explanations."""
    found = report.check
    for diagnosis in found.diagnoses[:_MOST] if found is not None else ():
        slipped, right = Filled(diagnosis.slipped_formula), Filled(diagnosis.right_formula)
        cell, at = diagnosis.first_cell, ""
        if cell is not None and report.result is not None and report.x is not None:
            element = _element(cell, report.result.plan)
            x, stands_for = np.asarray(report.x), right.formula.partition(" with ")[1:]
            formulas = (
                one.formula if " with " in one.formula else one.formula + "".join(stands_for)
                for one in (slipped, right)
            )
            lines = [trace.filled_in(report.result, x, element, formula, precision) for formula in formulas]
            slipped, right = (
                one if line is None else Filled(one.formula, *line)
                for one, line in zip((slipped, right), lines, strict=True)
            )
            at = f"at {cell.name}" if any(lines) else ""
        yield Pair(slipped, right, at)


def _element(cell: Cell, settled: Plan) -> Shape:
    """An element that a cell of a quantity belongs to."""
    layout = settled.layout
    if len(cell.index) == len(settled.shape):
        return cell.index
    kept = [axis for axis in range(len(layout.view)) if axis not in layout.axes]
    axes = next((axes for axes in (kept, [*layout.channels]) if len(axes) == len(cell.index)), [])
    at = dict(zip(axes, cell.index, strict=True)) if axes else {}
    place = [at.get(axis, 0) for axis in range(len(layout.view))]
    return place_of(number_of(place, layout.view), settled.shape)
