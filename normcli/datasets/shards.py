"""The unit of work: some small files, or a part of a large one, and the statistics of what it holds.

How files become shards depends on their sizes alone, and every shard is added up in the order of its files: what
comes of it is the same bits wherever it is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import pool
from normcli.arithmetic.pool import COUNT, FIELDS, LEAST, MOST, NANS, Floats
from normcli.datasets import plain, readers
from normcli.datasets.addresses import File
from normcli.datasets.arrays import Array, blocks, steps
from normcli.datasets.formats import family_of
from normcli.datasets.spec import Spec, arranged
from normcli.errors import InputError
from normcli.planning.layout import Shape
from normcli.words import listed

PART = 2**26  # bytes of a part of a large file
_FILES = 1024  # small files of a shard
_SMALL = 2**24  # bytes of these together
_CUT = {"NPY", "HDF5", "Zarr", "safetensors"}  # formats of which a part can be read
MOST_CHANNELS = 64  # of which every file's and sample's statistics are kept; of more, all channels together
_LEAST_SAMPLE = 256  # elements for each channel
_HELD = 2**20  # records that wait to be merged
_STACKED = 2**22  # bytes of tiny files that are added up at once
SPREAD = 6  # sums over samples: std, std_unbiased, var, var_unbiased, and float32 sums of x and x^2
ROW = ("n", "mean", "squares", "min", "max", "bad")  # of a file


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Its number, and its files, the first of which has this number among all; of a large file, one of its parts."""

    number: int
    first: int
    files: tuple[File, ...]
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> str:
        """What messages call it."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        part = f" (part {self.part + 1} of {self.parts})" if self.parts > 1 else ""
        return f"{self.files[0].name}{more}{part}"

    @property
    def size(self) -> int:
        """About how many bytes are to be read."""
        return sum(file.size for file in self.files) // self.parts


@dataclass(kw_only=True)
class Part:
    """What a shard, or several merged, holds: records of all elements, sums over its samples, and a row for each file.

    ``total`` is (*kept, 10), ``samples`` (channels, 16): the records of the samples' means, then SPREAD sums;
    ``rows`` is (files, channels, 6). All are None where nothing was read.
    """

    total: Floats | None = None
    samples: Floats | None = None
    files: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: Floats | None = None
    bad: tuple[tuple[int, str], ...] = ()
    dtypes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    image: bool = False
    example: str = ""


def cut(files: Sequence[File], sizes: Sequence[int] | None = None) -> list[Shard]:
    """The shards of some files: runs of small ones, and parts of large ones.

    >>> files = [File("a.npy", size=9), File("b.npy", size=8), File("c.npy", size=2**27)]
    >>> [(shard.first, len(shard.files), shard.parts) for shard in cut(files)]
    [(0, 2, 1), (2, 1, 2), (2, 1, 2)]
    """
    shards: list[Shard] = []
    run: list[File] = []
    held = 0

    def close(first: int) -> None:
        if run:
            shards.append(Shard(number=len(shards), first=first - len(run), files=tuple(run)))
            run.clear()

    for number, file in enumerate(files):
        size = file.size
        parts = max(1, size // PART) if family_of(file.address) in _CUT or size == 0 else 1
        if parts > 1:
            close(number)
            held = 0
            shards += [
                Shard(number=len(shards) + part, first=number, files=(file,), part=part, parts=parts)
                for part in range(parts)
            ]
            continue
        if run and (len(run) >= _FILES or held + size > _SMALL):
            close(number)
            held = 0
        run.append(file)
        held += size
    close(len(files))
    return shards


def shard_statistics(shard: Shard, spec: Spec) -> Part:
    """The statistics of what a shard holds; InputError, naming the file, for one that cannot be read."""
    adding = Adding(spec)
    for number, file in enumerate(shard.files, shard.first):
        try:
            tiny = file.size <= plain.TINY and file.member is None and not file.remote and file.address.endswith(".npy")
            if tiny:
                adding.tiny(number, plain.small(file.address, file.name), file.name)
            else:
                adding.file(number, readers.arrays(file, spec), shard.part, shard.parts)
        except InputError as error:
            if not spec.skip_bad:
                raise
            adding.skip(number, str(error))
    return adding.done()


class Adding:
    """A shard's statistics on their way: records are merged as they come, file by file."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.part = spec, Part()
        self._kept: tuple[Shape, tuple[str, ...]] | None = None
        self._totals: list[tuple[int, Floats]] = []  # (level, record): a fixed tree, whatever the number of records
        self._waiting: list[Floats] = []
        self._samples: list[Floats] = []
        self._rows: list[Floats] = []
        self._numbers: list[int] = []
        self._bad: list[tuple[int, str]] = []
        self._dtypes: dict[str, None] = {}
        self._stack: list[NDArray[Any]] = []
        self._stacked: list[int] = []
        self._stacked_name = ""

    def tiny(self, number: int, values: NDArray[Any], name: str) -> None:
        """A file that is read whole and is no sample: those of one shape and dtype are added up together."""
        if self.spec.select:
            self.file(number, iter([Array.of(values, name)]), 0, 1)
            return
        if self._stack and (values.shape != self._stack[0].shape or values.dtype != self._stack[0].dtype):
            self._unstack()
        if not self._stack:
            self._check(values.shape, self.spec.kept(values.ndim, name), (), name)
            self._stacked_name = name
        self._stack.append(values)
        self._stacked.append(number)
        if len(self._stack) * values.nbytes >= _STACKED:
            self._unstack()

    def file(self, number: int, arrays: Iterator[Array], part: int, parts: int) -> None:
        """The arrays of a file, or a part of its one array."""
        self._unstack()
        records: list[Floats] = []
        samples: list[Floats] = []
        dtypes: dict[str, None] = {}
        kept_before = self._kept
        try:
            for array in arrays:
                record, by_sample = self._of_array(array, part, parts)
                dtypes[array.dtype.name] = None
                records.append(record if len(record) == 1 else pool.merged(record)[None])
                if by_sample:
                    samples.append(record)
                if len(records) >= 256:
                    records = [pool.merged(np.concatenate(records))[None]]
        except InputError:
            self._kept = kept_before
            raise
        if not records:
            raise InputError("nothing to read")
        self._dtypes |= dtypes
        self._commit([number], records[0] if len(records) == 1 else pool.merged(np.concatenate(records))[None])
        for record in samples:
            self._sampled(record)

    def skip(self, number: int, message: str) -> None:
        """Note a file that cannot be read."""
        self._bad.append((number, message))

    def done(self) -> Part:
        """All of it."""
        self._unstack()
        self._merge_waiting()
        found = self.part
        while len(self._totals) > 1:
            (_, last), (level, before) = self._totals.pop(), self._totals.pop()
            self._totals.append((level, pool.merged(np.stack([before, last]))))
        if self._kept is not None and self._totals:
            shape, columns = self._kept
            found.total, found.columns = self._totals[0][1].reshape(*shape, FIELDS), columns
            found.rows = np.concatenate(self._rows)
        if self._samples:
            found.samples = spread_of_all(self._samples)
        found.files, found.bad = np.array(self._numbers, np.int64), tuple(self._bad)
        found.dtypes = tuple(self._dtypes)
        return found

    def _of_array(self, array: Array, part: int, parts: int) -> tuple[Floats, bool]:
        """The records (items, channels, 10) of an array, and whether its items are samples."""
        rank = len(array.shape)
        kept = self.spec.kept(rank, array.name, image=array.image)
        taken = self.spec.taken(array.shape[::-1] if array.turned else array.shape, array.name)
        if array.turned:
            kept, taken = tuple(sorted(rank - 1 - axis for axis in kept)), taken[::-1]
        reach = steps(array, kept)
        shape = tuple(len(range(one.start, one.stop, one.step)) for one in taken)
        sizes = tuple(shape[axis] for axis in kept)
        channels = math.prod(sizes)
        columns = tuple(array.columns[taken[-1]]) if array.columns and kept == (rank - 1,) else ()
        self._check(shape, kept, columns, array.name, turned=array.turned)
        self.part.image |= array.image
        by_sample = (
            not array.sample and not array.turned and rank > 2 and 0 not in kept and reach[1:] == array.shape[1:]
            and channels <= MOST_CHANNELS and math.prod(shape[1:]) // channels >= _LEAST_SAMPLE
        )  # fmt: skip
        record, items = pool.empty(1, *sizes), []
        for place, block in blocks(array, reach, taken, part, parts):
            if not block.dtype.isnative:
                block = block.astype(block.dtype.newbyteorder("="))
            view = arranged(block, kept, by_sample=by_sample)
            if by_sample:
                items.append(pool.empty(len(view), channels))
                pool.add(view, items[-1])
                continue
            at: tuple[Any, ...] = (0, *(place[axis] for axis in kept))
            inside = np.ascontiguousarray(record[at]).reshape(1, view.shape[2], FIELDS)
            pool.add(view, inside)
            if not np.may_share_memory(inside, record):
                record[at] = inside.reshape(record[at].shape)
        if by_sample:
            return (np.concatenate(items) if items else pool.empty(1, channels)), bool(items)
        if array.turned:
            record = np.ascontiguousarray(record.transpose(0, *range(len(sizes), 0, -1), len(sizes) + 1))
        return record.reshape(1, channels, FIELDS), array.sample

    def _check(
        self, shape: Shape, kept: tuple[int, ...], columns: tuple[str, ...], name: str, *, turned: bool = False
    ) -> None:
        """Refuse an array whose channels are not those of the ones before it."""
        sizes = tuple(shape[axis] for axis in kept)
        found = (sizes[::-1] if turned else sizes, columns)
        if self._kept is None:
            self._kept, self.part.example = found, name
        elif found != self._kept:
            raise differing(self._kept, self.part.example, found, name)

    def _unstack(self) -> None:
        if not self._stack:
            return
        stack, numbers = np.stack(self._stack), self._stacked
        self._stack, self._stacked = [], []
        if not stack.dtype.isnative:
            stack = stack.astype(stack.dtype.newbyteorder("="))
        kept = tuple(axis + 1 for axis in self.spec.kept(stack.ndim - 1, self._stacked_name))
        view = arranged(stack, kept, by_sample=True)
        records = pool.empty(len(numbers), view.shape[2])
        pool.add(view, records)
        self._dtypes[stack.dtype.name] = None
        self._commit(numbers, records)

    def _commit(self, numbers: list[int], records: Floats) -> None:
        """The records of whole files: into the total, and as rows of their own."""
        few = records if records.shape[1] <= MOST_CHANNELS else pool.merged(np.moveaxis(records, 1, 0))[:, None]
        self._rows.append(rows_of(few))
        self._numbers += numbers
        self._waiting.append(records)
        if sum(r.size for r in self._waiting) >= _HELD:
            self._merge_waiting()

    def _sampled(self, records: Floats) -> None:
        """The records of samples."""
        if records.shape[1] <= MOST_CHANNELS:
            self._samples.append(spread(records))
            if len(self._samples) >= 1024:
                self._samples = [spread_of_all(self._samples)]

    def _merge_waiting(self) -> None:
        if not self._waiting:
            return
        record, level = pool.merged(np.concatenate(self._waiting)), 0
        self._waiting = []
        while self._totals and self._totals[-1][0] == level:
            record, level = pool.merged(np.stack([self._totals.pop()[1], record])), level + 1
        self._totals.append((level, record))


