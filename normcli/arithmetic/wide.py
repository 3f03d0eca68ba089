"""Wide numbers: a pair and a power of two for each element, for what would leave float64's range on the way.

1e200 squared is beyond float64, and a large eps beside small numbers is too; with an exponent of its own
an element loses nothing. It costs several times as much, so it is taken only where a given number is far out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.pair import Floats, Pair

_NOTHING = -(2**40)  # the exponent of 0: below all others
_SUMMED_AT = 900  # the exponent of the largest term of a sum, so that small ones beside it are not lost


class Wide:
    """``pair * 2**exponent``, where the pair lies from 0.5 to 1 (or is 0, infinite or NaN).

    >>> large = Wide(Pair(np.float64(1e200)))
    >>> float((large * large / large).hi)
    1e+200
    """

    __slots__ = ("exponent", "pair")

    def __init__(self, pair: Pair, exponent: NDArray[np.int64] | int = 0) -> None:
        own = np.frexp(pair.hi)[1].astype(np.int64)
        finite = np.isfinite(pair.hi)
        self.pair = pair.scaled(np.where(finite, -own, 0))
        self.exponent = np.where(finite, np.where(pair.hi == 0, _NOTHING, own + exponent), 0)

    @property
    def hi(self) -> Floats:
        """The number in float64: infinite, or with fewer bits, where it is out of range."""
        return np.ldexp(self.pair.hi, self.exponent)

    @property
    def lo(self) -> Floats:
        """What ``hi`` lacks, as far as float64 can hold it."""
        return np.ldexp(self.pair.lo, self.exponent)

    @property
    def head(self) -> Wide:
        """The first 53 bits."""
        return Wide(Pair(self.pair.hi), self.exponent)

    def __neg__(self) -> Wide:
        return Wide(-self.pair, self.exponent)

    def __abs__(self) -> Wide:
        return Wide(abs(self.pair), self.exponent)

    def __add__(self, other: Wide) -> Wide:
        at = np.maximum(self.exponent, other.exponent)
        return Wide(self._at(at) + other._at(at), at)

    def __sub__(self, other: Wide) -> Wide:
        return self + -other

    def __mul__(self, other: Wide) -> Wide:
        return Wide(self.pair * other.pair, self.exponent + other.exponent)

    def __truediv__(self, other: Wide) -> WideQuotient:
        by = np.where(other.pair.hi == 0, 0, other.exponent)  # by 0 is infinite, however small the 0
        return WideQuotient(Wide(self.pair / other.pair, self.exponent - by), self, other)

    def sqrt(self) -> Wide:
        """The square root; of 0 it is 0, of a negative number NaN."""
        odd = self.exponent % 2
        return Wide(self.pair.scaled(odd).sqrt(), (self.exponent - odd) // 2)

    def sum(self, axes: tuple[int, ...]) -> Wide:
        """The sum over ``axes``, which stay with length 1."""
        at = self.exponent.max(axis=axes, keepdims=True) - _SUMMED_AT
        return Wide(self._at(at).sum(axes), at)

    def where(self, condition: NDArray[np.bool_], value: Wide) -> Wide:
        """``value`` where the condition holds, this number elsewhere."""
        return Wide(self.pair.where(condition, value.pair), np.where(condition, value.exponent, self.exponent))

    def _at(self, exponent: NDArray[np.int64]) -> Pair:
        return self.pair.scaled(np.maximum(self.exponent - exponent, -(2**20)))


class WideQuotient(Wide):
    """The ``Quotient`` of wide numbers."""

    __slots__ = ("over", "under")

    def __init__(self, value: Wide, over: Wide, under: Wide) -> None:
        self.pair, self.exponent = value.pair, value.exponent
        self.over, self.under = over, under

    def __rsub__(self, other: Wide) -> Wide:
        rest = Wide.__truediv__(self.over - self.head * self.under, self.under)
        none = Wide(Pair(np.float64(0)))
        return other - self.head - Wide(rest.pair, rest.exponent).where(~np.isfinite(rest.pair.hi), none)

    def __mul__(self, other: Any) -> Any:
        return self.__rmul__(other)

    def __rmul__(self, other: Wide) -> Wide:
        none = (self.under.pair.hi == 0) & (other.pair.hi == 0)
        return Wide.__mul__(other, self).where(none, Wide(Pair(np.float64(0))))
