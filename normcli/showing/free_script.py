"""Calculations over any axes as scripts: their lines in NumPy, or the call of a library that has the kind."""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from normcli.errors import InputError
from normcli.formula.extents import extent, extents
from normcli.formula.language import CASTS, REDUCTIONS, WINDOWS, Call, Node, Number, walked
from normcli.formula.source import WINDOW, source
from normcli.planning.conventions import CONVENTIONS
from normcli.planning.free import OUTPUT, FreePlan
from normcli.planning.settled import unlike
from normcli.showing import script

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result

_TAKEN = {"np", "window", "print", "sum", "range", "ml_dtypes"}  # names of the script's own
_CALLS: Mapping[str, Mapping[str, str]] = {
    "torch": {
        "lp": "torch.nn.functional.normalize(x, p={p}, dim={axes}, eps={eps})",
        "softmax": "torch.nn.functional.softmax(x, {axis})",
        "logsoftmax": "torch.nn.functional.log_softmax(x, {axis})",
        "lrn": "torch.nn.functional.local_response_norm(x{there}, {size}, {alpha}, {beta}, {k}){back}",
        "weight": "torch._weight_norm(x, weight.reshape({sizes}), {channel})",
    },
    "keras": {
        "lp": "keras.ops.normalize(x, axis={axes}, order=2, epsilon={eps})",
        "softmax": "keras.ops.softmax(x, axis={axis})",
        "logsoftmax": "keras.ops.log_softmax(x, axis={axis})",
    },
    "flax": {
        "softmax": "jax.nn.softmax(x, axis={axes})",
        "logsoftmax": "jax.nn.log_softmax(x, axis={axes})",
    },
}


# --- NumPy ----------------------------------------------------------------------------------------


def numpy_lines(result: Result, given: Mapping[str, str]) -> list[str]:
    """The lines of the calculation and of its backward pass in NumPy."""
    plan: Any = result.plan
    program = plan.lines + (plan.gradient_lines if result.gradients() else ())
    calls = {node.function for line in program for node in walked(line.value) if isinstance(node, Call)}
    found = ["import ml_dtypes"] if "bfloat16" in calls & CASTS else []
    found += ["import numpy as np", ""]
    found += [*WINDOW.splitlines(), ""] if calls & WINDOWS else []
    found += [f"{_named(name)} = {v if v.startswith('np.') else f'np.array({v})'}" for name, v in given.items()]
    near = {"before", "after"} if calls & WINDOWS else set()
    found += [f"{_named(name)} = {_number(value)}" for name, value in plan.numbers if name not in near]
    found += ["", *_written(plan, program)]
    if plan.dtype != "float64":
        rounded = " and grad_input" if result.gradients() else ""
        found.append(f"# worked out in float64; normcli rounds the output{rounded} to {plan.dtype}")
    return found + [f"print({_named(name)})" for name in (OUTPUT, *result.gradients())]


def _written(plan: FreePlan, program: Any) -> Iterator[str]:
    rank = len(plan.shape)
    names = {name: _named(name) for name in (line.name for line in program)}
    names |= {name: _named(name) if name in dict(plan.numbers) else _number(v) for name, v in plan.constants.items()}
    names |= {name: f"{value:g}" for name, value in plan.numbers if name in ("before", "after")}
    for one in plan.tensors:
        view = one.view(rank)
        names[one.name] = _named(one.name) + (f".reshape({view})" if view != one.shape else "")
    known = extents(program, plan.space)
    called: dict[str | None, str] = {}
    for node in (node for line in program for node in walked(line.value) if isinstance(node, Call)):
        if node.function in REDUCTIONS | WINDOWS:
            dimensions = plan.dimensions(node.axes)
            called[node.axes] = str(dimensions[0]) if node.function in WINDOWS else f"axis={dimensions}, keepdims=True"
    shapes = {plan.gradient_name(one.name): one.shape for one in plan.tensors}
    for line in program:
        text = source(_counted(line.value, plan, known), names, called)
        whole = line.name in (OUTPUT, plan.gradient_name("x"))
        if whole and len(known[line.name]) < rank:
            text = f"np.broadcast_to({text}, {plan.shape})"
        elif line.name in shapes:
            text = f"np.reshape({text}, {shapes[line.name]})"
        yield f"{names[line.name]} = {text}"


