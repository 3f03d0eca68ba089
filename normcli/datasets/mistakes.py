"""What the usual slips make of a data set's mean and standard deviation, so that a wrong constant is recognized.

Sources: ImageNet's .229 .224 .225 are means of the images' deviations (pytorch/vision#1439: those of all pixels are
.2806 .2736 .2877); variances of items averaged, or items of different size weighted equally (huggingface/lerobot#3682);
E[x^2] - E[x]^2 in float32 (huggingface/lerobot#4704, scverse/scanpy#4122); float32 sums (numpy/numpy#14691).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from normcli.arithmetic import pool
from normcli.arithmetic.pool import COUNT, FIELDS, SQUARES, Floats
from normcli.datasets.shards import single_sums


class Mistake(NamedTuple):
    """A slip: its key, what was done, and what it makes of the mean and of the standard deviation, where it matters."""

    key: str
    words: str
    mean: Floats | None
    std: Floats | None


def mistakes(total: Floats, samples: Floats | None, rows: Floats, *, scale: float) -> list[Mistake]:
    """The slips on this data: records (channels, 10), sums over samples, and rows of files, as a Part holds them."""
    return list(_of_items(total, samples, rows, scale)) + list(_of_all(total, scale))


def _of_items(total: Floats, samples: Floats | None, rows: Floats, scale: float) -> Iterator[Mistake]:
    if samples is not None and samples[0, COUNT] > 1:
        count = samples[:, COUNT]
        between = samples[:, SQUARES] / count
        averages = {name: samples[:, FIELDS + at] / count for at, name in enumerate(("std", "std1", "var", "var1"))}
        yield from _averaged("samples", averages, pool.mean(samples[:, :FIELDS]).hi, between, scale)
        yield _in_float32(samples[:, FIELDS + 4], samples[:, FIELDS + 5], total, scale)
    elif samples is None and rows.shape[1] == len(total):
        sums = single_sums(rows[..., 0], np.nan_to_num(rows[..., 1]), rows[..., 2])
        yield _in_float32(sums[:, 0], sums[:, 1], total, scale)
    if rows.shape[1] == len(total) and len(rows) > 1 and (samples is None or len(rows) != samples[0, COUNT]):
        n, means, squares = (np.where(rows[..., 0] > 0, rows[..., at], np.nan) for at in range(3))
        with np.errstate(all="ignore"):
            var, unbiased = squares / n, np.where(n > 1, squares / (n - 1), np.nan)
        each = {"std": np.sqrt(var), "std1": np.sqrt(unbiased), "var": var, "var1": unbiased}
        averages = {name: _mean(values) for name, values in each.items()}
        yield from _averaged("files", averages, _mean(means), _mean((means - _mean(means)) ** 2), scale)


def _mean(values: Floats) -> Floats:
    there = ~np.isnan(values)
    found: Floats = np.where(there, values, 0).sum(0) / np.maximum(there.sum(0), 1)
    return found


def _averaged(what: str, sums: dict[str, Floats], means: Floats, between: Floats, scale: float) -> Iterator[Mistake]:
    stds = {
        "mean_of_stds": (f"mean of the {what}' stds", sums["std"]),
        "mean_of_unbiased_stds": (f"mean of the {what}' stds (n - 1)", sums["std1"]),
        "root_of_mean_var": (f"root of the {what}' mean variance", np.sqrt(sums["var"])),
        "std_of_means": (f"std of the {what}' means", np.sqrt(between)),
    }
    for key, (words, std) in stds.items():
        yield Mistake(f"{key}_of_{what}", words, None, std / scale)
    together = np.sqrt(np.maximum(sums["var"] + between, 0))
    yield Mistake(f"equal_weights_of_{what}", f"{what} weighted equally", means / scale, together / scale)


def _in_float32(sums: Floats, squares: Floats, total: Floats, scale: float) -> Mistake:
    with np.errstate(all="ignore"):
        n = total[:, COUNT].astype(np.float32)
        mean = sums.astype(np.float32) / n
        var = squares.astype(np.float32) / n - mean * mean
        std = np.sqrt(var).astype(np.float64)
    return Mistake(
        "float32_one_pass", "float32 in one pass, E[x^2] - E[x]^2", mean.astype(np.float64) / scale, std / scale
    )


def _of_all(total: Floats, scale: float) -> Iterator[Mistake]:
    mean, var = pool.mean(total).hi, pool.var(total).hi
    std = np.sqrt(var)
    if len(total) > 1:
        together = pool.merged(total)
        one = np.full(len(total), np.sqrt(pool.var(together).hi))
        all_mean = np.full(len(total), pool.mean(together).hi)
        yield Mistake("all_channels", "all channels together", all_mean / scale, one / scale)
        yield Mistake("reversed_channels", "channels in reverse order (BGR)", mean[::-1] / scale, std[::-1] / scale)
    yield Mistake("variance_for_std", "the variance for the std", None, var / scale**2)
    if scale != 1:
        yield Mistake("not_scaled", f"not divided by {scale:g}", mean, std)
        yield Mistake("scaled_by_256", f"divided by {scale + 1:g}", mean / (scale + 1), std / (scale + 1))
        yield Mistake("scaled_twice", f"divided by {scale:g} twice", mean / scale**2, std / scale**2)
