"""The reference against exact arithmetic: the promises of DESIGN.md, Accuracy, element by element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from oracle import MOST_ULPS, Exact, exact, ulps

import normcli
from normcli.errors import InputError

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}

NAN, INF = float("nan"), float("inf")
SMALLEST = {name: float(ml_dtypes.finfo(dtype).smallest_subnormal) for name, dtype in DTYPES.items()}
LARGEST = {name: float(ml_dtypes.finfo(dtype).max) for name, dtype in DTYPES.items()}

# name: kind, shape, options
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "batch_2d": ("batch", (7, 3), {}),
    "batch_3d": ("batch", (5, 3, 4), {}),
    "batch_4d": ("batch", (2, 3, 4, 5), {"eps": 0.25}),
    "batch_5d": ("batch", (2, 3, 4, 1, 5), {}),
    "batch_channels_last": ("batch", (2, 5, 4, 3), {"channel_axis": -1}),
    "batch_channels_first": ("batch", (3, 5, 4), {"channel_axis": 0}),
    "batch_ddof_1": ("batch", (5, 3, 4), {"ddof": 1}),
    "instance_2d": ("instance", (3, 5), {"channel_axis": 0}),
    "instance_3d": ("instance", (2, 3, 5), {}),
    "instance_4d": ("instance", (2, 3, 4, 5), {}),
    "instance_5d": ("instance", (4, 3, 2, 1, 5), {"eps": 0.0}),
    "instance_channels_last": ("instance", (2, 5, 4, 3), {"channel_axis": -1, "ddof": 1}),
    "layer_2d": ("layer", (3, 7), {}),
    "layer_2_axes": ("layer", (2, 3, 4, 5), {"normalized_shape": (4, 5)}),
    "layer_all_but_the_batch": ("layer", (3, 2, 4, 5), {"normalized_shape": (2, 4, 5)}),
    "layer_everything": ("layer", (2, 3, 4), {"normalized_shape": (2, 3, 4)}),
    "layer_5d": ("layer", (2, 3, 1, 4, 5), {"ddof": 1}),
    "group_2d": ("group", (3, 8), {"groups": 2}),
    "group_3d": ("group", (2, 6, 5), {"groups": 3}),
    "group_4d": ("group", (2, 6, 3, 4), {"groups": 2, "ddof": 1}),
    "group_channels_last": ("group", (2, 3, 5, 6), {"groups": 2, "channel_axis": -1}),
    "group_interleaved": ("group", (2, 3, 5, 6), {"groups": 2, "channel_axis": -1, "convention": "mlx"}),
    "group_interleaved_thirds": ("group", (2, 6, 5), {"groups": 3, "channel_axis": 1, "convention": "mlx"}),
    "rms_2d": ("rms", (3, 7), {"eps": 1e-6}),
    "rms_2_axes": ("rms", (2, 3, 4, 5), {"normalized_shape": (4, 5), "eps": 1e-5}),
    "rms_eps_0": ("rms", (2, 3, 5), {"eps": 0.0}),
}
RUNNING_CASES = {name: case for name, case in CASES.items() if case[0] in ("batch", "instance")}

# Mean of the data; its standard deviation is 1.
MEANS = {"float16": [0.0, -30.0], "bfloat16": [0.0, 12.0], "float32": [0.0, -1e4], "float64": [0.0, 1e4]}


def each(cases: dict[str, Any]) -> pytest.MarkDecorator:
    """One test for each entry of a table, under its name."""
    return pytest.mark.parametrize("case", list(cases.values()), ids=list(cases))


def drawn(shape: tuple[int, ...], dtype: str = "float64", mean: float = 0.0, seed: int = 7) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(DTYPES[dtype])


def parameters(kind: str, shape: tuple[int, ...], options: dict[str, Any]) -> dict[str, np.ndarray]:
    """A weight that is not 1 and, for all but rms, a bias that is not 0."""
    last = options.get("normalized_shape", shape[-1:])
    form = last if kind in ("layer", "rms") else (shape[options.get("channel_axis", 1)],)
    found = {"weight": drawn(form, mean=1.5, seed=11), "bias": drawn(form, mean=-0.5, seed=12)}
    return {name: found[name] for name in ("weight", "bias") if kind != "rms" or name == "weight"}


def state(shape: tuple[int, ...], options: dict[str, Any]) -> dict[str, np.ndarray]:
    channels = shape[options.get("channel_axis", 1)]
    return {"running_mean": drawn((channels,), seed=13), "running_var": drawn((channels,), mean=8.0, seed=14)}


def by_definition(x: Any, kind: str, options: dict[str, Any]) -> Exact:
    given = {name: value for name, value in options.items() if name not in ("convention", "dtype")}
    return exact(x, kind, interleaved=options.get("convention") == "mlx", **given)


def assert_accurate(output: np.ndarray, expected: Exact) -> None:
    worst = ulps(output, expected.output).max()
    assert worst <= MOST_ULPS[str(output.dtype)], f"{worst} ulp"


# The tables: kinds, ranks, options, dtypes


@each(CASES)
@pytest.mark.parametrize(("dtype", "mean"), [(dtype, mean) for dtype, means in MEANS.items() for mean in means])
def test_output(case: tuple, dtype: str, mean: float) -> None:
    kind, shape, options = case
    options = {**options, **parameters(kind, shape, options)}
    x = drawn(shape, dtype, mean)
    assert_accurate(normcli.normalize(x, kind, **options).output, by_definition(x, kind, options))


@each(RUNNING_CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_output_in_eval_mode(case: tuple, dtype: str) -> None:
    kind, shape, options = case
    options = {**options, **parameters(kind, shape, options), **state(shape, options), "mode": "eval"}
    x = drawn(shape, dtype, mean=3.0)
    assert_accurate(normcli.normalize(x, kind, **options).output, by_definition(x, kind, options))


@each(CASES)
def test_rstd(case: tuple) -> None:
    kind, shape, options = case
    x = drawn(shape, mean=-100.0)
    assert ulps(normcli.normalize(x, kind, **options).rstd.ravel(), by_definition(x, kind, options).rstd).max() < 1


@each({name: case for name, case in CASES.items() if case[0] != "rms"})
@pytest.mark.parametrize("quantity", ["mean", "var", "var_unbiased"])
def test_statistics(case: tuple, quantity: str) -> None:
    kind, shape, options = case
    x = drawn(shape, mean=-100.0)
    actual = getattr(normcli.normalize(x, kind, **options), quantity)
    assert ulps(actual.ravel(), getattr(by_definition(x, kind, options), quantity)).max() < 1


@each({name: case for name, case in CASES.items() if case[0] == "rms"})
def test_mean_square(case: tuple) -> None:
    kind, shape, options = case
    x = drawn(shape, mean=-100.0)
    actual = normcli.normalize(x, kind, **options).mean_square
    assert ulps(actual.ravel(), by_definition(x, kind, options).var).max() < 1


@each(RUNNING_CASES)
@pytest.mark.parametrize("update", [{"momentum": 0.3}, {"momentum": None}, {"running_ddof": 0}], ids=str)
@pytest.mark.parametrize("quantity", ["running_mean", "running_var"])
def test_running_statistics(case: tuple, update: dict[str, Any], quantity: str) -> None:
    kind, shape, options = case
    options = {**options, **state(shape, options), "num_batches_tracked": 4, **update}
    x = drawn(shape, mean=2.0)
    actual = getattr(normcli.normalize(x, kind, **options), quantity)
    assert ulps(actual, getattr(by_definition(x, kind, options), quantity)).max() < 1


@pytest.mark.parametrize("quantity", ["centered", "normalized"])
def test_steps_have_the_input_shape(quantity: str) -> None:
    result = normcli.normalize(drawn((2, 6, 5)), "group", groups=3, steps=True)
    assert getattr(result, quantity).shape == (2, 6, 5)


def test_normalized_is_the_output_before_weight_and_bias() -> None:
    x, options = drawn((3, 7), mean=50.0), {"weight": np.full(7, 2.0), "bias": np.full(7, -1.0)}
    result = normcli.normalize(x, "layer", steps=True, **options)
    assert ulps(result.normalized, by_definition(x, "layer", options).normalized).max() < 1


def test_no_affine_leaves_the_parameters_out() -> None:
    x = drawn((3, 7))
    assert_accurate(normcli.normalize(x, "layer", affine=False).output, exact(x, "layer"))


# Mean / std, the condition of the data


@pytest.mark.parametrize("mean", [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_large_mean(kind: str, dtype: str, mean: float) -> None:
    x = drawn((9, 5), dtype, mean, seed=3)
    assert_accurate(normcli.normalize(x, kind).output, exact(x, kind))


@pytest.mark.parametrize("count", [3, 5, 7, 21, 101])
@pytest.mark.parametrize("ratio", [0.5, 3.0, 8.6, 1442.0, 5761.0])
def test_an_element_nearly_at_the_mean(count: int, ratio: float) -> None:
    # The middle differs from the mean by a rounding error alone, and even that one must be right.
    x = (0.7213 * (np.arange(count) - count // 2 + ratio))[np.newaxis]
    assert_accurate(normcli.normalize(x, "layer", eps=0).output, exact(x, "layer", eps=0))


# Hard inputs stay for ever: name, then rows, dtype, kind, options. Most are where a framework failed.

HARD: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "large_mean_pytorch_51102": ([[2000.0, 2000.25, 1999.5, 2000.125]], "float32", "layer", {}),
    "large_mean_onnxruntime_28463": ([[40000.0, 40001.0, 40002.0, 40003.0]], "float32", "layer", {}),
    "large_mean_onnx_group_reference": ([[1e4, 10001.0, 10002.0, 10003.0]], "float32", "group", {"groups": 1}),
    "large_mean_flax_fast_variance": ([[1e4], [10001.0], [10002.0], [10003.0]], "float32", "batch", {}),
    "large_mean_burn_5607": ([[100.0, 100.5, 99.75, 101.0]], "bfloat16", "layer", {}),
    "large_mean_numpy_22956_slow_axis": (1e6 + np.arange(300.0).reshape(100, 3), "float32", "batch", {}),
    "overflow_pytorch_162489": ([[1e30, -1e30, 3e30]], "float32", "layer", {}),
    "overflow_pytorch_162489_rms": ([[1e30, -1e30, 3e30]], "float32", "rms", {"eps": 1e-5}),
    "negative_variance_flax_1491": ([[1234.567, 1234.568, 1234.569]], "float32", "layer", {}),
    "half_overflow_mlx": ([[60000.0, -60000.0, 60000.0, 59000.0]], "float16", "layer", {}),
    "half_eps_deepspeed_581": ([[0.0, 6e-8, -6e-8]], "float16", "layer", {"eps": 1e-12}),
    "constant_pytorch_5410": ([[12345.678] * 3] * 4, "float32", "batch", {}),
    "constant_caffe_3963": ([[100.0] * 5], "float32", "layer", {}),
    "constant_onnxruntime_21935": ([[1234.0] * 7], "float32", "layer", {}),
    "X1_constant_eps_0": ([[0.1] * 3], "float64", "layer", {"eps": 0.0}),
    "X2_constant": ([[0.1] * 7], "float32", "layer", {}),
    "X3_mean_1e8_step_8": ([[1e8, 1e8 + 8, 1e8 + 16, 1e8 + 24]], "float32", "layer", {}),
    "X4_mean_1e15": ([[1e15, 1e15 + 1, 1e15 + 2.5, 1e15 - 7]], "float64", "layer", {}),
    "X5_1e200": ([[1e200, -1e200, 0.0]], "float64", "layer", {}),
    "X5_1e154": ([[1e154, -1e154] * 50], "float64", "layer", {}),
    "X6_1e308": ([[1e308, 1.5e308]], "float64", "layer", {}),
    "X6_1e308_batch": ([[1e308, 1.0], [-1.7e308, 2.0], [1.7e308, 4.0]], "float64", "batch", {}),
    "X6_1e308_beside_1e-10": ([[1.7e308, -1.7e308, 1e-10]], "float64", "layer", {}),
    "X7_1e30": ([[1e30, -2e30, 3e30]], "float32", "layer", {}),
    "X7_3e38": ([[3e38, 3e38, 1e38]], "float32", "layer", {}),
    "X7_3e38_bfloat16": ([[3e38, 3e38, 1e38, -3e38]], "bfloat16", "layer", {}),
    "X8_60000": ([[60000.0, -60000.0, 1.0]], "float16", "layer", {}),
    "X9_eps_below_half": ([[0.5, 0.25, -0.125]], "float16", "layer", {"eps": 1e-12}),
    "X10_1e-200_eps_0": ([[1e-200, -1e-200]], "float64", "layer", {"eps": 0.0}),
    "X10_1e-200": ([[1e-200, -1e-200]], "float64", "layer", {}),
    "X10_1e-200_tiny_eps": ([[1e-200, -1e-200, 3e-200]], "float64", "layer", {"eps": 1e-300}),
    "X11_subnormal_float64": ([[5e-324, -5e-324, 1e-322]], "float64", "layer", {"eps": 0.0}),
    "X11_subnormal_float64_eps": ([[5e-324, -5e-324, 1e-322]], "float64", "layer", {}),
    "X11_subnormal_float32": ([[1e-45, -3e-45, 7e-45]], "float32", "layer", {"eps": 0.0}),
    "X11_subnormal_float16": ([[6e-8, -1.2e-7, 3e-6]], "float16", "layer", {}),
    "X11_subnormal_bfloat16": ([[9.2e-41, -1.8e-40, 1e-39]], "bfloat16", "layer", {}),
    "X14_negative_zero": ([[-0.0, 0.0, 1.0]], "float64", "layer", {}),
    "X18_two_huge_and_one": ([[3e38, 3e38, 1.0]], "float32", "layer", {}),
    "X18_two_huge_and_one_float64": ([[1.2e308, 1.2e308, 1.0]], "float64", "layer", {}),
    "X20_more_than_float32_counts": ([[1.0] * 3 + [2.0**24] * 3 + [1.0] * 4], "float32", "layer", {}),
    "tenths": ([[0.1, 0.2, 0.3]], "float64", "layer", {"eps": 0.0}),
    "tenths_float32": ([[0.1, 0.2, 0.3]], "float32", "layer", {"eps": 0.0}),
    "tenths_bfloat16": ([[0.1, 0.2, 0.3]], "bfloat16", "layer", {"eps": 0.0}),
    "weight_1e305": ([[1.0, 3.0, 2.5]], "float64", "layer", {"weight": [1e305, -1e305, 1e308]}),
    "weight_beyond_half": ([[1.0, 3.0, 2.5]], "float16", "layer", {"weight": [6e4, 1.0, -5e4]}),
    "bias_1e308": ([[1.0, 3.0, 2.5]], "float64", "layer", {"bias": [1e308, -1e308, 0.0]}),
    "eps_beyond_the_variance": ([[1e-3, -2e-3, 5e-3]], "float64", "layer", {"eps": 1e300}),
    "largest_float32": ([[LARGEST["float32"], -LARGEST["float32"], 0.0]], "float32", "rms", {"eps": 1e-5}),
    "largest_float16": ([[LARGEST["float16"], -LARGEST["float16"], 1.0]], "float16", "rms", {"eps": 1e-5}),
    "largest_float64": ([[LARGEST["float64"], -LARGEST["float64"], 1.0]], "float64", "rms", {"eps": 1e-5}),
    "one_smallest_float64": ([[SMALLEST["float64"], 0.0]], "float64", "rms", {"eps": 0.0}),
}


@each(HARD)
def test_hard_input(case: tuple) -> None:
    rows, dtype, kind, options = case
    x = np.array(rows).astype(DTYPES[dtype])
    assert_accurate(normcli.normalize(x, kind, **options).output, by_definition(x, kind, options))


# x, running_mean, running_var, eps: one channel
HARD_EVAL = {
    "1e200": ([1e200, -2e200], 0.0, 1.0, 1e-5),
    "beyond_the_largest_deviation": ([1.7e308, -1.7e308], -1.7e308, 4.0, 1e-5),
    "tiny_running_var": ([1e-160, 2e-160], 0.0, 1e-320, 0.0),
    "huge_running_var": ([1e160, -3e160], 1e150, 1e308, 0.0),
    "running_var_0": ([1.0, -2.0], 0.5, 0.0, 1e-5),
    "beside_its_running_mean": ([1e6 + 1e-10, 1e6], 1e6, 1.0, 1e-5),
    "subnormal_beside_large": ([5e-324, 1e290], 0.0, 0.25, 0.0),
}


@each(HARD_EVAL)
def test_hard_input_in_eval_mode(case: tuple) -> None:
    values, mean, var, eps = case
    x = np.array(values)[:, np.newaxis]
    options = {"mode": "eval", "running_mean": [mean], "running_var": [var], "eps": eps}
    assert_accurate(normcli.normalize(x, "batch", **options).output, by_definition(x, "batch", options))


@pytest.mark.parametrize(("running_var", "output"), [(INF, 0.0), (-1.0, NAN)], ids=["infinite", "negative"])
def test_unusable_running_var_follows_ieee(running_var: float, output: float) -> None:
    result = normcli.normalize([[2.0], [3.0]], "batch", mode="eval", running_mean=[1.0], running_var=[running_var])
    np.testing.assert_array_equal(result.output, [[output], [output]])


EVAL_WARNINGS = {
    "negative": (-1.0, 1e-5, "running_var is negative in 1 channel: the output there is NaN"),
    "zero": (0.0, 0.0, "running_var + eps is 0 in 1 channel: the output there is infinite, or 0 at the mean"),
}


@each(EVAL_WARNINGS)
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_unusable_running_var_is_counted_by_channel(case: tuple, kind: str) -> None:
    value, eps, warning = case
    options = {"mode": "eval", "running_mean": [0.0, 0.0], "running_var": [value, 1.0], "eps": eps}
    assert normcli.normalize(drawn((3, 2, 4)), kind, **options).warnings == (warning,)


# Constant groups


CONSTANTS = [0.1, -3.0, 1234.567, 1e-300, 1e8, 1e200, -1.7e308]


@pytest.mark.parametrize("value", CONSTANTS)
@pytest.mark.parametrize("count", [2, 3, 7, 1001])
@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_constant_group_gives_exactly_0(value: float, count: int, eps: float) -> None:
    result = normcli.normalize(np.full((2, count), value), "layer", eps=eps)
    np.testing.assert_array_equal(result.output, np.zeros((2, count)))


@pytest.mark.parametrize("value", CONSTANTS)
def test_constant_group_has_variance_0(value: float) -> None:
    assert normcli.normalize(np.full((1, 7), value), "layer").var.tolist() == [0.0]


@pytest.mark.parametrize("value", CONSTANTS)
def test_rstd_of_a_constant_group_is_that_of_eps(value: float) -> None:
    assert normcli.normalize(np.full((1, 7), value), "layer", eps=0.25).rstd.tolist() == [2.0]


@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_constant_group_gives_the_bias(eps: float) -> None:
    result = normcli.normalize(np.full((3, 2), 0.1), "batch", eps=eps, weight=[-3.0, 2.0], bias=[0.7, -0.3])
    np.testing.assert_array_equal(result.output, [[0.7, -0.3]] * 3)


# kind, x, warning
CONSTANT_WARNINGS = {
    "one_of_two": (
        "layer",
        [[0.1, 0.1], [1, 2]],
        "1 group of statistics with variance 0 and eps 0: normalized is 0 by definition",
    ),
    "both": (
        "batch",
        [[0.1, 3], [0.1, 3]],
        "2 groups of statistics with variance 0 and eps 0: normalized is 0 by definition",
    ),
    "rms": ("rms", [[0, 0]], "1 group of statistics with mean square 0 and eps 0: normalized is 0 by definition"),
}


@each(CONSTANT_WARNINGS)
def test_eps_0_on_a_constant_group_is_said(case: tuple) -> None:
    kind, x, warning = case
    assert normcli.normalize(x, kind, eps=0).warnings == (warning,)


@pytest.mark.parametrize("x", [[0.1, 0.2], [1e-200, -1e-200], [5e-324, -5e-324]], ids=["usual", "1e-200", "subnormal"])
def test_eps_0_needs_no_warning_where_the_variance_is_not_0(x: list[float]) -> None:
    assert normcli.normalize([x], "layer", eps=0).warnings == ()


# NaN and infinities


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_group(value: float, dtype: str) -> None:
    x = drawn((3, 5), dtype)
    spoilt = x.copy()
    spoilt[1, 2] = value
    expected = normcli.normalize(x, "layer").output
    expected[1] = NAN
    np.testing.assert_array_equal(
        normcli.normalize(spoilt, "layer").output.astype(np.float64), expected.astype(np.float64)
    )


# row, mean of the row
NOT_FINITE_MEANS = {"inf": ([1.0, INF], INF), "both": ([INF, -INF], NAN), "nan": ([NAN, INF], NAN)}


@each(NOT_FINITE_MEANS)
def test_mean_follows_ieee(case: tuple) -> None:
    row, mean = case
    np.testing.assert_array_equal(normcli.normalize([row], "layer").mean, [mean])


def test_an_infinity_in_eval_mode_stays_alone() -> None:
    result = normcli.normalize([[INF], [0.0], [-INF]], "batch", mode="eval", eps=0)
    np.testing.assert_array_equal(result.output, [[INF], [0.0], [-INF]])


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ([NAN, NAN, 1.0], "the input holds 2 NaN"),
        ([-INF, NAN, 1.0], "the input holds 1 NaN and 1 infinity"),
        ([-INF, INF, 1.0], "the input holds 2 infinities"),
    ],
    ids=["nan", "one_of_each", "infinities"],
)
def test_what_is_not_finite_is_counted(values: list[float], warning: str) -> None:
    assert normcli.normalize([values, [1, 2, 3]], "layer").warnings == (warning,)


def test_overflow_of_the_output_is_counted() -> None:  # X15
    x = np.array([[1.0, 3.0, 2.0, -4.0]], np.float32)
    result = normcli.normalize(x, "layer", weight=[1e40, 1.0, 1.0, 1e40])
    assert result.warnings == ("2 output values beyond the range of float32 became infinite",)


def test_finite_data_warns_of_nothing() -> None:
    assert normcli.normalize(drawn((3, 4)), "batch").warnings == ()


def test_one_value_in_a_group_is_said() -> None:
    result = normcli.normalize([[3.0], [4.0]], "layer")
    assert result.warnings == ("each group of statistics has 1 value, so every normalized value is 0",)


# Blocks: groups longer than one, and many groups in one

SMALL_BLOCK = 8


@pytest.fixture
def small_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normcli.arithmetic.reference.BLOCK", SMALL_BLOCK)


@each(CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("small_block")
def test_output_in_small_blocks(case: tuple, dtype: str) -> None:
    kind, shape, options = case
    options = {**options, **parameters(kind, shape, options)}
    x = drawn(shape, dtype, mean=-20.0)
    assert_accurate(normcli.normalize(x, kind, **options).output, by_definition(x, kind, options))


@each(CASES)
@pytest.mark.parametrize("block", [1, 3, SMALL_BLOCK, 31])
@pytest.mark.parametrize("quantity", ["output", "rstd", "normalized"])
def test_blocks_change_no_bit(case: tuple, block: int, quantity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, shape, options = case
    x = drawn(shape, mean=-20.0)
    whole = getattr(normcli.normalize(x, kind, steps=True, **options), quantity)
    monkeypatch.setattr("normcli.arithmetic.reference.BLOCK", block)
    np.testing.assert_array_equal(getattr(normcli.normalize(x, kind, steps=True, **options), quantity), whole)


@each(RUNNING_CASES)
@pytest.mark.parametrize("quantity", ["output", "mean", "var"])
def test_blocks_change_no_bit_in_eval_mode(case: tuple, quantity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, shape, options = case
    x, options = drawn(shape), {**options, **state(shape, options), "mode": "eval"}
    whole = getattr(normcli.normalize(x, kind, **options), quantity)
    monkeypatch.setattr("normcli.arithmetic.reference.BLOCK", SMALL_BLOCK)
    np.testing.assert_array_equal(getattr(normcli.normalize(x, kind, **options), quantity), whole)


@pytest.mark.parametrize("value", [1e308, 1e-308, 0.1])
@pytest.mark.usefixtures("small_block")
def test_all_blocks_of_a_group_share_its_scale(value: float) -> None:
    x = np.concatenate([np.ones(20), np.full(9, value)])[np.newaxis]
    assert_accurate(normcli.normalize(x, "layer", eps=0).output, exact(x, "layer", eps=0))


# Each group is longer than the default block.
LONG = {
    "batch": ("batch", (3, 2, 6007), {}),
    "layer": ("layer", (1, 17011), {}),
    "group": ("group", (1, 2, 9001), {"groups": 1}),
}


@each(LONG)
def test_group_longer_than_a_block(case: tuple) -> None:
    kind, shape, options = case
    x = drawn(shape, mean=1000.0)
    assert_accurate(normcli.normalize(x, kind, **options).output, by_definition(x, kind, options))


# Memory: layouts, out, inputs that stay as they are

BASE = drawn((4, 6, 5), "float32", mean=2.0)
LAYOUTS = {
    "fortran_order": np.asfortranarray(BASE),
    "every_other": BASE[::2, :, ::2],
    "reversed": BASE[::-1, :, ::-1],
    "transposed": BASE.transpose(2, 1, 0),
    "broadcast": np.broadcast_to(BASE[:1], (3, 6, 5)),
    "big_endian": BASE.astype(">f4"),
    "unaligned": np.frombuffer(b"\0" + BASE.tobytes(), np.float32, offset=1).reshape(BASE.shape),
}


@each(LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("batch", {}), ("instance", {}), ("layer", {}), ("group", {"groups": 3}), ("rms", {})],
    ids=["batch", "instance", "layer", "group", "rms"],
)
def test_layout_in_memory_changes_no_bit(case: np.ndarray, kind: str, options: dict[str, Any]) -> None:
    plain = np.array(case, dtype=np.float32, order="C")
    expected = normcli.normalize(plain, kind, **options).output
    np.testing.assert_array_equal(normcli.normalize(case, kind, **options).output, expected)


def test_input_is_not_modified() -> None:
    x = drawn((3, 4, 5))
    before = x.copy()
    normcli.normalize(x, "batch")
    np.testing.assert_array_equal(x, before)


def test_read_only_input_is_read() -> None:
    x = drawn((3, 4, 5))
    x.flags.writeable = False
    assert_accurate(normcli.normalize(x, "batch").output, exact(x, "batch"))


def test_out_is_what_is_returned() -> None:
    x = drawn((3, 4))
    out = np.empty_like(x)
    assert normcli.normalize(x, "layer", out=out).output is out


def test_out_receives_the_output() -> None:
    x = drawn((3, 4))
    out = np.empty_like(x)
    normcli.normalize(x, "layer", out=out)
    np.testing.assert_array_equal(out, normcli.normalize(x, "layer").output)


def test_out_may_be_the_input() -> None:
    x = drawn((3, 4))
    expected = normcli.normalize(x, "layer").output
    normcli.normalize(x, "layer", out=x)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("out", [np.empty((4, 3)), np.empty((3, 4), np.float32)], ids=["shape", "dtype"])
def test_out_that_does_not_fit_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^out is .*; the output is \(3, 4\) float64$"):
        normcli.normalize(drawn((3, 4)), "layer", out=out)


# Input dtypes


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", ">i4"])
def test_integers_are_computed_in_float64(dtype: str) -> None:  # X16, X17
    x = np.array([[100, 120, 127], [3, 0, 1]], dtype)
    assert_accurate(normcli.normalize(x, "layer").output, exact(x.astype(np.float64), "layer"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_has_the_dtype_of_the_input(dtype: str) -> None:
    assert str(normcli.normalize(drawn((3, 4), dtype), "layer").output.dtype) == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_cast_is_done_before_the_calculation(dtype: str) -> None:
    x = drawn((3, 4), mean=9.0)
    assert_accurate(normcli.normalize(x, "layer", dtype=dtype).output, exact(x.astype(DTYPES[dtype]), "layer"))


def test_cast_to_bfloat16_rounds_once() -> None:
    # Through float32 it would be a tie, and go to 1.
    result = normcli.normalize([[1 + 2**-8 + 2**-40, 0.0]], "layer", dtype="bfloat16")
    assert result.mean.tolist() == [(1 + 2**-7) / 2]


@pytest.mark.parametrize(
    ("x", "what"),
    [
        ([[1j, 2]], "the tensor holds complex128 values"),
        ([[True, False]], "the tensor holds bool values"),
        ([["1", "2"]], "the tensor holds <U1 values"),
        ([[None, 1]], "the tensor holds object values"),
        ([[1], [1, 2]], "the rows of the tensor have different lengths"),
    ],
    ids=["complex", "bool", "string", "object", "ragged"],
)
def test_what_is_not_a_real_number_is_refused(x: Any, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{what}"):
        normcli.normalize(x, "layer")


def test_bad_weight_is_called_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"^weight holds complex128 values"):
        normcli.normalize([[1.0, 2.0]], "layer", weight=[1j, 2])


@pytest.mark.parametrize(("alias", "name"), [("gamma", "weight"), ("beta", "bias")])
def test_papers_words_mean_the_same(alias: str, name: str) -> None:
    x = drawn((3, 2))
    expected = normcli.normalize(x, "batch", **{name: [2.0, -3.0]}).output
    np.testing.assert_array_equal(normcli.normalize(x, "batch", **{alias: [2.0, -3.0]}).output, expected)


@pytest.mark.parametrize(("alias", "name"), [("gamma", "weight"), ("beta", "bias")])
def test_both_words_at_once_are_refused(alias: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{alias} and {name} are two words for the same thing"):
        normcli.normalize(drawn((3, 2)), "batch", **{alias: [2.0, 1.0], name: [2.0, 1.0]})


# Shapes at the edge

EDGES = {
    "rank_7": ("batch", (2, 3, 1, 2, 1, 2, 2), {}),
    "rank_8_group": ("group", (2, 6, 1, 2, 1, 1, 2, 1), {"groups": 3}),
    "one_channel": ("batch", (5, 1), {}),
    "one_sample": ("batch", (1, 3, 4), {}),
    "one_element_layer": ("layer", (1,), {}),
    "one_element_rms": ("rms", (1,), {"eps": 1e-5}),
    "one_value_group": ("group", (3, 2, 1), {"groups": 2}),
    "one_value_batch_keras": ("batch", (1, 3), {"convention": "keras", "eps": 1e-3, "channel_axis": 1}),
    "many_groups": ("group", (1, 600, 3), {"groups": 600}),
}


@each(EDGES)
def test_shape_at_the_edge(case: tuple) -> None:
    kind, shape, options = case
    x = drawn(shape, mean=3.0)
    assert_accurate(normcli.normalize(x, kind, **options).output, by_definition(x, kind, options))


def mapped(folder: Path, mode: str) -> Any:
    np.save(folder / "out.npy", np.zeros((300, 300)))
    return np.load(folder / "out.npy", mmap_mode=mode)


@pytest.mark.parametrize("rows", [3, 300], ids=["small", "large"])
@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda x, folder: mapped(folder, "r")[: len(x)], "out is read-only"),
        (lambda x, folder: np.frombuffer(x.tobytes()).reshape(x.shape), "out is read-only"),
        (lambda x, folder: np.lib.stride_tricks.as_strided(x, strides=(0, 8)), "out overlaps itself"),
        (lambda x, folder: np.lib.stride_tricks.as_strided(x, strides=(8, 8)), "out overlaps itself"),
        (lambda x, folder: np.lib.stride_tricks.as_strided(x[::-1], strides=(-8, 8)), "out overlaps itself"),
        (lambda x, folder: np.ma.masked_array(x), "out is a MaskedArray; the output is a NumPy array"),
        (lambda x, folder: memoryview(x.copy()), "out is a memoryview"),
        (lambda x, folder: np.zeros(x.shape, ">f8"), "out is .* >f8; the output is .* float64"),
    ],
    ids=["map", "bytes", "broadcast", "overlapping", "backwards", "masked", "memory", "byte order"],
)
def test_an_out_that_cannot_be_written_is_refused_before_anything_is(
    out: Any, message: str, rows: int, tmp_path: Path
) -> None:
    x = np.random.default_rng(3).normal(size=(rows, 300))
    before, room = x.copy(), out(x, tmp_path)
    with pytest.raises(InputError, match=message):
        normcli.normalize(x.copy(), "layer", out=room)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("rows", [3, 300], ids=["small", "large"])
@pytest.mark.parametrize(
    "out",
    [lambda x: x, lambda x: x[::-1], lambda x: x.T, lambda x: mapped(Path(), "r+")[: len(x), : len(x)]],
    ids=["x", "backwards", "transposed", "map"],
)
def test_an_out_that_shares_memory_with_the_input_is_right(
    out: Any, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(3).normal(size=(rows, rows))
    expected, room = normcli.normalize(x, "batch").output, out(x)
    assert normcli.normalize(x, "batch", out=room).output is room
    np.testing.assert_array_equal(room, expected)


@pytest.mark.parametrize("rows", [3, 300], ids=["small", "large"])
def test_an_out_that_shares_memory_with_the_weight_is_right(rows: int) -> None:
    x = np.random.default_rng(3).normal(size=(rows, rows))
    out = np.random.default_rng(4).normal(size=(rows, rows))
    expected = normcli.normalize(x, "layer", weight=out[1].copy()).output
    np.testing.assert_array_equal(normcli.normalize(x, "layer", weight=out[1], out=out).output, expected)