def _counted(node: Node, plan: FreePlan, known: Mapping[str, frozenset[int]]) -> Node:
    """The expression, its sums of what does not vary over all their axes times how often they have each term."""
    if not isinstance(node, Call):
        return node
    parts = tuple(_counted(part, plan, known) for part in node.parts)
    own = node._replace(parts=parts)
    if node.function not in REDUCTIONS:
        return own
    varied, over = extent(node.parts[0], known, plan.space), frozenset(plan.dimensions(node.axes))
    times = math.prod(plan.shape[axis] for axis in over - varied)
    alone = own if varied else parts[0]
    return alone if times == 1 or node.function != "sum" else Call("*", (Number(times), alone))


def _named(name: str) -> str:
    return f"{name}_" if name in _TAKEN or keyword.iskeyword(name) else name


def _number(value: float) -> str:
    text = f"{value:g}" if float(value).is_integer() else repr(float(value))
    text = text.replace("inf", "np.inf").replace("nan", "np.nan")
    return f"({text})" if text.startswith("-") else text


# --- libraries ------------------------------------------------------------------------------------


def call(result: Result, library: str) -> str:
    """The call of a library's function on ``x``; InputError, by name, where it has none that gives the same.

    >>> from normcli.calculate import normalize
    >>> call(normalize([1, 2], "softmax"), "keras")
    'keras.ops.softmax(x, axis=0)'
    """
    plan: Any = result.plan
    title, calls = CONVENTIONS[library].title, _CALLS[library]
    if plan.kind.name not in calls:
        raise InputError(f"{title} has no {plan.kind.title}; --format python has")
    if library in plan.kind.profiles and (what := unlike(plan, library)):
        raise InputError(
            f"{title}'s {plan.kind.title} has another {what}; use --format python, or --convention {library}"
        )
    axes = plan.layout.axes
    if "axis=" not in calls[plan.kind.name] and "{axis}" in calls[plan.kind.name] and len(axes) != 1:
        raise InputError(f"{title}'s {plan.kind.title} goes over one axis; use --format python")
    axis = plan.layout.channel_axis
    moved = axis not in (None, 1)
    alone = len(plan.shape) == 2  # where PyTorch asks for a position too
    numbers = {name: _number(value).replace("np.inf", "float('inf')") for name, value in plan.numbers}
    return calls[plan.kind.name].format(
        axes=axes if len(axes) > 1 else axes[0],
        axis=axes if len(axes) > 1 else axes[0] if axes else None,
        there=(f".movedim({axis}, 1)" if moved else "") + ("[..., None]" if alone else ""),
        back=("[..., 0]" if alone else "") + (f".movedim(1, {axis})" if moved else ""),
        sizes=tuple(size if place == axis else 1 for place, size in enumerate(plan.shape)),
        channel=axis,
        **numbers,
    )


def torch_lines(result: Result, given: Mapping[str, str]) -> list[str]:
    """The call in PyTorch, and autograd."""
    plan, written = result.plan, call(result, "torch")
    dtype = f"dtype=torch.{plan.dtype}"
    found = [*script.imports(given), "import torch", ""]
    found += [f"{name} = torch.tensor({values}, {dtype})" for name, values in given.items() if name != "grad_output"]
    if "weight" in written and "weight" not in given:
        found.append(f"weight = torch.ones({plan.shape[plan.layout.channel_axis or 0]}, {dtype})")
    leaves = {plan.gradient_name(name): name for name in given if name != "grad_output"}
    gradients = [name for name in result.gradients() if name in leaves]
    found += [f"{leaves[name]}.requires_grad_()" for name in gradients]
    found.append(f"output = {written}")
    if gradients:
        found.append(f"output.backward(torch.tensor({given['grad_output']}, {dtype}))")
        found += [f"{name} = {leaves[name]}.grad" for name in gradients]
    return found + [f"print({name})" for name in (OUTPUT, *gradients)]


def jax_lines(result: Result, given: Mapping[str, str], library: str) -> list[str]:
    """The call in JAX or, on JAX, in Keras, and jax.vjp."""
    plan, written = result.plan, call(result, library)
    keras = ["import os", "", 'os.environ["KERAS_BACKEND"] = "jax"', ""] if library == "keras" else []
    found = [*keras, "import jax", "import jax.numpy as jnp", *(["import keras"] if keras else [])]
    found += [*script.imports(given), ""]
    found += ['jax.config.update("jax_enable_x64", True)'] if plan.dtype == "float64" else []
    found += [f"{name} = jnp.array({values}, dtype=jnp.{plan.dtype})" for name, values in given.items()]
    found += ["", "", "def call(x):", f"    return {written}", "", ""]
    if not result.gradients():
        return [*found, "output = call(x)", "print(output)"]
    found += ["output, backward = jax.vjp(call, x)", "[grad_input] = backward(grad_output)"]
    return [*found, "print(output)", "print(grad_input)"]
