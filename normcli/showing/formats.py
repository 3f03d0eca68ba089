"""A report as Markdown, LaTeX, CSV or a Python script: ways to print the rows that the tables print.

Each is a function from a Report to pieces of text, so that a large tensor is never one string.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.arithmetic.result import Result
from normcli.digits import aligned
from normcli.errors import InputError
from normcli.formula import tex
from normcli.showing.panels import cut
from normcli.showing.report import Section
from normcli.teaching.trace import Step, Trace

if TYPE_CHECKING:
    from normcli.teaching.verdict import Check
    from normcli.teaching.versus import Comparison

_GAP = "..."
_WIDEST, _LONGEST = 10, 40  # columns and rows of a matrix that a page takes
_ACROSS, _SMALL = 62, 86  # characters that stand side by side there, in brackets and in a table of small type
_SCRIPT = 2000  # numbers at most that a script spells out
_ROWS = 256  # rows of CSV that are written at a time
_NUMBERS = 2**14  # numbers of a matrix that are text at a time
_MEASURES = ("max_abs", "max_rel", "max_ulp", "beyond_one_ulp", "at", "reference", "other")


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
    check: Check | None = None
    comparisons: Sequence[Comparison] = ()
    number: int | None = None  # of the input, where there are several
    precision: int = 4
    full: bool = False


# --- Markdown ---------------------------------------------------------------------------------------


def markdown(report: Report) -> Iterator[str]:
    """Tables as GitHub draws them, numbers flush right, formulas as code."""
    blocks = [f"{_marked(text)}\n" for text in [report.headline, *report.words] if text]
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
    """A piece of a document that loads amsmath: the trace as aligned steps, a matrix in brackets, tables.

    All of it fits the column of an article: what is larger is shown by its edges, or cut into pieces
    in a full report.
    """
    yield "% needs \\usepackage{amsmath}\n"
    for text in [report.headline, *report.words]:
        if text:
            yield f"\\noindent {tex.escaped(text)}\\par\\medskip\n"
    for section in report.sections:
        if section.part == "trace" and report.trace is not None:
            yield from _aligned(report.trace, report.precision, full=report.full)
        elif section.part == "output":
            yield from _bracketed(section, full=report.full)
        else:
            yield from _tabular(section, full=report.full)


def _aligned(trace: Trace, precision: int, *, full: bool) -> Iterator[str]:
    words = {"centered": "the centered value", "weight": "weight", "bias": "bias", "rstd": "rstd", "m": "momentum"}
    texts = " ".join(step.formula for step in trace.steps)
    names = [f"${tex.SYMBOLS[name]}$ {word}" for name, word in words.items() if re.search(rf"\b{name}\b", texts)]
    yield f"\\noindent Trace of {tex.escaped(trace.title)}" + (f"; {', '.join(names)}" if names else "") + ".\n"
    yield "\\begingroup\\allowdisplaybreaks\n\\begin{align*}\n"
    for index, step in enumerate(trace.steps):
        yield " \\\\[1ex]\n" if index else ""
        yield f"{tex.SYMBOLS.get(step.step, tex.escaped(step.step))}\n"
        yield _stacked(_sides(step, precision, full=full))
    yield "\n\\end{align*}\n\\endgroup\n"


def _sides(step: Step, precision: int, *, full: bool) -> Iterator[tuple[str, list[str]]]:
    """What a step's symbol is equal to: its formula, the numbers filled in, and the value, or nearly."""
    numbers = step.value if isinstance(step.value, list) else [step.value]
    shown = aligned(numbers, precision)
    exact = all(
        number != number or math.isclose(float(text), number, rel_tol=1e-12)
        for text, number in zip(shown, numbers, strict=True)
    )
    shown = shown if full or len(shown) <= 8 else [*shown[:3], _GAP, *shown[-3:]]
    value = tex.values(shown) if len(shown) > 1 else [tex.number(shown[0])]
    yield "=", [tex.formula(step.tree)]
    if (substituted := tex.lines(step.filled)) != value:
        yield "=", substituted
    yield "=" if exact else r"\approx", value


