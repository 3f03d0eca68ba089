"""A report as Markdown, LaTeX, CSV or a Python script: ways to print the rows that the tables print.

Each is a function from a Report to pieces of text, so that a large tensor is never one string.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from normcli import latex as tex
from normcli.digits import aligned
from normcli.errors import InputError
from normcli.report import Section
from normcli.result import Result
from normcli.steps import Trace

_GAP = "..."
_WIDEST, _LONGEST = 10, 40  # columns and rows of a matrix that a page takes
_SCRIPT = 2000  # numbers at most that a script spells out
_ROWS = 4096  # rows of CSV that are written at a time


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is to be said about one input; ``words`` are the verdict of a check and its explanation."""

    result: Result
    x: Any
    only: str | None = None
    headline: str | None = None
    words: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    trace: Trace | None = None
    precision: int = 4


# --- Markdown ---------------------------------------------------------------------------------------


def markdown(report: Report) -> Iterator[str]:
    """Tables as GitHub draws them, numbers flush right, formulas as code."""
    blocks = [f"{text}\n" for text in [report.headline, *report.words] if text]
    yield "\n".join(blocks)
    for index, section in enumerate(report.sections):
        yield "\n" if index or blocks else ""
        yield f"**{_marked(section.title)}**\n\n"
        left = [_is_words(section, column) for column in range(len(section.columns))]
        yield _marked_row([_marked(head) for head in section.columns])
        yield _marked_row([":--" if flush else "--:" for flush in left])
        for row in section.rows:
            formulas = section.part == "trace"
            yield _marked_row([
                f"`{cell.replace('|', '&#124;')}`" if formulas and column in (1, 2) and cell else _marked(cell)
                for column, cell in enumerate(row)
            ])  # fmt: skip


