"""Is this answer right? If not, which slip gives exactly these numbers?

The verdict comes from the derived tolerance (``normcli.tolerance``). A diagnosis is a hypothesis
that was worked out in full (``normcli.slips``) and reproduces all the given numbers where the
right answer does not. Silence is better than a false name, so a hypothesis must also be unlikely
to fit by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.calculate import run
from normcli.digits import aligned
from normcli.errors import InputError, count
from normcli.plan import Plan, either
from normcli.report import Section
from normcli.result import Result, State
from normcli.slips import SLIPS, Reference, Slip, Work, Worked, formatted, pairs, right
from normcli.text import EXACT
from normcli.tolerance import Printed, Rounding, precision_of, propagated

Floats = NDArray[np.float64]
Index = tuple[int, ...]

QUANTITIES = (
    "mean", "mean_square", "var", "var_unbiased", "rstd", "normalized", "output", "running_mean", "running_var",
)  # fmt: skip
PARAMETERS = ("weight", "bias", "running_mean", "running_var")

_MOST_ROWS = 20  # of differing cells that a table shows
_MOST_TEXTS = 3  # of diagnoses that are explained in words; the others are named

# How unlikely a fit by chance must be, as a power of ten: there are dozens of slips, a thousand pairs.
_EVIDENCE, _EVIDENCE_OF_PAIR = 1.0, 4.0
_MOST_EVIDENCE = 3.0  # that a single cell gives
_MOST_CELLS_FOR_PAIRS = 20_000  # beyond, a thousand hypotheses would take many seconds


# --- what a check gives ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of an answer beside the exact one."""

    quantity: str
    index: Index
    yours: float
    exact: float

    @property
    def name(self) -> str:
        """Where the cell is: its quantity and its index."""
        return f"{self.quantity} ({', '.join(str(i) for i in self.index)})" if self.index else self.quantity


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One expected quantity: yours, the exact values, their difference and what is allowed, cell by cell."""

    name: str
    yours: Floats
    exact: Floats
    difference: Floats
    allowed: Floats
    decimals: int  # that the answer shows; EXACT for whole numbers and binary files

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """The cells that differ by more than is allowed."""
        return ~(self.difference <= self.allowed)

    def cells(self, where: NDArray[np.bool_]) -> Iterator[Cell]:
        """The cells in which ``where`` holds, in order."""
        for place in np.argwhere(where):
            index = tuple(int(i) for i in place)
            yield Cell(quantity=self.name, index=index, yours=float(self.yours[index]), exact=float(self.exact[index]))


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """An explanation that reproduces all the given numbers: the keys of its slips and words for people."""

    keys: tuple[str, ...]
    text: str
    max_error: float  # what the explanation still leaves
    right_formula: str
    slipped_formula: str
    first_cell: Cell | None  # the first in which the answer and the exact numbers part


@dataclass(frozen=True, kw_only=True)
class Check:
    """The verdict on an answer; ``nearest`` is the closest explanation where none reproduces the numbers."""

    quantities: tuple[Compared, ...]
    diagnoses: tuple[Diagnosis, ...] = ()
    apart: str = ""  # what would tell several diagnoses apart
    nearest: Diagnosis | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether every number is right, as far as its digits go."""
        return self.mismatches == 0

    @property
    def mismatches(self) -> int:
        """How many cells differ by more than is allowed."""
        return sum(int(quantity.wrong.sum()) for quantity in self.quantities)

    @property
    def cells(self) -> int:
        """How many numbers were given."""
        return sum(quantity.yours.size for quantity in self.quantities)

    @property
    def tolerance(self) -> float:
        """The largest difference that is allowed in any cell."""
        return max(float(quantity.allowed.max()) for quantity in self.quantities)

    @property
    def max_error(self) -> float:
        """The largest difference; infinite where one of the two is not a number."""
        return max(float(quantity.difference.max()) for quantity in self.quantities)

    @property
    def keys(self) -> list[tuple[str, ...]]:
        """The keys of the diagnoses, the simplest first."""
        return [diagnosis.keys for diagnosis in self.diagnoses]


