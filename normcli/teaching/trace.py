"""The calculation of one group of statistics, step by step, as a person would write it down.

Each line is true to the last digit printed: what its numbers give, worked out exactly, rounds to its
value. A computed number stands with so many decimals as the value; where the line does not come out
with these, with as many more digits as it takes, and ``~`` before it if there would be still more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.result import Result
from normcli.digits import computed, decimal, factor, notation, short, significant, written
from normcli.errors import InputError
from normcli.floats import rounded
from normcli.planning.layout import number_of
from normcli.planning.plan import Plan
from normcli.words import count

_SHOWN = 8  # terms of a long sum that are written out when no element was asked for
_MOST = 1000  # terms that are written out for an element
_LARGEST = 2**16  # elements of a group whose statistics are worked out beyond float64's digits
_MOST_DIGITS = 50  # of a number in a line, where it takes so many
_FLOAT_DIGITS = 17  # that say which float64 number it is
_SURE_DIGITS = 15  # of a float64 number that is the rounding of another
_FLOAT_UNIT = Decimal("1e-15")  # of a float64 number: a few of its units in the last place
_SAME = Decimal("1e-14")  # within which the exact statistic is that of a float64 one
_LEAST = Decimal("1e-307")  # below, float64 has fewer digits, or none: the square of a small number is 0
_EXACT = Context(prec=1500)  # holds any sum of float64 numbers and of their squares to the last digit


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
    writer = _Writer(precision, most)
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
        self._place = np.unravel_index(number_of(base, layout.stats_view), layout.stats_shape or (1,))
        sizes = [layout.view[axis] for axis in layout.axes]
        picked = number_of((int(at[axis]) for axis in layout.axes), sizes)
        self.one = element is not None
        self.running = self.plan.source == "running"
        self.traced = range(picked, picked + 1) if self.one else range(layout.count)
        self.x = self.members(x)
        self.title = f"element {_index(element)}" if element is not None else self._name()

    def members(self, values: Any) -> NDArray[np.float64]:
        """The group's elements of an array of the tensor's shape, in order."""
        return np.asarray(values, np.float64).reshape(self.plan.layout.view)[self._region].ravel()

    def picked(self, values: Any) -> NDArray[np.float64]:
        """The traced elements among the group's."""
        return self.members(values)[self.traced.start : self.traced.stop]

    def parameter(self, values: Any) -> NDArray[np.float64]:
        """The weight or bias of each traced element."""
        layout = self.plan.layout
        spread = np.broadcast_to(np.asarray(values, np.float64).reshape(layout.channels_view), layout.view)
        return spread[self._region].ravel()[self.traced.start : self.traced.stop]

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

    @cached_property
    def exact(self) -> dict[str, Decimal]:
        """The statistics beyond float64's digits; none where they are not finite, or the group is too long."""
        given = [self.statistic(name) for name in ("mean", "var")] if self.running else []
        n = len(self.x)
        if n > _LARGEST or not np.isfinite([*self.x, *given]).all():
            return {}
        x = [Decimal(value) for value in self.x.tolist()]
        total = sum(x, Decimal(0)) if self.plan.kind.centers else Decimal(0)
        squares = sum((v * v for v in x), Decimal(0))
        mean, var = map(Decimal, given) if given else (total / n, (squares - total * total / n) / n)
        found = {"mean": mean, "var": var, "mean_square": var, "var_unbiased": var * n / max(1, n - 1)}
        divided = found["var_unbiased"] if self.plan.ddof and not given else var
        if (spread := divided + Decimal(self.plan.eps)) > 0:
            found["rstd"] = 1 / spread.sqrt()
        return found

    def deviation(self, place: int) -> Decimal | None:
        """The exact x - mean of an element (x itself for rms)."""
        return Decimal(float(self.x[place])) - self.exact["mean"] if self.exact else None

    def normalized(self, place: int) -> Decimal | None:
        deviation = self.deviation(place)
        return deviation * self.exact["rstd"] if deviation is not None and "rstd" in self.exact else None

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
class _Number:
    """A number of a line: how it is written at first, and, if it was computed, where more than float64's digits are."""

    value: float
    text: str
    exact: Callable[[], Decimal | None] | None = None

    def written(self, digits: int) -> str:
        """The number with so many significant digits; as at first where that has as many, and for 0."""
        if not digits or not math.isfinite(self.value):
            return self.text
        if digits <= _FLOAT_DIGITS and self.is_read_back(self.text):
            return self.text
        if self.exact is None and digits <= _FLOAT_DIGITS:
            return written(self.value)
        if len(Decimal(self.text).as_tuple().digits) >= digits:
            return self.text
        return significant(self._known(digits), digits)

    def marked(self, digits: int) -> str:
        """The same, with a mark if these are more digits than at first, and still not all."""
        text = self.written(digits)
        whole = text == self.text or (self.is_read_back(text) and Decimal(text) == self._known(digits, text))
        return text if whole else f"~{text}"

    def is_read_back(self, text: str) -> bool:
        """Whether the text says which number it is, as near as float64 can tell."""
        return math.isclose(float(text), self.value, rel_tol=float(_FLOAT_UNIT))

    def _known(self, digits: int, otherwise: str | None = None) -> Decimal:
        """The number as exactly as so many digits need it."""
        if digits <= _FLOAT_DIGITS and otherwise is not None:
            return Decimal(otherwise)
        value = Decimal(self.value)
        wanted = digits > _SURE_DIGITS or abs(self.value) < _LEAST
        more = self.exact() if self.exact is not None and wanted else None
        return more if more is not None and abs(more - value) <= max(abs(value), _LEAST) * _SAME else value


