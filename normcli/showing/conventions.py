"""What the conventions of the frameworks say, point by point, and where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from normcli.errors import InputError
from normcli.planning.conventions import CONVENTIONS, TORCH, Convention, spelled
from normcli.showing.report import Report, Section


def points(names: Sequence[str] = ()) -> dict[str, list[str]]:
    """What each convention says on each point, as text; of two named ones only where they differ.

    Raises InputError for a name that no convention has.

    >>> points(["torch", "d2l"])["running variance"]
    ['divided by n - 1', 'divided by n']
    """
    for name in names:
        if spelled(name) not in CONVENTIONS:
            raise InputError(f"convention {name!r} is not known; use {', '.join(CONVENTIONS)}")
    chosen = [CONVENTIONS[spelled(name)] for name in (names or CONVENTIONS)]
    rows = {point: [say(convention) for convention in chosen] for point, say in _POINTS.items()}
    if len(chosen) == 1:
        return rows
    return {point: texts for point, texts in rows.items() if len(set(texts)) > 1}


def report(names: Sequence[str] = ()) -> Report:
    """All conventions side by side, or where the named ones differ, with the sources."""
    names = [spelled(name) for name in names]
    rows, chosen = points(names), names or list(CONVENTIONS)
    title = f"where {' and '.join(names)} differ" if len(names) > 1 else "conventions"
    body = [[point, *texts] for point, texts in rows.items()]
    sources = [[name, CONVENTIONS[name].source] for name in chosen]
    return Report(
        sections=(
            Section(part="conventions", title=title, columns=["", *chosen], rows=body, text=True),
            Section(part="conventions", title="sources", columns=["", "public file"], rows=sources, text=True),
        ),
        document={
            name: {point: texts[i] for point, texts in rows.items()} | typed(CONVENTIONS[name])
            for i, name in enumerate(chosen)
        },
    )


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
