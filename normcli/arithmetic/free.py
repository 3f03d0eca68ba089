"""Lines over any axes, worked out on the whole tensor at once, as exactly as the family's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import Group
from normcli.arithmetic.numbers import PAIRS, WIDES, Pairs, is_far
from normcli.arithmetic.result import Named, Result, State
from normcli.arithmetic.warned import not_finite
from normcli.errors import room_for
from normcli.floats import rounded
from normcli.formula.extents import Extent, extent
from normcli.formula.language import REDUCTIONS, Call, Lines
from normcli.planning.free import OUTPUT, FreePlan

_BYTES = 16  # of a number
_AT_ONCE = 2  # tensors that a line is worked out from


class _Whole(Group):
    """The values of names in the whole tensor."""

    def __init__(
        self, plan: FreePlan, before: int, lines: Lines, numbers: Pairs, known: Mapping[str, Any], back: frozenset[str]
    ) -> None:
        self._plan, self._before = plan, before
        super().__init__(lines, numbers, known, [dict], {}, cancelling=back, times=self._missing)

    def axes(self, node: Call) -> tuple[int, ...]:
        """The dimensions that a reduction takes, of those that its terms vary over."""
        over = self._plan.space.over(node.axes)
        taken = over & self._varied(node) if node.function in REDUCTIONS else over
        return tuple(sorted(axis + self._before for axis in taken))

    def _missing(self, node: Call) -> int:
        """How often a sum has each of its terms."""
        return math.prod(self._plan.shape[axis] for axis in self._plan.space.over(node.axes) - self._varied(node))

    def _varied(self, node: Call) -> Extent:
        return extent(node.parts[0], self._plan.spans, self._plan.space)


def given(plan: FreePlan, x: NDArray[Any], state: State) -> dict[str, NDArray[Any]]:
    """The input and the tensors that come with it, each with all the input's dimensions."""
    found = {"x": np.asarray(x)}
    for one in plan.tensors:
        found[one.name] = np.asarray(state.tensor(one.name), np.float64).reshape(one.view(len(plan.shape)))
    return found


def worked(plan: FreePlan, numbers: Pairs, arrays: Mapping[str, NDArray[Any]], *, back: bool = False) -> Group:
    """The values of the names, worked out when they are asked for; ``back``: those of the backward pass too."""
    lines = plan.program + (plan.gradient_lines if back else ())
    constants = {name: numbers.number(value) for name, value in plan.constants.items()}
    # An array may have dimensions before the tensor's own: several at once.
    before = max(values.ndim for values in arrays.values()) - len(plan.shape)

    found = {name: numbers.array(values) for name, values in arrays.items()}
    cancelling = frozenset(line.name for line in lines[len(plan.program) :])
    return _Whole(plan, before, lines, numbers, constants | found, cancelling)


def value_of(group: Group, name: str) -> Any:
    """The value of a name."""
    [block] = group.blocks()
    return block[name]


def normalize(
    x: NDArray[Any],
    plan: FreePlan,
    state: State,
    *,
    out: NDArray[Any] | None = None,
    steps: bool = False,
    grad_output: NDArray[Any] | None = None,
) -> Result:
    """The Result of a plan of free lines; its gradients too, where ``grad_output`` is there."""
    arrays = given(plan, x, state)
    lines = plan.program
    if grad_output is not None:
        arrays["grad_output"] = np.asarray(grad_output)
        lines += plan.gradient_lines
    with room_for("the calculation", _needed(plan, lines, len(arrays))), np.errstate(all="ignore"):
        constants = np.array([*plan.constants.values()])
        far = any(is_far(np.asarray(values)) for values in [constants, *arrays.values()])
        group = worked(plan, WIDES if far else PAIRS, arrays, back=grad_output is not None)
        named: dict[str, Any] = {}
        for line in lines:
            each = plan.spans[line.name] >= plan.space.over(None) and line.name not in plan.statistics
            if line.name == OUTPUT or (each and not steps and line in plan.program):
                continue
            named[line.name] = shaped(plan, line.name, value_of(group, line.name).hi)
        own = rounded(_whole(plan, value_of(group, OUTPUT).hi), plan.dtype)
        target = plan.gradient_name("x")
        if target in named:
            named[target] = rounded(_whole(plan, value_of(group, target).hi), plan.dtype)
        if grad_output is not None:
            named["grad_output"] = np.asarray(grad_output)
    output = own if out is None else out
    if out is not None:
        out[...] = own
    said = not_finite(x, output, plan)
    return Result(plan=plan, named=Named(named), output=output, before=state, after=state, warnings=tuple(said))


def _needed(plan: FreePlan, lines: Lines, given: int) -> int:
    """The bytes that are taken at the least: by what belongs to each element, and by what a line is worked out from."""
    whole = sum(len(plan.spans[line.name]) == len(plan.shape) for line in lines)
    return _BYTES * math.prod(plan.shape) * (whole + given - len(plan.tensors) + _AT_ONCE)


def _whole(plan: FreePlan, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array(np.broadcast_to(values, plan.shape))


def shaped(plan: FreePlan, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values without the dimensions that the name does not vary over."""
    for one in plan.tensors:
        if name == plan.gradient_name(one.name):
            return np.broadcast_to(values, one.view(len(plan.shape))).reshape(one.shape)
    span = plan.spans[name]
    full = np.broadcast_to(values, tuple(size if axis in span else 1 for axis, size in enumerate(plan.shape)))
    return np.array(full.reshape(plan.shape_of(name)))
