"""PyTorch's own answer: every output comes from torch.nn.functional, none from a formula of ours.

The calculation runs in the input's dtype on the chosen device. Weight, bias and running statistics
are cast to that dtype, as a module converted with ``module.to(dtype)`` would hold them. The
statistics are torch's too (``torch.var_mean`` on the same device; half inputs in float32, in which
torch's kernels compute them). What models do themselves around that function is done in float32 at least, as they
do it: adding 1 to the weight, and multiplying by it afterwards (Gemma, Llama, AdaLN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from normcli.arithmetic import torch_further
from normcli.arithmetic.result import Result, State
from normcli.errors import InputError, UnavailableError
from normcli.planning.plan import Plan
from normcli.words import repr_of

# What a torch that is too old, or something else of that name, lacks is found out as this module is imported.
_OUT_OF_MEMORY = torch.OutOfMemoryError
_BATCH_NORM: Any = functional.batch_norm
_INSTANCE_NORM: Any = functional.instance_norm
_LAYER_NORM: Any = functional.layer_norm
_GROUP_NORM: Any = functional.group_norm
_RMS_NORM: Any = functional.rms_norm
_KINDS = ("batch", "instance", "layer", "group", "rms")  # that torch has a function for


def normalize(
    x: Any,
    plan: Plan,
    state: State,
    *,
    device: str | None = None,
    out: Any = None,
    steps: bool = False,
    threads: int | None = None,
    grad_output: Any = None,
) -> Result:
    """Normalize ``x``, a NumPy array or a tensor (shape ``plan.shape``), with torch's function for the kind.

    An array gives arrays, float64 but for the output; a tensor gives tensors, on its own device
    unless ``device`` names another. Raises InputError for what torch cannot compute, and
    UnavailableError where the device or its memory is missing.
    """
    _refuse(plan)
    is_tensor = isinstance(x, torch.Tensor)
    own = str(x.device) if is_tensor else "cpu"
    place = _device(own if device is None else device, plan)
    try:
        with torch.no_grad(), _threads(threads):
            tensor = _tensor(x, plan.dtype, place)
            values = _calculate(tensor, plan, state, place, steps=steps)
            if grad_output is not None:
                values |= _gradients(tensor, plan, state, _tensor(grad_output, plan.dtype, place))
    except _OUT_OF_MEMORY:
        raise UnavailableError(f"not enough memory on device {place} for shape {plan.shape}") from None
    except (ValueError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"torch refuses: {reason}") from None
    after = values.pop("after", state)
    output = values.pop("output")
    if not is_tensor:
        rounded = {name: _array(values.pop(name), plan.dtype) for name in ("grad_input",) if name in values}
        values = {name: value.double().cpu().numpy() for name, value in values.items()} | rounded
        output = _array(output, plan.dtype)
        after = _state_arrays(after)
    if out is not None:
        out[...] = output
    return Result(
        plan=plan,
        named=values,
        output=output if out is None else out,
        before=state,
        after=after,
        backend="torch",
        device=str(place),
        warnings=_warnings(output),
    )


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch on so many threads of the CPU, a setting of the whole process, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refuse(plan: Plan) -> None:
    """What no function of torch computes is refused by name, not done another way."""
    if plan.is_free:
        torch_further.function(plan)  # type: ignore[arg-type]
        return
    if plan.kind.name not in _KINDS:
        raise InputError(f"torch has no {plan.kind.title}; that needs the numpy backend")
    if plan.renorm:
        raise InputError("torch has no batch renormalization; --renorm needs the numpy backend")
    if plan.virtual_batch:
        raise InputError("torch has no virtual batches; --virtual-batch needs the numpy backend")
    if plan.ddof:
        raise InputError("torch normalizes with the biased variance only; --ddof 1 needs the numpy backend")
    if plan.updates_running and not plan.running_ddof:
        raise InputError("torch's running variance is the unbiased one; --running-ddof 0 needs the numpy backend")
    if plan.layout.is_interleaved:
        raise InputError(
            f"torch has no interleaved groups; the {plan.convention.name} convention needs the numpy backend"
        )
    if plan.kind.name == "instance" and plan.updates_running and plan.momentum is None:
        raise InputError(
            "torch's InstanceNorm never moves its statistics with momentum none; that needs the numpy backend"
        )


def _device(name: str, plan: Plan) -> torch.device:
    try:
        place = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        raise InputError(f"device {repr_of(name)} is not known; use cpu, cuda, cuda:1 or mps") from None
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    found += ["mps"] if torch.backends.mps.is_available() else []
    index = place.index or 0
    wanted = f"{place.type}:{index}" if place.type == "cuda" else place.type
    if wanted not in found:
        raise UnavailableError(f"device {name} is not available here; torch finds {', '.join(found)}")
    if place.type == "mps" and plan.dtype == "float64":
        raise InputError("device mps has no float64; give --dtype float32")
    return place


def _calculate(x: torch.Tensor, plan: Plan, state: State, place: torch.device, *, steps: bool) -> dict[str, Any]:
    """The output, the statistics and the state after, as tensors."""
    if plan.is_free:
        return {"output": torch_further.function(plan)(x, _given(state, plan, place))}  # type: ignore[arg-type]
    weight, bias = _copies(plan, place, state.weight, state.bias)
    running = _running(plan, state, place)
    values: dict[str, Any] = {"output": _function(x, plan, state, running, weight, bias)}
    values |= _statistics(x, plan, running)
    if plan.updates_running:
        tracked = state.num_batches_tracked + 1
        mean, var = running
        values["after"] = replace(state, running_mean=mean, running_var=var, num_batches_tracked=tracked)
    if steps:
        values["normalized"] = _function(x, plan, state, _running(plan, state, place), None, None)
        if plan.kind.centers:
            average = values["mean"].reshape(plan.layout.stats_view)
            values["centered"] = (x.reshape(plan.layout.view) - average).reshape(plan.shape)
    return values


def _gradients(x: torch.Tensor, plan: Plan, state: State, grad_output: torch.Tensor) -> dict[str, torch.Tensor]:
    """What autograd makes of the gradient of the output; weight and bias have one where the layer has them."""
    if plan.is_free:
        return _free_gradients(x, plan, state, grad_output)
    like = {"size": plan.weight_shape, "dtype": x.dtype, "device": x.device}
    names = [name for name in ("weight", "bias") if plan.affine and name in plan.kind.options]
    given = {name: torch.full(fill_value=number, **like) for name, number in plan.neutral.items()}
    given |= {name: _tensor(v, plan.dtype, x.device) for name in names if (v := getattr(state, name)) is not None}
    running = _running(plan, state, x.device)
    with torch.enable_grad():
        leaves = {"input": x.detach().clone()} | {name: given[name].clone() for name in names}
        for leaf in leaves.values():
            leaf.requires_grad_()
        output = _function(leaves["input"], plan, state, running, leaves.get("weight"), leaves.get("bias"))
        found = torch.autograd.grad(output, [*leaves.values()], grad_output)
    return {f"grad_{name}": values for name, values in zip(leaves, found, strict=True)} | {"grad_output": grad_output}


def _copies(plan: Plan, place: torch.device, *arrays: Any) -> tuple[torch.Tensor | None, ...]:
    return tuple(None if values is None else _tensor(values, plan.dtype, place).clone() for values in arrays)


def _running(plan: Plan, state: State, place: torch.device) -> tuple[torch.Tensor | None, ...]:
    """The running statistics, which torch's function may write to; nothing where none are kept."""
    arrays = (state.running_mean, state.running_var) if plan.track_running_stats else (None, None)
    return _copies(plan, place, *arrays)


