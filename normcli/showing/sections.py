"""What a report says as rows of text, made once; the formats are ways to print rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normcli.digits import aligned, common, computed, decimal, notation, short, written
from normcli.errors import InputError
from normcli.files.stored import Stored
from normcli.planning.kinds import GRADIENTS, PARAMETERS
from normcli.showing import check, versus
from normcli.showing.report import BLOCK, Detail, Report, Rows, Section
from normcli.words import count

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.planning.plan import Plan
    from normcli.teaching.trace import Trace

_THRESHOLD = 1000  # elements; a larger tensor is shown by its edges, as NumPy does
_EDGE = 3
_GAP = "..."


def refuse_missing(report: Report, detail: Detail) -> None:
    """Refuse a part that is asked for alone and is not there."""
    if detail.only == "running" and report.result is not None and not report.result.plan.track_running_stats:
        raise InputError("there are no running statistics to show", hint="they come with --track-running-stats")
    if detail.only == "statistics" and report.result is not None and not report.result.statistics():
        raise InputError(f"there are no statistics to show: {report.result.plan.kind.title} has none of a group")
    if detail.only in GRADIENTS and report.result is not None:
        tensor(report.result, detail.only)


def tensor(result: Result, name: str) -> Any:
    """The output, or the gradient of that name; InputError where the layer has none."""
    found = getattr(result, name)
    if found is None and name in GRADIENTS:
        word = name.removeprefix("grad_")
        raise InputError(f"there is no {name}: this {result.plan.kind.title} has no {word}")
    return found


def heading(report: Report, detail: Detail, joint: str = "  ") -> str:
    """What stands above everything; nothing above one part alone."""
    if report.result is None or detail.only is not None:
        return report.headline or report.file
    return headline(report.result).replace("  ", joint)


def words(report: Report) -> list[str]:
    """The verdict of a check and its explanation, and whatever else is said in words."""
    judged = [] if report.check is None else [check.verdict(report.check), *check.explanation(report.check)]
    return [*judged, *report.words]


def checked(report: Report, detail: Detail) -> list[Section]:
    """The table of a checked answer: the cells that differ, or all; none where there is nothing to see."""
    found = report.check
    if found is None or ((found.ok or found.turned) and not detail.cells):
        return []
    return [check.section(found, everything=detail.cells)]


def sections(report: Report, detail: Detail) -> list[Section]:
    """The tables that are asked for, but for that of a check: of a result, of what it is compared with, and others."""
    part = detail.part(report)
    parts = [] if report.result is None else [*_of_result(report.result, report.trace, detail)]
    return [
        *(section for section in parts if part in (None, section.part)),
        *versus.sections(report.comparisons),
        *report.sections,
    ]


def headline(result: Result) -> str:
    """What was computed, in one line: every choice that shaped the numbers.

    >>> from normcli.calculate import normalize
    >>> headline(normalize([[1.0, 2, 4]], "layer"))
    'LayerNorm  (1, 3) float64  mean over axis 1, n = 3  eps 1e-05  torch convention  numpy on cpu'
    """
    plan, layout = result.plan, result.plan.layout
    axes = layout.reported_axes
    over = f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(str(axis) for axis in axes)}" if axes else "nothing"
    if plan.is_free:
        return "  ".join(_free(result, over))
    what = "mean" if plan.kind.centers else "mean square"
    parts = [
        plan.kind.title + (f", {plan.mode}" if plan.kind.has_running_stats else ""),
        f"{plan.shape} {plan.dtype}",
        f"{what} over {over}, n = {layout.count}" if plan.source == "batch" else "running statistics",
        f"eps {short(plan.eps)}",
    ]
    if plan.groups is not None:
        parts.append(f"{plan.groups} groups")
    if plan.renorm:
        parts.append(f"renorm, r up to {short(plan.rmax)}, d up to {short(plan.dmax)}")
    if plan.virtual_batch:
        parts.append(f"virtual batches of {count(plan.virtual_batch, 'sample')}")
    if plan.ranks:
        parts.append(f"{len(plan.ranks)} ranks, of {' + '.join(map(str, plan.ranks))} samples")
    if plan.ddof:
        parts.append("variance divided by n - 1")
    if plan.updates_running:
        momentum = "none (cumulative average)" if plan.momentum is None else written(plan.momentum)
        parts.append(f"momentum {momentum}" + ("" if plan.momentum is None else " (weight of the new batch)"))
    if plan.weight_offset:
        parts.append(f"weight offset {plan.weight_offset}")
    if plan.cast:
        parts.append(f"cast to {plan.cast} before the weight")
    if not plan.affine:
        parts.append("no affine")
    return "  ".join([*parts, f"{plan.convention.name} convention", f"{result.backend} on {result.device}"])


def _free(result: Result, over: str) -> Iterator[str]:
    """The headline of a formula over any axes."""
    plan = result.plan
    yield plan.kind.title
    yield f"{plan.shape} {plan.dtype}"
    if plan.layout.axes:
        yield f"over {over}, n = {plan.layout.count}"
    for name, value in plan.options().items():
        if isinstance(value, float | int | str) and name not in ("lines", "channel_axis"):
            yield f"{name} {value if isinstance(value, str) else short(value)}"
    if plan.convention.source:
        yield f"{plan.convention.name} convention"
    yield f"{result.backend} on {result.device}"


def _of_result(result: Result, trace: Trace | None, detail: Detail) -> Iterator[Section]:
    """The tables of a result in the order of the calculation; the trace, if any, first.

    Large tensors are shown by their edges, unless in full.
    """
    most = sys.maxsize if detail.full else _THRESHOLD
    if trace is not None:
        yield traced(trace, detail.precision, full=detail.full)
    yield from (
        _free_statistics(result, detail, most) if result.plan.is_free else [_statistics(result, detail.precision, most)]
    )
    if result.plan.merges:
        yield _ranks(result, detail.precision, most)
    if result.plan.track_running_stats:
        yield _running(result, detail.precision, most)
    yield from _by_rank("output", result, detail, most)
    if result.plan.is_free:
        for name in result.gradients().keys() - {"grad_input"}:
            yield from _matrices(name, result.named[name], detail.precision, most)
    elif result.gradients().keys() & set(PARAMETERS):
        yield _parameters(result, detail, most)
    yield from _by_rank("grad_input", result, detail, most)


def traced(trace: Trace, precision: int, *, full: bool) -> Section:
    """The table of a trace."""
    return Section(
        part="trace",
        title=f"trace of {trace.title}",
        columns=["step", "formula", "with the numbers", "value"],
        rows=[
            [step.step, step.formula, step.substituted, _value(step.value, precision, full=full)]
            for step in trace.steps
        ],
        text=True,
    )


def _value(value: float | list[float], precision: int, *, full: bool) -> str:
    if not isinstance(value, list):
        return aligned([value], precision)[0]
    one = notation(value, precision)
    shown = value if full or len(value) <= 8 else [*value[:_EDGE], *value[-_EDGE:]]
    return ", ".join(_gapped([computed(number, one) for number in shown], len(value)))


def _statistics(result: Result, precision: int, most: int) -> Section:
    plan = result.plan
    columns = {name: np.atleast_1d(np.asarray(values)) for name, values in result.statistics().items()}
    return _listed("statistics", _statistics_title(result), _group_words(plan), columns, precision, most)


def _free_statistics(result: Result, detail: Detail, most: int) -> Iterator[Section]:
    """A table for the names of each shape, by the axes that they vary over."""
    tables: dict[tuple[int, ...], dict[str, Any]] = {}
    for name, values in result.statistics().items():
        tables.setdefault(result.plan.span(name), {})[name] = np.atleast_1d(np.asarray(values))
    for span, columns in tables.items():
        words = [f"axis {axis}" for axis in span] or [""]
        yield _listed("statistics", "statistics", words, columns, detail.precision, most)


def _statistics_title(result: Result) -> str:
    own = "of all ranks, merged by their counts" if result.plan.merges else "of the input"
    source = own if result.plan.source == "batch" else "running, as given"
    return f"statistics ({source})"


def _ranks(result: Result, precision: int, most: int) -> Section:
    """What each rank has by itself, beside that of all."""
    own = {name.removeprefix("rank_"): values for name, values in result.of_ranks().items()}
    shape = own["mean"].shape
    own["n"] = np.repeat(own["n"], shape[1]).reshape(shape)
    pooled = {f"{name} of all": np.broadcast_to(getattr(result, name), shape) for name in ("mean", "var")}
    return _listed("statistics", "statistics of each rank", ["rank", "channel"], own | pooled, precision, most)


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
    rank = max(1, len(plan.layout.stats_shape))
    return list(plan.group_words) or (["row"] if rank == 1 else [f"axis {axis}" for axis in range(rank)])


def _listed(part: str, title: str, words: list[str], columns: dict[str, Any], precision: int, most: int) -> Section:
    """One row for each group of statistics, its index first; the middle of a long list left out."""
    shape = next(iter(columns.values())).shape
    flat = [np.asarray(values, np.float64).ravel() for values in columns.values()]
    size = len(flat[0])
    edges = size > most // 10
    shown = np.array(edge_indices(size)) if edges else np.arange(size)
    decimals = [0 if name == "n" else precision for name in columns]  # a count is whole
    notations = [
        _notation(_telling(name, values[shown], each), each)
        for name, values, each in zip(columns, flat, decimals, strict=True)
    ]

    def write(start: int, stop: int) -> list[list[str]]:
        places = shown[start:stop]
        texts = [_texts(values[places], notation) for values, notation in zip(flat, notations, strict=True)]
        indices = [map(str, index.tolist()) for index in np.unravel_index(places, shape)]
        return [list(row) for row in zip(*indices, *texts, strict=True)]

    heads = [*words, *(name.strip() for name in columns)]
    rows = _rows(len(shown), len(heads), write)
    if edges and isinstance(rows, list):
        rows.insert(_EDGE, [_GAP] * len(heads))
        title += f": {len(shown)} of {size} shown"
    return Section(part=part, title=title, columns=heads, rows=rows, labels=len(words))


def _parameters(result: Result, detail: Detail, most: int) -> Section:
    """The gradients of weight and bias, side by side, or the one that is asked for alone."""
    wanted, part = ((detail.only,), detail.only) if detail.only in PARAMETERS else (PARAMETERS, "gradients")
    columns = {name: np.asarray(values) for name, values in result.gradients().items() if name in wanted}
    layout = result.plan.layout
    words = ["channel"] if layout.channel_axis is not None else [f"axis {axis}" for axis in layout.channels]
    if layout.is_per_sample:
        words = ["sample", *words[layout.channel_axis is None :]]
    title = f"gradients of {' and '.join(name.removeprefix('grad_') for name in columns)}"
    return _listed(part, title, words, columns, detail.precision, most)


def _by_rank(name: str, result: Result, detail: Detail, most: int) -> Iterator[Section]:
    """A tensor of the input's shape, that of each rank by itself where several share a batch."""
    parts = result.by_rank(name)
    for rank, part in enumerate(parts):
        of_rank = f" of rank {rank}" if result.plan.ranks else ""
        yield from _matrices(name, part, detail.precision, most, of_rank)


