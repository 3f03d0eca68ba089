"""How fast the reference is, as a ratio to torch.nn.functional on the same CPU with the same threads.

They take turns in one process; the quickest of the rounds counts. Ours is timed with a fresh output, as torch's
is, and into a preallocated one: of that the share, the time of a copy of as many bytes into preallocated memory (the
quicker of torch's and NumPy's on all cores) by ours. Of every output a part is held against exact arithmetic in the
same run.
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
from normcli.arithmetic.threads import cores, parallel
from normcli.calculate import initial_state
from normcli.floats import as_float_array, ulp
from normcli.planning.plan import plan

ROUNDS = 5
CALLS = 100  # at most, in a round, of what takes little time
PAUSE = 0.02  # seconds after torch, whose threads keep the cores busy for a while, waiting for more to do
DTYPES = ("float32", "float16", "bfloat16", "float64")
BOUNDS = {"float64": 2.0}  # units in the last place; 0.5001 for the others
SMALL = DTYPES[:3]
MEAN, DTYPE_MEAN, WORST = 0.6, 0.9, 1.25  # goals for the ratio: over the family, over each dtype, for each shape
FAMILY: list[tuple[str, tuple[int, ...], dict[str, Any], tuple[str, ...]]] = [
    ("layer", (16, 64, 256, 256), {"normalized_shape": (64, 256, 256)}, DTYPES),
    ("layer", (1_000_000, 64), {}, DTYPES),
    ("layer", (64, 1_000_000), {}, DTYPES),
    ("layer", (2_000_000, 8), {}, DTYPES),
    ("layer", (100_000, 10), {}, DTYPES),
    ("layer", (10_000, 100), {}, DTYPES),
    ("layer", (10, 10_000), {}, ("float64",)),
    ("layer", (100, 1000), {}, ("float32",)),
    ("layer", (1000, 1000), {}, ("float32",)),
    ("layer", (300, 768), {}, SMALL),
    ("layer", (4096, 1024), {}, ("float16", "bfloat16")),
    ("batch", (1_000_000, 64), {}, DTYPES),
    ("batch", (64, 100_000), {}, DTYPES),
    ("batch", (100, 10_000), {}, DTYPES),
    ("batch", (10, 100_000), {}, DTYPES),
    ("batch", (2, 1_000_000), {}, ("float32",)),
    ("batch", (32, 256, 56, 56), {}, DTYPES),
    ("batch", (128, 512, 7, 7), {}, DTYPES),
    ("batch", (16, 64, 112, 112), {}, ("float16",)),
    ("batch", (8, 3, 1024, 1024), {}, DTYPES),
    ("group", (32, 256, 28, 28), {"groups": 32}, DTYPES),
    ("instance", (32, 64, 56, 56), {}, DTYPES),
    ("instance", (64, 512, 7, 7), {}, DTYPES),
    ("rms", (4096, 4096), {}, DTYPES),
    ("rms", (500, 4096), {}, SMALL),
    ("rms", (64, 4096), {}, SMALL),
    ("rms", (1000, 100), {}, ("float32",)),
]
HEADER = "kind      shape                dtype     channels  fresh   out=  torch   copy  ratio  share      ulp"


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
        for kind, shape, options, among in FAMILY:
            if dtype not in among:
                continue
            for last in (False, True) if len(shape) == 4 and kind != "layer" else (False,):
                yield kind, shape, options, dtype, last


def timed(action: Callable[[], Any]) -> float:
    """The seconds that an action takes."""
    start = time.perf_counter()
    result = action()
    taken = time.perf_counter() - start
    del result
    return taken


def measured(kind: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str, last: bool) -> dict[str, float]:
    """The times in ns per element, and the largest error of a part of the output in units in the last place."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    array, theirs = as_float_array(x), torch_call(kind, x, options)
    if last and dtype == "bfloat16":  # converted, and so in C order
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    given = options | ({"track_running_stats": False} if kind == "batch" else {})
    out = np.empty_like(array)
    target, source = np.ones((2, -(-array.nbytes // 8)))
    parts = list(zip(np.array_split(target, cores()), np.array_split(source, cores()), strict=True))
    to, of = torch.from_numpy(target), torch.from_numpy(source)
    actions: dict[str, Callable[[], Any]] = {
        "fresh": lambda: normcli.normalize(array, kind, **given),
        "out": lambda: normcli.normalize(array, kind, out=out, **given),
        "copy by NumPy": lambda: parallel(lambda part: np.copyto(*part), parts, cores()),
        "torch": theirs,
        "copy by torch": lambda: to.copy_(of),
    }
    times = {name: timed(action) for name, action in actions.items()}
    calls = max(1, min(CALLS, 10**7 // array.size))
    for _ in range(ROUNDS):
        time.sleep(PAUSE)
        times |= {name: min(times[name], *(timed(action) for _ in range(calls))) for name, action in actions.items()}
    found = {name: taken / array.size * 1e9 for name, taken in times.items()}
    found["copy"] = min(found.pop("copy by NumPy"), found.pop("copy by torch"))
    found |= {"ratio": found["fresh"] / found["torch"], "share": found["copy"] / found["out"]}
    return found | {"ulp": error(array, out, kind, given)}


def row(kind: str, shape: tuple[int, ...], dtype: str, last: bool, found: dict[str, float]) -> str:
    """A line of the table."""
    times = " ".join(f"{found[name]:6.2f}" for name in ("fresh", "out", "torch", "copy", "ratio"))
    order = "last" if last else "first"
    named = f"{kind:9} {'x'.join(map(str, shape)):20} {dtype:9} {order:8}"
    return f"{named} {times} {found['share']:6.0%} {found['ulp']:8.5f}"


def goal(what: str, found: float, most: float) -> None:
    """Say whether a goal is met."""
    print(f"{what:56} {found:7.2f}, at most {most:4.2f}: {'met' if found <= most else 'not met'}")


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
    """Print the table of the family, and what became of the goals."""
    torch.set_num_threads(cores())
    print(f"ns per element, {cores()} threads, {torch.get_num_threads()} of torch's {torch.__version__}")
    print(HEADER)
    ratios: dict[str, list[float]] = {}
    for kind, shape, options, dtype, last in family(dtypes):
        found = measured(kind, shape, options, dtype, last)
        ratios.setdefault(dtype, []).append(found["ratio"])
        print(row(kind, shape, dtype, last, found), flush=True)
        assert found["ulp"] <= BOUNDS.get(dtype, 0.5001), "the bound on accuracy is broken"
    every = np.concatenate(list(ratios.values()))
    for name, those in ratios.items():
        goal(f"geometric mean of the ratio, {name}", math.exp(np.mean(np.log(those))), DTYPE_MEAN)
    goal("geometric mean of the ratio, all of these", math.exp(np.mean(np.log(every))), MEAN)
    goal(f"worst ratio ({np.count_nonzero(every > WORST)} of {len(every)} are above the goal)", every.max(), WORST)
