"""A calculation as a script for PyTorch: the module with its options and numbers, train or eval, and autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from normcli.errors import InputError
from normcli.showing import free_script, script
from normcli.showing.report import Detail, Report

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.planning.layout import Shape
    from normcli.planning.plan import Plan

_MOST_AXES = 5  # of BatchNorm3d and InstanceNorm3d
_SPATIAL = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}  # by the rank of the tensor
_LAYERS = {
    "batch": "BatchNorm{spatial}({channels}, eps={eps}, {tracking}, affine={affine}",
    "instance": "InstanceNorm{spatial}({channels}, eps={eps}, {tracking}, affine={affine}",
    "layer": "LayerNorm({shape}, eps={eps}, elementwise_affine={affine}",
    "group": "GroupNorm({groups}, {channels}, eps={eps}, affine={affine}",
    "rms": "RMSNorm({shape}, eps={eps}, elementwise_affine={affine}",
}
_MIXED = {"batch", "instance", "layer", "group"}  # whose parameters may be float32 beside an input of 16 bits


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The script; InputError for what PyTorch has not, besides the errors of every script.

    >>> from normcli.calculate import normalize
    >>> print("".join(pieces(Report(result=normalize([[1.0, 3]], "rms"), x=[[1.0, 3]]), Detail())).splitlines()[4])
    layer = torch.nn.RMSNorm((2,), eps=2.220446049250313e-16, elementwise_affine=True, dtype=torch.float64)
    """
    return script.pieces(report, detail, "torch", _lines)


def _lines(result: Result, given: Mapping[str, str]) -> list[str]:
    plan = result.plan
    if plan.is_free:
        return free_script.torch_lines(result, given)
    _refuse(result)
    mixed = plan.dtype in ("float16", "bfloat16") and plan.kind.name in _MIXED
    x, own = f"torch.{plan.dtype}", "torch.float32" if mixed else f"torch.{plan.dtype}"
    tracking = [f"track_running_stats={plan.track_running_stats}"]
    if plan.updates_running:
        tracking.insert(0, f"momentum={plan.momentum!r}")
    there, seen, back = _view(plan)
    layer = _LAYERS[plan.kind.name].format(
        spatial=_SPATIAL.get(len(seen)),
        channels=plan.weight_shape[0],
        eps=repr(float(plan.eps)),
        tracking=", ".join(tracking),
        affine=plan.affine,
        shape=plan.normalized_shape,
        groups=plan.groups,
    )
    lines = [*script.imports(given), "import torch", "", f"x = torch.tensor({given['x']}, dtype={x})"]
    lines.append(f"layer = torch.nn.{layer}, dtype={own})")
    state = {name: f"torch.tensor({values}, dtype={own})" for name, values in given.items()}
    state = {name: state[name] for name in state if name not in ("x", "grad_output")}
    if plan.updates_running:
        state["num_batches_tracked"] = f"torch.tensor({result.before.num_batches_tracked})"
    if state:
        lines += ["state = {", *(f'    "{name}": {values},' for name, values in state.items()), "}"]
        lines.append("layer.load_state_dict(state, strict=False)")
    lines += [f"layer.{plan.mode}()"] if plan.kind.has_running_stats else []
    if gradients := script.gradient_names(result):
        leaves = {"grad_input": "x", "grad_weight": "layer.weight", "grad_bias": "layer.bias"}
        lines += ["x.requires_grad_()", f"output = layer(x{there}){back}"]
        lines.append(f"output.backward(torch.tensor({given['grad_output']}, dtype={x}))")
        lines += [f"{name} = {leaves[name]}.grad" for name in gradients]
    else:
        lines += ["with torch.no_grad():", f"    output = layer(x{there}){back}"]
    if plan.updates_running:
        lines.append("running_mean, running_var = layer.running_mean, layer.running_var")
    names = ["output", *gradients, *(["running_mean", "running_var"] if plan.updates_running else [])]
    return lines + [f"print({name})" for name in names]


def _refuse(result: Result) -> None:
    plan = result.plan
    script.refuse(plan, "torch", _LAYERS)
    if plan.kind.has_running_stats and plan.source == "batch" and not plan.eps:
        raise InputError(
            "PyTorch refuses eps 0 with the statistics of a batch; give --eps 1e-12, or use --format python"
        )
    if plan.updates_running and plan.momentum is None and not plan.kind.tracks:
        raise InputError(f"PyTorch's {plan.kind.title} never moves its statistics with momentum none; give a number")


def _view(plan: Plan) -> tuple[str, Shape, str]:
    """How the tensor comes before the layer, channels on axis 1, in which shape, and how the output comes back."""
    axis, there, back, shape = plan.layout.channel_axis, "", "", plan.shape
    usual = 1 if plan.layout.is_batched else 0
    if axis not in (None, usual):
        there, back = f".movedim({axis}, {usual}).contiguous()", f".movedim({usual}, {axis})"
        rest = [size for place, size in enumerate(shape) if place != axis]
        shape = (*rest[:usual], shape[axis], *rest[usual:])
    if plan.kind.has_running_stats and len(shape) > _MOST_AXES:
        there, back = f"{there}.flatten(2)", f".reshape({shape}){back}"
        shape = (*shape[:2], math.prod(shape[2:]))
    return there, shape, back
