"""How the statistics of several ranks come about: each rank's own, then those of all, merged by their counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

import numpy as np

from normcli.digits import computed, notation, written
from normcli.formula.language import Call, Node, Number, parsed
from normcli.planning.layout import rows
from normcli.teaching.filled import Figure, summed
from normcli.teaching.traced import BEYOND, Traced

# The steps that are shown after a line, as SyncBatchNorm takes them.
MERGED = {
    "mean": ("rank_mean", "merged_mean"),
    "var": ("rank_var", "merged_var"),
    "var_unbiased": ("rank_var", "merged_var_unbiased"),
}
_APART = "sum(rank_n * (rank_var + (rank_mean - mean)^2))"
_FORMULAS = {
    "rank_mean": "sum(x, rank) / rank_n",
    "merged_mean": "sum(rank_n * rank_mean) / n",
    "rank_var": "sum((x - rank_mean)^2, rank) / rank_n",
    "merged_var": f"{_APART} / n",
    "merged_var_unbiased": f"{_APART} / (n - 1)",
}


class Ranks:
    """The ranks of one group of statistics; ``shown`` gives the places of a long list that are written out."""

    def __init__(self, group: Traced, precision: int, shown: Callable[[int], list[int]]) -> None:
        self._group, self._precision, self._shown = group, precision, shown
        x, each = group.members("x"), group.n // group.plan.shape[0]
        self._x = [x[at.start * each : at.stop * each] for at in rows(group.plan.ranks or ())]

    def step(self, name: str) -> tuple[Node, list[Any], list[float]]:
        """The formula of a step, the same filled in for those of its values that are written out, and all of these."""
        ranks = self._shown(len(self._x))
        if name.startswith("rank"):
            return parsed(_FORMULAS[name]), [self._alone(name, rank) for rank in ranks], self._group.of_ranks(name)
        of_rank = self._share_of_mean if name == "merged_mean" else self._share_of_var
        total, n = summed([of_rank(rank) for rank in ranks], len(self._x)), _whole(self._group.n)
        divisor: Any = Call("-", (n, _whole(1))) if name.endswith("unbiased") else n
        value = self._group.statistic(name.removeprefix("merged_"))
        return parsed(_FORMULAS[name]), [Call("/", (total, divisor))], [value]

    def _alone(self, name: str, rank: int) -> Any:
        x = self._x[rank]
        terms: list[Any] = [Figure(value, written(value)) for value in x[self._shown(len(x))].tolist()]
        if name == "rank_var":
            mean = self._own("rank_mean", rank)
            terms = [Call("^", (Call("-", (value, mean)), Number(2))) for value in terms]
        return Call("/", (summed(terms, len(x)), self._count(rank)))

    def _share_of_mean(self, rank: int) -> Any:
        return Call("*", (self._count(rank), self._own("rank_mean", rank)))

    def _share_of_var(self, rank: int) -> Any:
        value = self._group.statistic("mean")
        mean = self._computed(value, [value], partial(self._group.exact, "mean"))
        apart = Call("^", (Call("-", (self._own("rank_mean", rank), mean)), Number(2)))
        return Call("*", (self._count(rank), Call("+", (self._own("rank_var", rank), apart))))

    def _count(self, rank: int) -> Any:
        return _whole(len(self._x[rank]))

    def _own(self, name: str, rank: int) -> Any:
        """A number that a rank has by itself."""
        values = self._group.of_ranks(name)
        return self._computed(values[rank], values, partial(_exactly, name, self._x[rank]))

    def _computed(self, value: float, among: Sequence[float], exact: Callable[[], Decimal | None]) -> Any:
        return Figure(value, computed(value, notation(among, self._precision)), exact)


def _whole(number: int) -> Any:
    return Figure(number, str(number))


def _exactly(name: str, values: np.ndarray[Any, Any]) -> Decimal | None:
    """The mean or the variance beyond float64's digits; None where there is none."""
    try:
        with localcontext(BEYOND):
            numbers = [Decimal(value) for value in values.tolist()]
            mean = sum(numbers, Decimal(0)) / len(numbers)
            return mean if name == "rank_mean" else sum([(x - mean) ** 2 for x in numbers], Decimal(0)) / len(numbers)
    except ArithmeticError:  # an infinity, or what is not a number
        return None
