"""normcli axes: which elements of a tensor share one mean."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any

import typer

from normcli import files, showing
from normcli.commands.options import CALCULATION, FURTHER, ListFormat, chosen_format, offered
from normcli.commands.texts import integers
from normcli.errors import InputError
from normcli.planning.further import EVERY
from normcli.planning.kinds import ALL, FORMULA
from normcli.showing.formats import LISTS, pieces
from normcli.words import either, flag

_MOST_AXES = 8
_MOST_ELEMENTS = 2**63 - 1
_ROWS = {row.name: row for row in (*CALCULATION, *FURTHER)}
_KINDS = tuple(name for name in EVERY if name != FORMULA.name)


def _option(name: str) -> Any:
    """An option of the kinds' own commands, for the picture."""
    row = _ROWS[name]
    return typer.Option(
        flag(name), metavar=row.metavar, help=row.help, show_default=False, autocompletion=offered(row.values)
    )


def axes(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"{either([*_KINDS, ALL])}; {ALL}: side by side.",
            show_default=False,
            autocompletion=offered(lambda: [*_KINDS, ALL]),
        ),
    ],
    shape: Annotated[str, typer.Option("--shape", metavar="N,N,...", help="The tensor's sizes.", show_default=False)],
    groups: Annotated[str | None, _option("groups")] = None,
    channel_axis: Annotated[str | None, _option("channel_axis")] = None,
    normalized_shape: Annotated[str | None, _option("normalized_shape")] = None,
    axes: Annotated[str | None, _option("axes")] = None,
    convention: Annotated[str | None, _option("convention")] = None,
    svg: Annotated[
        str | None, typer.Option("--svg", metavar="FILE", help="Draw it into a file too.", show_default=False)
    ] = None,
    format: ListFormat = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Draw which elements share one mean."""
    texts = {"groups": groups, "channel_axis": channel_axis, "normalized_shape": normalized_shape,
             "axes": axes, "convention": convention}  # fmt: skip
    options = {name: _ROWS[name].read(text, name) for name, text in texts.items() if text is not None}
    sizes = integers(shape, "shape")
    if kind == FORMULA.name:
        raise InputError("a formula has several sets of axes, and no picture; give a kind")
    name = chosen_format(format, json=json, known=LISTS)
    if svg is not None:
        files.write.check_suffix(svg, [".svg"], "--svg")
    _check_shape(sizes)
    drawn = showing.beside.figures(sizes, options) if kind == ALL else [showing.figure.figure_of(kind, sizes, options)]
    if svg is not None:
        files.write.write_text(svg, showing.cube.svg(*(same[0] for same in showing.beside.alike(drawn))))
    together = kind == ALL and name == "table"
    reports = [showing.beside.report(drawn)] if together else [showing.axes.report(figure) for figure in drawn]
    for report in reports:
        sys.stdout.writelines(pieces(name, report, showing.report.Detail()))


def _check_shape(shape: tuple[int, ...]) -> None:
    """Refuse what cannot be drawn."""
    if not shape:
        raise InputError("--shape is empty; give the sizes of the tensor, such as --shape 2,6,4,4")
    if min(shape) < 1:
        raise InputError(f"--shape holds {min(shape)}; every size must be 1 or more")
    if len(shape) > _MOST_AXES:
        raise InputError(f"--shape has {len(shape)} axes; {_MOST_AXES} can be drawn")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise InputError(f"--shape holds more than {_MOST_ELEMENTS:.3g} elements, which is more than any tensor has")
