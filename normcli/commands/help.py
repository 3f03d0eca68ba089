"""Help that leads: what stands in it, under which heading, and how it is broken to fit the terminal.

Typer's own help would need rich for headings, and breaks words.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from typer import TyperException
from typer.core import TyperCommand, TyperGroup, TyperOption

from normcli.commands.options import SECTIONS, offered
from normcli.errors import InputError
from normcli.planning.further import EVERY
from normcli.planning.kinds import FORMULA, KINDS
from normcli.terminal import READABLE, WHEN, folded, folded_command, settle_colour, width_of
from normcli.words import either

EXAMPLES = {
    "check": (
        "normcli check homework.json",
        "normcli check examples/checks/*.json",
        "normcli check --init | normcli check -",
    ),
    "conventions": (
        "normcli conventions",
        "normcli conventions torch keras",
        "normcli conventions batch",
        "normcli conventions lrn",
        "normcli conventions --json",
    ),
    "state": (
        "normcli state model.safetensors",
        "normcli state checkpoint.npz --json",
        "normcli batch x.npy --state model.safetensors --prefix layer1.0.bn1 --mode eval",
    ),
    "fold": (
        "normcli fold model.safetensors --conv layer1.0.conv1 --bn layer1.0.bn1",
        "normcli fold model.safetensors --conv layer1.0.conv1 --bn layer1.0.bn1 -o folded.npz",
        "normcli fold --weight '[[1,2],[3,4]]' --state checkpoint.npz --input '[[5,6]]'",
    ),
    "stats": (
        "normcli stats 'train/*.npy'",
        "normcli stats 'train/*.npy' --channel-axis -1 --scale 255 --json",
        "normcli stats 'train/*.npy' --workers 2 -o 'out/{name}.npy'",
    ),
    "axes": (
        "normcli axes batch --shape 2,6,4,4",
        "normcli axes group --shape 2,6,4,4 --groups 3",
        "normcli axes layer --shape 8,128,512 --json",
    ),
}
SUMMARIES = {
    "check": "Verify worked examples; name the mistake in a wrong one.",
    "conventions": "What differs between frameworks.",
    "state": "List the normalization layers in a checkpoint.",
    "fold": "Fold a BatchNorm into the convolution or linear layer before it.",
    "stats": "Statistics of data in many files, exactly, and the slips in known ones.",
    "axes": "Draw which elements share one mean.",
}

# What else the help of a command says; what stands in a FILE is read by normcli.teaching.worked.
_EPILOGUES = {
    "fold": """\
CHECKPOINT holds both layers; or --weight (and --bias) is the convolution's, --state the BatchNorm's file.
Folded, in each output channel, where rstd is that of running_var and eps:
  scale   gamma * rstd
  weight  weight * scale
  bias    (bias - running_mean) * scale + beta
exactly, and rounded once to the dtype of the weight. Then the outputs of both are compared, on --input or on random \
data, where the kernel lies within them whole.""",
    "check": """\
A FILE holds a calculation and the numbers claimed for it, as JSON:
  kind            batch, instance, layer, group or rms
  input           nested lists, or the path of a file beside this one
  options         those of the kind's own command: {"eps": 1e-5, "weight": [1, 2]}
  expect          what is claimed, any of mean, mean_square, var, var_unbiased, rstd, normalized, output, \
running_mean, running_var, with renorm: r, d, and with grad_output: grad_input, grad_weight, grad_bias
  grad_output     what flows into the output: as input, or one number, or "ones"
  decimals        with which the claims are printed [as they are written]
  input_decimals  to which the input was rounded, or "exact" [exact, if that explains the claims]
  title, source   said with the verdict
  slip            keys of the mistake that a false claim is kept for

{"kind": "layer", "input": [[1, 2, 4, 1]], "expect": {"mean": [2], "var": [1.5]}}

normcli check --init > homework.json writes one to start from.""",
}

_START = """\
normcli is a calculator for tensor normalization:
  {formula}

  normcli batch '[[1,2,4,1],[6,3,2,4],[2,4,6,1]]'
      statistics and output of a BatchNorm
  normcli layer '[1,2,4,1]' --trace
      a LayerNorm, step by step
  normcli layer '[1,2,4,1]' --expect '[-0.8165,0,1.6330,-0.8165]'
      is this answer right, and if not, why?
  normcli batch '[[1,2],[3,6]]' --versus keras
      why do two frameworks differ?
  normcli state model.safetensors
      what does a layer of my checkpoint do?
  normcli axes group --shape 2,6,4,4 --groups 3
      which elements share one mean?

{commands}

normcli COMMAND --help shows more examples and every option; normcli --help describes the commands.
"""

_FORMULA = "y = (x - mean) / sqrt(var + eps) * weight + bias"
_ABOUT = f"""\
Normalize a tensor: {_FORMULA}.

INPUT is a literal such as '[[1,2],[3,4]]', a file (JSON, NPY, NPZ, CSV, or pasted tensor text), or - for standard \
input. In cmd.exe double quotes stand around a literal: "[[1,2],[3,4]]".

