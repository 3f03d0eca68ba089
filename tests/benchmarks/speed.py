"""How fast the reference is, as a ratio to torch.nn.functional on the same CPU with the same threads.

Run it by hand, on a quiet machine; dtypes may be named:

    python tests/benchmarks/speed.py float32 float16

The two take turns in one process, each writing a fresh output; the quickest of the rounds counts. That every
output is rounded once is checked by tests/test_kernel.py.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import normcli
from normcli.calculate import as_float_array
from normcli.kernel import cores

ROUNDS = 4
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


def main(dtypes: list[str]) -> None:
    torch.set_num_threads(cores())
    ratios = []
    print(f"{cores()} threads\n{'kind':9} {'shape':20} {'dtype':9} {'normcli':>8} {'torch':>8}  ns per element   ratio")
    for dtype in dtypes:
        for kind, shape, options in FAMILY:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype))
            array, theirs = as_float_array(x), torch_call(kind, x, options)
            given = options | ({"track_running_stats": False} if kind == "batch" else {})
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(ROUNDS):
                start = time.perf_counter()
                output = normcli.normalize(array, kind, **given).output
                middle = time.perf_counter()
                other = theirs()
                times["ours"].append(middle - start)
                times["theirs"].append(time.perf_counter() - middle)
                del output, other
            ours, torchs = (min(taken) / array.size * 1e9 for taken in times.values())
            ratios.append(ours / torchs)
            named = "x".join(str(size) for size in shape)
            print(f"{kind:9} {named:20} {dtype:9} {ours:8.2f} {torchs:8.2f} {'':15} {ours / torchs:7.2f}", flush=True)
    print(f"geometric mean of the ratio {math.exp(np.mean(np.log(ratios))):.2f}, worst {max(ratios):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["float32"])
