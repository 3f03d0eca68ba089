"""What a call on a small tensor costs: microseconds for 1000 elements of float32, beside torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from speed import timed, torch_call

import normcli

CALLS = 3000
MOST = 30.0  # the goal, in microseconds
SMALL: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("layer", (10, 100), {}), ("rms", (10, 100), {}), ("batch", (10, 100), {}), ("instance", (2, 5, 100), {}),
    ("instance", (2, 5, 100), {"track_running_stats": True}), ("group", (2, 10, 50), {"groups": 5}),
]  # fmt: skip


def main(calls: int = CALLS) -> None:
    """Print a line for each kind."""
    print("microseconds a call of 1000 elements, float32\nkind      normcli  torch")
    for kind, shape, options in SMALL:
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        theirs = torch_call(kind, torch.from_numpy(x), options)
        ours = min(timed(lambda: normcli.normalize(x, kind, **options)) for _ in range(calls)) * 1e6  # noqa: B023
        other = min(timed(theirs) for _ in range(calls)) * 1e6
        met = "met" if ours <= MOST else "not met"
        print(f"{kind:9} {ours:7.1f} {other:6.1f}  at most {MOST:.0f}: {met}", flush=True)
