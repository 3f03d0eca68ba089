"""A calculation as a Python script that works the output out again in NumPy, a line for each named quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.arithmetic.outcome import constants
from normcli.errors import InputError
from normcli.formula.extents import AXES
from normcli.formula.family import used
from normcli.formula.language import Number, names_in, parsed, substituted
from normcli.formula.source import source
from normcli.planning.kinds import PARAMETERS
from normcli.showing.report import Detail, Report
from normcli.showing.sections import heading

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result

_MOST = 2000  # numbers that a script spells out
_CALLS = {
    "batch": "batch_norm(x, {running}, {affine}, training={batch}, {momentum}{eps})",
    "instance": "instance_norm(x, {running}, {affine}, use_input_stats={batch}, {momentum}{eps})",
    "layer": "layer_norm(x, {shape}, {affine}, {eps})",
    "group": "group_norm(x, {groups}, {affine}, {eps})",
    "rms": "rms_norm(x, {shape}, {weight}, {eps})",
}


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The script; InputError for what is no calculation, and for a tensor of more numbers than anybody pastes.

    >>> from normcli.calculate import normalize
    >>> print("".join(pieces(Report(result=normalize([[1.0, 3]], "rms"), x=[[1.0, 3]]), Detail())).splitlines()[3])
    x = np.array([[1.0, 3.0]])
    """
    if report.result is None:
        raise InputError("a script works out a calculation, and this is none")
    if (numbers := math.prod(report.result.plan.shape)) > _MOST:
        raise InputError(
            f"--format python spells every number out, and {numbers} are too many for a script",
            hint="-o out.npy writes the output to a file, which numpy.load reads",
        )
    return _pieces(report.result, report, heading(report, detail, "; "))


def _pieces(result: Result, report: Report, above: str) -> Iterator[str]:
    plan = result.plan
    yield "\n" if report.number else ""
    names = ["weight", "bias"]
    if plan.source == "running" or plan.updates_running:
        names += ["running_mean", "running_var"]
    given = {"x": report.x} | {name: getattr(result.before, name) for name in names}
    given["grad_output"] = result.grad_output
    yield f"# {above}\n" if above else ""
    yield "import ml_dtypes\n" if plan.cast == "bfloat16" else ""
    yield "import numpy as np\n\n"
    for name, values in given.items():
        if values is not None:
            yield f"{name} = np.array({_literal(values)})\n"
    yield f"eps = {float(plan.eps)!r}\n\n"
    yield from (f"{line}\n" for line in _formula(result))
    if plan.dtype != "float64":
        rounded = " and grad_input" if result.gradients() else ""
        yield f"# worked out in float64; normcli rounds the output{rounded} to {plan.dtype}\n"
    yield "".join(f"print({name})\n" for name in ("output", *result.gradients()))
    if call := _torch_call(result):
        yield f"\n# With PyTorch, x and the rest being tensors:\n# {call}\n"


def _literal(values: Any) -> str:
    text = repr(np.asarray(values, np.float64).tolist())
    return text.replace("nan", "np.nan").replace("inf", "np.inf")


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


def _torch_call(result: Result) -> str | None:
    """The call of torch.nn.functional that gives the same; None where it has none."""
    plan = result.plan
    usual = 1 if plan.layout.is_batched else 0
    call = _CALLS.get(plan.kind.name)
    if call is None or plan.ddof or plan.layout.channel_axis not in (None, usual) or plan.layout.is_interleaved:
        return None
    if (plan.updates_running and not plan.running_ddof) or plan.cast or plan.layout.is_per_sample:
        return None
    weight, bias = (name if getattr(result.before, name) is not None else "None" for name in ("weight", "bias"))
    weight = f"1 + {weight}" if plan.weight_offset and weight != "None" else weight
    new = plan.new_weight(result.before.num_batches_tracked)
    return f"torch.nn.functional.{call}".format(
        shape=plan.normalized_shape,
        groups=plan.groups,
        running="running_mean, running_var" if plan.track_running_stats else "None, None",
        weight=weight,
        affine=f"{weight}, {bias}",
        batch=plan.source == "batch",
        momentum=f"momentum={new!r}, " if plan.updates_running else "",
        eps=f"eps={float(plan.eps)!r}",
    )