def _matrices(name: str, output: Any, precision: int, most: int, of_rank: str = "") -> Iterator[Section]:
    """A tensor as 2-D slices over its last two axes, large tensors by their edges; nothing of one not asked for."""
    if output is None:
        return
    output = output if isinstance(output, Stored) else np.asarray(output)
    shape = output.shape
    large = output.size > most
    kept = [edge_indices(size) if large else [*range(size)] for size in shape]
    whole = output if isinstance(output, Stored) and large else np.asarray(output)
    note = of_rank + _left_out(shape, kept)
    for leading in product(*kept[:-2]):
        at = "".join(f"{i}, " for i in leading)
        title = f"{name}[{at}:, :]" if leading else name
        lines = kept[-2] if len(shape) > 1 else [0]
        if isinstance(whole, Stored):
            values = whole.gathered([*([i] for i in leading), *kept[-2:]]).reshape(len(lines), -1)
        else:
            values = (whole[leading] if leading else whole).reshape(-1, shape[-1])
            values = values[np.ix_(lines, kept[-1])] if large else values
        labels = [str(i) for i in lines] if len(shape) > 1 else [""]
        yield _matrix(name, title + note, values, labels, [str(j) for j in kept[-1]], shape, precision)
        note = of_rank  # what is left out is said once


