"""The known slips: what a wrong answer usually is, as data.

A slip is a row: a key, words and formulas for people, and a small change to how the answer is
worked. ``Work`` says how: with which options, state and axes the reference is called, and by which
formula its named quantities are put together. Without a slip it gives the reference's own numbers.

Sources of the rows: the frameworks' issue trackers and the textbooks in which each was seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.result import State
from normcli.calculate import initial_state, run
from normcli.digits import short
from normcli.floats import rounded
from normcli.planning.conventions import CONVENTIONS
from normcli.planning.kinds import KINDS, layout_of
from normcli.planning.layout import Layout
from normcli.planning.plan import Plan
from normcli.teaching.printed import Printed
from normcli.teaching.tolerance import grouped, ungrouped
from normcli.words import count

Floats = NDArray[np.float64]
Quantities = Mapping[str, Floats]

STATISTICS = frozenset({"mean", "var", "mean_square", "var_unbiased", "rstd"})
NORMALIZED = frozenset({"rstd", "normalized", "output"})
RUNNING = frozenset({"running_mean", "running_var"})
EVERYTHING = STATISTICS | NORMALIZED | RUNNING


# --- working an answer ----------------------------------------------------------------------------


class Reference:
    """One tensor and the reference's statistics of it, over any axes, each worked out once."""

    def __init__(self, x: NDArray[np.floating]) -> None:
        self.x: Floats = np.asarray(x, np.float64)
        self._known: dict[tuple[Layout, bool], tuple[Floats, Floats, Floats]] = {}

    def statistics(self, settled: Plan, layout: Layout, *, centers: bool) -> tuple[Floats, Floats, Floats]:
        """Mean and biased variance, one for each group of ``layout``, and x - mean (0, mean square and x for rms)."""
        if (layout, centers) not in self._known:
            kind = KINDS["layer" if centers else "rms"]
            called = replace(
                settled, kind=kind, layout=layout, dtype="float64", mode="train", track_running_stats=False, ddof=0
            )
            result = run(self.x, called, State(), steps=True)
            mean, var = (result.mean, result.var) if centers else (np.zeros(layout.stats_shape), result.mean_square)
            centered = result.centered if centers else self.x
            self._known[layout, centers] = np.ravel(mean), np.ravel(var), np.asarray(centered)
        return self._known[layout, centers]


def root(var: Floats, eps: float) -> Floats:
    """What the centered values are divided by: sqrt(var + eps)."""
    return np.sqrt(var + eps)


def unchanged(values: Floats) -> Floats:
    """The values themselves."""
    return values


def untouched(quantities: Quantities) -> Quantities:
    """The quantities themselves."""
    return quantities


@dataclass(frozen=True, kw_only=True)
class Work:
    """How an answer is worked: the call of the reference, and the steps from its statistics on.

    The fields after ``layout`` are the right steps unless a slip replaces them.
    """

    reference: Reference
    plan: Plan
    state: State
    layout: Layout  # whose groups share one mean; the plan's own unless the axes are slipped
    centers: bool
    denominator: Callable[[Floats, float], Floats] = root
    variance: Callable[[Reference, Layout], Floats] | None = None  # in place of the reference's
    decimals: int | None = None  # of the intermediate steps, where they were rounded
    updates: int = 1  # of the running statistics, where a batch updates them
    updated_first: bool = False  # whether the updated running statistics normalize this very batch
    kept: Callable[[Floats], Floats] = unchanged  # what the running variance takes of the batch's
    finish: Callable[[Quantities], Quantities] = untouched
    note: str = ""  # the number that a slip's sentence names
    answers: Mapping[str, Printed] = field(default_factory=dict)  # from which a slip may solve for a number

    def then(self, step: Callable[[Quantities], Quantities]) -> Work:
        """The same work with one more step at the end."""
        earlier = self.finish
        return replace(self, finish=lambda quantities: step(earlier(quantities)))

    def planned(self, **changes: object) -> Work:
        """The same work under a changed plan."""
        return replace(self, plan=replace(self.plan, **changes))  # type: ignore[arg-type]

    def starting(self, **changes: object) -> Work:
        """The same work from a changed state."""
        return replace(self, state=replace(self.state, **changes))  # type: ignore[arg-type]

    def done(self) -> Worked:
        """All the quantities of this work."""
        with np.errstate(all="ignore"):  # a slip may well divide by zero
            return _worked(self)


def right(reference: Reference, settled: Plan, state: State) -> Work:
    """The work without a slip.

    >>> from normcli.planning.plan import plan
    >>> x = np.array([[1.0, 3.0]])
    >>> work = right(Reference(x), plan("layer", x.shape, "float64", {"eps": 0}), State())
    >>> work.done().quantities["output"].tolist()
    [[-1.0, 1.0]]
    """
    return Work(reference=reference, plan=settled, state=state, layout=settled.layout, centers=settled.kind.centers)


@dataclass(frozen=True, kw_only=True)
class Worked:
    """The numbers of one work. Statistics are flat, one for each group; the rest has the tensor's shape."""

    x: Floats
    plan: Plan
    layout: Layout
    centers: bool
    from_batch: bool
    divisor: int  # n - ddof
    denominator: Callable[[Floats, float], Floats]
    rstd: Floats
    spread: Floats  # the variance that normalizes, divided by n - ddof
    pull: Floats  # -2 * rstd'(var) / rstd: how strongly the variance holds the scale
    centered: Floats
    batch_layout: Layout  # of the statistics that update the running ones
    batch_centered: Floats
    weight: Floats
    bias: Floats
    normalized: Floats
    running_mean: Floats | None
    shares: tuple[float, float]  # of the old value and of the batch in the running statistics
    kept_slope: Floats | float
    quantities: Quantities = field(default_factory=dict)

    @property
    def count(self) -> int:
        """n, the number of elements in one group of statistics."""
        return self.layout.count

    @property
    def spread_rstd(self) -> Floats:
        """Each element's rstd, of the tensor's shape."""
        return _spread(self.rstd, self.layout, self.x)

    @property
    def running_divisor(self) -> float:
        """What turns the biased variance into the one that the running variance takes."""
        n = self.batch_layout.count
        return n / max(1, n - self.plan.running_ddof)

    def by_channel(self, values: Floats | float) -> Floats:
        """One number for each channel, spread over the tensor's shape."""
        return _by_channel(self.plan, values)

    def by_group(self, values: Floats | float) -> Floats:
        """One number for each channel, as one for each group of statistics of the plan."""
        return _by_group(self.plan, values)

    def per_channel(self, statistic: Floats) -> Floats:
        """The statistics of each channel's groups averaged."""
        return _per_channel(self.batch_layout, statistic)


