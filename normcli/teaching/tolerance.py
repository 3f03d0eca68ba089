"""How far an answer may lie from the exact one: derived from the digits that were printed, never guessed.

Two things separate a right answer from the exact numbers. It was rounded when it was printed, by
up to half a unit of its last digit; and the input and the parameters were rounded too, which moves
the exact numbers. The second is followed to first order, through the Jacobian of

    normalized_i = centered_i * rstd
    d normalized_i / d x_j = rstd * (delta_ij - 1/n - centered_i * centered_j * pull / (n - ddof))

with pull = -2 * rstd'(var) / rstd, which is rstd^2 where rstd = 1 / sqrt(var + eps). (Without the
1/n where no mean is subtracted.) Arithmetic counts as one more rounding of the input and of the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from normcli.teaching.figures import Figures

Floats = NDArray[np.float64]

_INPUT_UNITS = 2  # a sum in floating point is the exact sum of terms that are off by about this many units
_RESULT_UNITS = 4  # the few operations after it
_SHIFT_UNITS = 2  # the mean that is subtracted, or the shift that is added


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """By how much each given number may be off: arrays of its own shape, or 0; ``units`` times that for the input."""

    x: Floats | float = 0.0
    units: float = 1.0
    weight: Floats | float = 0.0
    bias: Floats | float = 0.0
    running_mean: Floats | float = 0.0
    running_var: Floats | float = 0.0


def propagated(worked: Figures, rounding: Rounding) -> Moved:
    """How far the rounding of what was given can move each quantity, to first order.

    The names are a Result's fields, the shapes those of its arrays; the cost is n log n in the elements.
    """
    return Moved(worked, rounding)


def computed(worked: Figures) -> Moved:
    """How far floating point can move each quantity, in halves of its unit at 1: times 2^-24 for float32.

    A sum is the exact sum of terms that are off by a unit or two, and a few operations follow it; one
    added up term by term, as torch's BatchNorm does, is off by about the root of their number.
    The mean is rounded too, and so is what is added to it (a framework may compute
    x * scale + shift): an error of |mean| * rstd, the same in all cells of a group, which the
    derivative by x takes for a shift that the mean follows, and so does not see.
    """
    return Computed(worked, Rounding(x=worked.sheet.sizes, units=_INPUT_UNITS))


class Moved:
    """The movement of every quantity: the sum of |derivative| * uncertainty over all that was given.

    ``moved[name]`` is worked out when it is asked for.
    """

    def __init__(self, worked: Figures, rounding: Rounding) -> None:
        self.worked, self._rounding = worked, rounding
        self._known: dict[str, Floats] = {}

    def __getitem__(self, name: str) -> Floats:
        if name not in self._known:
            with np.errstate(all="ignore"):
                self._known[name] = self.worked.shaped(name, self._of(name))
        return self._known[name]

    def _of(self, name: str) -> Floats:
        return _finite(self._moved(name))

    def _moved(self, name: str) -> Floats:
        worked, rounding = self.worked, self._rounding
        if name in ("running_mean", "running_var"):
            return self._running[name == "running_var"]
        if name == "output":
            weight, bias = (worked.by_channel(values) for values in (rounding.weight, rounding.bias))
            return np.abs(worked.weight) * self._normalized + np.abs(worked.normalized) * weight + bias
        if name == "normalized":
            return self._normalized
        mean, var = self._statistics
        if name == "rstd":
            return self._rstd
        if name == "var_unbiased":
            return var * (worked.count / max(1, worked.count - 1))
        return mean if name == "mean" else var

    @property
    def _statistics(self) -> tuple[Floats, Floats]:
        worked = self.worked
        if worked.from_batch:
            return self._of_batch(worked)
        mean, var = (worked.by_group(moved) for moved in self._running)
        return mean, var

    def _of_batch(self, worked: Figures) -> tuple[Floats, Floats]:
        """The movement of the batch's mean, d mean / d x_j = 1 / n, and variance, 2 * centered_j / n."""
        off = self._off(worked)
        return worked.shared("statistics", off, lambda: (_mean(off), 2 * _mean(np.abs(worked.centered) * off)))

    def _off(self, worked: Figures) -> Floats:
        off = worked.grouped(self._rounding.x)
        return off if self._rounding.units == 1.0 else worked.shared("units", off, lambda: self._rounding.units * off)

    @property
    def _rstd(self) -> Floats:
        worked = self.worked
        return worked.rstd * worked.pull / 2 * self._statistics[1] * (worked.count / worked.divisor)

    @cached_property
    def _normalized(self) -> Floats:
        worked, off = self.worked, self._off(self.worked)
        if worked.from_batch:
            return worked.shared("normalized", off, lambda: self._by_jacobian(off))
        return worked.rstd * (off + self._statistics[0]) + np.abs(worked.centered) * self._rstd

    def _by_jacobian(self, off: Floats) -> Floats:
        worked = self.worked
        a = worked.centered * np.sqrt(worked.pull / worked.divisor)
        h = 1 / worked.count if worked.program.centers else 0.0
        return worked.rstd * absolute_row_sums(np.where(np.isfinite(a), a, 0.0), off, h)

    @cached_property
    def _running(self) -> tuple[Floats, Floats]:
        """The movement of the running statistics after this input: that of the old ones and of the batch's, mixed."""
        worked, rounding = self.worked, self._rounding
        mean, var = (worked.per_channel(moved) for moved in self._of_batch(worked.updating))
        old, new_mean, new_var = worked.shares
        return (
            old * np.reshape(rounding.running_mean, (-1, 1)) + new_mean * mean,
            old * np.reshape(rounding.running_var, (-1, 1)) + new_var * var,
        )


