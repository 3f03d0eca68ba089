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

import numpy as np
from numpy.typing import NDArray

from normcli.planning.kinds import PARAMETERS
from normcli.planning.plan import Plan
from normcli.teaching.figures import Figures
from normcli.teaching.judgement import Hypothetical, Question, difference
from normcli.teaching.pen import MOST_EVIDENCE, Cells, part_of, permuted, scaled, typo
from normcli.teaching.slip import Slip
from normcli.teaching.slips import KEYS, SLIPS, formatted, pairs
from normcli.teaching.summed import summed_otherwise
from normcli.teaching.verdict import Check, Diagnosis, first_wrong
from normcli.teaching.work import Work
from normcli.words import either

Floats = NDArray[np.float64]

# How unlikely a fit by chance must be, as a power of ten: there are dozens of slips, a thousand pairs.
_EVIDENCE, _EVIDENCE_OF_PAIR = 1.0, 5.0
_ROOM = 10.0  # times its allowance that a cell must be off to count where rounded inputs leave much room
_EVIDENCE_OF_ONE = 2.5  # where a single number is all that there is to fit
_MOST_CELLS_FOR_PAIRS = 20_000  # beyond, a thousand hypotheses would take many seconds
_NEAR = 0.5  # of the difference that the nearest slip may leave: more is no nearer than the right answer
_MOST_NOTES = 4  # of the variants of a slip that are named


@dataclass(frozen=True)
class _Hypothesis:
    """One slip or two, the number that each slip's sentence names, and how the answer fits."""

    slips: tuple[Slip, ...]
    notes: tuple[str, ...]
    work: Work
    question: Question
    manner: str | None
    evidence: float = 0.0  # how unlikely it is that it fits by chance, as a power of ten

    @cached_property
    def max_error(self) -> float:
        """The most that it leaves in any cell."""
        return self.question.hypothetical(self.work).max_error

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
        cells = [Cells(quantity) for quantity in self.found.quantities]
        diagnoses = [
            *self._summed(cells),
            *typo(self.found, cells),
            *permuted(self.found, cells),
            *scaled(self.found, cells, self.question.work.plan),
        ]
        return replace(self.found, diagnoses=tuple(diagnoses[:1])) if diagnoses else None

    def _summed(self, cells: Sequence[Cells]) -> Iterator[Diagnosis]:
        """That all wrong numbers are sums over other axes."""
        wrong = {cell.quantity.name for cell in cells if cell.wrong.any()}
        if wrong <= set(PARAMETERS):
            found = {name: diagnosis for name, _, diagnosis in summed_otherwise(self.question)}
            if wrong <= found.keys():
                yield from (found[name] for name in sorted(wrong)[-1:])

    def unexplained(self) -> Check:
        """The verdict with where the wrong cells lie, and the slip that leaves least where that is less than none.

        A single odd cell is a slip of the pen here, however little it is off.
        """
        if odd := list(typo(self.found, [Cells(quantity) for quantity in self.found.quantities])):
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
                yield _Hypothesis(slips, notes, work, self.question, manner, evidence)

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
            left = self.question.right.difference(name)
            room = _ROOM if manner == "rounded" and not self.question.was_rounded else 1.0
            with np.errstate(divide="ignore", invalid="ignore"):
                cells = np.nan_to_num(np.log10(left / judged.allowed / room), nan=0.0)
            total += float(np.clip(cells, 0.0, MOST_EVIDENCE).sum())
        return total

    # --- what the wrong cells have in common ----------------------------------------------------------

    def _where(self) -> str:
        """Where the wrong cells lie, and how they differ from the exact ones, if that can be said."""
        said = []
        for quantity in self.found.quantities:
            cells = Cells(quantity)
            part = part_of(cells, self.question.work.plan)
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
        answers = [Figures(hypothesis.work) for hypothesis in firsts.values()]
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
                yield (slip,), (work.made.note,), work


def _pairs(question: Question) -> Iterator[tuple[tuple[Slip, ...], tuple[str, ...], Work]]:
    works = {slip.key: slip.works(question.work) for slip in SLIPS if slip.family}
    for first, second in pairs(frozenset(question.answers)):
        for once in works[first.key] if works[second.key] else ():
            for twice in second.works(once):
                yield (first, second), (once.made.note, twice.made.note), twice


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
