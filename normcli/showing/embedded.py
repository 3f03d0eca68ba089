"""What a page's script selects among: numbers, traces as templates, and the lines that it calculates with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.errors import InputError
from normcli.formula.extents import AXES, extents, reductions
from normcli.formula.javascript import is_translatable, javascript
from normcli.formula.language import Call, Line, Lines, Name, Node, Number, parsed, substituted
from normcli.formula.spelled import inlined, spelled
from normcli.formula.template import of_names, of_numbers
from normcli.planning.free import FreePlan
from normcli.planning.kinds import KINDS
from normcli.planning.layout import Shape, number_of
from normcli.planning.plan import Plan, plan
from normcli.showing.grids import value, wrong_cells
from normcli.showing.sections import edge_indices

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result, State
    from normcli.showing.report import Report
    from normcli.teaching.trace import Step

MOST = 4096  # cells that are shown; of a larger tensor the edges
_EACH = {"input": "x", "grad_output": "grad_output"}
_OLD = "old_"
_OLD_SHARE: dict[Node, Node] = {parsed("1 - m"): Name("rest_of_m")}  # one number to the reader of a line


def is_whole(shape: Shape) -> bool:
    """Whether all elements of a tensor are shown."""
    return math.prod(shape) <= MOST


def shown_elements(shape: Shape, first: Shape) -> list[list[int]]:
    """The places along each axis that are shown, that of the first element among them.

    >>> shown_elements((2, 5000), (0, 7))
    [[0, 1], [0, 1, 2, 7, 4997, 4998, 4999]]
    """
    if is_whole(shape):
        return [[*range(size)] for size in shape]
    return [sorted({*edge_indices(size), place}) for size, place in zip(shape, first, strict=True)]


class Pool:
    """The lines of all calculations on a page as functions, each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, line: str) -> int:
        """The number of a line's function."""
        return self._numbers.setdefault(line, len(self._numbers))

    def script(self) -> str:
        """The functions, in order."""
        return "".join(f"  v => {line},\n" for line in self._numbers)


def embedded(
    report: Report,
    kept: list[list[int]],
    first: Shape,
    precision: int,
    steps: Iterable[tuple[str, Shape, Step]],
    pool: Pool,
) -> dict[str, Any]:
    """All that the script needs, as JSON has it."""
    result = report.calculated
    settled = result.plan
    tensors = {
        "x": report.x,
        "grad_output": result.grad_output,
        "output": result.output,
        "grad_input": result.grad_input,
    }
    found: dict[str, Any] = {"shape": settled.shape, **_axes(settled), "first": number_of(first, settled.shape)}
    found |= {"precision": precision, "title": settled.kind.title, "kept": None if is_whole(settled.shape) else kept}
    found["tensors"] = {
        name: _numbers(np.asarray(values)[np.ix_(*kept)]) for name, values in tensors.items() if values is not None
    }
    found["steps"] = _steps(steps, precision, set(found["over"]), {line.name for line in settled.running_lines})
    found["backward"] = settled.gradient_lines[0].name if result.gradients() else None
    found["check"] = _check(report)
    own = settled.lines + settled.running_lines + settled.gradient_lines
    can = report.x is not None and is_whole(settled.shape) and _can_be_changed(own)
    lines: dict[tuple[str | int, ...], int] = {}
    found["programs"] = (
        [_program(settled, pool, lines, back=bool(result.gradients())) for settled in _others(result)] if can else []
    )
    if can:
        found |= {"given": _given(result), "lines": [*lines]}
    return found


def _axes(settled: Plan) -> dict[str, Any]:
    """How the script looks at a tensor: the dimensions of the view, and those that each kind of sum takes."""
    layout = settled.layout
    if isinstance(settled, FreePlan):
        lines = settled.lines + settled.gradient_lines
        names = {node.axes for line in lines for node in reductions(line.value)}
        taken = {name or "": sorted(settled.space.over(name)) for name in names}
    else:
        roles = [*enumerate(layout.dimensions)]
        taken = {name or "": [axis for axis, role in roles if takes(role)] for name, takes in AXES.items()}
    return {"view": layout.view, "axes": layout.axes, "channels": layout.channels, "over": taken}