def _stacked(sides: Iterable[tuple[str, list[str]]]) -> str:
    """The sides of an equation, on one line as far as they fit it, else below one another."""
    lines: list[str] = []
    for relation, (first, *more) in sides:
        longer = f"{lines[-1]} {relation} {first}" if lines else ""
        chained = not more and r",\;" not in longer and r"\quad" not in longer  # a list is a line of its own
        if lines and chained and tex.width(longer) <= tex.LINE:
            lines[-1] = longer
        else:
            lines += [f"  &{relation} {first}", *(rf"  &\quad {line}" for line in more)]
    ends = [r" \\[0.5ex]" if r"\frac" in line else r" \\" for line in lines[:-1]]
    return "\n".join(f"{line}{end}" for line, end in zip(lines, [*ends, ""], strict=True))


def _bracketed(section: Section, *, full: bool) -> Iterator[str]:
    section = replace(section, rows=[*section.rows]) if full else _edges(section)
    for panel in cut(section, _room(section, _ACROSS)):
        for rows in _pages(panel):
            heads = panel.columns[1:]
            columns = f", columns {heads[0]} to {heads[-1]}" if len(heads) < len(section.columns) - 1 else ""
            lines = f", rows {rows[0][0]} to {rows[-1][0]}" if len(rows) < len(panel.rows) else ""
            yield f"\\noindent {tex.escaped(section.title + columns + lines)}\n"
            yield f"\\[\n\\left[\\begin{{array}}{{{'r' * len(heads)}}}\n"
            yield " \\\\\n".join("  " + " & ".join(_cell(cell, set(row) == {_GAP}) for cell in row[1:]) for row in rows)
            yield "\n\\end{array}\\right]\n\\]\n"


def _edges(section: Section) -> Section:
    """The section by its edges, as a page takes it, with what is left out said in words."""
    rows = [*section.rows]
    height, width = len(rows), len(section.columns) - section.labels
    across = width if section.part == "output" and width > _WIDEST else 0  # only a matrix is cut across
    if height <= _LONGEST and not across:
        return replace(section, rows=rows)
    columns = [*range(section.labels + 3), None, *range(-3, 0)] if across else [*range(len(section.columns))]
    lines: list[int | None] = [0, 1, 2, None, -3, -2, -1] if height > _LONGEST else [*range(height)]
    said = f": 6 of {height} shown"
    if section.part == "output":
        shown = (height if height <= _LONGEST else 6) * (6 if across else width)
        said = f": edges of {height} x {width} shown, {height * width - shown} of {height * width} elements left out"
    return replace(
        section,
        title=f"{section.title}{said} (see --full)",
        columns=[_GAP if j is None else section.columns[j] for j in columns],
        rows=[[_GAP if i is None or j is None else rows[i][j] for j in columns] for i in lines],
    )


def _pages(section: Section) -> Iterator[list[list[str]]]:
    rows = iter(section.rows)
    while page := list(islice(rows, _LONGEST)):
        yield page


def _room(section: Section, characters: int) -> int:
    """How many characters of the section fit: powers of ten are wider than they are written."""
    powers = any(re.search("[0-9]e[-+]", cell) for row in islice(section.rows, _LONGEST) for cell in row)
    return characters * 3 // 4 if powers else characters


def _cell(cell: str, down: bool = False) -> str:
    return (r"\vdots" if down else r"\cdots") if cell == _GAP else tex.number(cell)


def _tabular(section: Section, *, full: bool) -> Iterator[str]:
    words = [_is_words(section, column) for column in range(len(section.columns))]
    rows = [*section.rows]
    if any(flush and max((len(row[c]) for row in rows), default=0) > 40 for c, flush in enumerate(words)):
        yield from _table(section.title, section.columns, rows, words)
        return
    section = replace(section, rows=rows) if full else _edges(section)
    for panel in cut(section, _room(section, _SMALL), gutter=1):
        flush = [words[section.columns.index(head)] for head in panel.columns]
        for at, page in enumerate(_pages(panel)):
            yield from _table(f"{panel.title}, continued" if at else panel.title, panel.columns, page, flush)


