"""A calculation as one page: input and output as grids, the trace of the cell that is pointed at, and what if.

The page holds everything that it shows, and asks no network for anything. Its numbers are those of the
result; its script selects among them, and calculates for itself only where something was changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.calculate import run
from normcli.showing import check, grids, sections
from normcli.showing.cube import drawing
from normcli.showing.embedded import Pool, embedded, is_whole, shown_elements
from normcli.showing.figure import Figure
from normcli.showing.grids import unbroken
from normcli.showing.report import Detail, Report, Section
from normcli.showing.slipped import slips_with_numbers
from normcli.teaching import trace

if TYPE_CHECKING:
    from normcli.teaching.trace import Step
    from normcli.teaching.verdict import Check

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body class="normcli-page">
<main>
{articles}
</main>
<script>
{script}</script>
</body>
</html>
"""
_FRAGMENT = """\
<div class="normcli-fragment">
<style>
{style}</style>
{articles}
</div>
<script>
{script}</script>
"""


def page(reports: Sequence[Report], detail: Detail) -> str:
    """The page of one report, or of several one below the other.

    >>> from normcli.calculate import normalize
    >>> x = np.array([[1.0, 3]])
    >>> made = page([Report(result=normalize(x, "layer", steps=True), x=x)], Detail())
    >>> "http://" in made or "https://" in made
    False
    """
    return _put_together(_PAGE, reports, detail)


def fragment(report: Report, detail: Detail | None = None) -> str:
    """The same for a notebook: markup, style and script that go into a shadow root of their own.

    It may be shown any number of times beside each other, changes nothing global and leaves the address alone.
    Without its script, and without an ``x``, it shows what there is.

    >>> from normcli.calculate import normalize
    >>> fragment(Report(result=normalize([[1.0, 3]], "layer"))).split(">")[0]
    '<div class="normcli-fragment"'
    """
    return _put_together(_FRAGMENT, [report], detail or Detail())


def _put_together(template: str, reports: Sequence[Report], detail: Detail) -> str:
    pool = Pool()
    articles = "\n".join(_article(_with_steps(report), detail, pool) for report in reports)
    script = _packaged("page.js").replace("/* the lines */", pool.script())
    title = escape(_title(reports[0]))
    return template.format(policy=_POLICY, title=title, style=_packaged("page.css"), articles=articles, script=script)


@cache
def _packaged(name: str) -> str:
    return files("normcli.showing").joinpath(name).read_text(encoding="utf-8")


def _with_steps(report: Report) -> Report:
    """The report with everything on the way in its result, where it has the input to begin with."""
    result = report.result
    if result is None or report.x is None:
        return report
    if {line.name for line in result.plan.lines} <= {*result.named, "output"}:
        return report
    again = run(np.asarray(report.x), result.plan, result.before, steps=True, grad_output=result.grad_output)
    return report._replace(result=again)


def _title(report: Report) -> str:
    name = report.headline or report.file or (report.document or {}).get("file", "")
    if not name and report.result is not None:
        name = sections.headline(report.result).split("  ")[0]
    return f"{name} - normcli" if name else "normcli"


def _article(report: Report, detail: Detail, pool: Pool) -> str:
    """All that is said of one input."""
    parts = [_header(report), *_judged(report, detail)]
    if report.result is None:
        parts += [grids.table(section) for section in report.sections]
    else:
        parts += [*_calculation(report, detail, pool)]
    failed = (report.document or {}).get("error")
    parts += [f'<p class="said">{unbroken(line)}</p>' for line in ([failed] if failed else report.words)]
    return "\n".join(['<article class="normcli">', *parts, "</article>"])


def _header(report: Report) -> str:
    """What was computed: its name large, every choice below; nothing above words about several files."""
    facts = [] if report.result is None else sections.headline(report.result).split("  ")
    names = [name for name in (report.headline or report.file or (report.document or {}).get("file", ""),) if name]
    if not (lines := names + facts):
        return ""
    title, *facts = lines
    if report.number is not None and report.check is None and report.result is not None:
        facts.append(f"input {report.number}")
    said = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return f'<header><h1>{escape(title)}</h1><ul class="facts">{said}</ul></header>'


def _judged(report: Report, detail: Detail) -> Iterator[str]:
    """The verdict, its explanation, and each slip's line beside the right one."""
    found = report.check
    if found is None:
        return
    words = "".join(f"<p>{unbroken(line)}</p>" for line in check.explanation(found))
    manner = "right" if found.ok else "wrong"
    yield f'<section class="verdict {manner}"><h2>{unbroken(check.verdict(found))}</h2>{words}{_slips(report, detail)}'
    seen = report.result is not None and any(grids.wrong_cells(found, report.result.plan.shape))
    opened = "" if seen else " open"  # what no grid shows
    hatched = "" if detail.cells else "yours"  # of all cells some are right
    yield "".join(
        f"<details{opened}>{_summary(one)}{grids.table(one, hatched)}</details>" for one in _cells(found, detail)
    )
    yield "</section>"


