"""From a kind, its options and a shape to the axes that share one mean: integers only.

All the kinds are one formula over different axes. A plan says how to view the tensor so that the
axes fall out as whole dimensions, which of them share a mean, and how weight and bias broadcast.
Everything that can be refused is refused here, before any data is touched.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

from normcli import formula, planning
from normcli.dtypes import DTYPES, FLOAT_DTYPES
from normcli.errors import InputError
from normcli.formula.family import running
from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import replaced
from normcli.planning.conventions import CONVENTIONS, Convention
from normcli.planning.kinds import KINDS, Kind, layout_of
from normcli.planning.layout import Layout, Shape
from normcli.words import count, either, flag, near, printable, repr_of

_MOST_AXES = 64  # NumPy's own limit
_ARRAYS = frozenset({"weight", "bias", "running_mean", "running_var"})
_PLAIN = frozenset({bool, int, float, str, type(None)})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is settled before the first element is read: options resolved, layout derived."""

    kind: Kind
    convention: Convention
    shape: Shape
    dtype: str
    mode: str  # "train" or "eval"
    eps: float
    affine: bool
    momentum: float | None  # weight of the new batch; None: cumulative average
    ddof: int
    running_ddof: int
    track_running_stats: bool
    groups: int | None
    normalized_shape: Shape | None
    layout: Layout

    @cached_property
    def source(self) -> str:
        """Where mean and variance come from: "batch", or in eval mode "running"."""
        return "running" if self.mode == "eval" and self.track_running_stats else "batch"

    @cached_property
    def updates_running(self) -> bool:
        """Whether this input changes the running statistics."""
        return self.track_running_stats and self.mode == "train"

    @cached_property
    def weight_shape(self) -> Shape:
        """The shape of weight and bias: (C), or normalized_shape."""
        return self.normalized_shape or (math.prod(self.layout.channels_view),)

    @cached_property
    def lines(self) -> Lines:
        """The lines that are computed, as the options have them."""
        changes: dict[str, str] = {}
        if self.source == "running":
            changes |= self.kind.changes["eval"]
        elif self.ddof:
            changes |= self.kind.changes["ddof"]
        if not self.affine:
            changes |= self.kind.changes["no_affine"]
        return _lines(self.kind.text, tuple(changes.items()), self.source == "running" or self.layout.count == 1)

    is_free = False  # whether its lines are none of the family's

    @property
    def tensors(self) -> tuple[Any, ...]:
        """What comes with the input besides the state of a layer: nothing in the family."""
        return ()

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        """The names of what there is one value of for each group of statistics."""
        return self.kind.statistics

    def span(self, name: str) -> Shape:
        """The dimensions that a statistic varies over."""
        return tuple(axis for axis in range(len(self.layout.view)) if axis not in self.layout.axes)

    def parameter_shape(self, name: str) -> Shape:
        """The shape of weight, bias, running_mean or running_var."""
        return self.weight_shape

    @cached_property
    def running_lines(self) -> Lines:
        """The lines of the running statistics' update; none where there is no update."""
        if not self.updates_running:
            return ()
        unbiased = "var_unbiased" if self.ddof else "var * n / (n - 1)"
        several = math.prod(self.layout.stats_shape) > math.prod(self.weight_shape)
        return running(unbiased if self.running_ddof else "var", over_samples=several)

    @cached_property
    def gradient_lines(self) -> Lines:
        """The lines of the backward pass, derived from those that are computed.

        >>> [line.name for line in plan("rms", (3, 4), "float64", {}).gradient_lines][:3]
        ['grad_normalized', 'grad_rstd', 'grad_mean_square']
        """
        found: Lines = formula.gradient.gradient(self.lines, self.layout.roles, self._style)
        return found

    @property
    def _style(self) -> str:
        found: str = formula.gradient.COURSE if self.kind.course else formula.gradient.PLAIN
        return found

    def gradient_name(self, name: str) -> str:
        """What the gradient of a name is called among these lines.

        >>> plan("rms", (3, 4), "float64", {}).gradient_name("x")
        'grad_input'
        """
        found: str = formula.gradient.gradient_name(name, self._style)
        return found

    def new_weight(self, batches: int) -> float:
        """The weight of the new batch in the running update, after ``batches`` earlier ones."""
        return 1 / (batches + 1) if self.momentum is None else self.momentum

    def options(self) -> dict[str, Any]:
        """The options that shaped the result, resolved; only those that mean something to the kind.

        >>> plan("layer", (3, 4), "float64", {"eps": 0.001}).options()
        {'eps': 0.001, 'affine': True, 'ddof': 0, 'normalized_shape': [4]}
        """
        resolved = {
            "eps": self.eps,
            "affine": self.affine,
            "momentum": self.momentum,
            "track_running_stats": self.track_running_stats,
            "ddof": self.ddof,
            "running_ddof": self.running_ddof,
            "channel_axis": self.layout.channel_axis,
            "groups": self.groups,
            "normalized_shape": list(self.normalized_shape or ()),
        }
        return {name: value for name, value in resolved.items() if name in self.kind.options}


