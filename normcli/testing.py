"""For those who write kernels: is what one gives right to a few units in the last place? If not, which slip is it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.result import Result, State
from normcli.calculate import gradient_of_output, initial_state, run, settled_options
from normcli.errors import InputError
from normcli.floats import as_float_array, dtype_name, rounded, ulp
from normcli.planning.kinds import PARAMETERS
from normcli.planning.plan import Plan, plan
from normcli.showing.check import explanation, verdict
from normcli.teaching.check import check
from normcli.teaching.printed import Printed
from normcli.teaching.python import named
from normcli.teaching.verdict import Check
from normcli.words import count, either

if TYPE_CHECKING:
    from typing import Unpack

    from normcli.planning.options import KindName, Options

__all__ = ["assert_normalized"]

Floats = NDArray[np.float64]

_ALLOWED = {"float16": 1.0, "bfloat16": 1.0, "float32": 8.0, "float64": 8.0}  # ulp
_DIGITS = {"float16": 5, "bfloat16": 4, "float32": 8, "float64": 17}  # that tell a number from its neighbours
_MOST_SEARCHED = 2**14  # elements that a slip is looked for in: enough to name one, and done in a second


def assert_normalized(
    actual: Any,
    x: Any,
    kind: KindName,
    /,
    *,
    ulp: float | None = None,
    grad_output: Any = None,
    **options: Unpack[Options],
) -> None:
    """Raise an AssertionError unless ``actual`` is the normalized ``x``, to ``ulp`` units in the last place.

    ``actual`` is the output, or a mapping from names to what a kernel gives besides: mean, var, rstd, running_mean,
    running_var, and with ``grad_output`` grad_input (dx), grad_weight and grad_bias. All are NumPy arrays or torch
    tensors of any floating dtype, on any device. They are held against the exact numbers for exactly this input.

    A unit is one of actual's own dtype. Unless it is given, 8 of them are allowed in float32 and float64, and 1 in
    float16 and bfloat16: for these a kernel calculates in float32, and is off by little more than half of one.
    It is counted at the size of what is added up on the way: for an output max(abs(y), abs(weight) * max(abs(z), 1),
    abs(bias)), where z is the normalized number, for x - mean leaves few digits where the two are close (RMSNorm
    subtracts nothing: there it is abs(z) alone); for a mean at least the standard deviation; for grad_input the
    largest of its group; for grad_weight and grad_bias the sum of absolute values. Where the mean is many times the
    deviation, float32 arithmetic is off by as many times more: allow for it, or calculate with more digits.

    The message says how many cells are off, which is the worst, and which slip gives these very numbers, if it is
    known. Raises InputError (a ValueError) where the calculation itself is not possible.

    >>> x = np.float32([[1, 2, 4], [3, 5, 4]])
    >>> centered = x - x.mean(1, keepdims=True)
    >>> assert_normalized(centered / np.sqrt(x.var(1, keepdims=True) + np.float32(1e-5)), x, "layer")
    >>> assert_normalized(centered / x.std(1, keepdims=True, ddof=1), x, "layer", eps=0)
    Traceback (most recent call last):
    AssertionError: LayerNorm  (2, 3) float32: 5 of 6 cells are off by more than 8 ulp
    the worst, output (0, 2), is 1.0910895, exactly 1.3363062: 2.06e+06 ulp of float32
    Your numbers are what the unbiased variance gives, sum(centered^2) / (n - 1).
    LayerNorm normalizes with the biased one, sum(centered^2) / n.   [ddof1]
    """
    __tracebackhide__ = True
    given, _ = settled_options(kind, options)
    tensor = as_float_array(x, given.get("dtype"))
    settled = plan(kind, tensor.shape, dtype_name(tensor), given)
    flow = None if grad_output is None else np.asarray(gradient_of_output(grad_output, settled), np.float64)
    question = _Question(tensor, settled, initial_state(settled, given), flow)
    answers = {name: as_float_array(value, name=name) for name, value in named(actual).items()}
    if words := question.refuted(answers, ulp):
        raise AssertionError("\n".join(words))


@dataclass(frozen=True)
class _Question:
    """What is calculated, for arrays to be held against."""

    x: NDArray[Any]
    plan: Plan
    state: State
    flow: Floats | None

    def refuted(self, answers: Mapping[str, NDArray[Any]], ulp: float | None) -> list[str]:
        """What is wrong, line by line; nothing where nothing is."""
        in_double = replace(self.plan, dtype="float64")
        exact = run(self.x.astype(np.float64), in_double, self.state, steps=True, grad_output=self.flow)
        known = {name: value for name in _names(exact) if (value := getattr(exact, name)) is not None}
        held = []
        for name, answer in answers.items():
            if name not in known:
                raise InputError(f"{name} is not computed here; use {either(known)}")
            right, dtype = np.asarray(known[name], np.float64), dtype_name(answer)
            if answer.shape != right.shape:
                return self._of_another_shape(name, answer, right.shape)
            limit = _ALLOWED[dtype] if ulp is None else ulp
            held.append(_Held(name, answer, right, _size(name, exact, self.x, self.flow), dtype, limit))
        beyond = sum(one.beyond for one in held)
        if not beyond:
            return []
        cells = count(sum(answer.size for answer in answers.values()), "cell")
        limits = either(dict.fromkeys(f"{one.limit:g}" for one in held if one.beyond))
        worst = max(held, key=lambda one: one.most / one.limit if one.limit else one.most)
        return [
            f"{self._title}: {beyond} of {cells} {'is' if beyond == 1 else 'are'} off by more than {limits} ulp",
            worst.words,
            *self._explained(answers, worst),
        ]

    @property
    def _title(self) -> str:
        return f"{self.plan.kind.title}  {self.plan.shape} {self.plan.dtype}"

    def _of_another_shape(self, name: str, answer: NDArray[Any], shape: tuple[int, ...]) -> list[str]:
        said = f"{self._title}: {name} has shape {answer.shape}; {shape} is right"
        try:
            return [said, verdict(self._judged({name: answer}))]
        except InputError:
            return [said]

    def _explained(self, answers: Mapping[str, NDArray[Any]], worst: _Held) -> list[str]:
        """The slip in words; of a large tensor looked for in a part that has the worst cell."""
        part, kept = self, dict(answers)
        if self.x.size > _MOST_SEARCHED:
            rows = self._rows(worst)
            if rows is None:
                return ["The tensor is too large to look for a slip in; a smaller one would have it named."]
            part, kept = self._part(rows), {worst.name: answers[worst.name][rows]}
        found = part._judged(kept)
        if found.ok:
            return [f"Arithmetic in {worst.dtype} may do that to these numbers; a larger ulp allows for it."]
        return explanation(found)

    def _rows(self, worst: _Held) -> slice | None:
        """Some samples with that of the worst cell, where each is normalized by itself; None where that cannot be."""
        alone = (
            self.plan.layout.reported_axes and 0 not in self.plan.layout.reported_axes and self.plan.layout.is_batched
        )
        most = _MOST_SEARCHED * len(self.x) // self.x.size
        if not alone or not most or self.plan.track_running_stats or worst.name in ("grad_weight", "grad_bias"):
            return None
        first = worst.index[0]
        return slice(first, first + most) if first + most <= len(self.x) else slice(len(self.x) - most, len(self.x))

    def _part(self, rows: slice) -> _Question:
        """The same of some samples."""
        x = self.x[rows]
        given = {**self.plan.options(), "convention": self.plan.convention.name}
        settled = plan(self.plan.kind.name, x.shape, self.plan.dtype, given)
        return _Question(x, settled, self.state, None if self.flow is None else self.flow[rows])

    def _judged(self, answers: Mapping[str, NDArray[Any]]) -> Check:
        printed = {name: Printed.exactly(values, dtype_name(values)) for name, values in answers.items()}
        return check(Printed.exactly(self.x), self.plan, self.state, printed, grad_output=self.flow)


@dataclass(frozen=True)
class _Held:
    """One quantity beside the exact one, and how far off it is, in units in the last place of its dtype."""

    name: str
    values: NDArray[Any]
    exact: Floats
    size: Floats  # at which a unit is counted
    dtype: str
    limit: float  # how many units it may be off

    @cached_property
    def units(self) -> Floats:
        """The differences in units: 0 between equal infinities and two NaNs, infinite where only one is finite."""
        values = self.values.astype(np.float64)
        with np.errstate(all="ignore"):
            right = rounded(self.exact, self.dtype).astype(np.float64)
            same = (values == right) | (np.isnan(values) & np.isnan(right))
            finite = np.where(np.isfinite(self.size), self.size, 0.0)
            gap = np.abs(values - self.exact) / ulp(finite, self.dtype)
        return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))

    @property
    def beyond(self) -> int:
        """How many cells are off by more than they may be."""
        return int((self.units > self.limit).sum())

    @property
    def most(self) -> float:
        """The largest difference."""
        return float(self.units.max())

    @property
    def index(self) -> tuple[int, ...]:
        """Where the difference is largest."""
        return tuple(int(i) for i in np.unravel_index(int(self.units.argmax()), self.units.shape))

    @property
    def words(self) -> str:
        """The worst cell."""
        at = self.index
        yours, exact = (f"{float(values[at]):.{_DIGITS[self.dtype]}g}" for values in (self.values, self.exact))
        place = f" ({', '.join(map(str, at))})" if at else ""
        return f"the worst, {self.name}{place}, is {yours}, exactly {exact}: {self.most:.3g} ulp of {self.dtype}"


def _names(exact: Result) -> Iterator[str]:
    yield from (name for name in exact.named if name != "grad_output")
    yield from ("output", "running_mean", "running_var")


def _size(name: str, exact: Result, x: NDArray[Any], flow: Floats | None) -> Floats:
    """At which size a unit of each number is counted."""
    plan, own = exact.plan, np.abs(np.asarray(getattr(exact, name), np.float64))
    layout = plan.layout
    size = own
    if name == "mean":
        size = np.sqrt(exact.var)
    elif name == "running_mean":
        size = own + np.abs(exact.mean).max()
    elif name == "centered":
        size = np.abs(x.astype(np.float64))
    elif name == "normalized":
        size = np.full(own.shape, float(plan.kind.centers))
    elif name == "output":
        weight, bias = (
            _along_view(default if given is None else given, plan)
            for given, default in ((exact.before.weight, 1.0), (exact.before.bias, 0.0))
        )
        scaled = np.maximum(np.abs(exact.normalized), float(plan.kind.centers)).reshape(layout.view) * weight
        size = np.maximum(scaled, bias).reshape(plan.shape)
    elif name == "grad_input":
        size = np.broadcast_to(own.reshape(layout.view).max(layout.axes, keepdims=True), layout.view).reshape(own.shape)
    elif flow is not None and name in PARAMETERS:
        each = np.abs(flow * exact.normalized if name == "grad_weight" else flow).reshape(layout.view)
        size = each.sum(axis=tuple({*range(len(layout.view))} - {*layout.channels})).reshape(own.shape)
    return np.maximum(own, size)


def _along_view(parameter: Any, plan: Plan) -> Floats:
    """The absolute values of weight or bias, or of one number for all of it, along the axes of the view."""
    values = np.broadcast_to(np.asarray(parameter, np.float64), plan.weight_shape)
    return np.abs(values).reshape(plan.layout.channels_view)
