"""--versus: how far apart two ways to calculate are, where, and why."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import Run

import normcli
from normcli.errors import InputError
from normcli.floats import ulp
from normcli.showing.versus import documents, sections
from normcli.teaching.versus import Comparison, Way, compare, parse

pytest.importorskip("torch", reason="comparisons with torch need torch")

BN1D = np.array([[1, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])


def compared(x: Any, kind: str, spec: str, **options: Any) -> Comparison:
    given = {name: value for name, value in options.items() if name != "backend"}
    return compare(np.asarray(x), given, normcli.normalize(x, kind, **options), spec)


def test_nan_is_no_rounding_of_the_input() -> None:
    x = np.where(np.eye(3, 4) > 0, np.nan, BN1D)
    assert compared(x, "batch", "torch").causes == ()


@pytest.mark.parametrize(
    ("spec", "way"),
    [
        ("torch", Way(backend="torch")),
        ("torch:cuda", Way(backend="torch", device="cuda")),
        ("torch:cuda:1", Way(backend="torch", device="cuda:1")),
        ("torch:cuda:1:float16", Way(backend="torch", device="cuda:1", dtype="float16")),
        ("torch:cpu:float16", Way(backend="torch", device="cpu", dtype="float16")),
        ("numpy::float32", Way(backend="numpy", dtype="float32")),
        ("keras", Way(convention="keras")),
        (" mlx ", Way(convention="mlx")),
    ],
)
def test_specs(spec: str, way: Way) -> None:
    assert parse(spec) == way


@pytest.mark.parametrize(
    ("spec", "message"), [("caffe", "neither a backend nor a convention"), ("torch:cpu:int8", "dtype 'int8'")]
)
def test_a_bad_spec_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(spec)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (1.0, "float16", 2.0**-10),
        (-3.0, "bfloat16", 2.0**-6),
        (0.0, "float32", 2.0**-149),
        (1e-310, "float64", 2.0**-1074),
    ],
)
def test_ulp(value: float, dtype: str, expected: float) -> None:
    assert ulp(np.array(value), dtype) == expected


def test_a_perturbed_answer_is_measured_and_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
    result = normcli.normalize(x, "layer")
    wrong = result.output.copy()
    wrong[1, 2] += 3 * ulp(wrong[1, 2].astype(float), "float32")
    monkeypatch.setattr(
        "normcli.teaching.versus.run",
        lambda *arguments, backend="numpy", **more: normcli.normalize(x, "layer") if backend == "numpy" else
        type(result)(plan=result.plan, output=wrong, backend="torch"),
    )  # fmt: skip
    found = compare(x, {}, result, "torch").output
    assert (found.max_ulp, found.beyond_one_ulp, found.at) == (3.0, 1, (1, 2))


def test_torch_on_the_articles_data_is_a_few_ulp_off() -> None:
    assert compared(BN1D.astype(np.float32), "batch", "torch").output.max_abs <= 2.4e-7


def test_the_cell_in_which_torch_prints_1e_7_for_0() -> None:
    cells = compared(BN1D.astype(np.float32), "batch", "torch").output.cells
    assert [(at, reference, f"{there:.3g}") for at, reference, there, _ in cells if reference == 0] == [
        ((1, 1), 0.0, "1.19e-07")
    ]


def test_a_constant_channel_of_1e8_shows_the_folded_scale_and_shift() -> None:
    found = compared(np.full((3, 1), 1e8, np.float32), "batch", "torch")
    assert 100 < found.output.max_abs < 1000
    assert [key for key, _ in found.causes] == ["folded"]


def test_layer_norm_of_torch_needs_no_cause() -> None:
    assert compared(BN1D.astype(np.float32), "layer", "torch").causes == ()


def test_keras_differs_in_the_running_variance() -> None:
    found = compared(BN1D, "batch", "keras", decay=0.9, eps=1e-5)
    assert [option.name for option in found.options] == ["running_ddof"]
    assert dict(found.causes)["running_ddof"].startswith("Biased against unbiased running variance")
    assert (found.running["running_var"].reference, found.running["running_var"].other) == (
        1.6,
        pytest.approx(1.366667),
    )


def test_which_option_matters_is_told_one_at_a_time() -> None:
    effects = {
        option.name: (option.output > 0, option.running > 0) for option in compared(BN1D, "batch", "keras").options
    }
    assert effects == {"eps": (True, False), "momentum": (False, True), "running_ddof": (False, True)}


def test_interleaved_groups_are_a_difference_of_mlx() -> None:
    found = compared(np.arange(16.0).reshape(2, 8), "group", "mlx", groups=2)
    assert [option.name for option in found.options] == ["group_layout"]
    assert found.output.max_abs > 0.01


def test_a_dtype_rounds_the_input_and_says_so() -> None:
    found = compared(np.array([[0.1, 0.2, 0.4]]), "layer", "numpy::float16")
    assert [key for key, _ in found.causes] == ["input_rounded"]


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_overflow_in_the_dtype_is_named(kind: str) -> None:
    found = compared(np.array([[1e30, 2e30, 4e30]], np.float32), kind, "torch")
    assert [key for key, _ in found.causes] == ["overflow"]


def test_an_eps_above_the_variance_is_named() -> None:
    x = np.array([[1000.0], [1000.001], [1000.002]], np.float32)
    assert "eps_dominates" in dict(compared(x, "batch", "torch").causes)


def test_cancellation_is_named() -> None:
    x = np.array([[1e8, 1e8 + 8, 1e8 + 16, 1e8 + 24]], np.float32)
    assert "cancellation" in dict(compared(x, "layer", "torch").causes)


def test_json_carries_the_comparison(normcli: Run) -> None:
    done = normcli("layer", "[1,2,4]", "--versus", "torch", "--versus", "numpy::float32", "--json")
    versus = json.loads(done.stdout)["versus"]
    assert [entry["name"] for entry in versus] == ["torch", "numpy::float32"]
    assert {"max_abs", "max_rel", "max_ulp", "at", "reference", "other", "beyond_one_ulp", "causes"} <= versus[0].keys()


def test_the_table_has_a_row_for_each_quantity() -> None:
    table = sections([compared(BN1D, "batch", "torch")])[0]
    assert [row[1] for row in table.rows] == ["output", "running_mean", "running_var"]


def test_documents_are_json() -> None:
    assert json.loads(json.dumps(documents([compared(BN1D, "batch", "keras")])))[0]["name"] == "keras"


def test_nan_equals_nan() -> None:
    assert compared(np.array([[np.nan, 1.0], [1.0, 2.0]]), "layer", "torch").output.max_abs < 1e-15


@pytest.mark.parametrize(("here", "there"), [("torch", "mlx"), ("mlx", "onnx")])
@pytest.mark.parametrize("shape", [(4, 6, 64, 64), (2, 4, 3)])
def test_interleaved_groups_are_named_once_with_their_effect(here: str, there: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(7).normal(size=shape)
    found = compared(x, "group", there, groups=2, convention=here, channel_axis=1)
    layouts = {"torch": "consecutive", "onnx": "consecutive", "mlx": "interleaved"}
    words = [row[1] for section in sections([found]) if section.title == "why" for row in section.rows]
    assert [text for text in words if "interleaved" in text] == [
        f"group_layout is {layouts[here]} here, {layouts[there]} in {there}: moves the output by "
        f"{found.output.max_abs:.3g}. Channels are grouped interleaved (c mod G) by one, consecutively by the other."
    ]
    assert found.output.max_abs > 0.01


def test_infinities_are_compared_without_a_word_of_numpy(normcli: Run) -> None:
    done = normcli("batch", "[[1e200],[-1e200]]", "--versus", "keras")
    assert (done.returncode, done.stderr) == (0, "")


def test_64_axes_are_compared_and_traced(normcli: Run) -> None:
    """NumPy holds tensors of 64 axes, but does not number their elements."""
    x = "[" * 64 + "1, 2" + "]" * 64
    done = normcli("layer", x, "--versus", "torch", "--element", ",".join(["0"] * 63 + ["1"]), "--json")
    assert (done.returncode, json.loads(done.stdout)["versus"][0]["name"]) == (0, "torch")