def verdict(found: Check) -> str:
    """The verdict in one line.

    >>> from normcli.plan import plan
    >>> x = Printed.exactly(np.array([[1.0, 3.0]]))
    >>> answer = Printed(np.array([[-1.0, 1.0]]), np.array([[2, 2]]))
    >>> verdict(check(x, plan("layer", (1, 2), "float64", {}), State(), {"output": answer}))
    'checks: all 2 cells agree, to the 2 decimals given'
    """
    if found.ok:
        shown = [quantity.decimals for quantity in found.quantities if quantity.decimals != EXACT]
        precision = f", to the {count(max(0, *shown), 'decimal')} given" if shown else ""
        return f"checks: all {count(found.cells, 'cell')} agree{precision}" if found.cells > 1 else f"checks{precision}"
    what = f"{found.mismatches} of {count(found.cells, 'cell')} {'differs' if found.mismatches == 1 else 'differ'}"
    worst = max(_largest(quantity) for quantity in found.quantities if quantity.wrong.any())
    largest = f", {'the largest ' if found.mismatches > 1 else ''}by {_positional(worst[0], 4)}"
    if not math.isfinite(worst[0]):
        largest = ", one of them not a finite number" if found.mismatches > 1 else "; it is not a finite number"
    return f"does not check: {what}{largest} (allowed: {_positional(worst[1], 2)})"


def _largest(quantity: Compared) -> tuple[float, float]:
    """The largest difference among the wrong cells, and what is allowed there."""
    place = int(np.argmax(np.where(quantity.wrong, quantity.difference, -1.0)))
    return float(quantity.difference.flat[place]), float(quantity.allowed.flat[place])


def explanation(found: Check) -> list[str]:
    """The lines that follow the verdict: the slip in plain words, or that none is known."""
    if found.ok:
        return [found.note] if found.note else []
    lines = [line for diagnosis in found.diagnoses[:_MOST_TEXTS] for line in diagnosis.text.split("\n")]
    if also := found.diagnoses[_MOST_TEXTS:]:
        lines.append(f"They also fit {', '.join(_bracketed(diagnosis) for diagnosis in also)}.")
    if len(found.diagnoses) > 1:
        lines.append(f"These numbers cannot tell the {len(found.diagnoses)} explanations apart; {found.apart} would.")
    if not found.diagnoses:
        lines.append(" ".join(["No known slip explains these numbers.", *([found.note] if found.note else [])]))
        if found.nearest is not None:
            lines.append(
                f"The nearest, {_bracketed(found.nearest)}, still leaves {_positional(found.nearest.max_error, 4)}."
            )
    return lines


def section(found: Check, *, everything: bool = False) -> Section:
    """The table of the cells that differ (or of all): yours, exact, difference, allowed."""
    title, most = ("all cells", None) if everything else ("cells that differ", _MOST_ROWS)
    if most is not None and found.mismatches > most:
        title += f": the first {most} of {found.mismatches}"
    rows = (row for quantity in found.quantities for row in _rows(quantity, everything=everything))
    columns = ["cell", "yours", "exact", "difference", "allowed"]
    return Section(part="check", title=title, columns=columns, rows=list(islice(rows, most)))


def document(found: Check, *, cells: bool = False) -> dict[str, Any]:
    """The check as the JSON document has it: ok, tolerance, max_error, mismatches, diagnoses (and every cell)."""
    parts: dict[str, Any] = {
        "ok": found.ok,
        "tolerance": found.tolerance,
        "max_error": found.max_error,
        "mismatches": found.mismatches,
        "diagnoses": [_diagnosis_document(diagnosis) for diagnosis in found.diagnoses],
    }
    if cells:
        parts["cells"] = [
            {**vars(cell), "index": list(cell.index), "allowed": float(quantity.allowed[cell.index])}
            for quantity in found.quantities
            for cell in quantity.cells(np.ones_like(quantity.wrong))
        ]
    if len(found.diagnoses) > 1:
        parts["apart"] = found.apart
    if found.nearest is not None:
        parts["nearest"] = {"keys": list(found.nearest.keys), "max_error": found.nearest.max_error}
    return parts


