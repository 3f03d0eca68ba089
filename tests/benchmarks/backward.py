"""How fast the backward pass in compiled loops is, as a ratio to torch's on the same CPU with the same threads.

Both have the statistics of a forward pass that is done: torch by aten's native_*_norm_backward. RMSNorm and
InstanceNorm have no such function: there it is torch.autograd.grad, without the forward pass. The two take turns in
one process; the quickest of the rounds counts, with a fresh output for both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from speed import PAUSE, timed
from torch.nn import functional

from normcli.arithmetic import large_backward, loops
from normcli.arithmetic.order import axes_of, in_order
from normcli.arithmetic.threads import cores
from normcli.calculate import initial_state
from normcli.floats import as_float_array
from normcli.planning.plan import plan

ROUNDS = 5
FAMILY: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("layer", (16, 64, 256, 256), {"normalized_shape": (64, 256, 256)}),
    ("layer", (1_000_000, 64), {}),
    ("layer", (4096, 4096), {}),
    ("layer", (64, 1_000_000), {}),
    ("rms", (4096, 4096), {}),
    ("batch", (1_000_000, 64), {}),
    ("batch", (32, 256, 56, 56), {}),
    ("batch", (8, 3, 1024, 1024), {}),
    ("group", (32, 256, 56, 56), {"groups": 32}),
    ("instance", (32, 128, 56, 56), {"affine": True}),
]
aten = torch.ops.aten


def torch_call(
    kind: str, x: torch.Tensor, g: torch.Tensor, weight: torch.Tensor, options: dict[str, Any]
) -> Callable[[], Any]:
    """torch's backward pass for the kind, ready to be called."""
    bias, training, all_three = torch.zeros_like(weight), True, [True, True, True]
    if kind == "layer":
        shape = list(weight.shape)
        _, mean, rstd = aten.native_layer_norm(x, shape, weight, bias, 1e-5)
        return lambda: aten.native_layer_norm_backward(g, x, shape, mean, rstd, weight, bias, all_three)
    if kind == "batch":
        _, mean, rstd = aten.native_batch_norm(x, weight, bias, None, None, training, 0.1, 1e-5)
        return lambda: aten.native_batch_norm_backward(g, x, weight, None, None, mean, rstd, training, 1e-5, all_three)
    if kind == "group":
        sizes = (len(x), x.shape[1], x[0, 0].numel(), options["groups"])
        _, mean, rstd = aten.native_group_norm(x, weight, bias, *sizes, 1e-5)
        return lambda: aten.native_group_norm_backward(g, x, mean, rstd, weight, *sizes, all_three)
    leaves = [values.requires_grad_() for values in (x, weight, bias)[: 2 if kind == "rms" else 3]]
    if kind == "rms":
        y = functional.rms_norm(x, list(weight.shape), weight)
    else:
        y = functional.instance_norm(x, weight=weight, bias=bias)
    return lambda: torch.autograd.grad(y, leaves, grad_outputs=g, retain_graph=True)


def ratio(kind: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str, last: bool) -> tuple[float, float]:
    """The times of ours and of torch's, in ns per element."""
    random = torch.Generator().manual_seed(1)
    parameters = options.get("normalized_shape", shape[-1:] if kind in ("layer", "rms") else (shape[1],))
    x, g, weight = (
        torch.randn(size, generator=random).to(getattr(torch, dtype)) for size in (shape, shape, parameters)
    )
    arrays = [as_float_array(values) for values in (x, g)]
    if last:
        x, g = (values.contiguous(memory_format=torch.channels_last) for values in (x, g))
        order = (0, 3, 1, 2)
        arrays = [np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(order) for array in arrays]
    settled = plan(kind, shape, dtype, options)
    state = replace(initial_state(settled, options), weight=as_float_array(weight))
    library, axes = loops.compiled(), axes_of(settled.layout, arrays[0].strides)
    assert library is not None
    forward = loops.Work(library, settled, state, axes, in_order(arrays[0], settled.layout, axes), None, {})
    forward.through(cores())

    def ours() -> object:
        return large_backward.gradients(forward, state, *arrays, np.empty_like(arrays[0]), None)

    theirs = torch_call(kind, x, g, weight, options)
    assert ours() is not None
    times = [math.inf, math.inf]
    for _ in range(ROUNDS):
        time.sleep(PAUSE)
        times = [min(taken, timed(action)) for taken, action in zip(times, (ours, theirs), strict=True)]
    return times[0] / x.numel() * 1e9, times[1] / x.numel() * 1e9


def main(dtypes: list[str]) -> None:
    """Print the table."""
    torch.set_num_threads(cores())
    print(f"backward, ns per element, {cores()} threads, {torch.get_num_threads()} of torch's {torch.__version__}")
    print("kind      shape                dtype     channels   ours  torch  ratio")
    ratios = []
    for dtype in dtypes:
        for kind, shape, options in FAMILY:
            for last in (False, True) if len(shape) == 4 and kind != "layer" else (False,):
                ours, theirs = ratio(kind, shape, options, dtype, last)
                ratios.append(ours / theirs)
                print(
                    f"{kind:9} {'x'.join(map(str, shape)):20} {dtype:9} {'last' if last else 'first':8} {ours:6.2f} "
                    f"{theirs:6.2f} {ratios[-1]:6.2f}",
                    flush=True,
                )
    print(f"geometric mean of the ratio {math.exp(np.mean(np.log(ratios))):.2f}, worst {max(ratios):.2f}")
