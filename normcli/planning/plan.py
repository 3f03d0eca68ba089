"""From a kind, its options and a shape to the axes that share one mean: integers only.

All the kinds are one formula over different axes. A plan says how to view the tensor so that the
axes fall out as whole dimensions, which of them share a mean, and how weight and bias broadcast.
Everything that can be refused is refused here, before any data is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any

from normcli import formula, planning
from normcli.digits import written
from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.formula.family import CAST_BEFORE, RENORM, WEIGHT_OFFSET, running
from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import replaced, rewritten
from normcli.planning import values
from normcli.planning.conventions import CONVENTIONS, Convention, spelled
from normcli.planning.kinds import CORRECTIONS, KINDS, STATE_ARRAYS, Kind, layout_of
from normcli.planning.layout import Layout, Shape, by_virtual_batch
from normcli.words import either, flag, near, printable, repr_of

_MOST_AXES = 64  # NumPy's own limit
RMAX, DMAX = 3.0, 5.0  # at the end of training in Ioffe 2017 (arXiv:1702.03275), section 4.1
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
    weight_offset: int = 0  # added to the weight
    virtual_batch: int | None = None  # samples of each part of the batch that has statistics of its own
    ranks: Shape | None = None  # the samples of each rank, one after the other, where several share the statistics
    renorm: bool = False  # whether r and d take the batch's statistics to the running ones
    rmax: float = RMAX  # bounds of r and d
    dmax: float = DMAX
    cast: str | None = None  # the dtype that normalized values are rounded to before the weight multiplies

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
        """The shape of weight and bias: (C), or normalized_shape; with the number of samples before it."""
        return self.layout.weight_shape

    @cached_property
    def group_words(self) -> tuple[str, ...]:
        """What the indices of a group of statistics count; nothing where these are rows."""
        return ("virtual batch", *self.kind.group_words) if self.virtual_batch else self.kind.group_words

    @cached_property
    def merges(self) -> bool:
        """Whether the statistics are those of several ranks, merged."""
        return self.ranks is not None and self.source == "batch"

    @cached_property
    def neutral(self) -> Mapping[str, float]:
        """The weight and the bias that change nothing, which are meant where nobody gives any."""
        return {"weight": 1.0 - self.weight_offset, "bias": 0.0}

    @cached_property
    def plain(self) -> Plan:
        """The same in the family's own lines: neither is anything added to the weight, nor rounded before it."""
        return replace(self, weight_offset=0, cast=None)

    @cached_property
    def bare(self) -> Plan:
        """The same without weight and bias."""
        return replace(self.plain, affine=False)

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
        rules = [CAST_BEFORE.format(dtype=self.cast)] if self.cast else []
        rules += [WEIGHT_OFFSET] if self.weight_offset else []
        if self.renorm and self.source == "batch":
            rules += [rule.format(rmax=written(self.rmax), dmax=written(self.dmax)) for rule in RENORM]
        without_unbiased = self.source == "running" or self.layout.count == 1
        return _lines(self.kind.text, tuple(changes.items()), tuple(rules), without_unbiased)

    is_free = False  # whether its lines are none of the family's

    @property
    def tensors(self) -> tuple[Any, ...]:
        """What comes with the input besides the state of a layer: nothing in the family."""
        return ()

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        """The names of what there is one value of for each group of statistics."""
        return self.kind.statistics + (CORRECTIONS if self.renorm else ())

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
        {'eps': 0.001, 'affine': True, 'ddof': 0, 'normalized_shape': [4], 'weight_offset': 0, 'cast': 'after'}
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
            "weight_offset": self.weight_offset,
            "cast": "before" if self.cast else "after",
        }
        resolved |= {"virtual_batch": self.virtual_batch} if self.virtual_batch else {}
        resolved |= {"ranks": list(self.ranks)} if self.ranks else {}
        resolved |= {"renorm": True, "rmax": self.rmax, "dmax": self.dmax} if self.renorm else {}
        return {name: value for name, value in resolved.items() if name in self.kind.options}


@cache
def _lines(text: str, changes: tuple[tuple[str, str], ...], rules: tuple[str, ...], without_unbiased: bool) -> Lines:
    found = replaced(lines(text), dict(changes))
    for rule in rules:
        found = rewritten(found, rule) or found  # without a weight there is nothing to change
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
    shapes = {name: _shape_of(value) for name, value in given.items() if name in STATE_ARRAYS}
    plain = tuple([(name, type(value), value) for name, value in given.items() if name not in STATE_ARRAYS])
    if type(kind) is str and all(map(_is_plain, [value for _, _, value in plain])):
        return _known(kind, shape, dtype, tuple(shapes.items()), plain)
    return _settled(kind, shape, dtype, given | shapes)


def _shape_of(array: Any) -> Shape:
    """The shape of an array, or of nested lists, as far as the first of each goes."""
    if isinstance(array, list | tuple):
        return (len(array), *_shape_of(array[0])) if array else (0,)
    shape = getattr(array, "shape", ())
    return tuple(shape) if isinstance(shape, tuple) else ()


def _is_plain(value: Any) -> bool:
    """Whether a value is the same for everyone who gives it: a number, a word, or sizes."""
    return type(value) in _PLAIN or (type(value) is tuple and all(type(size) is int for size in value))


@lru_cache(maxsize=256)
def _known(kind: str, shape: Shape, dtype: str, arrays: tuple[tuple[str, Shape], ...], plain: tuple[Any, ...]) -> Plan:
    """A plan, of which arrays matter only by their shapes."""
    return _settled(kind, shape, dtype, dict(arrays) | {name: value for name, _, value in plain})


