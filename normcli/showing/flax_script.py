"""A calculation as a script for JAX: Flax's module with its options and numbers, and jax.vjp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from normcli.errors import InputError
from normcli.showing import free_script, script
from normcli.showing.report import Detail, Report

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result

_PARAMETERS = {"weight": "scale", "bias": "bias"}  # as Flax names them
_LAYERS = {
    "batch": "BatchNorm(use_running_average={frozen}, axis={axis}, {momentum}{affine}",
    "instance": "InstanceNorm(feature_axes={axis}, {affine}",
    "layer": "LayerNorm(reduction_axes={axes}, feature_axes={axes}, {affine}",
    "group": "GroupNorm(num_groups={groups}, {affine}",
    "rms": "RMSNorm(reduction_axes={axes}, feature_axes={axes}, {scale}",
}


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The script; InputError for what Flax has not, besides the errors of every script.

    >>> from normcli.calculate import normalize
    >>> text = "".join(pieces(Report(result=normalize([[1.0, 3]], "layer"), x=[[1.0, 3]]), Detail()))
    >>> print(next(line for line in text.splitlines() if "linen." in line).partition(", use")[0])
    layer = linen.LayerNorm(reduction_axes=(1,), feature_axes=(1,)
    """
    return script.pieces(report, detail, "jnp", _lines)


def _lines(result: Result, given: Mapping[str, str]) -> list[str]:
    plan = result.plan
    if plan.is_free:
        return free_script.jax_lines(result, given, "flax")
    script.refuse(plan, "flax", _LAYERS)
    if plan.track_running_stats and not plan.kind.tracks:
        raise InputError(f"Flax's {plan.kind.title} keeps no running statistics; give --no-track-running-stats")
    own = "jnp.float64" if plan.dtype == "float64" else "jnp.float32"
    there, axis, back = _view(result)
    parameters = {name: word for name, word in _PARAMETERS.items() if plan.affine and name in plan.kind.options}
    layer = _LAYERS[plan.kind.name].format(
        frozen=plan.source == "running",
        axis=axis,
        momentum=f"momentum={script.decay(result)!r}, " if plan.updates_running else "",
        affine=f"use_scale={plan.affine}, use_bias={plan.affine}",
        scale=f"use_scale={plan.affine}",
        axes=plan.layout.axes,
        groups=plan.groups,
    )
    lines = [*script.imports(given), "import jax", "import jax.numpy as jnp", "from flax import linen", ""]
    lines += ['jax.config.update("jax_enable_x64", True)'] if plan.dtype == "float64" else []
    lines.append(f"x = jnp.array({given['x']}, dtype=jnp.{plan.dtype})")
    lines += [  # the fast variance is the mean of the squares less the square of the mean, which cancels
        f"layer = linen.{layer}, epsilon={float(plan.eps)!r}, dtype=x.dtype, param_dtype={own}, "
        "use_fast_variance=False)"
    ]
    ones = {"weight": "ones", "bias": "zeros", "running_mean": "zeros", "running_var": "ones"}
    values = {
        name: f"jnp.array({given[name]}, dtype={own})" if name in given else f"jnp.{one}({plan.weight_shape}, {own})"
        for name, one in ones.items()
    }
    lines.append("params = {" + ", ".join(f'"{word}": {values[name]}' for name, word in parameters.items()) + "}")
    collections, mutable = '"params": params', ""
    if plan.kind.tracks:  # a layer without them has them too, and moves them
        lines.append(f'statistics = {{"mean": {values["running_mean"]}, "var": {values["running_var"]}}}')
        collections += ', "batch_stats": statistics'
        mutable = ', mutable=["batch_stats"]' if plan.source == "batch" else ""
    lines += ["", "", "def call(params, x):", f"    return layer.apply({{{collections}}}, x{there}{mutable})", "", ""]
    moved = ", updated" if mutable else ""
    if gradients := script.gradient_names(result):
        aux = ", has_aux=True" if mutable else ""
        lines.append(f"output, backward{moved} = jax.vjp(call, params, x{aux})")
        flow = f"jnp.array({given['grad_output']}, dtype=x.dtype){there}"
        lines.append(f"grads, grad_input = backward({flow})")
        lines += [f'grad_{name} = grads["{word}"]' for name, word in parameters.items()]
    else:
        lines.append(f"output{moved} = call(params, x)")
    lines += [f"output = output{back}"] if back else []
    names = ["output", *gradients]
    if plan.updates_running:
        lines.append('running_mean, running_var = updated["batch_stats"]["mean"], updated["batch_stats"]["var"]')
        names += ["running_mean", "running_var"]
    return lines + [f"print({name})" for name in names]


def _view(result: Result) -> tuple[str, int | None, str]:
    """How the tensor comes before the layer, the axis of its channels then, and how the output comes back."""
    plan = result.plan
    axis = plan.layout.channel_axis
    if axis is None:
        return "", None, ""
    if not plan.layout.is_batched:
        return "[None]", axis + 1, "[0]"
    last = len(plan.shape) - 1
    if plan.groups is not None and axis != last:  # its groups are of the last axis
        rest = [place for place in range(len(plan.shape)) if place != axis]
        order = (*rest, axis)
        return f".transpose{order}", last, f".transpose{tuple(order.index(place) for place in range(last + 1))}"
    return "", axis, ""
