"""The backward pass: its lines, derived from the forward ones, and what they give."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import exact_gradients, ulps
from test_trace import drawn, untrue

from normcli import normalize
from normcli.errors import InputError
from normcli.floats import rounded
from normcli.formula import tex
from normcli.formula.extents import Extent
from normcli.formula.family import CENTERED, COURSES, DDOF_1, EVAL, NO_AFFINE, RMS
from normcli.formula.gradient import COURSE, gradient
from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import replaced
from normcli.formula.spelled import spelled
from normcli.planning.plan import plan
from normcli.showing.report import Detail, Report
from normcli.showing.sections import sections
from normcli.teaching.trace import in_stages, trace

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


# --- the numbers ----------------------------------------------------------------------------------

X = [[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]]
G = [[0.1, -0.2, 0.3, 0.4], [0.5, 0.1, -0.3, 0.2], [-0.2, 0.4, 0.1, 0.6]]
WEIGHT = [1.5, 0.5, 2, 1]
BY_HAND = {
    "grad_rstd": [2.25, 0.3, 1.6, -0.6],
    "grad_var": [-0.111594, -0.275561, -0.183711, 0.106065],
    "grad_mean": [-0.277746, -0.18371, -0.122474, -0.848526],
    "grad_input": [
        [0.125647, -0.000003, 0.326598, -0.07071],
        [0.031412, 0, -0.1633, -0.000001],
        [-0.157059, 0.000003, -0.163298, 0.070711],
    ],
    "grad_weight": [0.694364, 0.734841, 0.489897, -0.424263],
    "grad_bias": [0.4, 0.3, 0.1, 1.2],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_an_example_by_hand_to_every_digit(name: str) -> None:
    found = getattr(normalize(X, "batch", weight=WEIGHT, grad_output=G), name)
    np.testing.assert_allclose(found, BY_HAND[name], rtol=0, atol=0.5000001e-6)


CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "batch": ("batch", (3, 4, 2), {}),
    "batch, (N, C)": ("batch", (5, 3), {}),
    "batch, channels last": ("batch", (3, 2, 4), {"channel_axis": -1}),
    "batch, ddof 1": ("batch", (3, 4, 2), {"ddof": 1}),
    "batch, eval": ("batch", (3, 4, 2), {"mode": "eval"}),
    "batch, eval, ddof 1": ("batch", (3, 4, 2), {"mode": "eval", "ddof": 1}),
    "instance": ("instance", (3, 4, 5), {"affine": True}),
    "instance, one sample": ("instance", (4, 5), {"affine": True, "channel_axis": 0}),
    "instance, ddof 1": ("instance", (2, 3, 4), {"affine": True, "ddof": 1}),
    "instance, eval": ("instance", (2, 3, 4), {"affine": True, "mode": "eval", "track_running_stats": True}),
    "layer": ("layer", (3, 5), {}),
    "layer, one row": ("layer", (5,), {}),
    "layer, two axes": ("layer", (3, 2, 4), {"normalized_shape": (2, 4)}),
    "layer, ddof 1": ("layer", (3, 5), {"ddof": 1}),
    "group": ("group", (3, 4, 5), {"groups": 2}),
    "group, no places": ("group", (3, 4), {"groups": 2}),
    "group, ddof 1": ("group", (2, 6, 3), {"groups": 3, "ddof": 1}),
    "group, channels last": ("group", (2, 3, 4), {"groups": 2, "channel_axis": -1}),
    "rms": ("rms", (3, 5), {"eps": 1e-6}),
    "rms, two axes": ("rms", (2, 3, 4), {"eps": 1e-6, "normalized_shape": (3, 4)}),
}


def arrays(case: str) -> tuple[str, np.ndarray, np.ndarray, dict[str, Any]]:
    """The tensor, the gradient of the output, and all options of a case, the parameters among them."""
    kind, shape, options = CASES[case]
    rng = np.random.default_rng(len(case))
    settled = plan(kind, shape, "float64", options)
    given = dict(options) | {"weight": rng.normal(size=settled.weight_shape) + 1.5}
    if kind != "rms":
        given["bias"] = rng.normal(size=settled.weight_shape)
    if options.get("mode") == "eval":
        given |= {"running_mean": rng.normal(size=settled.weight_shape)}
        given |= {"running_var": rng.uniform(0.5, 2, size=settled.weight_shape)}
    return kind, rng.normal(2, 3, size=shape), rng.normal(size=shape), given


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@pytest.mark.parametrize("case", CASES)
def test_exact_fractions(case: str, affine: bool) -> None:
    kind, x, g, options = arrays(case)
    if not affine:
        options = {name: value for name, value in options.items() if name not in ("weight", "bias")} | {"affine": False}
    found = normalize(x, kind, grad_output=g, **options)
    known = {name: value for name, value in options.items() if name not in ("bias", "track_running_stats")}
    exact = exact_gradients(x, g, kind, **known)
    off = [abs(Fraction(float(a)) - b) for a, b in zip(found.grad_input.ravel(), exact.input, strict=True)]
    assert max(float(a / b) for a, b in zip(off, exact.terms, strict=True)) < 2.0**-50
    assert ulps(found.grad_input, exact.input).max() <= 0.5001
    if affine:
        assert ulps(found.grad_weight.ravel(), exact.weight).max() <= 0.5001
    else:
        assert (found.grad_weight, found.grad_bias) == (None, None)
    if affine and kind != "rms":
        assert ulps(found.grad_bias.ravel(), exact.bias).max() <= 0.5001


def by_autograd(kind: str, x: np.ndarray, g: np.ndarray, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """The definition in torch's own operations, differentiated by torch."""
    settled = plan(kind, x.shape, "float64", options)
    layout = settled.layout
    leaves = {"input": torch.tensor(x)} | {
        name: torch.tensor(options[name]) for name in ("weight", "bias") if name in options
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    view = leaves["input"].reshape(layout.view)
    mean = 0.0 if kind == "rms" else view.mean(layout.axes, keepdim=True)
    var = ((view - mean) ** 2).sum(layout.axes, keepdim=True) / (layout.count - options.get("ddof", 0))
    if options.get("mode") == "eval":
        mean, var = (torch.tensor(options[f"running_{name}"]).reshape(layout.channels_view) for name in ("mean", "var"))
    y = (view - mean) / torch.sqrt(var + options.get("eps", 1e-5))
    y = y * leaves["weight"].reshape(layout.channels_view) if "weight" in leaves else y
    y = y + leaves["bias"].reshape(layout.channels_view) if "bias" in leaves else y
    found = torch.autograd.grad(y.reshape(x.shape), [*leaves.values()], torch.tensor(g))
    return {f"grad_{name}": value.numpy() for name, value in zip(leaves, found, strict=True)}


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "no affine"])
@pytest.mark.parametrize("case", CASES)
def test_autograd_agrees(case: str, affine: bool) -> None:
    kind, x, g, options = arrays(case)
    if not affine:
        options = {name: value for name, value in options.items() if name not in ("weight", "bias")} | {"affine": False}
    found = normalize(x, kind, grad_output=g, **options)
    for name, expected in by_autograd(kind, x, g, options).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("case", [case for case in CASES if "ddof" not in case])
