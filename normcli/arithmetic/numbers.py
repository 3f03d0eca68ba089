"""The number types that the lines are worked out in: how a number and an array become one, and sums and roots.

``PAIRS`` are the reference's own; ``WIDES`` take their place where a number is so far out that pairs would leave
float64's range; ``SINGLES`` are float64 with pairs for the statistics, which is enough for tensors of 24
bits or fewer, ``DOUBLES`` are so for their gradients. ``FLOATS`` are what others compute with.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import elementary
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.wide import Wide
from normcli.floats import rounded

_FAR = 2.0**300  # beyond it, and below its reciprocal, products leave float64's range
_MOST_FACTORS = 64  # of a power that is multiplied out
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

    def exp(self, value: Any) -> Any:
        """e to that power."""
        mantissa, exponent = elementary.exp(value)
        return mantissa.scaled(exponent)

    def log(self, value: Any) -> Any:
        """The natural logarithm."""
        return elementary.log(value)

    def stop(self, value: Any) -> Any:
        """The number itself, through which no gradient flows."""
        return value

    def greater(self, one: Any, other: Any) -> Any:
        """1 where the one is greater, 0 elsewhere."""
        return self.array(_is_less(other, one).astype(np.float64))

    def equal(self, one: Any, other: Any) -> Any:
        """1 where both are the same, 0 elsewhere."""
        return self.array((_is_less(one, other) == _is_less(other, one)).astype(np.float64))

    def larger(self, one: Any, other: Any) -> Any:
        """The larger of two; NaN where either is."""
        return self.chosen(_is_less(one, other) | np.isnan(other.hi), other, one)

    def smaller(self, one: Any, other: Any) -> Any:
        """The smaller of two; NaN where either is."""
        return self.chosen(_is_less(other, one) | np.isnan(other.hi), other, one)

    def chosen(self, condition: NDArray[np.bool_], one: Any, other: Any) -> Any:
        """The one where the condition holds, the other elsewhere."""
        return other.where(condition, one)

    def extreme(self, value: Any, axes: tuple[int, ...], *, largest: bool) -> Any:
        """The largest or the smallest over axes, which stay with length 1; NaN where one is."""
        found = value
        for axis in axes:
            found = self._extreme_along(found, axis, self.larger if largest else self.smaller)
        return found

    def _extreme_along(self, value: Any, axis: int, better: Callable[[Any, Any], Any]) -> Any:
        while (size := value.hi.shape[axis]) > 1:
            half = (size + 1) // 2
            value = better(self.part(value, axis, slice(0, half)), self.part(value, axis, slice(size - half, size)))
        return value

    def part(self, value: Any, axis: int, where: slice) -> Any:
        """The places of an array along one axis."""
        at = (*[slice(None)] * axis, where)
        return Pair(value.hi[at], np.broadcast_to(value.lo, value.hi.shape)[at])

    def shifted(self, value: Any, axis: int, step: int) -> Any:
        """Each place's neighbour, so many places on along an axis; 0 beyond the end."""
        size, places = value.hi.shape[axis], [slice(None)] * value.hi.ndim
        kept, at = list(places), list(places)
        kept[axis] = slice(max(0, step), size + min(0, step))
        at[axis] = slice(max(0, -step), size + min(0, -step))

        def moved(values: Any) -> Any:
            found = np.zeros(value.hi.shape, values.dtype)
            found[tuple(at)] = values[tuple(kept)]
            return found

        return self._moved(value, moved)

    def _moved(self, value: Any, moved: Callable[[Any], Any]) -> Any:
        return Pair(moved(value.hi), moved(np.broadcast_to(value.lo, value.hi.shape)))

    def to_the(self, base: Any, power: Any) -> Any:
        """A power; by multiplication alone where it is one whole number."""
        exponent = float(power.hi.ravel()[0]) if power.hi.size == 1 else math.nan
        if not exponent.is_integer() or abs(exponent) > _MOST_FACTORS:
            root = exponent * 2
            if root.is_integer() and abs(root) <= _MOST_FACTORS:
                return self.to_the(self.sqrt(base), self.number(root))
            return self.exp(power * self.log(base))
        found = reduce(operator.mul, [base] * int(abs(exponent)), self.number(1))
        return self.number(1) / found if exponent < 0 else found

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

    def exp(self, value: Any) -> Any:
        """e to that power."""
        return Wide(*elementary.exp(Pair(value.hi, value.lo)))

    def log(self, value: Any) -> Any:
        """The natural logarithm."""
        own = np.where(np.isfinite(value.pair.hi) & (value.pair.hi != 0), value.exponent, 0).astype(np.float64)
        return Wide(elementary.log(value.pair)) + Wide(Pair(own)) * self.log_of_2

    def _moved(self, value: Any, moved: Callable[[Any], Any]) -> Any:
        return Wide(super()._moved(value.pair, moved), moved(np.broadcast_to(value.exponent, value.pair.shape)))

    log_of_2 = Wide(elementary.log(Pair(np.float64(2))))

    def part(self, value: Any, axis: int, where: slice) -> Any:
        """The places of an array along one axis."""
        at = (*[slice(None)] * axis, where)
        return Wide(super().part(value.pair, axis, where), np.broadcast_to(value.exponent, value.pair.shape)[at])

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

    @property
    def lo(self) -> float:
        """Nothing: there are no more bits."""
        return 0.0

    def where(self, condition: NDArray[np.bool_], value: Float) -> Float:
        """``value`` where the condition holds, this number elsewhere."""
        return Float(np.where(condition, value.hi, self.hi))


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

    def sign(self, value: Any) -> Any:
        """-1, 0 or 1."""
        return Float(np.sign(value.hi))

    def exp(self, value: Any) -> Any:
        """e to that power."""
        return Float(np.exp(value.hi))

    def log(self, value: Any) -> Any:
        """The natural logarithm."""
        return Float(np.log(value.hi))

    def part(self, value: Any, axis: int, where: slice) -> Any:
        """The places of an array along one axis."""
        return Float(value.hi[(*[slice(None)] * axis, where)])

    def _moved(self, value: Any, moved: Callable[[Any], Any]) -> Any:
        return Float(moved(value.hi))

    def settled(self, total: Any, size: Any) -> Any:
        """The sum itself: others have what is left of it."""
        return total


class Doubles(Singles):
    """The same, but that sums are exact: where their terms cancel, what is lost in them is seen."""

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes, which stay with length 1."""
        return (Pair(value) if isinstance(value, np.ndarray) else value).sum(axes)


def _is_less(one: Any, other: Any) -> NDArray[np.bool_]:
    """Whether one number is less than another."""
    if isinstance(one, Wide) or isinstance(other, Wide):
        less = ((one - other).pair.hi < 0) | (one.hi < other.hi)
    else:
        less = (one.hi < other.hi) | ((one.hi == other.hi) & (one.lo < other.lo))
    found: NDArray[np.bool_] = np.asarray(less)
    return found


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