class Computed(Moved):
    """What arithmetic moves."""

    def _of(self, name: str) -> Floats:
        worked = self.worked
        summed = math.sqrt(max(worked.count, worked.batch_layout.count))  # a walk at random of so many steps
        moved = super()._of(name) + _finite((_RESULT_UNITS + summed) * np.abs(worked.written(name)))
        if name not in ("normalized", "output"):
            return moved
        mean = np.abs(worked.x - worked.centered)
        shift = _finite((_SHIFT_UNITS * np.abs(worked.x) + (_SHIFT_UNITS + summed) * mean) * worked.rstd)
        if name == "normalized":
            return moved + shift
        output: Floats = moved + shift * np.abs(worked.weight) + _RESULT_UNITS * np.abs(worked.bias)
        return output


def at_most(worked: Figures, rounding: Rounding, unit: float) -> float:
    """A quick upper bound of both for the output, in arithmetic of that unit; infinite where there is none.

    With a = centered * sqrt(pull / divisor), a_i * sum |a_j| is at most n * max(a^2) and 2 * sqrt(n),
    since the a^2 add up to 2 at most.
    """
    if not worked.from_batch:
        return math.inf
    with np.errstate(all="ignore"):
        summed = math.sqrt(max(worked.count, worked.batch_layout.count))
        x = worked.grouped(rounding.x)
        normalized = worked.shared(f"at most {unit} {summed}", x, lambda: _normalized_at_most(worked, x, unit, summed))
        weight, bias = worked.largest(worked.weight), worked.largest(worked.bias)
        largest = worked.largest(worked.written("output"))
        own = worked.largest(worked.normalized) * np.max(rounding.weight) + np.max(rounding.bias)
        bound = float(weight * normalized + unit * ((_RESULT_UNITS + summed) * largest + _RESULT_UNITS * bias) + own)
    return bound if math.isfinite(bound) else math.inf


def _normalized_at_most(worked: Figures, off: Floats, unit: float, summed: float) -> float:
    if (worked.pull * worked.spread > 2.1).any():
        return math.inf
    size, mean = float(np.abs(worked.x).max()), float(np.abs(worked.x - worked.centered).max())
    shift = unit * (_SHIFT_UNITS * size + (_SHIFT_UNITS + summed) * mean)
    moved = (float(off.max()) + _INPUT_UNITS * unit * size) * (2 + 2 * math.sqrt(worked.count))
    return (moved + shift) * float(np.abs(worked.rstd).max())


def absolute_row_sums(a: Floats, u: Floats, h: float) -> Floats:
    """sum_j |delta_ij - h - a_i * a_j| * u_j for each i, along the last axis of ``a`` and ``u``; h >= 0.

    The sign of h + a_i * a_j changes once along the sorted a, so prefix sums give each row's sum
    without visiting its n terms.

    >>> absolute_row_sums(np.array([[1.0, -1.0]]), np.array([[1.0, 1.0]]), 0.5).tolist()
    [[1.0, 1.0]]
    """
    order = np.argsort(a, axis=-1)
    sorted_a, sorted_u = (np.take_along_axis(values, order, -1) for values in (a, u))
    before_u, before_au = (_prefix_sums(values) for values in (sorted_u, sorted_a * sorted_u))
    flips = np.divide(-h, a, out=np.full(a.shape, -np.inf), where=a != 0)
    place = _ranks(sorted_a, flips)
    below_u, below_au = (np.take_along_axis(sums, place, -1) for sums in (before_u, before_au))
    total_u, total_au = before_u[:, -1:], before_au[:, -1:]
    rising = a >= 0  # there the terms below the flip are the negative ones, else those above it
    negative_u, negative_au = (
        np.where(rising, below_u, total_u - below_u),
        np.where(rising, below_au, total_au - below_au),
    )
    sums = h * (total_u - 2 * negative_u) + a * (total_au - 2 * negative_au)
    own = h + a * a
    others: Floats = np.maximum(sums - own * u, 0.0)
    return others + np.abs(1 - own) * u


def _prefix_sums(values: Floats) -> Floats:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=-1)], axis=-1)


def _ranks(sorted_values: Floats, sought: Floats) -> NDArray[np.int64]:
    """How many of each row's sorted values lie below each sought one: searchsorted, row by row."""
    n = sorted_values.shape[-1]
    merged = np.argsort(np.concatenate([sorted_values, sought], axis=-1), axis=-1, kind="stable")
    counts = np.empty_like(merged)
    np.put_along_axis(counts, merged, np.cumsum(merged < n, axis=-1), axis=-1)
    return counts[:, n:]


def _mean(values: Floats) -> Floats:
    found: Floats = values.mean(axis=1, keepdims=True)
    return found


def _finite(values: Floats) -> Floats:
    """The values, and 0 where nothing can be said: an infinite allowance would let everything pass."""
    return np.where(np.isfinite(values), values, 0.0)
