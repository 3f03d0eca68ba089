"""How fast the reference is, as a ratio to torch.nn.functional on the same CPU with the same threads.

The two take turns in one process; the quickest of the rounds counts. Ours is timed with a fresh output, as torch's
is, and into a preallocated one. Of every output a part is held against exact arithmetic in the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import normcli
from normcli.arithmetic import reference
from normcli.arithmetic.threads import cores
from normcli.calculate import initial_state
from normcli.floats import as_float_array, ulp
from normcli.planning.plan import plan

ROUNDS = 5
PAUSE = 0.02  # seconds after torch, whose threads keep the cores busy for a while, waiting for more to do
DTYPES = ("float32", "float16", "bfloat16", "float64")
BOUNDS = {"float64": 2.0}  # units in the last place; 0.5001 for the others
FAMILY: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("layer", (16, 64, 256, 256), {"normalized_shape": (64, 256, 256)}),
    ("layer", (1_000_000, 64), {}),
    ("layer", (64, 1_000_000), {}),
    ("batch", (1_000_000, 64), {}),
    ("batch", (64, 100_000), {}),
    ("batch", (32, 256, 56, 56), {}),
    ("batch", (8, 3, 1024, 1024), {}),
    ("group", (32, 256, 28, 28), {"groups": 32}),
    ("instance", (32, 64, 56, 56), {}),
    ("rms", (4096, 4096), {}),
]
SIZES = [  # elements, and groups of statistics, that differ by powers of ten
    ("layer", (100, 1000), {}),
    ("layer", (1000, 1000), {}),
    ("layer", (10_000, 1000), {}),
    ("layer", (100_000, 1000), {}),
    ("layer", (100, 1_000_000), {}),
    ("layer", (10_000, 10_000), {}),
    ("layer", (1_000_000, 100), {}),
    ("batch", (1_000_000, 100), {}),
    ("batch", (100, 1_000_000), {}),
]


def torch_call(kind: str, x: torch.Tensor, options: dict[str, Any]) -> Callable[[], torch.Tensor]:
    """torch's function for the kind, ready to be called."""
    shape = options.get("normalized_shape", x.shape[-1:])
    return {
        "layer": lambda: functional.layer_norm(x, shape),
        "rms": lambda: functional.rms_norm(x, shape),
        "batch": lambda: functional.batch_norm(x, None, None, training=True),
        "instance": lambda: functional.instance_norm(x),
        "group": lambda: functional.group_norm(x, options.get("groups", 1)),
    }[kind]


def family(dtypes: list[str]) -> Iterator[tuple[str, tuple[int, ...], dict[str, Any], str, bool]]:
    """Every kind, shape and dtype, and whether the channels lie last."""
    for dtype in dtypes:
        for kind, shape, options in FAMILY:
            for last in (False, True) if len(shape) == 4 and kind != "layer" else (False,):
                yield kind, shape, options, dtype, last


def timed(action: Callable[[], Any]) -> float:
    """The seconds that an action takes."""
    start = time.perf_counter()
    result = action()
    taken = time.perf_counter() - start
    del result
    return taken


def ratio(kind: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str, last: bool) -> dict[str, float]:
    """The times in ns per element, and the largest error of a part of the output in units in the last place."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    array, theirs = as_float_array(x), torch_call(kind, x, options)
    if last and dtype == "bfloat16":  # converted, and so in C order
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    given = options | ({"track_running_stats": False} if kind == "batch" else {})
    out = np.empty_like(array)
    actions = {
        "fresh": lambda: normcli.normalize(array, kind, **given),
        "out": lambda: normcli.normalize(array, kind, out=out, **given),
        "torch": theirs,
    }
    times = {name: min(timed(action) for _ in range(1)) for name, action in actions.items()}
    for _ in range(ROUNDS):
        time.sleep(PAUSE)
        times |= {name: min(times[name], timed(action)) for name, action in actions.items()}
    return {name: taken / array.size * 1e9 for name, taken in times.items()} | {"ulp": error(array, out, kind, given)}


def error(x: np.ndarray[Any, Any], output: np.ndarray[Any, Any], kind: str, given: dict[str, Any]) -> float:
    """How far some whole groups of an output are from double-double arithmetic."""
    if kind == "batch":
        kept = max(1, 2**20 * x.shape[1] // x.size)
        x, output = x[:, -kept:], output[:, -kept:]
    else:
        kept = max(1, 2**20 * len(x) // x.size)
        x, output = x[-kept:], output[-kept:]
    settled = plan(kind, x.shape, str(x.dtype), given)
    wide = replace(settled, dtype="float64")
    exact = reference.by_lines(x.astype(np.float64), wide, initial_state(settled, given)).output
    return float((np.abs(output.astype(np.float64) - exact) / ulp(exact, str(x.dtype))).max())


def main(dtypes: list[str]) -> None:
    """Print the table of the family, and that of sizes."""
    torch.set_num_threads(cores())
    print(f"ns per element, {cores()} threads, {torch.get_num_threads()} of torch's {torch.__version__}")
    print("kind      shape                dtype     channels  fresh   out=  torch  ratio      ulp")
    ratios: dict[str, list[float]] = {}
    for kind, shape, options, dtype, last in family(dtypes):
        found = ratio(kind, shape, options, dtype, last)
        ratios.setdefault(dtype, []).append(found["fresh"] / found["torch"])
        print(
            f"{kind:9} {'x'.join(map(str, shape)):20} {dtype:9} {'last' if last else 'first':8} {found['fresh']:6.2f} "
            f"{found['out']:6.2f} {found['torch']:6.2f} {ratios[dtype][-1]:6.2f} {found['ulp']:8.5f}",
            flush=True,
        )
        assert found["ulp"] <= BOUNDS.get(dtype, 0.5001), "the bound on accuracy is broken"
    ratios["all"] = [ratio for found in ratios.values() for ratio in found]
    for name, those in ratios.items():
        print(f"{name:9} geometric mean of the ratio {math.exp(np.mean(np.log(those))):.2f}, worst {max(those):.2f}")
    print("\nns per element of float32, by the number of elements and of groups")
    for kind, shape, options in SIZES:
        found = ratio(kind, shape, options, "float32", last=False)
        groups = shape[0] if kind == "layer" else shape[1]
        print(f"{kind:9} {math.prod(shape):>11,} elements {groups:>9,} groups {found['out']:6.2f}", flush=True)
