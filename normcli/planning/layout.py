"""How to look at a tensor, and what each dimension is for: integers only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from normcli.errors import InputError
from normcli.words import count, either

Shape = tuple[int, ...]


_MOST_LISTED = 4096  # channels whose divisors are listed in an error: more take long, to find and to read


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How to look at the tensor, and what each dimension is for; the arithmetic reads nothing else of the kind.

    ``view`` is the tensor's shape, the channel axis split in two for group norm: (groups, channels of one),
    or the other way round where groups are interleaved.

    >>> layout = layout_of("group", (2, 6, 4), channel_axis=1, groups=3)
    >>> layout.view, layout.axes, layout.channels, layout.count, layout.stats_shape
    ((2, 3, 2, 4), (2, 3), (1, 2), 8, (2, 3))
    """

    view: Shape
    axes: Shape  # dimensions of the view that share one mean
    channels: Shape  # dimensions of the view that weight and bias have
    stats_shape: Shape  # one value for each group of statistics
    reported_axes: Shape  # the axes averaged over, in the input's own numbering
    channel_axis: int | None = None  # in the input's own numbering; None for layer and rms

    @property
    def count(self) -> int:
        """n, the number of elements in one group of statistics."""
        return math.prod(self.view[axis] for axis in self.axes)

    @property
    def stats_view(self) -> Shape:
        """The view with the averaged dimensions shrunk to 1: the statistics broadcast from it."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.view))

    @property
    def channels_view(self) -> Shape:
        """The view with all but the channel dimensions shrunk to 1: weight and bias broadcast from it."""
        return tuple(size if axis in self.channels else 1 for axis, size in enumerate(self.view))


def layout_of(
    kind: str,
    shape: Shape,
    *,
    channel_axis: int | None = None,
    groups: int | None = None,
    normalized_shape: Shape | None = None,
    interleaved: bool = False,
) -> Layout:
    """The layout of a kind for a shape. A new kind of the family is a new case here, never a new formula.

    An instance norm of two dimensions is one sample (C, L), as in torch.nn.InstanceNorm1d.
    """
    rank = len(shape)
    if normalized_shape is not None:  # layer, rms: the trailing axes share one mean
        kept = rank - len(normalized_shape)
        trailing = tuple(range(kept, rank))
        return Layout(view=shape, axes=trailing, channels=trailing, stats_shape=shape[:kept], reported_axes=trailing)
    assert channel_axis is not None
    channels = shape[channel_axis]
    if kind != "group":
        first_spatial = {"batch": 0, "instance": rank > 2}[kind]
        averaged = tuple(axis for axis in range(first_spatial, rank) if axis != channel_axis)
        samples = {"batch": (), "instance": (math.prod(shape[:first_spatial]),)}[kind]
        return Layout(
            view=shape,
            axes=averaged,
            channels=(channel_axis,),
            stats_shape=(*samples, channels),
            reported_axes=averaged,
            channel_axis=channel_axis,
        )
    assert groups is not None
    if channels % groups:
        few = channels <= _MOST_LISTED
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