def rows_of(records: Floats) -> Floats:
    """Rows (items, channels, 6) of records: n, mean, squares, min, max, and how many are not finite."""
    rows = np.empty((*records.shape[:-1], len(ROW)))
    rows[..., 0], rows[..., 1] = records[..., COUNT], pool.mean(records).hi
    rows[..., 2], rows[..., 3], rows[..., 4] = records[..., pool.SQUARES], records[..., LEAST], records[..., MOST]
    rows[..., 5] = records[..., NANS:].sum(-1)
    return rows


def spread(records: Floats) -> Floats:
    """What the statistics of samples (samples, channels, 10) add up to: (channels, 16)."""
    there = records[..., COUNT] > 0
    found = np.zeros((records.shape[1], FIELDS + SPREAD))
    means = np.where(there, pool.mean(records).hi, np.nan)
    of_means = pool.empty(1, records.shape[1])
    pool.add(np.ascontiguousarray(means[None, :, :, None]), of_means)
    found[:, :FIELDS] = of_means[0]
    found[:, NANS:FIELDS] = 0
    var, unbiased = (np.nan_to_num(pool.var(records, ddof).hi) for ddof in (0, 1))
    sums = (np.sqrt(var), np.sqrt(unbiased), var, unbiased)
    for at, values in enumerate(sums, FIELDS):
        found[:, at] = values.sum(0)
    found[:, FIELDS + 4 :] = single_sums(records[..., COUNT], np.nan_to_num(means), records[..., pool.SQUARES])
    return found


