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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from normcli.planning.layout import Layout, Shape

if TYPE_CHECKING:
    from normcli.teaching.slips import Worked

Floats = NDArray[np.float64]

_INPUT_UNITS = 2  # a sum in floating point is the exact sum of terms that are off by about this many units
_RESULT_UNITS = 4  # the few operations after it
_SHIFT_UNITS = 2  # the mean that is subtracted, or the shift that is added


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """By how much each given number may be off: arrays of its own shape, or 0."""

    x: Floats | float = 0.0
    weight: Floats | float = 0.0
    bias: Floats | float = 0.0
    running_mean: Floats | float = 0.0
    running_var: Floats | float = 0.0


def propagated(worked: Worked, rounding: Rounding) -> dict[str, Floats]:
    """How far the rounding of what was given can move each quantity, to first order.

    The keys are a Result's field names, the shapes those of its arrays; the cost is n log n in the
    elements.
    """
    with np.errstate(all="ignore"):
        return {name: _finite(moved) for name, moved in _moved(worked, rounding).items()}


def computed(worked: Worked) -> dict[str, Floats]:
    """How far floating point can move each quantity, in halves of its unit at 1: times 2^-24 for float32.

    A sum is the exact sum of terms that are off by a unit or two, and a few operations follow it; one
    added up term by term, as torch's BatchNorm does, is off by about the root of their number.
    The mean is rounded too, and so is what is added to it (a framework may compute
    x * scale + shift): an error of |mean| * rstd, the same in all cells of a group, which the
    derivative by x takes for a shift that the mean follows, and so does not see.
    """
    with np.errstate(all="ignore"):
        summed = math.sqrt(max(worked.count, worked.batch_layout.count))  # a walk at random of so many steps
        moved = _moved(worked, Rounding(x=_INPUT_UNITS * np.abs(worked.x)))
        for name, movement in moved.items():
            moved[name] = _finite(movement) + _finite((_RESULT_UNITS + summed) * np.abs(worked.quantities[name]))
        mean = np.abs(worked.x - worked.centered)
        shift = _finite((_SHIFT_UNITS * np.abs(worked.x) + (_SHIFT_UNITS + summed) * mean) * worked.spread_rstd)
        for name, scale in (("normalized", 1.0), ("output", np.abs(worked.weight))):
            moved[name] = moved[name] + shift * scale
        moved["output"] = moved["output"] + _RESULT_UNITS * np.abs(worked.bias)
    return moved


def at_most(worked: Worked, rounding: Rounding, unit: float) -> float:
    """A quick upper bound of both for the output, in arithmetic of that unit; infinite where there is none.

    With a = centered * sqrt(pull / divisor), a_i * sum |a_j| is at most n * max(a^2) and 2 * sqrt(n),
    since the a^2 add up to 2 at most.
    """
    with np.errstate(all="ignore"):
        if not worked.from_batch or (worked.pull * worked.spread > 2.1).any():
            return math.inf
        summed = math.sqrt(max(worked.count, worked.batch_layout.count))
        size, mean = np.abs(worked.x).max(), np.abs(worked.x - worked.centered).max()
        off = np.max(rounding.x) + _INPUT_UNITS * unit * size
        shift = unit * (_SHIFT_UNITS * size + (_SHIFT_UNITS + summed) * mean)
        normalized = (off * (2 + 2 * math.sqrt(worked.count)) + shift) * worked.rstd.max()
        weight, bias = np.abs(worked.weight).max(), np.abs(worked.bias).max()
        largest = np.abs(worked.quantities["output"]).max()
        own = np.abs(worked.normalized).max() * np.max(rounding.weight) + np.max(rounding.bias)
        bound = float(weight * normalized + unit * ((_RESULT_UNITS + summed) * largest + _RESULT_UNITS * bias) + own)
    return bound if math.isfinite(bound) else math.inf


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


def _moved(worked: Worked, rounding: Rounding) -> dict[str, Floats]:
    """The movement of every quantity: the sum of |derivative| * uncertainty over all that was given."""
    off = np.broadcast_to(rounding.x, worked.x.shape)
    running = _running_moved(worked, off, rounding) if worked.running_mean is not None else {}
    if worked.from_batch:
        mean, var = _statistics_moved(worked.centered, off, worked.layout)
        rstd = worked.rstd * worked.pull / 2 * var * (worked.count / worked.divisor)
        normalized = _normalized_moved(worked, off)
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


def _normalized_moved(worked: Worked, off: Floats) -> Floats:
    layout = worked.layout
    u = grouped(off, layout)
    a = grouped(worked.centered, layout) * np.sqrt(worked.pull / worked.divisor)[:, None]
    h = 1 / worked.count if worked.centers else 0.0
    a = np.where(np.isfinite(a), a, 0.0)
    return ungrouped(worked.rstd[:, None] * absolute_row_sums(a, u, h), layout, off.shape)


def _spread(statistic: Floats, worked: Worked) -> Floats:
    return ungrouped(statistic[:, None], worked.layout, worked.x.shape)


def _finite(values: Floats) -> Floats:
    """The values, and 0 where nothing can be said: an infinite allowance would let everything pass."""
    return np.where(np.isfinite(values), values, 0.0)