@dataclass(frozen=True)
class _Line:
    """An expression: its numbers, how it is written and worked out (None: some are left out), its value as printed."""

    numbers: Sequence[_Number]
    write: Callable[..., str]
    work_out: Callable[..., Decimal] | None
    value: str

    def text(self, digits: int, dtype: str | None = None) -> str:
        text = self.write(*(number.marked(digits) for number in self.numbers))
        return f"{dtype}({text})" if dtype else text

    def holds(self, digits: int, dtype: str | None = None) -> bool:
        """Whether the numbers as written give the value as printed; of what is not finite nothing is asked.

        Halfway between two values either is right, as near as float64 can tell, unless numbers came to lie
        there by being rounded.
        """
        texts = [number.written(digits) for number in self.numbers]
        if self.work_out is None or not all(math.isfinite(float(text)) for text in [*texts, self.value]):
            return True
        try:
            found = self.work_out(*map(Decimal, texts))
        except ArithmeticError:  # what it is divided by was rounded to 0
            return False
        if dtype:
            found = Decimal(float(rounded(np.array(float(found)), dtype)))
        value = Decimal(self.value)
        if not found.is_finite():
            return False
        off, unit = abs(found - value) * 2, Decimal(1).scaleb(int(value.as_tuple().exponent))
        as_meant = all(number.is_read_back(text) for number, text in zip(self.numbers, texts, strict=True))
        return off < unit or (as_meant and off <= unit + abs(value) * _FLOAT_UNIT)


