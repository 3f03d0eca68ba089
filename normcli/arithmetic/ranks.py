"""Several ranks that share one batch: their tensors as one, and what each would find alone.

The statistics of all ranks, merged by their counts, are those of the ranks' tensors one after the other, and so are
worked out: no rank's mean is rounded before it is merged (torch/nn/modules/_functions.py, SyncBatchNorm, gathers each
rank's mean, 1 / std and count instead).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli import arithmetic
from normcli.arithmetic.result import Named, Result, State
from normcli.errors import InputError, room_for
from normcli.planning.kinds import RANK
from normcli.planning.layout import Shape, by_channel, rows
from normcli.planning.plan import Plan


def joined(ranks: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], Shape]:
    """The tensors of several ranks as one along axis 0, and how many samples each has.

    Raises InputError where there are too few, or one is empty, or of another shape or dtype.

    >>> joined([np.array([[1.0, 2]]), np.array([[3.0, 4], [5, 6]])])
    (array([[1., 2.],
           [3., 4.],
           [5., 6.]]), (1, 2))
    """
    if len(ranks) < 2:
        raise InputError(f"--ranks merges the statistics of two inputs or more; {len(ranks)} is given")
    first = ranks[0]
    for number, rank in enumerate(ranks):
        if not rank.size:
            raise InputError(f"rank {number} has no elements (shape {rank.shape}); it adds nothing, leave it out")
        if rank.ndim != first.ndim or rank.shape[1:] != first.shape[1:]:
            raise InputError(
                f"rank {number} has shape {rank.shape} and rank 0 {first.shape}: only the first size may differ"
            )
        if rank.dtype != first.dtype:
            raise InputError(f"rank {number} is {rank.dtype} and rank 0 {first.dtype}; --dtype makes them the same")
    if not first.ndim:
        raise InputError("a rank is a single number; batch needs (N, C) or more")
    with room_for("the batch of all ranks", sum(rank.nbytes for rank in ranks)):
        return np.concatenate(ranks), tuple(len(rank) for rank in ranks)


def with_own(result: Result, x: NDArray[Any]) -> Result:
    """The Result with each rank's own count, mean and variance: rank_n of shape (ranks), the others (ranks, C)."""
    plan = result.plan
    alone = [_alone(np.asarray(x[at]), plan) for at in rows(plan.ranks or ())]
    counts = np.array([one.plan.layout.count for one in alone], np.float64)
    own = dict(zip(RANK, (counts, np.stack([r.mean for r in alone]), np.stack([r.var for r in alone])), strict=True))
    return replace(result, named=Named({**result.named, **own}))


def _alone(x: NDArray[Any], plan: Plan) -> Result:
    layout = by_channel(x.shape, channel_axis=plan.layout.channel_axis or 0)
    own = replace(plan.bare, shape=x.shape, layout=layout, ranks=None, track_running_stats=False, renorm=False, ddof=0)
    found: Result = arithmetic.reference.normalize(x, own, State())
    return found