@cache
def _lines(text: str, changes: tuple[tuple[str, str], ...], without_unbiased: bool) -> Lines:
    found = replaced(lines(text), dict(changes))
    return tuple(line for line in found if line.name != "var_unbiased" or not without_unbiased)


def plan(kind: str, shape: Shape, dtype: str, given: Mapping[str, Any]) -> Plan:
    """Settle a calculation from its kind, the tensor's shape and dtype, and the options given.

    An option that is None counts as not given, but for ``momentum``, where None is the cumulative
    average. Raises InputError, in one sentence with the way out, for what cannot be computed. The same question
    has the same plan for an answer, so that what is worked out once of it is there the next time.

    >>> plan("batch", (3, 4), "float32", {}).layout.reported_axes
    (0,)
    """
    given = {name: value for name, value in given.items() if value is not None or name == "momentum"}
    plain = {name: value for name, value in given.items() if name not in _ARRAYS}
    if type(kind) is str and all(map(_is_plain, plain.values())):
        arrays = tuple(name for name in given if name in _ARRAYS)
        return _known(kind, shape, dtype, arrays, tuple((name, type(value), value) for name, value in plain.items()))
    return _settled(kind, shape, dtype, given)


def _is_plain(value: Any) -> bool:
    """Whether a value is the same for everyone who gives it: a number, a word, or sizes."""
    return type(value) in _PLAIN or (type(value) is tuple and all(type(size) is int for size in value))


@lru_cache(maxsize=256)
def _known(kind: str, shape: Shape, dtype: str, arrays: tuple[str, ...], plain: tuple[Any, ...]) -> Plan:
    """A plan, of which arrays matter only in that they are given."""
    return _settled(kind, shape, dtype, dict.fromkeys(arrays, ()) | {name: value for name, _, value in plain})


def _settled(kind: str, shape: Shape, dtype: str, given: Mapping[str, Any]) -> Plan:
    family = _kind(kind)
    _refuse_foreign_options(family, given)
    if kind not in KINDS:
        dtype = _dtype(given.get("dtype", dtype))
        _check_shape(family, shape)
        return planning.further.settled(family, shape, dtype, given)  # type: ignore[no-any-return]
    convention = _convention(given.get("convention", "torch"), family)
    dtype = _dtype(given.get("dtype", dtype))
    _check_shape(family, shape)
    groups = _groups(given) if "groups" in family.options else None
    normalized_shape = _normalized_shape(given, shape) if "normalized_shape" in family.options else None
    channel_axis = _channel_axis(family, shape, given, convention) if "channel_axis" in family.options else None
    settled = Plan(
        kind=family,
        convention=convention,
        shape=shape,
        dtype=dtype,
        mode=_choice(given, "mode", ("train", "eval")),
        eps=_eps(given, convention.eps[kind], dtype),
        affine=_affine(given, convention.affine.get(kind, True)),
        momentum=_momentum(given, convention.momentum),
        ddof=_choice(given, "ddof", (0, 1)),
        running_ddof=_choice(given, "running_ddof", (0, 1), default=convention.running_ddof),
        track_running_stats=_track_running_stats(family, given),
        groups=groups,
        normalized_shape=normalized_shape,
        layout=layout_of(
            kind,
            shape,
            channel_axis=channel_axis,
            groups=groups,
            normalized_shape=normalized_shape,
            interleaved=convention.interleaved_groups,
        ),
    )
    _check_enough_values(settled)
    return settled


