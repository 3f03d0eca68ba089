"""The number types beyond float64: against exact fractions, where products leave the range, and by 0."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from normcli.arithmetic.numbers import PAIRS, SINGLES, WIDES, is_far
from normcli.arithmetic.pair import Pair, Quotient
from normcli.arithmetic.wide import Wide

TYPES = {"pairs": PAIRS, "wides": WIDES}
EXACT = 2.0**-95  # relative error of one operation, at most


def exact(value: Any) -> Fraction:
    """What a number of either type stands for."""
    pair = value.pair
    scale = Fraction(2) ** int(value.exponent) if isinstance(value, Wide) else Fraction(1)
    return (Fraction(float(pair.hi)) + Fraction(float(np.broadcast_to(pair.lo, pair.hi.shape)))) * scale


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / b,
    "size": lambda a, b: abs(-a) + abs(b),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", TYPES)
def test_an_operation_is_nearly_exact(name: str, operation: str) -> None:
    rng = np.random.default_rng(1)
    for a, b in rng.normal(size=(50, 2)) * 10.0 ** rng.integers(-20, 20, size=(50, 2)):
        found = OPERATIONS[operation](TYPES[name].number(a), TYPES[name].number(b))
        true = OPERATIONS[operation](Fraction(a), Fraction(b))
        assert abs(exact(found) - true) <= abs(true) * Fraction(EXACT)


@pytest.mark.parametrize("exponent", [-1000, -601, 0, 7, 1000])
def test_wide_numbers_have_any_size(exponent: int) -> None:
    number = WIDES.number(3.0 * 2.0**exponent)
    assert exact(number * number / number) == Fraction(3) * Fraction(2) ** exponent
    assert exact(WIDES.sqrt(number * number)) == Fraction(3) * Fraction(2) ** exponent


def test_small_terms_beside_large_ones_are_not_lost() -> None:
    total = WIDES.sum(WIDES.array(np.array([1e300, 1e-200, -1e300])), (0,))
    assert float(total.hi[0]) == 1e-200


@pytest.mark.parametrize("name", TYPES)
def test_sums_over_axes_keep_them(name: str) -> None:
    values = np.random.default_rng(2).normal(size=(3, 5, 7))
    total = TYPES[name].sum(TYPES[name].array(values), (0, 2))
    assert total.hi.shape == (1, 5, 1)
    np.testing.assert_allclose(total.hi, values.sum(axis=(0, 2), keepdims=True), rtol=1e-14)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_follows_ieee(name: str, bad: float) -> None:
    numbers = TYPES[name]
    with np.errstate(all="ignore"):
        found = [op(numbers.number(bad), numbers.number(2.0)).hi for op in list(OPERATIONS.values())[:4]]
        expected = [op(np.float64(bad), np.float64(2.0)) for op in list(OPERATIONS.values())[:4]]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("numbers", "bits"), [(PAIRS, 52), (WIDES, 52), (SINGLES, 23)], ids=["pairs", "wides", "singles"]
)
def test_an_element_beside_the_mean_keeps_its_digits(numbers: Any, bits: int) -> None:
    """x - total / n where the mean, rounded, is x: what is left of it is the difference."""
    x = np.array([1.0, 1.0 + 2.0**-bits, 1.0])
    total, n = numbers.sum(numbers.array(x), (0,)), numbers.number(3.0)
    centered = numbers.array(x) - total / n
    found = centered if isinstance(centered, np.ndarray) else centered.hi
    np.testing.assert_allclose(found, np.array([-1, 2, -1]) * 2.0**-bits / 3, rtol=2.0 ** (bits - 60))


@pytest.mark.parametrize("numbers", [PAIRS, WIDES, SINGLES], ids=["pairs", "wides", "singles"])
def test_0_times_a_quotient_by_0_is_0_on_either_side(numbers: Any) -> None:
    values = numbers.array(np.array([0.0, 2.0, np.nan]))
    with np.errstate(all="ignore"):
        quotient = numbers.number(1.0) / numbers.sqrt(numbers.number(0.0))
        products = [values * quotient, quotient * values]
    for product in products:
        np.testing.assert_array_equal(product if isinstance(product, np.ndarray) else product.hi, [0, np.inf, np.nan])


def test_a_number_less_a_quotient_asks_the_quotient() -> None:
    """Python asks the right side first where it is a subclass; without that the last digits were lost."""
    third = Pair(np.float64(1)) / Pair(np.float64(3))
    assert isinstance(third, Quotient)
    assert exact(Pair(third.hi) - third) == pytest.approx(Fraction(float(third.hi)) - Fraction(1, 3), rel=1e-30)


@pytest.mark.parametrize(
    ("values", "far"),
    [([1.0, 1e-90], False), ([1e91], True), ([-1e200], True), ([1e-91], True), ([0.0, np.nan, np.inf], False)],
)
def test_what_is_far_out(values: list[float], far: bool) -> None:
    assert is_far(np.array(values)) is far
