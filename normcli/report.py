"""A Result as rows of text, built once; tables, Markdown and the rest are ways to print rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.digits import aligned, computed, short, written
from normcli.plan import Plan
from normcli.result import Result
from normcli.steps import Trace
from normcli.stored import Stored

_THRESHOLD = 1000  # elements; a larger tensor is shown by its edges, as NumPy does
_EDGE = 3
_GAP = "..."


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table: its part of the result, a title, column heads and rows of finished text.

    ``labels`` is the number of leading columns that name a row; ``text`` says that the cells are
    formulas, to be set flush left and folded at blanks where the terminal is narrow.
    """

    part: str  # what --only calls it: statistics, running, output, trace
    title: str
    columns: list[str]
    rows: list[list[str]]
    labels: int = 1
    text: bool = False


def headline(result: Result) -> str:
    """What was computed, in one line: every choice that shaped the numbers.

    >>> from normcli.calculate import normalize
    >>> headline(normalize([[1.0, 2, 4]], "layer"))
    'LayerNorm  (1, 3) float64  mean over axis 1, n = 3  eps 1e-05  torch convention  numpy on cpu'
    """
    plan, layout = result.plan, result.plan.layout
    axes = layout.reported_axes
    over = f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(str(axis) for axis in axes)}" if axes else "nothing"
    what = "mean" if plan.kind.centers else "mean square"
    parts = [
        plan.kind.title + (f", {plan.mode}" if plan.kind.has_running_stats else ""),
        f"{plan.shape} {plan.dtype}",
        f"{what} over {over}, n = {layout.count}" if plan.source == "batch" else "running statistics",
        f"eps {short(plan.eps)}",
    ]
    if plan.groups is not None:
        parts.append(f"{plan.groups} groups")
    if plan.ddof:
        parts.append("variance divided by n - 1")
    if plan.updates_running:
        momentum = "none (cumulative average)" if plan.momentum is None else written(plan.momentum)
        parts.append(f"momentum {momentum}" + ("" if plan.momentum is None else " (weight of the new batch)"))
    if not plan.affine:
        parts.append("no affine")
    return "  ".join([*parts, f"{plan.convention.name} convention", f"{result.backend} on {result.device}"])


def sections(result: Result, trace: Trace | None, precision: int, *, full: bool = False) -> list[Section]:
    """The tables of a result in the order of the calculation; the trace, if any, first.

    Large tensors are shown by their edges, unless in ``full``.
    """
    most = sys.maxsize if full else _THRESHOLD
    tables = [] if trace is None else [_trace(trace, precision)]
    tables.append(_statistics(result, precision, most))
    if result.plan.track_running_stats:
        tables.append(_running(result, precision, most))
    if result.output is None:  # it was not asked for
        return tables
    output = result.output if isinstance(result.output, Stored) else np.asarray(result.output)
    return [*tables, *_output(output, precision, most)]


def _trace(trace: Trace, precision: int) -> Section:
    return Section(
        part="trace",
        title=f"trace of {trace.title}",
        columns=["step", "formula", "with the numbers", "value"],
        rows=[[step.step, step.formula, step.substituted, _value(step.value, precision)] for step in trace.steps],
        text=True,
    )


def _value(value: float | list[float], precision: int) -> str:
    if not isinstance(value, list):
        return aligned([value], precision)[0]
    texts = [computed(number, precision) for number in value]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:_EDGE], _GAP, *texts[-_EDGE:]])


def _statistics(result: Result, precision: int, most: int) -> Section:
    plan = result.plan
    names = ["mean", "var", "var_unbiased", "rstd"] if plan.kind.centers else ["mean_square", "rstd"]
    names = [name for name in names if getattr(result, name) is not None]
    columns = {name: np.atleast_1d(np.asarray(getattr(result, name))) for name in names}
    return _listed("statistics", _statistics_title(result), _group_words(plan), columns, precision, most)


def _statistics_title(result: Result) -> str:
    source = "of the input" if result.plan.source == "batch" else "running, as given"
    return f"statistics ({source})"


