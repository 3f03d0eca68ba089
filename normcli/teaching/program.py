"""The lines of a calculation as somebody may have done it, and what is read off them."""

from __future__ import annotations

from functools import cache, cached_property
from itertools import product
from typing import NamedTuple

from normcli.errors import InputError
from normcli.formula.extents import Extent, elementwise, needed
from normcli.formula.family import used
from normcli.formula.gradient import PLAIN, gradient
from normcli.formula.language import (
    REDUCTIONS,
    Call,
    Line,
    Lines,
    Name,
    Node,
    Number,
    names_in,
    parsed,
    substituted,
    walked,
)
from normcli.formula.rewrite import fit, rewritten

UPDATES = frozenset({"batch_mean", "batch_var", "running_mean", "running_var"})  # one number for each channel
REPORTED = "reported "  # before a name: what is written down for it, where that is something else
ANY_AXES = frozenset(product((False, True), repeat=2))  # a slip may take its statistics over others than the plan's


class Step(NamedTuple):
    """A line, and what is needed to work it out: ``key`` stands for its expression, ``tree`` is it over x and n alone.

    Only what is exact has a tree.
    """

    line: Line
    key: int
    names: tuple[str, ...]
    of_channels: bool
    tree: Node | None


class Program:
    """Lines in the order in which they are worked out; there is one for each set of lines."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.last = {line.name: line.value for line in lines}
        self.elementwise = elementwise(lines)
        self._read: dict[object, tuple[Step, ...]] = {}
        self._behind: dict[frozenset[str], Lines] = {}

    def read(self, wanted: frozenset[str], changed: frozenset[Line], *, is_rounded: bool) -> tuple[Step, ...]:
        """The lines that the wanted ones need, or all; none of ``changed`` is exact, nor what takes a rounded step."""
        asked = wanted, changed, is_rounded
        if asked not in self._read:
            names = self.last.keys() - (set() if wanted & UPDATES or not wanted else UPDATES)
            trees: dict[Node, Node] = {}
            found: list[Step] = []
            for line in needed(self.lines, names):
                is_exact = all(name in ("x", "n") or Name(name) in trees for name in names_in(line.value))
                is_exact = is_exact and line not in changed
                tree = substituted(line.value, trees) if is_exact else line.value
                key = _keys.setdefault(tree, len(_keys))
                found.append(
                    Step(line, key, names_of(line.value), is_of_channels(line.name), tree if is_exact else None)
                )
                trees.pop(Name(line.name), None)
                if is_exact and not is_rounded:
                    trees[Name(line.name)] = tree
            self._read[asked] = tuple(found)
        return self._read[asked]

    def behind(self, wanted: frozenset[str]) -> Lines:
        """The lines that what is written down for these depends on."""
        if wanted not in self._behind:
            written = {REPORTED + name if REPORTED + name in self.last else name for name in wanted}
            self._behind[wanted] = needed(self.lines, written)
        return self._behind[wanted]

    @cached_property
    def centers(self) -> bool:
        """Whether a mean of the input is subtracted from it."""
        trees = {step.line.name: step.tree for step in self.read(frozenset(), frozenset(), is_rounded=False)}
        tree = trees.get("centered") or Name("x")
        return any(map(_is_reduction, walked(tree)))

    @cached_property
    def scale(self) -> Node:
        """What the centered values are multiplied by, as the lines have it: rstd, where they have one."""
        if "rstd" in self.last:
            return self.last["rstd"]
        return substituted(self.last["normalized"], {Name("centered"): Number(1), Name("x"): Number(1)})

    @cached_property
    def root(self) -> Node:
        """D where the scale is 1 / D, in terms of the variance."""
        tree = self.scale
        steps: dict[Node, Node] = {Name(n): value for n, value in self.last.items() if n not in self._statistics}
        while steps.keys() & {Name(name) for name in names_in(tree)}:
            tree = substituted(tree, steps)
        found = fit(parsed("1 / D"), tree)
        return found[Name("D")] if found else Call("/", (Number(1), tree))

    @cached_property
    def variance(self) -> str:
        """The name of the statistic under the root; the last one where there is none."""
        return next((name for name in self._statistics if name in names_in(self.root)), self._statistics[-1])

    @cached_property
    def _statistics(self) -> list[str]:
        """The names of the lines that are sums, or the running values in the place of these."""
        return [
            line.name
            for line in self.lines
            if line.name not in self.elementwise | UPDATES and not line.name.startswith((REPORTED, PLAIN))
            and (isinstance(line.value, Name) or any(map(_is_reduction, walked(line.value))))
        ]  # fmt: skip

    @cached_property
    def updates(self) -> Lines:
        """The lines of the running statistics."""
        return tuple(line for line in self.lines if line.name in UPDATES)


_program = cache(Program)
_keys: dict[Node, int] = {}


@cache
def program_of(
    lines: Lines, running: Lines, again: Lines, given: frozenset[str], is_cumulative: bool, known: frozenset[str],
    updates: int, rules: str, backward: str | None, report: tuple[tuple[str, str], ...],
    roles: Extent = ANY_AXES,
) -> Program | None:  # fmt: skip
    """The lines of a calculation, then of the running update, then of a second calculation, after rules and reports.

    ``backward`` are rules for the lines of the backward pass, which follow from the others as they were changed;
    without these lines where it is None. ``m`` is 1 / (k + 1) where momentum is none, with k earlier batches.
    None where a rule does not fit, or a line takes what is neither ``known`` nor a line before it. ``roles`` are what
    the dimensions are for.
    """
    if is_cumulative:
        running = rewritten(running, "m -> 1 / (k + 1)") or running
    if again:
        lines = needed(lines, {name for line in running for name in names_in(line.value)})
    changed = _after(used(lines + running + again, given), rules)
    flows = _backward(_after(used(again, given), rules) if again else changed, backward, roles)
    if changed is None or flows is None:
        return None
    found = _updated(changed, updates)
    after = (
        () if again else tuple(line for line in found if line.name in UPDATES)
    )  # the backward pass takes the old ones
    found = found[: len(found) - len(after)] + flows + after
    for name, text in report:
        if name not in known | {line.name for line in found}:
            return None
        line = next((line for line in reversed(found) if line.name == name), Line(name, Name(name)))
        reported = rewritten((line,), text) if "->" in text else (Line(name, parsed(text)),)
        if reported is None:
            return None
        found += (Line(REPORTED + name, reported[0].value, "reported"),)
    for line in found:
        if not names_in(line.value) <= known:
            return None
        known |= {line.name}
    return _program(found)


def _after(lines: Lines, rules: str) -> Lines | None:
    return rewritten(lines, rules) if rules else lines


def _backward(forward: Lines | None, rules: str | None, roles: Extent) -> Lines | None:
    """The lines of the backward pass, after rules; None where there are none, or a rule does not fit."""
    if forward is None or rules is None:
        return None if forward is None else ()
    forward = tuple(line for line in forward if line.name not in UPDATES)  # which nothing flows through
    try:
        return _after(gradient(forward, roles), rules)
    except InputError:  # a slip has made lines of it that have no derivative
        return None


def _updated(lines: Lines, updates: int) -> Lines:
    """The lines with those of the running update so many times over."""
    running = tuple(line for line in lines if line.name in UPDATES)
    if not running or updates == 1:
        return lines
    first = lines.index(running[0])
    repeated: Lines = ()
    for _ in range(updates):
        repeated += running
        running = rewritten(running, "k -> k + 1") or running
    return lines[:first] + repeated + tuple(line for line in lines[first:] if line.name not in UPDATES)


def _is_reduction(node: Node) -> bool:
    return isinstance(node, Call) and node.function in REDUCTIONS


def is_of_channels(name: str) -> bool:
    """Whether a line has one number for each channel.

    >>> is_of_channels("reported running_var")
    True
    """
    return name.removeprefix(REPORTED) in UPDATES


@cache
def names_of(node: Node) -> tuple[str, ...]:
    """The names that an expression mentions, in order."""
    return tuple(sorted(names_in(node)))
