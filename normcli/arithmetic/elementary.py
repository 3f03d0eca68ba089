"""exp, log and powers of pairs, to about 97 bits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.pair import Pair

_LN2 = Pair(np.float64(0.6931471805599453), np.float64(2.3190468138462996e-17))
_LN2_REST = 5.707708438416212e-34  # what the pair lacks
_HALVINGS, _TERMS = 9, 10  # of the argument, and of the series after them: 0.0007^11 / 11! is below 2^-140
_MOST = 2.0**31  # beyond, the exponent of exp is beyond any number's


def exp(x: Pair) -> tuple[Pair, NDArray[np.int64]]:
    """e^x as a pair between 0.7 and 1.5 (or 0, infinite, NaN), and the power of two that goes with it.

    >>> mantissa, exponent = exp(Pair(np.float64(1)))
    >>> float(mantissa.scaled(exponent).hi), float(mantissa.scaled(exponent).lo)
    (2.718281828459045, 1.4456468917292502e-16)
    """
    usable = np.abs(x.hi) < _MOST
    inside = x.where(~usable, Pair(np.float64(0)))
    k = np.rint(inside.hi / _LN2.hi)
    rest = inside - Pair(k) * _LN2 - Pair(k * _LN2_REST)
    rest = rest.scaled(np.array(-_HALVINGS))
    less_one = rest / Pair(np.float64(math.factorial(_TERMS)))
    for term in range(_TERMS - 1, 0, -1):
        less_one = (less_one + Pair(np.float64(1)) / Pair(np.float64(math.factorial(term)))) * rest
    for _ in range(_HALVINGS):
        less_one = less_one * (less_one + Pair(np.float64(2)))
    found = less_one + Pair(np.float64(1))
    out = np.where(x.hi > 0, np.inf, np.where(x.hi < 0, 0.0, x.hi))
    return found.where(~usable, Pair(out)), np.where(usable, k, 0).astype(np.int64)


def log(x: Pair) -> Pair:
    """The natural logarithm; of 0 it is minus infinity, of a negative number NaN.

    >>> log(Pair(np.float64(2))).lo == _LN2.lo
    np.True_
    """
    near = np.log(x.hi)
    usable = np.isfinite(near)
    own = Pair(np.where(usable, near, 0.0))
    mantissa, exponent = exp(-own)
    off = x.where(~usable, Pair(np.float64(1))) * mantissa.scaled(exponent) - Pair(np.float64(1))
    exact: Pair = own + (off - off * off / Pair(np.float64(2)))
    return exact.where(~usable, Pair(near))
