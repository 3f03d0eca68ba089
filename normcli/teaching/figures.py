"""The numbers that a work gives, line by line, and what a tolerance asks of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.numbers import FLOATS, Float
from normcli.formula.language import Call, Line, Name, Node
from normcli.planning.kinds import PARAMETERS, RANK
from normcli.planning.layout import rows
from normcli.teaching.program import REPORTED, UPDATES, Step, names_of
from normcli.teaching.sheet import Array, Found, grouped, ungrouped
from normcli.teaching.work import STARTS, Change, Work, round_to

_ZERO, _ONE = Float(np.float64(0)), Float(np.float64(1))
_OF_RANK: Mapping[str, Callable[[Array, tuple[int, ...]], Any]] = {
    "rank_n": lambda x, axes: np.float64(math.prod(x.shape[axis] for axis in axes)),
    "rank_mean": lambda x, axes: x.mean(axes, keepdims=True),
    "rank_var": lambda x, axes: x.var(axes, keepdims=True),
}


class Figures:
    """The numbers of one work: ``worked[name]`` in a Result's shapes, the properties in groups of statistics.

    There a statistic has shape (groups, 1), what belongs to an element (groups, n), and what belongs to a
    channel (channels, 1), but that gradients of parameters are spread over the elements. ``exact`` are
    quantities that are known better.
    """

    def __init__(self, work: Work, exact: Mapping[str, Array] | None = None) -> None:
        assert work.program is not None
        self.work, self.sheet, self.plan = work, work.sheet, work.plan
        self.from_batch, self.program = work.from_batch, work.program
        self.layout = work.layout if self.from_batch else work.plan.layout
        self.batch_layout = self.layout if work.has_channels else work.plan.layout
        self.names = self.program.last.keys() | frozenset(STARTS if self.plan.track_running_stats else ())
        self._exact = exact or {}
        self._shaped: dict[str, Array] = dict(self._exact)
        self._values: dict[str, Float] = {}
        self.count = n = self.layout.count
        self.divisor = n - self.plan.ddof if self.from_batch else n
        self.groups = self.sheet.x.size // self.count
        self.x = self.sheet.grouped(self.sheet.x, self.layout).hi
        changed: frozenset[Line] = frozenset()
        if work.made.numbers and (plain := replace(work, made=Change()).program):
            changed = frozenset(self.program.lines) - set(plain.lines)
        steps = self.program.read(frozenset(work.answers), changed, is_rounded=work.made.decimals is not None)
        with np.errstate(all="ignore"):  # a slip may well divide by zero
            for step in steps:
                if step.tree is not None:
                    layout = self.batch_layout if step.of_channels else self.layout
                    found = self.sheet.exact(step.key, step.tree, layout)
                else:
                    found = self._line(step, low=step.line in changed)
                self._values[step.line.name] = self._rounded(step.line, found)
        self.centered = self.value("centered") if "centered" in self._values else self.x
        self.normalized = self.value("normalized")
        self._scale = self._values.get("rstd") or self._tree(self.program.scale, {})
        self.rstd = self._by_groups(self._scale.hi)
        self.spread = self._by_groups(self.value(self.program.variance))  # the variance under the root

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Array:
        """A quantity as it is written down, in its Result's shape."""
        if name not in self._shaped:
            value = self._written(name)
            self._shaped[name] = self.sheet.once((value, name, id(self.layout)), lambda: self.shaped(name, value.hi))
            if name in self.work.made.dtypes and name not in STARTS:  # which are given
                self._shaped[name] = round_to(self._shaped[name], self.work.made.dtypes[name])
        return self._shaped[name]

    def written(self, name: str) -> Array:
        """A quantity as it is written down, in groups of statistics."""
        if name not in self._exact:
            return self._written(name).hi
        values = self._exact[name]
        if name in PARAMETERS:
            return self.sheet.grouped(values, self.layout, self.plan.layout).hi
        return grouped(values, self.layout) if name in self.program.elementwise else values.reshape(-1, 1)

    def _written(self, name: str) -> Float:
        return self._values.get(REPORTED + name, self._values.get(name)) or self.given(name, channels=True)

    def shaped(self, name: str, values: Array) -> Array:
        """Values of a quantity, or of how far it may be off, in its Result's shape."""
        if name in UPDATES:
            return np.broadcast_to(values, (*self.plan.weight_shape, 1)).reshape(self.plan.weight_shape)
        if name in PARAMETERS:
            own = self.plan.layout
            spread = ungrouped(values, self.layout, self.plan.shape).reshape(own.view)
            first = tuple(slice(None) if axis in own.channels else 0 for axis in range(spread.ndim))
            return spread[first].reshape(self.plan.weight_shape)
        if name in self.program.elementwise:
            return ungrouped(values, self.layout, self.plan.shape)
        return self._by_groups(values).reshape(self.layout.stats_shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a quantity."""
        if name in UPDATES or name in PARAMETERS:
            return self.plan.weight_shape
        return self.plan.shape if name in self.program.elementwise else self.layout.stats_shape

    def _by_groups(self, values: Array) -> Array:
        """A statistic with one number for each group also where a slip has made it one for all."""
        return values if np.shape(values) == (self.groups, 1) else np.broadcast_to(values, (self.groups, 1))

    def value(self, name: str) -> Array:
        """What the lines give for a name, before anything else is written down for it."""
        return self._values[name].hi

    # --- the lines ------------------------------------------------------------------------------------

    def _line(self, step: Step, *, low: bool) -> Float:
        channels, node = step.of_channels, step.line.value
        given = [self.given(name, channels=channels) for name in step.names]
        if low and "x" in step.names:
            lower = "float16" if self.plan.dtype == "float16" else self.work.made.numbers
            x = Float(self.x.astype(lower))
            given = [x if name == "x" else value for name, value in zip(step.names, given, strict=True)]
        return self.sheet.once(
            (step.key, *given), lambda: self._worked(node, dict(zip(step.names, given, strict=True)))
        )

    def _worked(self, node: Node, named: Mapping[str, Float]) -> Float:
        def value_of(part: Name | Call) -> Float:
            if isinstance(part, Name):
                return named[part.name]
            inner = worked_out(part.parts[0], FLOATS, value_of)
            if part.axes == "samples":
                return Float(self._over_samples(inner.hi))
            if part.axes == "rest":
                return Float(self.over_rest(inner.hi, np.mean if part.function == "mean" else np.sum))
            reduce = np.mean if part.function == "mean" else np.sum
            return Float(reduce(inner.hi, axis=1, keepdims=True))  # of few bits the mean is rounded to them

        found: Float = worked_out(node, FLOATS, value_of)
        return found

    def _over_samples(self, values: Array) -> Array:
        layout, columns = self.batch_layout, np.atleast_1d(values).shape[-1]
        others = tuple(axis for axis in range(len(layout.view)) if axis not in layout.channels)
        whole = np.broadcast_to(values, (self.sheet.x.size // layout.count, columns))
        sums: Array = whole.reshape(*layout.stats_view, columns).sum(axis=others)
        return sums.reshape(-1, columns)

    def over_rest(self, values: Array, reduce: Callable[..., Array] = np.sum) -> Array:
        """A sum over all that weight lacks, spread over the elements again."""
        own, shape = self.plan.layout, self.plan.shape
        whole = ungrouped(values, self.layout, shape).reshape(own.view)
        rest = tuple(axis for axis in range(whole.ndim) if axis not in own.channels)
        spread = np.broadcast_to(reduce(whole, axis=rest, keepdims=True), own.view)
        return grouped(spread.reshape(shape), self.layout)

    def _rounded(self, line: Line, value: Float) -> Float:
        decimals = self.work.made.decimals
        if decimals is None or line.role != "shown" or line.name == "output" or isinstance(line.value, Name):
            return value
        return Float(np.round(value.hi, decimals))

    def given(self, name: str, *, channels: bool) -> Float:
        """The value of a name for a line of the groups of statistics, or for one of the channels."""
        if (value := self._values.get(name)) is not None:
            if channels:
                return value if name in UPDATES else self.updating._values[name]
            return self._in_groups(value) if name in UPDATES else value
        sheet, state, layout = self.sheet, self.work.state, self.batch_layout if channels else self.layout
        if name == "x":
            return sheet.grouped(sheet.x, layout)
        if name in ("weight", "bias"):
            values = getattr(state, name)
            if values is None:
                values = sheet.once(name, lambda: np.full(self.plan.weight_shape, self.plan.neutral[name]))
            return sheet.grouped(values, layout, self.plan.layout)
        if name == "grad_output":
            assert self.work.grad_output is not None
            return sheet.grouped(self.work.grad_output, self.layout)
        if name in STARTS:
            values = getattr(state, name)
            _, old = sheet.once(id(values), lambda: (values, Float(np.asarray(values, np.float64).reshape(-1, 1))))
            return old if channels else self._in_groups(old)
        if name in RANK:
            return sheet.grouped(self._of_ranks(name), layout)
        number = self._number(name, layout.count)
        return sheet.once(("number", number), lambda: Float(np.float64(number)))

    def _of_ranks(self, name: str) -> Array:
        """What the rank of each element has by itself."""
        x, own, axes = self.sheet.x, _OF_RANK[name], self.plan.layout.reported_axes
        ranks = rows(self.plan.ranks or ())
        return self.sheet.once(
            name, lambda: np.concatenate([np.broadcast_to(own(x[at], axes), x[at].shape) for at in ranks])
        )

    def _number(self, name: str, n: int) -> float:
        match name:
            case "n":
                return n
            case "eps":
                return self.plan.eps
            case "m":
                return self.plan.momentum or 0.0
            case "k":
                return self.work.state.num_batches_tracked
            case "ranks":
                return len(self.plan.ranks or ())
            case "batch_size":
                return self.plan.shape[0]
        return self.sheet.x.size // n // math.prod(self.plan.weight_shape)  # N

    @cached_property
    def updating(self) -> Figures:
        """The same over the axes whose statistics update the running ones."""
        return self if self.batch_layout is self.layout else Figures(replace(self.work, layout=self.plan.layout))

    def _in_groups(self, value: Float) -> Float:
        return self.sheet.once((value, "groups"), lambda: Float(self.by_group(value.hi)))

    def by_group(self, values: Array) -> Array:
        """One number for each channel, as one for each group of statistics of the plan."""
        own = self.plan.layout
        values = np.broadcast_to(values, (*self.plan.weight_shape, 1)).reshape(own.channels_view)
        return np.broadcast_to(values, own.stats_view).reshape(-1, 1)

    # --- what the tolerance asks of them --------------------------------------------------------------

    def grouped(self, values: Array | float) -> Array:
        """An array of the tensor's shape, or one number for all, in groups of statistics."""
        if not isinstance(values, np.ndarray):
            number = values
            values = self.sheet.once(("all", number), lambda: np.full(self.plan.shape, number))
        return self.sheet.grouped(values, self.layout).hi

    def shared(self, what: str, off: Array, function: Callable[[], Found]) -> Found:
        """What depends on ``off`` and on these statistics alone, worked out once for all that have them."""
        key = what, id(off), self._scale, self._values.get("centered"), self.divisor
        return self.sheet.once(key, lambda: (off, function()))[1]

    def denominator(self, spread: Array) -> Array:
        """What the centered values are divided by, for another variance."""
        return self._by_groups(self._tree(self.program.root, {self.program.variance: Float(spread)}).hi)

    @cached_property
    def pull(self) -> Array:
        """-2 * rstd'(var) / rstd: how strongly the variance holds the scale."""
        key = (self._scale, self._values[self.program.variance], "pull")
        return self.sheet.once(key, lambda: 2 * self._slope() / self.denominator(self.spread))

    def _slope(self) -> Array:
        """The derivative of the denominator, from two values near the variance."""
        at = self.spread
        step = 1e-5 * (at + self.plan.eps)
        low = np.maximum(at - step, 0)
        return (self.denominator(at + step) - self.denominator(low)) / (at + step - low)

    def largest(self, values: Array) -> float:
        """The largest size of numbers."""
        return self.sheet.once(("largest", id(values)), lambda: (values, float(np.abs(values).max())))[1]

    @property
    def weight(self) -> Array:
        """By what the output multiplies the normalized values."""
        return self._output({"normalized": _ONE, "bias": _ZERO, "d": _ZERO})

    @property
    def flow(self) -> Array:
        """The gradient of the output."""
        return self.given("grad_output", channels=False).hi

    @property
    def grad_normalized(self) -> Array:
        """The gradient of the normalized values."""
        return self.value("grad_normalized") if "grad_normalized" in self._values else self.flow

    @property
    def bias(self) -> Array:
        """What the output adds."""
        return self._output({"normalized": _ZERO})

    def _output(self, instead: Mapping[str, Float]) -> Array:
        return self._tree(self.program.last["output"], instead).hi

    def _tree(self, tree: Node, instead: Mapping[str, Float]) -> Float:
        """What an expression gives, with other values in the place of some."""
        named = {name: instead.get(name) or self.given(name, channels=False) for name in names_of(tree)}
        return self.sheet.once((tree, *named.values()), lambda: self._worked(tree, named))

    @cached_property
    def shares(self) -> tuple[Array, Array, Array]:
        """How much the running statistics take of the old ones, of the batch's mean and of its biased variance."""
        step, lines = 1e-5, self.program.updates  # in columns: the old is 1, the mean is 1, the variance less and more
        named = {name: self.given(name, channels=True) for line in lines for name in names_of(line.value)}
        for name in named.keys() & {"var", "var_unbiased"}:
            named[name] = Float(named[name].hi * np.array([0, 0, 1 - step, 1 + step]))
        named |= {"mean": Float(np.array([[0.0, 1, 0, 0]]))} | dict.fromkeys(STARTS, Float(np.array([[1.0, 0, 0, 0]])))
        for line in lines:
            named[line.name] = self._worked(line.value, named)
        mean, var = (np.broadcast_to(named[name].hi, (*self.plan.weight_shape, 4)) for name in STARTS)
        slope = (var[:, 3:] - var[:, 2:3]) / (2 * step * self.per_channel(self.given("var", channels=True).hi))
        return mean[:, :1], mean[:, 1:2], slope

    def per_channel(self, statistic: Array) -> Array:
        """The statistics of each channel's groups averaged."""
        return self._over_samples(statistic) / self._number("N", self.batch_layout.count)

    def by_channel(self, values: Array | float) -> Array | float:
        """One number for each channel, spread over the elements."""
        if np.ndim(values) == 0:
            return values
        return self.sheet.grouped(np.asarray(values), self.layout, self.plan.layout).hi