def _settled(kind: str, shape: Shape, dtype: str, given: Mapping[str, Any]) -> Plan:
    """The plan for options among which arrays are their shapes."""
    family = _kind(kind)
    _refuse_foreign_options(family, given)
    if kind not in KINDS:
        dtype = _dtype(given.get("dtype", dtype))
        _check_shape(family, shape)
        found: Plan = planning.settled.settled(family, shape, dtype, given)
        return found
    convention = _convention(given.get("convention", "torch"), family)
    dtype = _dtype(given.get("dtype", dtype))
    _check_shape(family, shape)
    groups = values.groups(given) if "groups" in family.options else None
    normalized_shape = values.normalized_shape(given, shape) if "normalized_shape" in family.options else None
    channel_axis = values.channel_axis(family, shape, given, convention) if "channel_axis" in family.options else None
    track_running_stats = values.track_running_stats(family, given)
    layout = layout_of(
        kind,
        shape,
        channel_axis=channel_axis,
        groups=groups,
        normalized_shape=normalized_shape,
        interleaved=convention.interleaved_groups,
    )
    virtual_batch = values.virtual_batch(given, shape, channel_axis)
    if virtual_batch is not None and channel_axis is not None:
        if len(shape) == _MOST_AXES:
            raise InputError(f"--virtual-batch splits an axis in two, and {_MOST_AXES} axes are the most of an array")
        layout = by_virtual_batch(shape, channel_axis=channel_axis, samples=virtual_batch)
    per_sample = None if track_running_stats else layout.per_sample()
    if per_sample and per_sample.weight_shape in (given.get("weight"), given.get("bias")):
        layout = per_sample
    settled = Plan(
        kind=family,
        convention=convention,
        shape=shape,
        dtype=dtype,
        mode=values.choice(given, "mode", ("train", "eval")),
        eps=values.eps(given, convention.eps[kind], dtype),
        affine=values.affine(given, convention.affine.get(kind, True)),
        momentum=values.momentum(given, convention.momentum),
        ddof=values.choice(given, "ddof", (0, 1)),
        running_ddof=values.choice(given, "running_ddof", (0, 1), default=convention.running_ddof),
        track_running_stats=track_running_stats,
        groups=groups,
        normalized_shape=normalized_shape,
        layout=layout,
        weight_offset=values.choice(given, "weight_offset", (0, 1)),
        virtual_batch=virtual_batch,
        ranks=values.ranks(given, shape, channel_axis, tracks=track_running_stats),
        renorm=values.switch(given.get("renorm", False), "renorm"),
        rmax=values.number(given, "rmax", least=1.0) if "rmax" in given else RMAX,
        dmax=values.number(given, "dmax") if "dmax" in given else DMAX,
        cast=dtype if values.choice(given, "cast", ("after", "before")) == "before" else None,
    )
    _check_enough_values(settled)
    _check_renorm(settled, given)
    return settled


def _check_renorm(settled: Plan, given: Mapping[str, Any]) -> None:
    if settled.renorm and not settled.track_running_stats:
        raise InputError("--renorm needs the running statistics; leave out --no-track-running-stats")
    if settled.renorm and settled.source == "running":
        raise InputError("--renorm is of training: --mode eval takes the running statistics as they are")
    if settled.renorm and settled.virtual_batch:
        raise InputError("--renorm and --virtual-batch cannot be combined here; give one of them")
    bounds = [name for name in ("rmax", "dmax") if name in given]
    if bounds and not settled.renorm:
        raise InputError(f"{flag(bounds[0])} bounds what --renorm does; give --renorm too")


def check_state_shape(settled: Plan, name: str, shape: Shape) -> None:
    """Refuse a weight, bias, running_mean or running_var whose shape is not the layer's."""
    expected, layout = settled.parameter_shape(name), settled.layout
    if shape == expected:
        return
    if layout.is_per_sample:
        raise InputError(f"{name} has shape {shape}; {expected} is needed, if each sample has a weight and a bias")
    what = "normalized_shape" if settled.normalized_shape else "the number of channels"
    other = None if settled.track_running_stats or settled.is_free else layout.per_sample()
    or_rows = f", or {other.weight_shape}, a row for each sample" if other else ""
    raise InputError(f"{name} has shape {shape}; {expected} is needed, {what} of this tensor{or_rows}")


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
    if not isinstance(name, str) or (known := spelled(name)) not in CONVENTIONS:
        raise InputError(f"convention {repr_of(name)} is not known; use {either(CONVENTIONS)}")
    convention = CONVENTIONS[known]
    if kind.name not in convention.eps:
        raise InputError(f"the {known} convention has no {kind.title}; it has {either(convention.eps)}")
    return convention


def _check_shape(kind: Kind, shape: Shape) -> None:
    if 0 in shape:
        raise InputError(f"the tensor has no elements (shape {shape})")
    if len(shape) < kind.least_rank:
        what = "a single number" if not shape else f"shape {shape}"
        raise InputError(f"{kind.name} needs {kind.needs}; the tensor is {what}")
    if "groups" in kind.options and len(shape) == _MOST_AXES:
        raise InputError(f"group splits the channel axis in two, and {_MOST_AXES} axes are the most that an array has")


def _check_enough_values(settled: Plan) -> None:
    if settled.source == "running":
        if settled.virtual_batch:
            raise InputError("--virtual-batch is of training: --mode eval takes the running statistics for all samples")
        return
    n = settled.layout.count
    title, shape = settled.kind.title, settled.shape
    refused = not settled.convention.one_value_per_channel
    if refused and settled.kind.has_running_stats and n == 1:
        size = "virtual batch" if settled.virtual_batch else "batch"
        product = f"{size} size x spatial size" if settled.kind.name == "batch" else "spatial size"
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
