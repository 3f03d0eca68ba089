"""The check of an answer in words, as a table and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.digits import short
from normcli.showing.report import Section
from normcli.words import count

if TYPE_CHECKING:
    from normcli.teaching.verdict import Cell, Check, Compared, Diagnosis

Index = tuple[int, ...]

_MOST_ROWS = 20  # of differing cells that a table shows
_MOST_TEXTS = 3  # of diagnoses that are explained in words; the others are named
_MOST_KEYS = 3  # of diagnoses that are named in one line


def verdict(found: Check) -> str:
    """The verdict in one line.

    >>> from normcli.teaching.verdict import Check, Compared
    >>> values = np.zeros((1, 2))
    >>> cells = dict(yours=values, exact=values, difference=values, allowed=values, own=values, wrong=values > 0)
    >>> verdict(Check(quantities=(Compared(name="output", digits="2 decimals", **cells),)))
    'checks: all 2 cells agree, to the 2 decimals given'
    """
    within = (
        f" within {' '.join(f'--{name} {short(size)}' for name, size in found.within.items())}" if found.within else ""
    )
    if found.ok:
        shown = _shown_digits({quantity.digits for quantity in found.quantities if quantity.digits})
        condition = f", if {found.assumption}" if found.assumption else ""
        if found.cells == 1:
            return f"checks{within}{condition or shown}"
        return f"checks{within}{condition}: all {count(found.cells, 'cell')} agree{shown}"
    if found.turned:
        return f"does not check{within}: {found.turned}"
    what = f"{found.mismatches} of {count(found.cells, 'cell')} {'differs' if found.mismatches == 1 else 'differ'}"
    worst = max(_largest(quantity) for quantity in found.quantities if quantity.wrong.any())
    largest = f", {'the largest ' if found.mismatches > 1 else ''}by {positional(worst[0], 4)}"
    if not math.isfinite(worst[0]):
        largest = ", one of them not a finite number" if found.mismatches > 1 else "; it is not a finite number"
    return f"does not check{within}: {what}{largest} (allowed: {positional(worst[1], 2)})"


def _shown_digits(words: set[str]) -> str:
    """The precision that the answers show, in words: the most decimals, or the one way in which they were printed."""
    if not words:
        return ""
    most = max(words, key=lambda word: int(word.split()[0]))
    return f", to the {most if len({'significant' in word for word in words}) == 1 else 'digits'} given"


def _largest(quantity: Compared) -> tuple[float, float]:
    """The largest difference among the wrong cells, and what is allowed there."""
    place = int(np.argmax(np.where(quantity.wrong, quantity.difference, -1.0)))
    return float(quantity.difference.flat[place]), float(quantity.allowed.flat[place])


def summary(found: Check) -> str:
    """The verdict with the keys of the first diagnoses, where there are many checks to tell of."""
    return verdict(found) + "".join(f" [{', '.join(names)}]" for names in found.keys[:_MOST_KEYS])


def explanation(found: Check) -> list[str]:
    """The lines that follow the verdict: the slip in plain words, or that none is known."""
    if found.ok:
        return [found.note] if found.note else []
    lines = [line for diagnosis in found.diagnoses[:_MOST_TEXTS] for line in diagnosis.text.split("\n")]
    if also := found.diagnoses[_MOST_TEXTS:]:
        lines.append(f"They also fit {', '.join(_bracketed(diagnosis) for diagnosis in also)}.")
    if len(found.diagnoses) > 1:
        lines.append(f"These numbers cannot tell the {len(found.diagnoses)} explanations apart; {found.apart} would.")
    if not found.diagnoses and found.within and found.note:
        lines.append(found.note)
    elif not found.diagnoses:
        lines.append(" ".join(["No known slip explains these numbers.", *([found.note] if found.note else [])]))
        if found.where:
            lines.append(found.where)
        if found.nearest is not None:
            lines.append(
                f"The nearest, {_bracketed(found.nearest)}, still leaves {positional(found.nearest.max_error, 4)}."
            )
    return lines


def section(found: Check, *, everything: bool = False) -> Section:
    """The table of the cells that differ, the worst first (or of all): yours, exact, difference, allowed."""
    if everything:
        title, places = "all cells", [(q, place) for q in found.quantities for place in np.ndindex(q.yours.shape)]
    else:
        title, places = "cells that differ", _worst(found)
        if found.mismatches > len(places):
            title += f": the worst {len(places)} of {found.mismatches}"
    columns = ["cell", "yours", "exact", "difference", "allowed"]
    rows = [_row(quantity, place) for quantity, place in places]
    wrong = [row for row, (quantity, place) in enumerate(places) if quantity.wrong[place]]
    marks = {(row, column): apart(*rows[row][1:3]) for row in wrong for column in (1, 2)}
    return Section(part="check", title=title, columns=columns, rows=rows, marks=marks)


def apart(yours: str, exact: str) -> int:
    """The place of the first digit in which two numbers differ; 0 where their points do not stand below each other.

    >>> apart("1.1339", "1.388675"), apart("-0.5", "0.5"), apart("10.5", "9.5"), apart("0.93", "0.925")
    (2, 0, 0, 3)
    """
    if yours.partition(".")[0] != exact.partition(".")[0] and yours.find(".") != exact.find("."):
        return 0
    same = [a == b for a, b in zip(yours, exact, strict=False)]
    return same.index(False) if False in same else len(same)


def _worst(found: Check) -> list[tuple[Compared, Index]]:
    """The wrong cells, those that are off by most of their allowance first; of equal ones the first."""
    ranked = []
    for order, quantity in enumerate(found.quantities):
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            excess = np.where(quantity.wrong, quantity.difference / quantity.allowed, -1.0).ravel()
            excess = excess.astype(np.float32)  # so that cells that are equally wrong keep their order
        first = np.argsort(-excess, kind="stable")[: min(_MOST_ROWS, int(quantity.wrong.sum()))]
        ranked += [(-float(excess[at]), order, int(at)) for at in first]
    shape = [quantity.yours.shape for quantity in found.quantities]
    chosen = sorted(ranked)[:_MOST_ROWS]
    return [
        (found.quantities[order], tuple(int(i) for i in np.unravel_index(at, shape[order]))) for _, order, at in chosen
    ]


def _row(quantity: Compared, place: Index) -> list[str]:
    cell = quantity.cell(place)
    difference, allowed = (float(values[cell.index]) for values in (quantity.difference, quantity.allowed))
    yours, exact = quantity.shown(cell, cell.yours), quantity.shown(cell, cell.exact, more=2)
    return [cell.name, yours, exact, positional(difference, 2), positional(allowed, 2)]


def document(found: Check, *, cells: bool = False) -> dict[str, Any]:
    """The check as the JSON document has it: ok, assumes, tolerance, max_error, mismatches, diagnoses, nearest."""
    nearest = found.nearest
    parts: dict[str, Any] = {
        "ok": found.ok,
        "assumes": found.assumes,
        "tolerance": found.tolerance,
        "max_error": found.max_error,
        "mismatches": found.mismatches,
        "diagnoses": [_diagnosis_document(diagnosis) for diagnosis in found.diagnoses],
        "nearest": None if nearest is None else {"keys": list(nearest.keys), "max_error": nearest.max_error},
    }
    if found.within:
        parts["within"] = dict(found.within)
    if found.where:
        parts["where"] = found.where
    if found.ok and found.note:
        parts["note"] = found.note
    if len(found.diagnoses) > 1:
        parts["apart"] = found.apart
    if cells:
        parts["cells"] = [
            _cell_document(quantity.cell(place)) | {"allowed": float(quantity.allowed[place])}
            for quantity in found.quantities
            for place in np.ndindex(quantity.yours.shape)
        ]
    return parts


def _diagnosis_document(diagnosis: Diagnosis) -> dict[str, Any]:
    cell = diagnosis.first_cell
    return {
        "keys": list(diagnosis.keys),
        "text": diagnosis.text.replace("\n", " "),
        "max_error": diagnosis.max_error,
        "right": diagnosis.right_formula,
        "slipped": diagnosis.slipped_formula,
        "first_cell": None if cell is None else _cell_document(cell),
    }


def _cell_document(cell: Cell) -> dict[str, Any]:
    return {**vars(cell), "index": list(cell.index)}


def positional(value: float, digits: int) -> str:
    """The number with a few significant digits, as one reads it: no exponent unless it is tiny.

    >>> positional(0.00005, 2), positional(1.5e-12, 2)
    ('0.00005', '1.5e-12')
    """
    if not math.isfinite(value) or (value and abs(value) < 1e-8):
        return f"{value:.{digits}g}"
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-", unique=False)


def _bracketed(diagnosis: Diagnosis) -> str:
    return f"[{', '.join(diagnosis.keys)}]"
