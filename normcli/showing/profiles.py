"""What libraries make of the kinds beyond the family: numbers, axes, and lines of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normcli.digits import short
from normcli.formula.spelled import spelled
from normcli.planning.conventions import Profile
from normcli.planning.further import FURTHER
from normcli.planning.kinds import Kind
from normcli.planning.settled import defaults, lines_of
from normcli.showing.report import Section
from normcli.teaching.other_axes import axes_words

_RANK = 4  # of a tensor whose axes are named


def chosen(kinds: list[str], conventions: list[str]) -> dict[str, dict[str, Any]]:
    """The profiles of these kinds, or of all, by kind and convention; of several conventions where they differ.

    >>> chosen(["lrn"], ["caffe"])["lrn"]["caffe"]["numbers"]
    {'size': 5.0, 'alpha': 1.0, 'beta': 0.75, 'k': 1.0}
    >>> list(chosen([], ["torch", "keras"]))
    ['lp']
    """
    found: dict[str, dict[str, Any]] = {}
    for kind in map(FURTHER.__getitem__, kinds or FURTHER):
        those = {
            name: typed(kind, one) for name, one in kind.profiles.items() if not conventions or name in conventions
        }
        points = [{**one, "source": None} for one in those.values()]
        if points and (len(conventions) < 2 or any(one != points[0] for one in points)):
            found[kind.name] = those
    return found


def typed(kind: Kind, profile: Profile) -> dict[str, Any]:
    """What a library has by default, in JSON's own types; axes and channel_axis are null where the kind takes none."""
    numbers = defaults(kind, profile)
    lines = lines_of(kind, profile, {}, numbers)
    has_channels = "channel_axis" in kind.options
    found = {
        "title": kind.title,
        "source": profile.source,
        "numbers": numbers | ({"ddof": int(profile.numbers.get("ddof", 0))} if "ddof" in kind.options else {}),
        "axes": list(profile.axes or kind.sets[None](_RANK, 1)) if "axes" in kind.options else None,
        "channel_axis": (1 if profile.channel_axis is None else profile.channel_axis) if has_channels else None,
        "lines": {line.name: spelled(line.value) for line in lines if line.role == "shown"},
    }
    if "size" in kind.numbers:
        found["even_size"] = "one more after" if profile.more_after else "one more before"
    return found


def section(profiles: Mapping[str, Mapping[str, Any]]) -> Section:
    """A table of them, a row each, with the lines in which those of a kind differ."""
    rows = [
        [kind, name, "; ".join(_said(one, _differing(FURTHER[kind]))), one["source"]]
        for kind, those in profiles.items()
        for name, one in those.items()
    ]
    return Section(
        part="conventions", title="further kinds", columns=["kind", "convention", "by default", "public file"],
        rows=rows, labels=2, text=True,
    )  # fmt: skip


def _said(one: Mapping[str, Any], lines: set[str]) -> Iterator[str]:
    if said := ", ".join(f"{name} {short(value)}" for name, value in one["numbers"].items()):
        yield said
    if one["axes"] is not None:
        yield f"over {axes_words(one['axes'])}"
    if one["channel_axis"] is not None:
        yield f"channel axis {one['channel_axis']}"
    if "even_size" in one:
        yield f"{one['even_size']} where size is even"
    yield from (f"{name} = {text}" for name, text in one["lines"].items() if name in lines)


def _differing(kind: Kind) -> set[str]:
    """The names of the lines that are not the same in all profiles of a kind."""
    every = [typed(kind, profile)["lines"] for profile in kind.profiles.values()]
    return {name for lines in every for name in lines if any(other.get(name) != lines[name] for other in every)}