def _given(state: State, plan: Plan, place: torch.device) -> dict[str, torch.Tensor]:
    """The tensors that come with the input."""
    return {one.name: _tensor(state.tensor(one.name), plan.dtype, place) for one in plan.tensors}


def _free_gradients(x: torch.Tensor, plan: Plan, state: State, grad_output: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same where the lines are none of the family's: no gradient for what the output does not vary with."""
    given = _given(state, plan, x.device)
    with torch.enable_grad():
        leaves = {"x": x.detach().clone()} | given
        for leaf in leaves.values():
            leaf.requires_grad_()
        output = torch_further.function(plan)(leaves["x"], {name: leaves[name] for name in given})  # type: ignore[arg-type]
        found = torch.autograd.grad(output, [*leaves.values()], grad_output, allow_unused=True)
    named = {plan.gradient_name(name): slope for name, slope in zip(leaves, found, strict=True) if slope is not None}
    return named | {"grad_output": grad_output}


def _function(
    x: torch.Tensor,
    plan: Plan,
    state: State,
    running: tuple[torch.Tensor | None, ...],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """The output: torch's function with weight and bias, or around it what it does not do with them."""
    apart = plan.cast is not None or plan.layout.is_per_sample
    if not (apart or plan.weight_offset) or (weight is None and bias is None):
        return _called(x, plan, state, running, weight, bias)
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (None if values is None else values.to(wide) for values in (weight, bias))
    weight = None if weight is None else weight + plan.weight_offset
    if not apart:
        return _called(x.to(wide), plan, state, running, weight, bias).to(x.dtype)
    inside = x if plan.cast else x.to(wide)
    normalized = _called(inside, plan, state, running, None, None).to(wide).reshape(plan.layout.view)
    if weight is not None:
        normalized = normalized * weight.reshape(plan.layout.channels_view)
    if bias is not None:
        normalized = normalized + bias.reshape(plan.layout.channels_view)
    return normalized.reshape(plan.shape).to(x.dtype)


def _called(
    x: torch.Tensor,
    plan: Plan,
    state: State,
    running: tuple[torch.Tensor | None, ...],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """The one call of torch.nn.functional that the kind is; the running statistics are updated in place."""
    axis, layout = plan.layout.channel_axis, plan.layout
    momentum = plan.new_weight(state.num_batches_tracked)
    calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "layer": lambda x: _LAYER_NORM(x, plan.normalized_shape, weight, bias, plan.eps),
        "rms": lambda x: _RMS_NORM(x, plan.normalized_shape, weight, plan.eps),
        "group": lambda x: _GROUP_NORM(x.contiguous(), layout.groups, weight, bias, plan.eps),
        "batch": lambda x: _BATCH_NORM(x, *running, weight, bias, plan.source == "batch", momentum, plan.eps),
        "instance": lambda x: _INSTANCE_NORM(x, *running, weight, bias, plan.source == "batch", momentum, plan.eps),
    }
    call = calls[plan.kind.name]
    if axis is None:
        return call(x)
    if not layout.is_batched:
        return call(x.movedim(axis, 0).unsqueeze(0)).squeeze(0).movedim(0, axis)
    return call(x.movedim(axis, 1)).movedim(1, axis)


def _statistics(x: torch.Tensor, plan: Plan, running: tuple[torch.Tensor | None, ...]) -> dict[str, torch.Tensor]:
    layout = plan.layout
    view = x.reshape(layout.view)
    view = view.float() if view.dtype in (torch.float16, torch.bfloat16) else view
    if not plan.kind.centers:
        square = view.square().mean(layout.axes)
        named = {"mean_square": square, "rstd": torch.rsqrt(square + plan.eps)}
    else:
        if plan.source == "running":
            spread = [layout.channels_view, layout.stats_view]
            mean, var = (values.reshape(spread[0]).expand(spread[1]) for values in running if values is not None)
        else:
            var, mean = torch.var_mean(view, layout.axes, correction=0)
        named = {"mean": mean, "var": var, "rstd": torch.rsqrt(var + plan.eps)}
        if plan.source == "batch" and layout.count > 1:
            named["var_unbiased"] = torch.var(view, layout.axes, correction=1)
    return {name: value.reshape(layout.stats_shape) for name, value in named.items()}


def _tensor(values: Any, dtype: str, place: torch.device) -> torch.Tensor:
    """The values as a tensor of the dtype on the device; an array is copied, for torch may write to it."""
    if not isinstance(values, torch.Tensor):
        array = np.array(values, order="C")
        if str(array.dtype) == "bfloat16":
            values = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            values = torch.from_numpy(array)
    tensor: torch.Tensor = values.detach().to(device=place, dtype=getattr(torch, dtype))
    return tensor


def _array(tensor: torch.Tensor, dtype: str) -> Any:
    tensor = tensor.cpu().contiguous()
    if dtype != "bfloat16":
        return tensor.numpy()
    import ml_dtypes  # only for bfloat16, which NumPy lacks

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _state_arrays(state: State) -> State:
    arrays = {
        name: value.double().cpu().numpy()
        for name in ("running_mean", "running_var")
        if isinstance(value := getattr(state, name), torch.Tensor)
    }
    return replace(state, **arrays)


def _warnings(output: Any) -> tuple[str, ...]:
    finite = torch.isfinite(output) if isinstance(output, torch.Tensor) else np.isfinite(output)
    bad = int((~finite).sum())
    return (f"torch's output holds {bad} NaN or infinite values",) if bad else ()