def _table(title: str, heads: list[str], rows: list[list[str]], words: list[bool]) -> Iterator[str]:
    widest = [max(len(row[c]) for row in [heads, *rows]) + 2 for c in range(len(heads))]
    long = {c for c in range(len(heads)) if words[c] and widest[c] > 42}
    columns = "".join(
        f"p{{{0.7 / len(long):.2f}\\linewidth}}" if c in long else "l" if flush else "r"
        for c, flush in enumerate(words)
    )
    wide = sum(widest[c] for c in range(len(heads)) if c not in long) > 66
    size = "\\scriptsize\\setlength{\\tabcolsep}{2pt}" if wide else ""
    yield f"\\noindent {tex.escaped(title)}\\par\\nobreak\\smallskip\n"
    yield f"{{\\noindent{size}\n\\begin{{tabular}}{{{columns}}}\n"
    yield "  " + " & ".join(tex.escaped(head) for head in heads) + " \\\\\n  \\hline\\rule{0pt}{2.6ex}%\n"
    for row in rows:
        cells = (tex.escaped(cell) if words[c] else f"${_number(cell)}$" if cell else "" for c, cell in enumerate(row))
        yield "  " + " & ".join(cells) + " \\\\\n"
    yield "\\end{tabular}\\par}\\medskip\n"


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
    and normcli read it; statistics with a row for each group; the trace with a row for each step; a checked
    answer with a row for each cell, a comparison with a row for each quantity. The whole result, whose parts
    differ in shape, has a row for each number: quantity, index (blanks between), value. A checked answer and
    a comparison stand before a part that is asked for beside them, with a blank line between. Several inputs
    make one table, their number in the first column.
    """
    tables = list(_tables(report))
    if report.number is not None and len(tables) == 1:  # one table goes through all the inputs
        ((head, rows),) = tables
        yield from _written([["input", *head]] if report.number == 0 else [])
        yield from _written([str(report.number), *row] for row in rows)
        return
    for index, (head, rows) in enumerate(tables):
        yield "\n" if index or report.number else ""
        yield from _written(chain([head] if head else [], rows))


def _tables(report: Report) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The head and the rows of each table: what is said of the result, then the part of it that is asked for."""
    if report.check is not None:
        yield ["quantity", "index", "yours", "exact", "difference", "allowed", "ok"], _checked_rows(report.check)
    if report.comparisons:
        yield ["versus", "quantity", *_MEASURES], _compared_rows(report.comparisons)
    part = report.only not in (None, "trace") or report.trace is not None
    if part or not (report.check is not None or report.comparisons):
        yield _part(report)


def _part(report: Report) -> tuple[list[str], Iterator[list[str]]]:
    """The head, empty for a matrix, and the rows of the part that is asked for, or of the whole result."""
    result = report.result
    if report.only == "output" and report.number is None and np.ndim(result.output) <= 2:
        return [], _matrix_rows(result.output)
    if report.trace is not None and report.only in (None, "trace"):
        steps = report.trace.steps
        rows = ([step.step, step.formula, step.substituted, _values(step.value)] for step in steps)
        return ["step", "formula", "substituted", "value"], rows
    if report.only in ("statistics", "running"):
        head, *rest = _columns(result, report.only)
        return head, iter(rest)
    named = _quantities(result) if report.only is None else {"output": result.output}
    return ["quantity", "index", "value"], chain.from_iterable(_tidy(name, values) for name, values in named.items())


def _checked_rows(check: Check) -> Iterator[list[str]]:
    for compared in check.quantities:
        columns = (compared.yours, compared.exact, compared.difference, compared.allowed)
        for index in np.ndindex(compared.yours.shape):
            numbers = [_value(float(values[index])) for values in columns]
            yield [compared.name, " ".join(map(str, index)), *numbers, "false" if compared.wrong[index] else "true"]


