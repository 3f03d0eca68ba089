"""A calculation as a Python script that works the output out again in NumPy, a line for each named quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from normcli.arithmetic.outcome import constants
from normcli.formula.extents import AXES
from normcli.formula.family import used
from normcli.formula.language import Number, names_in, parsed, substituted
from normcli.formula.source import source
from normcli.planning.kinds import PARAMETERS
from normcli.showing import free_script, script
from normcli.showing.report import Detail, Report

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The script; the errors are those of every script.

    >>> from normcli.calculate import normalize
    >>> print("".join(pieces(Report(result=normalize([[1.0, 3]], "rms"), x=[[1.0, 3]]), Detail())).splitlines()[3])
    x = np.array([[1.0, 3.0]])
    """
    return script.pieces(report, detail, "np", _lines)


def _lines(result: Result, given: Mapping[str, str]) -> list[str]:
    plan = result.plan
    if plan.is_free:
        return free_script.numpy_lines(result, given)
    lines = ["import ml_dtypes"] if plan.cast == "bfloat16" else []
    lines += ["import numpy as np", ""]
    lines += [f"{name} = {v if v.startswith('np.') else f'np.array({v})'}" for name, v in given.items()]
    lines += [f"eps = {float(plan.eps)!r}", "", *_formula(result)]
    if plan.dtype != "float64":
        rounded = " and grad_input" if result.gradients() else ""
        lines.append(f"# worked out in float64; normcli rounds the output{rounded} to {plan.dtype}")
    return lines + [f"print({name})" for name in ("output", *result.gradients())]


def _formula(result: Result) -> Iterator[str]:
    """The lines of the calculation, those of the backward pass, and those of the running statistics' update."""
    plan, layout, before = result.plan, result.plan.layout, result.before
    axes, channels = tuple(layout.axes), tuple(layout.channels_view)
    split = layout.view != plan.shape
    if split:
        yield f"view = x.reshape({tuple(layout.view)})  # the axes {axes} share one mean"
    numbers = constants(plan, before)
    names = {"x": "view" if split else "x", "n": str(numbers["n"])}
    names |= {name: f"{name}.reshape({channels})" for name in ("weight", "bias", "running_mean", "running_var")}
    if result.gradients() and split:
        names["grad_output"] = f"grad_output.reshape({tuple(layout.view)})"
    called: dict[str | None, str] = {}
    for name, takes in AXES.items():
        called[name] = f"axis={tuple(a for a, role in enumerate(layout.dimensions) if takes(role))}, keepdims=True"
    shapes = dict.fromkeys(("output", "grad_input"), plan.shape) if split else {}
    shapes |= dict.fromkeys(PARAMETERS, plan.weight_shape)
    taken = {name for line in plan.running_lines for name in names_in(line.value)}
    given = frozenset(name for name in ("weight", "bias") if getattr(before, name) is not None)
    for line in used(plan.lines + (plan.gradient_lines if result.gradients() else ()), given):
        if line.role == "shown" or line.name in taken:
            then = f".reshape({shapes[line.name]})" if line.name in shapes else ""
            yield f"{line.name} = {source(line.value, names, called, by_zero=not plan.eps, then=then)}"
    others = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
    inside = {"n": str(numbers["n"]), "m": repr(numbers["m"])}
    for line in plan.running_lines:
        if line.role == "where":
            reshaped = f".reshape({plan.weight_shape})"
            inside[line.name] = source(line.value, inside, {"samples": f"axis={others}"}, then=reshaped)
        else:
            kept = substituted(line.value, {parsed("1 - m"): Number(1 - numbers["m"])})
            yield f"new_{line.name} = {source(kept, inside, {})}"
