"""The family's lines in NumPy, for tensors of 24 bits or fewer where nothing was compiled.

A block that fits the cache is widened to float64, and everything is done to it in place. Deviations are taken from a
pilot first, the mean rounded to float32: they are exact, so their sums lose nothing that matters, and what the mean
is more than the pilot is subtracted from each.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Mapping
from functools import partial, reduce
from string import ascii_letters
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.loops import centers
from normcli.arithmetic.numbers import FLOATS, Float
from normcli.arithmetic.order import Axes, Elements, Floats, Region, cut, joined, met, placed, shape_of, stats_region
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import State
from normcli.arithmetic.slabs import Statistics, counted
from normcli.arithmetic.threads import parallel
from normcli.files.stored import Stored
from normcli.floats import rounded
from normcli.formula.language import Name
from normcli.planning.plan import Plan

BLOCK = 2**17  # elements: half a megabyte in float64
_SPAN = 64  # elements that lie side by side in memory, at least, wherever the shape allows
_SHORT = 32  # elements of a row that are better laid across, so that rows are worked on side by side


class Work:
    """One calculation, like that of ``loops.Work``; ``given`` holds statistics that are not the tensor's own."""

    def __init__(
        self,
        plan: Plan,
        state: State,
        axes: Axes,
        x: Elements,
        output: Elements | None,
        given: Mapping[str, Floats],
    ) -> None:
        weight, bias = (None if values is None else placed(values, axes) for values in (state.weight, state.bias))
        axes, self._x, *others = axes.merged(x, *([] if output is None else [output]))
        self._axes, self._output, self._dtype = axes, others[0] if others else None, plan.dtype
        self._weight, self._bias = (
            None if values is None else values.reshape(axes.channels) for values in (weight, bias)
        )
        self._n, self._divisor, self._eps = plan.layout.count, plan.layout.count - plan.ddof, FLOATS.number(plan.eps)
        self._rstd = next(line.value for line in plan.lines if line.name == "rstd")
        self._centers, self._given = centers(plan.lines), bool(given)
        self.statistics = Statistics.of(axes.stats, plan.dtype, given)
        dimensions = range(len(axes.shape))
        across = axes.shape[-1] < _SHORT and len(dimensions) > 1
        last = max(dimensions, key=lambda d: axes.shape[d]) if across else dimensions[-1]
        self._laid = [*(d for d in dimensions if d != last), last]
        self._back = np.argsort(self._laid)
        self._letters = "".join(ascii_letters[d] for d in self._laid)
        self._kept = "".join(ascii_letters[d] for d in self._laid if not axes.averaged[d])
        self._own = threading.local()

    def through(self, threads: int) -> None:
        """Do all of it, on so many threads."""
        groups, runs = cut(self._axes, self._axes.shape, BLOCK, _SPAN)
        slabs = [joined(self._axes, group, run) for group in groups for run in runs]
        passes = 1 if self._given or self._output is None or len(runs) == 1 else 2
        does = partial(counted, x=self._x, passes=passes)
        if self._given or len(runs) == 1:
            parallel(does(self._emit if self._given else self._whole), slabs, threads)
            return
        found = parallel(does(self._moments), slabs, threads)
        for at, group in enumerate(groups):
            self._join(group, found[at * len(runs) : (at + 1) * len(runs)])
        if self._output is not None:
            parallel(does(self._emit), slabs, threads)

    def _whole(self, block: Region) -> None:
        """A block of whole groups."""
        values = self._widened(block)
        n, pilot, total, squares = self._sums(values)
        quotient, rest = _divided(total, n)
        mean = pilot + quotient
        low = quotient - (mean - pilot) + rest
        self._settle(block, np.where(np.isfinite(pilot), mean, pilot), low, squares)
        self._finish(block, values, quotient)

    def _moments(self, block: Region) -> tuple[float, Floats, Floats, Floats]:
        """What a block that is a run of longer groups adds up to."""
        return self._sums(self._widened(block))

    def _sums(self, values: Floats) -> tuple[float, Floats, Floats, Floats]:
        """How many elements a group has, a pilot, their sum about it, and that of squares about their own mean.

        ``values`` become deviations from the pilot.
        """
        n = values.size / math.prod(self._shape(values))
        if not self._centers:
            none = np.zeros(self._shape(values))
            return n, none, none, self._sum(values, values)
        pilot = (self._sum(values) / n).astype(np.float32).astype(np.float64)
        values -= pilot
        total = self._sum(values)
        return n, pilot, total, self._sum(values, values) - total * (total / n)

    def _join(self, group: Region, runs: list[tuple[float, Floats, Floats, Floats]]) -> None:
        """The statistics of whole groups, from what all their runs add up to."""
        total = reduce(operator.add, (Pair(n * pilot) + Pair(sum_) for n, pilot, sum_, _ in runs))
        mean = total / Pair(np.float64(self._n))
        aside = (n * (pilot - mean.hi + (sum_ / n - mean.lo)) ** 2 for n, pilot, sum_, _ in runs)
        squares = sum(one + squares for one, (*_, squares) in zip(aside, runs, strict=True))
        self._settle(group, mean.hi, mean.lo, squares)

    def _settle(self, region: Region, mean: Floats, mean_low: Floats, squares: Any) -> None:
        own, kept = stats_region(self._axes, region), self.statistics
        kept.mean[own], kept.mean_low[own] = mean.transpose(self._back), mean_low.transpose(self._back)
        squares = squares.transpose(self._back)
        kept.var[own] = squares / self._n
        spread = Float(squares / self._divisor)
        kept.rstd[own] = worked_out(self._rstd, FLOATS, lambda name: self._eps if name == Name("eps") else spread).hi

    def _emit(self, block: Region) -> None:
        """The outputs of a block whose statistics are known."""
        values, own = self._widened(block), stats_region(self._axes, block)
        if self._centers:
            values -= self.statistics.mean[own].transpose(self._laid)
        self._finish(block, values, self.statistics.mean_low[own].transpose(self._laid))

    def _finish(self, block: Region, values: Floats, low: Floats) -> None:
        """Outputs from deviations, of which ``low`` is still to be subtracted."""
        if self._output is None:
            return
        scale = self.statistics.rstd[stats_region(self._axes, block)].transpose(self._laid)
        weight, bias = (
            None if given is None else met(given, block).transpose(self._laid) for given in (self._weight, self._bias)
        )
        if self._centers and low.any():
            values -= low
        infinite = np.isinf(scale)
        none = infinite & (values == 0) if infinite.any() else None  # 0 by definition, where var + eps is 0
        if weight is not None:
            both = scale * weight
            if both.size == scale.size and np.isfinite(both).all():
                scale, weight = both, None
        values *= scale
        if none is not None:
            values[none] = 0
        if weight is not None:
            values *= weight
        if bias is not None:
            values += bias
        values = values.transpose(self._back)
        if isinstance(self._output, Stored) or self._dtype == "bfloat16":
            self._output[block] = rounded(values, self._dtype)
        else:
            np.copyto(self._output[block], values, casting="same_kind")

    def _widened(self, block: Region) -> Floats:
        """The elements of a block in float64, in this thread's own memory."""
        shape = shape_of(block)
        held: NDArray[np.float64] | None = getattr(self._own, "held", None)
        if held is None or held.size < math.prod(shape):
            held = self._own.held = np.empty(math.prod(shape))
        values = held[: math.prod(shape)].reshape([shape[d] for d in self._laid])
        np.copyto(values, np.asarray(self._x[block]).transpose(self._laid))
        return values

    def _shape(self, values: Floats) -> tuple[int, ...]:
        return tuple(1 if self._axes.averaged[d] else size for d, size in zip(self._laid, values.shape, strict=True))

    def _sum(self, *factors: Floats) -> Floats:
        """The sum of products over the dimensions that are averaged, which stay with length 1."""
        terms = self._letters if len(factors) == 1 else f"{self._letters},{self._letters}"
        return np.asarray(np.einsum(f"{terms}->{self._kept}", *factors)).reshape(self._shape(factors[0]))


def _divided(total: Floats, n: float) -> tuple[Floats, Floats]:
    """A quotient, and what its rounding left."""
    quotient = total / n
    head = quotient.astype(np.float32).astype(np.float64)  # its product with n, of a block's size, is exact
    return quotient, (total - head * n - (quotient - head) * n) / n
