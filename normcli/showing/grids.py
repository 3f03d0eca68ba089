"""Tensors as grids of a page, one cell for each number, and reports' tables beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normcli.digits import aligned, computed, decimal, notation, written
from normcli.planning.layout import number_of, place_of

if TYPE_CHECKING:
    from normcli.showing.report import Detail, Report, Section
    from normcli.teaching.verdict import Check, Compared

_LONGEST = 8  # characters of an input's number that is shown as it was typed
_GIVEN = {"input", "grad_output"}
_TITLES = {
    "input": "input",
    "output": "output",
    "grad_output": "gradient of the output",
    "grad_input": "gradient of the input",
}


def index(place: tuple[int, ...]) -> str:
    """An element's index as a trace's title has it.

    >>> index((1, 0))
    '(1, 0)'
    """
    return f"({', '.join(map(str, place))})"


def unbroken(text: str) -> str:
    """Words as HTML in which 4.59e-05 and n-1 stay on one line: browsers break them after the hyphen.

    >>> unbroken("eps < 1e-05")
    'eps &lt; <span class=whole>1e-05</span>'
    """
    return re.sub(r"[\w.]+-\d+", r"<span class=whole>\g<0></span>", escape(text))


def value(number: Any, precision: int) -> str:
    """A step's value as the table of a trace has it."""
    if isinstance(number, list):
        one = notation(number, precision)
        return ", ".join(computed(each, one) for each in number)
    return aligned([number], precision)[0]


def texts(values: NDArray[Any], precision: int, *, given: bool) -> list[str]:
    """Numbers that stand below each other: as they were typed where that is short, else with so many decimals.

    >>> texts(np.array([1, 2.5, -3]), 4, given=True)
    ['1\u2008\u2007', '2.5', '-3\u2008\u2007']
    """
    numbers = values.astype(np.float64).ravel().tolist()
    if given:
        typed = [written(number) for number in numbers]
        if max(map(len, typed)) <= _LONGEST:
            return _padded(typed)
    one = notation(numbers, precision)
    return [decimal(number, one) for number in numbers]


def _padded(typed: list[str]) -> list[str]:
    """Numbers with their points below each other, by blanks as wide as a point and as a digit."""
    if any("e" in text or "n" in text for text in typed):
        return typed
    decimals = [len(text.partition(".")[2]) for text in typed]
    most = max(decimals)
    return [
        text + ("" if own or not most else "\u2008") + "\u2007" * (most - own)
        for text, own in zip(typed, decimals, strict=True)
    ]


def wrong_cells(found: Check, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The elements whose output, or what else there is one of for each, is wrong."""
    for quantity in found.quantities:
        if quantity.yours.shape == shape and not found.turned:
            yield from (tuple(map(int, place)) for place in np.argwhere(quantity.wrong))


def grid(
    report: Report, name: str, values: NDArray[Any], kept: list[list[int]], first: tuple[int, ...], detail: Detail
) -> str:
    """A tensor's elements, those that are kept along each axis, as a table; each cell knows its number."""
    plan = report.calculated.plan
    shape, layout = plan.shape, plan.layout
    lit = _group(first, report)
    shown = np.asarray(values)[np.ix_(*kept)]
    numbers = iter(texts(shown, detail.precision, given=name in _GIVEN))
    compared = _compared(report, name)
    focus = 'role="grid" ' if name not in _GIVEN else ""
    parts = [f'<section class="pane"><h2>{_TITLES[name]}</h2><div class="scroll">']
    parts.append(f'<table {focus}class="{name}" aria-label="{_TITLES[name]}">')
    columns = _gapped(kept[-1], shape[-1])
    heads = "".join(f'<th scope="col">{"…" if j is None else j}</th>' for j in columns)
    parts.append(f"<thead><tr><td></td>{heads}</tr></thead>")
    rows = kept[-2] if len(shape) > 1 else [None]
    assert layout is not None
    for leading in product(*kept[:-2]):
        parts.append("<tbody>")
        if leading:
            at = "".join(f"{i}, " for i in leading)
            parts.append(f'<tr class="slice"><th colspan="{len(columns) + 1}" scope="rowgroup">[{at}:, :]</th></tr>')
        for row in _gapped(rows, shape[-2]) if len(shape) > 1 else [0]:
            if row is None:
                parts.append(f'<tr class="gap"><th>⋮</th>{"<td>⋮</td>" * len(columns)}</tr>')
                continue
            parts.append(f'<tr><th scope="row">{row if len(shape) > 1 else ""}</th>')
            for column in columns:
                if column is None:
                    parts.append('<td class="gap">…</td>')
                    continue
                place = (*leading, *([row] if len(shape) > 1 else []), column)
                parts.append(_cell(place, next(numbers), name, shape, first, _group(place, report) == lit, compared))
            parts.append("</tr>")
        parts.append("</tbody>")
    parts.append("</table></div></section>")
    return "".join(parts)


def _cell(
    place: tuple[int, ...],
    text: str,
    name: str,
    shape: tuple[int, ...],
    first: tuple[int, ...],
    lit: bool,
    compared: Compared | None,
) -> str:
    classes = [word for word, holds in (("lit", lit and name in _GIVEN), ("chosen", place == first)) if holds]
    yours = ""
    if compared is not None and compared.wrong[place]:
        classes.append("wrong")
        cell = compared.cell(place)
        yours = f'<span class="yours"><i>yours </i>{escape(compared.shown(cell, cell.yours))}</span>'
    attributes = f' class="{" ".join(classes)}"' if classes else ""
    if name not in _GIVEN and place == first:
        attributes += " tabindex=0"
    return f"<td{attributes} data-i={number_of(place, shape)}>{text}{yours}</td>"


def _compared(report: Report, name: str) -> Compared | None:
    """The answer that was given for this tensor."""
    found = report.check
    if found is None or found.turned:
        return None
    quantities = (one for one in found.quantities if one.name == name)
    return next((one for one in quantities if one.yours.shape == report.calculated.plan.shape), None)


def _group(place: tuple[int, ...], report: Report) -> tuple[int, ...]:
    layout = report.calculated.plan.layout
    at = place_of(number_of(place, report.calculated.plan.shape), layout.view)
    return tuple(i for axis, i in enumerate(at) if axis not in layout.axes)


def _gapped(kept: list[Any], size: int) -> list[Any]:
    """The places that are kept, and None where others are left out."""
    found: list[Any] = []
    for place in kept:
        if found and place != found[-1] + 1:
            found.append(None)
        found.append(place)
    return found


def table(section: Section, hatched: str = "") -> str:
    """One of a report's tables; the column of that name is hatched, for what is wrong in it."""
    classes = []
    for column, name in enumerate(section.columns):
        words = [
            word for word, holds in (("words", section.is_words(column)), ("wrong", name and name == hatched)) if holds
        ]
        classes.append(f' class="{" ".join(words)}"' if words else "")
    heads = _cells("th", [escape(name).replace("_", "_<wbr>") for name in section.columns], classes)
    rows = "".join(f"<tr>{_cells('td', [*map(unbroken, row)], classes)}</tr>" for row in section.rows)
    return (
        f'<div class="scroll"><table class="list"><caption>{escape(section.title)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cells(tag: str, row: list[str], classes: list[str]) -> str:
    return "".join(f"<{tag}{one}>{text}</{tag}>" for text, one in zip(row, classes, strict=True))
