"""The number types that the lines are worked out in: how a number and an array become one, and sums and roots.

``PAIRS`` are the reference's own; ``WIDES`` take their place where a number is so far out that pairs would leave
float64's range; ``SINGLES`` are float64 with pairs for the statistics, which is enough for tensors of 24
bits or fewer, ``DOUBLES`` are so for their gradients. ``FLOATS`` are what others compute with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.pair import Pair
from normcli.arithmetic.wide import Wide
from normcli.floats import rounded

_FAR = 2.0**300  # beyond it, and below its reciprocal, products leave float64's range
_NOISE = 2.0**-95  # of the terms: what is smaller where pairs cancel is rounding
FAR_GRADIENT = 2.0**150  # the same for the products of a backward pass, which have more factors


class Pairs:
    """About 106 bits."""

    def number(self, value: float) -> Any:
        """One number."""
        return Pair(np.float64(value))

    def array(self, values: NDArray[Any]) -> Any:
        """An array of any floating dtype."""
        return Pair(values.astype(np.float64))

    def statistic(self, values: NDArray[Any]) -> Any:
        """An array with one number for each group of statistics."""
        return self.array(values)

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes, which stay with length 1."""
        return value.sum(axes)

    def sqrt(self, value: Any) -> Any:
        """The square root."""
        return value.sqrt()

    def sign(self, value: Any) -> Any:
        """-1, 0 or 1."""
        return Pair(np.sign(value.hi))

    def rounded(self, value: Any, dtype: str) -> Any:
        """The value as that dtype holds it, rounded once."""
        return self.array(rounded(_odd(value.hi, value.lo) if dtype != "float64" else value.hi, dtype))

    def settled(self, total: Any, size: Any) -> Any:
        """A sum, but 0 where its terms, of that size together, cancel and leave nothing but their rounding."""
        return total.where(np.abs(total.hi) < _NOISE * size.hi, Pair(np.float64(0)))


class Wides(Pairs):
    """About 106 bits, and any exponent."""

    def number(self, value: float) -> Any:
        """One number."""
        return Wide(Pair(np.float64(value)))

    def array(self, values: NDArray[Any]) -> Any:
        """An array of any floating dtype."""
        return Wide(Pair(values.astype(np.float64)))

    def sign(self, value: Any) -> Any:
        """-1, 0 or 1."""
        return Wide(Pair(np.sign(value.pair.hi)))

    def settled(self, total: Any, size: Any) -> Any:
        """A sum, but 0 where its terms, of that size together, cancel and leave nothing but their rounding."""
        return total.where((abs(total) - size * self.number(_NOISE)).pair.hi < 0, self.number(0))