def test_the_torch_backend_answers_with_autograd(case: str) -> None:
    kind, x, g, options = arrays(case)
    ours, theirs = (normalize(x, kind, grad_output=g, backend=name, **options) for name in ("numpy", "torch"))
    assert theirs.gradients().keys() == ours.gradients().keys()
    for name, expected in ours.gradients().items():
        np.testing.assert_allclose(theirs.gradients()[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_weight_and_bias_that_nobody_gave_have_gradients() -> None:
    for backend in ("numpy", "torch"):
        found = normalize(X, "batch", grad_output=G, backend=backend)
        np.testing.assert_allclose(found.grad_weight, BY_HAND["grad_weight"], atol=1e-6)
        np.testing.assert_allclose(found.grad_bias, BY_HAND["grad_bias"], atol=1e-6)


def test_interleaved_groups_have_gradients() -> None:
    rng = np.random.default_rng(0)
    x, g, weight = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 3, 6)), rng.normal(size=6)
    order = [0, 2, 4, 1, 3, 5]
    found = normalize(x, "group", groups=2, convention="mlx", weight=weight, grad_output=g)
    apart = normalize(
        x[..., order], "group", groups=2, channel_axis=-1, weight=weight[order], grad_output=g[..., order]
    )
    np.testing.assert_array_equal(found.grad_input[..., order], apart.grad_input)
    np.testing.assert_array_equal(found.grad_weight[order], apart.grad_weight)