def _summary(section: Section) -> str:
    return f"<summary>{escape(section.title)}</summary>"


def _cells(found: Check, detail: Detail) -> list[Section]:
    if found.turned or (found.ok and not detail.cells):
        return []
    return [check.section(found, everything=detail.cells)]


def _slips(report: Report, detail: Detail) -> str:
    """The line behind the answer beside the right one, with numbers where these can be filled in."""
    shown = []
    for pair in slips_with_numbers(report, detail.precision):
        columns = (
            f'<div class="{manner}"><dt>{name}</dt><dd><code>{unbroken(line.formula)}</code>'
            + (f"<code>= {unbroken(line.filled)}</code><code>= {unbroken(line.value)}</code>" if line.filled else "")
            + "</dd></div>"
            for manner, name, line in (("slip", "your line", pair.slipped), ("exact", "the right line", pair.right))
        )
        at = f"<figcaption>{escape(pair.at)}</figcaption>" if pair.at else ""
        shown.append(f'<figure class="pair">{at}<dl>{"".join(columns)}</dl></figure>')
    return "".join(shown)


def _calculation(report: Report, detail: Detail, pool: Pool) -> Iterator[str]:
    result, x = report.calculated, report.x
    shape = result.plan.shape
    first = tuple(i % size for i, size in zip(detail.element or (0,) * len(shape), shape, strict=True))
    if report.check is not None and detail.element is None:
        first = next(grids.wrong_cells(report.check, shape), first)
    kept = shown_elements(shape, first)
    traced = None if x is None else _Traced(report, kept, first, detail.precision)
    data = embedded(report, kept, first, detail.precision, traced.steps if traced else [], pool)
    yield '<form class="whatif" hidden></form>' if data["programs"] else ""
    backward = result.gradients() and result.grad_input is not None
    if backward:
        yield '<div class="tabs" hidden></div>'
    note = "" if is_whole(shape) else f'<p class="said">{escape(_left_out(shape, kept))}</p>'
    yield '<div class="above"><div>'
    with_input = [] if x is None else [grids.grid(report, "input", np.asarray(x), kept, first, detail)]
    forward = [*with_input, grids.grid(report, "output", np.asarray(result.output), kept, first, detail)]
    yield f'<div class="tensors" data-tab="forward">{"".join(forward)}</div>'
    if backward:
        flow = grids.grid(report, "grad_output", np.asarray(result.grad_output), kept, first, detail)
        gradient = grids.grid(report, "grad_input", np.asarray(result.grad_input), kept, first, detail)
        yield f'<div class="tensors" data-tab="backward">{flow}{gradient}</div>'
    yield f'{note}</div><figure class="axes">{drawing(Figure(result.plan), first)}'
    n = f"<span>{result.plan.layout.count}</span>"
    yield f"<figcaption>Marked: what shares its statistics with the chosen cell, n = {n}.</figcaption></figure></div>"
    if traced:
        yield _trace(first, traced.of_first, result.plan.gradient_lines[0].name if backward else None)
    yield '<div class="tables">'
    for section in sections.sections(report._replace(trace=None), Detail(precision=detail.precision)):
        if not section.is_matrix:
            yield grids.table(section)
    yield "</div>"
    yield f'<script type="application/json" class="data">{_safe(data)}</script>'


def _left_out(shape: tuple[int, ...], kept: list[list[int]]) -> str:
    size = math.prod(shape)
    left = size - math.prod(map(len, kept))
    return f"The edges of {' x '.join(map(str, shape))} are shown; {left} of {size} elements are left out."


class _Traced:
    """The steps of the elements that are shown, and those of the first that is."""

    def __init__(self, report: Report, kept: list[list[int]], first: tuple[int, ...], precision: int) -> None:
        result, x = report.calculated, np.asarray(report.x)
        elements = [tuple(int(kept[axis][i]) for axis, i in enumerate(place)) for place in np.ndindex(*map(len, kept))]
        self.steps = list(trace.traces(result, x, elements, precision))
        one = trace.trace(result, x, first, precision)
        self.of_first = [(step, grids.value(step.value, precision)) for step in one.steps]


def _trace(first: tuple[int, ...], steps: list[tuple[Step, str]], backward: str | None) -> str:
    """The trace of the first element, where no script shows that of another."""
    rows = "".join(
        f"<li{' class=backward' if step.step == backward else ''}><b>{escape(step.step)}</b> "
        f"<code class=formula>{unbroken(step.formula)}</code> "
        f"<code class=filled>{unbroken(step.substituted)}</code> <output>{escape(value)}</output></li>"
        for step, value in steps
    )
    return (
        f'<section class="trace" aria-live="polite"><h2>trace of element {escape(grids.index(first))}</h2>'
        f'<ol>{rows}</ol><p class="cell-check"></p></section>'
    )


def _safe(data: Any) -> str:
    """JSON that ends no script, whatever text it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