class Singles(Pairs):
    """float64 for the elements, pairs for what is one number for each group."""

    def array(self, values: NDArray[Any]) -> Any:
        """An array of any floating dtype."""
        return values.astype(np.float64)

    def statistic(self, values: NDArray[Any]) -> Any:
        """An array with one number for each group of statistics."""
        return Pair(values)

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes, which stay with length 1: of 24 bits nothing that matters is lost."""
        is_array = isinstance(value, np.ndarray)
        return Pair(np.add.reduce(value, axis=axes, keepdims=True)) if is_array else value.sum(axes)

    def sign(self, value: Any) -> Any:
        """-1, 0 or 1."""
        return np.sign(value) if isinstance(value, np.ndarray) else super().sign(value)

    def rounded(self, value: Any, dtype: str) -> Any:
        """The value as that dtype holds it."""
        return self.array(rounded(value, dtype)) if isinstance(value, np.ndarray) else super().rounded(value, dtype)

    def settled(self, total: Any, size: Any) -> Any:
        """A sum, but 0 where its terms, of that size together, cancel and leave nothing but their rounding."""
        if not isinstance(total, np.ndarray):
            return super().settled(total, size)
        return np.where(np.abs(total) < 2.0**-52 * size, 0.0, total)


class Float:
    """One rounding for each operation, as people's own programs have it; ``hi`` is all that there is.

    >>> third = Float(np.float64(1)) / Float(np.float64(3))
    >>> (Float(np.float64(6)) * third).hi.tolist()
    2.0
    """

    __slots__ = ("hi",)

    def __init__(self, hi: Any) -> None:
        self.hi: NDArray[Any] = hi

    def __neg__(self) -> Float:
        return Float(-self.hi)

    def __abs__(self) -> Float:
        return Float(abs(self.hi))

    def __add__(self, other: Float) -> Float:
        return Float(self.hi + other.hi)

    def __sub__(self, other: Float) -> Float:
        return Float(self.hi - other.hi)

    def __mul__(self, other: Float) -> Float:
        return Float(self.hi * other.hi)

    def __truediv__(self, other: Float) -> Float:
        return _Ratio(self.hi, other.hi)

    def larger(self, other: Float) -> Float:
        """The larger of two."""
        return Float(np.maximum(self.hi, other.hi))


class _Ratio(Float):
    """The ``Quotient`` of floats: times it is divided once, and 0 times a quotient by 0 is 0."""

    __slots__ = ("over", "under")

    def __init__(self, over: Any, under: Any) -> None:
        super().__init__(over / under)
        self.over, self.under = over, under

    def __mul__(self, other: Float) -> Float:
        return self.__rmul__(other)

    def __rmul__(self, other: Float) -> Float:
        product, none = other.hi * self.over / self.under, self.under == 0
        return Float(np.where(none & (other.hi == 0), 0.0, product) if np.any(none) else product)

    def __rtruediv__(self, other: Float) -> Float:
        return _Ratio(other.hi * self.under, self.over)


class Floats(Pairs):
    """float64 and nothing more: for what others have computed."""

    def number(self, value: float) -> Any:
        """One number."""
        return Float(np.float64(value))

    def array(self, values: NDArray[Any]) -> Any:
        """An array of any floating dtype."""
        return Float(values.astype(np.float64))

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes, which stay with length 1."""
        return Float(np.add.reduce(value.hi, axis=axes, keepdims=True))

    def sqrt(self, value: Any) -> Any:
        """The square root."""
        return Float(np.sqrt(value.hi))

    def rounded(self, value: Any, dtype: str) -> Any:
        """The value as that dtype holds it."""
        return self.array(rounded(value.hi, dtype))


class Doubles(Singles):
    """The same, but that sums are exact: where their terms cancel, what is lost in them is seen."""

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes, which stay with length 1."""
        return (Pair(value) if isinstance(value, np.ndarray) else value).sum(axes)


PAIRS, WIDES, SINGLES, DOUBLES, FLOATS = Pairs(), Wides(), Singles(), Doubles(), Floats()


def _odd(high: NDArray[np.float64], low: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pair in one float64 number, from which rounding to fewer bits gives what it gives from the pair.

    What is left out makes the number before it odd, so that it never lies halfway (Boldo and Melquiond 2008,
    IEEE Trans. Comput. 57:462).

    >>> np.float32(_odd(np.array([1 + 2.0**-24]), np.array([2.0**-80]))[0]) > 1
    np.True_
    """
    toward = np.where((low != 0) & ((low < 0) == (high > 0)), np.nextafter(high, 0.0), high)
    return np.where((low != 0) & np.isfinite(high), (toward.view(np.int64) | 1).view(np.float64), high)


def is_far(values: NDArray[Any], far: float = _FAR) -> bool:
    """Whether a number is so far out that products of such numbers leave float64's range.

    >>> is_far(np.array([1.0, 0.0])), is_far(np.array([1e-200, 1.0])), is_far(np.array([np.inf]))
    (False, True, False)
    """
    if values.dtype != np.float64:
        return False  # the others end long before
    size = np.abs(values)
    return bool(((size > far) & (size < np.inf)).any() or ((size < 1 / far) & (size > 0)).any())