def _diagnosis_document(diagnosis: Diagnosis) -> dict[str, Any]:
    cell = diagnosis.first_cell
    return {
        "keys": list(diagnosis.keys),
        "text": diagnosis.text.replace("\n", " "),
        "max_error": diagnosis.max_error,
        "right": diagnosis.right_formula,
        "slipped": diagnosis.slipped_formula,
        "first_cell": None if cell is None else {**vars(cell), "index": list(cell.index)},
    }


def _rows(quantity: Compared, *, everything: bool) -> Iterator[list[str]]:
    shown = quantity.decimals if quantity.decimals != EXACT else 6
    where = np.ones_like(quantity.wrong) if everything else quantity.wrong
    for cell in quantity.cells(where):
        difference, allowed = (float(values[cell.index]) for values in (quantity.difference, quantity.allowed))
        yield [
            cell.name,
            aligned([cell.yours], max(0, shown))[0],
            aligned([cell.exact], max(0, shown) + 2)[0],
            _positional(difference, 2),
            _positional(allowed, 2),
        ]


def _positional(value: float, digits: int) -> str:
    """The number with a few significant digits, as one reads it: no exponent unless it is tiny."""
    if not math.isfinite(value) or (value and abs(value) < 1e-8):
        return f"{value:.{digits}g}"
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-", unique=False)


def _bracketed(diagnosis: Diagnosis) -> str:
    return f"[{', '.join(diagnosis.keys)}]"


# --- checking -------------------------------------------------------------------------------------


def check(
    x: Printed,
    settled: Plan,
    state: State,
    expected: Mapping[str, Printed],
    *,
    parameters: Mapping[str, Printed] | None = None,
    decimals: int | None = None,
    input_decimals: int | None = None,
) -> Check:
    """Compare an answer with the exact result, and look for the slip where it is wrong.

    ``expected`` holds any of a Result's quantities, each in its shape; ``state`` is the layer's
    before this input, and ``parameters`` says with which decimals its numbers were written (exact
    where it is silent). ``decimals`` and ``input_decimals`` override what is written: EXACT there
    takes the numbers as they stand. Raises InputError for a quantity that this calculation does
    not have or an answer of another shape.

    >>> from normcli.plan import plan
    >>> x = Printed.exactly(np.array([[1.0, 2.0, 4.0]]))
    >>> answer = Printed(np.array([[-0.8729, -0.2182, 1.0911]]), np.full((1, 3), 4))
    >>> check(x, plan("layer", (1, 3), "float64", {}), State(), {"output": answer}).keys
    [('ddof1',)]
    """
    x = x.rounded_to(input_decimals)
    expected = {name: answer.rounded_to(decimals) for name, answer in expected.items()}
    exact = _exact(x, settled, state)
    _check_shapes(expected, exact)
    question = _Question(
        work=right(Reference(x.values), settled, state),
        answers=expected,
        rounding=_rounding(x, {name: given.rounded_to(input_decimals) for name, given in (parameters or {}).items()}),
        precision=_precision(expected, settled.dtype),
    )
    compared = tuple(question.compared(name, np.asarray(getattr(exact, name))) for name in expected)
    found = Check(quantities=compared)
    return _noted(found) if found.ok else _diagnosed(found, question)


def check_result(
    x: Printed,
    result: Result,
    answer: Printed,
    *,
    parameters: Mapping[str, Printed] | None = None,
    decimals: int | None = None,
    input_decimals: int | None = None,
) -> Check:
    """Check an answer for the output of a calculation that was done; ``x`` is what it was given."""
    return check(
        x,
        result.plan,
        result.before,
        {"output": answer},
        parameters=parameters,
        decimals=decimals,
        input_decimals=input_decimals,
    )


def _exact(x: Printed, settled: Plan, state: State) -> Result:
    """The reference's result in float64, whatever the input's dtype: an answer may show more digits than that holds."""
    return run(x.values, replace(settled, dtype="float64"), state, steps=True)


