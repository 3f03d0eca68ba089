"""Numbers that an answer tells: the eps or the momentum that it was worked with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from normcli.planning.kinds import GRADIENTS
from normcli.teaching.figures import Figures
from normcli.teaching.printed import Printed
from normcli.teaching.sheet import grouped
from normcli.teaching.work import Change, Work

Array = NDArray[np.float64]

_MOST_TRIED = 2  # of the numbers that were tried that may fit, where it is no chance that they do
_LUCK = 2.0  # how unlikely it must be that a short number fits by chance, as a power of ten


def solved_eps(work: Work) -> set[float]:
    """The eps that the answer was worked with, where it is a short number that all the cells agree on.

    From |y - bias| = |centered * weight| / sqrt(var + eps), cell by cell, between the bounds that the
    printed digits leave.

    >>> from normcli.planning.plan import plan
    >>> from normcli.arithmetic.result import State
    >>> from normcli.teaching.sheet import Sheet
    >>> from normcli.teaching.work import right
    >>> x = np.array([[0.1, 0.2, 0.4], [0.5, 0.1, 0.3]])
    >>> printed = Printed(np.array([[-0.930, -0.232, 1.162], [1.124, -1.124, 0.0]]), np.full((2, 3), 3))
    >>> settled = plan("layer", x.shape, "float64", {})
    >>> solved_eps(right(Sheet(x), settled, State(), {"output": printed}))
    {0.005}
    """
    if work.answers and work.answers.keys() <= set(GRADIENTS):
        return _tried_eps(work)
    bounds = [bound for name, answer in work.answers.items() if (bound := _eps_bounds(work, name, answer)) is not None]
    if not bounds:
        return set()
    low, high = (np.concatenate(side) for side in zip(*bounds, strict=True))
    return _short_numbers(low, high, lambda middle: math.log(10) * middle)


def _tried_eps(work: Work) -> set[float]:
    """The eps of one digit with which all the cells of a gradient agree, which is no simple function of it.

    It is tried in the decades at whose ends the cell that it moves most lies on either side of the answer.
    """
    yours = np.concatenate([answer.values.ravel() for answer in work.answers.values()])
    off = np.concatenate([_off(answer).ravel() for answer in work.answers.values()])
    powers = [10.0**-power for power in range(10)]
    ends = [_with_eps(work, eps) for eps in powers]
    found = set()
    for high, low, above, below in zip(powers, powers[1:], ends, ends[1:], strict=False):
        if above is None or below is None or above.shape != yours.shape:
            continue
        most = int(np.argmax(np.abs(above - below)))
        first, last = sorted((above[most], below[most]))
        if first - off[most] <= yours[most] <= last + off[most]:
            tried = [float(f"{digit}{f'{low:.0e}'[1:]}") for digit in range(1, 10)] + [high]
            found |= {eps for eps in tried if (at := _with_eps(work, eps)) is not None
                      and bool((np.abs(at - yours) <= off).all())}  # fmt: skip
    return found if len(found) <= _MOST_TRIED else set()


def _with_eps(work: Work, eps: float) -> Array | None:
    """All the cells that are asked for, with another eps; None where it changes nothing."""
    changed = work.changed(Change(options={"eps": eps}))
    figures = None if changed is None else Figures(changed)
    if figures is None or not all(name in figures for name in work.answers):
        return None
    return np.concatenate([figures[name].ravel() for name in work.answers])


def _eps_bounds(work: Work, name: str, answer: Printed) -> tuple[Array, Array] | None:
    """The least and the largest eps for each group of statistics."""
    worked = Figures(work)
    plain = replace(work, made=Change()).program
    if name not in ("output", "normalized", "rstd") or plain is None or worked.program.root != plain.root:
        return None
    if answer.values.shape != worked[name].shape:
        return None
    off, spread = _off(answer), worked.spread
    with np.errstate(all="ignore"):
        if name == "rstd":
            size, off = np.abs(answer.values).reshape(-1, 1), off.reshape(-1, 1)
            low, high = (1 / (size + sign * off) ** 2 - spread for sign in (1, -1))
        else:
            weight, bias = (worked.weight, worked.bias) if name == "output" else (1.0, 0.0)
            yours, off = (grouped(values, worked.layout) for values in (answer.values, off))
            size, off = np.abs((yours - bias) / weight), off / np.abs(weight)
            low, high = ((np.abs(worked.centered) / np.maximum(size + sign * off, 0)) ** 2 - spread for sign in (1, -1))
    return np.fmax.reduce(low, axis=1), np.fmin.reduce(high, axis=1)


def solved_momentum(work: Work) -> set[float]:
    """The momentum that the answer was worked with, where it or 1 minus it is a short number.

    From running = old + momentum * (batch - old), channel by channel.
    """
    if not work.plan.updates_running or work.plan.momentum is None:
        return set()
    batch = Figures(work.changed(Change(options={"momentum": 1.0})) or work)
    lows, highs = [], []
    for name in ("running_mean", "running_var"):
        answer = work.answers.get(name)
        old = getattr(work.state, name)
        if answer is not None and old is not None and answer.values.shape == batch[name].shape:
            with np.errstate(all="ignore"):
                ends = [(answer.values + sign * _off(answer) - old) / (batch[name] - old) for sign in (-1, 1)]
            lows.append(np.fmin(*ends))
            highs.append(np.fmax(*ends))
    if not lows:
        return set()
    low, high = np.concatenate(lows), np.concatenate(highs)
    found = _short_numbers(low, high, lambda middle: 1.0) or {
        float(f"{1 - old:.12g}") for old in _short_numbers(1 - high, 1 - low, lambda middle: 1.0)
    }
    return {momentum for momentum in found if 0 <= momentum <= 1}


def _off(answer: Printed) -> Array:
    """How far the printed numbers may be off: half a unit of the last digit, and a little arithmetic."""
    readings = answer.readings("float64")
    reading = next((one for one in readings if one.dtype == "float32"), readings[0])
    return reading.allowed(8 * reading.half_steps)


def _short_numbers(low: Array, high: Array, span: Callable[[float], float]) -> set[float]:
    """The shortest positive number between all the bounds, if no chance has put it there.

    ``span`` is the width from which such numbers are drawn.
    """
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any() or not (last := float(high[known].min())) > 0:
        return set()
    first = max(float(low[known].max()), 0.0)
    middle = (first + last) / 2
    if first > last:
        return set()
    widths = np.minimum((high[known] - low[known]) / span(middle), 1.0)
    with np.errstate(divide="ignore"):
        luck = float(-np.log10(np.maximum(widths, 1e-6)).sum())
    for digits, many in ((1, 9), (2, 90)):
        number = float(f"{middle:.{digits - 1}e}")
        power = 10.0 ** round(math.log10(middle))
        if first <= power <= last and luck >= _LUCK:
            return {power}
        if first <= number <= last and luck - math.log10(many) >= _LUCK:
            return {number}
    return set()
