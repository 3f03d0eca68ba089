"""Which slip gives exactly these numbers?

A diagnosis is a hypothesis that was worked out in full (``normcli.teaching.slips``) and reproduces all the
given numbers where the right answer does not. Silence is better than a false name, so a hypothesis
must also be unlikely to fit by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from normcli.planning.plan import Plan
from normcli.teaching.judgement import Hypothetical, Question, difference
from normcli.teaching.slips import KEYS, SLIPS, Slip, Work, formatted, pairs
from normcli.teaching.verdict import Check, Compared, Diagnosis, first_wrong
from normcli.words import either

Floats = NDArray[np.float64]

# How unlikely a fit by chance must be, as a power of ten: there are dozens of slips, a thousand pairs.
_EVIDENCE, _EVIDENCE_OF_PAIR = 1.0, 5.0
_ROOM = 10.0  # times its allowance that a cell must be off to count where rounded inputs leave much room
_EVIDENCE_OF_ONE = 2.5  # where a single number is all that there is to fit
_MOST_EVIDENCE = 3.0  # that a single cell gives
_MOST_CELLS_FOR_PAIRS = 20_000  # beyond, a thousand hypotheses would take many seconds
_EVIDENCE_OF_PART = 2.0  # where one number is to explain a channel, row or sample
_NEAR = 0.5  # of the difference that the nearest slip may leave: more is no nearer than the right answer
_MOST_NOTES = 4  # of the variants of a slip that are named
_LEAST_CELLS = 3  # all but one of which are right where that one is a slip of the pen
_MOST_AXES = 5  # of an answer that is held against every order of its axes


@dataclass(frozen=True)
class _Hypothesis:
    """One slip or two, the number that each slip's sentence names, and how the answer fits."""

    slips: tuple[Slip, ...]
    notes: tuple[str, ...]
    work: Work
    max_error: float
    manner: str | None
    evidence: float = 0.0  # how unlikely it is that it fits by chance, as a power of ten

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(slip.key for slip in self.slips)


