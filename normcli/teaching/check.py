"""Is this answer right? If not, which slip gives exactly these numbers?

The verdict is the first of these that holds. The answer is right for the numbers as they stand. A
slip reproduces every cell, and rounded inputs do not plausibly explain what is left. The answer is
right if the input was rounded where it was printed. A slip reproduces every cell if it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli import teaching
from normcli.arithmetic.result import Result, State
from normcli.calculate import run
from normcli.dtypes import DTYPES
from normcli.errors import InputError
from normcli.planning.kinds import GRADIENTS, PARAMETERS, quantities
from normcli.planning.plan import Plan
from normcli.teaching.diagnosis import Search
from normcli.teaching.judgement import Question, difference
from normcli.teaching.pen import transposed
from normcli.teaching.printed import Printed
from normcli.teaching.sheet import Sheet
from normcli.teaching.slips import KEYS, formatted
from normcli.teaching.summed import long, of_another_shape
from normcli.teaching.verdict import Check, Compared
from normcli.teaching.work import right
from normcli.words import count, either

_ASSUMES = {"plausible": "rounded_input", "rounded": "rounded_input", "cut": "truncated_answer"}


def check(
    x: Printed,
    settled: Plan,
    state: State,
    expected: Mapping[str, Printed],
    *,
    grad_output: NDArray[np.floating] | None = None,
    parameters: Mapping[str, Printed] | None = None,
    decimals: int | None = None,
    input_decimals: int | None = None,
    within: Mapping[str, float] = MappingProxyType({}),
) -> Check:
    """Compare an answer with the exact result, and look for the slip where it is wrong.

    ``expected`` holds any of a Result's quantities, each in its shape, gradients of sum(output * ``grad_output``)
    among them; ``state`` is the layer's before this input, and ``parameters`` says with which decimals its
    numbers, or grad_output's, were written (exact where it is silent). ``decimals`` and ``input_decimals``
    override what is written: EXACT there takes the numbers as they stand. ``within`` is a plain tolerance instead of
    the derived one: every cell may be off by atol + rtol * |exact|. Raises InputError for a quantity
    that this calculation does not have or an answer of another shape.

    >>> from normcli.planning.plan import plan
    >>> x = Printed.exactly(np.array([[1.0, 2.0, 4.0]]))
    >>> answer = Printed(np.array([[-0.8729, -0.2182, 1.0911]]), np.full((1, 3), 4))
    >>> check(x, plan("layer", (1, 3), "float64", {}), State(), {"output": answer}).keys
    [('ddof1',)]
    """
    given = parameters or {}
    flow = None if grad_output is None else np.asarray(grad_output, np.float64)
    exact = _exact(x, settled, state, flow)
    found = {name: np.asarray(getattr(exact, name)) for name in quantities() if getattr(exact, name, None) is not None}
    found |= exact.gradients()
    work: Any = right(Sheet(x.values), settled, state, expected, flow) if not settled.is_free else None
    if settled.is_free:
        found |= {name: np.asarray(values) for name, values in exact.named.items()}
        work = teaching.free_check.FreeWork(plan=settled, state=state, x=x.values, grad_output=flow)
    ask = teaching.free_check.FreeQuestion if settled.is_free else Question
    question = ask(
        work=work,
        exact=found,
        answers={name: _straight(name, answer.rounded_to(decimals), found) for name, answer in expected.items()},
        x=x.rounded_to(input_decimals),
        parameters={name: values.rounded_to(input_decimals) for name, values in given.items()},
        dtype=settled.dtype,
    )
    verdict = _of_another_shape(question)
    if within:
        return verdict or _within(question, within)
    verdict = verdict or _judged(question)
    if settled.is_free or not verdict.ok:
        return verdict
    return replace(verdict, note=hidden(question) or cast_elsewhere(question))


def check_result(
    x: Printed,
    result: Result,
    expected: Mapping[str, Printed],
    *,
    parameters: Mapping[str, Printed] | None = None,
    decimals: int | None = None,
    input_decimals: int | None = None,
    within: Mapping[str, float] = MappingProxyType({}),
) -> Check:
    """Check an answer for a calculation that was done; ``x`` is what it was given."""
    return check(
        x,
        result.plan,
        result.before,
        expected,
        grad_output=result.grad_output,
        parameters=parameters,
        decimals=decimals,
        input_decimals=input_decimals,
        within=within,
    )


def _exact(x: Printed, settled: Plan, state: State, flow: NDArray[np.float64] | None) -> Result:
    """The reference's result in float64, whatever the input's dtype: an answer may show more digits than that holds."""
    return run(x.values, replace(settled, dtype="float64"), state, steps=True, grad_output=flow)


def hidden(question: Question) -> str:
    """Why these numbers would hide mistakes of a gradient, and what would show them; empty where they do not."""
    work = question.work
    if "grad_input" not in question.answers or work.grad_output is None:
        return ""
    worked = question.right.worked
    d = worked.grad_normalized
    said = []
    if worked.from_batch and worked.program.centers:
        if worked.count == 2:
            said.append("n is 2, where grad_input is about 0 (take 4 or more)")
        elif (d == d[:, :1]).all():
            said.append("grad_output is constant, where grad_input is 0 (let it vary)")
    if work.plan.affine and bool((worked.weight == 1).all()):
        said.append("the weight is 1 (take others)")
    return f"These numbers would hide some mistakes: {'; '.join(said)}." if said else ""


def cast_elsewhere(question: Question) -> str:
    """That numbers of 16 bits are exactly what rounding in another place gives; empty where they are not.

    Arithmetic in these bits explains them as well, so it is no mistake; a model that was trained the other way
    would differ, though.
    """
    slips = [slip for slip in (KEYS["cast_before"], KEYS["cast_after"]) if slip.affects & question.answers.keys()]
    tried = [(slip, work) for slip in slips for work in slip.works(question.work)]
    if not tried or question.right.fits("held"):
        return ""
    for slip, work in tried:
        if question.hypothetical(work).fits("held"):
            gives, slipped = (formatted(text, work.made.note, work.plan) for text in (slip.gives, slip.slipped))
            option = "before" if work.plan.cast else "after"
            return f"They are exactly what {gives} gives, {slipped}: --cast {option}.   [{slip.key}]"
    return ""


def _straight(name: str, answer: Printed, exact: Mapping[str, NDArray[np.float64]]) -> Printed:
    """What weight and bias receive, as one row of numbers also where the sum has kept axes of length 1."""
    if name not in PARAMETERS or name not in exact or answer.values.size != exact[name].size:
        return answer
    shape = exact[name].shape
    if long(answer.values.shape) != long(shape):
        return answer
    return replace(answer, values=answer.values.reshape(shape), decimals=answer.decimals.reshape(shape))


def _of_another_shape(question: Question) -> Check | None:
    """The verdict on an answer whose axes are in another order; InputError for one of any other shape."""
    for name, answer in question.answers.items():
        if name in GRADIENTS and question.work.grad_output is None:
            raise InputError(f"{name} needs the gradient of the output; give it with --grad-output")
        if name not in question.exact:
            raise InputError(f"{name} is not computed here; an answer can be given for {either(question.exact)}")
        shape = question.exact[name].shape
        if answer.values.shape != shape:
            if name in PARAMETERS and (found := of_another_shape(question, name)):
                return found
            if found := transposed(replace(question, answers={name: answer})):
                return found
            raise InputError(f"the answer for {name} has shape {answer.values.shape}; {name} has shape {shape}")
    return None


@np.errstate(all="ignore")  # what a slip makes of numbers near the largest does not fit, and that is all
def _judged(question: Question) -> Check:
    right = question.right
    rounded = ["rounded" if question.was_rounded else "plausible"] if question.may_be_rounded else []
    binary = ["computed"] if question.is_binary else []
    for manner in ("printed", *binary, *(rounded if question.was_rounded else ()), "cut", *rounded):
        if right.fits(manner) and not (manner == "cut" and right.fits("computed")):
            return _compared(question, manner)
    first = _compared(question, "rounded" if question.was_rounded else "printed")
    search = teaching.free_check.FreeSearch(question, first) if question.work.plan.is_free else Search(question, first)
    if found := search.single(["printed"], late=False):
        return found
    if right.fits("computed"):
        return _compared(question, "computed")
    search.found = _compared(question, "rounded" if question.was_rounded else "computed")
    if found := search.single(["printed", "cut", "computed"]) or search.pen() or search.pair(["printed", "computed"]):
        return found
    if not question.may_be_rounded:
        return search.unexplained()
    if right.fits("rounded"):
        return _compared(question, "rounded")
    return search.single(["rounded"]) or search.pair(["rounded"]) or search.unexplained()


def _within(question: Question, within: Mapping[str, float]) -> Check:
    """The verdict under a plain tolerance; what explains a wrong answer is looked for as ever."""
    compared = []
    for name, answer in question.answers.items():
        exact = np.asarray(question.exact[name], np.float64)
        off = difference(answer.values, exact)
        with np.errstate(over="ignore", invalid="ignore"):
            allowed = within.get("atol", 0.0) + np.nan_to_num(within.get("rtol", 0.0) * np.abs(exact), posinf=0.0)
        own = question.readings[name][0].own
        compared.append(Compared(name=name, yours=answer.values, exact=exact, difference=off, allowed=allowed, own=own,
                                 wrong=~(off <= allowed)))  # fmt: skip
    found = Check(quantities=tuple(compared), within=within)
    if found.ok:
        return found
    derived = _judged(question)
    if derived.ok:
        return replace(found, note="By the digits that it is printed with, the answer is right.")
    return replace(derived, quantities=found.quantities, within=within)


def _compared(question: Question, manner: str) -> Check:
    """Every expected quantity beside the exact one, held to what that manner allows."""
    judged = question.right.judged(manner)
    compared = tuple(
        Compared(
            name=name,
            yours=question.answers[name].values,
            exact=question.exact[name],
            difference=question.right.difference(name),
            allowed=one.allowed,
            own=one.reading.own,
            wrong=one.wrong,
            digits=one.reading.words,
        )
        for name, one in judged.items()
    )
    found = Check(quantities=compared)
    if not found.ok or manner == "printed":
        return found
    if manner == "computed":
        dtype = max((one.reading.dtype for one in judged.values()), key=lambda dtype: DTYPES[dtype].unit)
        return replace(found, assumes=f"{dtype}_arithmetic", assumption=f"it was computed in {dtype}")
    return replace(found, assumes=_ASSUMES[manner], assumption=_assumption(question, manner))


def _assumption(question: Question, manner: str) -> str:
    if manner == "cut":
        return "the digits were cut off, not rounded"
    if question.x.half_units.any():
        return f"the input was rounded to {count(max(0, question.x.most_decimals), 'decimal')}"
    named = [name for name, given in question.parameters.items() if given.half_units.any()]
    decimals = count(max(0, *(question.parameters[name].most_decimals for name in named)), "decimal")
    return f"{' and '.join(named)} {'was' if len(named) == 1 else 'were'} rounded to {decimals}"
