"""Which kinds average over the same elements of a tensor: integers only, no data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normcli.errors import InputError
from normcli.planning.kinds import KINDS
from normcli.planning.layout import Shape
from normcli.planning.plan import Plan, plan


@dataclass(frozen=True, kw_only=True)
class Same:
    """Another kind that averages over the same elements here, with the option that makes it so."""

    kind: str
    options: Mapping[str, Any]
    weight_shape: Shape
    same_weight: bool  # whether weight and bias belong to the same elements as well
    centers: bool


def same(settled: Plan) -> list[Same]:
    """The other kinds whose groups of statistics are exactly these.

    Instance norm is group norm with one group for each channel:

    >>> same(plan("instance", (2, 6, 4, 4), "float32", {}))[0].options
    {'groups': 6}
    """
    shape, found = settled.shape, []
    for kind, options in _candidates(settled):
        try:
            options = options | _channels(settled, kind, options)
            other = plan(kind, shape, settled.dtype, options | _convention(settled, kind))
        except InputError:
            continue  # a kind that cannot take this shape computes nothing here
        if _partition(other) == _partition(settled):
            found.append(
                Same(
                    kind=kind,
                    options=options,
                    weight_shape=other.weight_shape,
                    same_weight=_belonging(other) == _belonging(settled),
                    centers=other.kind.centers,
                )
            )
    return found


def channels_of(settled: Plan) -> int:
    """The channel axis; of a kind that has none, where its framework has it."""
    layout, rank = settled.layout, len(settled.shape)
    if layout.channel_axis is not None:
        return layout.channel_axis
    axis = settled.convention.channel_axis
    return axis % rank if -rank <= axis < rank else rank - 1


def _candidates(settled: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    shape = settled.shape
    for kind in ("batch", "instance"):
        if kind != settled.kind.name:
            yield kind, {}
    # At most one number of groups, and one set of trailing axes, gives as many groups of statistics as there are.
    groups, rest = divmod(math.prod(settled.layout.stats_shape), shape[0])
    if settled.kind.name != "group" and not rest:
        yield "group", {"groups": groups}
    for kind in ("layer", "rms"):
        trailing = next((n for n in range(1, len(shape) + 1) if math.prod(shape[-n:]) == settled.layout.count), None)
        if kind != settled.kind.name and trailing:
            yield kind, {"normalized_shape": shape[-trailing:]}


def _convention(settled: Plan, kind: str) -> dict[str, Any]:
    return {"convention": settled.convention.name} if kind in settled.convention.eps else {}


def _channels(settled: Plan, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The channel axis as an option of another kind, where that kind would not take it by itself."""
    if "channel_axis" not in KINDS[kind].options:
        return {}
    given, wanted = options | _convention(settled, kind), channels_of(settled)
    try:
        by_itself = plan(kind, settled.shape, settled.dtype, given).layout.channel_axis
    except InputError:
        by_itself = None
    return {} if by_itself == wanted else {"channel_axis": wanted}


def _partition(settled: Plan) -> list[tuple[int, bool]]:
    """The groups of statistics, such that equal lists are equal groups: runs of averaged and kept dimensions."""
    return _runs(settled.layout.view, settled.layout.axes)


def _belonging(settled: Plan) -> list[tuple[int, bool]]:
    """Which elements share a weight, such that equal lists mean the same."""
    return _runs(settled.layout.view, settled.layout.channels)


def _runs(view: Shape, marked: Shape) -> list[tuple[int, bool]]:
    """The dimensions of a view, those of size 1 left out and neighbours that are alike put together.

    In row-major order this list says it all: the first place where a different group begins gives
    the last size, the first place where the group comes back the one before, and so on.

    >>> _runs((2, 1, 3, 2, 16), (1, 3, 4))
    [(6, False), (32, True)]
    """
    runs: list[tuple[int, bool]] = []
    for axis, size in enumerate(view):
        if size > 1:
            alike = runs and runs[-1][1] == (axis in marked)
            runs[-1:] = [(runs[-1][0] * size, axis in marked)] if alike else [*runs[-1:], (size, axis in marked)]
    return runs