def _check_shapes(expected: Mapping[str, Printed], exact: Result) -> None:
    for name, answer in expected.items():
        computed = getattr(exact, name) if name in QUANTITIES else None
        if computed is None:
            known = [known for known in QUANTITIES if getattr(exact, known) is not None]
            raise InputError(f"{name} is not computed here; an answer can be given for {either(known)}")
        if np.shape(answer.values) != np.shape(computed):
            raise InputError(
                f"the answer for {name} has shape {np.shape(answer.values)}; {name} has shape {np.shape(computed)}"
            )


def _rounding(x: Printed, parameters: Mapping[str, Printed]) -> Rounding:
    return Rounding(x=x.half_units, **{name: given.half_units for name, given in parameters.items()})


def _precision(expected: Mapping[str, Printed], dtype: str) -> str:
    precisions = [precision_of(answer, dtype) for answer in expected.values()]
    return "float64" if "float64" in precisions else precisions[0]


@dataclass(frozen=True, kw_only=True)
class _Question:
    """An answer and all that is needed to judge a hypothesis about it."""

    work: Work
    answers: Mapping[str, Printed]
    rounding: Rounding
    precision: str

    @cached_property
    def allowed(self) -> Mapping[str, Floats]:
        """What is allowed in each cell of the right answer."""
        return self._allowed(self.work.done(), sharp=True)

    def compared(self, name: str, exact: Floats) -> Compared:
        answer = self.answers[name]
        return Compared(
            name=name,
            yours=answer.values,
            exact=exact,
            difference=_difference(answer.values, exact),
            allowed=self.allowed[name],
            decimals=answer.most_decimals,
        )

    def residual(self, work: Work) -> tuple[float, bool] | None:
        """The most that a hypothesis leaves in any cell, and whether that is within its own tolerance.

        None where it gives numbers of another shape.
        """
        worked = work.done()
        left = {}
        for name, answer in self.answers.items():
            given = worked.quantities.get(name)
            if given is None or given.shape != answer.values.shape:
                return None
            left[name] = _difference(answer.values, given)
        fits = all(
            all((left[name] <= allowed).all() for name, allowed in self._allowed(worked, sharp=sharp).items())
            for sharp in (False, True)  # the quick bound first
        )
        return max(float(values.max()) for values in left.values()), fits

    def _allowed(self, worked: Worked, *, sharp: bool) -> dict[str, Floats]:
        moved = propagated(worked, self.rounding, self.precision, sharp=sharp)
        return {name: answer.half_units_of_answer + moved[name] for name, answer in self.answers.items()}


