"""How far an answer may lie from the exact one: derived from the digits that were printed, never guessed.

Two things separate a right answer from the exact numbers. It was rounded when it was printed, by
up to half a unit of its last digit; and the input and the parameters were rounded too, which moves
the exact numbers. The second is followed to first order, through the Jacobian of

    normalized_i = centered_i * rstd
    d normalized_i / d x_j = rstd * (delta_ij - 1/n - centered_i * centered_j * pull / (n - ddof))

with pull = -2 * rstd'(var) / rstd, which is rstd^2 where rstd = 1 / sqrt(var + eps). (Without the
1/n where no mean is subtracted.) Arithmetic in float32, where the answer may come from it, counts
as one more rounding of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from normcli.plan import Layout, Shape
from normcli.text import EXACT

if TYPE_CHECKING:
    from normcli.slips import Worked

Floats = NDArray[np.float64]

# Half the distance between neighbours, relative to the number.
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

_INPUT_UNITS = 2  # a sum in floating point is the exact sum of terms that are off by about this many units
_RESULT_UNITS = 4  # the few operations after it


@dataclass(frozen=True)
class Printed:
    """Numbers and the decimals that each was written with, as ``read_written`` gives them; ``EXACT`` where exact.

    >>> Printed(np.array([0.5653, -1.2, 0.0]), np.array([4, 1, EXACT])).half_units.tolist()
    [5e-05, 5e-05, 0.0]
    """

    values: Floats
    decimals: NDArray[np.int64]

    @classmethod
    def exactly(cls, values: NDArray[np.floating]) -> Printed:
        """Numbers that nobody has rounded."""
        return cls(np.asarray(values, np.float64), np.full(np.shape(values), EXACT))

    def rounded_to(self, decimals: int | None) -> Printed:
        """The same numbers, all of them printed with ``decimals`` decimals; None leaves them alone."""
        return self if decimals is None else Printed(self.values, np.full(self.values.shape, decimals))

    @property
    def most_decimals(self) -> int:
        """The most decimals that any of the numbers shows; ``EXACT`` where none shows any."""
        shown = self.decimals[self.decimals != EXACT]
        return int(shown.max()) if shown.size else EXACT

    @property
    def half_units(self) -> Floats:
        """Half a unit of each number's last printed digit, 0 where it is exact.

        A tensor is printed with one number of decimals, and JSON drops the zeros at the end: -1.2
        among numbers of four decimals was -1.2000. In scientific notation each number has its own.
        """
        return np.where(self.decimals == EXACT, 0.0, self._unit / 2)

    @property
    def half_units_of_answer(self) -> Floats:
        """The same for an answer, where a bare 0 or -1 among decimals was rounded like its neighbours.

        An answer of whole numbers alone is exact.
        """
        return np.broadcast_to(self._unit / 2, self.values.shape)

    @cached_property
    def _unit(self) -> Floats:
        shown = self.decimals != EXACT
        if not shown.any():
            return np.zeros(self.values.shape)
        digits = self.decimals[shown] if self._scientific else self.decimals[shown].max()
        unit = np.full(self.values.shape, 10.0**-self.most_decimals)
        unit[shown] = 10.0 ** -np.asarray(digits, np.float64)
        return unit

    @property
    def _scientific(self) -> bool:
        """Whether all numbers show the same four significant digits or more, as 1.2300e-05 does."""
        counted = (self.decimals != EXACT) & (self.values != 0) & np.isfinite(self.values)
        if not counted.any():
            return False
        digits = self.decimals[counted] + np.floor(np.log10(np.abs(self.values[counted]))) + 1
        return bool(digits.min() == digits.max() >= 4)


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """By how much each given number may be off: arrays of its own shape, or 0."""

    x: Floats | float = 0.0
    weight: Floats | float = 0.0
    bias: Floats | float = 0.0
    running_mean: Floats | float = 0.0
    running_var: Floats | float = 0.0


def precision_of(answer: Printed, dtype: str) -> str:
    """The coarsest dtype that holds an answer to its printed digits: it may have been computed in it.

    Only float32 and float64, the dtypes of frameworks, and ``dtype``, that of the input, come into
    question.

    >>> precision_of(Printed(np.array([1.3887]), np.array([4])), "float64")
    'float32'
    >>> precision_of(Printed(np.array([1.38872860]), np.array([10])), "float64")
    'float64'
    """
    from normcli.backends.numpy import rounded

    finite = answer.values[np.isfinite(answer.values)]
    half_units = answer.half_units_of_answer[np.isfinite(answer.values)]
    for name in dict.fromkeys([dtype, "float32"]):
        with np.errstate(over="ignore"):
            held = rounded(finite, name).astype(np.float64)
        if name != "float64" and (np.abs(held - finite) <= half_units * (1 + 1e-9)).all():
            return name
    return "float64"


def propagated(worked: Worked, rounding: Rounding, precision: str, *, sharp: bool = True) -> dict[str, Floats]:
    """How far the rounding of what was given, and of the arithmetic, can move each quantity.

    The keys are a Result's field names, the shapes those of its arrays; the cost is n log n in the
    elements. Not ``sharp`` gives an upper bound, sooner.
    """
    arithmetic = max(UNIT["float64"], min(UNIT[precision], UNIT["float32"]))  # half inputs are computed in float32
    storage = UNIT[precision] if precision in ("float16", "bfloat16") else 0.0
    with np.errstate(all="ignore"):
        moved = _moved(worked, rounding, arithmetic, sharp)
        for name, movement in moved.items():
            value = np.abs(worked.quantities[name])
            units = _RESULT_UNITS * arithmetic + (storage if name == "output" else 0.0)
            moved[name] = _finite(movement) + _finite(units * value)
    moved["output"] = moved["output"] + _RESULT_UNITS * arithmetic * np.abs(worked.bias)
    return moved


def grouped(values: Floats, layout: Layout) -> Floats:
    """An array of the tensor's shape as (groups of statistics, n)."""
    view = np.moveaxis(values.reshape(layout.view), layout.axes, range(-len(layout.axes), 0))
    return view.reshape(-1, layout.count)