def _worked(work: Work) -> Worked:
    settled, state, x = work.plan, work.state, work.reference.x
    weight, bias = (
        _by_channel(settled, default if values is None else np.asarray(values, np.float64))
        for values, default in ((state.weight, 1.0), (state.bias, 0.0))
    )
    from_batch = settled.source == "batch" and not work.updated_first
    layout = work.layout if from_batch else settled.layout
    mean, var, centered = _statistics(work, layout)
    batch_layout, batch_var, batch_centered = layout, var, centered
    running: dict[str, Floats] = {}
    shares = (1.0, 0.0)
    kept_slope: Floats = np.ones(())
    if settled.track_running_stats:
        if not _has_channels(layout, settled):
            batch_layout = settled.layout
        batch_mean, batch_var, batch_centered = _statistics(work, batch_layout)
        shares = _shares(work)
        taken = _per_channel(batch_layout, batch_var) * (
            batch_layout.count / max(1, batch_layout.count - settled.running_ddof)
        )
        kept_slope = _slope(work.kept, taken)
        running["running_mean"] = _mixed(state.running_mean, _per_channel(batch_layout, batch_mean), shares)
        running["running_var"] = _mixed(state.running_var, work.kept(taken), shares)
    if not from_batch:
        source = (
            (running["running_mean"], running["running_var"])
            if settled.updates_running
            else (state.running_mean, state.running_var)
        )
        mean, var = (_by_group(settled, np.asarray(values, np.float64)) for values in source)
        centered = x - _spread(mean, layout, x)
    divisor = layout.count - settled.ddof if from_batch else layout.count
    spread = var * (layout.count / divisor)
    denominator = _rounded(work, work.denominator(spread, settled.eps))
    rstd = 1 / denominator
    normalized = centered / _spread(denominator, layout, x)
    normalized = np.where((centered == 0) & (_spread(denominator, layout, x) == 0), 0.0, normalized)
    normalized = _rounded(work, normalized)
    quantities = {
        "mean": mean.reshape(layout.stats_shape),
        "var": var.reshape(layout.stats_shape),
        "mean_square": var.reshape(layout.stats_shape),
        "rstd": rstd.reshape(layout.stats_shape),
        "normalized": normalized,
        "output": normalized * weight + bias,
        **running,
    }
    if from_batch and layout.count > 1:
        quantities["var_unbiased"] = quantities["var"] * (layout.count / (layout.count - 1))
    return Worked(
        x=x,
        plan=settled,
        layout=layout,
        centers=work.centers,
        from_batch=from_batch,
        divisor=divisor,
        denominator=work.denominator,
        rstd=rstd,
        spread=spread,
        pull=2 * _slope(lambda values: work.denominator(values, settled.eps), spread, settled.eps) / denominator,
        centered=centered,
        batch_layout=batch_layout,
        batch_centered=batch_centered,
        weight=weight,
        bias=bias,
        normalized=normalized,
        running_mean=running.get("running_mean"),
        shares=shares,
        kept_slope=kept_slope,
        quantities=work.finish(quantities),
    )


def _statistics(work: Work, layout: Layout) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and centered values of the batch, as the work has them."""
    x = work.reference.x
    mean, var, centered = work.reference.statistics(work.plan, layout, centers=work.centers)
    if work.decimals is not None:
        mean = _rounded(work, mean)
        centered = _rounded(work, x - _spread(mean, layout, x))
        var = _rounded(work, grouped(centered**2, layout).mean(axis=1))
    if work.variance is not None:
        var = work.variance(work.reference, layout)
    return mean, var, centered


def _shares(work: Work) -> tuple[float, float]:
    """How much of the old value and of the batch the running statistics hold after the updates."""
    updates = work.updates if work.plan.updates_running else 0
    old = 1.0
    for earlier in range(updates):
        old *= 1 - work.plan.new_weight(work.state.num_batches_tracked + earlier)
    return old, 1 - old


def _mixed(old: NDArray[np.floating] | None, new: Floats, shares: tuple[float, float]) -> Floats:
    assert old is not None
    return shares[0] * np.asarray(old, np.float64) + (shares[1] * new if shares[1] else 0.0)


def _slope(function: Callable[[Floats], Floats], at: Floats, least: float = 0.0) -> Floats:
    """The derivative of a smooth function of positive numbers, from two values near ``at``."""
    step = 1e-5 * (at + least)
    low = np.maximum(at - step, 0)
    return (function(at + step) - function(low)) / (at + step - low)


def _rounded(work: Work, values: Floats) -> Floats:
    return values if work.decimals is None else np.round(values, work.decimals)


def _has_channels(layout: Layout, settled: Plan) -> bool:
    """Whether the groups of a layout are those of the plan's channels, whole or in parts."""
    own = settled.layout
    return layout is own or (layout.channel_axis == own.channel_axis and len(layout.channels) == len(own.channels))


def _by_channel(settled: Plan, values: Floats | float) -> Floats:
    layout = settled.layout
    shaped = values if np.ndim(values) == 0 else np.reshape(values, layout.channels_view)
    return np.broadcast_to(shaped, layout.view).reshape(settled.shape)


def _by_group(settled: Plan, values: Floats | float) -> Floats:
    layout = settled.layout
    shaped = values if np.ndim(values) == 0 else np.reshape(values, layout.channels_view)
    return np.broadcast_to(shaped, layout.stats_view).ravel()


def _per_channel(layout: Layout, statistic: Floats) -> Floats:
    others = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
    return np.ravel(statistic.reshape(layout.stats_view).mean(axis=others))


def _spread(statistic: Floats, layout: Layout, x: Floats) -> Floats:
    return ungrouped(statistic[:, None], layout, x.shape)