def _left_out(shape: tuple[int, ...], kept: list[list[int]]) -> str:
    """What is not shown of a tensor, in words; nothing where all of it is."""
    size, shown = math.prod(shape), math.prod(map(len, kept))
    if shown == size:
        return ""
    return f": edges of {' x '.join(map(str, shape))} shown, {size - shown} of {size} elements left out (see --full)"


def _matrix(
    name: str,
    title: str,
    values: NDArray[Any],
    lines: list[str],
    columns: list[str],
    shape: tuple[int, ...],
    precision: int,
) -> Section:
    """The values that are shown, with a row and a column of dots where others of the tensor are left out."""
    notation = _notation(values, precision)

    def write(start: int, stop: int) -> list[list[str]]:
        texts = iter(_texts(values[start:stop], notation))
        return [[line, *_gapped([next(texts) for _ in columns], shape[-1])] for line in lines[start:stop]]

    heads = ["", *_gapped(columns, shape[-1])]
    rows = _rows(len(lines), len(heads), write)
    if len(shape) > 1 and len(lines) < shape[-2] and isinstance(rows, list):
        rows.insert(_EDGE, [_GAP] * len(heads))
    return Section(part=name, title=title, columns=heads, rows=rows)


def _gapped(cells: list[str], size: int) -> list[str]:
    """The cells, with dots in the middle where they are fewer than there should be."""
    return cells if len(cells) == size else [*cells[:_EDGE], _GAP, *cells[_EDGE:]]


def edge_indices(size: int) -> list[int]:
    """The places along an axis that are shown of a large tensor.

    >>> edge_indices(9)
    [0, 1, 2, 6, 7, 8]
    """
    return [*range(size)] if size <= 2 * _EDGE else [*range(_EDGE), *range(size - _EDGE, size)]


def _rows(count: int, width: int, write: Callable[[int, int], list[list[str]]]) -> list[list[str]] | Rows:
    """The rows of a table, written once where they are few."""
    return write(0, count) if count * width <= BLOCK else Rows(count, width, write)


def _notation(values: NDArray[Any], precision: int) -> str:
    sizes = np.abs(values[np.isfinite(values)])
    return common(float(sizes.max()) if sizes.size else 0.0, precision)


def _telling(name: str, values: NDArray[Any], precision: int) -> NDArray[Any]:
    """The values that settle a column's notation: an rstd is never 0, and must not look as if it were."""
    small = values[(values > 0) & (values < 0.5 * 10.0**-precision)] if name == "rstd" else values[:0]
    return small if small.size else values


def _texts(values: NDArray[Any], notation: str) -> list[str]:
    return [decimal(value, notation) for value in values.astype(np.float64).ravel().tolist()]
