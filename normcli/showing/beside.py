"""The norms side by side: which elements share one mean in each of them, for one shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from normcli.planning.kinds import KINDS
from normcli.planning.layout import Shape
from normcli.showing.axes import left_out, means, tight, titled
from normcli.showing.canvas import Line
from normcli.showing.figure import Figure, figure_of
from normcli.showing.report import Report
from normcli.words import listed

NORMS = ("batch", "layer", "instance", "group", "rms")  # as in the figure of Wu and He, and RMSNorm
_BETWEEN = 3  # blanks


def figures(shape: Shape, options: Mapping[str, Any]) -> list[Figure]:
    """The figures of all norms that a tensor of that shape can have, each with those of the options that it knows.

    Without a number of groups the least that splits the channels is taken.

    >>> [figure.plan.kind.name for figure in figures((2, 6, 3), {})]
    ['batch', 'layer', 'instance', 'group', 'rms']
    """
    found = []
    for name in NORMS:
        kind = KINDS[name]
        if len(shape) >= kind.least_rank:
            own = {option: value for option, value in options.items() if option in kind.options}
            if "groups" in kind.options and "groups" not in own:
                own["groups"] = _least_groups(shape[figure_of("batch", shape, _of_channels(options)).channels])
            found.append(figure_of(name, shape, own))
    if any(figure.plan.layout.is_batched and figure.plan.layout.channel_axis is not None for figure in found):
        found = [figure for figure in found if figure.plan.layout.is_batched]
    inside = [axis for axis in range(len(shape)) if all(_is_alike(figure, axis) for figure in found)]
    return [replace(figure, flat=frozenset(inside)) for figure in found]


def _of_channels(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in ("channel_axis", "convention")}


def _least_groups(channels: int) -> int:
    """The least number of groups, but for one, that channels are split into.

    >>> _least_groups(6), _least_groups(15), _least_groups(7), _least_groups(1)
    (2, 3, 7, 1)
    """
    return next((n for n in range(2, int(channels**0.5) + 1) if channels % n == 0), channels)


def _is_alike(figure: Figure, axis: int) -> bool:
    """Whether all places along an axis in the cells are of one group."""
    return axis in figure.spatial and axis in figure.plan.layout.reported_axes


def report(drawn: list[Figure]) -> Report:
    """The pictures beside each other, and a sentence for each."""
    return Report(
        headline=f"{listed([figure.plan.kind.title for figure in drawn])} of {drawn[0].plan.shape}: "
        "in each, equal letters share one mean (RMSNorm: one mean square)",
        words=tuple(_words(drawn)),
        picture=lambda canvas: lines(drawn, canvas.width),
    )


def lines(drawn: list[Figure], width: int) -> list[Line]:
    """The pictures, as many beside each other as fit; norms whose means are of the same elements share one.

    >>> for line in lines(figures((2, 4, 2), {"normalized_shape": (4, 2)}), 70):
    ...     print("".join(text for text, _ in line).rstrip())
    BatchNorm       LayerNorm, RMSNorm   InstanceNorm    GroupNorm
         0 1 2 3       0 1 2 3                0 1 2 3         0 1 2 3
    N 0  A B C D    0  A A A A           N 0  A B C D    N 0  A A B B
    N 1  A B C D    1  B B B B           N 1  E F G H    N 1  C C D D
    """
    panels = [_panel(together) for together in alike(drawn)]
    found: list[Line] = []
    row: list[list[Line]] = []
    for panel in panels:
        if row and sum(_wide(one) + _BETWEEN for one in [*row, panel]) - _BETWEEN > width:
            found += [*_joined(row), []]
            row = []
        row.append(panel)
    return [*found, *_joined(row)]


def alike(drawn: list[Figure]) -> list[list[Figure]]:
    """The figures, those together whose means are of the same elements."""
    found: list[list[Figure]] = []
    for figure in drawn:
        same = next((one for one in found if one[0].plan.layout == figure.plan.layout), None)
        if same is None:
            found.append([figure])
        else:
            same.append(figure)
    return found


def _panel(together: list[Figure]) -> list[Line]:
    title = ", ".join(figure.plan.kind.title for figure in together)
    return [[(title, "cyan")], *tight(together[0])]


def _wide(panel: list[Line]) -> int:
    return max(sum(len(text) for text, _ in _stripped(line)) for line in panel)


def _stripped(line: Line) -> Line:
    """The line without the blanks at its end."""
    return line[:-1] if line and not line[-1][0].strip() else line


def _joined(row: list[list[Line]]) -> Iterator[Line]:
    for parts in zip_longest(*row, fillvalue=[]):
        joined: Line = []
        for panel, part in zip(row, parts, strict=True):
            line = _stripped(part)
            blank = _wide(panel) + _BETWEEN - sum(len(text) for text, _ in line)
            joined += [*line, (" " * blank, None)]
        yield joined


def _words(drawn: list[Figure]) -> Iterator[str]:
    first = drawn[0]
    inside = " x ".join(first.names[axis] for axis in sorted(first.flat))
    yield f"Rows are samples, columns channels{f', a letter stands for all of {inside}' if inside else ''}."
    yield from dict.fromkeys(sentence for one in drawn if one.names == first.names for sentence in left_out(one))
    for figure in drawn:
        yield f"{titled(figure)}: {means(figure)}"
    if len(first.plan.shape) == 1:
        yield "A tensor of one axis has no channels to normalize."
    if len(first.plan.shape) == 2:
        yield "InstanceNorm takes a tensor of two axes for one sample, (C, L), and is left out."
    layer = next(figure.plan for figure in drawn if figure.plan.normalized_shape is not None)
    if len(layer.shape) > 2 and layer.normalized_shape == layer.shape[-1:]:
        whole = ",".join(map(str, layer.shape[1:]))
        yield f"The LayerNorm over whole samples, as Wu and He (2018) draw it, is --normalized-shape {whole}."
