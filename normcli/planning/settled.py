"""From a kind beyond the family, or a formula of one's own, and a shape to a plan over any axes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from normcli.errors import InputError
from normcli.formula.family import used
from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import replaced
from normcli.planning.conventions import OWN, Profile, spelled
from normcli.planning.free import FreePlan, Given, axes_in, checked, free_plan, placed
from normcli.planning.further import EVERY
from normcli.planning.kinds import FORMULA, Kind
from normcli.planning.layout import Shape
from normcli.words import either, flag, quoted, repr_of

_PLACED_BY_SIZE = {"before", "after"}
_NEUTRAL = {"weight": 1.0, "bias": 0.0}  # what changes nothing


def settled(kind: Kind, shape: Shape, dtype: str, given: Mapping[str, Any]) -> FreePlan:
    """The plan of a kind beyond the family, or of one's own formula; InputError for what cannot be computed."""
    settle = settled_formula if kind.name == FORMULA.name else partial(settled_further, kind)
    return settle(shape, dtype, given)


def settled_further(kind: Kind, shape: Shape, dtype: str, given: Mapping[str, Any]) -> FreePlan:
    """The plan of a kind beyond the family.

    >>> settled_further(EVERY["softmax"], (2, 3), "float64", {}).layout.axes
    (1,)
    """
    name = spelled(str(given.get("convention", next(iter(kind.profiles)))))
    if name not in kind.profiles:
        raise InputError(f"the {name} convention has no {kind.title}; it has {either(kind.profiles)} here")
    profile, rank = kind.profiles[name], len(shape)
    wanted = given.get("channel_axis", 1 if profile.channel_axis is None else profile.channel_axis)
    [channel] = axes_in((wanted,), rank, "--channel-axis") if "channel_axis" in kind.options else (0,)
    axes: dict[str | None, Shape] = {}
    for set_, of in kind.sets.items():
        own = of(rank, channel)
        if set_ is None and "axes" in kind.options:
            own = given.get("axes") or profile.axes or own or (-1,)
        axes[set_] = axes_in(own, rank)
    numbers = defaults(kind, profile) | {n: float(given[n]) for n in kind.numbers if n in given}
    program = lines_of(kind, profile, given, numbers)
    tensors = [
        Given(one, tuple(shape[axis] for axis in axes[set_]), axes[set_][0], axes[set_])
        for one, (set_, own) in kind.tensors.items()
        if one in given or own != _NEUTRAL.get(one)
    ]
    program = used(program, frozenset(one.name for one in tensors))
    shown: dict[str, Any] = dict(numbers)
    if "axes" in kind.options:
        shown["axes"] = list(axes[None])
    if "channel_axis" in kind.options:
        shown["channel_axis"] = channel
    shown |= {n: given[n] for n in ("ddof", "eps_at") if n in given}
    numbers |= _window(numbers, profile)
    return free_plan(
        kind, profile, shape, dtype,
        checked(program, dict.fromkeys([*numbers, *(t.name for t in tensors)]), rank, axes, tensors),
        axes=axes, numbers=numbers, tensors=tensors, shown=shown,
        channel_axis=channel if "channel_axis" in kind.options else None,
    )  # fmt: skip


def unlike(plan: FreePlan, library: str) -> str:
    """What a library has otherwise than the plan, in a word: a line, its window, or nothing.

    >>> unlike(settled_further(EVERY["lp"], (1, 2), "float64", {"convention": "flax"}), "torch")
    'line for size'
    """
    own = {name: value for name, value in plan.options().items() if name in plan.kind.options and name != "eps_at"}
    own |= {one.name: True for one in plan.tensors} | {"convention": library}
    there = settled_further(plan.kind, plan.shape, plan.dtype, own)
    lines = (one.name for one, two in zip(plan.lines, there.lines, strict=False) if one != two)
    if name := next(lines, None):
        return f"line for {name}"
    near = ("before", "after")
    return "window" if any(dict(plan.numbers).get(n) != dict(there.numbers).get(n) for n in near) else ""


def defaults(kind: Kind, profile: Profile) -> dict[str, float]:
    """The numbers of a kind's lines, as a library has them by itself.

    >>> defaults(EVERY["frn"], EVERY["frn"].profiles["timm"])
    {'eps': 1e-05}
    """
    return dict(kind.numbers) | {name: value for name, value in profile.numbers.items() if name in kind.numbers}


