"""normcli state: the normalization layers in a checkpoint."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import normcli
from normcli import showing
from normcli.commands.options import ListFormat, chosen_format
from normcli.showing.formats import LISTS, pieces


def state(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON, NPZ, safetensors, or .pt.", show_default=False)],
    format: ListFormat = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List the normalization layers that a checkpoint holds, and what kinds they can be."""
    name = chosen_format(format, json=json, known=LISTS)
    sys.stdout.writelines(pieces(name, showing.state.report(*normcli.layers.summaries(file)), showing.report.Detail()))