def _difference(yours: Floats, exact: Floats) -> Floats:
    """The absolute difference: 0 between equal infinities or two NaNs, infinite where only one is finite."""
    same = (yours == exact) | (np.isnan(yours) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        apart = np.abs(yours - exact)
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def _noted(found: Check) -> Check:
    """The verdict with a word on the input's rounding, where only that lets a differing last digit pass."""
    excused = sum(
        int((quantity.difference > 10.0**-quantity.decimals).sum())
        for quantity in found.quantities
        if quantity.decimals != EXACT
    )
    note = (
        f"{count(excused, 'cell')} {'differs' if excused == 1 else 'differ'} in the last digit, "
        "as the rounding of the input allows; were the input exact, they would not check."
    )
    return replace(found, note=note) if excused else found


# --- the search for the slip ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Hypothesis:
    """One slip or two, the work changed by them, and the number that each slip's sentence names."""

    slips: tuple[Slip, ...]
    notes: tuple[str, ...]
    work: Work
    max_error: float = math.inf
    fits: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(slip.key for slip in self.slips)


@np.errstate(all="ignore")  # what a slip makes of numbers near the largest does not fit, and that is all
def _diagnosed(found: Check, question: _Question) -> Check:
    """The simplest explanations: one slip, a typing error or exchanged places, and only then two slips."""
    singles = list(_measured(_singles(question), question))
    evidence = _evidence(found)
    explained = [hypothesis for hypothesis in singles if hypothesis.fits and evidence >= _EVIDENCE]
    explained.sort(key=lambda hypothesis: hypothesis.slips[0].rare)
    diagnoses = [*_described(explained, found, question), *_typo(found), *_permuted(found)]
    if not diagnoses and evidence >= _EVIDENCE_OF_PAIR and found.cells <= _MOST_CELLS_FOR_PAIRS:
        explained = [hypothesis for hypothesis in _measured(_pairs(question), question) if hypothesis.fits]
        diagnoses = list(_described(explained, found, question))
    if not diagnoses:
        return _unexplained(found, singles, question)
    apart = _apart(explained, question) if len(diagnoses) > 1 else ""
    return replace(found, diagnoses=tuple(diagnoses), apart=apart)


def _unexplained(found: Check, singles: Sequence[_Hypothesis], question: _Question) -> Check:
    """The verdict with the slip that leaves least, where it leaves less than no slip at all."""
    tried = "" if found.cells <= _MOST_CELLS_FOR_PAIRS else "Two slips at a time were not tried on so many numbers."
    best = min(singles, key=lambda hypothesis: hypothesis.max_error, default=None)
    if best is None or not best.max_error < found.max_error:
        return replace(found, note=tried)
    return replace(found, nearest=next(_described([best], found, question)), note=tried)


def _singles(question: _Question) -> Iterator[_Hypothesis]:
    for slip in SLIPS:
        if slip.affects & question.answers.keys():
            for work in slip.works(question.work):
                yield _Hypothesis((slip,), (work.note,), work)


def _pairs(question: _Question) -> Iterator[_Hypothesis]:
    works = {slip.key: slip.works(question.work) for slip in SLIPS if slip.family}
    for first, second in pairs(frozenset(question.answers)):
        for once in works[first.key] if works[second.key] else ():
            for twice in second.works(replace(once, note="")):
                yield _Hypothesis((first, second), (once.note, twice.note), twice)


def _measured(hypotheses: Iterable[_Hypothesis], question: _Question) -> Iterator[_Hypothesis]:
    """The hypotheses that give numbers of the answer's shape, with what they leave."""
    for hypothesis in hypotheses:
        residual = question.residual(hypothesis.work)
        if residual is not None:
            yield replace(hypothesis, max_error=residual[0], fits=residual[1])


def _evidence(found: Check) -> float:
    """How unlikely a fit by chance is, as a power of ten: how many times its allowance the answer is off."""
    total = 0.0
    for quantity in found.quantities:
        if quantity.wrong.any():
            with np.errstate(divide="ignore"):
                cells = np.log10(quantity.difference.max() / quantity.allowed)
            total += float(np.clip(cells, 0.0, _MOST_EVIDENCE).sum())
    return total


def _typo(found: Check) -> Iterator[Diagnosis]:
    """A single odd cell among others that are all right."""
    if found.mismatches == 1 and found.cells > 2:
        cell = _first_wrong(found)
        decimals = next(quantity.decimals for quantity in found.quantities if quantity.name == cell.quantity)
        yours, belongs = (_fixed(value, decimals) for value in (cell.yours, cell.exact))
        yield Diagnosis(
            keys=("typo",),
            text=f"All other {found.cells - 1} cells are right; {cell.name} looks like a slip of the pen: "
            f"{yours} where {belongs} belongs.   [typo]",
            max_error=max(float(quantity.difference[~quantity.wrong].max(initial=0)) for quantity in found.quantities),
            right_formula=belongs,
            slipped_formula=yours,
            first_cell=cell,
        )


def _permuted(found: Check) -> Iterator[Diagnosis]:
    """The right values in the wrong places."""
    wrong = [quantity for quantity in found.quantities if quantity.wrong.any()]
    left = [_sorted_difference(quantity) for quantity in wrong]
    if all((difference <= allowed).all() for difference, allowed in left) and _evidence(found) >= _EVIDENCE:
        transposed = all(_is_transposed(quantity) for quantity in wrong)
        names = either(quantity.name for quantity in wrong)
        yield Diagnosis(
            keys=("permuted",),
            text=f"The values of {names} are right, but {found.mismatches} of them stand in the wrong places"
            f"{': rows and columns are exchanged' if transposed else ''}.   [permuted]",
            max_error=max(float(difference.max()) for difference, _ in left),
            right_formula="the order of the input",
            slipped_formula="rows and columns exchanged" if transposed else "another order",
            first_cell=_first_wrong(found),
        )


def _sorted_difference(quantity: Compared) -> tuple[Floats, Floats]:
    order = np.argsort(quantity.exact.ravel())
    return _difference(np.sort(quantity.yours.ravel()), quantity.exact.ravel()[order]), quantity.allowed.ravel()[order]


def _is_transposed(quantity: Compared) -> bool:
    *_, rows, columns = (1, 1, *quantity.yours.shape)
    if rows != columns:
        return False
    return bool((_difference(np.swapaxes(quantity.yours, -1, -2), quantity.exact) <= quantity.allowed).all())


def _first_wrong(found: Check) -> Cell:
    return next(cell for quantity in found.quantities for cell in quantity.cells(quantity.wrong))


def _apart(explained: Sequence[_Hypothesis], question: _Question) -> str:
    """What would tell the explanations apart: the number of decimals, where any number of them would."""
    firsts = {hypothesis.keys: hypothesis for hypothesis in reversed(explained)}
    answers = [hypothesis.work.done().quantities for hypothesis in firsts.values()]
    gaps = [
        max(float(_difference(one[name], other[name]).max()) for name in question.answers)
        for index, one in enumerate(answers)
        for other in answers[:index]
    ]
    gap = min(gaps, default=0.0)
    size = max(float(np.abs(answer.values).max()) for answer in question.answers.values())
    if 1e-13 * size < gap < 1:
        return f"printing {math.floor(-math.log10(gap)) + 1} decimals"
    return (
        either(dict.fromkeys(slip.tells for hypothesis in firsts.values() for slip in hypothesis.slips)) or "other data"
    )


# --- a diagnosis in words -------------------------------------------------------------------------


def _described(hypotheses: Sequence[_Hypothesis], found: Check, question: _Question) -> Iterator[Diagnosis]:
    """One diagnosis for each set of keys, with the numbers that its variants name."""
    by_keys: dict[tuple[str, ...], list[_Hypothesis]] = {}
    for hypothesis in hypotheses:
        by_keys.setdefault(hypothesis.keys, []).append(hypothesis)
    for keys, variants in by_keys.items():
        best = min(variants, key=lambda variant: variant.max_error)
        notes = [either(dict.fromkeys(each)) for each in zip(*(variant.notes for variant in variants), strict=True)]
        words = [_Words.of(slip, note, question.work.plan) for slip, note in zip(best.slips, notes, strict=True)]
        yield Diagnosis(
            keys=keys,
            text=f"{_sentences(words, question.work.plan.kind.title)}   [{', '.join(keys)}]",
            max_error=best.max_error,
            right_formula="; ".join(word.right for word in words),
            slipped_formula="; ".join(word.slipped for word in words),
            first_cell=_first_wrong(found),
        )


@dataclass(frozen=True)
class _Words:
    """A slip's words with the numbers filled in."""

    gives: str
    slipped: str
    instead: str
    right: str

    @classmethod
    def of(cls, slip: Slip, note: str, settled: Plan) -> _Words:
        return cls(*(formatted(text, note, settled) for text in (slip.gives, slip.slipped, slip.instead, slip.right)))


def _sentences(words: Sequence[_Words], title: str) -> str:
    if len(words) == 1:
        word = words[0]
        return f"Your numbers are what {word.gives} gives, {word.slipped}.\n{title} {word.instead}, {word.right}."
    slips = "; and ".join(f"{word.gives.rstrip(',')}, {word.slipped}" for word in words)
    rules = "; it ".join(f"{word.instead}, {word.right}" for word in words)
    return f"Your numbers are what two slips give together: {slips}.\n{title} {rules}."


def _fixed(value: float, decimals: int) -> str:
    return f"{value:.6g}" if decimals == EXACT else aligned([value], max(0, decimals))[0]
