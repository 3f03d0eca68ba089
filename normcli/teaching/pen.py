"""Answers that are right but for the pen: one odd cell, right values in wrong places, one part times a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from normcli.planning.plan import Plan
from normcli.teaching.judgement import Question, difference
from normcli.teaching.verdict import Check, Compared, Diagnosis, first_wrong
from normcli.words import either

Floats = NDArray[np.float64]

MOST_EVIDENCE = 3.0  # that a single cell gives
_EVIDENCE_OF_PART = 2.0  # where one number is to explain a channel, row or sample
_LEAST_CELLS = 3  # all but one of which are right where that one is a slip of the pen
_MOST_AXES = 5  # of an answer that is held against every order of its axes


class Cells:
    """One quantity's wrong cells, and what they have in common."""

    def __init__(self, quantity: Compared) -> None:
        self.quantity, self.allowed, self.wrong = quantity, quantity.allowed, quantity.wrong
        self.left = quantity.difference

    @cached_property
    def factor(self) -> str:
        """In words by what the wrong cells are multiplied; empty where it is not one number."""
        yours, exact, allowed = self._sides
        usable = np.abs(exact) > 0
        if not usable.any() or not np.isfinite(yours).all() or not np.isfinite(exact).all():
            return ""
        at = int(np.argmax(np.where(usable, np.abs(exact) / allowed, -1)))
        low, high = sorted(float((yours[at] + sign * allowed[at]) / exact[at]) for sign in (-1, 1))
        return f"yours = {_plainest(low, high)} x exact" if self._same(yours - exact * (low + high) / 2, exact) else ""

    @cached_property
    def shift(self) -> str:
        """In words what is added to the wrong cells; empty where it is not one number."""
        yours, exact, allowed = self._sides
        if not np.isfinite(yours - exact).all():
            return ""
        at = int(np.argmin(allowed))
        middle = float(yours[at] - exact[at])
        plainest = _plainest(middle - float(allowed[at]), middle + float(allowed[at]))
        return f"yours = exact {'-' if middle < 0 else '+'} {plainest.lstrip('-')}" if self._same(
            yours - exact - middle, np.ones_like(exact)
        ) else ""  # fmt: skip

    @cached_property
    def evidence(self) -> float:
        """How unlikely it is that one number explains all the wrong cells by chance, as a power of ten."""
        cells = np.sort(np.clip(np.log10(self.left[self.wrong] / self.allowed[self.wrong]), 0, MOST_EVIDENCE))
        return float(cells[:-1].sum())

    @property
    def _sides(self) -> tuple[Floats, Floats, Floats]:
        return self.quantity.yours[self.wrong], self.quantity.exact[self.wrong], self.allowed[self.wrong]

    def _same(self, left: Floats, slope: Floats) -> bool:
        """Whether what a fitted number leaves is within what is allowed, the number's own doubt included."""
        _, _, allowed = self._sides
        doubt = np.abs(slope) * float((allowed / np.maximum(np.abs(slope), 1e-300)).min())
        return len(left) > 1 and bool((np.abs(left) <= allowed + doubt).all())


def _plainest(low: float, high: float) -> str:
    """The number with the fewest digits between two bounds."""
    for digits in range(1, 17):
        text = f"{(low + high) / 2:.{digits}g}"
        if low <= float(text) <= high:
            return np.format_float_positional(float(text), trim="-")
    return repr((low + high) / 2)


def part_of(cells: Cells, settled: Plan) -> str | None:
    """The one channel, row, column or sample that holds all the wrong cells; None where there is none."""
    places, shape = np.argwhere(cells.wrong), cells.wrong.shape
    if shape != settled.shape or not len(places):
        return None
    channel = settled.layout.channel_axis if "channel_axis" in settled.kind.options else None
    last = len(shape) - 1
    for axis in sorted(range(len(shape)), key=lambda axis: axis != channel):
        first = int(places[0, axis])
        if shape[axis] > 1 and (places[:, axis] == first).all() and len(shape) > 1:
            names = {last: "column", last - 1: "row"} | (
                {0: "sample", channel: "channel"} if channel is not None else {}
            )
            return f"{names.get(axis, f'axis {axis}, place')} {first}"
    return None


def typo(found: Check, cells: list[Cells]) -> Iterator[Diagnosis]:
    """A single odd cell among others that are all right."""
    if found.cells < _LEAST_CELLS or sum(int(one.wrong.sum()) for one in cells) != 1:
        return
    one = next(one for one in cells if one.wrong.any())
    cell = one.quantity.cell(tuple(np.argwhere(one.wrong)[0]))
    yours, belongs = (one.quantity.shown(cell, value) for value in (cell.yours, cell.exact))
    yield Diagnosis(
        keys=("typo",),
        text=f"All other {found.cells - 1} cells are right; {cell.name} looks like a slip of the pen: "
        f"{yours} where {belongs} belongs.   [typo]",
        max_error=max(float(one.left[~one.wrong].max(initial=0)) for one in cells),
        right_formula=belongs,
        slipped_formula=yours,
        first_cell=cell,
    )


