"""The derived tolerance against the Jacobian by finite differences, and against what it must and must not allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from normcli.arithmetic.result import State
from normcli.calculate import initial_state, run
from normcli.planning.plan import plan
from normcli.teaching.figures import Figures
from normcli.teaching.sheet import Sheet
from normcli.teaching.tolerance import Moved, Rounding, absolute_row_sums, at_most, computed, propagated
from normcli.teaching.work import right

RNG = np.random.default_rng(7)
PARAMETERS = {
    "weight": np.array([1.7, -0.6, 0.4]),
    "bias": np.array([0.3, -1.2, 2.0]),
    "running_mean": np.array([0.4, -0.7, 1.1]),
    "running_var": np.array([0.5, 2.3, 1.4]),
}
AFFINE = {name: PARAMETERS[name] for name in ("weight", "bias")}

CASES = {
    "batch": ("batch", (5, 3), PARAMETERS),
    "batch_spatial": ("batch", (2, 3, 4), PARAMETERS | {"momentum": 0.3}),
    "batch_ddof1": ("batch", (4, 3), PARAMETERS | {"ddof": 1, "running_ddof": 0}),
    "batch_large_eps": ("batch", (4, 3), PARAMETERS | {"eps": 0.5}),
    "batch_eval": ("batch", (4, 3), PARAMETERS | {"mode": "eval"}),
    "instance": ("instance", (2, 3, 5), AFFINE),
    "instance_tracking": ("instance", (2, 3, 5), PARAMETERS),
    "instance_eval": ("instance", (2, 3, 5), PARAMETERS | {"mode": "eval"}),
    "layer": ("layer", (4, 3), AFFINE),
    "group": ("group", (2, 3, 4), AFFINE | {"groups": 1}),
    "group_interleaved": ("group", (2, 4, 3), {"groups": 2, "convention": "mlx", "channel_axis": 1}),
    "rms": ("rms", (4, 3), {"weight": PARAMETERS["weight"], "eps": 1e-3}),
}
SOURCES = ("x", "weight", "bias", "running_mean", "running_var")
QUANTITIES = (
    "mean", "mean_square", "var", "var_unbiased", "rstd", "normalized", "output", "running_mean", "running_var",
)  # fmt: skip


def quantities(x: np.ndarray, settled: Any, state: State) -> dict[str, np.ndarray]:
    result = run(x, settled, state, steps=True)
    return {name: np.asarray(getattr(result, name)) for name in QUANTITIES if getattr(result, name) is not None}


def summed_differences(
    values: np.ndarray, off: np.ndarray, results: Callable[[np.ndarray], dict[str, Any]]
) -> dict[str, Any]:
    """sum_j |d quantity / d value_j| * off_j for every quantity, each derivative from two calculations."""
    step, total = 1e-5, dict.fromkeys(results(values), 0.0)
    for j in np.ndindex(values.shape):
        moved = np.zeros(values.shape)
        moved[j] = step
        above, below = results(values + moved), results(values - moved)
        for name in total:
            total[name] = total[name] + np.abs(above[name] - below[name]) / (2 * step) * off[j]
    return total


def by_differences(case: str, source: str) -> tuple[Moved, dict[str, Any]]:
    kind, shape, options = CASES[case]
    x = np.random.default_rng(3).normal(0.7, 1.3, shape)
    settled = plan(kind, shape, "float64", options)
    state = initial_state(settled, options)
    values = x if source == "x" else np.asarray(getattr(state, source))
    off = np.random.default_rng(4).uniform(1e-4, 3e-4, values.shape)

    def results(changed: np.ndarray) -> dict[str, np.ndarray]:
        if source == "x":
            return quantities(changed, settled, state)
        return quantities(x, settled, replace(state, **{source: changed}))

    worked = Figures(right(Sheet(x), settled, state))
    return propagated(worked, Rounding(**{source: off})), summed_differences(values, off, results)


HAVING = [(case, source) for case in CASES for source in SOURCES if source == "x" or source in CASES[case][2]]


@pytest.mark.parametrize(("case", "source"), HAVING, ids=[f"{case}-{source}" for case, source in HAVING])
def test_propagation_is_the_jacobian_of_finite_differences(case: str, source: str) -> None:
    propagation, differences = by_differences(case, source)
    np.testing.assert_allclose(
        np.concatenate([np.ravel(propagation[name]) for name in differences]),
        np.concatenate([np.ravel(differences[name]) for name in differences]),
        rtol=1e-6,
        atol=1e-13,
    )


@pytest.mark.parametrize("h", [0.0, 0.2], ids=["rms", "centered"])
def test_row_sums_are_those_of_the_whole_matrix(h: float) -> None:
    a, u = RNG.normal(size=(3, 50)), RNG.uniform(0, 1, (3, 50))
    matrix = np.abs(np.eye(50) - h - a[:, :, None] * a[:, None, :])
    np.testing.assert_allclose(absolute_row_sums(a, u, h), (matrix * u[:, None, :]).sum(-1), rtol=1e-12)


def test_row_sums_of_a_constant_group_are_finite() -> None:
    np.testing.assert_allclose(absolute_row_sums(np.zeros((1, 4)), np.ones((1, 4)), 0.25), np.full((1, 4), 1.5))


def test_one_group_of_a_million_elements_needs_no_matrix() -> None:
    a = RNG.normal(size=(1, 1_000_000)) / 1000
    assert np.isfinite(absolute_row_sums(a, np.full(a.shape, 1e-4), 1e-6)).all()


@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_quick_bound_lies_above_rounding_and_arithmetic_together(case: str) -> None:
    kind, shape, options = CASES[case]
    settled = plan(kind, shape, "float64", options)
    worked = Figures(right(Sheet(RNG.normal(3, 1, shape)), settled, initial_state(settled, options)))
    rounding = Rounding(x=5e-5, **({"weight": 5e-3} if "weight" in options else {}))
    together = propagated(worked, rounding)["output"] + 2.0**-24 * computed(worked)["output"]
    assert at_most(worked, rounding, 2.0**-24) >= together.max()
