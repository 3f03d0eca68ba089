"""Whether numbers are what somebody printed: a worked hypothesis (or the right work) against an answer.

There are several manners in which a right answer may differ from exact numbers, the strictest first:

- printed: rounded in the way in which it was printed, with no more than three units of its own last
  digit for the arithmetic that it may come from;
- plausible: the input was rounded where it was printed, which moves the answer by three units at most;
- cut: the digits that follow were cut off, not rounded;
- computed: whatever float32 or float64 arithmetic does to these numbers;
- rounded: whatever the rounding of the input and the parameters does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from normcli.planning.kinds import GRADIENTS
from normcli.teaching.figures import Figures
from normcli.teaching.printed import Printed, Reading
from normcli.teaching.sheet import grouped
from normcli.teaching.tolerance import Moved, Rounding, at_most, computed, propagated
from normcli.teaching.work import Work

Floats = NDArray[np.float64]

_GRADIENTS = frozenset(GRADIENTS)
_ELEMENTWISE = ("normalized", "output", "grad_input")
_PLAUSIBLE = 6  # half units of the last digit: an allowance far wider explains everything and so nothing
_MOST_COMPUTED = 0.1  # of the numbers' size that arithmetic may be off: no digit is right beyond
_FAR = 10  # times what a right gradient may be off that another one is never off, for its size
_TINY = np.finfo(np.float64).tiny
_USUAL = 5  # times that a cell is moved less than it may be by the rounding of the input
_DOUBT = 4.0  # how unlikely it may be, as a power of ten, that rounding leaves so many cells as they are


@dataclass(frozen=True)
class Judged:
    """One quantity of an answer under the reading that suits it best: what is allowed, and what is beyond."""

    reading: Reading
    allowed: Floats
    wrong: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Question:
    """An answer and all that is needed to judge a hypothesis about it.

    ``answers`` holds any of a Result's quantities, ``work`` is the right one and ``exact`` what it gives,
    also where its numbers leave float64 on the way; ``dtype`` is the input's.
    """

    work: Work
    exact: Mapping[str, Floats]  # what the reference gives
    answers: Mapping[str, Printed]
    x: Printed
    parameters: Mapping[str, Printed]
    dtype: str

    @cached_property
    def readings(self) -> Mapping[str, list[Reading]]:
        """The ways in which each answer may have been printed."""
        return {name: answer.readings(self.dtype) for name, answer in self.answers.items()}

    @cached_property
    def most(self) -> Mapping[str, tuple[Floats, float]]:
        """How far each answer may lie from exact numbers under any of its readings, and the coarsest unit of these."""
        return {
            name: (
                np.maximum.reduce([
                    2 * one.half_units + one.half_steps + difference(one.values, self.answers[name].values)
                    for one in readings
                ]),
                max(one.coarsest for one in readings),
            )
            for name, readings in self.readings.items()
        }  # fmt: skip

    @cached_property
    def usual(self) -> Mapping[str, float]:
        """How far the right gradients may be off."""
        right, rounded_ = computed(self.right.worked), propagated(self.right.worked, self.rounding)
        found = {}
        for name in _GRADIENTS & self.answers.keys():
            allowed = self.most[name][1] * right[name] + (rounded_[name] if self.may_be_rounded else 0.0)
            found[name] = float(allowed.max())
        return found

    @cached_property
    def sharpest(self) -> Mapping[str, float]:
        """What each answer may differ by in few units of its own last digit, under any of its readings."""
        return {name: max(one.least for one in readings) for name, readings in self.readings.items()}

    @cached_property
    def rounding(self) -> Rounding:
        """By how much the input and the parameters may be off, if they were rounded where they were printed."""
        given = {name: values.half_units for name, values in self.parameters.items()}
        return replace(Rounding(**given), x=self.x.half_units)  # type: ignore[arg-type]

    @cached_property
    def was_rounded(self) -> bool:
        """Whether somebody said, by an option or by pasting a print, that what can have been rounded was."""
        return self.x.pasted and self.may_be_rounded

    @property
    def is_binary(self) -> bool:
        """Whether the answers are numbers as arithmetic left them, in files, and not digits that somebody printed."""
        return all(answer.dtype is not None and not answer.shown.any() for answer in self.answers.values())

    @cached_property
    def may_be_rounded(self) -> bool:
        """Whether any number shows a last digit that may have been rounded."""
        return any(bool(given.half_units.any()) for given in (self.x, *self.parameters.values()))

    @cached_property
    def right(self) -> Hypothetical:
        """The right answer, judged in every manner."""
        return Hypothetical(self, Figures(self.work, self.exact))

    def hypothetical(self, work: Work) -> Hypothetical:
        """The numbers that a work gives, to be held against the answer."""
        return Hypothetical(self, Figures(work))


class Hypothetical:
    """The numbers of one work beside the answer; what is costly is worked out where it is asked for."""

    def __init__(self, question: Question, worked: Figures) -> None:
        self.question, self.worked = question, worked
        self._differences: dict[str, Floats] = {}

    @cached_property
    def fits_the_shape(self) -> bool:
        """Whether the work gives all the quantities of the answer, in its shapes."""
        return all(
            name in self.worked and self.worked.shape(name) == answer.values.shape
            for name, answer in self.question.answers.items()
        )

    def difference(self, name: str) -> Floats:
        """The absolute differences from the answer, cell by cell."""
        if name not in self._differences:
            self._differences[name] = difference(self.question.answers[name].values, self.worked[name])
        return self._differences[name]

    @property
    def max_error(self) -> float:
        """The most that is left in any cell."""
        return max(float(self.difference(name).max()) for name in self.question.answers)

    @cached_property
    def manner(self) -> str | None:
        """The strictest manner in which all the numbers fit; None where none does."""
        if self._is_far:
            return None
        if self.fits("computed"):  # what is sharp fits there too
            return "printed" if self.fits("printed") else "computed"
        if self.fits("cut"):
            return "cut"
        return "rounded" if self.question.may_be_rounded and self.fits("rounded") else None

    def fits(self, manner: str) -> bool:
        """Whether every number of the answer fits in that manner."""
        return all(
            any(not judged.wrong.any() for judged in self._ways(name, manner)) for name in self.question.answers
        ) and (manner != "rounded" or self.question.was_rounded or (self._has_an_input and not self._is_too_good))

    def judged(self, manner: str) -> dict[str, Judged]:
        """Every quantity under the reading that leaves the fewest cells, and of these the plainest."""
        return {
            name: min(self._ways(name, manner), key=lambda judged: int(judged.wrong.sum()))
            for name in self.question.answers
        }

    def _ways(self, name: str, manner: str) -> Iterator[Judged]:
        """A quantity under each of its readings; one may be rounded where another is cut off."""
        for each in ("printed", "cut") if manner == "cut" else (manner,):
            for reading in self.question.readings[name]:
                yield self._judged(name, reading, each)

    def _judged(self, name: str, reading: Reading, manner: str) -> Judged:
        exact = self.worked[name]
        left = difference(reading.values, exact)
        arithmetic = self._computed[name] * reading.arithmetic
        if manner == "printed":
            allowed = reading.sharp(arithmetic)
        elif manner == "computed":
            arithmetic = self._computed[name] * reading.coarsest
            allowed = reading.allowed(np.minimum(arithmetic, _MOST_COMPUTED * self._size(name)))
        elif manner == "held":  # rounded once to the dtype that holds it, and printed
            allowed = reading.allowed(arithmetic)
        elif manner == "rounded":
            allowed = reading.allowed(arithmetic + self._rounded[name])
        elif manner == "plausible":
            allowed = reading.allowed(arithmetic + self._rounded[name])
            allowed = np.where(allowed <= _PLAUSIBLE * reading.own, allowed, reading.sharp(arithmetic))
        else:
            outward = reading.outward(arithmetic)
            allowed = outward + 2 * reading.half_units
            yours = reading.values
            across = (np.sign(yours) * np.sign(exact) < 0) & (left > outward)
            with np.errstate(invalid="ignore"):
                away = (np.abs(yours) - np.abs(exact) > outward) | across
            return Judged(reading, allowed, ~(left <= allowed) | away)
        return Judged(reading, allowed, ~(left <= allowed))

    def _size(self, name: str) -> float:
        """How large the numbers of a quantity are, or would be if they were not all 0."""
        scale = {"normalized": 1.0, "output": float(np.abs(self.worked.weight).max())}.get(name, 0.0)
        values = np.abs(self.worked[name])
        return max(scale, float(values.max(initial=0.0, where=np.isfinite(values))))

    @cached_property
    def _computed(self) -> Moved:
        return computed(self.worked)

    @cached_property
    def _rounded(self) -> Moved:
        return propagated(self.worked, self.question.rounding)

    @property
    def _is_far(self) -> bool:
        """Whether some number is beyond what any manner and any reading allows, taken together."""
        if not self.question.may_be_rounded:
            for name, (most, _) in self.question.most.items():
                least = self.question.sharpest[name] + _MOST_COMPUTED * self._size(name)
                if float((self.difference(name) - most).max()) > least:
                    return True
        for name in _GRADIENTS & self.question.answers.keys():
            larger = max(1.0, self._size(name) / max(self.question.right._size(name), _TINY))
            if float((self.difference(name) - self.question.most[name][0]).max()) > (
                _FAR * larger * self.question.usual[name]
            ):
                return True
        if "output" in self.question.answers:
            most, unit = self.question.most["output"]
            left = float((self.difference("output") - most).max())
            if left > 0 and left > at_most(self.worked, self.question.rounding, unit):
                return True
        for name in sorted(self.question.answers, key=_ELEMENTWISE.__contains__):  # what costs least first
            most, unit = self.question.most[name]
            allowed = most + unit * self._computed[name]
            if self.question.may_be_rounded:
                allowed = allowed + self._rounded[name]
            if (self.difference(name) > allowed).any():
                return True
        return False

    @cached_property
    def _is_too_good(self) -> bool:
        """Whether so many cells are right to the last digit that no rounding of the input can be behind the others.

        Rounding moves every cell, as a rule by a fifth of what it may at the most: that says how likely
        it leaves a cell alone, to be held against the share of cells that it did leave alone.
        """
        judged = self.judged("rounded")
        name = next((name for name in ("output", "normalized") if name in judged), None)
        if name is None:  # a statistic may be a number that was given
            return False
        sharp = judged[name].reading.sharp(self._computed[name] * judged[name].reading.arithmetic)
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = _USUAL * sharp / judged[name].allowed
        moved = (chance > 0) & (chance < 1)
        chance, alone = chance[moved], (self.difference(name) <= sharp)[moved]
        if not alone.any():
            return False
        share = float(alone.mean())
        seen, expected = np.where(alone, share, 1 - share), np.where(alone, chance, 1 - chance)
        return bool(share > chance.mean() and np.log10(seen / expected).sum() > _DOUBT)

    @cached_property
    def _has_an_input(self) -> bool:
        """Whether some input, rounded to what was typed, has this answer.

        First-order propagation asks each cell alone. Normalized numbers also have mean 0 and the
        variance v / (v + eps) together, whatever the input was.
        """
        worked = self.worked
        if not worked.from_batch or "output" in worked.work.made.report:
            return True
        return all(
            any(
                self._is_normalized(name, reading)
                for reading in self.question.readings[name]
                if not self._judged(name, reading, "rounded").wrong.any()
            )
            for name in ("output", "normalized")
            if name in self.question.answers
        )

    def _is_normalized(self, name: str, reading: Reading) -> bool:
        worked, rounding = self.worked, self.question.rounding
        off = reading.allowed(self._computed[name] * reading.arithmetic)
        y, u, h = (
            grouped(np.broadcast_to(values, worked.plan.shape), worked.layout)
            for values in (self.question.answers[name].values, off, rounding.x)
        )
        with np.errstate(all="ignore"):
            if name == "output":
                y = (y - worked.bias) / worked.weight
                u = u + worked.by_channel(rounding.bias) + np.abs(y) * worked.by_channel(rounding.weight)
                u = u / np.abs(worked.weight)
            v, moved = _mean(worked.centered**2), _mean(2 * np.abs(worked.centered) * h + h * h)
            squares = [
                value / worked.denominator(value * (worked.count / worked.divisor)) ** 2
                for value in (np.maximum(v - moved, 0), v, v + moved)
            ]
            low, high = np.minimum.reduce(squares), np.maximum.reduce(squares)
            square, slack = _mean(y * y), _mean(2 * np.abs(y) * u + u * u)
            known = np.isfinite(square + slack + low + high)
            scale = (low - slack <= square) & (square <= high + slack)
            place = (np.abs(_mean(y - worked.normalized)) <= _mean(u)) | (not worked.program.centers)
        return bool((scale & place | ~known).all())


def _mean(values: Floats) -> Floats:
    """The mean of each group of statistics."""
    found: Floats = values.mean(axis=1, keepdims=True)
    return found


def difference(yours: Floats, exact: Floats) -> Floats:
    """The absolute difference: 0 between equal infinities or two NaNs, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(yours - exact)
    if np.isfinite(apart).all():
        return apart
    same = (yours == exact) | (np.isnan(yours) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
