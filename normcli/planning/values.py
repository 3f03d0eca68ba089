"""The value of each option, as it was given or by default; what cannot be meant is refused in words.

``given`` holds the options by their names; an option that is not in it was not given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from normcli.dtypes import DTYPES
from normcli.errors import InputError
from normcli.planning.conventions import Convention
from normcli.planning.kinds import Kind
from normcli.planning.layout import MOST_LISTED, Shape
from normcli.words import count, either, flag, repr_of


def choice(given: Mapping[str, Any], name: str, choices: tuple[Any, ...], default: Any = None) -> Any:
    """One of the values that an option may have; the first, or ``default``, where it is not given."""
    value = given.get(name, choices[0] if default is None else default)
    try:
        return choices[choices.index(None if isinstance(value, bool) else value)]
    except (ValueError, RuntimeError):  # an array, or a tensor, is no truth value
        raise InputError(f"{name} is {repr_of(value)}; use {either(choices)}") from None


def integer(given: Mapping[str, Any], name: str) -> int:
    """A whole number."""
    number = whole(given[name])
    if number is None:
        raise InputError(f"{name} is {repr_of(given[name])}; it must be a whole number")
    return number


def whole(value: Any) -> int | None:
    """The value as an int, or None for what is not a whole number of 64 bits (2.0 and True are not)."""
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return None if isinstance(value, bool) or number.bit_length() > 63 else number


def switch(value: Any, name: str) -> bool:
    """The value of an option that is True or False, Python's or NumPy's; InputError for anything else."""
    if type(value).__name__ != "bool":
        raise InputError(f"{name} is {repr_of(value)}; use True or False")
    return bool(value)


def number(given: Mapping[str, Any], name: str, *, least: float = 0.0, most: float = math.inf) -> float:
    """A finite number between two."""
    value = given[name]
    try:
        if isinstance(value, bool | str | bytes) or getattr(value, "shape", ()) != ():
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} is {repr_of(value)}; it must be a number") from None
    if not (least <= number <= most) or math.isinf(number):
        between = f"between {least:g} and {most:g}" if math.isfinite(most) else f"a finite number, {least:g} or more"
        raise InputError(f"{name} is {number:g}; it must be {between}")
    return number


def eps(given: Mapping[str, Any], default: float | None, dtype: str) -> float:
    """eps; machine epsilon of the computing dtype where neither the user nor the convention has one."""
    if "eps" in given:
        return number(given, "eps")
    return DTYPES[dtype].eps if default is None else default


def affine(given: Mapping[str, Any], default: bool) -> bool:
    """Whether weight and bias are used; giving one says so."""
    parameters = [name for name in ("weight", "bias") if name in given]
    affine = switch(given.get("affine", default or bool(parameters)), "affine")
    if parameters and not affine:
        raise InputError(f"{flag(parameters[0])} and --no-affine contradict each other; give one of them")
    return affine


def momentum(given: Mapping[str, Any], default: float) -> float | None:
    """The weight of the new batch, None for the cumulative average."""
    if "decay" in given:
        if "momentum" in given:
            raise InputError("--momentum and --decay say the same thing twice (decay = 1 - momentum); give one of them")
        from decimal import Decimal  # only here, for the sake of a fast start

        # 1 - 0.9 is 0.09999999999999998 in binary; the complement of the decimal number is meant.
        return float(1 - Decimal(repr(number(given, "decay", most=1.0))))
    if "momentum" not in given:
        return default
    return None if given["momentum"] is None else number(given, "momentum", most=1.0)


def track_running_stats(kind: Kind, given: Mapping[str, Any]) -> bool:
    """Whether running statistics are kept; giving some says so."""
    if not kind.has_running_stats:
        return False
    state = [name for name in ("running_mean", "running_var", "num_batches_tracked") if name in given]
    track = switch(given.get("track_running_stats", kind.tracks or bool(state)), "track_running_stats")
    if state and not track:
        raise InputError(f"{flag(state[0])} and --no-track-running-stats contradict each other; give one of them")
    if given.get("num_batches_tracked") is not None and integer(given, "num_batches_tracked") < 0:
        raise InputError(f"num_batches_tracked is {given['num_batches_tracked']}; it must be 0 or more")
    return track


def groups(given: Mapping[str, Any]) -> int:
    """The number of groups."""
    if "groups" not in given:
        raise InputError("group needs the number of groups; give --groups N")
    groups = integer(given, "groups")
    if groups < 1:
        raise InputError(f"groups is {groups}; it must be 1 or more")
    return groups


def virtual_batch(given: Mapping[str, Any], shape: Shape, channel_axis: int | None) -> int | None:
    """The number of samples in a virtual batch; None where the batch is not split."""
    if "virtual_batch" not in given:
        return None
    size = integer(given, "virtual_batch")
    if size < 1:
        raise InputError(f"virtual_batch is {size}; it must be 1 or more")
    if channel_axis == 0:
        raise InputError("--virtual-batch splits axis 0, the samples', and channel axis 0 holds the channels")
    if shape[0] % size:
        use = either(divisor for divisor in range(1, shape[0] + 1) if shape[0] % divisor == 0)
        use = use if shape[0] <= MOST_LISTED else "a number that divides"
        raise InputError(f"{count(shape[0], 'sample')} cannot be split into virtual batches of {size}; use {use}")
    return size


def ranks(given: Mapping[str, Any], shape: Shape, channel_axis: int | None, *, tracks: bool) -> Shape | None:
    """How many samples of the batch each rank has; None where it is not of several ranks."""
    value = given.get("ranks", False)
    if value is False:
        return None
    sizes = tuple(map(whole, value)) if isinstance(value, list | tuple) else ()
    if len(sizes) < 2 or not all(size is not None and size > 0 for size in sizes):
        raise InputError(f"ranks is {repr_of(value)}; give the number of samples of each of them, such as (2, 3)")
    if "virtual_batch" in given:
        raise InputError("--ranks and --virtual-batch cannot be combined: the one merges batches, the other splits one")
    if given.get("mode") == "eval" and not tracks:
        raise InputError(
            "ranks are synchronized in training alone: in eval mode without running statistics each takes its own",
            hint="leave out --ranks, and give each input alone",
        )
    if channel_axis == 0:
        raise InputError("ranks share axis 0, the samples', and channel axis 0 holds the channels")
    found = tuple(size for size in sizes if size is not None)
    if sum(found) != shape[0]:
        raise InputError(f"ranks of {' + '.join(map(str, found))} samples are {sum(found)}; the tensor has {shape[0]}")
    return found


def normalized_shape(given: Mapping[str, Any], shape: Shape) -> Shape:
    """The trailing sizes that share one mean."""
    value = given.get("normalized_shape", shape[-1:])
    sizes = value if isinstance(value, tuple | list) else (value,)
    normalized = tuple(size for size in map(whole, sizes) if size is not None)
    if not normalized or len(normalized) < len(sizes):
        raise InputError(
            f"normalized_shape is {repr_of(value)}; give the last sizes of the tensor, such as {shape[-1:]}"
        )
    if normalized != shape[-len(normalized) :]:
        raise InputError(
            f"normalized_shape {normalized} does not end the tensor's shape {shape}; "
            f"its last {count(min(len(normalized), len(shape)), 'size')} would be {shape[-len(normalized) :]}"
        )
    return normalized


def channel_axis(kind: Kind, shape: Shape, given: Mapping[str, Any], convention: Convention) -> int:
    """The axis of the channels, counted from the start."""
    rank = len(shape)
    unbatched = kind.name == "instance" and rank == 2
    default = 0 if unbatched and convention.channel_axis == 1 else convention.channel_axis
    axis = integer(given, "channel_axis") if "channel_axis" in given else default
    if not -rank <= axis < rank:
        raise InputError(f"channel axis {axis} does not exist; a tensor of shape {shape} has axes 0 to {rank - 1}")
    axis %= rank
    if axis == 0 and kind.name != "batch" and not unbatched:
        raise InputError(f"channel axis 0 holds the samples of {kind.name}; use 1 to {rank - 1}")
    return axis