def lines_of(kind: Kind, profile: Profile, given: Mapping[str, Any], numbers: Mapping[str, float]) -> Lines:
    """The lines of a kind, as a library has them, after the options."""
    options = {**profile.numbers, **numbers, **given}
    of_numbers: dict[str, str] = {}
    changes = dict(profile.changes)
    for (option, value), form in kind.forms.items():
        if options.get(option) == value:
            (of_numbers if option in kind.numbers else changes).update(form)
    _refuse_number(kind, numbers, changes)
    changes = of_numbers | changes
    program = replaced(lines(kind.text), changes)
    if kind.rounds:
        times = int(numbers["iterations"])
        rounds = "\n".join(kind.rounds.format(i=i, j=i - 1) for i in range(1, times + 1))
        text = kind.text.replace("u_last", f"u_{times}").replace("v_last", f"v_{times}")
        program = lines(f"where u_0 = u\n{rounds}\n{text}")
    return program


def _refuse_number(kind: Kind, numbers: Mapping[str, float], changes: Mapping[str, str]) -> None:
    """Refuse another number than the usual one where the line that it stands in is changed by something else."""
    for (option, _), form in kind.forms.items():
        usual = kind.numbers.get(option)
        if usual is not None and numbers[option] != usual and (both := form.keys() & changes.keys()):
            line, name = min(both), flag(option)
            raise InputError(f"{line} = {changes[line]} goes with {name} {usual:g} only; {name} is {numbers[option]:g}")


def _window(numbers: Mapping[str, float], profile: Profile) -> dict[str, float]:
    """How many places before and after its own a window of a size takes; nothing where there is no size.

    >>> _window({"size": 2}, OWN), _window({"size": 3}, OWN)
    ({'before': 1, 'after': 0}, {'before': 1, 'after': 1})
    """
    if "size" not in numbers:
        return {}
    few, many = (int(numbers["size"]) - 1) // 2, int(numbers["size"]) // 2
    return {"before": few, "after": many} if profile.more_after else {"before": many, "after": few}


def settled_formula(shape: Shape, dtype: str, given: Mapping[str, Any]) -> FreePlan:
    """The plan of one's own formula: ``lines``, ``axes`` by name, and ``let`` with the tensors and numbers.

    >>> own = {"lines": "x / (sum(x) + eps)", "axes": {None: (1,)}, "let": {"eps": 1}}
    >>> plan = settled_formula((2, 3), "float64", own)
    >>> plan.statistics, plan.constants
    (('sum',), {'n': 3, 'eps': 1.0})
    """
    rank, text = len(shape), given.get("lines")
    if not isinstance(text, str):
        raise InputError(f"lines is {repr_of(text)}; give a formula such as 'y = x / sum(x)'")
    sets = given.get("axes", {})
    sets = sets if isinstance(sets, Mapping) else {None: sets}
    axes = {name: axes_in(tuple(own), rank) for name, own in sets.items()}
    numbers: dict[str, float] = {}
    tensors: list[Given] = []
    for key, value in given.get("let", {}).items():
        name, _, at = str(key).partition("@")
        own: Shape = tuple(getattr(value, "shape", ()))
        if own == ():
            numbers[name] = float(value)
            continue
        if at and not at.lstrip("-").isdecimal():
            raise InputError(f"--let {quoted(key)}: after @ comes the axis beside which its first one is")
        tensors.append(placed(name, own, shape, int(at) if at else None)._replace(key=str(key)))
    numbers |= _window(numbers, OWN)
    known = dict.fromkeys([*numbers, *(one.name for one in tensors)])
    program = used(own_lines(text), frozenset(known)) if text.strip() in EVERY else own_lines(text)
    program = checked(program, known, rank, axes, tensors)
    shown = {"lines": text, "axes": {name or "": list(own) for name, own in axes.items()}} | {
        name: value for name, value in numbers.items() if name not in _PLACED_BY_SIZE
    }
    kind = FORMULA._replace(text=text)
    return free_plan(kind, OWN, shape, dtype, program, axes=axes, numbers=numbers, tensors=tensors, shown=shown)


def own_lines(text: str) -> Lines:
    """The lines of a formula, which may be one expression alone; a kind's own, where that is named.

    >>> [line.name for line in own_lines("x / sum(x)")], own_lines("rms")[0].name
    (['output'], 'mean_square')
    """
    kind = EVERY.get(text.strip())
    if kind is not None and kind.rounds:  # as many as there are by default
        return lines_of(kind, OWN, {}, kind.numbers)
    if kind is not None:
        return kind.program
    alone = "=" not in text and ";" not in text and len(text.strip().splitlines()) == 1
    return lines(f"output = {text.strip()}" if alone else text)
