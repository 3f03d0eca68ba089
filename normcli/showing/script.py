"""A calculation as a Python script that works the output out again in NumPy, a line for each named quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.errors import InputError
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
    yield f"# {above}\n" if above else ""
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
    usual = 1 if plan.layout.is_batched else 0
    if plan.ddof or plan.layout.channel_axis not in (None, usual) or plan.convention.interleaved_groups:
        return None
    if plan.updates_running and not plan.running_ddof:
        return None
    weight, bias = (name if getattr(result.before, name) is not None else "None" for name in ("weight", "bias"))
    new = plan.new_weight(result.before.num_batches_tracked)
    return f"torch.nn.functional.{_CALLS[plan.kind.name]}".format(
        shape=plan.normalized_shape,
        groups=plan.groups,
        running="running_mean, running_var" if plan.track_running_stats else "None, None",
        weight=weight,
        affine=f"{weight}, {bias}",
        batch=plan.source == "batch",
        momentum=f"momentum={new!r}, " if plan.updates_running else "",
        eps=f"eps={float(plan.eps)!r}",
    )
