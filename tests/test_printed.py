"""How an answer was printed: the digits it shows, and the readings that they allow."""

from __future__ import annotations

import numpy as np
import pytest

from normcli.files.numbers import EXACT
from normcli.teaching.printed import Printed, half_step, read_printed

HALF_UNITS = {
    "four decimals": ([0.5653, 0.0322], [4, 4], [5e-5, 5e-5]),
    "zeros dropped by JSON": ([-0.9258, -1.2], [4, 1], [5e-5, 5e-5]),
    "whole numbers": ([3.0, 7.0], [EXACT, EXACT], [0.0, 0.0]),
    "a whole number among decimals": ([3.0, 0.25], [EXACT, 2], [0.0, 5e-3]),
    "scientific notation": ([1.2345e-5, 3.4, 2.5e-3], [9, 4, 7], [5e-10, 5e-5, 5e-8]),
    "thousands are exact": ([1.5e3, 1e7], [-2, -7], [0.0, 0.0]),
    "thousands with all their digits": ([1.234e3, 5.678e7], [0, -4], [0.5, 5e3]),
}


@pytest.mark.parametrize(("values", "decimals", "expected"), HALF_UNITS.values(), ids=HALF_UNITS)
def test_half_a_unit_of_the_last_digit_given(values: list[float], decimals: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(Printed(np.array(values), np.array(decimals)).half_units, expected)


def test_decimals_can_be_overridden() -> None:
    assert Printed.exactly(np.array([1.0])).rounded_to(2).half_units.tolist() == [5e-3]


# text, dtype of the input -> (what it is read as, the dtype that may have held it)
READINGS = {
    "fixed decimals": ("[1.3887, -0.4629]", "float64", {("4 decimals", "float64"), ("4 decimals", "float32")}),
    "zeros stripped": ("[1.3887, -0.5]", "float64", {("4 decimals", "float64"), ("5 significant digits", "float64")}),
    "significant digits": ("[1.23, 0.00456, 12.3]", "float64", {("3 significant digits", "float64")}),
    "a whole number of %.3g": ("[123, 4.56]", "float64", {("3 significant digits", "float64")}),
    "exponents": ("[1.23e-05, 4.56e+02]", "float64", {("3 significant digits", "float64")}),
    "shortest float16": ("[1.336, -0.2673, 0.5]", "float64", {("4 decimals", "float16")}),
    "shortest float32": ("[1.2247356, 0.1]", "float64", {("7 decimals", "float32")}),
    "more digits than float32 has": ("[1.38872860]", "float64", {("8 decimals", "float64")}),
    "whole numbers": ("[-1, 1]", "float64", {("", "float64"), ("", "float32")}),
    "a dtype that is named": ("tensor([1.3359], dtype=torch.float16)", "float32", {("4 decimals", "float16")}),
    "the dtype of the input": ("[1.33594]", "bfloat16", {("5 decimals", "bfloat16")}),
}


@pytest.mark.parametrize(("text", "dtype", "expected"), READINGS.values(), ids=READINGS)
def test_answer_can_be_read_as(text: str, dtype: str, expected: set[tuple[str, str]]) -> None:
    answer, _ = read_printed(text)
    assert expected <= {(reading.words, reading.dtype) for reading in answer.readings(dtype)}


NO_READINGS = {
    "whole numbers are not rounded to 16 bits": ("[-1, 1]", "float64", "float16"),
    "six decimals are not the shortest of a float16": ("[-1.000000, 0.267334]", "float64", "float16"),
    "ten digits are not those of a float32": ("[1.3887286013]", "float64", "float32"),
    "four digits that no float16 prints": ("[0.2674, 0.2675]", "float64", "float16"),
}


@pytest.mark.parametrize(("text", "dtype", "never"), NO_READINGS.values(), ids=NO_READINGS)
def test_answer_cannot_be_read_as(text: str, dtype: str, never: str) -> None:
    answer, _ = read_printed(text)
    assert never not in {reading.dtype for reading in answer.readings(dtype)}


def test_an_answer_of_whole_numbers_is_exact() -> None:
    assert {float(r.half_units.max()) for r in Printed.exactly(np.array([1.0, -1.0])).readings("float64")} == {0.0}


def test_a_bare_zero_in_an_answer_was_rounded_like_its_neighbours() -> None:
    fixed = Printed(np.array([-0.9258, 0.0]), np.array([4, EXACT])).readings("float64")[0]
    assert fixed.half_units.tolist() == [5e-5, 5e-5]


def test_said_decimals_leave_one_way_to_read_the_digits() -> None:
    readings = Printed(np.array([0.5, 1.25]), np.array([1, 2])).rounded_to(4).readings("float64")
    assert {reading.words for reading in readings} == {"4 decimals"}


def test_no_reading_is_wider_than_three_units_of_the_last_digit_where_it_must_be_sharp() -> None:
    answer, _ = read_printed("[1.2247, -0.27, 0.003, 12.5]")
    own = 0.5 * 10.0 ** -answer.decimals.astype(float)
    widest = [
        (reading.sharp(np.full(4, 1e3)) / np.maximum(own, reading.own)).max() for reading in answer.readings("float64")
    ]
    assert max(widest) <= 6


@pytest.mark.parametrize(("dtype", "expected"), [("float16", np.float16), ("float32", np.float32), ("float64", float)])
def test_half_a_step_is_half_the_spacing_of_the_dtype(dtype: str, expected: type) -> None:
    values = np.array([1.0, 1.999, 3.0, 0.1, 1e-3])
    np.testing.assert_array_equal(half_step(values, dtype), np.spacing(values.astype(expected)).astype(float) / 2)


def test_a_binary_file_keeps_its_dtype(tmp_path: object) -> None:
    path = f"{tmp_path}/x.npy"
    np.save(path, np.array([0.1, 0.2], np.float16))
    answer, _ = read_printed(path)
    assert (answer.dtype, answer.in_dtype.dtype, answer.shown.any()) == ("float16", np.float16, np.False_)


def test_pasted_text_says_that_it_was_rounded() -> None:
    texts = ["tensor([0.1000, 0.2500])", "array([0.1, 0.25])", "[0.1 0.25]", "[0.1, 0.25]"]
    assert [read_printed(text)[0].pasted for text in texts] == [True, True, True, False]
