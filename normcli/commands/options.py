"""The options of the command line: a table, like the one in the documentation.

Each option is a row with its type and its help; ``normcli.planning.plan`` says which kinds it means
something to. Every command's signature is made from these rows, so that an option that does not
belong to a kind is refused by name.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, NamedTuple

import typer

from normcli.commands.texts import (
    answers,
    answers_of_lines,
    decimals,
    input_decimals,
    integer,
    integers,
    lets,
    mark,
    momentum,
    named_axes,
    number,
    several,
    switch,
    tensor,
    tolerance,
    word,
)
from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.formula.family import COURSES
from normcli.planning.conventions import CONVENTIONS, TORCH
from normcli.planning.kinds import GRADIENTS, KINDS, Kind
from normcli.showing.formats import FORMATS, LISTS
from normcli.words import either, flag, near


class Row(NamedTuple):
    """One option: its name (as in ``normcli.normalize``), how its text is read, and its help."""

    name: str
    read: Callable[[Any, str], Any]
    metavar: str
    help: str
    aliases: tuple[str, ...] = ()
    running: bool = False  # of PRESENTATION: only for the kinds that can keep running statistics
    values: Callable[[], Iterable[str]] | None = None  # what completion offers

    @property
    def section(self) -> str:
        """The heading that it stands under in the help."""
        own = "Show" if self in PRESENTATION else "Formula"
        return next((heading for heading, names in SECTIONS.items() if self.name in names), own)

    def parameter(self, kind: Kind) -> inspect.Parameter:
        """The option as a parameter of a kind's command function."""
        boolean = self.read in (switch, mark)
        names = f"{flag(self.name)}/--no-{flag(self.name)[2:]}" if self.read is switch else flag(self.name)
        option = typer.Option(
            names,
            *self.aliases,
            help=self.help.format_map(_defaults(kind)),
            show_default=False,
            metavar=None if boolean else self.metavar,
            autocompletion=offered(self.values),
            rich_help_panel=self.section,
        )
        repeatable = self.read in (several, answers, answers_of_lines, named_axes, lets)
        plain: Any = bool | None if boolean else list[str] | None if repeatable else str | None
        annotation = Annotated[plain, option]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def offered(values: Callable[[], Iterable[str]] | None) -> Callable[[str], list[str]] | None:
    """What completes a word, for typer; None where anything may stand, such as a file, or where no shell asks.

    What each such function takes is found out by typer as soon as there is one: help would wait for it.
    """
    if values is None or "_NORMCLI_COMPLETE" not in os.environ:
        return None

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def chosen_format(given: str | None, *, json: bool, known: Collection[str] = FORMATS) -> str:
    """The format that is asked for by its name or by --json; a table where none is.

    >>> chosen_format(None, json=True), chosen_format(None, json=False)
    ('json', 'table')
    """
    if json and given not in (None, "json"):
        raise InputError(f"--json and --format {given} contradict each other; give one of them")
    name = "json" if json else given or "table"
    if name not in known:
        meant = near(name.lower(), known)
        hint = f"did you mean {meant}?" if meant else None
        raise InputError(f"--format is {name!r}; use {either(known)}", hint=hint)
    return name


def _specs() -> list[str]:
    return ["torch", "torch:cuda", *(f"numpy::{dtype}" for dtype in FLOAT_DTYPES), *CONVENTIONS]


def _defaults(kind: Kind) -> dict[str, str]:
    """The defaults that differ between kinds, as words for the help."""
    eps = TORCH.eps.get(kind.name, kind.numbers.get("eps"))
    known = kind.profiles or CONVENTIONS
    return {
        "eps_is": "The small number of its lines" if kind.profiles else "Added to the variance under the root",
        "conventions": f"{either(known)} [{next(iter(known))}]",
        "eps": "machine epsilon" if eps is None else f"{eps:g}",
        "affine": "on" if TORCH.affine.get(kind.name, True) else "off",
        "tracking": "on" if kind.tracks else "off",
    }


_TENSOR = "a tensor, given as INPUT is"

PARTS: tuple[str, ...] = ("output", "statistics", "running", "trace", *(n.replace("_", "-") for n in GRADIENTS))