def _running(result: Result, precision: int, most: int) -> Section:
    before, after = result.before, result.after
    columns: dict[str, Any] = {}
    for name in ("running_mean", "running_var"):
        if result.plan.updates_running:
            columns[f"{name} before"] = getattr(before, name)
            columns["after" if name == "running_mean" else "after "] = getattr(after, name)
        else:
            columns[name] = getattr(after, name)
    tracked = f"{before.num_batches_tracked} -> {after.num_batches_tracked}"
    title = (
        f"running statistics, batches tracked {tracked if result.plan.updates_running else after.num_batches_tracked}"
    )
    return _listed("running", title, ["channel"], columns, precision, most)


def _group_words(plan: Plan) -> list[str]:
    """What the axes of the statistics' shape are called."""
    words = {"batch": ["channel"], "instance": ["sample", "channel"], "group": ["sample", "group"]}
    rank = max(1, len(plan.layout.stats_shape))
    return words.get(plan.kind.name) or (["row"] if rank == 1 else [f"axis {axis}" for axis in range(rank)])


def _listed(part: str, title: str, words: list[str], columns: dict[str, Any], precision: int, most: int) -> Section:
    """One row for each group of statistics, its index first; the middle of a long list left out."""
    shape = next(iter(columns.values())).shape
    flat = {name: np.asarray(values, np.float64).ravel() for name, values in columns.items()}
    size = len(next(iter(flat.values())))
    shown = list(range(size)) if size <= most // 10 else [*range(_EDGE), *range(size - _EDGE, size)]
    texts = [aligned(values[shown], precision) for values in flat.values()]
    rows = [
        [*(str(int(i)) for i in np.unravel_index(place, shape)), *cells]
        for place, *cells in zip(shown, *texts, strict=True)
    ]
    if len(shown) < size:
        rows.insert(_EDGE, [_GAP] * len(rows[0]))
        title += f": 6 of {size} shown"
    heads = [name.strip() for name in columns]
    return Section(part=part, title=title, columns=[*words, *heads], rows=rows, labels=len(words))


def _output(output: NDArray[Any] | Stored, precision: int, most: int) -> Iterator[Section]:
    """The output as 2-D slices over its last two axes; large tensors by their edges."""
    shape = output.shape
    large = output.size > most
    edges = [_edge_indices(size) if large else [*range(size)] for size in shape]
    matrix: list[list[int | None]] = edges[-2:] if len(shape) > 1 else [[0], edges[-1]]
    note = f": edges of {' x '.join(str(size) for size in shape)} shown" if large else ""
    for leading in product(*edges[:-2]):
        if None in leading:
            continue
        at = "".join(f"{i}, " for i in leading)
        title = f"output[{at}:, :]" if leading else "output"
        kept = [[i for i in axis if i is not None] for axis in matrix]
        if isinstance(output, Stored) and large:
            values = output.gathered([*([i] for i in leading), *kept[2 - min(2, len(shape)) :]])
        else:
            whole = np.asarray(output)
            values = (whole[leading] if leading else whole).reshape(-1, shape[-1])[np.ix_(*kept)]
        yield _matrix(title + note, values, matrix, precision, numbered=len(shape) > 1)


def _matrix(
    title: str, values: NDArray[Any], edges: list[list[int | None]], precision: int, *, numbered: bool
) -> Section:
    rows, columns = edges
    texts = iter(aligned(values.astype(np.float64).ravel(), precision))
    body = [
        [_GAP if i is None else str(i) if numbered else "", *(_GAP if None in (i, j) else next(texts) for j in columns)]
        for i in rows
    ]
    heads = [_GAP if j is None else str(j) for j in columns]
    return Section(part="output", title=title, columns=["", *heads], rows=body)


def _edge_indices(size: int) -> list[int | None]:
    return list(range(size)) if size <= 2 * _EDGE else [*range(_EDGE), None, *range(size - _EDGE, size)]