# --- hard numbers ---------------------------------------------------------------------------------


def test_constant_rows_at_1e8() -> None:
    """torch 2.13 is off by 972, its whole scale, and has a grad_weight of 3537 where 0 is right."""
    g = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    x = np.full((2, 64), 1e8, np.float32)
    found = normalize(x, "layer", grad_output=g)
    exact = exact_gradients(x, g, "layer")
    assert ulps(found.grad_input, exact.input).max() <= 0.5001
    assert found.grad_weight.tolist() == [0.0] * 64
    theirs = normalize(x, "layer", grad_output=g, backend="torch")
    assert np.abs(theirs.grad_input - found.grad_input).max() > 100


def test_bfloat16_near_100() -> None:
    """torch 2.13 says -2720, -1160, -1160, -1160, for its saved mean is rounded to bfloat16."""
    import ml_dtypes

    x = np.array([100.5, 100, 100, 100], ml_dtypes.bfloat16)
    found = normalize(x, "layer", grad_output=[1000, 0, 0, 0]).grad_input
    exact = exact_gradients(x.astype(np.float64), [1000, 0, 0, 0], "layer")
    assert str(found.dtype) == "bfloat16"
    np.testing.assert_allclose(found.astype(np.float64), [float(value) for value in exact.input], rtol=2.0**-8)


HARD: dict[str, tuple[str, np.ndarray, dict[str, Any]]] = {
    "layer at 1e6": ("layer", (np.random.default_rng(1).normal(size=(3, 50)) + 1e6).astype(np.float32), {}),
    "batch at 1e6": ("batch", (np.random.default_rng(2).normal(size=(50, 3)) + 1e6).astype(np.float32), {}),
    "float16": ("layer", np.random.default_rng(3).normal(size=(3, 50)).astype(np.float16), {}),
    "two values": ("layer", np.random.default_rng(4).normal(size=(9, 2)), {}),
    "1e200": ("layer", np.random.default_rng(5).normal(size=(3, 9)) * 1e200, {}),
    "1e-200": ("layer", np.random.default_rng(6).normal(size=(3, 9)) * 1e-200, {"eps": 0.0}),
    "1e-90 by 1e90": ("rms", np.random.default_rng(7).normal(size=(3, 9)) * 1e-90, {"eps": 0.0, "weight": [1e90] * 9}),
    "neighbours": ("batch", 1 + np.arange(12).reshape(6, 2) * 2.0**-52, {"eps": 0.0}),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_numbers(case: str) -> None:
    kind, x, options = HARD[case]
    g = np.random.default_rng(8).normal(size=x.shape)
    found = normalize(x, kind, grad_output=g, **options).grad_input
    exact = exact_gradients(x, g, kind, **options)
    unit = ulps(found, exact.input).ravel()
    off = [abs(Fraction(float(a)) - b) for a, b in zip(found.ravel(), exact.input, strict=True)]
    near = [float(a / b) < 2.0**-50 for a, b in zip(off, exact.terms, strict=True)]
    assert all(a or b <= 0.5001 for a, b in zip(near, unit, strict=True))


LARGE = [
    ("layer", (300, 700), {}), ("batch", (300, 700), {}), ("batch", (90_000, 3), {}), ("layer", (100_000,), {}),
    ("group", (3, 4, 20_000), {"groups": 2}), ("rms", (2, 90_000), {"eps": 1e-6}),
    ("instance", (3, 4, 9_000), {"affine": True}),
]  # fmt: skip


@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize(("kind", "shape", "options"), LARGE)
def test_large_tensors_of_float32(kind: str, shape: tuple[int, ...], options: dict[str, Any], mean: float) -> None:
    """Half a unit, and 2^-50 of the largest term: held against the same in float64, where that is nothing."""
    rng = np.random.default_rng(9)
    x, g = ((rng.normal(size=shape) + offset).astype(np.float32) for offset in (mean, 100))
    found = normalize(x, kind, grad_output=g, **options)
    wide = normalize(x.astype(np.float64), kind, grad_output=g, **options)
    most = 0.5 * np.spacing(np.abs(wide.grad_input).astype(np.float32)) + np.abs(g).max() * wide.rstd.max() * 2.0**-50
    assert (np.abs(found.grad_input - wide.grad_input) <= most).all()
    np.testing.assert_allclose(found.grad_weight, wide.grad_weight, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_nothing(dtype: str) -> None:
    rng = np.random.default_rng(10)
    x, g = (rng.normal(size=(700, 300)).astype(dtype) for _ in range(2))
    one, three = (normalize(x, "layer", grad_output=g, threads=threads) for threads in (1, 3))
    for name, values in one.gradients().items():
        np.testing.assert_array_equal(values, three.gradients()[name])


def test_the_order_in_memory_changes_nothing() -> None:
    rng = np.random.default_rng(11)
    x, g = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5))
    plain, other = (
        normalize(x, "group", groups=2, grad_output=g),
        normalize(np.asfortranarray(x), "group", groups=2, grad_output=np.asfortranarray(g)),
    )
    for name, values in plain.gradients().items():
        np.testing.assert_allclose(other.gradients()[name], values, rtol=1e-15)


