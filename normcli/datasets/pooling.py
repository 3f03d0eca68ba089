"""From addresses, or from batches, to one set of statistics: plan the shards, have them worked out, merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import pool
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.pool import COUNT, LEAST, MINUS, MOST, NANS, PLUS, Floats
from normcli.datasets import mistakes, ranks, readers, shards, stores
from normcli.datasets.addresses import File, expanded
from normcli.datasets.arrays import Array
from normcli.datasets.engine import Engine
from normcli.datasets.outliers import Outlier, merged_rows, outliers
from normcli.datasets.resume import Resume
from normcli.datasets.shards import Part, shard_statistics
from normcli.datasets.spec import Spec
from normcli.datasets.task import Task
from normcli.datasets.tree import Tree
from normcli.errors import InputError
from normcli.floats import as_float_array, is_torch
from normcli.planning.layout import Shape
from normcli.words import count, repr_of

Progress = Callable[[int, int], None]  # is told the bytes that are done, and all bytes


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The statistics of a data set: arrays of float64 with one value for each channel, each rounded once.

    ``shape`` is that of the channels, () where everything has one mean. Numbers that are not finite are counted in
    ``nan``, ``plus_inf`` and ``minus_inf``; they make mean, variance and extremes what IEEE arithmetic makes of them,
    or (``finite``) are left out.
    """

    part: Part
    scale: float = 1.0
    finite: bool = False
    files: tuple[File, ...] = ()

    @property
    def shape(self) -> Shape:
        """The shape of the channels."""
        return self._total.shape[:-1]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the channels, of a table that has some."""
        return self.part.columns

    @property
    def _total(self) -> Floats:
        assert self.part.total is not None
        return self.part.total

    @property
    def n(self) -> NDArray[np.int64]:
        """The elements of each channel; without those that are not finite where these are left out."""
        found = self._total[..., COUNT] + (0 if self.finite else self._total[..., NANS:].sum(-1))
        return np.asarray(found, np.int64)

    @property
    def nan(self) -> NDArray[np.int64]:
        """How many elements of each channel are NaN."""
        return self._total[..., NANS].astype(np.int64)

    @property
    def plus_inf(self) -> NDArray[np.int64]:
        """How many are +infinity."""
        return self._total[..., PLUS].astype(np.int64)

    @property
    def minus_inf(self) -> NDArray[np.int64]:
        """How many are -infinity."""
        return self._total[..., MINUS].astype(np.int64)

    @property
    def mean(self) -> Floats:
        """sum(x) / n."""
        total, value = self._total, self._scaled(pool.mean(self._total))
        if self.finite:
            return value
        value = np.where(total[..., PLUS] > 0, np.inf, np.where(total[..., MINUS] > 0, -np.inf, value))
        both = (total[..., PLUS] > 0) & (total[..., MINUS] > 0)
        return np.asarray(np.where(both | (total[..., NANS] > 0), np.nan, value))

    @property
    def var(self) -> Floats:
        """sum((x - mean)^2) / n."""
        return self.variance(0)

    @property
    def var_unbiased(self) -> Floats:
        """sum((x - mean)^2) / (n - 1); NaN of one element."""
        return self.variance(1)

    @property
    def std(self) -> Floats:
        """The root of var."""
        return self.deviation(0)

    @property
    def std_unbiased(self) -> Floats:
        """The root of var_unbiased."""
        return self.deviation(1)

    def variance(self, ddof: int) -> Floats:
        """The variance divided by n - ddof."""
        by = Pair(np.float64(self.scale)) * Pair(np.float64(self.scale))
        with np.errstate(all="ignore"):
            return self._defined((pool.var(self._total, ddof) / by).hi)

    def deviation(self, ddof: int) -> Floats:
        """Its root."""
        with np.errstate(all="ignore"):
            return self._defined(self._scaled(pool.var(self._total, ddof).sqrt()))

    @property
    def min(self) -> Floats:
        """The least element."""
        value = self._total[..., LEAST] / self.scale
        return value if self.finite else self._with_infinities(value, MINUS, -np.inf)

    @property
    def max(self) -> Floats:
        """The greatest element."""
        value = self._total[..., MOST] / self.scale
        return value if self.finite else self._with_infinities(value, PLUS, np.inf)

    def _scaled(self, value: Any) -> Floats:
        with np.errstate(all="ignore"):
            return np.asarray((value / Pair(np.float64(self.scale))).hi if self.scale != 1 else value.hi)

    def _defined(self, value: Floats) -> Floats:
        beside = 0 if self.finite else self._total[..., NANS:].sum(-1)
        return np.asarray(np.where(beside > 0, np.nan, value))

    def _with_infinities(self, value: Floats, field_: int, infinity: float) -> Floats:
        value = np.where(self._total[..., field_] > 0, infinity, value)
        none = self._total[..., COUNT] == 0
        value = np.where(
            none & (self._total[..., field_] == 0),
            np.where(self._total[..., NANS:].sum(-1) > 0, -infinity, np.nan),
            value,
        )
        return np.asarray(np.where(self._total[..., NANS] > 0, np.nan, value))

    @cached_property
    def rows(self) -> tuple[NDArray[np.int64], Floats]:
        """The numbers of the files that were read, and the statistics of each, in the units of the data."""
        assert self.part.rows is not None
        return merged_rows(self.part.files, self.part.rows)

    @property
    def read(self) -> int:
        """How many files (or batches) were read."""
        return len(self.rows[0])

    @property
    def samples(self) -> int | None:
        """How many samples they hold, where the format tells."""
        return None if self.part.samples is None else int(self.part.samples[0, COUNT] + 0)

    @cached_property
    def outliers(self) -> list[Outlier]:
        """The files that lie far from the others."""
        return outliers(*self.rows)

    @cached_property
    def mistakes(self) -> list[mistakes.Mistake]:
        """What the usual slips give; none where there are more channels than are kept for each file."""
        channels = math.prod(self.shape)
        if channels > shards.MOST_CHANNELS or self._total[..., NANS:].any():
            return []
        total = self._total.reshape(channels, -1)
        return mistakes.mistakes(total, self.part.samples, self.rows[1], scale=self.scale)

    def name_of(self, number: int) -> str:
        """The name of a file by its number."""
        return self.files[number].name if number < len(self.files) else f"batch {number}"


def stats(
    source: Any,
    *,
    channel_axis: int | None = None,
    axes: Sequence[int] | None = None,
    whole: bool = False,
    select: Sequence[slice] = (),
    scale: float = 1.0,
    convert: str | None = None,
    finite: bool = False,
    workers: int = 1,
    dask: str | None = None,
    timeout: float = 30.0,
    resume: str | None = None,
    skip_bad: bool = False,
    distributed: bool = False,
    progress: Progress | None = None,
) -> Pooled:
    """One set of statistics over everything given, exactly: means and variances from sums of 106 bits.

    ``source`` is an address or several (files, globs, brace ranges, folders, remote addresses, ``file::member``), or
    an iterable of batches: arrays or tensors. ``channel_axis`` [1; the last of images], or ``axes``, those that are
    averaged over, or ``whole``, one mean for everything; ``select`` takes slices of leading axes; ``scale`` divides;
    ``convert`` brings images to a mode such as RGB; ``finite`` leaves out NaN and infinities, which are counted.
    Addresses are read by ``workers`` processes (each starts Python anew: a script needs ``if __name__ ==
    "__main__":``), or by the Dask cluster at ``dask``; the bits are the same. ``resume`` keeps finished shards in a
    file; ``skip_bad`` leaves out files that cannot be read. ``distributed`` merges what all ranks of
    torch.distributed have seen, in the order of the ranks.

    Raises InputError (a ValueError) for what cannot be read, UnavailableError where a library or a cluster is missing.

    >>> pooled = stats([[[1.0, 2.0], [3.0, 2.0]], [[5.0, 2.0]]])
    >>> pooled.n.tolist(), pooled.mean.tolist(), pooled.var.tolist()
    ([3, 3], [3.0, 2.0], [2.6666666666666665, 0.0])
    """
    if not math.isfinite(scale) or scale <= 0:
        raise InputError(f"scale is {repr_of(scale)}; it must be a positive number, such as 255")
    chosen = tuple((part.start, part.stop, part.step) if isinstance(part, slice) else tuple(part) for part in select)
    spec = Spec(
        channel_axis=channel_axis, axes=None if axes is None else tuple(axes), whole=whole, select=chosen,
        convert=convert, skip_bad=skip_bad,
    )  # fmt: skip
    if sum(given is not None for given in (channel_axis, axes)) + whole > 1:
        raise InputError("channel_axis, axes and whole say the same in different ways; give one of them")
    addresses = _addresses(source)
    if addresses is None:
        files: tuple[File, ...] = ()
        part = _of_batches(source, spec)
    else:
        files = tuple(expanded(addresses))
        part = of_files(files, spec, Engine(workers, dask, timeout), resume, progress)
    if distributed:
        part = ranks.merged(part)
    return pooled(part, files, scale=float(scale), finite=finite)


def pooled(part: Part, files: Sequence[File] = (), *, scale: float = 1.0, finite: bool = False) -> Pooled:
    """The statistics that a part holds; InputError where nothing was read."""
    if part.total is None:
        none = (
            f"none of {count(len(files), 'file')} could be read: {part.bad[0][1]}"
            if part.bad
            else "there is nothing to pool"
        )
        raise InputError(none)
    return Pooled(part=part, scale=scale, finite=finite, files=tuple(files))


def state(pooled: Pooled, ddof: int = 1) -> dict[str, NDArray[Any]]:
    """BatchNorm's running statistics, as one batch of everything would leave them with a momentum of 1.

    >>> {name: values.tolist() for name, values in state(stats([[[1.0], [3.0]]])).items()}
    {'running_mean': [2.0], 'running_var': [2.0], 'num_batches_tracked': 1}
    """
    if len(pooled.shape) > 1:
        raise InputError(f"a state has one channel axis, and the channels have shape {pooled.shape}")
    mean, var = (np.atleast_1d(values) for values in (pooled.mean, pooled.variance(ddof)))
    return {"running_mean": mean, "running_var": var, "num_batches_tracked": np.asarray(1, np.int64)}


def of_files(
    files: Sequence[File], spec: Spec, engine: Engine, resume: str | None = None, progress: Progress | None = None
) -> Part:
    """What some files hold, merged in the tree of their shards."""
    sized = [_sized(file, spec) for file in files]
    work = shards.cut(sized)
    if not work:
        raise InputError("there are no files to read")
    sizes = {shard.number: shard.size for shard in work}
    tree, done, whole = Tree(len(work)), 0, sum(sizes.values())
    with Resume(resume, work, spec) as kept:
        for number, part in kept.done.items():
            tree.put(number, part)
            done += sizes[number]
        tasks = [Task(s.number, s.name, (s, spec)) for s in work if s.number not in kept.done]
        for number, part in engine.run(shard_statistics, tasks):
            kept.keep(number, part)
            tree.put(number, part)
            done += sizes[number]
            if progress is not None:
                progress(done, whole)
    return tree.whole()


def _sized(file: File, spec: Spec) -> File:
    """The file with its size, which for a store stands in its metadata."""
    if file.size or readers.family(file) != "Zarr":
        return file
    try:
        return file._replace(size=stores.size(file))
    except InputError:
        if spec.skip_bad:
            return file
        raise


def _addresses(source: Any) -> list[str] | None:
    """The addresses that are given; None for batches."""
    if isinstance(source, str | PathLike):
        return [str(fspath(source))]
    if isinstance(source, list | tuple) and source and all(isinstance(one, str | PathLike) for one in source):
        return [str(fspath(one)) for one in source]
    return None


def _of_batches(source: Any, spec: Spec) -> Part:
    if not isinstance(source, Iterable):
        raise InputError(f"source is {repr_of(source)}; give addresses or an iterable of batches")
    adding = shards.Adding(spec)
    for number, batch in enumerate([source] if isinstance(source, np.ndarray) or is_torch(source) else source):
        values = _array(batch, f"batch {number}")
        if not values.size:
            raise InputError(f"batch {number} has no elements (shape {values.shape})")
        adding.file(number, iter([Array.of(values, f"batch {number}")]), 0, 1)
    return adding.done()


def _array(batch: Any, name: str) -> NDArray[Any]:
    """A batch as an array; integers stay what they are."""
    if is_torch(batch) and not batch.is_floating_point():
        batch = batch.detach().cpu().numpy()
    if isinstance(batch, np.ndarray) and batch.dtype.kind in "iu":
        return batch
    return as_float_array(batch, name=name)