# What shapes the result; each kind has those that its row in normcli.planning.plan names.
CALCULATION = (
    Row("eps", number, "FLOAT", "{eps_is} [{eps}]."),
    Row("weight", tensor, "TENSOR", f"Scale, {_TENSOR} [ones].", ("--gamma",)),
    Row("bias", tensor, "TENSOR", f"Offset, {_TENSOR} [zeros].", ("--beta",)),
    Row("weight_offset", integer, "0|1", "Added to the weight: 1 where weights are centred on 0, as Gemma's are [0]."),
    Row(
        "cast",
        word,
        "before|after",
        "Round to the dtype of the input before the weight multiplies, as Llama does, or after it [after].",
        values=lambda: ("before", "after"),
    ),
    Row("affine", switch, "", "Use weight and bias [{affine}]."),
    Row("groups", integer, "N", "Number of groups that the channels are split into; required."),
    Row("virtual_batch", integer, "N", "Give every N samples statistics of their own: ghost batch norm [all samples]."),
    Row("ranks", mark, "", "The inputs are the ranks of one batch: statistics merged by counts, as in SyncBatchNorm."),
    Row("renorm", mark, "", "Batch renorm: take the batch's statistics to the running ones, by r and d."),
    Row("rmax", number, "FLOAT", "With --renorm: r is at most this, and at least 1 / rmax [3]."),
    Row("dmax", number, "FLOAT", "With --renorm: d is at most this, and at least -dmax [5]."),
    Row("normalized_shape", integers, "N,N,...", "Trailing sizes that share one mean [the last axis]."),
    Row("channel_axis", integer, "N", "The axis of the channels; -1: channels last [1]."),
    Row(
        "mode",
        word,
        "train|eval",
        "Statistics of this batch, or the running ones [train].",
        values=lambda: ("train", "eval"),
    ),
    Row("momentum", momentum, "FLOAT|none", "Weight of the NEW batch in the running update; none: cumulative [0.1]."),
    Row("decay", number, "FLOAT", "Weight of the OLD value, 1 - momentum: the other way to say it."),
    Row("track_running_stats", switch, "", "Keep running statistics [{tracking}]."),
    Row("running_mean", tensor, "TENSOR", f"Running mean before the first batch, {_TENSOR} [zeros]."),
    Row("running_var", tensor, "TENSOR", f"Running variance before the first batch, {_TENSOR} [ones]."),
    Row("num_batches_tracked", integer, "N", "Batches seen before the first one [0]."),
    Row("ddof", integer, "0|1", "The normalizing variance is divided by n - ddof [0]."),
    Row("running_ddof", integer, "0|1", "The running variance is divided by n - ddof [1]."),
    Row(
        "convention",
        word,
        "NAME",
        "A framework's defaults: {conventions}.",
        values=lambda: CONVENTIONS,
    ),
    Row("dtype", word, "NAME", f"Cast the input first: {either(FLOAT_DTYPES)}.", values=lambda: FLOAT_DTYPES),
)

_AXES = "The axes that are taken together"
FURTHER = (
    Row("p", number, "1|2|inf", "Of the norm: the sum of sizes, the length, or the largest [2]."),
    Row("eps_at", word, "WHERE", "eps as floor, inside, inside_floor or added [floor].",
        values=lambda: ("floor", "inside", "inside_floor", "added")),
    Row("size", integer, "N", "Channels that are near one another [5]."),
    Row("alpha", number, "FLOAT", "Weight of the neighbours [0.0001]."),
    Row("beta", number, "FLOAT", "Power of what is divided by [0.75]."),
    Row("k", number, "FLOAT", "Added to the neighbours [1]."),
    Row("iterations", integer, "N", "Steps of the power iteration [1]."),
    Row("u", tensor, "TENSOR", f"The first vector of the power iteration, {_TENSOR} [all alike, of length 1]."),
    Row("tau", tensor, "TENSOR", f"Threshold, {_TENSOR} [zeros]."),
    Row("axes", integers, "N,N,...", f"{_AXES}; -1 is the last one."),
)  # fmt: skip
# Of one's own formula.
OWN = (
    Row("axes", named_axes, "[NAME=]N,N,...", f"{_AXES}; with a name, those of sum(x, NAME); repeatable."),
    Row("let", lets, "NAME[@AXIS]=VALUE", "A number or a tensor of the formula, its first axis at AXIS; repeatable."),
    Row("dtype", word, "NAME", f"Cast the input first: {either(FLOAT_DTYPES)}.", values=lambda: FLOAT_DTYPES),
)