def scaled(found: Check, cells: list[Cells], settled: Plan) -> Iterator[Diagnosis]:
    """One channel, row or sample that is the right one times a number, or plus a number."""
    wrong = [one for one in cells if one.wrong.any()]
    if len(wrong) != 1 or (part := part_of(wrong[0], settled)) is None:
        return
    for key, words in (("scaled", wrong[0].factor), ("shifted", wrong[0].shift)):
        if words and wrong[0].evidence >= _EVIDENCE_OF_PART:
            yield Diagnosis(
                keys=(key,),
                text=f"All other cells are right; in {part} {words}.   [{key}]",
                max_error=max(float(one.left[~one.wrong].max(initial=0)) for one in cells),
                right_formula="yours = exact",
                slipped_formula=words,
                first_cell=first_wrong(found),
            )


def permuted(found: Check, cells: list[Cells]) -> Iterator[Diagnosis]:
    """The right values in the wrong places."""
    wrong = [one for one in cells if one.wrong.any()]
    left = [_sorted_difference(one) for one in wrong]
    if not wrong or not all((apart <= allowed).all() for apart, allowed in left):
        return
    names = either(one.quantity.name for one in wrong)
    orders = {_order_of_axes(one.quantity.yours, one.quantity.exact, one.allowed) for one in wrong}
    order = orders.pop() if len(orders) == 1 else None
    how = _order_words(order)
    yield Diagnosis(
        keys=("permuted",),
        text=f"The values of {names} are right, but {sum(int(one.wrong.sum()) for one in wrong)} of them stand in "
        f"the wrong places{f': {how}' if how else ''}.   [permuted]",
        max_error=max(float(apart.max()) for apart, _ in left),
        right_formula="the order of the input",
        slipped_formula=how or "another order",
        first_cell=first_wrong(found),
    )


def _sorted_difference(one: Cells) -> tuple[Floats, Floats]:
    order = np.argsort(one.quantity.exact.ravel())
    yours, exact = np.sort(one.quantity.yours.ravel()), one.quantity.exact.ravel()[order]
    return difference(yours, exact), one.allowed.ravel()[order]


def _order_of_axes(yours: Floats, exact: Floats, allowed: Floats) -> tuple[int, ...] | None:
    """The order of the output's axes that gives the answer; None where none does."""
    if exact.ndim > _MOST_AXES or sorted(yours.shape) != sorted(exact.shape):
        return None
    for order in permutations(range(exact.ndim)):
        if order != tuple(range(exact.ndim)) and exact.transpose(order).shape == yours.shape:
            apart, within = difference(yours, exact.transpose(order)), allowed.transpose(order)
            if (apart <= within).all():
                return order
    return None


def _order_words(order: tuple[int, ...] | None) -> str:
    if order is None:
        return ""
    if order == (*range(len(order) - 2), len(order) - 1, len(order) - 2):
        return "rows and columns are exchanged"
    return f"yours has axes {', '.join(map(str, order))} of the output's"


def transposed(question: Question) -> Check | None:
    """The verdict on an answer whose shape is the output's with the axes in another order; None if it is not that."""
    ((name, answer),) = question.answers.items()
    exact = question.exact[name]
    if exact.ndim > _MOST_AXES or sorted(answer.values.shape) != sorted(exact.shape):
        return None
    for order in permutations(range(exact.ndim)):
        if exact.transpose(order).shape != answer.values.shape:
            continue
        back = np.argsort(order)
        straight = replace(answer, values=answer.values.transpose(back), decimals=answer.decimals.transpose(back))
        turned = replace(question, answers={name: straight})
        if turned.right.fits("rounded" if question.was_rounded else "computed"):
            return _turned(turned, name, order)
    return None


def _turned(question: Question, name: str, order: tuple[int, ...]) -> Check:
    """The verdict on an answer that is right but for the order of its axes; ``question`` has it the right way."""
    judged = question.right.judged("computed")[name]
    yours, exact = (values.transpose(order) for values in (question.answers[name].values, question.exact[name]))
    axes = ", ".join(map(str, order))
    compared = Compared(
        name=name,
        yours=yours,
        exact=exact,
        difference=question.right.difference(name).transpose(order),
        allowed=judged.allowed.transpose(order),
        own=judged.reading.own.transpose(order),
        wrong=np.ones(yours.shape, bool),  # where they stand
    )
    diagnosis = Diagnosis(
        keys=("transposed",),
        text=f"The values are right, and the axes in another order: "
        f"yours is {yours.shape}: axes {axes} of the {name}'s.   [transposed]",
        max_error=question.right.max_error,
        right_formula="the axes of the input",
        slipped_formula=f"axes {axes}",
        first_cell=None,
    )
    shapes = f"the answer's shape is {yours.shape}, the {name}'s {question.answers[name].values.shape}"
    return Check(quantities=(compared,), turned=shapes, diagnoses=(diagnosis,))
