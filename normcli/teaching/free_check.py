"""Answers to formulas over any axes: how far a right one may be off, and which slip gives a wrong one.

The tolerance is the Jacobian of the lines themselves, row by row; slips are rules on the lines, other axes,
other numbers, and what other libraries make of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.free import given, shaped, value_of, worked
from normcli.arithmetic.numbers import FLOATS
from normcli.arithmetic.result import State
from normcli.digits import short
from normcli.errors import InputError
from normcli.formula.extents import extents
from normcli.formula.gradient import gradient
from normcli.formula.language import Line, Lines
from normcli.formula.rewrite import rewritten
from normcli.formula.spelled import spelled
from normcli.planning.free import OUTPUT, FreePlan, layout_over
from normcli.planning.further import FURTHER, settled_further
from normcli.teaching.diagnosis import Search
from normcli.teaching.judgement import Hypothetical, Question
from normcli.teaching.tolerance import Rounding
from normcli.teaching.verdict import Check, Diagnosis, first_wrong

Floats = NDArray[np.float64]

_MOST_SLOPES = 2**24  # of cells by elements; more take seconds
_AT_ONCE = 2**20
_INPUT_UNITS, _RESULT_UNITS = 2, 4  # as in ``normcli.teaching.tolerance``
_EVIDENCE, _EVIDENCE_OF_ONE = 1.0, 2.5  # as in ``normcli.teaching.diagnosis``
_ALIKE = ({"softmax", "logsoftmax"}, {"zscore", "minmax"})  # kinds that are taken for one another
_MOST_RANK = 4  # of a tensor whose other sets of axes are tried
_EPS = (0.0, 1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)

# Rules for lines, and what they are: "Your numbers are what ... gives".
_RULES = (
    ("no_eps", "A + eps -> A", "leaving eps out"),
    ("no_eps", "larger(A, eps) -> A", "leaving eps out"),
    ("eps_outside", "sqrt(A + eps) -> sqrt(A) + eps", "eps outside the root"),
    ("eps_inside", "sqrt(A) + eps -> sqrt(A + eps)", "eps inside the root"),
    ("eps_added", "larger(A, eps) -> A + eps", "eps added instead of a floor"),
    ("eps_floor", "A + eps -> larger(A, eps)", "eps as a floor instead of added"),
    ("mean_for_sum", "sum(A) -> mean(A)", "the mean instead of the sum"),
    ("sum_for_mean", "sum(A^2) / n -> sum(A^2)", "the sum instead of the mean"),
    ("ddof1", "sum(A^2) / n -> sum(A^2) / (n - 1)", "n - 1 instead of n"),
    ("ddof1", "mean((A - M)^2) -> sum((A - M)^2) / (n - 1)", "n - 1 instead of n"),
    ("ddof0", "sum(A^2) / (n - 1) -> sum(A^2) / n", "n instead of n - 1"),
    ("no_sqrt", "sqrt(A) -> A", "leaving the root out"),
    ("no_abs", "abs(A) -> A", "leaving the sizes out"),
    ("no_log", "log(A) -> A", "leaving the logarithm out"),
    ("no_weight", "A * weight -> A", "leaving the weight out"),
    ("no_bias", "A + bias -> A", "leaving the bias out"),
    ("no_threshold", "larger(A, tau) -> A", "leaving the threshold out"),
    ("no_power", "A^beta -> A", "leaving the power out"),
    ("alpha_whole", "alpha / size -> alpha", "alpha not divided by the size"),
    ("not_centered", "x - mean -> x", "leaving the mean in"),
    ("upside_down", "A - B -> B - A", "a difference the other way round"),
)


@dataclass(frozen=True, kw_only=True)
class FreeWork:
    """A calculation as somebody may have done it, and what is known of it."""

    plan: FreePlan
    state: State
    x: Floats
    grad_output: Floats | None
    key: str = ""
    gives: str = ""

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The input and what comes with it."""
        found = given(self.plan, self.x, self.state)
        return found if self.grad_output is None else found | {"grad_output": self.grad_output}

    @cached_property
    def names(self) -> frozenset[str]:
        """What there is a number for."""
        back = () if self.grad_output is None else self.plan.gradient_lines
        return frozenset(line.name for line in self.plan.program + back)


