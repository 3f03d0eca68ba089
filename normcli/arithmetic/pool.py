"""What elements add up to, so that it can be merged with what others add up to: a record of ten numbers.

A record is the last axis of a float64 array: count, sum and squares about the mean (each a pair, high and low), least
and most, and how many were NaN, +infinity and -infinity, which are in none of the others. ``pool.c`` makes
records of blocks, ``merged`` makes one of several; without the compiled part both are NumPy's, more slowly.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic import loops
from normcli.arithmetic.pair import Pair
from normcli.dtypes import FLOAT_DTYPES

Floats = NDArray[np.float64]

FIELDS = 10
COUNT, SUM, SUM_LOW, SQUARES, SQUARES_LOW, LEAST, MOST, NANS, PLUS, MINUS = range(FIELDS)
INTEGERS = ("uint8", "int8", "uint16", "int16", "int32", "uint32")
_DTYPES = {name: code for code, name in enumerate((*FLOAT_DTYPES, *INTEGERS))}  # as pool.c has them
_NONE = (0.0, 0.0, 0.0, 0.0, 0.0, np.inf, -np.inf, 0.0, 0.0, 0.0)


def empty(*shape: int) -> Floats:
    """Records of nothing yet.

    >>> empty(2)[:, COUNT].tolist()
    [0.0, 0.0]
    """
    records = np.empty((*shape, FIELDS))
    records[...] = _NONE
    return records


def add(block: NDArray[Any], into: Floats) -> None:
    """Add a block of shape (items, outer, kept, inner) to the records (items, kept, 10) of its items' channels.

    The block is in C order, of a floating dtype or of integers; int64 is rounded to float64.

    >>> records = empty(1, 2)
    >>> add(np.array([[[[1.0], [10.0]], [[3.0], [10.0]]]]), records)
    >>> records[0, :, [COUNT, SUM, SQUARES]].tolist()
    [[2.0, 2.0], [4.0, 20.0], [2.0, 0.0]]
    """
    assert into.flags.c_contiguous and into.shape == (block.shape[0], block.shape[2], FIELDS)
    if block.dtype.name not in _DTYPES:
        block = block.astype(np.float64)
    block = np.ascontiguousarray(block)
    if not block.size:
        return
    if (function := _compiled()) is not None:
        function(block.ctypes.data, _DTYPES[block.dtype.name], *block.shape, into.ctypes.data)
        return
    into[...] = merged(np.stack([into, _records(block)]))


@cache
def _compiled() -> Any:
    library = loops.compiled()
    if library is None:
        return None
    function = library.normcli_pool
    function.argtypes, function.restype = [ctypes.c_void_p, *[ctypes.c_int64] * 5, ctypes.c_void_p], None
    return function


def _records(block: NDArray[Any]) -> Floats:
    """The records of a block, in NumPy."""
    values = np.moveaxis(block.astype(np.float64), 2, 1).reshape(block.shape[0], block.shape[2], -1)
    finite = np.isfinite(values)
    records = empty(*values.shape[:2])
    records[..., COUNT] = finite.sum(-1)
    records[..., NANS] = np.isnan(values).sum(-1)
    records[..., PLUS], records[..., MINUS] = (values == np.inf).sum(-1), (values == -np.inf).sum(-1)
    records[..., LEAST] = np.where(finite, values, np.inf).min(-1)
    records[..., MOST] = np.where(finite, values, -np.inf).max(-1)
    terms = Pair(np.where(finite, values, 0.0))
    total = terms.sum((2,))
    with np.errstate(all="ignore"):
        mean = total / Pair(np.maximum(records[..., COUNT], 1)[..., None])
        away = (terms - mean).where(~finite, Pair(np.float64(0)))
        squares = (away * away).sum((2,))
    records[..., SUM], records[..., SUM_LOW] = total.hi[..., 0], total.lo[..., 0]
    records[..., SQUARES], records[..., SQUARES_LOW] = squares.hi[..., 0], squares.lo[..., 0]
    return records


def merged(records: Floats) -> Floats:
    """The records along the first axis as one, as ``normcli.arithmetic.slabs.merged`` does it for a known count.

    Squares about the mean m of a part become those about the common mean c, to which each part adds
    n * (m - c)^2 (Chan, Golub and LeVeque 1983); sums are added level by level, always in the same order.

    >>> parts = empty(2)
    >>> parts[:, COUNT], parts[:, SUM] = [1, 1], [1, 3]
    >>> merged(parts)[[COUNT, SUM, SQUARES]].tolist()
    [2.0, 4.0, 2.0]
    """
    if len(records) == 1:
        first: Floats = records[0]
        return first
    counts, n = Pair(records[..., COUNT]), records[..., COUNT].sum(0)
    sums, squares = (Pair(records[..., at], records[..., at + 1]) for at in (SUM, SQUARES))
    total = sums.sum((0,))
    with np.errstate(all="ignore"):
        none = counts.hi == 0
        distance = sums / counts - total / Pair(n)
        between = (distance * distance * counts).where(none, Pair(np.float64(0)))
        squares = (squares + between).sum((0,))
    whole = empty(*n.shape)
    whole[..., COUNT], whole[..., SUM], whole[..., SUM_LOW] = n, total.hi[0], total.lo[0]
    whole[..., SQUARES], whole[..., SQUARES_LOW] = squares.hi[0], squares.lo[0]
    whole[..., LEAST], whole[..., MOST] = records[..., LEAST].min(0), records[..., MOST].max(0)
    whole[..., NANS:] = records[..., NANS:].sum(0)
    return whole


def mean(records: Floats) -> Pair:
    """The means, as pairs; NaN of nothing."""
    with np.errstate(all="ignore"):
        found: Pair = Pair(records[..., SUM], records[..., SUM_LOW]) / Pair(records[..., COUNT])
    return found


def var(records: Floats, ddof: int = 0) -> Pair:
    """The variances, divided by n - ddof, as pairs; NaN where that is 0 or less."""
    with np.errstate(all="ignore"):
        divisor = np.where(records[..., COUNT] > ddof, records[..., COUNT] - ddof, np.nan)
        found: Pair = Pair(records[..., SQUARES], records[..., SQUARES_LOW]) / Pair(divisor)
    return found
