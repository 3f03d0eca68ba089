"""assert_normalized, for those who write kernels: right ones pass, and the slip of a wrong one is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import normcli
from normcli.testing import assert_normalized

Array = np.ndarray[Any, Any]


def layer_kernel(
    x: Array, weight: Array, bias: Array, *, eps: float = 1e-5, ddof: int = 0, outside: bool = False, axis: int = -1
) -> dict[str, Array]:
    """As a Triton kernel has it: the row in float32, the sums in blocks, the output in the dtype of the input."""
    x32, n = x.astype(np.float32), np.float32(x.shape[axis])
    mean = x32.sum(axis, keepdims=True) / n
    centered = x32 - mean
    var = (centered * centered).sum(axis, keepdims=True) / (n - np.float32(ddof))
    root = np.sqrt(var) + np.float32(eps) if outside else np.sqrt(var + np.float32(eps))
    rstd = np.float32(1) / root
    y = centered * rstd * weight.astype(np.float32) + bias.astype(np.float32)
    return {"output": y.astype(x.dtype), "mean": mean.squeeze(axis), "rstd": rstd.squeeze(axis)}


@pytest.fixture
def given() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(5)
    x = rng.normal(0.5, 2, (6, 16)).astype(np.float32)
    return x, rng.normal(1, 0.5, 16).astype(np.float32), rng.normal(0, 0.5, 16).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(6, 16), (3, 5, 7), (4, 1000), (40, 1000)], ids=str)
def test_a_right_kernel_passes(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0.5, 2, shape).astype(dtype)
    weight, bias = rng.normal(1, 0.5, (2, shape[-1])).astype(np.float32)
    assert_normalized(layer_kernel(x, weight, bias), x, "layer", weight=weight, bias=bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_torch_s_own_kernels_pass(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 6, 5).to(dtype), torch.rand(6).to(dtype), torch.randn(6).to(dtype)
    y = torch.nn.functional.group_norm(x, 2, weight, bias)
    assert_normalized(y, x, "group", groups=2, weight=weight, bias=bias, ulp=2 if dtype is torch.bfloat16 else None)


def test_gradients_of_torch_pass() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(8, 5, requires_grad=True), torch.rand(5, requires_grad=True), torch.zeros(5)
    bias.requires_grad_()
    g = torch.randn(8, 5)
    (torch.nn.functional.layer_norm(x, (5,), weight, bias) * g).sum().backward()
    found = {"dx": x.grad, "dweight": weight.grad, "dbias": bias.grad}
    assert_normalized(found, x, "layer", weight=weight, bias=bias, grad_output=g)
    with pytest.raises(AssertionError, match="grad_input"):
        assert_normalized({"dx": x.grad * 1.001}, x, "layer", weight=weight, bias=bias, grad_output=g)


def test_running_statistics_of_torch_pass() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(8, 3, 4), torch.nn.BatchNorm1d(3)
    y = layer(x)
    found = {"output": y, "running_mean": layer.running_mean, "running_var": layer.running_var}
    assert_normalized(found, x, "batch")


SLIPS: dict[str, tuple[dict[str, Any], float, str]] = {
    "the unbiased variance": ({"ddof": 1}, 1e-5, "the unbiased variance gives, sum(centered^2) / (n - 1)."),
    "eps outside the root": ({"outside": True, "eps": 0.5}, 0.5, "[eps_outside"),
    "another eps": ({"eps": 1e-3}, 1e-5, "[eps_other]"),
    "an eps that shows in 16 bits": ({"eps": 0.1}, 1e-5, "[eps_other]"),
}
TRIED = [
    *((slip, "float32") for slip in list(SLIPS)[:3]),
    *((slip, "float16") for slip in list(SLIPS) if slip != "another eps"),
]


@pytest.mark.parametrize(("slip", "dtype"), TRIED)
def test_the_slip_of_a_wrong_kernel_is_named(slip: str, dtype: str, given: tuple[Array, Array, Array]) -> None:
    x, weight, bias = (array.astype(dtype) for array in given)
    options, eps, words = SLIPS[slip]
    found = layer_kernel(x, weight, bias, **options)["output"]
    with pytest.raises(AssertionError, match=f"^LayerNorm  .6, 16. {dtype}: ") as raised:
        assert_normalized(found, x, "layer", weight=weight, bias=bias, eps=eps)
    assert words in str(raised.value)
    assert f" ulp of {dtype}\n" in str(raised.value)


def test_the_wrong_axis_is_named() -> None:
    x = np.random.default_rng(2).normal(size=(6, 6)).astype(np.float32)
    wrong = layer_kernel(x, np.ones((6, 1)), np.zeros((6, 1)), axis=0)["output"]
    with pytest.raises(AssertionError, match="over") as raised:
        assert_normalized(wrong, x, "layer")
    assert "axis" in str(raised.value)
    assert "No known slip" not in str(raised.value)


def test_one_wrong_cell_is_found_and_placed(given: tuple[Array, Array, Array]) -> None:
    x, weight, bias = given
    found = layer_kernel(x, weight, bias)["output"]
    found[3, 7] = np.nextafter(found[3, 7], np.float32(9)) + np.float32(1e-5)
    with pytest.raises(AssertionError) as raised:
        assert_normalized(found, x, "layer", weight=weight, bias=bias)
    lines = str(raised.value).splitlines()
    assert lines[0] == "LayerNorm  (6, 16) float32: 1 of 96 cells is off by more than 8 ulp"
    assert lines[1].startswith("the worst, output (3, 7), is ")


def test_each_quantity_is_held_to_its_own_dtype(given: tuple[Array, Array, Array]) -> None:
    x, weight, bias = (array.astype(np.float16) for array in given)
    found = layer_kernel(x, weight, bias)
    found["rstd"] = found["rstd"].astype(np.float16).astype(np.float32)  # far too coarse for a float32
    with pytest.raises(AssertionError, match=r"6 of 108 cells are off by more than 8 ulp\nthe worst, rstd"):
        assert_normalized(found, x, "layer", weight=weight, bias=bias)


def test_the_limit_is_counted_in_units(given: tuple[Array, Array, Array]) -> None:
    x, _, _ = given
    y = normcli.normalize(x, "layer").output
    off = y + 3 * np.spacing(np.maximum(np.abs(y), np.float32(1)))
    assert_normalized(off, x, "layer", ulp=4)
    with pytest.raises(AssertionError, match="off by more than 2 ulp"):
        assert_normalized(off, x, "layer", ulp=2)


def test_what_arithmetic_may_do_is_called_by_its_name() -> None:
    x = np.random.default_rng(3).normal(3000, 1, (4, 64)).astype(np.float32)
    with pytest.raises(AssertionError, match="Arithmetic in float32 may do that to these numbers"):
        assert_normalized(layer_kernel(x, np.ones(64), np.zeros(64))["output"], x, "layer")


def test_a_slip_in_a_large_tensor_is_named_by_a_part_of_it() -> None:
    x = np.random.default_rng(4).normal(size=(5000, 16)).astype(np.float32)
    weight, bias = np.float32([2] * 16), np.float32([1] * 16)
    wrong = layer_kernel(x, weight, bias, ddof=1)["output"]
    with pytest.raises(AssertionError, match="unbiased variance"):
        assert_normalized(wrong, x, "layer", weight=weight, bias=bias)
    with pytest.raises(AssertionError, match="too large to look for a slip in"):
        assert_normalized(wrong, x, "batch")


def test_another_shape_is_no_answer(given: tuple[Array, Array, Array]) -> None:
    x, weight, bias = given
    y = layer_kernel(x, weight, bias)["output"]
    with pytest.raises(AssertionError, match=r"output has shape \(16, 6\); \(6, 16\) is right"):
        assert_normalized(y.T, x, "layer", weight=weight, bias=bias)


NOT_FINITE: dict[str, tuple[Callable[[Array], None], bool]] = {
    "nan where there should be none": (lambda y: y.__setitem__((0, 0), np.nan), False),
    "an infinity": (lambda y: y.__setitem__((1, 1), np.inf), False),
    "as it should be": (lambda y: None, True),
}


@pytest.mark.parametrize("case", NOT_FINITE)
def test_what_is_not_finite_must_be_so_on_both_sides(case: str) -> None:
    x = np.float32([[1, 2, 4], [3, np.nan, 1]])
    y = normcli.normalize(x, "layer").output
    spoil, right = NOT_FINITE[case]
    spoil(y)
    if right:
        assert_normalized(y, x, "layer")
        return
    with pytest.raises(AssertionError, match="inf ulp"):
        assert_normalized(y, x, "layer")


def test_what_cannot_be_computed_is_an_error_and_no_failure() -> None:
    with pytest.raises(ValueError, match="kind 'foo' is not known"):
        assert_normalized([1.0], [1.0], "foo")
    with pytest.raises(ValueError, match="grad_input is not computed here"):
        assert_normalized({"dx": np.ones(3)}, np.ones(3), "layer")
    with pytest.raises(ValueError, match="'foo' names no quantity"):
        assert_normalized({"foo": np.ones(3)}, np.ones(3), "layer")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_tensors_on_a_gpu_are_taken() -> None:
    x = torch.randn(64, 512, device="cuda", dtype=torch.bfloat16)
    assert_normalized(torch.nn.functional.layer_norm(x, (512,)), x, "layer")