def single_sums(n: Floats, means: Floats, squares: Floats) -> Floats:
    """The sums of x and of x^2 as float32 adds them up, item by item, in one pass: (channels, 2)."""
    with np.errstate(all="ignore"):
        each = np.stack([n * means, squares + n * means * means], -1).astype(np.float32)
        return np.asarray(np.cumsum(each, 0, dtype=np.float32)[-1], np.float64)


def spread_of_all(parts: Sequence[Floats]) -> Floats:
    """The sums over several groups of samples."""
    stack = np.stack(parts)
    found = np.empty(stack.shape[1:])
    found[:, :FIELDS] = pool.merged(stack[..., :FIELDS])
    found[:, FIELDS : FIELDS + 4] = stack[..., FIELDS : FIELDS + 4].sum(0)
    with np.errstate(all="ignore"):
        found[:, FIELDS + 4 :] = np.cumsum(stack[..., FIELDS + 4 :].astype(np.float32), 0, dtype=np.float32)[-1]
    return found


def joined(first: Part, second: Part) -> Part:
    """Two neighbours in the tree as one; InputError where their channels differ."""
    if first.total is None or second.total is None:
        one = first if second.total is None else second
        return Part(
            total=one.total, samples=one.samples, files=one.files, rows=one.rows, dtypes=one.dtypes,
            columns=one.columns, image=one.image, example=one.example, bad=(*first.bad, *second.bad),
        )  # fmt: skip
    mine, theirs = (first.total.shape[:-1], first.columns), (second.total.shape[:-1], second.columns)
    if mine != theirs:
        raise differing(mine, first.example, theirs, second.example)
    samples = [part.samples for part in (first, second) if part.samples is not None]
    assert first.rows is not None and second.rows is not None
    return Part(
        total=pool.merged(np.stack([first.total, second.total])),
        samples=spread_of_all(samples) if samples else None,
        files=np.concatenate([first.files, second.files]),
        rows=np.concatenate([first.rows, second.rows]),
        bad=(*first.bad, *second.bad),
        dtypes=tuple(dict.fromkeys((*first.dtypes, *second.dtypes))),
        columns=first.columns, image=first.image or second.image, example=first.example,
    )  # fmt: skip


def differing(mine: Any, name: str, theirs: Any, other: str) -> InputError:
    """The error for two arrays whose channels are not the same."""
    (shape, columns), (its, others) = mine, theirs
    if shape != its:
        said = [_channels(one) for one in (its, shape)]
        hint = "--convert RGB brings images to one mode; --channel-axis, --axes and --select say what is pooled"
        return InputError(
            f"{other} has {said[0]}, and {name} has {said[1]}; one set of statistics needs the same", hint
        )
    return InputError(f"{other} has the columns {listed(others, 8)}, and {name} has {listed(columns, 8)}")


def _channels(shape: Shape) -> str:
    if len(shape) > 1:
        return f"channels of shape {shape}"
    return "one mean" if not shape else f"{shape[0]} channel{'s' * (shape[0] != 1)}"
