"""What is to be said of a calculation's numbers, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.order import Elements, Floats, regions_of
from normcli.arithmetic.result import State
from normcli.planning.plan import Plan
from normcli.words import count


def warnings(
    x: Elements, output: Elements | None, state: State, plan: Plan, rstd: Floats | None, undefined: int
) -> Iterator[str]:
    """The sentences; ``undefined`` groups of statistics were divided by 0."""
    zero = 0
    if plan.renorm and (negative := int(np.count_nonzero(np.asarray(state.running_var) < 0))):
        yield f"running_var is negative in {count(negative, 'channel')}: the output there is NaN"
    if plan.source == "running":
        assert state.running_var is not None
        spread = np.asarray(state.running_var, np.float64) + plan.eps
        if negative := int(np.count_nonzero(spread < 0)):
            yield f"running_var is negative in {count(negative, 'channel')}: the output there is NaN"
        zero = int(np.count_nonzero(spread == 0))
        if zero:
            yield f"running_var + eps is 0 in {count(zero, 'channel')}: the output there is infinite, or 0 at the mean"
    elif plan.layout.count == 1 and plan.kind.centers:
        yield "each group of statistics has 1 value, so every normalized value is 0"
    if plan.source == "batch" and undefined:
        what = "variance" if plan.kind.centers else "mean square"
        yield f"{count(undefined, 'group')} of statistics with {what} 0 and eps 0: normalized is 0 by definition"
    if not surely_finite(state, plan, rstd):
        yield from not_finite(x, output, plan, zero)


def not_finite(x: Elements, output: Elements | None, plan: Plan, zero: int = 0) -> Iterator[str]:
    """What is to be said where an output is infinite or NaN; ``zero`` groups have been told of."""
    if output is not None and all(np.isfinite(y).all() for y in blocks(output)):
        return
    nan, infinite = (_counted(test, x) for test in (np.isnan, np.isinf))
    if nan or infinite:
        yield f"the input holds {_not_numbers(nan, infinite)}"
        return
    if plan.is_free and output is not None and (undefined := _counted(np.isnan, output)):
        yield f"{count(undefined, 'output value')} NaN: 0 divided by 0, or the root or logarithm of a negative number"
    overflow = 0 if output is None or zero else _counted(np.isinf, output)
    if overflow:
        yield f"{count(overflow, 'output value')} beyond the range of {plan.dtype} became infinite"


def _not_numbers(nan: int, infinite: int) -> str:
    counted = {f"{nan} NaN": nan, count(infinite, "infinity", "infinities"): infinite}
    return " and ".join(words for words, number in counted.items() if number)


def gradient_warnings(gradients: Mapping[str, Any], plan: Plan, undefined: int) -> Iterator[str]:
    """What is to be said of the gradients, by what flowed in and what came out."""
    if undefined and plan.source == "batch":
        yield f"grad_input is NaN in {count(undefined, 'group')} of statistics: divided by 0, it has no gradient"
        return
    results = (values for name, values in gradients.items() if name != "grad_output")
    if all(np.isfinite(block).all() for values in results for block in blocks(values)):
        return  # and so is grad_output: what is not would be in them
    nan, infinite = (_counted(test, gradients["grad_output"]) for test in (np.isnan, np.isinf))
    if nan or infinite:
        yield f"grad_output holds {_not_numbers(nan, infinite)}"
    elif overflow := _counted(np.isinf, gradients.get(plan.gradient_name("x"), np.empty(0))):
        yield f"{count(overflow, 'value')} of grad_input beyond the range of {plan.dtype} became infinite"


def surely_finite(state: State, plan: Plan, rstd: Floats | None) -> bool:
    """Whether no output can be infinite or NaN: |normalized| is at most the root of n where there is an rstd.

    An rstd of 0 comes of an infinite mean square.
    """
    if rstd is None or plan.source == "running" or plan.renorm or not (np.isfinite(rstd) & (rstd != 0)).all():
        return False
    weight, bias = (
        abs(plan.neutral[name]) if values is None else float(np.abs(values).max())
        for name, values in (("weight", state.weight), ("bias", state.bias))
    )
    bound = math.sqrt(plan.layout.count) * (weight + plan.weight_offset) + bias
    return bound < 6e4  # float16, which ends at 65504, has the shortest range


def _counted(test: Callable[[NDArray[Any]], Any], elements: Elements) -> int:
    return sum(int(np.count_nonzero(test(block))) for block in blocks(elements))


def blocks(elements: Elements) -> Iterator[NDArray[Any]]:
    """The elements in pieces that fit in memory, in the order of their dimensions."""
    if isinstance(elements, np.ndarray):
        yield elements
        return
    for region in regions_of(elements.shape, 2**20):
        yield elements[region]