class Search:
    """The search for the slip behind a wrong answer; what was tried once is kept."""

    def __init__(self, question: Question, found: Check) -> None:
        self.question, self.found = question, found

    def single(self, manners: Sequence[str], *, late: bool = True) -> Check | None:
        """The verdict with the slips that explain every number in one of these manners, if any does."""
        tried = [hypothesis for hypothesis in self._singles if late or not hypothesis.slips[0].late]
        found = self._explained(tried, manners, _EVIDENCE)
        if found is None or not all(KEYS[key].crude for (key,) in found.keys):
            return found
        also = self.pair(manners)
        apart = "more decimals or other data"
        return replace(found, diagnoses=also.diagnoses + found.diagnoses, apart=apart) if also else found

    def pair(self, manners: Sequence[str]) -> Check | None:
        """The same for two slips together."""
        if not self._tries_pairs or self._evidence(self.question.right, manners[0]) < _EVIDENCE_OF_PAIR:
            return None
        return self._explained(self._pairs, manners, _EVIDENCE_OF_PAIR)

    def pen(self) -> Check | None:
        """The verdict where the numbers are right but for one cell, their places, or one part's scale."""
        if self._evidence(self.question.right, "computed") < _EVIDENCE:
            return None
        cells = [_Cells(quantity) for quantity in self.found.quantities]
        diagnoses = [*_typo(self.found, cells), *_permuted(self.found, cells), *self._scaled(cells)]
        return replace(self.found, diagnoses=tuple(diagnoses[:1])) if diagnoses else None

    def unexplained(self) -> Check:
        """The verdict with where the wrong cells lie, and the slip that leaves least where that is less than none.

        A single odd cell is a slip of the pen here, however little it is off.
        """
        if odd := list(_typo(self.found, [_Cells(quantity) for quantity in self.found.quantities])):
            return replace(self.found, diagnoses=tuple(odd))
        tried = "" if self._tries_pairs else "Two slips at a time were not tried on so many numbers."
        found = replace(self.found, note=tried, where=self._where())
        best = min(self._singles, key=lambda hypothesis: hypothesis.max_error, default=None)
        if best is None or not best.max_error < _NEAR * found.max_error:
            return found
        return replace(found, nearest=next(self._described([best])))

    @property
    def _tries_pairs(self) -> bool:
        return self.found.cells <= _MOST_CELLS_FOR_PAIRS

    @cached_property
    def _singles(self) -> list[_Hypothesis]:
        return list(self._measured(_singles(self.question)))

    @cached_property
    def _pairs(self) -> list[_Hypothesis]:
        return [hypothesis for hypothesis in self._measured(_pairs(self.question)) if hypothesis.manner]

    def _measured(self, hypotheses: Iterable[tuple[tuple[Slip, ...], tuple[str, ...], Work]]) -> Iterator[_Hypothesis]:
        """The hypotheses that give numbers of the answer's shape, with what they leave."""
        for slips, notes, work in hypotheses:
            hypothetical = self.question.hypothetical(work)
            if hypothetical.fits_the_shape:
                manner = hypothetical.manner
                evidence = self._evidence(hypothetical, manner) if manner else 0.0
                yield _Hypothesis(slips, notes, work, hypothetical.max_error, manner, evidence)

    def _explained(self, tried: list[_Hypothesis], manners: Sequence[str], least: float) -> Check | None:
        if self.found.cells == 1:
            least = max(least, _EVIDENCE_OF_ONE)
        explained = [one for one in tried if one.manner in manners and one.evidence >= least]
        if not explained:
            return None
        explained.sort(key=lambda hypothesis: any(slip.rare for slip in hypothesis.slips))
        diagnoses = tuple(self._described(explained))
        return replace(self.found, diagnoses=diagnoses, apart=self._apart(explained) if len(diagnoses) > 1 else "")

    def _evidence(self, hypothetical: Hypothetical, manner: str) -> float:
        """How many times what the hypothesis allows each cell is off from the right answer, as powers of ten."""
        total = 0.0
        for name, judged in hypothetical.judged(manner).items():
            left = self.question.right.differences[name]
            room = _ROOM if manner == "rounded" and not self.question.was_rounded else 1.0
            with np.errstate(divide="ignore", invalid="ignore"):
                cells = np.nan_to_num(np.log10(left / judged.allowed / room), nan=0.0)
            total += float(np.clip(cells, 0.0, _MOST_EVIDENCE).sum())
        return total

    # --- what the wrong cells have in common ----------------------------------------------------------

    def _scaled(self, cells: list[_Cells]) -> Iterator[Diagnosis]:
        """One channel, row or sample that is the right one times a number, or plus a number."""
        wrong = [one for one in cells if one.wrong.any()]
        if len(wrong) != 1 or (part := _part(wrong[0], self.question.work.plan)) is None:
            return
        for key, words in (("scaled", wrong[0].factor), ("shifted", wrong[0].shift)):
            if words and wrong[0].evidence >= _EVIDENCE_OF_PART:
                yield Diagnosis(
                    keys=(key,),
                    text=f"All other cells are right; in {part} {words}.   [{key}]",
                    max_error=max(float(one.left[~one.wrong].max(initial=0)) for one in cells),
                    right_formula="yours = exact",
                    slipped_formula=words,
                    first_cell=first_wrong(self.found),
                )

    def _where(self) -> str:
        """Where the wrong cells lie, and how they differ from the exact ones, if that can be said."""
        said = []
        for quantity in self.found.quantities:
            cells = _Cells(quantity)
            part = _part(cells, self.question.work.plan)
            how = cells.factor or cells.shift if cells.wrong.sum() > 1 else ""
            if part is None and how and cells.wrong.mean() > 0.5:
                said.append(f"In every wrong cell of {quantity.name} {how}.")
            elif part is not None and cells.wrong.sum() > 1:
                said.append(f"The wrong cells of {quantity.name} all lie in {part}{f': {how}' if how else ''}.")
        return " ".join(said)

    # --- in words -------------------------------------------------------------------------------------

    def _described(self, hypotheses: Sequence[_Hypothesis]) -> Iterator[Diagnosis]:
        """One diagnosis for each set of keys, with the numbers that its variants name."""
        by_keys: dict[tuple[str, ...], list[_Hypothesis]] = {}
        for hypothesis in hypotheses:
            by_keys.setdefault(hypothesis.keys, []).append(hypothesis)
        settled = self.question.work.plan
        for keys, variants in by_keys.items():
            best = min(variants, key=lambda variant: variant.max_error)
            notes = [_several(dict.fromkeys(each)) for each in zip(*(one.notes for one in variants), strict=True)]
            words = [_Words.of(slip, note, settled) for slip, note in zip(best.slips, notes, strict=True)]
            yield Diagnosis(
                keys=keys,
                text=f"{_sentences(words, settled.kind.title)}   [{', '.join(keys)}]",
                max_error=best.max_error,
                right_formula="; ".join(word.right for word in words),
                slipped_formula="; ".join(word.slipped for word in words),
                first_cell=first_wrong(self.found),
            )

    def _apart(self, explained: Sequence[_Hypothesis]) -> str:
        """What would tell the explanations apart: the number of decimals, where any number of them would."""
        firsts = {hypothesis.keys: hypothesis for hypothesis in reversed(explained)}
        given = self.question.answers
        answers = [hypothesis.work.done().quantities for hypothesis in firsts.values()]
        gaps = [
            max(float(difference(one[name], other[name]).max()) for name in given)
            for index, one in enumerate(answers)
            for other in answers[:index]
        ]
        gap = min(gaps, default=0.0)
        size = max(float(np.abs(answer.values).max()) for answer in given.values())
        if 1e-13 * size < gap < 1:
            return f"printing {math.floor(-math.log10(gap)) + 1} decimals"
        shape = self.question.work.plan.shape
        told = dict.fromkeys(slip.apart(shape) for hypothesis in firsts.values() for slip in hypothesis.slips)
        return "; or ".join([words for words in told if words] or ["other data"])


