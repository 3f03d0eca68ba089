"""How to look at a tensor, and what each dimension is for: integers only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from normcli.errors import InputError
from normcli.words import count, either

Shape = tuple[int, ...]


MOST_LISTED = 4096  # channels whose divisors are listed in an error: more take long, to find and to read


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How to look at the tensor, and what each dimension is for; the arithmetic reads nothing else of the kind.

    ``view`` is the tensor's shape, the channel axis split in two for group norm: (groups, channels of one),
    or the other way round where groups are interleaved; for virtual batches the axis of the samples.

    >>> layout = by_sample_and_group((2, 6, 4), channel_axis=1, groups=3)
    >>> layout.view, layout.axes, layout.channels, layout.count, layout.stats_shape
    ((2, 3, 2, 4), (2, 3), (1, 2), 8, (2, 3))
    """

    view: Shape
    axes: Shape  # dimensions of the view that share one mean
    channels: Shape  # dimensions of the view that weight and bias have
    stats_shape: Shape  # one value for each group of statistics
    reported_axes: Shape  # the axes averaged over, in the input's own numbering
    channel_axis: int | None = None  # in the input's own numbering; None where weights belong to trailing axes
    split_axis: int | None = None  # that is two dimensions of the view, in the input's own numbering
    groups: int | None = None  # of channels, where these are split
    is_interleaved: bool = False  # whether a group takes every so-manyth channel
    is_batched: bool = True  # whether the tensor holds samples, not one alone
    is_per_sample: bool = False  # whether each sample has a weight and a bias of its own

    @cached_property
    def count(self) -> int:
        """n, the number of elements in one group of statistics."""
        return math.prod(self.view[axis] for axis in self.axes)

    @cached_property
    def roles(self) -> frozenset[tuple[bool, bool]]:
        """What its dimensions are for, as ``normcli.formula.extents`` has it, whatever their sizes.

        Trailing axes come after the samples' own, be these none: a row alone is a row of a batch. Where each
        sample has a weight of its own, there may be more rows of it.
        """
        kept = {(False, False)} if self.channel_axis is None or self.is_per_sample else set()
        return frozenset(kept.union(self.dimensions))

    @cached_property
    def dimensions(self) -> tuple[tuple[bool, bool], ...]:
        """For each dimension of the view, whether it is averaged over, and whether weight has it."""
        return tuple((axis in self.axes, axis in self.channels) for axis in range(len(self.view)))

    @cached_property
    def stats_view(self) -> Shape:
        """The view with the averaged dimensions shrunk to 1: the statistics broadcast from it."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.view))

    @cached_property
    def channels_view(self) -> Shape:
        """The view with all but the channel dimensions shrunk to 1: weight and bias broadcast from it."""
        return tuple(size if axis in self.channels else 1 for axis, size in enumerate(self.view))

    @cached_property
    def weight_shape(self) -> Shape:
        """The shape of weight and bias: (C), or the trailing sizes; with the number of samples before it."""
        sizes = tuple(self.view[axis] for axis in self.channels)
        samples, own = (sizes[:1], sizes[1:]) if self.is_per_sample else ((), sizes)
        return (*samples, *(own if self.channel_axis is None else (math.prod(own),)))

    def per_sample(self) -> Layout | None:
        """The same where weight and bias belong to the samples too; None where the first axis is not theirs.

        >>> trailing((2, 3, 4), normalized_shape=(4,)).per_sample().weight_shape
        (2, 4)
        """
        if not self.is_batched or 0 in self.channels or self.split_axis == 0:
            return None
        return replace(self, channels=(0, *self.channels), is_per_sample=True)


def rows(sizes: Shape) -> list[slice]:
    """Where so many samples of each rank, one after the other, lie along axis 0.

    >>> rows((2, 3))
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return [slice(stop - size, stop) for stop, size in zip(accumulate(sizes), sizes, strict=True)]


def trailing(shape: Shape, *, normalized_shape: Shape) -> Layout:
    """The trailing axes share one mean, and have a weight for each of their places.

    >>> trailing((2, 3, 4), normalized_shape=(3, 4)).stats_shape
    (2,)
    """
    kept = len(shape) - len(normalized_shape)
    axes = tuple(range(kept, len(shape)))
    return Layout(view=shape, axes=axes, channels=axes, stats_shape=shape[:kept], reported_axes=axes)


