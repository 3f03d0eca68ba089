"""PyTorch's own functions for the kinds beyond the family that it has: none computes from a formula of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.spectral_norm import SpectralNorm

from normcli.errors import InputError
from normcli.planning.free import FreePlan
from normcli.planning.settled import unlike

Tensors = Mapping[str, torch.Tensor]


def function(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    """The function of the input and of the tensors that come with it; InputError, by name, where torch has none."""
    return _FUNCTIONS[_checked(plan).kind.name](plan)


def _checked(plan: FreePlan) -> FreePlan:
    if plan.kind.name not in _FUNCTIONS:
        raise InputError(f"torch has no {plan.kind.title}; that needs the numpy backend")
    if "torch" in plan.kind.profiles and (what := unlike(plan, "torch")):
        raise InputError(f"torch's {plan.kind.title} has another {what}; that needs the numpy backend")
    return plan


def _lp(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    axes: Any = plan.layout.axes if len(plan.layout.axes) > 1 else plan.layout.axes[0]
    return lambda x, given: functional.normalize(x, p=plan.constants["p"], dim=axes, eps=plan.constants["eps"])


def _one_axis(plan: FreePlan) -> int:
    if len(plan.layout.axes) != 1:
        raise InputError(f"torch's {plan.kind.title} goes over one axis; more need the numpy backend")
    return plan.layout.axes[0]


def _softmax(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    axis = _one_axis(plan)
    return lambda x, given: functional.softmax(x, axis)


def _logsoftmax(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    axis = _one_axis(plan)
    return lambda x, given: functional.log_softmax(x, axis)


def _pixel(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    [axis] = plan.layout.axes
    size = (plan.shape[axis],)
    return lambda x, given: functional.rms_norm(x.movedim(axis, -1), size, None, plan.constants["eps"]).movedim(
        -1, axis
    )


def _lrn(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    [axis], own = plan.layout.axes, plan.constants

    def call(x: torch.Tensor, given: Tensors) -> torch.Tensor:
        seen = x.movedim(axis, 1)
        seen = seen if seen.ndim > 2 else seen[..., None]  # it asks for a position
        found = functional.local_response_norm(seen, int(own["size"]), own["alpha"], own["beta"], own["k"])
        return found.reshape(x.movedim(axis, 1).shape).movedim(1, axis)

    return call


def _weight(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    [axis] = plan.dimensions("channels")
    sizes = tuple(size if place == axis else 1 for place, size in enumerate(plan.shape))

    def call(x: torch.Tensor, given: Tensors) -> torch.Tensor:
        own = given.get("weight", torch.ones(plan.shape[axis], dtype=x.dtype, device=x.device))
        return torch._weight_norm(x, own.reshape(sizes), axis)

    return call


def _spectral(plan: FreePlan) -> Callable[[torch.Tensor, Tensors], torch.Tensor]:
    """The hook of torch.nn.utils.spectral_norm, in training, on a weight and a vector that are given."""

    def call(x: torch.Tensor, given: Tensors) -> torch.Tensor:
        hook = SpectralNorm("weight", int(plan.constants["iterations"]), 0, plan.constants["eps"])
        second = x.new_zeros(x[0].numel())  # written to
        module: Any = SimpleNamespace(weight_orig=x, weight_u=given["u"].detach().clone(), weight_v=second)
        found: torch.Tensor = hook.compute_weight(module, do_power_iteration=True)
        return found

    return call


_FUNCTIONS: Mapping[str, Callable[[FreePlan], Callable[[torch.Tensor, Tensors], torch.Tensor]]] = {
    "lp": _lp,
    "softmax": _softmax,
    "logsoftmax": _logsoftmax,
    "pixel": _pixel,
    "lrn": _lrn,
    "weight": _weight,
    "spectral": _spectral,
}  # fmt: skip