# --- the slips ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Slip:
    """One known slip: the words for it, and how work is changed by it.

    ``change`` gives the changed works, several where the slip has variants, none where it does not
    apply. Two slips of one ``family`` change the same thing, so they make no pair; a family of None
    makes no pair at all. ``affects`` are the quantities that can show the slip.
    """

    key: str
    gives: str  # completes "Your numbers are what ... gives"
    slipped: str  # the formula
    instead: str  # completes "{title} ..."
    right: str  # the formula
    change: Callable[[Work], Iterable[Work]]
    family: str | None
    affects: frozenset[str] = NORMALIZED
    tells: str = "more decimals or other data"  # what would show it, where two slips give the same numbers
    rare: bool = False  # ranked after the common slips, and not tried in pairs
    itself: bool = False  # whether the numbers are what ``gives`` names, not what it gives
    conventional: bool = False  # whether another framework does it so
    late: bool = False  # whether arithmetic in few bits, if that explains the answer, is no slip
    crude: bool = False  # whether it leaves so few digits that two common slips may well explain more

    def apart(self, shape: tuple[int, ...]) -> str:
        """What would show the slip to be another one; nothing where a tensor of that shape shows it already."""
        return "" if self.tells == _SIZES and len(set(shape)) == len(shape) and 1 not in shape else self.tells

    def works(self, work: Work) -> list[Work]:
        """The changed works; a layout that the shape does not allow gives none."""
        return list(self.change(work))


def _ddof(ddof: int) -> Callable[[Work], Iterator[Work]]:
    def change(work: Work) -> Iterator[Work]:
        n = work.layout.count
        if work.plan.source == "running" or work.plan.ddof == ddof or not work.plan.kind.centers or n == 1:
            return
        slipped = work.planned(ddof=ddof)
        factor = n / (n - 1) if ddof else 1.0
        reported = "var" if ddof else "var_unbiased"
        scale = factor if ddof else (n - 1) / n

        def report(quantities: Quantities) -> Quantities:
            return {**quantities, reported: quantities[reported] * scale} if reported in quantities else quantities

        def report_rstd(quantities: Quantities) -> Quantities:
            spread = quantities["var"] * (n / (n - ddof))
            return {**quantities, "rstd": 1 / work.denominator(spread, work.plan.eps)}

        yield from (slipped.then(report), slipped, work.then(report), work.then(report_rstd))

    return change


def _eps_omitted(work: Work) -> Iterator[Work]:
    if work.plan.eps:
        yield work.planned(eps=0.0)
        # Where the variance is 0, by hand it is 0 / 0.
        yield replace(work, denominator=lambda var, eps: np.where(var == 0, np.nan, np.sqrt(var)))


def _eps_other(work: Work) -> Iterator[Work]:
    known = {eps for convention in CONVENTIONS.values() for eps in convention.eps.values() if eps}
    for eps in sorted(known | {1e-4, 1e-7, 1e-8, 1e-12, 2.0**-23, 2.0**-52} | solved_eps(work), reverse=True):
        if eps != work.plan.eps:
            yield replace(work.planned(eps=eps), note=short(eps))


def _denominator(function: Callable[[Floats, float], Floats]) -> Callable[[Work], Iterator[Work]]:
    def change(work: Work) -> Iterator[Work]:
        yield replace(work, denominator=function)

    return change


def _eps_last(work: Work) -> Iterator[Work]:
    shape = work.plan.weight_shape
    weight: Floats = np.ones(shape) if work.state.weight is None else work.state.weight
    bias: Floats = np.zeros(shape) if work.state.bias is None else work.state.bias
    eps = work.plan.eps
    added = work.planned(eps=0.0).starting(bias=bias + weight * eps)
    yield added.then(lambda quantities: {**quantities, "normalized": quantities["normalized"] + eps})


def _one_pass(work: Work) -> Iterator[Work]:
    dtype: type[np.floating] = np.float16 if work.plan.dtype == "float16" else np.float32

    def squares_less_square(reference: Reference, layout: Layout) -> Floats:
        x = grouped(reference.x, layout).astype(dtype)
        return np.asarray((x * x).mean(axis=1) - x.mean(axis=1) ** 2, np.float64)

    def clipped(reference: Reference, layout: Layout) -> Floats:
        return np.maximum(squares_less_square(reference, layout), 0.0)

    if work.plan.source == "batch" and work.centers:
        yield replace(work, variance=squares_less_square)
        yield replace(work, variance=clipped)


def _rounded_steps(work: Work) -> Iterator[Work]:
    for decimals in (4, 3, 2, 1):
        rounded = replace(work, decimals=decimals, note=str(decimals))
        yield rounded
        yield replace(rounded, denominator=_reciprocal_rounded(decimals))


def _reciprocal_rounded(decimals: int) -> Callable[[Floats, float], Floats]:
    """The denominator of somebody who wrote down 1 / sqrt(var + eps), not the root."""
    return lambda var, eps: np.asarray(1 / np.round(1 / np.sqrt(var + eps), decimals))


def _not_centered(work: Work) -> Iterator[Work]:
    if work.plan.source == "batch" and work.centers:
        yield replace(work, centers=False)


def _centered(work: Work) -> Iterator[Work]:
    if not work.centers:
        yield replace(work, centers=True)


def _axes(layouts: Callable[[Work], Iterator[tuple[Layout, str]]]) -> Callable[[Work], Iterator[Work]]:
    def change(work: Work) -> Iterator[Work]:
        if work.plan.source == "batch":
            seen = {work.layout}
            for layout, note in layouts(work):
                if layout not in seen and layout.count > work.plan.ddof:
                    seen.add(layout)
                    yield replace(work, layout=layout, note=note)

    return change


def _layer_layouts(work: Work) -> Iterator[tuple[Layout, str]]:
    shape = work.plan.shape
    for kept in (1, *range(len(shape) - 1, 1, -1)):
        if kept < len(shape):
            yield layout_of("layer", shape, normalized_shape=shape[kept:]), _axes_words(range(kept, len(shape)))


def _batch_layouts(work: Work) -> Iterator[tuple[Layout, str]]:
    if len(work.plan.shape) > 1:
        for axis in _channel_axes(work):
            layout = layout_of("batch", work.plan.shape, channel_axis=axis)
            yield layout, _axes_words(layout.reported_axes)


def _instance_layouts(work: Work) -> Iterator[tuple[Layout, str]]:
    if len(work.plan.shape) > 2:
        for axis in _channel_axes_of_samples(work):
            layout = layout_of("instance", work.plan.shape, channel_axis=axis)
            yield layout, _axes_words(layout.reported_axes)


