"""Files that lie far from the others, by their means and deviations, and those with numbers that are not finite."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.pool import Floats

Numbers = NDArray[np.int64]

_FAR = 6.0  # deviations, as the median distance from the median estimates them
_FEWEST = 5  # files among which one can be told from the others
_NORMAL = 1.4826  # of a normal distribution, the deviation in median distances


class Outlier(NamedTuple):
    """A file by its number, and why it is named: ``score`` deviations from the others."""

    file: int
    words: str
    score: float


def outliers(files: Numbers, rows: Floats, most: int = 10) -> list[Outlier]:
    """The outlying files, the farthest first: rows (files, channels, 6) as a Part holds them.

    >>> rows = np.ones((9, 1, 6)); rows[:, 0, 1] = [1, 2, 1, 2, 1, 2, 1, 2, 90]; rows[:, 0, 5] = 0
    >>> [(one.file, one.words) for one in outliers(np.arange(9), rows)]
    [(8, 'mean 90, median 2')]
    """
    found = [
        Outlier(int(files[at]), f"{int(rows[at, :, 5].sum())} values not finite", np.inf)
        for at in np.flatnonzero(rows[..., 5].sum(1))
    ]
    with np.errstate(all="ignore"):
        std = np.sqrt(rows[..., 2] / rows[..., 0])
    near: dict[int, Outlier] = {}
    for name, values in (("mean", rows[..., 1]), ("std", std)):
        for one in _far(files, name, values):
            if one.file not in near or near[one.file].score < one.score:
                near[one.file] = one
    named = {one.file for one in found}
    found += sorted((one for one in near.values() if one.file not in named), key=lambda one: (-one.score, one.file))
    return found[:most]


def merged_rows(files: Numbers, rows: Floats) -> tuple[Numbers, Floats]:
    """The rows of files of which several parts were read, one to a file, in the order of their numbers."""
    numbers, index = np.unique(files, return_inverse=True)
    if len(numbers) == len(files):
        order = np.argsort(files)
        return files[order], rows[order]
    found = np.zeros((len(numbers), *rows.shape[1:]))
    found[..., 3], found[..., 4] = np.inf, -np.inf
    n, mean = rows[..., 0], np.nan_to_num(rows[..., 1])
    np.add.at(found[..., 0], index, n)
    np.add.at(found[..., 1], index, n * mean)
    with np.errstate(all="ignore"):
        found[..., 1] /= found[..., 0]
        np.add.at(found[..., 2], index, rows[..., 2] + n * np.nan_to_num(mean - found[index, :, 1]) ** 2)
    np.minimum.at(found[..., 3], index, rows[..., 3])
    np.maximum.at(found[..., 4], index, rows[..., 4])
    np.add.at(found[..., 5], index, rows[..., 5])
    return numbers, found


def _far(files: Numbers, name: str, values: Floats) -> list[Outlier]:
    there = np.asarray(np.isfinite(values).all(1))
    if there.sum() < _FEWEST:
        return []
    middle = np.median(values[there], 0)
    distance = np.abs(values - middle)
    usual = _NORMAL * np.median(distance[there], 0)
    scale = np.maximum(usual, 1e-9 * np.maximum(np.abs(middle), np.abs(values[there]).max(0) * 1e-3))
    with np.errstate(all="ignore"):
        scores = np.where(there[:, None] & (scale > 0), distance / scale, 0)
    worst = scores.argmax(1)
    found = []
    for at in np.flatnonzero(scores.max(1) > _FAR):
        channel = worst[at]
        where = f" of channel {channel}" if values.shape[1] > 1 else ""
        words = f"{name}{where} {values[at, channel]:.6g}, median {middle[channel]:.6g}"
        found.append(Outlier(int(files[at]), words, float(scores[at, channel])))
    return found
