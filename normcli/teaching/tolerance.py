"""How far an answer may lie from the exact one: derived from the digits that were printed, never guessed.

Two things separate a right answer from the exact numbers. It was rounded when it was printed, by
up to half a unit of its last digit; and the input and the parameters were rounded too, which moves
the exact numbers. The second is followed to first order, through the Jacobian of

    normalized_i = centered_i * rstd
    d normalized_i / d x_j = rstd * (delta_ij - 1/n - centered_i * centered_j * pull / (n - ddof))

with pull = -2 * rstd'(var) / rstd, which is rstd^2 where rstd = 1 / sqrt(var + eps). (Without the
1/n where no mean is subtracted.) Arithmetic counts as one more rounding of the input and of the mean.

A gradient is linear in grad_output and weight, through the same Jacobian J, which is symmetric:

    grad_input_i = rstd * sum_j J_ij * grad_normalized_j
    d grad_input_i / d x_k = -s * (a_i * grad_input_k + a_k * grad_input_i) - rstd * s * J_ik * sum(a * grad_normalized)

with s = sqrt(pull / (n - ddof)) and a = centered * s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.planning.kinds import CORRECTIONS, GRADIENTS
from normcli.teaching.figures import Figures
from normcli.teaching.row_sums import absolute_row_sums

Floats = NDArray[np.float64]

_INPUT_UNITS = 2  # a sum in floating point is the exact sum of terms that are off by about this many units
_RESULT_UNITS = 4  # the few operations after it
_SHIFT_UNITS = 2  # the mean that is subtracted, or the shift that is added
_MOST_SLOPES = 2**21  # of the elements by the input, that are worked out one by one


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """By how much each given number may be off: arrays of its own shape, or 0; ``units`` times that for the input."""

    x: Floats | float = 0.0
    units: float = 1.0
    weight: Floats | float = 0.0
    bias: Floats | float = 0.0
    running_mean: Floats | float = 0.0
    running_var: Floats | float = 0.0
    grad_output: Floats | float = 0.0


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
    rounding = Rounding(x=worked.sheet.sizes, units=_INPUT_UNITS)
    if worked.work.goes_back:
        weight, flow = _sizes(worked, worked.work.state.weight), _sizes(worked, worked.work.grad_output)
        rounding = replace(rounding, weight=weight, grad_output=flow)
    return Computed(worked, rounding)


def _sizes(worked: Figures, values: NDArray[Any] | None) -> Floats | float:
    """By how much arithmetic takes given numbers to be off, in the same array for all who ask."""
    if values is None:
        return 0.0
    found: Floats = worked.sheet.once(("sizes", id(values)), lambda: (values, _INPUT_UNITS * np.abs(values)))[1]
    return found


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
            own = np.abs(worked.weight) * self._normalized + np.abs(worked.normalized) * weight + bias
            return own + self._in_corrected(weight) if self._is_corrected else own
        if name in CORRECTIONS:
            return self._corrections[name == "d"]
        if name == "normalized":
            return self._normalized
        if name in GRADIENTS:
            return self._gradients[name]()
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

    @property
    def _is_corrected(self) -> bool:
        return "r" in self.worked

    @cached_property
    def _corrections(self) -> tuple[Floats, Floats]:
        """The movement of r and of d, as far as they are not clipped."""
        worked, rounding, state = self.worked, self._rounding, self.worked.work.state
        assert state.running_var is not None
        r, d = (worked.value(name) for name in CORRECTIONS)
        old_mean, old_var, var = (
            worked.by_group(np.reshape(values, (-1, 1)))
            for values in (rounding.running_mean, rounding.running_var, state.running_var)
        )
        spread = old_var / (2 * var)
        moved_r = np.abs(r) * (self._rstd / worked.rstd + spread)
        moved_d = (self._statistics[0] + old_mean) / np.sqrt(var) + np.abs(d) * spread
        plan = worked.plan
        return (
            np.where((r > 1 / plan.rmax) & (r < plan.rmax), _finite(moved_r), 0.0),
            np.where(np.abs(d) < plan.dmax, _finite(moved_d), 0.0),
        )

    def _in_corrected(self, weight: Floats | float) -> Floats:
        """What r and d, and with them the weight, move in the output, beyond what it would be without them."""
        worked, (moved_r, moved_d) = self.worked, self._corrections
        r, d = (worked.value(name) for name in CORRECTIONS)
        beyond = np.abs(worked.normalized * r + d) * weight - np.abs(worked.normalized) * weight
        return np.abs(worked.weight / r) * (np.abs(worked.normalized) * moved_r + moved_d) + beyond

    def _by_jacobian(self, off: Floats) -> Floats:
        return self.worked.rstd * absolute_row_sums(self._a, off, self._h)

    @property
    def _s(self) -> Floats:
        worked = self.worked
        found: Floats = np.sqrt(worked.pull / worked.divisor)
        return found

    @property
    def _a(self) -> Floats:
        a = self.worked.centered * self._s
        return np.where(np.isfinite(a), a, 0.0)

    @property
    def _h(self) -> float:
        return 1 / self.worked.count if self.worked.program.centers else 0.0

    @property
    def _gradients(self) -> Mapping[str, Callable[[], Floats]]:
        return {"grad_input": self._grad_input, "grad_weight": self._grad_weight, "grad_bias": self._grad_bias}

    def _grad_input(self) -> Floats:
        own = self._grad_input_by_constants()
        if not self._is_corrected:
            return own
        return own + np.abs(self.worked.written("grad_input") / self.worked.value("r")) * self._corrections[0]

    def _grad_input_by_constants(self) -> Floats:
        """The movement where r and d, if there are any, are what they are."""
        worked, rounding = self.worked, self._rounding
        weight = worked.by_channel(rounding.weight)
        flow = np.abs(worked.weight) * worked.grouped(rounding.grad_output)
        if not worked.from_batch:
            return np.abs(worked.rstd) * (flow + np.abs(worked.flow) * weight) + (
                np.abs(worked.grad_normalized) * self._rstd
            )
        moved = self._by_x(self._off(worked))
        if self._is_of_one_weight:
            return moved + self._by_jacobian(flow) + np.abs(self._of_weight_1) * weight
        return moved + self._by_jacobian(flow + np.abs(worked.flow) * weight)

    def _by_x(self, off: Floats) -> Floats:
        """What the input moves in its own gradient: exactly, or no less where that takes too long."""
        worked, a, s = self.worked, self._a, self._s
        dx: Floats = worked.written("grad_input")
        d = worked.grad_normalized
        pulled = worked.rstd * s * (a * d).sum(axis=1, keepdims=True)
        if not off.any():
            return np.zeros_like(dx)
        if dx.size * worked.count > _MOST_SLOPES:
            both = np.abs(dx) * (np.abs(a) * off).sum(axis=1, keepdims=True)
            both += np.abs(a) * (np.abs(dx) * off).sum(axis=1, keepdims=True)
            return np.asarray(s * both + np.abs(pulled) * absolute_row_sums(a, off, self._h))
        rows, columns = a[:, :, None], a[:, None, :]
        jacobian = np.eye(worked.count) - self._h - rows * columns
        slopes = s[:, :, None] * (rows * dx[:, None, :] + columns * dx[:, :, None]) + pulled[:, :, None] * jacobian
        return np.asarray((np.abs(slopes) @ off[:, :, None])[:, :, 0])

    def _grad_weight(self) -> Floats:
        worked = self.worked
        flow = worked.grouped(self._rounding.grad_output)
        if not self._is_corrected:
            return worked.over_rest(np.abs(worked.normalized) * flow + self._in_grad_weight())
        (r, d), (moved_r, moved_d) = (worked.value(name) for name in CORRECTIONS), self._corrections
        moved = r * self._in_grad_weight() + np.abs(worked.flow) * (np.abs(worked.normalized) * moved_r + moved_d)
        return worked.over_rest(np.abs(worked.normalized * r + d) * flow + moved)

    def _in_grad_weight(self) -> Floats:
        """What the input moves in the sum of grad_output * normalized, in the places of its elements."""
        if not self._is_of_one_weight:
            return np.abs(self.worked.flow) * self._normalized
        return np.abs(self._of_weight_1) * self._off(self.worked)

    @property
    def _is_of_one_weight(self) -> bool:
        """Whether all elements of a group have the same weight, so that what one of them moves in them adds up."""
        worked, own = self.worked, self.worked.plan.layout
        return worked.from_batch and worked.layout is own and not set(own.axes) & set(own.channels)

    @property
    def _of_weight_1(self) -> Floats:
        """The gradient of the input if the weight were 1."""
        g, a = self.worked.flow, self._a
        sums = self._h * g.sum(axis=1, keepdims=True) + a * (a * g).sum(axis=1, keepdims=True)
        found: Floats = self.worked.rstd * (g - sums)
        return found

    def _grad_bias(self) -> Floats:
        return self.worked.over_rest(self.worked.grouped(self._rounding.grad_output))

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
        if name in GRADIENTS:
            return moved + _finite(self._in_gradient(name, summed))
        if name not in ("normalized", "output"):
            return moved
        shift = _finite(self._shift(summed) * worked.rstd)
        if name == "normalized":
            return moved + shift
        output: Floats = moved + shift * np.abs(worked.weight) + _RESULT_UNITS * np.abs(worked.bias)
        return output

    def _shift(self, summed: float) -> Floats:
        """How far the centered values are off all together."""
        mean = np.abs(self.worked.x - self.worked.centered)
        found: Floats = _SHIFT_UNITS * np.abs(self.worked.x) + (_SHIFT_UNITS + summed) * mean
        return found

    def _in_gradient(self, name: str, summed: float) -> Floats:
        """What the sums of a gradient lose where their terms cancel, and what that shift moves."""
        worked = self.worked
        if name == "grad_bias":
            return np.zeros_like(worked.flow)
        shift = self._shift(summed)
        if name == "grad_weight":
            return worked.over_rest(np.abs(worked.flow) * shift * worked.rstd)
        if not worked.from_batch:
            return np.zeros_like(shift)
        a, s, d = self._a, self._s, worked.grad_normalized
        total, pulled = (np.abs(values.sum(axis=1, keepdims=True)) for values in (d, a * d))
        terms = np.abs(d) + self._h * total + np.abs(a) * pulled
        off = s * (shift * pulled + np.abs(a) * (np.abs(d) * shift).sum(axis=1, keepdims=True))
        found: Floats = worked.rstd * ((_RESULT_UNITS + summed) * terms + off)
        return found


def at_most(worked: Figures, rounding: Rounding, unit: float) -> float:
    """A quick upper bound of both for the output, in arithmetic of that unit; infinite where there is none.

    With a = centered * sqrt(pull / divisor), a_i * sum |a_j| is at most n * max(a^2) and 2 * sqrt(n),
    since the a^2 add up to 2 at most.
    """
    if not worked.from_batch or "r" in worked:
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


def _mean(values: Floats) -> Floats:
    found: Floats = values.mean(axis=1, keepdims=True)
    return found


def _finite(values: Floats) -> Floats:
    """The values, and 0 where nothing can be said: an infinite allowance would let everything pass."""
    return np.where(np.isfinite(values), values, 0.0)
