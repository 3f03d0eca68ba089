"""Sums of the absolute values in each row of the Jacobian, without its n times n numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
