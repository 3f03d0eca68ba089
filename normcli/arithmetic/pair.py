"""Pairs: numbers of about 106 bits, as unevaluated sums of two float64 arrays.

The reference must be straighter than what it measures, also for float64 tensors, and NumPy has
no wider type that exists on every platform. Addition and multiplication are the error-free
transformations of Dekker (1971, Numer. Math. 18:224) and Knuth (TAOCP 2, 4.2.2).

Where ``hi`` is infinite or NaN, ``lo`` is 0: non-finite values follow IEEE arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SPLITTER = 2.0**27 + 1  # Veltkamp's constant: cuts 53 bits into 26 + 26


class Pair:
    """``hi + lo`` with ``|lo| <= ulp(hi) / 2``; arithmetic is elementwise and broadcasts.

    With a float64 array on the other side the result is one: what is left of the pair is dropped.

    >>> third = Pair(np.float64(1)) / Pair(np.float64(3))
    >>> float((third * Pair(np.float64(3)) - Pair(np.float64(1))).hi)
    0.0
    """

    __slots__ = ("hi", "lo")
    __array_ufunc__ = None  # an array on the left asks the methods below

    def __init__(self, hi: Floats | np.float64, lo: Floats | np.float64 | float = 0.0) -> None:
        self.hi = np.asarray(hi, dtype=np.float64)
        self.lo = np.asarray(lo, dtype=np.float64)

    @property
    def pair(self) -> Pair:
        """The number itself, as a wide one has it beside its exponent."""
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``hi``; ``lo`` may be a 0 that broadcasts to it."""
        return self.hi.shape

    def __neg__(self) -> Pair:
        return Pair(-self.hi, -self.lo)

    def __abs__(self) -> Pair:
        return self.where(self.hi < 0, -self)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Pair):
            return self.hi + other
        total, error = _two_sum(self.hi, other.hi)
        return _normalized(total, error + (self.lo + other.lo))

    def __sub__(self, other: Any) -> Any:
        if not isinstance(other, Pair):
            return self.hi - other
        return self + -other

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, Pair):
            return self.hi * other
        product, error = _two_product(self.hi, other.hi)
        return _normalized(product, error + (self.hi * other.lo + self.lo * other.hi))

    def __truediv__(self, other: Any) -> Any:
        if not isinstance(other, Pair):
            return self.hi / other
        quotient = Pair(self.hi / other.hi)
        remainder = self - quotient * other
        return Quotient(_normalized(quotient.hi, remainder.hi / other.hi), self, other)

    def __radd__(self, other: Floats) -> Floats:
        return other + self.hi

    def __rsub__(self, other: Floats) -> Floats:
        return other - self.hi - self.lo

    def __rmul__(self, other: Floats) -> Floats:
        return other * self.hi

    def __rtruediv__(self, other: Floats) -> Floats:
        return other / self.hi

    def sqrt(self) -> Pair:
        """The square root; of 0 it is 0, of a negative number NaN."""
        root = Pair(np.sqrt(self.hi))
        remainder = self - root * root
        return _normalized(root.hi, remainder.hi / (2 * np.where(root.hi == 0, 1, root.hi)))

    def sum(self, axes: tuple[int, ...]) -> Pair:
        """The sum over ``axes``, which stay with length 1; pairs are added level by level."""
        total = self
        for axis in axes:
            total = _sum_along(total, axis)
        return total

    def scaled(self, exponent: NDArray[np.int64]) -> Pair:
        """This number times 2**exponent, exactly (unless it leaves float64's range)."""
        return Pair(np.ldexp(self.hi, exponent), np.ldexp(self.lo, exponent))

    def where(self, condition: NDArray[np.bool_], value: Pair) -> Pair:
        """``value`` where the condition holds, this number elsewhere."""
        return Pair(np.where(condition, value.hi, self.hi), np.where(condition, value.lo, self.lo))

    def reshape(self, shape: tuple[int, ...]) -> Pair:
        """The same numbers in another shape."""
        return Pair(self.hi.reshape(shape), np.broadcast_to(self.lo, self.shape).reshape(shape))


class Quotient(Pair):
    """A quotient that remembers what was divided by what; a factor of 0 and an element beside it need that.

    An element may lie so close to its mean that the mean's own rounding counts: x - over / under is
    (x - hi) - (over - hi * under) / under. And 0 times a quotient by 0 is 0, since a constant group
    normalizes to 0 by definition. Python asks the right side first where it is a subclass.

    >>> zero, one = Pair(np.float64(0)), Pair(np.float64(1))
    >>> with np.errstate(all="ignore"):
    ...     (one / zero).hi.tolist(), (zero * (one / zero)).hi.tolist()
    (inf, 0.0)
    """

    __slots__ = ("_rest", "over", "under")

    def __init__(self, value: Pair, over: Pair, under: Pair) -> None:
        super().__init__(value.hi, value.lo)
        self.over, self.under = over, under
        self._rest: Pair | None = None

    @property
    def rest(self) -> Pair:
        """What ``hi`` lacks of the quotient, to the last bit; 0 where it is not finite."""
        if self._rest is None:
            rest = Pair.__truediv__(self.over - Pair(self.hi) * self.under, self.under)
            self._rest = rest.where(~np.isfinite(rest.hi), Pair(np.float64(0)))
        return self._rest

    def __rsub__(self, other: Any) -> Any:
        if isinstance(other, Pair):
            return other - Pair(self.hi) - self.rest
        rest = self.rest.hi
        return other - self.hi - rest if rest.any() else other - self.hi

    def __mul__(self, other: Any) -> Any:
        return self.__rmul__(other)

    def __rmul__(self, other: Any) -> Any:
        none = self.under.hi == 0
        if not isinstance(other, Pair):
            product = other * self.hi
            return np.where(none & (other == 0), 0.0, product) if none.any() else product
        exact: Pair = Pair.__mul__(other, self)
        return exact.where(none & (other.hi == 0), Pair(np.float64(0))) if none.any() else exact


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


def _normalized(total: Floats, error: Floats) -> Pair:
    hi = total + error
    lo = error - (hi - total)
    usable = np.isfinite(lo)
    if usable.all():
        return Pair(hi, lo)
    # Infinite or NaN, or so large that only the error overflowed.
    return Pair(np.where(usable, hi, total), np.where(usable, lo, 0.0))


def _sum_along(terms: Pair, axis: int) -> Pair:
    hi, lo = np.moveaxis(terms.hi, axis, 0), np.moveaxis(np.broadcast_to(terms.lo, terms.hi.shape), axis, 0)
    total = Pair(hi, lo)
    while len(total.hi) > 1:
        half = len(total.hi) // 2
        paired = Pair(total.hi[:half], total.lo[:half]) + Pair(total.hi[half : 2 * half], total.lo[half : 2 * half])
        if len(total.hi) % 2:
            paired = Pair(np.concatenate([paired.hi, total.hi[-1:]]), np.concatenate([paired.lo, total.lo[-1:]]))
        total = paired
    return Pair(np.moveaxis(total.hi, 0, axis), np.moveaxis(total.lo, 0, axis))
