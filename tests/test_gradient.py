"""The backward pass: its lines, derived from the forward ones, and what they give."""

from __future__ import annotations

from typing import Any

import pytest

from normcli.formula.extents import Extent
from normcli.formula.family import CENTERED, DDOF_1, EVAL, NO_AFFINE, RMS
from normcli.formula.gradient import gradient
from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import replaced
from normcli.formula.spelled import spelled
from normcli.planning.plan import plan

# --- the lines ------------------------------------------------------------------------------------

CHANNEL, PLACE, SAMPLE, INSIDE = (False, True), (True, False), (False, False), (True, True)
BATCH: Extent = frozenset({CHANNEL, PLACE})
LAYER: Extent = frozenset({SAMPLE, INSIDE})


def written(found: Lines) -> str:
    return "\n".join(f"{line.name} = {spelled(line.value)}" for line in found)


def test_the_backward_pass_of_batch_norm() -> None:
    assert (
        written(gradient(lines(CENTERED), BATCH))
        == """\
grad_normalized = grad_output * weight
grad_rstd = sum(grad_normalized * centered)
grad_var = -0.5 * grad_rstd * rstd^3
grad_centered = grad_normalized * rstd + 2 * grad_var * centered / n
grad_mean = -sum(grad_centered)
grad_input = grad_centered + grad_mean / n
grad_weight = sum(grad_output * normalized)
grad_bias = sum(grad_output)"""
    )


def test_the_backward_pass_of_rms_norm() -> None:
    assert (
        written(gradient(lines(RMS), LAYER))
        == """\
grad_normalized = grad_output * weight
grad_rstd = sum(grad_normalized * x)
grad_mean_square = -0.5 * grad_rstd * rstd^3
grad_input = grad_normalized * rstd + 2 * grad_mean_square * x / n
grad_weight = sum(grad_output * normalized, rest)"""
    )


def test_nothing_flows_into_statistics_that_are_given() -> None:
    assert (
        written(gradient(replaced(lines(CENTERED), EVAL), BATCH))
        == """\
grad_normalized = grad_output * weight
grad_centered = grad_normalized * rstd
grad_input = grad_centered
grad_weight = sum(grad_output * normalized)
grad_bias = sum(grad_output)"""
    )


CHANGED = {
    "ddof 1": (DDOF_1, "grad_centered = grad_normalized * rstd + 2 * grad_var_unbiased * centered / (n - 1)"),
    "no affine": (NO_AFFINE, "grad_normalized = grad_output"),
}


@pytest.mark.parametrize("option", CHANGED)
def test_an_option_changes_the_backward_pass(option: str) -> None:
    change, line = CHANGED[option]
    assert line in written(gradient(replaced(lines(CENTERED), change), BATCH)).splitlines()


OTHER_KINDS = {
    "a mean of sizes": (
        "mean = sum(x) / n; centered = x - mean; spread = sum(abs(centered)) / n;"
        "normalized = centered / (spread + eps); output = normalized * weight",
        """\
grad_normalized = grad_output * weight
grad_spread = -sum(grad_normalized * centered) / (spread + eps)^2
grad_centered = grad_normalized / (spread + eps) + grad_spread * sign(centered) / n
grad_mean = -sum(grad_centered)
grad_input = grad_centered + grad_mean / n
grad_weight = sum(grad_output * normalized)""",
    ),
    "reductions inside a formula": (
        "output = (x - mean(x)) / std(x)",
        """\
mean_1 = mean(x)
mean_2 = mean((x - mean_1)^2)
grad_mean_2 = -0.5 * sum(grad_output * (x - mean_1)) / sqrt(mean_2)^3
grad_mean_1 = -sum(grad_output) / sqrt(mean_2) - 2 * sum(x - mean_1) * grad_mean_2 / n
grad_input = grad_output / sqrt(mean_2) + 2 * grad_mean_2 * (x - mean_1) / n + grad_mean_1 / n""",
    ),
    "eps outside the root": (
        "square = sum(x^2) / n; root = sqrt(square); output = x / (root + eps)",
        """\
grad_root = -sum(grad_output * x) / (root + eps)^2
grad_square = 0.5 * grad_root / root
grad_input = grad_output / (root + eps) + 2 * grad_square * x / n""",
    ),
    "what does not vary counts n times": (
        "total = sum(x); twice = sum(total); output = x * weight + twice / 3",
        """\
grad_twice = sum(grad_output) / 3
grad_total = n * grad_twice
grad_input = grad_output * weight + grad_total
grad_weight = sum(grad_output * x)""",
    ),
}


@pytest.mark.parametrize("case", OTHER_KINDS)
def test_other_lines_have_a_backward_pass_without_another_word(case: str) -> None:
    text, expected = OTHER_KINDS[case]
    assert written(gradient(lines(text), BATCH)) == expected


PARAMETERS = [
    ("batch", (3, 4, 5), {}, "sum(grad_output)"),
    ("batch", (1, 1), {"mode": "eval"}, "sum(grad_output)"),
    ("instance", (3, 4, 5), {"affine": True}, "sum(grad_output, rest)"),
    ("instance", (4, 5), {"affine": True}, "sum(grad_output)"),
    ("layer", (3, 4), {}, "sum(grad_output, rest)"),
    ("layer", (4,), {}, "sum(grad_output, rest)"),
    ("layer", (1, 1), {}, "sum(grad_output, rest)"),
    ("group", (2, 4), {"groups": 2}, "sum(grad_output, rest)"),
    ("group", (1, 1, 2), {"groups": 1}, "sum(grad_output, rest)"),
]


@pytest.mark.parametrize(("kind", "shape", "options", "formula"), PARAMETERS)
def test_sums_go_by_what_a_dimension_is_for_whatever_its_size(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], formula: str
) -> None:
    assert written(plan(kind, shape, "float64", options).gradient_lines).endswith(f"grad_bias = {formula}")