def check_state_shape(settled: Plan, name: str, shape: Shape) -> None:
    """Refuse a weight, bias, running_mean or running_var whose shape is not the layer's."""
    expected = settled.parameter_shape(name)
    if shape != expected:
        what = "normalized_shape" if settled.normalized_shape else "the number of channels"
        raise InputError(f"{name} has shape {shape}; {expected} is needed, {what} of this tensor")


def _dtype(name: Any) -> str:
    if not isinstance(name, str) or name not in FLOAT_DTYPES:
        raise InputError(f"dtype {repr_of(name)} is not known; use {either(FLOAT_DTYPES)}")
    return name


def _kind(name: str) -> Kind:
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    every: Mapping[str, Kind] = planning.further.EVERY
    if not isinstance(name, str) or name not in every:
        raise InputError(f"kind {repr_of(name)} is not known; use {either(KINDS)}, or another of normcli --help")
    return every[name]


def _refuse_foreign_options(kind: Kind, given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in kind.options:
            owners = [other.name for other in KINDS.values() if name in other.options]
            belongs = f"it belongs to {either(owners)}" if owners else "no kind has it"
            meant = None if owners else near(name, kind.options)
            hint = f"did you mean {meant}?" if meant else None
            raise InputError(f"{kind.name} has no option {printable(name)[:60]}; {belongs}", hint)


def _convention(name: str, kind: Kind) -> Convention:
    if not isinstance(name, str) or name not in CONVENTIONS:
        raise InputError(f"convention {repr_of(name)} is not known; use {either(CONVENTIONS)}")
    convention = CONVENTIONS[name]
    if kind.name not in convention.eps:
        raise InputError(f"the {name} convention has no {kind.title}; it has {either(convention.eps)}")
    return convention


def _check_shape(kind: Kind, shape: Shape) -> None:
    if 0 in shape:
        raise InputError(f"the tensor has no elements (shape {shape})")
    if len(shape) < kind.least_rank:
        what = "a single number" if not shape else f"shape {shape}"
        raise InputError(f"{kind.name} needs {kind.needs}; the tensor is {what}")
    if "groups" in kind.options and len(shape) == _MOST_AXES:
        raise InputError(f"group splits the channel axis in two, and {_MOST_AXES} axes are the most that an array has")


def _choice(given: Mapping[str, Any], name: str, choices: tuple[Any, ...], default: Any = None) -> Any:
    value = given.get(name, choices[0] if default is None else default)
    try:
        return choices[choices.index(None if isinstance(value, bool) else value)]
    except (ValueError, RuntimeError):  # an array, or a tensor, is no truth value
        raise InputError(f"{name} is {repr_of(value)}; use {either(choices)}") from None


def _integer(given: Mapping[str, Any], name: str) -> int:
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


def _number(given: Mapping[str, Any], name: str, *, least: float = 0.0, most: float = math.inf) -> float:
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


def _eps(given: Mapping[str, Any], default: float | None, dtype: str) -> float:
    if "eps" in given:
        return _number(given, "eps")
    return DTYPES[dtype].eps if default is None else default


def _affine(given: Mapping[str, Any], default: bool) -> bool:
    parameters = [name for name in ("weight", "bias") if name in given]
    affine = switch(given.get("affine", default or bool(parameters)), "affine")
    if parameters and not affine:
        raise InputError(f"{flag(parameters[0])} and --no-affine contradict each other; give one of them")
    return affine


def _momentum(given: Mapping[str, Any], default: float) -> float | None:
    if "decay" in given:
        if "momentum" in given:
            raise InputError("--momentum and --decay say the same thing twice (decay = 1 - momentum); give one of them")
        from decimal import Decimal  # only here, for the sake of a fast start

        # 1 - 0.9 is 0.09999999999999998 in binary; the complement of the decimal number is meant.
        return float(1 - Decimal(repr(_number(given, "decay", most=1.0))))
    if "momentum" not in given:
        return default
    return None if given["momentum"] is None else _number(given, "momentum", most=1.0)


def _track_running_stats(kind: Kind, given: Mapping[str, Any]) -> bool:
    if not kind.has_running_stats:
        return False
    state = [name for name in ("running_mean", "running_var", "num_batches_tracked") if name in given]
    track = switch(given.get("track_running_stats", kind.tracks or bool(state)), "track_running_stats")
    if state and not track:
        raise InputError(f"{flag(state[0])} and --no-track-running-stats contradict each other; give one of them")
    if given.get("num_batches_tracked") is not None and _integer(given, "num_batches_tracked") < 0:
        raise InputError(f"num_batches_tracked is {given['num_batches_tracked']}; it must be 0 or more")
    return track


def _groups(given: Mapping[str, Any]) -> int:
    if "groups" not in given:
        raise InputError("group needs the number of groups; give --groups N")
    groups = _integer(given, "groups")
    if groups < 1:
        raise InputError(f"groups is {groups}; it must be 1 or more")
    return groups


def _normalized_shape(given: Mapping[str, Any], shape: Shape) -> Shape:
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


def _channel_axis(kind: Kind, shape: Shape, given: Mapping[str, Any], convention: Convention) -> int:
    rank = len(shape)
    unbatched = kind.name == "instance" and rank == 2
    default = 0 if unbatched and convention.channel_axis == 1 else convention.channel_axis
    axis = _integer(given, "channel_axis") if "channel_axis" in given else default
    if not -rank <= axis < rank:
        raise InputError(f"channel axis {axis} does not exist; a tensor of shape {shape} has axes 0 to {rank - 1}")
    axis %= rank
    if axis == 0 and kind.name != "batch" and not unbatched:
        raise InputError(f"channel axis 0 holds the samples of {kind.name}; use 1 to {rank - 1}")
    return axis


def _check_enough_values(settled: Plan) -> None:
    if settled.source == "running":
        return
    n = settled.layout.count
    title, shape = settled.kind.title, settled.shape
    refused = not settled.convention.one_value_per_channel
    if refused and settled.kind.has_running_stats and n == 1:
        product = "batch size x spatial size" if settled.kind.name == "batch" else "spatial size"
        raise InputError(
            f"{title} needs more than 1 value per channel to compute a variance; "
            f"{product} is 1 in shape {shape} (channel axis {settled.layout.channel_axis})",
            hint="with running statistics --mode eval needs no batch variance",
        )
    if refused and settled.kind.name == "group" and n == 1 and shape[0] == 1:
        raise InputError(
            f"{title} needs more than 1 value per group to compute a variance; "
            f"batch size x channels per group x spatial size is 1 in shape {shape}"
        )
    if n - settled.ddof < 1:
        raise InputError(f"--ddof {settled.ddof} divides by n - {settled.ddof} = 0: each statistic has n = 1 value")
    if settled.updates_running and n - settled.running_ddof < 1:
        raise InputError("--running-ddof 1 divides by n - 1 = 0: each statistic has n = 1 value; use --running-ddof 0")