@dataclass(frozen=True)
class _Writer:
    """How lines are written: with ``precision`` decimals, and of a long list ``most`` terms."""

    precision: int
    most: int

    def number(self, value: float) -> str:
        return computed(value, notation([value], self.precision))

    def shown(self, size: int) -> list[int]:
        """The places of a list that are written out."""
        return [*range(size)] if size <= self.most else [0, 1, 2, size - 3, size - 2, size - 1]

    def given(self, values: NDArray[np.float64]) -> list[_Number]:
        """The numbers of a list that are written out, as they were given."""
        return [_Number(value, written(value)) for value in values[self.shown(len(values))].tolist()]

    def computed(
        self, values: NDArray[np.float64], exact: Callable[[int], Decimal | None], places: range | None = None
    ) -> list[_Number]:
        """The same of computed ones, in one notation; ``exact`` is asked for the element at a place."""
        one = notation(values.tolist(), self.precision)
        at = range(len(values)) if places is None else places
        return [_Number(float(values[i]), computed(float(values[i]), one), partial(exact, at[i]))
                for i in self.shown(len(values))]  # fmt: skip

    def statistic(self, group: _Group, name: str) -> _Number:
        value = group.statistic(name)
        return _Number(value, self.number(value), lambda: group.exact.get(name))

    def line(self, value: float, numbers: Sequence[_Number], write: Callable[..., str], work_out: Any) -> str:
        """One expression."""
        return self._true([_Line(numbers, write, work_out, decimal(value, notation([value], self.precision)))], 1)

    def sum(
        self, value: float, numbers: list[_Number], size: int, divisor: int, power: int = 1, below: str = ""
    ) -> str:
        """The sum of a list's numbers, or of their squares, divided."""
        squared = "^2" if power == 2 else ""

        def write(*texts: str) -> str:
            terms = _gapped([f"{factor(text)}{squared}" for text in texts], size)
            return f"({' + '.join(terms)}) / {below or divisor}"

        def work_out(*values: Decimal) -> Decimal:
            return sum((v**power for v in values), Decimal(0)) / divisor

        return self.line(value, numbers, write, work_out if len(numbers) == size else None)

    def list(
        self,
        values: NDArray[np.float64],
        columns: Sequence[Sequence[_Number]],
        write: Callable[..., str],
        work_out: Any,
        dtype: str | None = None,
    ) -> str:
        """One expression for each number of a list."""
        one = notation(values.tolist(), self.precision)
        printed = [_printed(float(values[i]), one) for i in self.shown(len(values))]
        lines = [_Line(row, write, work_out, value) for value, *row in zip(printed, *columns, strict=True)]
        return self._true(lines, len(values), dtype)

    def mixed(
        self,
        value: float,
        numbers: Sequence[_Number],
        batch: NDArray[np.float64],
        exact: Callable[[int], Decimal | None],
    ) -> str:
        """A running statistic: the old one and the mean of the batch's, by their shares."""
        samples = len(batch)

        def write(kept: str, share: str, old: str, *texts: str) -> str:
            terms = " + ".join(_gapped([factor(text) for text in texts], samples))
            return f"{kept} * {factor(old)} + {share} * " + (f"({terms})/{samples}" if samples > 1 else terms)

        def work_out(kept: Decimal, share: Decimal, old: Decimal, *values: Decimal) -> Decimal:
            return kept * old + share * sum(values) / samples

        terms = self.computed(batch, exact)
        return self.line(value, [*numbers, *terms], write, work_out if len(terms) == samples else None)

    def _true(self, lines: Sequence[_Line], size: int, dtype: str | None = None) -> str:
        """The lines with as many digits as it takes for all of them to hold; what never does is marked as a whole."""
        with localcontext(_EXACT):
            for digits in (0, *range(self.precision + 1, _MOST_DIGITS)):
                for to in (None, dtype) if dtype else (None,):
                    if all(line.holds(digits, to) for line in lines):
                        return ", ".join(_gapped([line.text(digits, to) for line in lines], size))
            return ", ".join(_gapped([line.text(0) if line.holds(0) else f"~({line.text(0)})" for line in lines], size))


def _printed(value: float, notation: str) -> str:
    """A value of a list as it is printed; a whole number with the decimals that it might have had."""
    text = computed(value, notation)
    return decimal(value, notation) if text.lstrip("-").isdigit() and notation.endswith("f") else text


def _gapped(texts: list[str], size: int) -> list[str]:
    return texts if len(texts) == size else [*texts[:3], "...", *texts[3:]]


def _mean_square(group: _Group, writer: _Writer) -> list[Step]:
    n, value = group.plan.layout.count, group.statistic("mean_square")
    summed = writer.sum(value, writer.given(group.x), n, n, power=2)
    step = Step(step="mean_square", formula="sum(x^2) / n", substituted=summed, value=value)
    return [step, _rstd(group, writer, "mean_square")]


def _centered_statistics(group: _Group, writer: _Writer) -> list[Step]:
    result, n, mean, given = group.result, group.plan.layout.count, group.statistic("mean"), group.running
    spread, below = ("var_unbiased", "(n - 1)") if group.plan.ddof and not given else ("var", "n")
    variance = group.statistic(spread)
    x, centered = group.x[group.traced.start : group.traced.stop], group.picked(result.centered)
    deviations = writer.computed(group.members(result.centered), group.deviation)
    return [
        Step(
            step="mean",
            formula="running_mean" if given else "sum(x) / n",
            substituted=writer.number(mean) if given else writer.sum(mean, writer.given(group.x), n, n),
            value=mean,
        ),
        Step(
            step="centered",
            formula="x - mean",
            substituted=writer.list(
                centered,
                [xs := writer.given(x), [writer.statistic(group, "mean")] * len(xs)],
                lambda x, mean: f"{x} - {factor(mean)}",
                lambda x, mean: x - mean,
            ),
            value=group.value(centered),
        ),
        Step(
            step=spread,
            formula="running_var" if given else f"sum(centered^2) / {below}",
            substituted=writer.number(variance)
            if given
            else writer.sum(variance, deviations, n, n - group.plan.ddof, power=2, below=below.replace("n", str(n))),
            value=variance,
        ),
        _rstd(group, writer, spread),
    ]


