"""The axes that somebody may have averaged over instead: layouts of the same tensor, each with words for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from normcli.planning.kinds import layout_of
from normcli.planning.layout import (
    Layout,
    by_channel,
    by_sample_and_channel,
    by_sample_and_group,
    by_virtual_batch,
    trailing,
)
from normcli.planning.plan import Plan
from normcli.words import count

Layouts = Iterator[tuple[Layout, str]]


def axes_words(axes: Iterable[int]) -> str:
    """Axes in words.

    >>> axes_words([0, 2])
    'axes 0, 2'
    """
    listed = list(axes)
    return f"{'axis' if len(listed) == 1 else 'axes'} {', '.join(str(axis) for axis in listed)}"


def _layer(settled: Plan) -> Layouts:
    shape = settled.shape
    for kept in (1, *range(len(shape) - 1, 1, -1)):
        if kept < len(shape):
            yield trailing(shape, normalized_shape=shape[kept:]), axes_words(range(kept, len(shape)))


def _batch(settled: Plan) -> Layouts:
    own = settled.layout.channel_axis if settled.virtual_batch else None
    for axis in _channel_axes(settled) if len(settled.shape) > 1 else ():
        if axis == own:
            continue  # a slip with words of its own
        layout = by_channel(settled.shape, channel_axis=axis)
        yield layout, axes_words(layout.reported_axes)


def _instance(settled: Plan) -> Layouts:
    for axis in _channel_axes(settled) if len(settled.shape) > 2 else ():
        if axis > 0:  # which holds the samples
            layout = by_sample_and_channel(settled.shape, channel_axis=axis)
            yield layout, axes_words(layout.reported_axes)


def _global(settled: Plan) -> Layouts:
    yield trailing(settled.shape, normalized_shape=settled.shape), ""


def _group(settled: Plan) -> Layouts:
    shape = settled.shape
    if settled.layout.groups is None and len(shape) > 1:
        axis = next(axis for axis in _channel_axes(settled) if axis > 0)
        for groups in range(2, shape[axis]):
            if shape[axis] % groups == 0:
                yield by_sample_and_group(shape, channel_axis=axis, groups=groups), count(groups, "group")


def _position(settled: Plan) -> Layouts:
    shape = settled.shape
    if len(shape) > 2:
        rest = math.prod(shape[1:])
        yield Layout(view=(shape[0], rest), axes=(0,), channels=(1,), stats_shape=(rest,), reported_axes=(0,)), ""


def _channel_last(settled: Plan) -> Layouts:
    own, shape, groups = settled.layout.channel_axis, settled.shape, settled.layout.groups
    for axis in (len(shape) - 1, 1) if own is not None and len(shape) > 2 else ():
        if axis != own and (groups is None or shape[axis] % groups == 0):
            yield layout_of(settled.kind.name, shape, channel_axis=axis, groups=groups), f"axis {axis}"


def _other_groups(settled: Plan) -> Layouts:
    own, was = settled.layout.groups or 1, settled.layout.is_interleaved
    channels = _channels(settled)
    for groups in range(2, channels) if settled.layout.groups else ():
        for interleaved in (was, not was) if channels % groups == 0 else ():
            if groups != own and (interleaved != was or groups != channels // own):
                note = f"{groups} groups{', interleaved' if interleaved and not was else ''}"
                yield _grouped(settled, groups, interleaved=interleaved), note


def _interleaved(settled: Plan) -> Layouts:
    own, was = settled.layout.groups, settled.layout.is_interleaved
    if own is not None:
        yield _grouped(settled, own, interleaved=not was), "consecutive" if was else "c mod G"


def _swapped_groups(settled: Plan) -> Layouts:
    if settled.layout.groups is not None:
        swapped = _channels(settled) // settled.layout.groups
        yield _grouped(settled, swapped), count(swapped, "group")


def _whole_batch(settled: Plan) -> Layouts:
    if settled.virtual_batch:
        yield by_channel(settled.shape, channel_axis=settled.layout.channel_axis or 0), ""


def _virtual_dealt(settled: Plan) -> Layouts:
    if settled.virtual_batch:
        yield _virtual(settled, settled.virtual_batch, dealt=True), ""


def _virtual_other(settled: Plan) -> Layouts:
    for samples in range(1, settled.shape[0]) if settled.virtual_batch else ():
        if settled.shape[0] % samples == 0 and samples != settled.virtual_batch:
            yield _virtual(settled, samples), count(samples, "sample")


def _virtual(settled: Plan, samples: int, *, dealt: bool = False) -> Layout:
    axis = settled.layout.channel_axis or 0
    return by_virtual_batch(settled.shape, channel_axis=axis, samples=samples, dealt=dealt)


def _channels(settled: Plan) -> int:
    axis = settled.layout.channel_axis
    return 0 if axis is None else settled.shape[axis]


def _grouped(settled: Plan, groups: int, *, interleaved: bool = False) -> Layout:
    axis = settled.layout.channel_axis or 0
    return by_sample_and_group(settled.shape, channel_axis=axis, groups=groups, interleaved=interleaved)


def _channel_axes(settled: Plan) -> list[int]:
    """The axes that may hold the channels, the likeliest first."""
    own, rank = settled.layout.channel_axis, len(settled.shape)
    return list(dict.fromkeys(axis for axis in (own, 1, rank - 1) if axis is not None))


LAYOUTS: Mapping[str, Callable[[Plan], Layouts]] = {
    "layer": _layer,
    "batch": _batch,
    "instance": _instance,
    "group": _group,
    "global": _global,
    "position": _position,
    "channel_last": _channel_last,
    "interleaved": _interleaved,
    "other_groups": _other_groups,
    "swapped_groups": _swapped_groups,
    "whole_batch": _whole_batch,
    "virtual_dealt": _virtual_dealt,
    "virtual_other": _virtual_other,
}