def test_a_constant_group_with_eps_0_has_no_gradient() -> None:
    found = normalize([[3.0, 3, 3], [1, 2, 4]], "layer", eps=0, grad_output=[[1, 2, 0], [1, 2, 0]])
    assert np.isnan(found.grad_input).tolist() == [[True] * 3, [False] * 3]
    assert "grad_input is NaN in 1 group of statistics: divided by 0, it has no gradient" in found.warnings


def test_what_is_not_finite_is_said() -> None:
    found = normalize(X, "batch", grad_output=[[np.nan, np.inf, 0, 0], [0] * 4, [0] * 4])
    assert found.warnings == ("grad_output holds 1 NaN and 1 infinity",)
    assert np.isfinite(found.grad_input).all(axis=0).tolist() == [False, False, True, True]
    beyond = normalize(np.array([[1, 2, 4]], np.float16), "layer", grad_output=[[1e6, 0, 0]])
    assert beyond.warnings == ("3 values of grad_input beyond the range of float16 became infinite",)


NUMBERS = st.lists(st.floats(-4, 4).map(lambda number: round(number, 3)), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(x=NUMBERS, g=NUMBERS, along=NUMBERS, case=st.sampled_from(["batch", "layer", "rms", "batch, ddof 1"]))
def test_a_small_step_changes_the_output_as_the_gradient_says(
    x: list[float], g: list[float], along: list[float], case: str
) -> None:
    kind, _, options = CASES[case]
    step, options = 2.0**-12, options | {"eps": 0.5}
    at, flow, way = (np.reshape(values, (3, 4)) for values in (x, g, along))
    before, after = (normalize(at + sign * step * way, kind, **options).output for sign in (-1, 1))
    slope = float(((after - before) * flow).sum()) / (2 * step)
    found = float((normalize(at, kind, grad_output=flow, **options).grad_input * way).sum())
    assert found == pytest.approx(slope, abs=2e-3, rel=1e-3)


# --- from Python ----------------------------------------------------------------------------------


@pytest.mark.parametrize("all_", ["ones", " Ones ", 1, 1.0, np.ones(()), np.ones((3, 4)), torch.ones((3, 4))], ids=repr)
def test_ones_for_all(all_: Any) -> None:
    assert normalize(X, "batch", grad_output=all_).grad_bias.tolist() == [3.0] * 4


REFUSED = {
    "a shape": ([1, 2, 3, 4], "grad_output has shape (4,); (3, 4) is needed, the shape of the output"),
    "a word": ("twos", "grad_output is 'twos'; give a tensor, a number, or ones"),
    "no rows": ([[1, 2], [3]], "the rows of grad_output have different lengths"),
    "complex numbers": (np.ones((3, 4), complex), "grad_output holds complex128 values"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_what_is_no_gradient_is_refused(case: str, backend: str) -> None:
    value, said = REFUSED[case]
    with pytest.raises(InputError) as refused:
        normalize(X, "batch", grad_output=value, backend=backend)
    assert str(refused.value).startswith(said)


def test_without_a_gradient_of_the_output_there_are_none() -> None:
    found = normalize(X, "batch")
    assert (found.grad_input, found.grad_weight, found.grad_bias, found.gradients()) == (None, None, None, {})


def test_a_torch_tensor_gives_tensors() -> None:
    found = normalize(torch.tensor(X), "batch", weight=WEIGHT, backend="torch", grad_output=torch.tensor(G))
    assert isinstance(found.grad_input, torch.Tensor)
    np.testing.assert_allclose(found.grad_input.numpy(), BY_HAND["grad_input"], atol=1e-6)


def test_the_steps_are_kept() -> None:
    found = normalize(X, "batch", weight=WEIGHT, grad_output=G, steps=True)
    np.testing.assert_allclose(found.named["grad_normalized"], np.multiply(G, WEIGHT), rtol=1e-15)
    assert found.named["grad_centered"].shape == (3, 4)


# --- on the command line --------------------------------------------------------------------------

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
FLOW = ["--grad-output", "[[0.1,-0.2,0.3,0.4],[0.5,0.1,-0.3,0.2],[-0.2,0.4,0.1,0.6]]", "--weight", "[1.5,0.5,2,1]"]


def test_tables_have_the_gradients(normcli: Run) -> None:
    done = normcli("batch", BN1D, *FLOW)
    assert "gradients of weight and bias\nchannel  grad_weight  grad_bias" in done.stdout
    assert "      0       0.6944     0.4000" in done.stdout
    assert "grad_input\n         0       1        2        3" in done.stdout
    assert "1   0.0314  0.0000  -0.1633   0.0000" in done.stdout


def test_json_has_the_gradients(normcli: Run) -> None:
    document = json.loads(normcli("batch", BN1D, *FLOW, "--json").stdout)
    assert [*document["gradients"]] == ["input", "weight", "bias"]
    found = normalize(X, "batch", grad_output=G, weight=WEIGHT)
    assert document["gradients"]["input"] == found.grad_input.tolist()
    assert document["gradients"]["bias"] == [0.4, 0.30000000000000004, 0.1, 1.2]


def test_what_a_layer_does_not_have_is_null(normcli: Run) -> None:
    document = json.loads(normcli("rms", "[1,2,4]", "--dy", "ones", "--json").stdout)
    assert document["gradients"]["bias"] is None
    assert "gradients" not in json.loads(normcli("rms", "[1,2,4]", "--json").stdout)


def test_csv_has_the_gradients(normcli: Run) -> None:
    rows = normcli("batch", BN1D, *FLOW, "--format", "csv").stdout.splitlines()
    assert "grad_bias,3,,1.2" in rows
    assert sum(row.startswith("grad_input,") for row in rows) == 12


ONLY = {
    "grad-input": [[0.0, 0.0]],
    "grad_input": [[0.0, 0.0]],
    "dx": [[0.0, 0.0]],
    "grad-weight": [-1.0, 1.0],
    "dgamma": [-1.0, 1.0],
    "grad-bias": [1.0, 1.0],
    "dbeta": [1.0, 1.0],
}


@pytest.mark.parametrize("part", ONLY)
def test_one_gradient_alone(normcli: Run, tmp_path: Path, part: str) -> None:
    arguments = ["layer", "[[1,3]]", "--eps", "0", "--dy", "1", "--only", part, "-o", str(tmp_path / "g.npy")]
    assert json.loads(normcli(*arguments, "--json").stdout) == ONLY[part]
    assert np.load(tmp_path / "g.npy").tolist() == ONLY[part]
    table, matrix = (normcli(*arguments, "--format", name).stdout for name in ("table", "csv"))
    assert table.startswith(("grad_input", "gradients of weight\n", "gradients of bias\n"))
    assert [float(cell) for cell in matrix.strip().split(",")] == np.ravel(ONLY[part]).tolist()


def test_an_archive_names_what_is_in_it(normcli: Run, tmp_path: Path) -> None:
    normcli("layer", "[[1,3]]", "--dy", "1", "--only", "dx", "-o", str(tmp_path / "g.npz"))
    assert [*np.load(tmp_path / "g.npz")] == ["grad_input"]


def test_files_hold_what_flows_in(normcli: Run, tmp_path: Path) -> None:
    x, g = np.random.default_rng(0).normal(size=(2, 90, 500)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "g.npy", g)
    done = normcli("layer", str(tmp_path / "x.npy"), "--dy", str(tmp_path / "g.npy"), "--only", "dx",
                   "-o", str(tmp_path / "dx.npy"), "--format", "json")  # fmt: skip
    assert done.returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "dx.npy"), normalize(x, "layer", grad_output=g).grad_input)


def test_versus_compares_the_gradients(normcli: Run) -> None:
    done = normcli("batch", BN1D, *FLOW, "--versus", "numpy::float16", "--json")
    [compared] = json.loads(done.stdout)["versus"]
    assert [*compared["gradients"]] == ["grad_input", "grad_weight", "grad_bias"]
    assert 0 <= compared["gradients"]["grad_input"]["max_ulp"] < 1
    assert "grad_input" in normcli("batch", BN1D, *FLOW, "--versus", "torch").stdout


def test_a_script_works_the_gradients_out(normcli: Run) -> None:
    arguments = ["group", BN1D, "--groups", "2", *FLOW]
    found: dict[str, Any] = {}
    exec(compile(normcli(*arguments, "--format", "python").stdout.replace("print(", "str("), "script", "exec"), found)
    gradients = json.loads(normcli(*arguments, "--json").stdout)["gradients"]
    for name in ("input", "weight", "bias"):
        np.testing.assert_allclose(found[f"grad_{name}"], gradients[name], rtol=1e-9, atol=1e-15)


COMMANDS_REFUSED = {
    "a shape": (["--dy", "[1,2]"], "error: grad_output has shape (2,); (3, 4) is needed, the shape of the output\n"),
    "a word": (["--dy", "twos"], "error: no file twos, and it is not a tensor literal"),
    "a part of nothing": (["--only", "dx"],
                          "error: --only dx needs the gradient of the output; give it with --grad-output\n"),
    "what is not there": (["--dy", "1", "--no-affine", "--only", "dgamma"],
                          "error: there is no grad_weight: this BatchNorm has no weight\n"),
    "twice": (["--dy", "-", "--weight", "-"], "error: standard input (-) is given twice; it can be read once\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS_REFUSED)
def test_commands_that_are_refused(normcli: Run, case: str) -> None:
    arguments, said = COMMANDS_REFUSED[case]
    done = normcli("batch", BN1D, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)


# --- the trace ------------------------------------------------------------------------------------

STEPS = {
    "grad_normalized": ("grad_output * weight", "0.5 * 1.5", 0.75),
    "grad_rstd": ("sum(grad_normalized * centered)",
                  "0.1500 * (-2) + 0.7500 * 3 + (-0.3000) * (-1)", 2.25),
    "grad_var": ("-0.5 * grad_rstd * rstd^3", "-0.5 * 2.2500 * 0.4629^3", -0.111594),
    "grad_centered": ("grad_normalized * rstd + 2 * grad_var * centered / n",
                      "0.7500 * 0.4629 + 2 * (-0.1116) * 3 / 3", 0.123994),
    "grad_mean": ("-sum(grad_centered)", "-(0.2182 + 0.1240 + (-0.0645))", -0.277746),
    "grad_input": ("grad_centered + grad_mean / n", "0.1240 + (-0.2777) / 3", 0.031412),
    "grad_weight": ("sum(grad_output * normalized)",
                    "0.1 * (~-0.925819) + 0.5 * ~1.38873 + (-0.2) * (~-0.46291)", 0.694364),
    "grad_bias": ("sum(grad_output)", "0.1 + 0.5 + (-0.2)", 0.4),
}  # fmt: skip


def test_the_trace_of_an_element_goes_back_to_it(normcli: Run) -> None:
    found = json.loads(normcli("batch", BN1D, *FLOW, "--element", "1,0", "--json").stdout)["trace"]
    assert [step["step"] for step in found][-len(STEPS) :] == [*STEPS]
    steps = {step["step"]: (step["formula"], step["substituted"], round(step["value"], 6)) for step in found}
    assert {name: steps[name] for name in STEPS} == STEPS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(40))
def test_every_line_of_the_backward_pass_is_true_to_its_last_digit(seed: int) -> None:
    x, kind, options = drawn(seed)
    x = np.asarray(rounded(x, options.get("dtype", "float64")))
    rng = np.random.default_rng(seed)
    g = [np.round(rng.normal(size=x.shape), 1), np.ones(x.shape), rng.normal(size=x.shape) * 1e3][seed % 3]
    result = normalize(x, kind, steps=True, grad_output=g, **options)
    for element in (None, (1, 2, 1)):
        found = trace(result, x, element, full=True)
        assert "grad_input" in [step.step for step in found.steps]
        table = sections(Report(result=result, trace=found), Detail(full=True))[0]
        assert [*untrue(found, 4, [row[-1] for row in table.rows])] == []
        assert all(tex.lines(step.filled) for step in found.steps)


def test_sums_over_samples_have_the_numbers_of_other_groups(normcli: Run) -> None:
    done = normcli("layer", "[[1,2,4,1],[6,3,2,5]]", "--dy", "[[1,2,0,1],[0,3,2,5]]", "--element", "1,2", "--json")
    steps = {step["step"]: (step["formula"], step["substituted"]) for step in json.loads(done.stdout)["trace"]}
    assert steps["grad_weight"] == ("sum(grad_output * normalized, rest)", "0 * 1.6330 + 2 * (-1.2649)")
    assert steps["grad_bias"] == ("sum(grad_output, rest)", "0 + 2")


def test_a_group_has_a_number_for_each_of_its_weights() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    result = normalize(x, "group", groups=2, grad_output="ones", steps=True)
    [bias] = [step for step in trace(result, x).steps if step.step == "grad_bias"]
    assert (bias.value, bias.substituted) == ([6.0, 6.0], "(1 + 1 + 1 + 1 + 1 + 1), (1 + 1 + 1 + 1 + 1 + 1)")


def test_the_trace_in_latex(normcli: Run) -> None:
    done = normcli("batch", BN1D, *FLOW, "--element", "1,0", "--format", "latex")
    assert r"\frac{\partial L}{\partial \hat{x}}" in done.stdout
    assert r"= -0.5 \cdot \frac{\partial L}{\partial r} \cdot r^{3} = -0.5 \cdot 2.2500 \cdot 0.4629^{3}" in done.stdout
    rest = normcli("layer", "[[1,2,4]]", "--dy", "ones", "--trace", "--format", "latex")
    assert r"\sum_{\mathrm{rest}} \frac{\partial L}{\partial y} \, \hat{x}" in rest.stdout


def test_the_stages_of_a_course_in_latex_stand_upright_and_what_is_summed_in_parentheses(normcli: Run) -> None:
    done = normcli("batch", BN1D, *FLOW, "--element", "0,0", "--steps", "kratzert", "--format", "latex")
    assert "\n\\mathrm{dmu}\n  &= -\\sum (\\mathrm{dxmu1} + \\mathrm{dxmu2})" in done.stdout
    assert "\n\\mathrm{dbeta}\n  &= \\sum \\frac{\\partial L}{\\partial y} =" in done.stdout


def test_torch_has_no_steps_of_the_backward_pass(normcli: Run) -> None:
    done = normcli("batch", BN1D, *FLOW, "--backend", "torch", "--trace", "--json")
    assert json.loads(done.stdout)["trace"][-1]["step"] == "running_var"


# --- the stages of a course -----------------------------------------------------------------------

KRATZERT = """\
dgammax = grad_output
dxhat = dgammax * weight
divar = sum(dxhat * xmu)
dsqrtvar = -divar * ivar^2
dvar = 0.5 * dsqrtvar * ivar
dsq = dvar / n
dxmu1 = dxhat * ivar
dxmu2 = 2 * dsq * xmu
dmu = -sum(dxmu1 + dxmu2)
dx1 = dxmu1 + dxmu2
dx2 = dmu / n
dx = dx1 + dx2
dgamma = sum(dgammax * xhat)
dbeta = sum(grad_output)"""
STAGES = {  # for each channel
    "divar": [2.25, 0.3, 1.6, -0.6],
    "dsqrtvar": [-0.482142, -0.449993, -0.599998, 0.299999],
    "dvar": [-0.111594, -0.275561, -0.183711, 0.106065],
    "dmu": [-0.277746, -0.18371, -0.122474, -0.848526],
    "dx": BY_HAND["grad_input"],
    "dgamma": BY_HAND["grad_weight"],
    "dbeta": BY_HAND["grad_bias"],
}


def test_the_stages_of_kratzert_are_derived() -> None:
    text, _ = COURSES["kratzert"]
    assert written(gradient(lines(text), BATCH, COURSE)) == KRATZERT


@pytest.mark.parametrize("stage", STAGES)
def test_the_numbers_of_the_stages(stage: str) -> None:
    staged = in_stages(normalize(X, "batch", weight=WEIGHT, grad_output=G), np.array(X), "kratzert")
    np.testing.assert_allclose(staged.named[stage], STAGES[stage], rtol=0, atol=0.5000001e-6)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("rms")])