def _global_layout(work: Work) -> Iterator[tuple[Layout, str]]:
    yield layout_of("layer", work.plan.shape, normalized_shape=work.plan.shape), ""


def _group_layouts(work: Work) -> Iterator[tuple[Layout, str]]:
    shape = work.plan.shape
    if work.plan.kind.name == "group" or len(shape) < 2:
        return
    channels = shape[axis := _channel_axes_of_samples(work)[0]]
    for groups in range(2, channels):
        if channels % groups == 0:
            layout = layout_of("group", shape, channel_axis=axis, groups=groups)
            yield layout, count(groups, "group")


def _position_layout(work: Work) -> Iterator[tuple[Layout, str]]:
    shape = work.plan.shape
    if len(shape) > 2:
        rest = int(np.prod(shape[1:]))
        yield Layout(view=(shape[0], rest), axes=(0,), channels=(1,), stats_shape=(rest,), reported_axes=(0,)), ""


def _channel_last(work: Work) -> Iterator[tuple[Layout, str]]:
    settled = work.plan
    own, rank = settled.layout.channel_axis, len(settled.shape)
    if own is None or rank < 3:
        return
    for axis in (rank - 1, 1):
        if axis != own and (settled.groups is None or settled.shape[axis] % settled.groups == 0):
            yield layout_of(settled.kind.name, settled.shape, channel_axis=axis, groups=settled.groups), f"axis {axis}"


