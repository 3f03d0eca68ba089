"""The derived tolerance against the Jacobian by finite differences, and against what it must and must not allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from normcli.calculate import initial_state, run
from normcli.plan import plan
from normcli.result import State
from normcli.slips import Reference, right
from normcli.text import EXACT
from normcli.tolerance import Printed, Rounding, absolute_row_sums, precision_of, propagated

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


def by_differences(case: str, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
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

    worked = right(Reference(x), settled, state).done()
    return propagated(worked, Rounding(**{source: off}), "float64"), summed_differences(values, off, results)


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


def test_bound_lies_above_the_sharp_sum() -> None:
    x = RNG.normal(size=(6, 3))
    settled = plan("batch", x.shape, "float64", {})
    worked = right(Reference(x), settled, initial_state(settled, {})).done()
    sharp, bound = (propagated(worked, Rounding(x=5e-5), "float64", sharp=sharp) for sharp in (True, False))
    assert (bound["output"] >= sharp["output"]).all()


# --- what was printed -----------------------------------------------------------------------------

HALF_UNITS = {
    "four decimals": ([0.5653, 0.0322], [4, 4], [5e-5, 5e-5]),
    "zeros dropped by JSON": ([-0.9258, -1.2], [4, 1], [5e-5, 5e-5]),
    "whole numbers": ([3.0, 7.0], [EXACT, EXACT], [0.0, 0.0]),
    "a whole number among decimals": ([3.0, 0.25], [EXACT, 2], [0.0, 5e-3]),
    "scientific notation": ([1.2345e-5, 3.4, 2.5e-3], [9, 4, 7], [5e-10, 5e-5, 5e-8]),
    "thousands": ([1.5e3], [-2], [50.0]),
}


@pytest.mark.parametrize(("values", "decimals", "expected"), HALF_UNITS.values(), ids=HALF_UNITS)
def test_half_a_unit_of_the_last_digit_given(values: list[float], decimals: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(Printed(np.array(values), np.array(decimals)).half_units, expected)


def test_a_bare_zero_in_an_answer_was_rounded_like_its_neighbours() -> None:
    answer = Printed(np.array([-0.9258, 0.0]), np.array([4, EXACT]))
    assert answer.half_units_of_answer.tolist() == [5e-5, 5e-5]


def test_an_answer_of_whole_numbers_is_exact() -> None:
    assert Printed.exactly(np.array([1.0, -1.0])).half_units_of_answer.tolist() == [0.0, 0.0]


def test_decimals_can_be_overridden() -> None:
    assert Printed.exactly(np.array([1.0])).rounded_to(2).half_units.tolist() == [5e-3]


PRECISIONS = {
    "four decimals": (1.3887, 4, "float64", "float32"),
    "ten decimals of float64": (1.3887286013, 10, "float64", "float64"),
    "all digits of a float32": (float(np.float32(1.3887286)), 16, "float64", "float32"),
    "float16 printed": (float(np.float16(1.389)), 8, "float16", "float16"),
    "float16 input, finer answer": (1.38872, 5, "float16", "float32"),
}


@pytest.mark.parametrize(("value", "decimals", "dtype", "expected"), PRECISIONS.values(), ids=PRECISIONS)
def test_precision_that_an_answer_may_come_from(value: float, decimals: int, dtype: str, expected: str) -> None:
    assert precision_of(Printed(np.array([value]), np.array([decimals])), dtype) == expected
