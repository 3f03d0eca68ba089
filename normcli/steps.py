"""The calculation of one group of statistics, step by step, as a person would write it down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.digits import computed, factor, short, written
from normcli.errors import InputError, count
from normcli.plan import Plan, number_of
from normcli.result import Result

_SHOWN = 8  # terms of a long sum that are written out when no element was asked for
_MOST = 1000  # terms that are written out for an element


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of a trace; ``step`` is a field name of Result, ``value`` a number or one for each element."""

    step: str
    formula: str
    substituted: str
    value: float | list[float]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The steps of one group of statistics, and which group (or element) they belong to."""

    title: str
    steps: list[Step]


def trace(
    result: Result, x: NDArray[Any], element: tuple[int, ...] | None = None, precision: int = 4, *, full: bool = False
) -> Trace:
    """The steps that lead to ``element``, or to the first group of statistics; in ``full`` with every term.

    The Result must have been computed with its steps. Raises InputError for an element that the
    tensor does not have.

    >>> from normcli.calculate import normalize
    >>> x = np.array([[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])
    >>> trace(normalize(x, "batch", steps=True), x, (1, 0)).steps[0]
    Step(step='mean', formula='sum(x) / n', substituted='(1 + 6 + 2) / 3', value=3.0)
    """
    if element is not None:
        element = _counted_from_start(element, result.plan)
    group = _Group(result, x, element)
    most = group.plan.layout.count if full else _SHOWN if element is None else _MOST
    writer = _Writer(precision, most=most)
    statistics = _centered_statistics if result.plan.kind.centers else _mean_square
    steps = [*statistics(group, writer), *_output(group, writer)]
    if result.plan.updates_running:
        steps += _running(group, writer)
    return Trace(title=group.title, steps=steps)


class _Group:
    """The numbers of one group of statistics, and which of its elements are traced."""

    def __init__(self, result: Result, x: NDArray[Any], element: tuple[int, ...] | None) -> None:
        self.result, self.plan, layout = result, result.plan, result.plan.layout
        flat = 0 if element is None else number_of(element, self.plan.shape)
        at = np.unravel_index(flat, layout.view)
        averaged = [axis in layout.axes for axis in range(len(layout.view))]
        self._region = tuple(slice(None) if inside else int(i) for i, inside in zip(at, averaged, strict=True))
        base = [0 if inside else int(i) for i, inside in zip(at, averaged, strict=True)]
        self._place = np.unravel_index(np.ravel_multi_index(base, layout.stats_view), layout.stats_shape or (1,))
        sizes = [layout.view[axis] for axis in layout.axes]
        picked = int(np.ravel_multi_index([at[axis] for axis in layout.axes], sizes))
        self.one = element is not None
        self.traced = slice(picked, picked + 1) if self.one else slice(None)
        self.x = self.members(x)
        self.title = f"element {_index(element)}" if element is not None else self._name()

    def members(self, values: Any) -> NDArray[np.float64]:
        """The group's elements of an array of the tensor's shape, in order."""
        return np.asarray(values, np.float64).reshape(self.plan.layout.view)[self._region].ravel()

    def picked(self, values: Any) -> NDArray[np.float64]:
        """The traced elements among the group's."""
        return self.members(values)[self.traced]

    def parameter(self, values: Any) -> NDArray[np.float64]:
        """The weight or bias of each traced element."""
        layout = self.plan.layout
        spread = np.broadcast_to(np.asarray(values, np.float64).reshape(layout.channels_view), layout.view)
        return spread[self._region].ravel()[self.traced]

    def statistic(self, name: str) -> float:
        values = np.asarray(getattr(self.result, name))
        return float(values[tuple(int(i) for i in self._place)] if values.ndim else values)

    def per_sample(self, name: str) -> list[float]:
        """A statistic of this group's channel, for each sample: one number, but for instance norm."""
        values = np.asarray(getattr(self.result, name))
        return [float(value) for value in values[..., self.channel].ravel()]

    @property
    def channel(self) -> int:
        return int(self._place[-1])

    def value(self, values: NDArray[np.float64]) -> float | list[float]:
        """What a step reports: a number for a traced element, else one for each element."""
        return float(values[0]) if self.one else values.tolist()

    def _name(self) -> str:
        place = [int(i) for i in self._place]
        words = {
            "batch": ["channel"],
            "instance": ["sample", "channel"],
            "group": ["sample", "group"],
        }.get(self.plan.kind.name)
        if words:
            return ", ".join(f"{word} {i}" for word, i in zip(words, place, strict=True))
        return f"row {_index(tuple(place))}" if self.plan.layout.stats_shape else "the whole tensor"


@dataclass(frozen=True)
class _Writer:
    """How numbers and lists of terms are written."""

    precision: int
    most: int

    def number(self, value: float) -> str:
        return computed(value, self.precision)

    def terms(self, write: Callable[..., str], joint: str, *columns: Iterable[float]) -> str:
        """One term for each row of the columns, joined; the middle of a long list is left out."""
        rows = list(zip(*columns, strict=True))
        if len(rows) <= self.most:
            return joint.join(write(*row) for row in rows)
        first, last = ([write(*row) for row in part] for part in (rows[:3], rows[-3:]))
        return joint.join([*first, "...", *last])


def _mean_square(group: _Group, writer: _Writer) -> list[Step]:
    squares = writer.terms(lambda x: f"{factor(written(x))}^2", " + ", group.x)
    mean_square = Step(
        step="mean_square",
        formula="sum(x^2) / n",
        substituted=f"({squares}) / {group.plan.layout.count}",
        value=group.statistic("mean_square"),
    )
    return [mean_square, _rstd(group, writer, "mean_square")]


def _centered_statistics(group: _Group, writer: _Writer) -> list[Step]:
    n, given, number = group.plan.layout.count, group.plan.source == "running", writer.number
    mean = group.statistic("mean")
    summed = writer.terms(lambda x: factor(written(x)), " + ", group.x)
    centered = group.picked(group.result.centered)
    squares = writer.terms(lambda c: f"{factor(number(c))}^2", " + ", group.members(group.result.centered))
    spread = "var_unbiased" if group.plan.ddof and not given else "var"
    divisor = "(n - 1)" if group.plan.ddof else "n"
    return [
        Step(
            step="mean",
            formula="running_mean" if given else "sum(x) / n",
            substituted=number(mean) if given else f"({summed}) / {n}",
            value=mean,
        ),
        Step(
            step="centered",
            formula="x - mean",
            substituted=writer.terms(lambda x: f"{written(x)} - {factor(number(mean))}", ", ", group.x[group.traced]),
            value=group.value(centered),
        ),
        Step(
            step=spread,
            formula="running_var" if given else f"sum(centered^2) / {divisor}",
            substituted=number(group.statistic(spread)) if given else f"({squares}) / {divisor.replace('n', str(n))}",
            value=group.statistic(spread),
        ),
        _rstd(group, writer, spread),
    ]


def _rstd(group: _Group, writer: _Writer, spread: str) -> Step:
    return Step(
        step="rstd",
        formula=f"1 / sqrt({spread} + eps)",
        substituted=f"1 / sqrt({writer.number(group.statistic(spread))} + {short(group.plan.eps)})",
        value=group.statistic("rstd"),
    )


def _output(group: _Group, writer: _Writer) -> list[Step]:
    result, plan, number = group.result, group.plan, writer.number
    source, start = ("centered", group.picked(result.centered)) if plan.kind.centers else ("x", group.x[group.traced])
    normalized, rstd = group.picked(result.normalized), group.statistic("rstd")
    before = writer.number if plan.kind.centers else written
    steps = [
        Step(
            step="normalized",
            formula=f"{source} * rstd",
            substituted=writer.terms(lambda c: f"{before(c)} * {number(rstd)}", ", ", start),
            value=group.value(normalized),
        )
    ]
    weight, bias = (
        group.parameter(np.full(plan.weight_shape, default) if values is None else values)
        for values, default in ((result.before.weight, 1.0), (result.before.bias, 0.0))
    )
    has_bias = "bias" in plan.kind.options
    formula = f"normalized * weight{' + bias' if has_bias else ''}" if plan.affine else "normalized"

    def write(value: float, w: float, b: float) -> str:
        scaled = f"{number(value)} * {factor(written(w))}"
        return number(value) if not plan.affine else f"{scaled} + {factor(written(b))}" if has_bias else scaled

    output = group.picked(result.output)
    substituted = writer.terms(write, ", ", normalized, weight, bias)
    return [*steps, Step(step="output", formula=formula, substituted=substituted, value=group.value(output))]


def _running(group: _Group, writer: _Writer) -> list[Step]:
    plan, before, after, number = group.plan, group.result.before, group.result.after, writer.number
    n, new = plan.layout.count, plan.new_weight(before.num_batches_tracked)
    cumulative = f", m = 1 / {before.num_batches_tracked + 1}" if plan.momentum is None else ""
    samples = len(group.per_sample("mean"))
    steps = []
    for name, statistic in (("mean", "mean"), ("var", "var_unbiased" if plan.running_ddof else "var")):
        # The formula spells out the divisor, the one thing in which frameworks differ here.
        word = "var*n/(n-1)" if statistic == "var_unbiased" and n > 1 else name
        batch = writer.terms(lambda value: factor(number(value)), " + ", group.per_sample(statistic))
        old, value = (float(getattr(state, f"running_{name}")[group.channel]) for state in (before, after))
        averaged = samples > 1
        steps.append(
            Step(
                step=f"running_{name}",
                formula=f"(1 - m) * old + m * {f'sum({word})/N' if averaged else word}{cumulative}",
                substituted=f"{_weight(1 - new)} * {factor(number(old))} + {_weight(new)} * "
                + (f"({batch})/{samples}" if averaged else batch),
                value=value,
            )
        )
    return steps


def _weight(value: float) -> str:
    return f"{value:.10g}"


def _counted_from_start(element: tuple[int, ...], plan: Plan) -> tuple[int, ...]:
    """The element's index, negative ones counted from the end as Python does."""
    if len(element) != len(plan.shape):
        raise InputError(
            f"element {_index(element)} has {count(len(element), 'index', 'indices')}; "
            f"a tensor of shape {plan.shape} needs {len(plan.shape)}"
        )
    for index, size in zip(element, plan.shape, strict=True):
        if not -size <= index < size:
            raise InputError(f"element {_index(element)} is outside the tensor of shape {plan.shape}")
    return tuple(index % size for index, size in zip(element, plan.shape, strict=True))


def _index(index: tuple[int, ...]) -> str:
    return f"({', '.join(str(i) for i in index)})"
