"""Double-double arithmetic: numbers of about 106 bits, as unevaluated sums of two float64 arrays.

The reference must be straighter than what it measures, also for float64 tensors, and NumPy has
no wider type that exists on every platform. Addition and multiplication are the error-free
transformations of Dekker (1971, Numer. Math. 18:224) and Knuth (TAOCP 2, 4.2.2).

Where ``hi`` is infinite or NaN, ``lo`` is 0: non-finite values follow IEEE arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SPLITTER = 2.0**27 + 1  # Veltkamp's constant: cuts 53 bits into 26 + 26


class Double:
    """``hi + lo`` with ``|lo| <= ulp(hi) / 2``; arithmetic is elementwise and broadcasts.

    >>> third = Double(np.float64(1)) / Double(np.float64(3))
    >>> float((third * Double(np.float64(3)) - Double(np.float64(1))).hi)
    0.0
    """

    __slots__ = ("hi", "lo")

    def __init__(self, hi: Floats | np.float64, lo: Floats | np.float64 | float = 0.0) -> None:
        self.hi = np.asarray(hi, dtype=np.float64)
        self.lo = np.asarray(lo, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``hi``; ``lo`` may be a 0 that broadcasts to it."""
        return self.hi.shape

    def __getitem__(self, region: tuple[slice, ...]) -> Double:
        return Double(self.hi[region], np.broadcast_to(self.lo, self.shape)[region])

    def __setitem__(self, region: tuple[slice, ...], value: Double) -> None:
        self.hi[region], self.lo[region] = value.hi, value.lo

    def __neg__(self) -> Double:
        return Double(-self.hi, -self.lo)

    def __add__(self, other: Double) -> Double:
        total, error = _two_sum(self.hi, other.hi)
        return _normalized(total, error + (self.lo + other.lo))

    def __sub__(self, other: Double) -> Double:
        return self + -other

    def __mul__(self, other: Double) -> Double:
        product, error = _two_product(self.hi, other.hi)
        return _normalized(product, error + (self.hi * other.lo + self.lo * other.hi))

    def __truediv__(self, other: Double) -> Double:
        quotient = Double(self.hi / other.hi)
        remainder = self - quotient * other
        return _normalized(quotient.hi, remainder.hi / other.hi)

    def sqrt(self) -> Double:
        """The square root; of 0 it is 0, of a negative number NaN."""
        root = Double(np.sqrt(self.hi))
        remainder = self - root * root
        return _normalized(root.hi, remainder.hi / (2 * np.where(root.hi == 0, 1, root.hi)))

    def sum(self, axes: tuple[int, ...]) -> Double:
        """The sum over ``axes``, which stay with length 1; pairs are added level by level."""
        total = self
        for axis in axes:
            total = _sum_along(total, axis)
        return total

    def scaled(self, exponent: NDArray[np.int64]) -> Double:
        """This number times 2**exponent, exactly (unless it leaves float64's range)."""
        if not exponent.any():
            return self
        return Double(np.ldexp(self.hi, exponent), np.ldexp(self.lo, exponent))

    def where(self, condition: NDArray[np.bool_], value: Double) -> Double:
        """``value`` where the condition holds, this number elsewhere."""
        return Double(np.where(condition, value.hi, self.hi), np.where(condition, value.lo, self.lo))


def difference(a: Floats, b: Floats) -> Double:
    """a - b without any error; where it is infinite or NaN, ``lo`` is NaN until the next operation.

    >>> float(difference(np.float64(1e16), np.float64(0.5)).lo)
    -0.5
    """
    return Double(*_two_sum(a, -b))


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """fl(a + b) and its rounding error, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """fl(a * b) and its rounding error, exactly (unless the error underflows)."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _split(a: Floats) -> tuple[Floats, Floats]:
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def _normalized(total: Floats, error: Floats) -> Double:
    hi = total + error
    lo = error - (hi - total)
    usable = np.isfinite(lo)
    if usable.all():
        return Double(hi, lo)
    # Infinite or NaN, or so large that only the error overflowed.
    return Double(np.where(usable, hi, total), np.where(usable, lo, 0.0))


def _sum_along(terms: Double, axis: int) -> Double:
    hi, lo = np.moveaxis(terms.hi, axis, 0), np.moveaxis(np.broadcast_to(terms.lo, terms.hi.shape), axis, 0)
    total = Double(hi, lo)
    while len(total.hi) > 1:
        half = len(total.hi) // 2
        paired = Double(total.hi[:half], total.lo[:half]) + Double(total.hi[half : 2 * half], total.lo[half : 2 * half])
        if len(total.hi) % 2:
            paired = Double(np.concatenate([paired.hi, total.hi[-1:]]), np.concatenate([paired.lo, total.lo[-1:]]))
        total = paired
    return Double(np.moveaxis(total.hi, 0, axis), np.moveaxis(total.lo, 0, axis))
