"""How the data are looked at: which axes are averaged over, and which part of each array is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normcli.errors import InputError
from normcli.planning.layout import Shape
from normcli.words import quoted


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The options that decide what is added up; a worker gets them with every shard.

    ``channel_axis`` is the axis whose places have statistics of their own, ``axes`` (the other way to say it) those
    that are averaged over; without either the last axis of an image, axis 1 of other arrays, and with ``whole``
    none: everything has one mean. ``select`` holds (start, stop, step) for leading axes; ``convert`` is the mode
    that images are brought to; ``skip_bad`` notes files that cannot be read instead of raising.
    """

    channel_axis: int | None = None
    axes: tuple[int, ...] | None = None
    whole: bool = False
    select: tuple[tuple[int | None, int | None, int | None], ...] = ()
    convert: str | None = None
    skip_bad: bool = False

    def kept(self, rank: int, name: str, *, image: bool = False) -> tuple[int, ...]:
        """The axes that have statistics of their own, of an array of that rank.

        >>> Spec().kept(4, "x"), Spec(axes=(0, -1)).kept(3, "x"), Spec(whole=True).kept(4, "x"), Spec().kept(1, "x")
        ((1,), (1,), (), ())
        """
        if self.whole:
            return ()
        if self.axes is not None:
            averaged = [_axis(axis, rank, name) for axis in self.axes]
            if len(set(averaged)) < len(averaged):
                raise InputError(f"--axes names axis {max(averaged, key=averaged.count)} of {name} twice")
            return tuple(axis for axis in range(rank) if axis not in averaged)
        if self.channel_axis is not None:
            return (_axis(self.channel_axis, rank, name),)
        return () if rank < 2 else (rank - 1,) if image else (1,)

    def taken(self, shape: Shape, name: str) -> tuple[slice, ...]:
        """What of each axis is taken.

        >>> Spec(select=((None, -1, None),)).taken((4, 3), "x")
        (slice(0, 3, 1), slice(0, 3, 1))
        """
        if len(self.select) > len(shape):
            raise InputError(f"--select has {len(self.select)} axes, and {name} of shape {shape} has {len(shape)}")
        asked = [slice(*part) for part in self.select] + [slice(None)] * (len(shape) - len(self.select))
        taken = tuple(slice(*part.indices(size)) for part, size in zip(asked, shape, strict=True))
        if any(len(range(part.start, part.stop, part.step)) == 0 for part in taken):
            raise InputError(f"--select takes nothing of {name}, whose shape is {shape}")
        return taken


def selection(text: str) -> tuple[tuple[int | None, int | None, int | None], ...]:
    """What ``--select`` says: slices as Python writes them, one for each leading axis.

    >>> selection("0:100, :, ::2")
    ((0, 100, None), (None, None, None), (None, None, 2))
    """
    found = []
    for part in text.split(","):
        pieces = [piece.strip() for piece in part.split(":")]
        try:
            numbers = [int(piece) if piece else None for piece in pieces]
        except ValueError:
            numbers = []
        if not 2 <= len(numbers) <= 3 or (len(numbers) == 3 and (numbers[2] is not None and numbers[2] < 1)):
            raise InputError(
                f"--select has {quoted(part.strip())}; give START:STOP or START:STOP:STEP for each axis",
                hint="--select '0:100,:,::2' takes the first hundred, all, and every second",
            )
        start, stop, step = [*numbers, None][:3]
        found.append((start, stop, step))
    return tuple(found)


def arranged(block: NDArray[np.generic], kept: tuple[int, ...], *, by_sample: bool) -> NDArray[np.generic]:
    """A block as (items, outer, kept, inner): its samples along the first axis, or all of it as one item.

    >>> arranged(np.zeros((4, 3, 5, 7)), (1,), by_sample=True).shape
    (4, 1, 3, 35)
    """
    shape, first = block.shape, int(by_sample)
    items = shape[0] if by_sample else 1
    if not kept:
        return block.reshape(items, 1, 1, -1)
    if kept[-1] - kept[0] != len(kept) - 1:
        block = np.moveaxis(block, kept, range(first, first + len(kept)))
        shape, kept = block.shape, tuple(range(first, first + len(kept)))
    sizes = (shape[first : kept[0]], shape[kept[0] : kept[-1] + 1], shape[kept[-1] + 1 :])
    return block.reshape(items, *map(math.prod, sizes))


def _axis(axis: int, rank: int, name: str) -> int:
    if not -rank <= axis < rank:
        axes = f"0 to {rank - 1}" if rank > 1 else "axis 0" if rank else "none"
        raise InputError(f"{name} has no axis {axis}: it has {axes}")
    return axis % rank