def test_the_stages_lead_to_the_same_gradients(case: str) -> None:
    kind, x, g, options = arrays(case)
    found = normalize(x, kind, grad_output=g, **options)
    staged = in_stages(found, x, "kratzert")
    for name, ours in (("dx", "grad_input"), ("dgamma", "grad_weight"), ("dbeta", "grad_bias"), ("var", "var")):
        if not (name == "var" and options.get("ddof")):  # there var is the one that is divided by n - 1
            np.testing.assert_allclose(staged.named[name], getattr(found, ours), rtol=1e-14, atol=1e-15, err_msg=name)


def test_the_stages_on_the_command_line(normcli: Run) -> None:
    done = normcli("batch", BN1D, *FLOW, "--steps", "kratzert", "--element", "1,0", "--json")
    document = json.loads(done.stdout)
    steps = [step["step"] for step in document["trace"]]
    assert steps[:3] == ["mu", "xmu", "sq"]
    assert steps[-14:] == [line.split(" = ")[0] for line in KRATZERT.splitlines()]
    assert document["gradients"]["bias"] == [0.4, 0.30000000000000004, 0.1, 1.2]
    table = normcli("layer", BN1D, "--dy", "ones", "--no-affine", "--steps", "kratzert", "--only", "trace").stdout
    assert "dmu " in table
    assert "dgamma " not in table


STEPS_REFUSED = {
    "another formula": (["rms"], "kratzert", "the steps of kratzert are those of BatchNorm's formula; RMSNorm has"),
    "no course": (["layer"], "karp", "--steps is 'karp'; use kratzert"),
}


@pytest.mark.parametrize("case", STEPS_REFUSED)
def test_stages_that_are_refused(normcli: Run, case: str) -> None:
    kind, course, said = STEPS_REFUSED[case]
    done = normcli(*kind, BN1D, "--steps", course)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
