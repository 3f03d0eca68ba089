"""A calculation as a script for Keras: the layer with its options and numbers; its gradients are those of JAX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from normcli.errors import InputError
from normcli.showing import free_script, script
from normcli.showing.report import Detail, Report

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result

_LAYERS = {
    "batch": "BatchNormalization(axis={axis}, {momentum}{affine}",
    "instance": "GroupNormalization(groups=-1, axis={axis}, {affine}",  # one group for each channel
    "layer": "LayerNormalization(axis={axes}, {affine}",
    "group": "GroupNormalization(groups={groups}, axis={axis}, {affine}",
    "rms": "RMSNormalization(axis={axes}",
}
_VARIABLES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_POLICIES = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}  # whose variables are float32


def pieces(report: Report, detail: Detail) -> Iterator[str]:
    """The script; InputError for what Keras has not, besides the errors of every script.

    >>> from normcli.calculate import normalize
    >>> text = "".join(pieces(Report(result=normalize([[1.0, 3]], "rms"), x=[[1.0, 3]]), Detail()))
    >>> print(text.splitlines()[11])
    layer = keras.layers.RMSNormalization(axis=[1], epsilon=2.220446049250313e-16, dtype="float64")
    """
    return script.pieces(report, detail, "np", _lines)


def _lines(result: Result, given: Mapping[str, str]) -> list[str]:
    plan = result.plan
    if plan.is_free:
        return free_script.jax_lines(result, given, "keras")
    script.refuse(plan, "keras", _LAYERS)
    if plan.track_running_stats and not plan.kind.tracks:
        raise InputError(f"Keras's {plan.kind.title} keeps no running statistics; give --no-track-running-stats")
    axis, batched = plan.layout.channel_axis, plan.layout.is_batched
    there, back = ("", "") if batched else ("[None]", "[0]")
    layer = _LAYERS[plan.kind.name].format(
        axis=axis if batched or axis is None else axis + 1,
        momentum=f"momentum={script.decay(result)!r}, " if plan.updates_running else "",
        affine=f"center={plan.affine}, scale={plan.affine}",
        axes=list(plan.layout.axes),
        groups=plan.groups,
    )
    lines = ["import os", "", 'os.environ["KERAS_BACKEND"] = "jax"  # its moments take two passes', ""]
    lines += ["import jax", "import keras", "import numpy as np", ""]
    if plan.dtype == "float64":
        lines.append('jax.config.update("jax_enable_x64", True)  # though Keras computes in float32 on JAX')
    lines.append(f'x = keras.ops.convert_to_tensor(np.array({given["x"]}), dtype="{plan.dtype}"){there}')
    policy = _POLICIES.get(plan.dtype, plan.dtype)
    lines.append(f'layer = keras.layers.{layer}, epsilon={float(plan.eps)!r}, dtype="{policy}")')
    lines.append("layer.build(x.shape)")
    words = _VARIABLES if "bias" in plan.kind.options else {"weight": "scale"}
    lines += [f"layer.{words[name]}.assign(np.array({given[name]}))" for name in words if name in given]
    training = f", training={plan.source == 'batch'}" if plan.kind.tracks else ""
    gradients = script.gradient_names(result)
    if gradients:
        lines += _gradients(result, given["grad_output"], there, training)
        lines += [f"{name} = {name}{back}" for name in ("output", "grad_input") if back]
    else:
        lines.append(f"output = layer(x{training}){back}")
        lines += (
            ["running_mean, running_var = layer.moving_mean.value, layer.moving_variance.value"]
            if plan.updates_running
            else []
        )
    names = ["output", *gradients, *(["running_mean", "running_var"] if plan.updates_running else [])]
    return lines + [f"print({name})" for name in names]


def _gradients(result: Result, flow: str, there: str, training: str) -> Iterator[str]:
    """The lines of the backward pass: the layer as a function of its variables, which jax.vjp goes back through."""
    plan = result.plan
    names = [name for name in script.gradient_names(result) if name != "grad_input"]
    yield "trained = [variable.value for variable in layer.trainable_variables]"
    yield "others = [variable.value for variable in layer.non_trainable_variables]"
    yield ""
    yield ""
    yield "def call(trained, x):"
    yield f"    return layer.stateless_call(trained, others, x{training})"
    yield ""
    yield ""
    yield "output, backward, updated = jax.vjp(call, trained, x, has_aux=True)"
    yield f'grads, grad_input = backward(keras.ops.convert_to_tensor(np.array({flow}), dtype="{plan.dtype}"){there})'
    if names:
        yield f"{', '.join(names)}{',' if len(names) == 1 else ''} = grads"
    if plan.updates_running:
        yield "running_mean, running_var = updated"