def _several(notes: Iterable[str]) -> str:
    """What the variants of a slip name, of many the first few.

    >>> _several(["0.001", "0.0001", "1e-06", "1e-07", "1e-12"])
    '0.001, 0.0001 or 3 others'
    """
    named = list(notes)
    return either(named if len(named) <= _MOST_NOTES else [*named[:2], f"{len(named) - 2} others"])


def _singles(question: Question) -> Iterator[tuple[tuple[Slip, ...], tuple[str, ...], Work]]:
    for slip in SLIPS:
        if slip.affects & question.answers.keys():
            for work in slip.works(question.work):
                yield (slip,), (work.note,), work


def _pairs(question: Question) -> Iterator[tuple[tuple[Slip, ...], tuple[str, ...], Work]]:
    works = {slip.key: slip.works(question.work) for slip in SLIPS if slip.family}
    for first, second in pairs(frozenset(question.answers)):
        for once in works[first.key] if works[second.key] else ():
            for twice in second.works(replace(once, note="")):
                yield (first, second), (once.note, twice.note), twice


@dataclass(frozen=True)
class _Words:
    """A slip's words with the numbers filled in."""

    gives: str
    slipped: str
    instead: str
    right: str
    where: str
    itself: bool

    @classmethod
    def of(cls, slip: Slip, note: str, settled: Plan) -> _Words:
        words = [formatted(text, note, settled) for text in (slip.gives, slip.slipped, slip.instead, slip.right)]
        usual = slip.conventional and settled.running_ddof == settled.convention.running_ddof
        gives, slipped, instead, right = words
        return cls(gives, slipped, instead, right, f" in {settled.convention.title}" if usual else "", slip.itself)


def _sentences(words: Sequence[_Words], title: str) -> str:
    if len(words) == 1:
        word = words[0]
        gives = word.gives if word.itself else f"what {word.gives} gives"
        return f"Your numbers are {gives}, {word.slipped}.\n{title}{word.where} {word.instead}, {word.right}."
    slips = "; and ".join(f"{word.gives.rstrip(',')}, {word.slipped}" for word in words)
    rules = "; it ".join(f"{word.instead}{word.where}, {word.right}" for word in words)
    return f"Your numbers are what two slips give together: {slips}.\n{title} {rules}."


# --- answers that are right but for the pen ---------------------------------------------------------


class _Cells:
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
        cells = np.sort(np.clip(np.log10(self.left[self.wrong] / self.allowed[self.wrong]), 0, _MOST_EVIDENCE))
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


def _part(cells: _Cells, settled: Plan) -> str | None:
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


def _typo(found: Check, cells: list[_Cells]) -> Iterator[Diagnosis]:
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


def _permuted(found: Check, cells: list[_Cells]) -> Iterator[Diagnosis]:
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


def _sorted_difference(one: _Cells) -> tuple[Floats, Floats]:
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
        difference=question.right.differences[name].transpose(order),
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