# What is done with it; every kind has these.
PRESENTATION = (
    Row(
        "grad_output",
        tensor,
        "TENSOR",
        "Add the gradients, from that of the output: a tensor, a number, or ones.",
        ("--dy",),
    ),
    Row("key", word, "NAME", "The array to take from an NPZ file of several (or FILE.npz::NAME)."),
    Row("state", tensor, "FILE", "Weight, bias and running statistics: JSON, NPZ, safetensors, or .pt by torch."),
    Row("prefix", word, "NAME", "The layer to take from --state, such as layer1.0.bn1."),
    Row("backend", word, "NAME", "numpy or torch [numpy].", values=lambda: ("numpy", "torch")),
    Row(
        "device",
        word,
        "NAME",
        "cpu, cuda, cuda:1 or mps; implies --backend torch.",
        values=lambda: ("cpu", "cuda", "mps"),
    ),
    Row("threads", integer, "N", "Threads that work on a large tensor [all cores]; the result is the same."),
    Row(
        "expect",
        answers,
        "[NAME=]TENSOR",
        "Check this answer for the output, or for the quantity named (mean, var, grad_input, ...); repeatable; "
        "exit 1 if wrong.",
    ),
    Row("decimals", decimals, "N", "Decimals that the answer was printed with [as written]."),
    Row("input_decimals", input_decimals, "N|exact", "Decimals that input and parameters were rounded to [exact]."),
    Row("atol", tolerance, "FLOAT", "A plain tolerance instead of the derived one: atol + rtol * |exact|."),
    Row("rtol", tolerance, "FLOAT", "The same, relative to the exact number."),
    Row("cells", mark, "", "With --expect: show every cell, and what is allowed for it."),
    Row(
        "versus",
        several,
        "SPEC",
        "Compare with torch, torch:cuda, numpy::float32, keras, ..., or the output in a file; repeatable.",
        values=_specs,
    ),
    Row("trace", mark, "", "Show every step: formula, numbers filled in, value."),
    Row("steps", word, "COURSE", f"Trace it in the stages of a course: {either(COURSES)}.", values=lambda: COURSES),
    Row("element", integers, "I,J,...", "Trace this output element, every number written out."),
    Row("picture", mark, "", "Show input and output as heat maps, and histograms of both."),
    Row("format", word, "NAME", f"{either(FORMATS)} [table].", values=lambda: FORMATS),
    Row("json", mark, "", "Short for --format json."),
    Row(
        "only",
        word,
        "PART",
        "Print only output, statistics, running, trace, grad-input (-weight, -bias).",
        values=lambda: PARTS,
    ),
    Row("full", mark, "", "Show every element of a large tensor, not its edges."),
    Row("precision", integer, "N", "Decimals in tables [4]; JSON is always exact."),
    Row("svg", word, "FILE", "Keep what the terminal shows as a picture (SVG)."),
    Row("html", word, "FILE", "Keep it as a page to point at and to change (HTML), of one file."),
    Row(
        "output",
        word,
        "FILE",
        "Write the output tensor (or that of --only): .npy, .npz, .json or .csv.",
        ("-o",),
    ),
    Row("save_state", word, "FILE", "Write the state after the last batch: .json, .npz or .safetensors.", running=True),
)


# The headings of the help, and what stands under them, the commonest first. An option that is not among them comes
# last: of what shapes the result under the first heading, of what is done with it under Show.
SECTIONS = {
    "Formula": (
        "groups", "axes", "let", "eps", "weight", "bias", "normalized_shape", "channel_axis", "affine", "convention",
        "ddof", "dtype", "weight_offset", "cast",
    ),
    "State": (
        "mode", "running_mean", "running_var", "momentum", "decay", "running_ddof", "track_running_stats",
        "num_batches_tracked", "virtual_batch", "ranks", "renorm", "rmax", "dmax", "state", "prefix", "save_state",
    ),
    "Check": ("expect", "cells", "decimals", "input_decimals", "atol", "rtol"),
    "Compare": ("versus", "backend", "device", "threads"),
    "Show": ("trace", "element", "steps", "grad_output", "picture", "only", "precision", "full", "format", "json"),
    "Files": ("output", "svg", "html", "key"),
}  # fmt: skip
_PLACES = {name: place for place, name in enumerate(name for names in SECTIONS.values() for name in names)}


def rows_of(kind: Kind) -> list[Row]:
    """The options of a kind, in the order of its help.

    >>> import normcli.planning.plan
    >>> [row.name for row in rows_of(normcli.planning.kinds.KINDS["rms"])][:2]
    ['eps', 'weight']
    """
    rows = OWN if "lines" in kind.options else [r for r in (*CALCULATION, *FURTHER) if r.name in kind.options]
    every = [*rows, *(row for row in PRESENTATION if kind.has_running_stats or not row.running)]
    if kind.name not in KINDS:
        every = [*map(_of_lines, every)]
    return sorted(every, key=lambda row: _PLACES.get(row.name, len(_PLACES)))


def _of_lines(row: Row) -> Row:
    """The row for a kind whose quantities are its own lines."""
    return row._replace(read=answers_of_lines) if row.read is answers else row


# The format of what is no calculation, for the other commands.
ListFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"{either(LISTS)} [table].",
        show_default=False,
        autocompletion=offered(lambda: LISTS),
    ),
]