class FreeFigures:
    """The numbers of a work; ``exact`` are those that are known better."""

    def __init__(self, work: FreeWork, exact: Mapping[str, Floats] | None = None) -> None:
        self.work, self.plan = work, work.plan
        self._known = dict(exact or {})

    def __contains__(self, name: str) -> bool:
        return name in self.work.names

    def __getitem__(self, name: str) -> Floats:
        if name not in self._known:
            with np.errstate(all="ignore"):
                value = value_of(self._group, name).hi
            self._known[name] = shaped(self.plan, name, value)
        return self._known[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a quantity."""
        return self.plan.shape if name == OUTPUT else self.plan.shape_of(name)

    @cached_property
    def _group(self) -> Any:
        return worked(self.plan, FLOATS, self.work.arrays, back=self.work.grad_output is not None)

    def moved(self, name: str, off: Mapping[str, Floats]) -> Floats:
        """How far numbers that are off by so much move a quantity, to first order."""
        shape, plan = self.shape(name), self.plan
        cells = math.prod(shape)
        if not any(np.any(values) for values in off.values()) or cells * self.work.x.size > _MOST_SLOPES:
            return np.zeros(shape)
        lines, leaves = self._behind(name), tuple(leaf for leaf in self.work.arrays if np.any(off.get(leaf, 0)))
        try:
            back = gradient(lines, plan.space, leaves=leaves, of=name)
        except InputError:  # no derivative
            return np.zeros(shape)
        leaves = tuple(leaf for leaf in leaves if plan.gradient_name(leaf) in {line.name for line in back})
        known = extents(lines + back, plan.space)
        alone = replace(plan, program=lines + back)
        rank = len(plan.shape)
        span = sorted(known[name])
        seed_shape = tuple(size if axis in span else 1 for axis, size in enumerate(plan.shape))
        found = np.zeros(cells)
        step = max(1, _AT_ONCE // self.work.x.size)
        for start in range(0, cells, step):
            several = min(step, cells - start)
            seeds = np.zeros((several, cells))
            seeds[np.arange(several), start + np.arange(several)] = 1
            arrays = {key: values[None] for key, values in self.work.arrays.items()}
            arrays["grad_output"] = seeds.reshape(several, *seed_shape)
            group = worked(alone, FLOATS, arrays)
            for leaf in leaves:
                slope = np.abs(value_of(group, plan.gradient_name(leaf)).hi)
                size = np.broadcast_to(off[leaf], self.work.arrays[leaf].shape)
                product = np.nan_to_num(slope * size[None], posinf=0.0, neginf=0.0)
                full = np.broadcast_to(product, (several, *size.shape)) if product.ndim == rank + 1 else product
                found[start : start + several] += full.reshape(several, -1).sum(axis=1)
        return found.reshape(shape)

    def _behind(self, name: str) -> Lines:
        lines = self.plan.program
        if name in {line.name for line in lines}:
            return lines
        return lines + self.plan.gradient_lines


class _Moved:
    """The movement of every quantity by what given numbers are off, and by arithmetic."""

    def __init__(self, worked_: FreeFigures, off: Mapping[str, Floats], *, units: bool) -> None:
        self._worked, self._off, self._units = worked_, off, units
        self._known: dict[str, Floats] = {}

    def __getitem__(self, name: str) -> Floats:
        if name not in self._known:
            moved = self._worked.moved(name, self._off)
            if self._units:
                summed = math.sqrt(max(1, self._worked.plan.layout.count))
                moved = moved + (_RESULT_UNITS + summed) * np.nan_to_num(np.abs(self._worked[name]), posinf=0.0)
            self._known[name] = moved
        return self._known[name]


class FreeHypothetical(Hypothetical):
    """The numbers of a work beside the answer."""

    def __init__(self, question: FreeQuestion, figures: FreeFigures) -> None:
        super().__init__(question, figures)  # type: ignore[arg-type]
        self._figures = figures

    @cached_property
    def _computed(self) -> Any:
        off = {name: _INPUT_UNITS * np.abs(values) for name, values in self._figures.work.arrays.items()}
        return _Moved(self._figures, off, units=True)

    @cached_property
    def _rounded(self) -> Any:
        return _Moved(self._figures, self.question.off, units=False)  # type: ignore[attr-defined]

    def _size(self, name: str) -> float:
        values = np.abs(self._figures[name])
        return float(values.max(initial=0.0, where=np.isfinite(values)))

    @property
    def _is_far(self) -> bool:
        return False

    @property
    def _is_too_good(self) -> bool:
        return False

    @property
    def _has_an_input(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class FreeQuestion(Question):
    """An answer to a formula over any axes."""

    work: FreeWork  # type: ignore[assignment]

    @cached_property
    def off(self) -> dict[str, Floats]:
        """By how much each given number may be off, with all the input's dimensions."""
        found = {"x": self.x.half_units}
        for name, printed in self.parameters.items():
            name = name.partition("@")[0]
            if name in self.work.arrays:
                found[name] = np.broadcast_to(printed.half_units, printed.values.shape).reshape(
                    self.work.arrays[name].shape
                )
        return found

    @cached_property
    def rounding(self) -> Rounding:
        """Not asked for here."""
        return Rounding(x=self.x.half_units)

    @cached_property
    def right(self) -> Hypothetical:
        """The right answer."""
        return FreeHypothetical(self, FreeFigures(self.work, self.exact))

    def hypothetical(self, work: Any) -> Hypothetical:
        """The numbers that a work gives."""
        return FreeHypothetical(self, FreeFigures(work))


@dataclass(frozen=True, kw_only=True)
class _Slip:
    """What Search asks of a slip."""

    key: str
    late: bool = False
    rare: bool = False


class FreeSearch(Search):
    """The same for lines over any axes."""

    @cached_property
    def _singles(self) -> Any:
        works = ((((_Slip(key=work.key),)), (work.gives,), work) for work in slipped(self.question.work))  # type: ignore[arg-type]
        return list(self._measured(works))  # type: ignore[arg-type]

    def single(self, manners: Any, *, late: bool = True) -> Check | None:
        """The verdict with the slips that explain every number in one of these manners, if any does."""
        return self._explained(self._singles, manners, _EVIDENCE_OF_ONE if self.found.cells == 1 else _EVIDENCE)

    def pair(self, manners: Any) -> Check | None:
        """Two slips at a time are not tried here."""
        return None

    @property
    def _tries_pairs(self) -> bool:
        return True

    def _explained(self, tried: Any, manners: Any, least: float) -> Check | None:
        explained = [one for one in tried if one.manner in manners and one.evidence >= least]
        if not explained:
            return None
        return replace(self.found, diagnoses=tuple(self._described(explained[:3])), apart="")

    def _described(self, hypotheses: Any) -> Iterator[Diagnosis]:
        own: Any = self.question.work.plan
        for hypothesis in hypotheses:
            wrong, right = _differing(own.program, hypothesis.work.plan.program)
            what = f", {wrong}" if wrong else ""
            instead = f"\n{own.kind.title} has {right}." if right else ""
            yield Diagnosis(
                keys=hypothesis.keys,
                text=f"Your numbers are what {hypothesis.work.gives} gives{what}.{instead}"
                f"   [{', '.join(hypothesis.keys)}]",
                max_error=hypothesis.max_error,
                right_formula=right,
                slipped_formula=wrong,
                first_cell=first_wrong(self.found),
            )


def _differing(own: Lines, other: Lines) -> tuple[str, str]:
    """The first lines that differ, as text: of the other, and of one's own."""
    for one, two in zip(other, own, strict=False):
        if one != two:
            return tuple(f"{line.name} = {spelled(line.value)}" for line in (one, two))  # type: ignore[return-value]
    return "", ""


def slipped(work: FreeWork) -> Iterator[FreeWork]:
    """The works with a slip in them, the commonest first; none twice."""
    seen = {(work.plan.program, work.plan.named_axes, work.plan.numbers)}
    for other in _slipped(work):
        mark = other.plan.program, other.plan.named_axes, other.plan.numbers
        if mark not in seen:
            seen.add(mark)
            yield other


def _slipped(work: FreeWork) -> Iterator[FreeWork]:
    plan = work.plan
    for key, rule, gives in _RULES:
        changed = rewritten(plan.program, rule)
        if changed is not None and changed != plan.program and _varies_as(plan, changed):
            yield replace(work, plan=replace(plan, program=changed), key=key, gives=gives)
    for name in plan.kind.profiles:
        if name != plan.convention.name and (other := _replanned(plan, {"convention": name})):
            yield replace(work, plan=other, key="other_convention", gives=f"the {name} convention")
    for p in (1.0, 2.0, math.inf):
        if "p" in plan.kind.options and (other := _replanned(plan, {"p": p})):
            yield replace(work, plan=other, key="p_other", gives=f"p = {p:g}")
    for names in _ALIKE:
        for name in sorted(names - {plan.kind.name}) if plan.kind.name in names else ():
            other = settled_further(FURTHER[name], plan.shape, plan.dtype, {"axes": plan.named_axes[0][1]})
            yield replace(work, plan=other, key=f"kind_{name}", gives=FURTHER[name].title)
    if plan.named_axes[0][1]:
        for axes in _other_axes(plan):
            words = f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}"
            sets = ((None, axes), *plan.named_axes[1:])
            other = replace(plan, named_axes=sets, layout=layout_over(plan.shape, axes, plan.layout.channels))
            yield replace(work, plan=other, key="axes_other", gives=f"taking {words} together")
    if "eps" in dict(plan.numbers):
        for eps in _EPS:
            numbers = tuple((name, eps if name == "eps" else value) for name, value in plan.numbers)
            yield replace(work, plan=replace(plan, numbers=numbers), key="eps_other", gives=f"eps {short(eps)}")


def _varies_as(plan: FreePlan, program: Lines) -> bool:
    """Whether the lines still go together."""
    known = extents(program, plan.space)
    return known[OUTPUT] <= frozenset(range(len(plan.shape))) and isinstance(program[-1], Line)


def _other_axes(plan: FreePlan) -> Iterator[tuple[int, ...]]:
    rank = len(plan.shape)
    if rank <= _MOST_RANK:
        for size in range(1, rank + 1):
            for axes in combinations(range(rank), size):
                if axes != plan.layout.axes and math.prod(plan.shape[axis] for axis in axes) > 1:
                    yield axes


def _replanned(plan: FreePlan, options: Mapping[str, Any]) -> FreePlan | None:
    """The plan of the same kind with other options, over the same axes; None where that cannot be."""
    if plan.kind.name not in FURTHER:
        return None
    own = {name: value for name, value in plan.options().items() if name in ("axes", "channel_axis", "size")}
    if "convention" not in options:
        own["convention"] = plan.convention.name
    there = dict.fromkeys([one.name for one in plan.tensors], True)
    try:
        return settled_further(plan.kind, plan.shape, plan.dtype, own | there | dict(options))
    except InputError:
        return None
