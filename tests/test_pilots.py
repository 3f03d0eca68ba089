"""Sums about a pilot, the mean of a group's first few elements: each output is rounded once, however bad the pilot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from normcli.arithmetic import loops, reference
from normcli.calculate import initial_state
from normcli.floats import rounded, ulp
from normcli.planning.plan import plan

pytestmark = pytest.mark.skipif(loops.compiled() is None, reason="installed without a C compiler")

LAYOUTS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "rows": ("layer", (40, 300), {}),
    "short rows": ("layer", (700, 11), {}),
    "shorter rows": ("layer", (900, 5), {}),
    "a long row": ("layer", (1, 70_000), {}),
    "rows of many groups": ("batch", (40, 6, 49), {}),
    "columns": ("batch", (300, 37), {}),
    "short columns": ("batch", (3, 1100), {}),
    "channels last": ("batch", (30, 7, 11, 5), {"channel_axis": -1}),
    "groups of channels last": ("group", (9, 50, 12), {"groups": 3, "channel_axis": -1}),
    "instances of channels last": ("instance", (6, 90, 17), {"channel_axis": -1}),
    "squares alone": ("rms", (40, 300), {}),
}


def spiked(x: NDArray[Any], at: int, size: float) -> NDArray[Any]:
    """The same numbers with one in a thousand as large as this."""
    y = x.copy()
    y.ravel()[at::1009] = size
    return y


def columns_apart(x: NDArray[Any]) -> NDArray[Any]:
    """The first elements of each row far from the others."""
    y = x.copy()
    y[..., :8] = 1e6 + 1e5 * x[..., :8]
    return y


def rows_apart(x: NDArray[Any]) -> NDArray[Any]:
    """The first of all elements far from the others."""
    y = x.copy()
    y.ravel()[:296] = 1e6 + 1e5 * x.ravel()[:296]
    return y


NUMBERS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "around 0": lambda x: x,
    "of one sign": np.abs,
    "far from 0": lambda x: 1e4 + x,
    "at the last digits": lambda x: 1 + x * 2e-7,
    "constant but for some": lambda x: spiked(np.full_like(x, 0.1), 500, 0.7),
    "constant": lambda x: np.full_like(x, 0.1),
    "with large ones": lambda x: spiked(x, 0, 1e7),
    "the first of each row apart": columns_apart,
    "the first rows apart": rows_apart,
    "heavy tails": lambda x: np.sinh(4 * x),
    "up to the largest": lambda x: np.clip(x, -1, 1) * 3.3e38,
    "down to the least": lambda x: x * 1e-43,
}


def numbers(name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    x = NUMBERS[name](np.random.default_rng(len(name)).normal(size=shape))
    return rounded(np.clip(x, -6e4, 6e4) if dtype == "float16" else x, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_output_is_rounded_once(layout: str, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SMALL", 0)
    kind, shape, options = LAYOUTS[layout]
    x = numbers(name, shape, dtype)
    settled = plan(kind, shape, dtype, {**options, "eps": 1e-30})
    state = initial_state(settled, options)
    fast = reference.normalize(x, settled, state, out=None, threads=1)
    exact = reference.by_lines(x.astype(np.float64), replace(settled, dtype="float64"), state)
    error = np.abs(fast.output.astype(np.float64) - exact.output) / ulp(exact.output, dtype)
    assert error.max() <= 0.5001
    np.testing.assert_allclose(fast.rstd, exact.rstd, rtol=1e-14)