Questions:
  Is my answer right?
      normcli layer --help   has --expect, as all kinds have
      normcli check --help   for an answer in a file
  Why do these two frameworks differ?
      normcli batch --help        has --versus, as all kinds have
      normcli conventions --help  for what they do by default
  What does the layer in my checkpoint do?
      normcli state --help   for its layers, and how to run one"""

_HEADINGS = {
    "Calculate": (*KINDS,),
    "Check and compare": ("check", "conventions", "state", "axes", "fold"),
    "Data in many files": ("stats",),
    "Formula": (FORMULA.name,),
    "More kinds": tuple(name for name in EVERY if name not in KINDS and name != FORMULA.name),
}

_COLUMN, _NARROW = 30, 22  # places for the names of options, on a wide page and on a narrow one


def examples(command: str) -> tuple[str, ...]:
    """What a command's help shows of its use.

    >>> examples("state")[0]
    'normcli state model.safetensors'
    """
    return EVERY[command].examples if command in EVERY else EXAMPLES[command]


def summary(command: str) -> str:
    """What a command does, in one line."""
    return EVERY[command].summary if command in EVERY else SUMMARIES[command]


class Command(TyperCommand):
    """A command whose help has its options under headings; --color is among them."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.params.append(_colour_option())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The values of the arguments; an error knows the command whose help is of use, which Click leaves out."""
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise

    def get_help(self, ctx: Any) -> str:
        """The help of the command, as wide as the terminal."""
        name = str(self.name)
        given = [param for param in self.params if param.param_type_name == "argument"]
        needed = [f"{param.metavar}" if param.required else f"[{param.metavar}]" for param in given]
        rows = [(str(param.metavar), str(getattr(param, "help", ""))) for param in given]
        lines = [f"Usage: {' '.join([ctx.command_path, *needed, '[OPTIONS]'])}", "", summary(name), "", "Examples:"]
        lines += [f"  {example}" for example in examples(name)]
        lines += ["", *_EPILOGUES[name].split("\n")] if name in _EPILOGUES else []
        return _page([*lines, *_rows("Arguments", rows), *_options(self, ctx)])


class Commands(TyperGroup):
    """The group of commands, whose help has them under headings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params.append(_colour_option())

    def get_help(self, ctx: Any) -> str:
        """The help of the program, as wide as the terminal."""
        lines = ["Usage: normcli COMMAND [INPUT...] [OPTIONS]", "", *_ABOUT.split("\n")]
        left = [name for name in self.commands if not any(name in names for names in _HEADINGS.values())]
        for heading, names in (_HEADINGS | ({"Others": tuple(left)} if left else {})).items():
            lines += _rows(heading, [(name, summary(name)) for name in names if name in self.commands])
        return _page([*lines, *_options(self, ctx)])


def _colour_option() -> TyperOption:
    return TyperOption(
        param_decls=["--color"],
        metavar="auto|always|never",
        help="Colours: on a terminal, always or never [auto]; NO_COLOR and FORCE_COLOR are heeded.",
        expose_value=False,
        is_eager=True,
        callback=_settle_colour,
        autocompletion=offered(lambda: WHEN),
    )


def _settle_colour(ctx: Any, param: Any, value: str | None) -> None:
    if value is not None and value not in WHEN:
        raise InputError(f"--color is {value!r}; use {either(WHEN)}")
    if value is not None:
        settle_colour(value)


def _options(command: Any, ctx: Any) -> Iterator[str]:
    """The options under their headings, the commonest first; those without one at the end."""
    found: dict[str | None, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        if param.param_type_name == "option" and (record := param.get_help_record(ctx)):
            found.setdefault(param.rich_help_panel, []).append(record)
    for heading in (*SECTIONS, None):
        title = heading or ("Options" if len(found) == 1 else "Every command")
        yield from _rows(title, found.get(heading, []))


def _rows(heading: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    """A heading, and under it names with what they mean, in two columns; a name too long has a line to itself."""
    rows = [*rows]
    most = _COLUMN if _width() > 2 * _COLUMN else _NARROW
    column = max((len(name) for name, _ in rows if len(name) <= most), default=0)
    lines = []
    for name, text in rows:
        if len(name) > column:
            lines += [f"  {name}", f"{'':{column + 4}}{text}"]
        else:
            lines.append(f"  {name:{column}}  {text}")
    return ["", f"{heading}:", *lines] if lines else []


def _width() -> int:
    return min(width_of(sys.stdout) or 80, READABLE)


def _page(lines: Iterable[str]) -> str:
    """The lines as wide as the terminal: examples as commands, two columns as columns, the others as prose."""
    width = _width()
    broken = [folded_command(line, width) if line.startswith("  normcli ") else folded(line, width) for line in lines]
    return "\n".join(line for lines in broken for line in lines)


def start() -> str:
    """What normcli says that is called without anything."""
    commands = f"Commands: {'; '.join(', '.join(names) for names in _HEADINGS.values())}."
    return _page(_START.format(formula=_FORMULA, commands=commands).split("\n"))