def _other_groups(work: Work) -> Iterator[tuple[Layout, str]]:
    settled = work.plan
    if settled.groups is None or settled.layout.channel_axis is None:
        return
    channels = settled.shape[settled.layout.channel_axis]
    own = settled.convention.interleaved_groups
    for groups in range(2, channels):
        for interleaved in (own, not own) if channels % groups == 0 else ():
            if groups != settled.groups and (interleaved != own or groups != channels // settled.groups):
                layout = layout_of(
                    "group",
                    settled.shape,
                    channel_axis=settled.layout.channel_axis,
                    groups=groups,
                    interleaved=interleaved,
                )
                yield layout, f"{groups} groups{', interleaved' if interleaved and not own else ''}"


def _interleaved(work: Work) -> Iterator[tuple[Layout, str]]:
    settled = work.plan
    if settled.groups is not None:
        channel_axis, other = settled.layout.channel_axis, not settled.convention.interleaved_groups
        layout = layout_of("group", settled.shape, channel_axis=channel_axis, groups=settled.groups, interleaved=other)
        yield layout, "c mod G" if other else "consecutive"


def _swapped_groups(work: Work) -> Iterator[tuple[Layout, str]]:
    settled = work.plan
    if settled.groups is not None and settled.layout.channel_axis is not None:
        swapped = settled.shape[settled.layout.channel_axis] // settled.groups
        yield (
            layout_of("group", settled.shape, channel_axis=settled.layout.channel_axis, groups=swapped),
            count(swapped, "group"),
        )


def _channel_axes(work: Work) -> list[int]:
    """The axes that may hold the channels, the likeliest first."""
    own, rank = work.plan.layout.channel_axis, len(work.plan.shape)
    return list(dict.fromkeys(axis for axis in (own, 1, rank - 1) if axis is not None))


def _channel_axes_of_samples(work: Work) -> list[int]:
    """The same where axis 0 holds the samples."""
    return [axis for axis in _channel_axes(work) if axis > 0]


def _axes_words(axes: Iterable[int]) -> str:
    listed = list(axes)
    return f"{'axis' if len(listed) == 1 else 'axes'} {', '.join(str(axis) for axis in listed)}"


def _given(values: NDArray[np.floating] | None, neutral: float) -> bool:
    return values is not None and bool((values != neutral).any())


def _weight_omitted(work: Work) -> Iterator[Work]:
    if _given(work.state.weight, 1.0):
        yield work.starting(weight=None)


def _bias_omitted(work: Work) -> Iterator[Work]:
    if _given(work.state.bias, 0.0):
        yield work.starting(bias=None)


def _affine_omitted(work: Work) -> Iterator[Work]:
    if _given(work.state.weight, 1.0) and _given(work.state.bias, 0.0):
        yield work.starting(weight=None, bias=None)


def _affine_swapped(work: Work) -> Iterator[Work]:
    weight, bias = work.state.weight, work.state.bias
    if (weight is not None or bias is not None) and "bias" in work.plan.kind.options:
        shape = work.plan.weight_shape
        yield work.starting(
            weight=np.zeros(shape) if bias is None else bias, bias=np.ones(shape) if weight is None else weight
        )


def _weight_plus_one(work: Work) -> Iterator[Work]:
    if work.state.weight is not None:
        yield work.starting(weight=work.state.weight + 1)


def _bias_inside(work: Work) -> Iterator[Work]:
    if _given(work.state.weight, 1.0) and work.state.bias is not None:
        yield work.starting(bias=work.state.bias * work.state.weight)


def _bias_subtracted(work: Work) -> Iterator[Work]:
    if _given(work.state.bias, 0.0) and work.state.bias is not None:
        yield work.starting(bias=-work.state.bias)


def _affine_before(work: Work) -> Iterator[Work]:
    if _given(work.state.weight, 1.0) or _given(work.state.bias, 0.0):
        done = work.done()
        yield replace(work.starting(weight=None, bias=None), reference=Reference(done.x * done.weight + done.bias))


def _train_for_eval(work: Work) -> Iterator[Work]:
    if work.plan.source == "running" and work.layout.count > 1:
        yield work.planned(mode="train")


def _eval_for_train(work: Work) -> Iterator[Work]:
    if work.plan.source == "batch" and work.plan.kind.has_running_stats:
        tracking = replace(work.plan, mode="eval", track_running_stats=True)
        state = work.state if work.plan.track_running_stats else replace(
            initial_state(tracking, {}), weight=work.state.weight, bias=work.state.bias
        )  # fmt: skip
        yield replace(work, plan=tracking, state=state)


def _eval_with_updated(work: Work) -> Iterator[Work]:
    if work.plan.track_running_stats and work.layout.count > 1:
        yield replace(work.planned(mode="train"), updated_first=True)


def _half_precision(work: Work) -> Iterator[Work]:
    for dtype in {"float16", "bfloat16"} - {work.plan.dtype}:
        for what, half in _HALVES.items():
            yield replace(half(work, dtype), note=f"{what} to {dtype}")


def _half_input(work: Work, dtype: str) -> Work:
    return replace(work, reference=Reference(_rounded_to(work.reference.x, dtype)))


def _half_parameters(work: Work, dtype: str) -> Work:
    given = {name: getattr(work.state, name) for name in ("weight", "bias", "running_mean", "running_var")}
    return work.starting(**{name: _rounded_to(values, dtype) for name, values in given.items() if values is not None})


def _half_output(work: Work, dtype: str) -> Work:
    return work.then(
        lambda quantities: {**quantities, **{n: _rounded_to(quantities[n], dtype) for n in ("normalized", "output")}}
    )


_HALVES: Mapping[str, Callable[[Work, str], Work]] = {
    "the input": _half_input,
    "the parameters": _half_parameters,
    "the input and the parameters": lambda work, dtype: _half_parameters(_half_input(work, dtype), dtype),
    "the output": _half_output,
    "input, parameters and output": lambda work, dtype: _half_output(
        _half_parameters(_half_input(work, dtype), dtype), dtype
    ),
}


def _rounded_to(values: NDArray[np.floating], dtype: str) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(rounded(np.asarray(values, np.float64), dtype), np.float64)


def _untouched_input(work: Work) -> Iterator[Work]:
    x = work.reference.x
    yield work.then(lambda quantities: {**quantities, "normalized": x, "output": x})


def _updating(work: Work) -> bool:
    return work.plan.updates_running


def _momentum_reversed(work: Work) -> Iterator[Work]:
    if _updating(work) and work.plan.momentum is not None:
        yield work.planned(momentum=1 - work.plan.momentum)


def _momentum_other(work: Work) -> Iterator[Work]:
    if _updating(work):
        known = {convention.momentum for convention in CONVENTIONS.values()} | {0.001}
        given = work.plan.momentum
        reversed_ = None if given is None else 1 - given  # a slip of its own
        for momentum in sorted(known | solved_momentum(work)):
            if momentum not in (given, reversed_):
                yield replace(work.planned(momentum=momentum), note=short(momentum))


def _momentum_cumulative(work: Work) -> Iterator[Work]:
    if _updating(work) and work.plan.momentum is not None and work.state.num_batches_tracked:
        yield work.planned(momentum=None)


def _running_no_old(work: Work) -> Iterator[Work]:
    if _updating(work):
        yield work.planned(momentum=1.0)


def _running_ddof(ddof: int) -> Callable[[Work], Iterator[Work]]:
    def change(work: Work) -> Iterator[Work]:
        if _updating(work) and work.plan.running_ddof != ddof and work.layout.count > 1:
            yield work.planned(running_ddof=ddof)

    return change


def _running_init_zero(work: Work) -> Iterator[Work]:
    if _updating(work) and work.state.running_var is not None:
        yield work.starting(running_var=np.zeros_like(work.state.running_var))


def _running_std(work: Work) -> Iterator[Work]:
    if _updating(work):
        yield replace(work, kept=np.sqrt)


def _updates_off(work: Work) -> Iterator[Work]:
    if _updating(work):
        yield replace(work, updates=0, note="no update")
        yield replace(work, updates=2, note="2 updates")


def _running_swapped(work: Work) -> Iterator[Work]:
    if work.plan.source == "running":
        yield work.starting(running_mean=work.state.running_var, running_var=work.state.running_mean)
    if work.plan.track_running_stats:
        yield work.then(
            lambda quantities: {
                **quantities,
                "running_mean": quantities["running_var"],
                "running_var": quantities["running_mean"],
            }
        )


def _sign_flipped(work: Work) -> Iterator[Work]:
    yield work.then(
        lambda quantities: {**quantities, "output": -quantities["output"], "normalized": -quantities["normalized"]}
    )
    if work.state.bias is not None:
        done = work.done()
        flipped = {"normalized": -done.normalized, "output": -done.normalized * done.weight + done.bias}
        yield work.then(lambda quantities: {**quantities, **flipped})


def _named(target: str, source: str, function: Callable[[Floats], Floats]) -> Callable[[Work], Iterator[Work]]:
    """One quantity written where another was asked for."""

    def change(work: Work) -> Iterator[Work]:
        if source in work.done().quantities and target in work.done().quantities:
            yield work.then(lambda quantities: {**quantities, target: function(quantities[source])})

    return change


# --- numbers that an answer tells -------------------------------------------------------------------


_LUCK = 2.0  # how unlikely it must be that a short number fits by chance, as a power of ten


def solved_eps(work: Work) -> set[float]:
    """The eps that the answer was worked with, where it is a short number that all the cells agree on.

    From |y - bias| = |centered * weight| / sqrt(var + eps), cell by cell, between the bounds that the
    printed digits leave.

    >>> from normcli.planning.plan import plan
    >>> x = np.array([[0.1, 0.2, 0.4], [0.5, 0.1, 0.3]])
    >>> work = right(Reference(x), plan("layer", x.shape, "float64", {}), State())
    >>> printed = Printed(np.array([[-0.930, -0.232, 1.162], [1.124, -1.124, 0.0]]), np.full((2, 3), 3))
    >>> solved_eps(replace(work, answers={"output": printed}))
    {0.005}
    """
    bounds = [bound for name, answer in work.answers.items() if (bound := _eps_bounds(work, name, answer)) is not None]
    if not bounds:
        return set()
    low, high = (np.concatenate(side) for side in zip(*bounds, strict=True))
    return _short_numbers(low, high, lambda middle: math.log(10) * middle)


def _eps_bounds(work: Work, name: str, answer: Printed) -> tuple[Floats, Floats] | None:
    """The least and the largest eps for each group of statistics."""
    if name not in ("output", "normalized", "rstd") or work.denominator is not root:
        return None
    worked = work.done()
    if answer.values.shape != worked.quantities[name].shape:
        return None
    yours, off = np.abs(answer.values), _off(answer)
    spread = (worked.quantities["mean_square" if not worked.centers else "var"]).ravel()
    spread = spread * (worked.count / worked.divisor)
    with np.errstate(all="ignore"):
        if name == "rstd":
            low, high = (1 / (yours + sign * off).ravel() ** 2 - spread for sign in (1, -1))
        else:
            weight, bias = (worked.weight, worked.bias) if name == "output" else (1.0, 0.0)
            size, off = np.abs((answer.values - bias) / weight), off / np.abs(weight)
            low, high = (
                (grouped(np.abs(worked.centered) / np.maximum(size + sign * off, 0), worked.layout)) ** 2
                - spread[:, None]
                for sign in (1, -1)
            )
            low, high = np.fmax.reduce(low, axis=1), np.fmin.reduce(high, axis=1)
    return low, high


def solved_momentum(work: Work) -> set[float]:
    """The momentum that the answer was worked with, where it or 1 minus it is a short number.

    From running = old + momentum * (batch - old), channel by channel.
    """
    if not _updating(work) or work.plan.momentum is None:
        return set()
    batch = work.planned(momentum=1.0).done().quantities
    lows, highs = [], []
    for name in ("running_mean", "running_var"):
        answer = work.answers.get(name)
        old = getattr(work.state, name)
        if answer is not None and old is not None and answer.values.shape == batch[name].shape:
            with np.errstate(all="ignore"):
                ends = [(answer.values + sign * _off(answer) - old) / (batch[name] - old) for sign in (-1, 1)]
            lows.append(np.fmin(*ends))
            highs.append(np.fmax(*ends))
    if not lows:
        return set()
    low, high = np.concatenate(lows), np.concatenate(highs)
    found = _short_numbers(low, high, lambda middle: 1.0) or {
        float(f"{1 - old:.12g}") for old in _short_numbers(1 - high, 1 - low, lambda middle: 1.0)
    }
    return {momentum for momentum in found if 0 <= momentum <= 1}


def _off(answer: Printed) -> Floats:
    """How far the printed numbers may be off: half a unit of the last digit, and a little arithmetic."""
    readings = answer.readings("float64")
    reading = next((one for one in readings if one.dtype == "float32"), readings[0])
    return reading.allowed(8 * reading.half_steps)


def _short_numbers(low: Floats, high: Floats, span: Callable[[float], float]) -> set[float]:
    """The shortest positive number between all the bounds, if no chance has put it there.

    ``span`` is the width from which such numbers are drawn.
    """
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any() or not (last := float(high[known].min())) > 0:
        return set()
    first = max(float(low[known].max()), 0.0)
    middle = (first + last) / 2
    if first > last:
        return set()
    widths = np.minimum((high[known] - low[known]) / span(middle), 1.0)
    with np.errstate(divide="ignore"):
        luck = float(-np.log10(np.maximum(widths, 1e-6)).sum())
    for digits, many in ((1, 9), (2, 90)):
        number = float(f"{middle:.{digits - 1}e}")
        power = 10.0 ** round(math.log10(middle))
        if first <= power <= last and luck >= _LUCK:
            return {power}
        if first <= number <= last and luck - math.log10(many) >= _LUCK:
            return {number}
    return set()


_RSTD = "1 / sqrt(var + eps)"
_NORMALIZED = "(x - mean) / sqrt(var + eps)"
_OUTPUT = "normalized * weight + bias"
_UPDATE = "(1 - m) * old + m * batch"
_AXES = "takes one mean over its own axes"
_SIZES = "a tensor whose axes all differ in length"
_VARIANCE = "a smaller variance, or more decimals"
_WEIGHT = "a weight that is not 1 and a bias that is not 0"

SLIPS: tuple[Slip, ...] = (
    Slip(key="ddof1", gives="the unbiased variance", slipped="sum(centered^2) / (n - 1)",
         instead="normalizes with the biased one", right="sum(centered^2) / n",
         change=_ddof(1), family="divisor", affects=NORMALIZED | {"var"}, tells="a smaller n"),
    Slip(key="ddof0", gives="the biased variance", slipped="sum(centered^2) / n",
         instead="was asked for the unbiased one", right="sum(centered^2) / (n - 1)",
         change=_ddof(0), family="divisor", affects=NORMALIZED | {"var_unbiased"}, tells="a smaller n"),
    Slip(key="eps_omitted", gives="leaving eps out", slipped="1 / sqrt(var)",
         instead="adds eps to the variance", right=_RSTD, change=_eps_omitted, family="eps", tells=_VARIANCE),
    Slip(key="eps_outside", gives="eps outside the root", slipped="1 / (sqrt(var) + eps)",
         instead="adds eps to the variance, inside the root", right=_RSTD,
         change=_denominator(lambda var, eps: np.sqrt(var) + eps), family="eps", tells=_VARIANCE),
    Slip(key="eps_other", gives="another eps, {note},", slipped="1 / sqrt(var + another eps)",
         instead="has eps {eps} here", right="1 / sqrt(var + {eps})", change=_eps_other, family="eps", tells=_VARIANCE),
    Slip(key="eps_floor", gives="eps as the least variance", slipped="1 / sqrt(max(var, eps))",
         instead="adds eps to every variance", right=_RSTD,
         change=_denominator(lambda var, eps: np.sqrt(np.maximum(var, eps))), family="eps", tells=_VARIANCE, rare=True),
    Slip(key="eps_squared", gives="eps squared", slipped="1 / sqrt(var + eps^2)", instead="adds eps itself",
         right=_RSTD,
         change=_denominator(lambda var, eps: np.sqrt(var + eps * eps)), family="eps", tells=_VARIANCE, rare=True),
    Slip(key="eps_last", gives="eps added after the division", slipped="centered / sqrt(var) + eps",
         instead="adds eps to the variance", right=_NORMALIZED, change=_eps_last, family="eps",
         affects=frozenset({"normalized", "output"}), tells=_VARIANCE, rare=True),
    Slip(key="var_not_std", gives="dividing by the variance, not by its root,", slipped="centered / (var + eps)",
         instead="divides by the root", right="centered / sqrt(var + eps)",
         change=_denominator(lambda var, eps: var + eps), family="eps", tells="a variance far from 1"),
    Slip(key="sqrt_of_std", gives="the root taken twice", slipped="centered / sqrt(std + eps)",
         instead="takes it once", right="centered / sqrt(var + eps)",
         change=_denominator(lambda var, eps: np.sqrt(np.sqrt(var) + eps)), family="eps",
         tells="a variance far from 1", rare=True),
    Slip(key="only_centered", gives="subtracting the mean, and no more,", slipped="x - mean",
         instead="divides by the root of the variance too", right=_NORMALIZED,
         change=_denominator(lambda var, eps: np.ones_like(var)), family="eps", tells="a variance far from 1"),
    Slip(key="rms_not_centered", gives="leaving the mean in, as RMSNorm does,", slipped="x / sqrt(mean(x^2) + eps)",
         instead="subtracts the mean first", right=_NORMALIZED, change=_not_centered, family="center",
         affects=NORMALIZED | {"var", "mean_square"}, tells="a mean far from 0"),
    Slip(key="centered_not_rms", gives="subtracting the mean, as LayerNorm does,", slipped=_NORMALIZED,
         instead="subtracts no mean", right="x / sqrt(mean(x^2) + eps)", change=_centered, family="center",
         affects=NORMALIZED | {"mean_square"}, tells="a mean far from 0"),
    Slip(key="axes_layer", gives="one mean for each sample, over {note},", slipped="mean over {note}",
         instead=_AXES, right="mean over {axes}", change=_axes(_layer_layouts), family="axes",
         affects=EVERYTHING, tells=_SIZES),
    Slip(key="axes_batch", gives="one mean for each channel, over {note},", slipped="mean over {note}",
         instead=_AXES, right="mean over {axes}", change=_axes(_batch_layouts), family="axes",
         affects=EVERYTHING, tells=_SIZES),
    Slip(key="axes_instance", gives="one mean for each sample and channel, over {note},", slipped="mean over {note}",
         instead=_AXES, right="mean over {axes}", change=_axes(_instance_layouts), family="axes",
         affects=EVERYTHING, tells=_SIZES),
    Slip(key="axes_group", gives="one mean for each sample and group, {note},", slipped="mean over a group of channels",
         instead=_AXES, right="mean over {axes}", change=_axes(_group_layouts), family="axes",
         affects=EVERYTHING, tells=_SIZES),
    Slip(key="axes_global", gives="one mean for the whole tensor", slipped="mean over all axes",
         instead=_AXES, right="mean over {axes}", change=_axes(_global_layout), family="axes",
         affects=EVERYTHING, tells="more than one sample"),
    Slip(key="axes_per_position", gives="one mean for each position, over the samples alone,",
         slipped="mean over axis 0",
         instead=_AXES, right="mean over {axes}", change=_axes(_position_layout), family="axes",
         affects=EVERYTHING, tells=_SIZES, rare=True),
    Slip(key="channel_last", gives="taking {note} for that of the channels", slipped="channels on {note}",
         instead="was told that they are on {channel}", right="channels on {channel}",
         change=_axes(_channel_last), family="axes", affects=EVERYTHING, tells=_SIZES),
    Slip(key="group_interleaved", gives="dealing the channels to the groups the other way, {note},", slipped="{note}",
         instead="takes them the one way", right="{grouping}", conventional=True,
         change=_axes(_interleaved), family="axes", affects=EVERYTHING, tells="more channels in each group"),
    Slip(key="groups_other", gives="another number of groups, {note},", slipped="{note}",
         instead="splits the channels as it is told", right="{groups}",
         change=_axes(_other_groups), family="axes", affects=EVERYTHING, tells=_SIZES, rare=True),
    Slip(key="groups_swapped", gives="taking the number of groups for that of channels per group",
         slipped="{note}", instead="splits the channels as it is told", right="{groups}",
         change=_axes(_swapped_groups), family="axes", affects=EVERYTHING, tells=_SIZES),
    Slip(key="weight_omitted", gives="leaving the weight out", slipped="normalized + bias",
         instead="multiplies by it", right=_OUTPUT, change=_weight_omitted, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="bias_omitted", gives="leaving the bias out", slipped="normalized * weight",
         instead="adds it", right=_OUTPUT, change=_bias_omitted, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="affine_omitted", gives="leaving weight and bias out", slipped="normalized",
         instead="multiplies by the one and adds the other", right=_OUTPUT, change=_affine_omitted, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="affine_swapped", gives="exchanging weight and bias", slipped="normalized * bias + weight",
         instead="multiplies by the weight and adds the bias", right=_OUTPUT, change=_affine_swapped, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="weight_plus_one", gives="adding 1 to the weight, as Gemma does,",
         slipped="normalized * (1 + weight) + bias",
         instead="multiplies by the weight itself", right=_OUTPUT, change=_weight_plus_one, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="bias_inside", gives="adding the bias before the weight multiplies",
         slipped="(normalized + bias) * weight",
         instead="adds it afterwards", right=_OUTPUT, change=_bias_inside, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="bias_subtracted", gives="subtracting the bias", slipped="normalized * weight - bias",
         instead="adds it", right=_OUTPUT, change=_bias_subtracted, family="affine",
         affects=frozenset({"output"}), tells=_WEIGHT, rare=True),
    Slip(key="affine_before", gives="applying weight and bias to the input", slipped="normalize(x * weight + bias)",
         instead="applies them to the normalized values", right=_OUTPUT, change=_affine_before, family="affine",
         affects=EVERYTHING, tells=_WEIGHT, rare=True),
    Slip(key="train_for_eval", gives="taking the statistics of this batch, as in training,",
         slipped="(x - mean) / sqrt(var + eps)",
         instead="in eval mode takes the running ones", right="(x - running_mean) / sqrt(running_var + eps)",
         change=_train_for_eval, family="mode", affects=EVERYTHING, tells="running statistics far from the batch's"),
    Slip(key="eval_for_train", gives="taking the running statistics, as in eval mode,",
         slipped="(x - running_mean) / sqrt(running_var + eps)",
         instead="here takes those of the batch", right=_NORMALIZED,
         change=_eval_for_train, family="mode", affects=EVERYTHING, tells="running statistics far from the batch's"),
    Slip(key="eval_with_updated", gives="taking the running statistics just updated with this batch",
         slipped="(x - running_mean) / sqrt(running_var + eps), after the update",
         instead="does not normalize a batch with what that batch has updated", right="{source}",
         change=_eval_with_updated, family="mode", affects=EVERYTHING, tells="another momentum"),
    Slip(key="momentum_reversed", gives="momentum as the weight of the old value", slipped="m * old + (1 - m) * batch",
         instead="gives it to the new batch", right=_UPDATE, change=_momentum_reversed, family="momentum",
         affects=RUNNING | NORMALIZED, tells="a momentum far from 0.5"),
    Slip(key="running_var_biased", gives="the biased variance in the running one", slipped="(1 - m) * old + m * var",
         instead="takes the unbiased one there", right="(1 - m) * old + m * var*n/(n-1)", conventional=True,
         change=_running_ddof(0), family="running_divisor", affects=RUNNING | NORMALIZED, tells="a smaller n"),
    Slip(key="running_var_unbiased", gives="the unbiased variance in the running one",
         slipped="(1 - m) * old + m * var*n/(n-1)", instead="takes the biased one there",
         right="(1 - m) * old + m * var", conventional=True,
         change=_running_ddof(1), family="running_divisor", affects=RUNNING | NORMALIZED, tells="a smaller n"),
    Slip(key="running_var_init_zero", gives="a running variance that starts from 0", slipped="(1 - m) * 0 + m * batch",
         instead="starts from the variance given, or 1", right=_UPDATE,
         change=_running_init_zero, family="initial", affects=RUNNING | NORMALIZED, tells="several batches"),
    Slip(key="running_std", gives="the standard deviation in the running variance",
         slipped="(1 - m) * old + m * sqrt(var)",
         instead="keeps the variance", right=_UPDATE, change=_running_std, family="kept",
         affects=RUNNING | NORMALIZED, tells="a variance far from 1"),
    Slip(key="running_no_old", gives="taking the batch's values alone", slipped="batch",
         instead="mixes them with the old ones", right=_UPDATE, change=_running_no_old, family="momentum",
         affects=RUNNING | NORMALIZED, tells="old values far from the batch's"),
    Slip(key="updates_off_by_one", gives="making {note} of the running statistics", slipped="{note}",
         instead="updates them once for each batch", right=_UPDATE, change=_updates_off, family="updates",
         affects=RUNNING, tells="another momentum"),
    Slip(key="running_swapped", gives="exchanging running mean and variance",
         slipped="(x - running_var) / sqrt(running_mean + eps)",
         instead="subtracts the mean and divides by the root of the variance",
         right="(x - running_mean) / sqrt(running_var + eps)", change=_running_swapped, family="swap",
         affects=RUNNING | NORMALIZED, tells="a variance far from the mean"),
    Slip(key="momentum_cumulative", gives="the cumulative average", slipped="old + (batch - old) / (k + 1)",
         instead="has momentum {momentum} here", right=_UPDATE, change=_momentum_cumulative, family="momentum",
         affects=RUNNING, tells="another number of batches"),
    Slip(key="momentum_other", gives="another momentum, {note},", slipped="(1 - m) * old + m * batch, with another m",
         instead="has momentum {momentum} here", right=_UPDATE, change=_momentum_other, family="momentum",
         affects=RUNNING, tells="old values far from the batch's", rare=True),
    Slip(key="sign_flipped", gives="flipping the sign", slipped="(mean - x) / sqrt(var + eps)",
         instead="subtracts the mean from x", right=_NORMALIZED, change=_sign_flipped, family="sign",
         affects=frozenset({"normalized", "output"}), tells="values that are not symmetric about the mean"),
    Slip(key="std_for_var", gives="the standard deviation in place of the variance",
         slipped="sqrt(sum(centered^2) / n)",
         instead="has the variance itself there", right="sum(centered^2) / n", change=_named("var", "var", np.sqrt),
         family=None, affects=frozenset({"var"}), tells="a variance far from 1"),
    Slip(key="std_for_rstd", gives="the standard deviation in place of its reciprocal", slipped="sqrt(var + eps)",
         instead="multiplies by the reciprocal", right=_RSTD, change=_named("rstd", "rstd", np.reciprocal),
         family=None, affects=frozenset({"rstd"}), tells="a variance far from 1"),
    Slip(key="untouched", gives="the input itself", slipped="x", itself=True,
         instead="subtracts the mean and divides by the root of the variance", right=_NORMALIZED,
         change=_untouched_input, family=None, affects=frozenset({"normalized", "output"}),
         tells="an input that is not normalized already"),
    Slip(key="half_precision", gives="rounding {note}", slipped="16 bits on the way",
         instead="is worked out here without rounding on the way", right="full precision until the end",
         change=_half_precision, family=None, affects=EVERYTHING, tells="more decimals", rare=True, late=True),
    Slip(key="one_pass", gives="the variance in one pass, in low precision,", slipped="mean(x^2) - mean(x)^2",
         instead="sums the squares of the centered values", right="sum(centered^2) / n", change=_one_pass,
         family=None, affects=NORMALIZED | {"var", "var_unbiased", "running_var"}, tells="a mean far from 0"),
    Slip(key="rounded_steps", gives="rounding the intermediate steps to {note} decimals",
         slipped="each step rounded to {note} decimals",
         instead="rounds only the last", right="full precision until the end", change=_rounded_steps, crude=True,
         family=None, affects=STATISTICS | NORMALIZED, tells="more decimals in the intermediate steps"),
)  # fmt: skip

KEYS: Mapping[str, Slip] = {slip.key: slip for slip in SLIPS}


def pairs(expected: frozenset[str]) -> Iterator[tuple[Slip, Slip]]:
    """Two slips at a time, of different families, both of which the expected quantities can show."""
    shown = [slip for slip in SLIPS if slip.family and not slip.rare and slip.affects & expected]
    yield from ((a, b) for a, b in combinations(shown, 2) if a.family != b.family)


def formatted(text: str, note: str, settled: Plan) -> str:
    """A slip's words with the numbers of this calculation filled in.

    >>> from normcli.planning.plan import plan
    >>> formatted("{title} has eps {eps}, not {note}", "0.001", plan("layer", (1, 4), "float64", {}))
    'LayerNorm has eps 1e-05, not 0.001'
    """
    channel = settled.layout.channel_axis
    return text.format(
        title=settled.kind.title,
        note=note,
        eps=short(settled.eps),
        axes=_axes_words(settled.layout.reported_axes) if settled.layout.reported_axes else "nothing",
        channel="no axis" if channel is None else f"axis {channel}",
        groups=count(settled.groups or 1, "group"),
        grouping="c mod G" if settled.convention.interleaved_groups else "consecutive",
        momentum="none" if settled.momentum is None else short(settled.momentum),
        source="(x - running_mean) / sqrt(running_var + eps)" if settled.source == "running" else _NORMALIZED,
    )