def _marked_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _marked(text: str) -> str:
    """Text with what Markdown would take for markup escaped; a line stays one line."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _is_words(section: Section, column: int) -> bool:
    """Whether a column holds text, and is set flush left."""
    if section.part == "trace" and column == len(section.columns) - 1:
        return False
    return section.text or (column < section.labels and any(c.isalpha() for row in section.rows for c in row[column]))


# --- LaTeX ------------------------------------------------------------------------------------------


def latex(report: Report) -> Iterator[str]:
    """A piece of a document that loads amsmath: the trace as aligned steps, a matrix in brackets, tables."""
    yield "% needs \\usepackage{amsmath}\n"
    for text in [report.headline, *report.words]:
        if text:
            yield f"{tex.escaped(text)}\n\n"
    for section in report.sections:
        if section.part == "trace" and report.trace is not None:
            yield from _aligned(report.trace, report.precision)
        elif section.part == "output":
            yield from _bracketed(section)
        else:
            yield from _tabular(section)


def _aligned(trace: Trace, precision: int) -> Iterator[str]:
    used = {"d": "the centered value", r"\gamma": "weight", r"\beta": "bias", "r": "rstd"}
    texts = " ".join(f"{step.step} {step.formula}" for step in trace.steps)
    names = [
        f"${symbol}$ {word}"
        for symbol, word in used.items()
        if any(name in texts for name, known in tex.SYMBOLS.items() if known == symbol and len(name) > 1)
    ]
    yield f"\\noindent Trace of {tex.escaped(trace.title)}" + (f"; {', '.join(names)}" if names else "") + ".\n"
    yield "\\begingroup\\allowdisplaybreaks\n\\begin{align*}\n"
    for index, step in enumerate(trace.steps):
        yield " \\\\[1ex]\n" if index else ""
        numbers = step.value if isinstance(step.value, list) else [step.value]
        shown = aligned(numbers, precision)
        shown = shown if len(shown) <= 8 else [*shown[:3], _GAP, *shown[-3:]]
        parts = [[tex.formula(step.formula)], tex.lines(step.substituted)]
        parts += [tex.values(shown) if len(shown) > 1 else [tex.number(shown[0])]]
        parts = [part for i, part in enumerate(parts) if not i or part != parts[i - 1]]
        joined = " \\\\\n".join(
            ("  &= " if not line else "  &\\quad ") + text for part in parts for line, text in enumerate(part)
        )
        yield f"{tex.SYMBOLS.get(step.step, tex.escaped(step.step))}\n{joined}"
    yield "\n\\end{align*}\n\\endgroup\n"


def _bracketed(section: Section) -> Iterator[str]:
    rows = [row[section.labels :] for row in section.rows]
    title = section.title
    if len(rows) > _LONGEST or len(rows[0]) > _WIDEST:
        if "edges of" not in title:
            title += f": edges of {len(rows)} x {len(rows[0])} shown"
        rows = [_edges(row, _WIDEST) for row in _edges(rows, _LONGEST)]
    yield f"\\noindent {tex.escaped(title)}\n\\[\n\\left[\\begin{{array}}{{{'r' * len(rows[0])}}}\n"
    yield " \\\\\n".join("  " + " & ".join(_cell(cell, set(row) == {_GAP}) for cell in row) for row in rows)
    yield "\n\\end{array}\\right]\n\\]\n"


def _edges(items: list[Any], most: int) -> list[Any]:
    if len(items) <= most:
        return items
    gap = _GAP if isinstance(items[0], str) else [_GAP] * len(items[0])
    return [*items[:3], gap, *items[-3:]]


def _cell(cell: str, down: bool = False) -> str:
    return (r"\vdots" if down else r"\cdots") if cell == _GAP else tex.number(cell)


def _tabular(section: Section) -> Iterator[str]:
    words = [_is_words(section, column) for column in range(len(section.columns))]
    long = {c for c in range(len(words)) if words[c] and max((len(row[c]) for row in section.rows), default=0) > 40}
    columns = "".join(
        f"p{{{0.7 / len(long):.2f}\\linewidth}}" if c in long else "l" if flush else "r"
        for c, flush in enumerate(words)
    )
    rows = _edges(section.rows, _LONGEST)
    title = section.title if len(rows) == len(section.rows) else f"{section.title}: 6 of {len(section.rows)} shown"
    wide = (
        sum(max(len(row[c]) for row in [section.columns, *rows]) + 2 for c in range(len(words)) if c not in long) > 80
    )
    size = "\\scriptsize\\setlength{\\tabcolsep}{2pt}" if wide else ""
    yield f"\\noindent {tex.escaped(title)}\n\n{{\\medskip\\noindent{size}\n\\begin{{tabular}}{{{columns}}}\n"
    yield "  " + " & ".join(tex.escaped(head) for head in section.columns) + " \\\\\n  \\hline\n"
    for row in rows:
        cells = (tex.escaped(cell) if words[c] else f"${_number(cell)}$" if cell else "" for c, cell in enumerate(row))
        yield "  " + " & ".join(cells) + " \\\\\n"
    yield "\\end{tabular}\n\\medskip}\n\n"


def _number(cell: str) -> str:
    """A number of a table, or the short text that stands in its place."""
    if cell == _GAP:
        return r"\cdots"
    try:
        float(cell)
    except ValueError:
        return rf"\text{{{tex.escaped(cell)}}}"
    return tex.number(cell)


# --- CSV --------------------------------------------------------------------------------------------


def comma_separated(report: Report) -> Iterator[str]:
    """Every number in full: no edges, no rounding; NaN and the infinities by the words that JSON output has.

    A part alone is a table of its own: the output of one or two axes a matrix without a head, as a spreadsheet
    and normcli read it; statistics with a row for each group; the trace with a row for each step. The whole
    result, whose parts differ in shape, has a row for each number: quantity, index (blanks between), value.
    """
    result = report.result
    if report.words or any(section.part in ("check", "versus") for section in report.sections):
        yield from _section_rows(report)
    elif report.trace is not None and report.only in (None, "trace"):
        head = ["step", "formula", "substituted", "value"]
        rows = ([s.step, s.formula, s.substituted, _values(s.value)] for s in report.trace.steps)
        yield from _written([head, *rows])
    elif report.only == "output" and np.ndim(result.output) <= 2:
        yield from _written(_matrix_rows(result.output))
    elif report.only in ("statistics", "running"):
        yield from _written(_columns(result, report.only))
    else:
        named = _quantities(result) if report.only is None else {"output": result.output}
        yield from _written([["quantity", "index", "value"]])
        for name, values in named.items():
            yield from _written(_tidy(name, values))


def _section_rows(report: Report) -> Iterator[str]:
    for section in report.sections:
        yield from _written([section.columns, *section.rows])


def _quantities(result: Result) -> dict[str, Any]:
    names = ("mean", "mean_square", "var", "var_unbiased", "rstd")
    found = {name: getattr(result, name) for name in names if getattr(result, name) is not None}
    if result.plan.track_running_stats:
        found |= {"running_mean": result.after.running_mean, "running_var": result.after.running_var}
        found |= {"num_batches_tracked": np.array(result.after.num_batches_tracked)}
    return found if result.output is None else found | {"output": result.output}


def _columns(result: Result, part: str) -> Iterator[list[str]]:
    """A row for each group of statistics (or channel), its index first."""
    found = {name: values for name, values in _quantities(result).items() if name != "output"}
    running = ("running_mean", "running_var")
    chosen = {name: values for name, values in found.items() if (name in running) == (part == "running")}
    chosen.pop("num_batches_tracked", None)
    arrays = {name: np.atleast_1d(np.asarray(values, np.float64)) for name, values in chosen.items()}
    shape = next(iter(arrays.values())).shape
    yield [*(f"i{axis}" for axis in range(len(shape))), *arrays]
    for index in np.ndindex(shape):
        yield [*map(str, index), *(_value(float(values[index])) for values in arrays.values())]


def _matrix_rows(values: Any) -> Iterator[list[str]]:
    rows = len(values) if np.ndim(values) == 2 else 1
    for start in range(0, rows, _ROWS):
        block = (
            values[slice(start, min(start + _ROWS, rows)), slice(0, np.shape(values)[1])]
            if np.ndim(values) == 2
            else values
        )
        for row in np.atleast_2d(np.asarray(block, np.float64)).tolist():
            yield [_value(number) for number in row]


def _tidy(name: str, values: Any) -> Iterator[list[str]]:
    array = np.asarray(values)
    for index in np.ndindex(array.shape):
        number = array[index]
        text = str(int(number)) if name == "num_batches_tracked" else _value(float(number))
        yield [name, " ".join(map(str, index)), text]


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


# --- Python -----------------------------------------------------------------------------------------


def python(report: Report) -> Iterator[str]:
    """A script that works the output out again in NumPy, a line for each named quantity.

    Raises InputError for more numbers than anybody pastes.
    """
    result, plan = report.result, report.result.plan
    if plan.shape and np.prod(plan.shape) > _SCRIPT:
        raise InputError(
            f"--format python spells every number out, and {int(np.prod(plan.shape))} are too many for a script",
            hint="-o out.npy writes the output to a file, which numpy.load reads",
        )
    names = ["weight", "bias"]
    if plan.source == "running" or plan.updates_running:
        names += ["running_mean", "running_var"]
    given = {"x": report.x} | {name: getattr(result.before, name) for name in names}
    yield f"# {report.headline}\n" if report.headline else ""
    yield "import numpy as np\n\n"
    for name, values in given.items():
        if values is not None:
            yield f"{name} = np.array({_literal(values)})\n"
    yield f"eps = {float(plan.eps)!r}\n\n"
    yield from (f"{line}\n" for line in _formula(result))
    if plan.dtype != "float64":
        yield f"# worked out in float64; normcli rounds the output to {plan.dtype}\n"
    yield "print(output)\n"
    if call := _torch_call(result):
        yield f"\n# With PyTorch, x, weight and the rest being tensors:\n# {call}\n"


def _literal(values: Any) -> str:
    text = repr(np.asarray(values, np.float64).tolist())
    return text.replace("nan", "np.nan").replace("inf", "np.inf")


def _formula(result: Result) -> Iterator[str]:
    plan, layout = result.plan, result.plan.layout
    axes, channels = tuple(layout.axes), tuple(layout.channels_view)
    yield f"x = x.reshape({tuple(layout.view)})  # the axes {axes} share one mean"
    if plan.source == "running":
        yield f"mean, var = running_mean.reshape({channels}), running_var.reshape({channels})"
        yield "centered = x - mean"
    elif plan.kind.centers:
        yield f"mean = x.mean(axis={axes}, keepdims=True)"
        yield "centered = x - mean"
        divisor = (
            f".sum(axis={axes}, keepdims=True) / {layout.count - 1}"
            if plan.ddof
            else f".mean(axis={axes}, keepdims=True)"
        )
        yield f"var = (centered**2){divisor}"
    else:
        yield "centered = x  # RMSNorm leaves the mean out"
        yield f"var = (x**2).mean(axis={axes}, keepdims=True)  # the mean square"
    yield "rstd = 1 / np.sqrt(var + eps)"
    yield "normalized = centered * rstd"
    scaled = f" * weight.reshape({channels})" if result.before.weight is not None else ""
    shifted = f" + bias.reshape({channels})" if result.before.bias is not None else ""
    affine = f"(normalized{scaled}{shifted})" if scaled or shifted else "normalized"
    yield f"output = {affine}.reshape({plan.shape})"
    if plan.updates_running:
        new = plan.new_weight(result.before.num_batches_tracked)
        n, by = layout.count, plan.running_ddof - plan.ddof  # of what is divided by n - ddof already
        ratio = f" * {n - plan.ddof} / {n - plan.running_ddof}" if by else ""
        others = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
        for name, factor in (("mean", ""), ("var", ratio)):
            batch = f"{name}.mean(axis={others}).reshape({plan.weight_shape}){factor}"
            yield f"running_{name} = {1 - new!r} * running_{name} + {new!r} * {batch}"


def _torch_call(result: Result) -> str | None:
    plan = result.plan
    have = {name: name if getattr(result.before, name) is not None else "None" for name in ("weight", "bias")}
    if plan.ddof or plan.layout.channel_axis not in (None, 1) or plan.convention.interleaved_groups:
        return None
    affine, eps = f"{have['weight']}, {have['bias']}", f"eps={float(plan.eps)!r}"
    if plan.kind.name == "layer":
        return f"torch.nn.functional.layer_norm(x, {plan.normalized_shape}, {affine}, {eps})"
    if plan.kind.name == "rms":
        return f"torch.nn.functional.rms_norm(x, {plan.normalized_shape}, {have['weight']}, {eps})"
    if plan.kind.name == "group":
        return f"torch.nn.functional.group_norm(x, {plan.groups}, {affine}, {eps})"
    if plan.kind.name == "instance":
        return f"torch.nn.functional.instance_norm(x, weight={have['weight']}, bias={have['bias']}, {eps})"
    kept = "running_mean, running_var" if plan.source == "running" else "None, None"
    return f"torch.nn.functional.batch_norm(x, {kept}, {affine}, training={plan.source == 'batch'}, {eps})"


FORMATTERS: Mapping[str, Callable[[Report], Iterator[str]]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "python": python,
}