def _compared_rows(comparisons: Sequence[Comparison]) -> Iterator[list[str]]:
    for comparison in comparisons:
        for quantity, difference in {"output": comparison.output, **comparison.running}.items():
            measured = (getattr(difference, name) for name in _MEASURES)
            texts = (" ".join(map(str, one)) if isinstance(one, tuple) else _value(one) for one in measured)
            yield [comparison.name, quantity, *texts]


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
    step = max(1, _NUMBERS // np.shape(values)[-1])
    for start in range(0, rows, step):
        block = (
            values[slice(start, min(start + step, rows)), slice(0, np.shape(values)[1])]
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


def check_script(shape: tuple[int, ...]) -> None:
    """Refuse a tensor of more numbers than anybody pastes."""
    if (numbers := math.prod(shape)) > _SCRIPT:
        raise InputError(
            f"--format python spells every number out, and {numbers} are too many for a script",
            hint="-o out.npy writes the output to a file, which numpy.load reads",
        )


def python(report: Report) -> Iterator[str]:
    """A script that works the output out again in NumPy, a line for each named quantity."""
    result, plan = report.result, report.result.plan
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
        yield f"\n# With PyTorch, x and the rest being tensors:\n# {call}\n"


def _literal(values: Any) -> str:
    text = repr(np.asarray(values, np.float64).tolist())
    return text.replace("nan", "np.nan").replace("inf", "np.inf")


def _formula(result: Result) -> Iterator[str]:
    plan, layout = result.plan, result.plan.layout
    axes, channels = tuple(layout.axes), tuple(layout.channels_view)
    x = "x" if layout.view == plan.shape else "view"
    if x == "view":
        yield f"view = x.reshape({tuple(layout.view)})  # the axes {axes} share one mean"
    if plan.source == "running":
        yield f"mean, var = running_mean.reshape({channels}), running_var.reshape({channels})"
        yield f"centered = {x} - mean"
    elif plan.kind.centers:
        yield f"mean = {x}.mean(axis={axes}, keepdims=True)"
        yield f"centered = {x} - mean"
        divisor = (
            f".sum(axis={axes}, keepdims=True) / {layout.count - 1}"
            if plan.ddof
            else f".mean(axis={axes}, keepdims=True)"
        )
        yield f"var = (centered**2){divisor}"
    else:
        yield f"centered = {x}  # RMSNorm leaves the mean out"
        yield f"var = ({x}**2).mean(axis={axes}, keepdims=True)  # the mean square"
    if plan.eps:
        yield "rstd = 1 / np.sqrt(var + eps)"
    else:  # where the variance is 0 as well, normalized is 0 by definition
        yield "rstd = np.divide(1, np.sqrt(var), out=np.zeros_like(var), where=var != 0)"
    yield "normalized = centered * rstd"
    scaled = f" * weight.reshape({channels})" if result.before.weight is not None else ""
    shifted = f" + bias.reshape({channels})" if result.before.bias is not None else ""
    affine = f"normalized{scaled}{shifted}"
    yield f"output = ({affine}).reshape({plan.shape})" if x == "view" else f"output = {affine}"
    if plan.updates_running:
        new = plan.new_weight(result.before.num_batches_tracked)
        n, by = layout.count, plan.running_ddof - plan.ddof  # of what is divided by n - ddof already
        ratio = f" * {n - plan.ddof} / {n - plan.running_ddof}" if by else ""
        others = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
        for name, factor in (("mean", ""), ("var", ratio)):
            batch = f"{name}.mean(axis={others}).reshape({plan.weight_shape}){factor}"
            yield f"new_running_{name} = {1 - new!r} * running_{name} + {new!r} * {batch}"


def _torch_call(result: Result) -> str | None:
    """The call of torch.nn.functional that gives the same; None where it has none."""
    plan = result.plan
    usual = 0 if plan.kind.name == "instance" and len(plan.shape) == 2 else 1
    if plan.ddof or plan.layout.channel_axis not in (None, usual) or plan.convention.interleaved_groups:
        return None
    if plan.updates_running and not plan.running_ddof:
        return None
    affine = ", ".join(name if getattr(result.before, name) is not None else "None" for name in ("weight", "bias"))
    eps = f"eps={float(plan.eps)!r}"
    if plan.kind.name == "layer":
        return f"torch.nn.functional.layer_norm(x, {plan.normalized_shape}, {affine}, {eps})"
    if plan.kind.name == "rms":
        return f"torch.nn.functional.rms_norm(x, {plan.normalized_shape}, {affine.split(', ')[0]}, {eps})"
    if plan.kind.name == "group":
        return f"torch.nn.functional.group_norm(x, {plan.groups}, {affine}, {eps})"
    kept = "running_mean, running_var" if plan.track_running_stats else "None, None"
    batch = "training" if plan.kind.name == "batch" else "use_input_stats"
    momentum = f"momentum={plan.new_weight(result.before.num_batches_tracked)!r}, " if plan.updates_running else ""
    return (
        f"torch.nn.functional.{plan.kind.name}_norm(x, {kept}, {affine}, {batch}={plan.source == 'batch'}, "
        f"{momentum}{eps})"
    )


FORMATTERS: Mapping[str, Callable[[Report], Iterator[str]]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "python": python,
}
