"""What the conventions of the frameworks say, point by point, and where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from normcli.errors import InputError
from normcli.planning.conventions import CONVENTIONS, TORCH, Convention, spelled
from normcli.planning.further import FURTHER
from normcli.planning.kinds import KINDS
from normcli.showing.profiles import chosen, section
from normcli.showing.report import Report, Section
from normcli.words import either


def points(names: Sequence[str] = ()) -> dict[str, list[str]]:
    """What each convention says on each point, as text; of two named ones only where they differ.

    Raises InputError for a name that no convention has.

    >>> points(["torch", "d2l"])["running variance"]
    ['divided by n - 1', 'divided by n']
    """
    for name in names:
        if spelled(name) not in CONVENTIONS:
            raise InputError(f"convention {name!r} is not known; use {', '.join(CONVENTIONS)}")
    each = [CONVENTIONS[spelled(name)] for name in (names or CONVENTIONS)]
    rows = {point: [say(convention) for convention in each] for point, say in _POINTS.items()}
    if len(each) == 1:
        return rows
    return {point: texts for point, texts in rows.items() if len(set(texts)) > 1}


def report(asked: Sequence[str] = ()) -> Report:
    """All conventions side by side, or where the named ones differ, with the sources; of the named kinds alone.

    A name is that of a convention or of a kind.
    """
    kinds = [name for name in map(str.lower, asked) if name in FURTHER]
    of_formula = [name for name in map(str.lower, asked) if name in TORCH.eps]
    named = [spelled(name) for name in asked if name.lower() not in {*kinds, *of_formula}]
    for name in named:
        if not any(name in known for known in (CONVENTIONS, *(kind.profiles for kind in FURTHER.values()))):
            raise InputError(f"convention {name!r} is not known; use {either(names())}")
    profiles = {} if of_formula and not kinds else chosen(kinds, named)
    if kinds and not profiles:
        raise InputError(
            f"{either(kinds)} has no convention {' or '.join(named)}; it has {either(FURTHER[kinds[0]].profiles)}"
        )
    of_family = [name for name in named or CONVENTIONS if name in CONVENTIONS and (of_formula or not kinds)]
    concerned = {point for kind in of_formula or TORCH.eps for point in concerning(kind)}
    rows = {point: texts for point, texts in points(of_family).items() if point in concerned} if of_family else {}
    title = f"where {' and '.join(of_family)} differ" if len(of_family) > 1 and named else "conventions"
    title += f" in {' and '.join(of_formula)}" if of_formula else ""
    body = [[point, *texts] for point, texts in rows.items()]
    sources = [[name, CONVENTIONS[name].source] for name in of_family]
    of_conventions = (
        Section(part="conventions", title=title, columns=["", *of_family], rows=body, text=True),
        Section(part="conventions", title="sources", columns=["", "public file"], rows=sources, text=True),
    )
    return Report(
        sections=(of_conventions if of_family else ()) + ((section(profiles),) if profiles else ()),
        document={
            name: {point: texts[i] for point, texts in rows.items()} | typed(CONVENTIONS[name])
            for i, name in enumerate(of_family)
        }
        | ({"kinds": profiles} if profiles else {}),
    )


def names() -> list[str]:
    """What may be asked for: the conventions, those of the kinds beyond the family, and all kinds.

    >>> names()[:2], names()[-1]
    (['torch', 'keras'], 'spectral')
    """
    profiles = (name for kind in FURTHER.values() for name in kind.profiles)
    return [*dict.fromkeys([*CONVENTIONS, *profiles]), *TORCH.eps, *FURTHER]


def concerning(kind: str) -> set[str]:
    """The points that a kind of the family has to do with.

    >>> sorted(concerning("layer"))
    ['affine of layer', 'eps of layer']
    """
    found = {f"eps of {kind}", f"affine of {kind}"}
    found |= {"channel axis"} if "channel_axis" in KINDS[kind].options else set()
    found |= {"groups of channels"} if "groups" in KINDS[kind].options else set()
    return found | (_OF_RUNNING if KINDS[kind].has_running_stats else set())


def typed(convention: Convention) -> dict[str, Any]:
    """A convention in JSON's own types, for programs; None for what the framework has not.

    >>> typed(CONVENTIONS["d2l"])["eps"], typed(CONVENTIONS["torch"])["momentum_default"]
    ({'batch': 1e-05, 'instance': None, 'layer': None, 'group': None, 'rms': None}, 0.1)
    """
    there = {kind: kind in convention.eps for kind in TORCH.eps}
    return {
        "title": convention.title,
        "source": convention.source,
        "eps": {kind: (convention.eps[kind] or "machine_epsilon") if has else None for kind, has in there.items()},
        "affine": {kind: convention.affine.get(kind, True) if has else None for kind, has in there.items()},
        "momentum": convention.momentum,
        "momentum_sense": convention.momentum_sense,
        "momentum_default": _own_momentum(convention),
        "running_ddof": convention.running_ddof,
        "channel_axis": convention.channel_axis,
        "interleaved_groups": convention.interleaved_groups if there["group"] else None,
        "one_value_per_channel": convention.one_value_per_channel,
    }


def _own_momentum(convention: Convention) -> float:
    """What the framework's own argument is by default."""
    return convention.momentum if convention.momentum_sense == "new" else 1 - convention.momentum


def _eps(kind: str) -> Callable[[Convention], str]:
    def say(convention: Convention) -> str:
        if kind not in convention.eps:
            return "(none)"
        eps = convention.eps[kind]
        return "machine epsilon" if eps is None else f"{eps:g}"

    return say


def _affine(kind: str) -> Callable[[Convention], str]:
    return lambda c: ("on" if c.affine.get(kind, True) else "off") if kind in c.eps else "(none)"


_OF_RUNNING = {
    "momentum multiplies",
    "its default",
    "weight of the new batch",
    "running variance",
    "it starts at",
    "1 value per channel",
}
_POINTS: Mapping[str, Callable[[Convention], str]] = {
    **{f"eps of {kind}": _eps(kind) for kind in TORCH.eps},
    "momentum multiplies": lambda c: "the new batch" if c.momentum_sense == "new" else "the old value",
    "its default": lambda c: f"{_own_momentum(c):g}",
    "weight of the new batch": lambda c: f"{c.momentum:g}",
    "running variance": lambda c: "divided by n - 1" if c.running_ddof else "divided by n",
    "it starts at": lambda c: f"{c.running_var:g}",
    "channel axis": lambda c: str(c.channel_axis),
    **{f"affine of {kind}": _affine(kind) for kind in TORCH.eps},
    "groups of channels": lambda c: (
        "(none)" if "group" not in c.eps else "interleaved" if c.interleaved_groups else "consecutive"
    ),
    "1 value per channel": lambda c: "computed" if c.one_value_per_channel else "refused",
}