def _numbers(values: Any) -> list[Any]:
    """Numbers as JSON has them: NaN and the infinities as words."""
    flat = np.asarray(values, np.float64).ravel().tolist()
    return [number if math.isfinite(number) else _word(number) for number in flat]


def _word(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _steps(
    steps: Iterable[tuple[str, Shape, Step]], precision: int, over: set[str], running: set[str]
) -> list[dict[str, Any]]:
    """Each step once, and for all that it belongs to the numbers of its template, its value last.

    The terms of a sum that is over none of ``over``, such as one for each rank, are no cells to be marked.
    """
    found: dict[str, dict[str, Any]] = {}
    for scope, _, step in steps:
        sums = [node.axes or "" for node in reductions(step.tree)]
        one = found.setdefault(
            step.step,
            {
                "name": step.step,
                "formula": step.formula,
                "of": scope,
                "sums": sums if step.step not in running and over.issuperset(sums) else [],
                "templates": {},
                "lines": [],
            },
        )
        template, numbers = of_numbers(step.filled)
        place = one["templates"].setdefault(template, len(one["templates"]))
        one["lines"].append(
            " ".join([*([f"!{place}"] if place else []), *numbers, value(step.value, precision).replace(" ", "")])
        )
    return [one | {"templates": [*one["templates"]], "lines": ";".join(one["lines"])} for one in found.values()]


def _check(report: Report) -> dict[str, str]:
    """What is said of each wrong cell."""
    if report.check is None:
        return {}
    said: dict[str, str] = {}
    shape = report.calculated.plan.shape
    for quantity in report.check.quantities:
        if quantity.yours.shape != shape or report.check.turned:
            continue
        for place in wrong_cells(report.check, shape):
            if quantity.wrong[place]:
                cell = quantity.cell(place)
                yours, exact = quantity.shown(cell, cell.yours), quantity.shown(cell, cell.exact, more=2)
                key = str(number_of(place, shape))
                said[key] = "; ".join(filter(None, [said.get(key), f"{quantity.name}: yours {yours}, exact {exact}"]))
    return said


def _given(result: Result) -> dict[str, Any]:
    """The numbers of the layer, and those that may be changed."""
    settled, before = result.plan, result.before
    if isinstance(settled, FreePlan):
        return _given_freely(settled, before)
    arrays = {
        name: _numbers(values)
        for name in ("weight", "bias", "running_mean", "running_var")
        if (values := getattr(before, name)) is not None
    }
    batches = before.num_batches_tracked
    return arrays | {"eps": settled.eps, "m": settled.new_weight(batches), "batches": batches}


def _given_freely(settled: FreePlan, before: State) -> dict[str, Any]:
    """The same for a kind beyond the family: by name, the dimensions that the numbers vary over, and the numbers."""
    numbers = {name: [(), _numbers(value)] for name, value in settled.numbers}
    tensors = {
        one.name: [one.dimensions, _numbers(values)]
        for one in settled.tensors
        if (values := before.tensor(one.name)) is not None
    }
    return {"eps": settled.eps, "m": 1.0, "named": numbers | tensors}


def _others(result: Result) -> Iterator[Plan]:
    """Every calculation that may be made of this one: the kinds, train and eval, n and n - 1; its own first.

    A kind beyond the family has its own numbers, which no other kind has.
    """
    own = result.plan
    if own.is_free:
        yield own
        return
    for kind in sorted(KINDS, key=lambda name: name != own.kind.name):
        basis = own if kind == own.kind.name else _other(kind, own)
        if basis is None:
            continue
        for mode in dict.fromkeys([basis.mode, *(("train", "eval") if basis.track_running_stats else ())]):
            for ddof in dict.fromkeys([basis.ddof, *((0, 1) if "ddof" in basis.kind.options else ())]):
                settled = replace(basis, mode=mode, ddof=ddof)
                least = max(ddof, settled.updates_running) if settled.source == "batch" else 0
                lines = settled.lines + settled.running_lines + settled.gradient_lines
                if settled.layout.count > least and _can_be_changed(lines):
                    yield settled


def _can_be_changed(lines: Lines) -> bool:
    """Whether the script can work the lines out; it rounds to no other dtype."""
    return all(is_translatable(line.value) for line in lines)


def _other(kind: str, own: Plan) -> Plan | None:
    """Another kind's plan for the same tensor, with what both have in common; None where it has none."""
    given: dict[str, Any] = {"channel_axis": own.layout.channel_axis, "eps": own.eps, "groups": own.groups}
    given = {name: value for name, value in given.items() if name in KINDS[kind].options and value is not None}
    if kind == "group" and "groups" not in given:
        axis = given.get("channel_axis", 1)
        channels = own.shape[axis] if axis < len(own.shape) else 1
        given["groups"] = next((size for size in range(2, channels) if channels % size == 0), channels)
    try:
        return plan(kind, own.shape, "float64", given)
    except InputError:
        return None


def _program(settled: Plan, pool: Pool, known: dict[tuple[str | int, ...], int], *, back: bool) -> dict[str, Any]:
    """What the script needs of a calculation; of each line its number among the ``known``, and what it varies over."""
    layout = settled.layout
    lines = settled.lines + _updating(settled.running_lines) + (settled.gradient_lines if back else ())
    is_free = isinstance(settled, FreePlan)
    varies = extents(lines, settled.space if isinstance(settled, FreePlan) else layout.roles)
    dimensions = [*enumerate(range(len(layout.view)) if is_free else layout.dimensions)]
    groups = "" if settled.groups is None else f", {settled.groups} groups"
    return {
        "kind": settled.kind.name,
        "words": settled.kind.title + groups,
        "mode": settled.mode if settled.kind.has_running_stats else "",
        "ddof": settled.ddof if "ddof" in settled.kind.options and settled.source == "batch" else 0,
        "updates": settled.updates_running,
        "affine": settled.affine,
        **_axes(settled),
        "lines": [
            [
                known.setdefault(_line(line, settled, pool), len(known)),
                [axis for axis, known_by in dimensions if known_by in varies[line.name]],
            ]
            for line in lines
        ],
    }


def _line(line: Line, settled: Plan, pool: Pool) -> tuple[str | int, ...]:
    """A line's name and function, and where it is shown, its formula and the template of its numbers."""
    number = pool.number(javascript(line.value))
    if line.role != "shown":
        return line.name, number
    return line.name, number, _formula(line, settled), of_names(_fillable(substituted(line.value, _OLD_SHARE), settled))


def _fillable(node: Node, settled: Plan) -> Node:
    """A line as its numbers are filled in: options, how many a mean is over, the state before the update."""
    if isinstance(node, Name):
        numbers = dict(settled.numbers) if isinstance(settled, FreePlan) else {}
        if node.name in numbers and node.name != "eps":  # which may be changed
            return Number(numbers[node.name])
        return Name(_OLD + node.name) if node.name in _updated(settled) else node
    if not isinstance(node, Call):
        return node
    parts = tuple(_fillable(part, settled) for part in node.parts)
    if node.function == "stop":  # which matters to the way back only
        return parts[0]
    if node.function == "mean" and isinstance(settled, FreePlan):
        size = math.prod(settled.shape[axis] for axis in settled.space.over(node.axes))
        return Call("/", (Call("sum", parts, node.axes), Number(size)))
    return Call(node.function, parts, node.axes)


def _updated(settled: Plan) -> set[str]:
    return {line.name for line in settled.running_lines if line.role == "shown"}


def _updating(lines: Lines) -> Lines:
    """The lines of the running update, in which the value before has a name of its own."""
    return tuple(
        Line(line.name, substituted(line.value, {Name(line.name): Name(_OLD + line.name)}), line.role) for line in lines
    )


def _formula(line: Line, settled: Plan) -> str:
    """The formula as a trace shows it."""
    tree = substituted(line.value, {Name(_OLD + line.name): Name("old")})
    for where in settled.running_lines:
        if where.role == "where":
            tree = inlined(tree, where.name, where.value)
    return spelled(tree)