def _rstd(group: _Group, writer: _Writer, spread: str) -> Step:
    eps, value = group.plan.eps, group.statistic("rstd")
    substituted = writer.line(
        value,
        [writer.statistic(group, spread), _Number(eps, short(eps))],
        lambda spread, eps: f"1 / sqrt({spread} + {eps})",
        lambda spread, eps: 1 / (spread + eps).sqrt(),
    )
    return Step(step="rstd", formula=f"1 / sqrt({spread} + eps)", substituted=substituted, value=value)


def _output(group: _Group, writer: _Writer) -> list[Step]:
    result, plan = group.result, group.plan
    normalized, output = group.picked(result.normalized), group.picked(result.output)
    if plan.kind.centers:
        source, start = "centered", writer.computed(group.picked(result.centered), group.deviation, group.traced)
    else:
        source, start = "x", writer.given(group.x[group.traced.start : group.traced.stop])
    scaled = writer.list(
        normalized,
        [start, [writer.statistic(group, "rstd")] * len(start)],
        lambda c, rstd: f"{c} * {rstd}",
        lambda c, rstd: c * rstd,
    )
    weight, bias = (
        writer.given(group.parameter(np.full(plan.weight_shape, default) if values is None else values))
        for values, default in ((result.before.weight, 1.0), (result.before.bias, 0.0))
    )
    numbers = writer.computed(normalized, group.normalized, group.traced)
    formula, columns, write, work_out = _affine(plan, numbers, weight, bias)
    dtype = None if plan.dtype == "float64" else plan.dtype
    substituted = writer.list(output, columns, write, work_out, dtype)
    return [
        Step(step="normalized", formula=f"{source} * rstd", substituted=scaled, value=group.value(normalized)),
        Step(step="output", formula=formula, substituted=substituted, value=group.value(output)),
    ]


def _affine(plan: Plan, normalized: list[_Number], weight: list[_Number], bias: list[_Number]) -> Any:
    """The last formula, its columns, and how a row of them is written and worked out."""
    if not plan.affine:
        return "normalized", [normalized], lambda y: y, lambda y: y
    if "bias" not in plan.kind.options:
        return "normalized * weight", [normalized, weight], lambda y, w: f"{y} * {factor(w)}", lambda y, w: y * w
    return (
        "normalized * weight + bias",
        [normalized, weight, bias],
        lambda y, w, b: f"{y} * {factor(w)} + {factor(b)}",
        lambda y, w, b: y * w + b,
    )


def _running(group: _Group, writer: _Writer) -> list[Step]:
    plan, before, after = group.plan, group.result.before, group.result.after
    n, new = plan.layout.count, plan.new_weight(before.num_batches_tracked)
    cumulative = f", m = 1 / {before.num_batches_tracked + 1}" if plan.momentum is None else ""
    kept, share = (_Number(part, f"{part:.10g}", lambda: None) for part in (1 - new, new))
    steps = []
    for name, statistic in (("mean", "mean"), ("var", "var_unbiased" if plan.running_ddof else "var")):
        # The formula spells out the divisor, the one thing in which frameworks differ here.
        word = "var*n/(n-1)" if statistic == "var_unbiased" and n > 1 else name
        batch = np.array(group.per_sample(statistic))
        samples = len(batch)
        old, value = (float(getattr(state, f"running_{name}")[group.channel]) for state in (before, after))
        exact = (lambda place, name=statistic: group.exact.get(name)) if samples == 1 else lambda place: None
        steps.append(
            Step(
                step=f"running_{name}",
                formula=f"(1 - m) * old + m * {f'sum({word})/N' if samples > 1 else word}{cumulative}",
                substituted=writer.mixed(
                    value, [kept, share, _Number(old, writer.number(old), lambda: None)], batch, exact
                ),
                value=value,
            )
        )
    return steps


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