def by_channel(shape: Shape, *, channel_axis: int) -> Layout:
    """All elements of a channel share one mean.

    >>> by_channel((2, 3, 4), channel_axis=1).axes
    (0, 2)
    """
    axes = tuple(axis for axis in range(len(shape)) if axis != channel_axis)
    return Layout(
        view=shape,
        axes=axes,
        channels=(channel_axis,),
        stats_shape=(shape[channel_axis],),
        reported_axes=axes,
        channel_axis=channel_axis,
    )


def by_virtual_batch(shape: Shape, *, channel_axis: int, samples: int, dealt: bool = False) -> Layout:
    """Each channel has a mean in each virtual batch, of so many samples that follow one another.

    ``dealt`` samples go to the virtual batches in turn instead, as in TensorFlow
    (tensorflow/tensorflow:tensorflow/python/keras/layers/normalization.py, ``expanded_shape``).

    >>> layout = by_virtual_batch((6, 3, 4), channel_axis=1, samples=2)
    >>> layout.view, layout.axes, layout.stats_shape, layout.count
    ((3, 2, 3, 4), (1, 3), (3, 3), 8)
    """
    batches = shape[0] // samples
    pair = (samples, batches) if dealt else (batches, samples)
    kept = int(dealt), channel_axis + 1
    return Layout(
        view=(*pair, *shape[1:]),
        axes=tuple(axis for axis in range(len(shape) + 1) if axis not in kept),
        channels=(channel_axis + 1,),
        stats_shape=(batches, shape[channel_axis]),
        reported_axes=tuple(axis for axis in range(len(shape)) if axis != channel_axis),
        channel_axis=channel_axis,
        split_axis=0,
    )


def by_sample_and_channel(shape: Shape, *, channel_axis: int) -> Layout:
    """Each channel of each sample has a mean of its own; two dimensions are one sample, as in torch's InstanceNorm1d.

    >>> by_sample_and_channel((2, 3, 4), channel_axis=1).stats_shape
    (2, 3)
    """
    batched = len(shape) > 2
    layout = by_channel(shape, channel_axis=channel_axis)
    axes = tuple(axis for axis in layout.axes if axis or not batched)
    samples = shape[0] if batched else 1
    return replace(
        layout, axes=axes, reported_axes=axes, stats_shape=(samples, shape[channel_axis]), is_batched=batched
    )


def by_sample_and_group(shape: Shape, *, channel_axis: int, groups: int, interleaved: bool = False) -> Layout:
    """Each group of channels of each sample has a mean of its own; ``interleaved`` ones take every so-manyth channel.

    >>> by_sample_and_group((2, 6, 4), channel_axis=1, groups=3).view
    (2, 3, 2, 4)
    """
    rank, channels = len(shape), shape[channel_axis]
    if channels % groups:
        few = channels <= MOST_LISTED
        use = (
            either(size for size in range(1, channels + 1) if channels % size == 0) if few else "a number that divides"
        )
        raise InputError(f"{count(channels, 'channel')} cannot be split into {count(groups, 'group')}; use {use}")
    width = channels // groups
    pair = (width, groups) if interleaved else (groups, width)
    kept_place = channel_axis + interleaved
    return Layout(
        view=(*shape[:channel_axis], *pair, *shape[channel_axis + 1 :]),
        axes=tuple(axis for axis in range(1, rank + 1) if axis != kept_place),
        channels=(channel_axis, channel_axis + 1),
        stats_shape=(shape[0], groups),
        reported_axes=tuple(range(1, rank)),
        channel_axis=channel_axis,
        split_axis=channel_axis,
        groups=groups,
        is_interleaved=interleaved,
    )


def number_of(place: Iterable[int], shape: Iterable[int]) -> int:
    """The number of an element in C order; ``numpy.ravel_multi_index`` refuses the 64 axes that an array may have.

    >>> number_of((1, 2), (3, 4))
    6
    """
    number = 0
    for index, size in zip(place, shape, strict=True):
        number = number * size + index
    return number


def place_of(number: int, shape: Shape) -> Shape:
    """The place of an element that has a number in C order: the inverse of ``number_of``.

    >>> place_of(6, (3, 4))
    (1, 2)
    """
    place = []
    for size in reversed(shape):
        number, position = divmod(number, size)
        place.append(position)
    return tuple(reversed(place))
