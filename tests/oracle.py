"""The judge of the reference: index loops, exact fractions and an integer square root.

It knows nothing of plans, views or blocks, so it shares no mistake with normcli. Every number is a
``Fraction``; the only inexact step is the square root, cut at about 2**-200 of its value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

ROOT_BITS = 200
FARTHEST = 10**18  # ulps; what is farther away is just wrong

# dtype: bits of the significand, exponents of the smallest and of the largest normal numbers
FORMATS = {
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}

# How far from the exact result an output may lie, in units in the last place (DESIGN.md, Accuracy).
MOST_ULPS = {"float16": 0.5001, "bfloat16": 0.5001, "float32": 0.5001, "float64": 2.0}


@dataclass
class Exact:
    """Everything as flat lists in C order; rstd is None where var + eps is 0."""

    output: list[Fraction] = field(default_factory=list)
    normalized: list[Fraction] = field(default_factory=list)
    mean: list[Fraction] = field(default_factory=list)
    var: list[Fraction] = field(default_factory=list)  # mean of squares for rms
    var_unbiased: list[Fraction] = field(default_factory=list)
    rstd: list[Fraction | None] = field(default_factory=list)
    running_mean: list[Fraction] = field(default_factory=list)
    running_var: list[Fraction] = field(default_factory=list)


def exact(
    x: Any,
    kind: str,
    *,
    eps: float = 1e-5,
    weight: Any = None,
    bias: Any = None,
    ddof: int = 0,
    mode: str = "train",
    momentum: float | None = 0.1,
    running_mean: Any = None,
    running_var: Any = None,
    num_batches_tracked: int = 0,
    running_ddof: int = 1,
    channel_axis: int = 1,
    groups: int = 1,
    interleaved: bool = False,
    normalized_shape: Sequence[int] | None = None,
    affine: bool = True,
    track_running_stats: bool = True,
    weight_offset: int = 0,
    cast: str | None = None,
) -> Exact:
    """Normalize by the definition, one element at a time; ``cast`` is the dtype to round to before the weight.

    A weight with one axis more than it has as a rule holds a row for each sample.

    Running statistics are worked out for batch and instance when all groups have two values or more.
    """
    x = np.asarray(x)
    value = {index: Fraction(float(x[index])) for index in np.ndindex(x.shape)}
    axis = channel_axis % x.ndim
    kept = x.ndim - len(normalized_shape or x.shape[-1:])

    def group_of(index: tuple[int, ...]) -> tuple[int, ...]:
        if kind == "batch":
            return (index[axis],)
        if kind == "instance":
            return (index[0] if x.ndim > 2 else 0, index[axis])
        if kind == "group":
            width = x.shape[axis] // groups
            return (index[0], index[axis] % groups if interleaved else index[axis] // width)
        return index[:kept]

    def parameter_of(index: tuple[int, ...], given: Any) -> tuple[int, ...]:
        own = index[kept:] if kind in ("layer", "rms") else (index[axis],)
        return own if np.ndim(given) == len(own) else (index[0], *own)

    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in value:
        members.setdefault(group_of(index), []).append(index)

    result = Exact()
    statistics = {}
    for group, indices in sorted(members.items()):
        n = len(indices)
        mean = Fraction(0) if kind == "rms" else sum(value[index] for index in indices) / n
        squares = sum((value[index] - mean) ** 2 for index in indices)
        divided = squares / (n - ddof)
        if mode == "eval" and track_running_stats and kind in ("batch", "instance"):
            mean, divided = (Fraction(float(running[group[-1]])) for running in (running_mean, running_var))
            squares = divided * n
        result.mean.append(mean)
        result.var.append(squares / n)
        result.var_unbiased.append(squares / max(1, n - 1))
        result.rstd.append(None if divided + Fraction(eps) == 0 else 1 / square_root(divided + Fraction(eps)))
        statistics[group] = (mean, result.rstd[-1])

    for index in value:
        mean, rstd = statistics[group_of(index)]
        deviation = value[index] - mean
        assert rstd is not None or deviation == 0
        y = deviation * rstd if rstd is not None else Fraction(0)
        result.normalized.append(y)
        if cast:
            y = nearest(y, cast)
        if weight is not None and affine:
            y *= Fraction(float(np.asarray(weight)[parameter_of(index, weight)])) + weight_offset
        if bias is not None and affine:
            y += Fraction(float(np.asarray(bias)[parameter_of(index, bias)]))
        result.output.append(y)

    if kind in ("batch", "instance") and all(len(indices) > running_ddof for indices in members.values()):
        new = Fraction(1, num_batches_tracked + 1) if momentum is None else Fraction(momentum)
        for channel in range(x.shape[axis]):
            rows = [row for row, group in enumerate(sorted(members)) if group[-1] == channel]
            n = len(value) // len(members)
            mean = sum(result.mean[row] for row in rows) / len(rows)
            var = sum(result.var[row] for row in rows) / len(rows) * n / (n - running_ddof)
            old_mean = Fraction(0 if running_mean is None else float(running_mean[channel]))
            old_var = Fraction(1 if running_var is None else float(running_var[channel]))
            result.running_mean.append((1 - new) * old_mean + new * mean)
            result.running_var.append((1 - new) * old_var + new * var)
    return result


@dataclass
class ExactGradients:
    """The gradients as flat lists in C order, and for each element the largest of the terms that make up its own."""

    input: list[Fraction] = field(default_factory=list)
    weight: list[Fraction] = field(default_factory=list)
    bias: list[Fraction] = field(default_factory=list)
    terms: list[Fraction] = field(default_factory=list)


def exact_gradients(
    x: Any,
    grad_output: Any,
    kind: str,
    *,
    eps: float = 1e-5,
    weight: Any = None,
    ddof: int = 0,
    mode: str = "train",
    running_mean: Any = None,
    running_var: Any = None,
    channel_axis: int = 1,
    groups: int = 1,
    normalized_shape: Sequence[int] | None = None,
    affine: bool = True,
    weight_offset: int = 0,
    cast: str | None = None,
) -> ExactGradients:
    """The gradients by their closed form, r (d - m(d) - n / (n - ddof) xhat m(d xhat)), one element at a time.

    Rounding by ``cast`` is passed through as it is.
    """
    x, grad_output = np.asarray(x), np.asarray(grad_output)
    value = {index: Fraction(float(x[index])) for index in np.ndindex(x.shape)}
    axis = channel_axis % x.ndim
    kept = x.ndim - len(normalized_shape or x.shape[-1:])
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    owned: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in value:
        width = x.shape[axis] // groups
        group = {
            "batch": (index[axis],),
            "instance": (index[0] if x.ndim > 2 else 0, index[axis]),
            "group": (index[0], index[axis] // width),
        }.get(kind, index[:kept])
        members.setdefault(group, []).append(index)
        place = index[kept:] if kind in ("layer", "rms") else (index[axis],)
        place = place if weight is None or np.ndim(weight) == len(place) else (index[0], *place)
        owned.setdefault(place, []).append(index)

    given = {index: Fraction(float(grad_output[index])) for index in value}
    scaled = dict(given)
    if weight is not None and affine:
        for place, indices in owned.items():
            factor = Fraction(float(np.asarray(weight)[place])) + weight_offset
            scaled |= {index: given[index] * factor for index in indices}
    normalized, found, terms = {}, {}, {}
    for group, indices in members.items():
        n = len(indices)
        mean = Fraction(0) if kind == "rms" else sum(value[index] for index in indices) / n
        var = sum((value[index] - mean) ** 2 for index in indices) / (n - ddof)
        if mode == "eval":
            mean, var = (Fraction(float(np.asarray(running)[group[-1]])) for running in (running_mean, running_var))
        rstd = 1 / square_root(var + Fraction(eps))
        normalized |= {index: (value[index] - mean) * rstd for index in indices}
        flat = sum(scaled[index] for index in indices) / n * (kind != "rms")
        tilted = sum(scaled[index] * normalized[index] for index in indices) / (n - ddof)
        if mode == "eval":
            flat = tilted = Fraction(0)
        for index in indices:
            parts = (scaled[index], flat, normalized[index] * tilted)
            found[index] = rstd * (parts[0] - parts[1] - parts[2])
            terms[index] = abs(rstd) * max(map(abs, parts))
    if cast:
        normalized = {index: nearest(y, cast) for index, y in normalized.items()}
    return ExactGradients(
        input=[found[index] for index in value],
        weight=[sum(given[i] * normalized[i] for i in owned[place]) for place in sorted(owned)],
        bias=[sum(given[i] for i in owned[place]) for place in sorted(owned)],
        terms=[terms[index] for index in value],
    )


def square_root(number: Fraction) -> Fraction:
    """The square root, cut after about ROOT_BITS significant bits."""
    shift = ROOT_BITS - (number.numerator.bit_length() - number.denominator.bit_length()) // 2
    scaled = number * Fraction(2) ** (2 * shift)
    return math.isqrt(scaled.numerator // scaled.denominator) / Fraction(2) ** shift


def nearest(number: Fraction, dtype: str) -> Fraction:
    """The nearest number of a dtype, of two as near the even one.

    >>> nearest(Fraction(2**8 + 1, 2**8), "bfloat16") == 1
    True
    """
    digits, least, _ = FORMATS[dtype]
    unit = Fraction(2) ** (max(least, floor_log2(number)) - digits + 1)
    return round(number / unit) * unit


def ulps(actual: Any, expected: Sequence[Fraction]) -> np.ndarray:
    """How far ``actual`` lies from the exact numbers, in units in the last place of its dtype there.

    Below the normal numbers the unit is that of the subnormals. Beyond the largest number an
    infinity stands for the next power of two, as rounding to nearest has it. NaN is infinitely far.

    >>> ulps(np.array([1.5, 2.0]), [Fraction(3, 2), Fraction(2) + Fraction(1, 2**52)]).tolist()
    [0.0, 0.5]
    """
    actual = np.asarray(actual)
    digits, least, most = FORMATS[str(actual.dtype)]
    limit = Fraction(2) ** (most + 1)
    errors = []
    for got, want in zip(actual.ravel().astype(np.float64).tolist(), expected, strict=True):
        want = max(-limit, min(limit, want))
        unit = Fraction(2) ** (max(least, min(most, floor_log2(want))) - digits + 1)
        if math.isnan(got):
            errors.append(math.inf)
            continue
        value = Fraction(got) if math.isfinite(got) else limit if got > 0 else -limit
        errors.append(float(min(abs(value - want) / unit, FARTHEST)))
    return np.array(errors).reshape(actual.shape)


def floor_log2(number: Fraction) -> int:
    """The exponent e with 2**e <= abs(number) < 2**(e + 1); far below every format for 0."""
    if number == 0:
        return -(10**6)
    number = abs(number)
    guess = number.numerator.bit_length() - number.denominator.bit_length()
    return guess if number >= Fraction(2) ** guess else guess - 1
