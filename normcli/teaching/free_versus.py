"""Other ways to calculate a formula over any axes, and where they differ from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from normcli.dtypes import DTYPES
from normcli.formula.spelled import spelled
from normcli.planning.conventions import TORCH
from normcli.planning.free import FreePlan
from normcli.planning.further import EVERY, FURTHER
from normcli.planning.kinds import FORMULA
from normcli.planning.plan import Plan, plan

_WINDOW = ("before", "after")  # of a place


def conventions(main: Plan) -> Collection[str]:
    """The ways that there are besides the backends: libraries that have the kind, or kinds beside one's own formula.

    >>> list(conventions(plan("zscore", (2, 3), "float64", {})))
    ['scipy', 'sklearn', 'pandas', 'onnx']
    """
    return [*FURTHER, *TORCH.eps] if "lines" in main.kind.options else main.kind.profiles


def replanned(main: FreePlan, given: Mapping[str, Any], convention: str, dtype: str) -> Plan:
    """The same kind as a library has it, or another kind's lines in the place of one's own, over the same axes."""
    options = {name: value for name, value in given.items() if name in main.kind.options and name != "dtype"}
    if "lines" in main.kind.options:
        own = EVERY[convention].numbers or {"eps": TORCH.eps.get(convention) or DTYPES[dtype].eps}
        return plan(
            FORMULA.name, main.shape, dtype, options | {"lines": convention, "let": {**own, **given.get("let", {})}}
        )
    placed = {name: value for name, value in main.options().items() if name in ("axes", "channel_axis")}
    return plan(main.kind.name, main.shape, dtype, options | placed | {"convention": convention})


def _near(numbers: Mapping[str, float]) -> str:
    return " and ".join(f"{numbers[name]:g} {name}" for name in _WINDOW if name in numbers)


def _in_a_line(plan: FreePlan) -> str:
    return "; ".join(f"{line.name} = {spelled(line.value)}" for line in plan.program)


def differing(main: FreePlan, other: FreePlan) -> Iterator[tuple[str, Any, Any, FreePlan]]:
    """Each number in which they differ, and then the first line, with what changing that alone makes of the plan.

    Lines of other names do not go with one another: then all of them are one difference.

    >>> here, there = (plan("lp", (1, 2), "float64", {"convention": name}) for name in ("torch", "flax"))
    >>> [found[:3] for found in differing(here, there)]
    [('size', 'sqrt(sum(x^2))', 'sqrt(sum(x^2) + eps)')]
    """
    here, there = dict(main.numbers), dict(other.numbers)
    for name, value in there.items():
        if name in here and here[name] != value and name in main.options():
            yield name, here[name], value, replace(main, numbers=tuple((here | {name: value}).items()))
    if (near := _near(here)) != (window := _near(there)):
        numbers = tuple((here | {name: there[name] for name in _WINDOW}).items())
        yield "window", near, window, replace(main, numbers=numbers)
    if "lines" in main.kind.options and [line.name for line in main.program] != [line.name for line in other.program]:
        yield "formula", _in_a_line(main), _in_a_line(other), other
        return
    for one, two in zip(main.program, other.program, strict=False):
        if one != two:
            numbers = tuple((there | here).items())
            yield one.name, spelled(one.value), spelled(two.value), replace(other, numbers=numbers)
            return
