"""The verdict, the diagnosis in keys and in words, and the worked-example file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normcli.calculate import initial_state, normalize
from normcli.errors import InputError
from normcli.files.numbers import EXACT
from normcli.planning.plan import plan
from normcli.showing.check import document, explanation, section, verdict
from normcli.teaching.check import check, check_result
from normcli.teaching.printed import Printed
from normcli.teaching.verdict import Check
from normcli.teaching.worked import check_file, load_example

BN1D = np.array([[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])
NORMALIZED = (BN1D - BN1D.mean(0)) / np.sqrt(BN1D.var(0) + 1e-5)
UNBIASED = (BN1D - BN1D.mean(0)) / np.sqrt(BN1D.var(0, ddof=1) + 1e-5)
WITHOUT_EPS = (BN1D - BN1D.mean(0)) / BN1D.std(0)

BN2D = np.array(
    [[[[-2.4308, -1.0281, -1.1322, 0.9819], [-0.4069, 0.7973, 1.6296, 1.6797], [0.2802, -0.8285, 2.0101, 0.1286]],
      [[-0.5740, 0.1970, -0.7209, -0.7231], [-0.1489, 0.4993, 0.4159, 1.4238], [0.0334, -0.6333, 0.1308, -0.2180]]]]
)  # fmt: skip
BN2D_OUTPUT = np.array(
    [[[[-1.1237, -0.5106, -0.5561, 0.3679], [-0.2391, 0.2873, 0.6510, 0.6729], [0.0612, -0.4233, 0.8173, -0.0050]],
      [[-0.0293, 0.0120, -0.0372, -0.0373], [-0.0066, 0.0282, 0.0237, 0.0777], [0.0032, -0.0325, 0.0084, -0.0103]]]]
)  # fmt: skip
BN2D_WEIGHT = np.array([0.5653, 0.0322])


def printed(values: Any, decimals: int) -> Printed:
    rounded = np.asarray(values, np.float64) if decimals == EXACT else np.round(values, decimals)
    return Printed(rounded, np.full(np.shape(values), decimals))


def asked(x: Any, expected: dict[str, Printed], kind: str = "batch", **options: Any) -> Check:
    x = np.asarray(x, np.float64)
    settled = plan(kind, x.shape, "float64", options)
    return check(Printed.exactly(x), settled, initial_state(settled, options), expected)


def output(values: Any, decimals: int = 4, x: Any = BN1D, kind: str = "batch", **options: Any) -> Check:
    return asked(x, {"output": printed(values, decimals)}, kind, **options)


def changed(values: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    copy = values.copy()
    copy[index] = value
    return copy


# --- what the issue asks to be shown --------------------------------------------------------------


def bn2d_check(**options: Any) -> Check:
    settled = plan("batch", BN2D.shape, "float64", {"weight": BN2D_WEIGHT})
    state = initial_state(settled, {"weight": BN2D_WEIGHT})
    parameters = {"weight": printed(BN2D_WEIGHT, 4)}
    return check(
        printed(BN2D, 4), settled, state, {"output": printed(BN2D_OUTPUT, 4)}, parameters=parameters, **options
    )


def test_bn2d_check_as_printed_passes_all_cells() -> None:
    assert (bn2d_check().mismatches, bn2d_check().cells) == (0, 24)


def test_bn2d_check_hand_worked_element_passes() -> None:
    (cells,) = bn2d_check().quantities
    assert cells.yours[0, 0, 0, 0] == -1.1237
    assert not cells.wrong[0, 0, 0, 0]


def test_bn2d_check_with_a_flat_half_unit_would_fail_six_cells() -> None:
    (cells,) = bn2d_check().quantities
    assert int((cells.difference > 5e-5).sum()) == 6


def test_bn2d_check_with_exact_input_fails() -> None:
    assert bn2d_check(input_decimals=EXACT).mismatches == 6


def test_bn2d_check_allows_what_was_audited() -> None:
    (cells,) = bn2d_check().quantities
    np.testing.assert_allclose([cells.allowed.min(), cells.allowed.max()], [6.0e-5, 1.93e-4], rtol=5e-3)


def test_bn1d_claim_of_unbiased_variance_is_ddof1() -> None:
    assert output(UNBIASED, mode="eval", track_running_stats=False).keys == [("ddof1",)]


RUNNING_VAR = {
    "reversed": ([6.4, 1, 3.7, 2.8], 1, [("momentum_reversed",)]),
    "biased": ([1.366667, 0.966667, 1.166667, 1.1], 6, [("running_var_biased",)]),
    "reversed and biased": ([4.3, 0.7, 2.5, 1.9], 1, [("momentum_reversed", "running_var_biased")]),
    "right": ([1.6, 1, 1.3, 1.2], 1, []),
}


@pytest.mark.parametrize(("values", "decimals", "keys"), RUNNING_VAR.values(), ids=RUNNING_VAR)
def test_running_var_of_bn1d(values: list[float], decimals: int, keys: list[tuple[str, ...]]) -> None:
    assert asked(BN1D, {"running_var": printed(values, decimals)}).keys == keys


def test_eps_omitted_checks_at_four_decimals() -> None:
    assert output(WITHOUT_EPS, 4).ok


def test_eps_omitted_is_diagnosed_at_seven_decimals() -> None:
    assert output(WITHOUT_EPS, 7).keys[0] == ("eps_omitted",)


SHAPES = {
    "batch": ("batch", (10, 100), {}),
    "batch with affine": ("batch", (10, 10, 10), {"weight": np.full(10, 1.5), "bias": np.full(10, 0.5)}),
    "instance": ("instance", (2, 20, 25), {"track_running_stats": True}),
    "layer": ("layer", (10, 100), {}),
    "group": ("group", (2, 20, 25), {"groups": 5}),
    "rms": ("rms", (10, 100), {}),
}


@pytest.mark.parametrize(("kind", "shape", "options"), SHAPES.values(), ids=SHAPES)
def test_diagnosis_of_a_thousand_elements_takes_less_than_two_seconds(
    kind: str, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    x, noise = printed(rng.normal(size=shape), 4), printed(rng.normal(size=shape), 4)
    settled = plan(kind, shape, "float64", options)
    start = time.perf_counter()
    found = check(x, settled, initial_state(settled, options), {"output": noise})
    assert time.perf_counter() - start < 2
    assert found.keys == []


# --- verdicts and names ---------------------------------------------------------------------------

PAIRS = {
    "ddof1 and eps outside": (
        ("ddof1", "eps_outside"),
        {"eps": 0.1},
        (BN1D - BN1D.mean(0)) / (BN1D.std(0, ddof=1) + 0.1),
    ),
    "ddof1 and weight omitted": (("ddof1", "weight_omitted"), {"weight": np.array([2.0, 0.5, 3, 4])}, UNBIASED),
    "batch statistics over rows and bias omitted": (
        ("axes_layer", "bias_omitted"),
        {"bias": np.array([2.0, 0.5, 3, 4])},
        (BN1D - BN1D.mean(1, keepdims=True)) / np.sqrt(BN1D.var(1, keepdims=True) + 1e-5),
    ),
}


@pytest.mark.parametrize(("keys", "options", "values"), PAIRS.values(), ids=PAIRS)
def test_two_slips_are_named_together(keys: tuple[str, str], options: dict[str, Any], values: np.ndarray) -> None:
    assert keys in output(values, **options).keys


def test_one_slip_is_preferred_to_two() -> None:
    assert all(len(keys) == 1 for keys in output(UNBIASED).keys)


def test_single_odd_cell_is_a_typo() -> None:
    assert output(changed(NORMALIZED, (1, 0), 1.3778)).keys == [("typo",)]


def test_single_cell_with_the_wrong_sign_is_a_typo() -> None:
    assert output(changed(NORMALIZED, (1, 0), -1.3887)).keys == [("typo",)]


def test_two_odd_cells_have_no_name() -> None:
    assert output(changed(changed(NORMALIZED, (1, 0), 1.3778), (0, 1), -1.3247)).keys == []


def test_rows_in_another_order_are_permuted() -> None:
    assert output(NORMALIZED[::-1]).keys == [("permuted",)]


def test_transposed_answer_says_so() -> None:
    square = BN1D[:, :3]
    values = (square - square.mean(0)) / np.sqrt(square.var(0) + 1e-5)
    (diagnosis,) = output(values.T, x=square).diagnoses
    assert diagnosis.keys == ("permuted",)
    assert "rows and columns are exchanged" in diagnosis.text


def test_equal_statistics_of_two_layouts_are_listed_together() -> None:
    x = np.random.default_rng(1).normal(size=(1, 4, 5))  # one sample: batch is instance
    values = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    found = output(values, 5, x=x, kind="layer", normalized_shape=(4, 5))
    assert {("axes_batch",), ("axes_instance",)} <= set(found.keys)


def test_explanations_that_data_cannot_tell_apart_come_with_what_would() -> None:
    lines = explanation(output(WITHOUT_EPS, 7))
    assert "decimals would." in lines[-1]
    assert "cannot tell" in lines[-1]


def test_unexplained_answer_shows_the_nearest_slip() -> None:
    found = output(np.random.default_rng(0).normal(size=(3, 4)))
    assert found.keys == []
    assert explanation(found)[0] == "No known slip explains these numbers."


def test_several_quantities_must_all_be_explained() -> None:
    found = asked(BN1D, {"output": printed(UNBIASED, 4), "mean": printed([3.5, 3.2, 4.4, 2.3], 1)})
    assert found.keys == []


def test_unbiased_variance_given_for_var_alone() -> None:
    expected = {"var": printed(BN1D.var(0, ddof=1), 4), "output": printed(NORMALIZED, 4)}
    assert asked(BN1D, expected).keys == [("ddof1",)]


def test_biased_variance_in_text_and_unbiased_in_the_output() -> None:
    expected = {"var": printed(BN1D.var(0), 4), "output": printed(UNBIASED, 4)}
    assert asked(BN1D, expected).keys == [("ddof1",)]


CONSTANT = np.array([[5.0, 1], [5, 2], [5, 4]])


def test_nan_where_eps_was_left_out_of_a_constant_channel() -> None:
    values = (CONSTANT - CONSTANT.mean(0)) / np.where(CONSTANT.std(0) == 0, np.nan, CONSTANT.std(0))
    assert ("eps_omitted",) in output(values, 4, x=CONSTANT).keys


def test_nan_for_a_number_differs_infinitely() -> None:
    found = output(changed(NORMALIZED, (0, 0), np.nan))
    assert (found.mismatches, found.max_error) == (1, np.inf)


def test_nan_where_the_exact_value_is_nan_agrees() -> None:
    x = changed(BN1D, (0, 0), np.nan)
    values = np.asarray(normalize(x, "batch").output)
    assert output(values, x=x).ok


def test_infinity_for_a_number_is_named_in_the_verdict() -> None:
    assert "not a finite number" in verdict(output(changed(NORMALIZED, (0, 0), np.inf)))


def test_whole_numbers_in_an_answer_are_exact() -> None:
    assert not output([[-1, 1]], EXACT, x=[[1, 3]], kind="layer").ok


def test_decimals_override_what_is_written() -> None:
    settled = plan("layer", (1, 2), "float64", {})
    x, answer = Printed.exactly(np.array([[1.0, 3]])), Printed.exactly(np.array([[-1.0, 1]]))
    assert check(x, settled, initial_state(settled, {}), {"output": answer}, decimals=2).ok


def test_input_decimals_widen_what_is_allowed() -> None:
    settled = plan("batch", BN1D.shape, "float64", {})
    answer = {"output": printed(changed(NORMALIZED, (0, 0), -0.9248), 4)}
    assert check(Printed.exactly(BN1D), settled, initial_state(settled, {}), answer, input_decimals=1).ok


def test_float32_answer_of_a_float16_input_is_held_to_its_digits() -> None:
    x = BN1D.astype(np.float16)
    result = normalize(x, "batch")
    found = check_result(Printed.exactly(x), result, {"output": printed(NORMALIZED, 5)})
    assert found.ok


def test_answer_of_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(InputError, match=r"the answer for output has shape \(4, 3\); output has shape \(3, 4\)"):
        output(NORMALIZED.T + 1)


def test_answer_with_its_axes_in_another_order_is_named() -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 4, 5))
    values = np.asarray(normalize(x, "batch").output).transpose(0, 2, 3, 1)
    found = output(values, x=x)
    assert (found.ok, found.keys) == (False, [("transposed",)])
    assert "yours is (2, 4, 5, 3): axes 0, 2, 3, 1 of the output's." in found.diagnoses[0].text
    assert verdict(found) == "does not check: the answer's shape is (2, 4, 5, 3), the output's (2, 3, 4, 5)"


def test_quantity_that_is_not_computed_is_refused() -> None:
    with pytest.raises(InputError, match="mean is not computed here; an answer can be given for mean_square, rstd"):
        asked(BN1D, {"mean": printed([1, 2, 3], 1)}, "rms")


# --- in words -------------------------------------------------------------------------------------

WRONG = output(UNBIASED, mode="eval", track_running_stats=False)


def test_verdict_of_a_right_answer() -> None:
    assert verdict(output(NORMALIZED)) == "checks: all 12 cells agree, to the 4 decimals given"


def test_verdict_of_a_wrong_answer() -> None:
    assert verdict(WRONG) == "does not check: 10 of 12 cells differ, the largest by 0.2595 (allowed: 0.00005)"


def test_verdict_on_a_single_number() -> None:
    found = asked([1.0, 2, 4, 1], {"mean": printed(2.5, 1)}, "layer")
    assert verdict(found) == "does not check: 1 of 1 cell differs, by 0.5 (allowed: 0.05)"


def test_explanation_names_both_formulas() -> None:
    assert explanation(WRONG) == [
        "Your numbers are what the unbiased variance gives, sum(centered^2) / (n - 1).",
        "BatchNorm normalizes with the biased one, sum(centered^2) / n.   [ddof1]",
    ]


def test_diagnosis_shows_the_first_cell_in_which_the_two_part() -> None:
    cell = WRONG.diagnoses[0].first_cell
    assert cell is not None
    assert (cell.name, cell.yours, round(cell.exact, 4)) == ("output (0, 0)", -0.7559, -0.9258)


def test_table_shows_yours_exact_difference_and_allowed() -> None:
    table = section(WRONG)
    assert table.columns == ["cell", "yours", "exact", "difference", "allowed"]
    assert table.rows[0] == ["output (1, 3)", "1.1547", "1.414210", "0.26", "0.00005"]


def test_table_shows_the_worst_cells_first() -> None:
    differences = [float(row[3]) for row in section(WRONG).rows]
    assert differences == sorted(differences, reverse=True)


def test_table_leaves_out_the_cells_that_agree() -> None:
    assert len(section(WRONG).rows) == 10


def test_table_can_show_all_cells() -> None:
    assert len(section(WRONG, everything=True).rows) == 12


def test_long_table_is_cut_and_counted() -> None:
    x = np.random.default_rng(2).normal(size=(10, 10))
    table = section(output(x + 1, 4, x=x))
    assert (len(table.rows), table.title) == (20, "cells that differ: the worst 20 of 100")


def test_document_has_the_keys_of_the_contract() -> None:
    parts = document(WRONG)
    assert list(parts) == ["ok", "assumes", "tolerance", "max_error", "mismatches", "diagnoses", "nearest"]
    assert (parts["ok"], parts["mismatches"]) == (False, 10)


def test_document_of_a_diagnosis() -> None:
    (diagnosis,) = document(WRONG)["diagnoses"]
    assert diagnosis["keys"] == ["ddof1"]
    assert diagnosis["max_error"] < 5.1e-5
    assert (diagnosis["right"], diagnosis["slipped"]) == ("sum(centered^2) / n", "sum(centered^2) / (n - 1)")


def test_document_can_be_written_as_json() -> None:
    assert json.loads(json.dumps(document(WRONG)))["diagnoses"][0]["first_cell"]["index"] == [0, 0]


# --- worked-example files -------------------------------------------------------------------------

EXAMPLE = {"kind": "layer", "input": [[1, 2, 4, 1]], "expect": {"mean": [2]}}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: Any) -> Path:
        path = tmp_path / "example.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return path

    return write


def test_example_keeps_the_decimals_as_written(written: Any) -> None:
    text = '{"kind": "layer", "input": [1.50, 2], "options": {"weight": [0.5, 2.000]}, "expect": {"mean": 1.750}}'
    example = load_example(written(text))
    assert example.x.decimals.tolist() == [2, EXACT]
    assert example.parameters["weight"].decimals.tolist() == [1, 3]
    assert example.expect["mean"].decimals.tolist() == 3


def test_example_options_may_use_the_papers_words(written: Any) -> None:
    options = {"gamma": [1, 2, 3, 4], "beta": [0, 0, 0, 1]}
    assert load_example(written(EXAMPLE | {"options": options})).state.bias is not None


def test_example_reads_its_input_from_a_file_beside_it(written: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2, 4, 1]]))
    assert check_file(written(EXAMPLE | {"input": "x.npy"}))[1].ok


def test_example_may_expect_nan(written: Any) -> None:
    example = {"kind": "layer", "input": [["NaN", 1]], "expect": {"output": [["NaN", "NaN"]]}}
    assert check_file(written(example))[1].ok


def test_example_with_exact_input_decimals(written: Any) -> None:
    text = '{"kind": "layer", "input": [0.5, 2], "input_decimals": "exact", "expect": {"mean": 1.25}}'
    assert check_file(written(text))[1].tolerance < 0.0051


BROKEN = {
    "not JSON": ("{", "is not valid JSON"),
    "not an object": ([1], "is an object with the keys kind, input and expect"),
    "unknown key": (EXAMPLE | {"inputs": [1]}, "the key 'inputs' is not known"),
    "missing key": ({"kind": "layer"}, "the key 'input' is missing"),
    "unknown kind": (EXAMPLE | {"kind": "spectrum"}, "kind 'spectrum' is not known"),
    "unknown option": (EXAMPLE | {"options": {"sigma": 1}}, "layer has no option sigma; no kind has it"),
    "unknown quantity": (EXAMPLE | {"expect": {"std": [1]}}, "expect has 'std'"),
    "nothing expected": (EXAMPLE | {"expect": {}}, "expect is empty"),
    "text for a number": (
        EXAMPLE | {"expect": {"mean": ["two"]}},
        r"expect.mean has text at \[0\], not a number: 'two'",
    ),
    "ragged input": (EXAMPLE | {"input": [[1], [1, 2]]}, "input is ragged: row 1 has 2 values, row 0 has 1"),
    "another shape": (EXAMPLE | {"expect": {"mean": [1, 2]}}, r"shape \(2,\); mean has shape \(1,\)"),
    "decimals": (EXAMPLE | {"decimals": 2.5}, "decimals is 2.5"),
    "slip": (EXAMPLE | {"slip": 3}, "slip must be a key"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_example_is_refused_in_words(written: Any, text: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_file(written(text))


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_error_of_an_example_names_the_file(written: Any, text: Any, message: str) -> None:
    with pytest.raises(InputError, match=r"example\.json"):
        check_file(written(text))


def test_missing_example_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*nowhere\.json"):
        load_example(tmp_path / "nowhere.json")


def test_a_number_beyond_float32_is_shown_among_the_worst() -> None:
    assert section(output(changed(NORMALIZED, (1, 1), 1e60))).rows[0][0] == "output (1, 1)"
