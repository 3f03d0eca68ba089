"""normcli fold: a BatchNorm folded into the convolution or linear layer before it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from os.path import realpath
from typing import TYPE_CHECKING, Annotated, Any

import typer

import normcli
from normcli import arithmetic, files, showing
from normcli.commands.options import ListFormat, chosen_format
from normcli.commands.texts import integer, number
from normcli.errors import InputError, warn
from normcli.planning.conventions import TORCH
from normcli.planning.kinds import KINDS
from normcli.showing.formats import LISTS, pieces
from normcli.words import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _option(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


def fold(
    file: Annotated[
        str | None,
        typer.Argument(metavar="CHECKPOINT", help="JSON, NPZ, safetensors, or .pt.", show_default=False),
    ] = None,
    conv: Annotated[str | None, _option("--conv", metavar="NAME", help="The layer to fold into.")] = None,
    bn: Annotated[str | None, _option("--bn", metavar="NAME", help="The BatchNorm, such as layer1.0.bn1.")] = None,
    weight: Annotated[str | None, _option("--weight", metavar="TENSOR", help="The layer's weight, itself.")] = None,
    bias: Annotated[str | None, _option("--bias", metavar="TENSOR", help="Its bias [none].")] = None,
    state: Annotated[str | None, _option("--state", metavar="FILE", help="The file of the BatchNorm.")] = None,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="A transposed convolution: its outputs are on axis 1.")
    ] = False,
    groups: Annotated[str, _option("--groups", metavar="N", help="Groups of the convolution [1].")] = "1",
    eps: Annotated[str, _option("--eps", metavar="FLOAT", help="Of the BatchNorm [1e-05].")] = str(TORCH.eps["batch"]),
    input: Annotated[str | None, _option("--input", metavar="TENSOR", help="Data to compare on [random].")] = None,
    seed: Annotated[str, _option("--seed", metavar="N", help="Of random data [0].")] = "0",
    full: Annotated[bool, typer.Option("--full", help="Show every channel, not the worst.")] = False,
    format: ListFormat = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    output: Annotated[
        str | None, _option("-o", "--output", metavar="FILE", help="Write it: .json, .npz or .safetensors.")
    ] = None,
) -> None:
    """Fold a BatchNorm into the layer before it, and say what that changes in the outputs."""
    gc.enable()
    name = chosen_format(format, json=json, known=LISTS)
    sources = [text for text in (file, weight, bias, state, input) if text is not None]
    _refuse(file, conv, weight, bias, state, sources)
    start = integer(seed, "seed")
    if start < 0:
        raise InputError(f"--seed is {start}; it must be 0 or more")
    if output is not None:
        files.write.check_suffix(output, normcli.layers.FORMATS, "--output")
        if realpath(output) in map(realpath, sources):
            raise InputError(f"--output is {shown(output)}, which is read; give it another name")
    arrays, words, prefix = _layers(file, conv, bn, weight, bias, state)
    layer = arithmetic.fold.Convolution(
        arrays["conv"]["weight"], arrays["conv"].get("bias"), transposed, integer(groups, "groups")
    )
    kept: dict[str, Any] = {name: values for name, values in arrays["bn"].items() if name != "num_batches_tracked"}
    norm = arithmetic.result.State(**kept)
    folded = arithmetic.fold.fold(layer, norm, settled := number(eps, "eps"))
    x = arithmetic.fold.made_up(layer, start) if input is None else _read(input, "--input")
    report = showing.fold.report(
        folded,
        arithmetic.fold.differences(folded, x),
        norm,
        named=words,
        eps=settled,
        data=x.shape,
        seed=start if input is None else None,
        full=full,
    )
    if output is not None:
        with files.write.whole_file(output) as stream:
            dotted = f"{prefix}." if prefix else ""
            found = {"weight": folded.layer.weight, "bias": folded.layer.bias}
            named = {f"{dotted}{name}": values for name, values in found.items() if values is not None}
            normcli.layers.write_arrays_to(stream, output, named)
    sys.stdout.writelines(pieces(name, report, showing.report.Detail()))


def _refuse(
    file: str | None, conv: str | None, weight: str | None, bias: str | None, state: str | None, sources: list[str]
) -> None:
    """Refuse what leaves one of the layers open, or gives it twice."""
    if [text.strip() for text in sources].count("-") > 1:
        raise InputError("standard input (-) is given twice; it can be read once")
    if file is None and weight is None:
        raise InputError("there is no layer to fold into; give a CHECKPOINT, or its --weight")
    if file is None and state is None:
        raise InputError("there is no BatchNorm to fold; give its file with --state")
    if weight is not None and conv is not None:
        raise InputError("--weight and --conv both say what to fold into; give one of them")
    if bias is not None and weight is None:
        raise InputError("--bias belongs to --weight; a layer of a CHECKPOINT has its own")
    if file is not None and weight is not None and state is not None:
        raise InputError(f"nothing is taken from {shown(file)}: --weight and --state give both layers; leave it out")


def _layers(
    file: str | None, conv: str | None, bn: str | None, weight: str | None, bias: str | None, state: str | None
) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, str], str]:
    """The arrays of the convolution and of the BatchNorm, what they are called, and the name of the first."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    words: dict[str, str] = {}
    prefix = ""
    if weight is not None:
        given = {"weight": weight, "bias": bias}
        found["conv"] = {name: _read(text, f"--{name}") for name, text in given.items() if text is not None}
    for path in dict.fromkeys(path for path in (file, state) if path is not None):
        with normcli.layers.open_checkpoint(path) as checkpoint:
            if path == file and weight is None:
                layer = checkpoint.convolution(conv)
                prefix, found["conv"] = layer.prefix, _arrays(layer, checkpoint.name)
                words["conv"] = layer.prefix
            if path == (state or file):
                layer = checkpoint.layer(bn, KINDS["batch"], "--bn")
                words["bn"] = layer.prefix
                found["bn"] = _arrays(layer, checkpoint.name)
                _check_norm(found["bn"], f"{shown(layer.prefix)} in {checkpoint.name}".removeprefix(" in "))
    return found, words, prefix


def _arrays(layer: Any, file: str) -> dict[str, NDArray[Any]]:
    arrays, warnings = normcli.layers.arrays_of(layer, file)
    warn(warnings)
    return arrays


def _check_norm(arrays: Mapping[str, Any], where: str) -> None:
    for name in ("running_mean", "running_var"):
        if name not in arrays:
            raise InputError(f"{where} holds no {name}; only a BatchNorm with running statistics can be folded")


def _read(text: str, what: str) -> NDArray[Any]:
    read = files.read.read_tensor(text, what=what)
    warn(read.warnings)
    return read.array
