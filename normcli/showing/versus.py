"""Calculations compared with one another, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from normcli.planning.conventions import OWN
from normcli.showing.report import Section

if TYPE_CHECKING:
    from normcli.teaching.versus import Comparison, Difference, Option


def sections(comparisons: Sequence[Comparison]) -> list[Section]:
    """The differences as a table, one row for each quantity, and the causes in words."""
    if not comparisons:
        return []
    rows = [row for comparison in comparisons for row in _rows(comparison)]
    table = Section(
        part="versus",
        title="versus",
        columns=["versus", "quantity", "max abs", "max rel", "max ulp", "> 1 ulp", "at", "reference", "there"],
        rows=rows,
        labels=2,
    )
    words = [
        [comparison.name, text]
        for comparison in comparisons
        for text in [*(_option_text(option, comparison) for option in comparison.options),
                     *(text for key, text in comparison.causes if key not in _names(comparison))]
    ]  # fmt: skip
    cells = [
        [comparison.name, _place(at), f"{reference:.9g}", f"{other:.9g}", f"{units:.3g}"]
        for comparison in comparisons
        for at, reference, other, units in comparison.output.cells
    ]
    heads = ["versus", "at", "reference", "there", "ulp"]
    worst = Section(part="versus", title="output cells that differ by more than 1 ulp, the worst first", columns=heads,
                    rows=cells)  # fmt: skip
    causes = Section(part="versus", title="why", columns=["versus", "cause"], rows=words, labels=1, text=True)
    return [table, *([worst] if cells else []), *([causes] if words else [])]


def documents(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The JSON key ``versus``: a dict for each comparison."""
    return [
        {
            "name": comparison.name,
            "backend": comparison.backend,
            "device": comparison.device,
            "dtype": comparison.dtype,
            "convention": comparison.convention,
            **_plain(comparison.output),
            "running": {name: _plain(difference) for name, difference in comparison.running.items()} or None,
            **({"gradients": {n: _plain(d) for n, d in comparison.gradients.items()}} if comparison.gradients else {}),
            "options": [vars(option) for option in comparison.options],
            "causes": [{"key": key, "text": text} for key, text in comparison.causes],
        }
        for comparison in comparisons
    ]


def _plain(difference: Difference) -> dict[str, Any]:
    cells = [
        {"at": list(at), "reference": reference, "other": other, "ulp": units}
        for at, reference, other, units in difference.cells
    ]
    return vars(difference) | {"at": list(difference.at), "cells": cells}


def _rows(comparison: Comparison) -> Iterator[list[str]]:
    for name, difference in comparison.quantities.items():
        is_tensor = name in ("output", "grad_input")
        beyond = f"{difference.beyond_one_ulp} of {comparison.size}" if is_tensor else ""
        yield [
            comparison.name,
            name,
            f"{difference.max_abs:.3g}",
            f"{difference.max_rel:.3g}",
            f"{difference.max_ulp:.3g}" if is_tensor else "",
            beyond,
            _place(difference.at) if difference.max_abs else "",
            f"{difference.reference:.9g}",
            f"{difference.other:.9g}",
        ]


def _place(index: tuple[int, ...]) -> str:
    return f"({', '.join(str(i) for i in index)})"


def _names(comparison: Comparison) -> set[str]:
    return {option.name for option in comparison.options}


def _option_text(option: Option, comparison: Comparison) -> str:
    changes = {"output": option.output, "running statistics": option.running}
    effects = [f"{what} by {size:.3g}" for what, size in changes.items() if size]
    meaning = dict(comparison.causes).get(option.name)  # only what has an effect is a cause
    moves = f"moves the {' and the '.join(effects)}."
    effect = " ".join(filter(None, (moves, meaning))) if effects else "no effect here."
    there = comparison.name if comparison.convention == OWN.name else comparison.convention
    return f"{option.name} is {option.here} here, {option.there} in {there}: {effect}"