def ungrouped(groups: Floats, layout: Layout, shape: Shape) -> Floats:
    """The inverse of ``grouped``; a column vector of statistics is spread over its groups."""
    kept = [size for axis, size in enumerate(layout.view) if axis not in layout.axes]
    averaged = [layout.view[axis] for axis in layout.axes]
    view = np.broadcast_to(groups, (groups.shape[0], layout.count)).reshape(*kept, *averaged)
    return np.moveaxis(view, range(-len(averaged), 0), layout.axes).reshape(shape)


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


def _moved(worked: Worked, rounding: Rounding, arithmetic: float, sharp: bool) -> dict[str, Floats]:
    """The movement of every quantity: the sum of |derivative| * uncertainty over all that was given."""
    x = worked.x
    off = np.broadcast_to(rounding.x, x.shape) + _INPUT_UNITS * arithmetic * np.abs(x)
    running = _running_moved(worked, off, rounding) if worked.running_mean is not None else {}
    if worked.from_batch:
        mean, var = _statistics_moved(worked.centered, off, worked.layout)
        rstd = worked.rstd * worked.pull / 2 * var * (worked.count / worked.divisor)
        normalized = _normalized_moved(worked, off, sharp)
    else:
        mean, var = (worked.by_group(running[name]) for name in ("running_mean", "running_var"))
        rstd = worked.rstd * worked.pull / 2 * var
        normalized = _spread(worked.rstd, worked) * (off + _spread(mean, worked))
        normalized = normalized + np.abs(worked.centered) * _spread(rstd, worked)
    weight, bias = (worked.by_channel(values) for values in (rounding.weight, rounding.bias))
    statistics = {
        "mean": mean,
        "var": var,
        "mean_square": var,
        "var_unbiased": var * (worked.count / max(1, worked.count - 1)),
        "rstd": rstd,
    }
    moved = {
        **{name: value.reshape(worked.layout.stats_shape) for name, value in statistics.items()},
        "normalized": normalized,
        "output": np.abs(worked.weight) * normalized + np.abs(worked.normalized) * weight + bias,
        **running,
    }
    return {name: value for name, value in moved.items() if name in worked.quantities}


def _running_moved(worked: Worked, off: Floats, rounding: Rounding) -> dict[str, Floats]:
    """The movement of the running statistics after this input: that of the old ones and of the batch's, mixed."""
    mean, var = (
        worked.per_channel(moved) for moved in _statistics_moved(worked.batch_centered, off, worked.batch_layout)
    )
    old, new = worked.shares
    kept = worked.kept_slope * worked.running_divisor * var
    return {
        "running_mean": old * np.asarray(rounding.running_mean) + new * mean,
        "running_var": old * np.asarray(rounding.running_var) + new * kept,
    }


def _statistics_moved(centered: Floats, off: Floats, layout: Layout) -> tuple[Floats, Floats]:
    """The movement of the batch's mean, d mean / d x_j = 1 / n, and variance, 2 * centered_j / n."""
    u, deviation = grouped(off, layout), np.abs(grouped(centered, layout))
    return u.mean(axis=1), 2 * (deviation * u).mean(axis=1)


def _normalized_moved(worked: Worked, off: Floats, sharp: bool) -> Floats:
    layout = worked.layout
    u = grouped(off, layout)
    a = grouped(worked.centered, layout) * np.sqrt(worked.pull / worked.divisor)[:, None]
    h = 1 / worked.count if worked.centers else 0.0
    a = np.where(np.isfinite(a), a, 0.0)
    sums = (
        absolute_row_sums(a, u, h)
        if sharp
        else u + h * u.sum(1, keepdims=True) + np.abs(a) * (np.abs(a) * u).sum(1, keepdims=True)
    )
    return ungrouped(worked.rstd[:, None] * sums, layout, off.shape)


def _spread(statistic: Floats, worked: Worked) -> Floats:
    return ungrouped(statistic[:, None], worked.layout, worked.x.shape)


def _finite(values: Floats) -> Floats:
    """The values, and 0 where nothing can be said: an infinite allowance would let everything pass."""
    return np.where(np.isfinite(values), values, 0.0)
