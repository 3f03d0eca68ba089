"""A report as the JSON document that programs read: every number exact, none of them rounded.

``schema.json`` beside this file says what stands in a document, and tests hold every one against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.files.json import json_chunks
from normcli.planning.kinds import GRADIENTS
from normcli.showing import check, versus
from normcli.showing.report import Detail, Report
from normcli.showing.sections import tensor

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.teaching.trace import Trace

SCHEMA = 1  # of the document: it goes up when a key goes or changes its meaning, and stays when one is added


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The document in pieces of text, the output row by row; nothing where there is nothing for a program.

    One part alone is its own value; where there is more (a check, comparisons), it is a key beside them. What
    is more than a value begins with the number of its schema.

    >>> from normcli.calculate import normalize
    >>> "".join(pieces(Report(result=normalize([[1.0, 3]], "layer", eps=0)), Detail(only="output")))
    '[[-1.0, 1.0]]\\n'
    """
    more = dict(report.document or {})
    if report.check is not None:
        more["check"] = check.document(report.check, cells=detail.cells)
    if report.comparisons:
        more["versus"] = versus.documents(report.comparisons)
    if report.result is not None:
        return _of_result(report.result, report.trace, detail.only, more)
    return iter([text({"schema": SCHEMA, **more}) + "\n"] if more else [])


def _of_result(result: Result, trace: Trace | None, only: str | None, more: Mapping[str, Any]) -> Iterator[str]:
    if only in ("output", *GRADIENTS) and not more:
        yield from json_chunks(tensor(result, only))
    elif only not in (None, "output", *GRADIENTS):
        part = _parts(result, trace)[only]
        yield text({"schema": SCHEMA, only: part, **more} if more else part)
    else:
        parts = _parts(result, trace) if only is None else {}
        after = {name: parts.pop(name) for name in ("trace",) if name in parts} | dict(more)
        yield text({"schema": SCHEMA, **parts})[:-1] + f', "{only or "output"}": '
        yield from json_chunks(tensor(result, only or "output"))
        if only is None and result.gradients():
            yield ', "gradients": {"input": '
            yield from json_chunks(result.grad_input)
            others = {"weight": result.grad_weight, "bias": result.grad_bias} | {
                one.name: result.gradients().get(result.plan.gradient_name(one.name)) for one in result.plan.tensors
            }
            yield "".join(f", {json.dumps(name)}: {text(values)}" for name, values in others.items()) + "}"
        yield "".join(f", {json.dumps(name)}: {text(value)}" for name, value in after.items()) + "}"
    yield "\n"


def _parts(result: Result, trace: Trace | None) -> dict[str, Any]:
    """Every part of the document but the output, in order."""
    plan = result.plan
    parts: dict[str, Any] = {
        "kind": plan.kind.name,
        "convention": plan.convention.name,
        "mode": plan.mode,
        "backend": result.backend,
        "device": result.device,
        "input": {"shape": list(plan.shape), "dtype": plan.dtype},
        "options": plan.options() | _given(result),
        "axes": list(plan.layout.reported_axes),
        "count": plan.layout.count,
        "statistics": {"source": plan.source} | _statistics(result),
        "running": _running(result),
    }
    if trace is not None:
        names = ("step", "formula", "substituted", "value")
        parts["trace"] = [{name: getattr(step, name) for name in names} for step in trace.steps]
    return parts


def _given(result: Result) -> dict[str, Any]:
    names = ("weight", "bias", *(one.name for one in result.plan.tensors))
    return {name: values for name in dict.fromkeys(names) if (values := result.before.tensor(name)) is not None}


def _statistics(result: Result) -> dict[str, Any]:
    return dict.fromkeys(result.plan.statistics) | result.statistics() | result.of_ranks()


def _running(result: Result) -> dict[str, Any] | None:
    if not result.plan.track_running_stats:
        return None
    state = result.after
    return {"mean": state.running_mean, "var": state.running_var, "num_batches_tracked": state.num_batches_tracked}


def text(value: Any) -> str:
    """Any value as JSON text; NaN and the infinities, which JSON lacks, as strings.

    >>> text({"max_error": float("inf")})
    '{"max_error": "Infinity"}'
    """
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and the infinities, which JSON lacks, as strings."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(np.asarray(value, np.float64).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
