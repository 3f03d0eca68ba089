"""The command line: the commands with their options and help, and what becomes of a failure.

What a command does is a module of this room, imported when it is run: ``--help`` needs neither NumPy nor rich.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from normcli import __version__, arithmetic, commands, showing
from normcli.commands.options import PRESENTATION, rows_of
from normcli.errors import NormcliError, complain
from normcli.planning.further import EVERY
from normcli.planning.kinds import FORMULA, Kind
from normcli.words import either

_EXAMPLES = {
    "check": (
        "normcli check homework.json",
        "normcli check examples/checks/*.json",
        "normcli check --init | normcli check -",
    ),
    "conventions": (
        "normcli conventions",
        "normcli conventions torch keras",
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
_SUMMARIES = {
    "check": "Verify worked examples; name the mistake in a wrong one.",
    "conventions": "What differs between frameworks.",
    "state": "List the normalization layers in a checkpoint.",
    "fold": "Fold a BatchNorm into the convolution or linear layer before it.",
    "stats": "Statistics of data in many files, exactly, and the slips in known ones.",
    "axes": "Draw which elements share one mean.",
}

_START = """\
normcli is a calculator for tensor normalization: y = (x - mean) / sqrt(var + eps) * weight + bias

  normcli batch '[[1,2,4,1],[6,3,2,4],[2,4,6,1]]'     statistics and output of a BatchNorm
  normcli layer '[1,2,4,1]' --trace                   a LayerNorm, step by step
  normcli check homework.json                         is this answer right, and if not, why?
  normcli axes group --shape 2,6,4,4 --groups 3       which elements share one mean

Commands: batch, instance, layer, group, rms; check, conventions, state, stats, fold, axes;
  lp, zscore, minmax, softmax, logsoftmax, pixel, frn, grn, lrn, weight, weight-std, spectral;
  formula, for one of your own.
normcli COMMAND --help shows more examples and every option; normcli --help describes the commands.
"""

# What else the help of a command says; what stands in a FILE is read by normcli.teaching.worked.
_EPILOGUES = {
    "fold": """\
CHECKPOINT holds both layers; or --weight (and --bias) is the convolution's, --state the BatchNorm's file.
Folded, in each output channel, where rstd is that of running_var and eps:
  scale   gamma * rstd
  weight  weight * scale
  bias    (bias - running_mean) * scale + beta
exactly, and rounded once to the dtype of the weight. Then the outputs of both are compared, on --input
or on random data, where the kernel lies within them whole.""",
    "check": """\
A FILE holds a calculation and the numbers claimed for it, as JSON:
  kind            batch, instance, layer, group or rms
  input           nested lists, or the path of a file beside this one
  options         those of the kind's own command: {"eps": 1e-5, "weight": [1, 2]}
  expect          what is claimed, any of mean, mean_square, var, var_unbiased, rstd,
                  normalized, output, running_mean, running_var,
                  and with grad_output: grad_input, grad_weight, grad_bias
  grad_output     what flows into the output: as input, or one number, or "ones"
  decimals        with which the claims are printed [as they are written]
  input_decimals  to which the input was rounded, or "exact" [exact, if that explains the claims]
  title, source   said with the verdict
  slip            keys of the mistake that a false claim is kept for
{"kind": "layer", "input": [[1, 2, 4, 1]], "expect": {"mean": [2], "var": [1.5]}}
normcli check --init > homework.json writes one to start from.""",
}

COMMANDS = (*EVERY, "check", "conventions", "state", "stats", "fold", "axes")

# --- the commands ---------------------------------------------------------------------------------


class Application(TyperGroup):
    """The group of commands; the one place where a failure becomes a line and an exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit: 0 done, 1 does not check, 2 bad usage or input, 3 not here, 130 interrupted."""
        try:
            code = super().main(*args, **(extra | {"standalone_mode": False, "windows_expand_args": False}))
            if sys.stdout is not None:
                sys.stdout.flush()
            sys.exit(code if isinstance(code, int) else 0)
        except NormcliError as error:
            fail(str(error), error.exit_code, error.hint)
        except typer.TyperException as error:
            fail(*_usage(error))
        except (KeyboardInterrupt, typer.Abort):
            sys.exit(130)
        except BrokenPipeError:
            _close_quietly()
            sys.exit(141)
        except MemoryError as error:
            fail(f"not enough memory{': ' + str(error) if str(error) else ''}", 3)
        except OSError as error:
            _close_quietly()
            fail(f"cannot write the result: {error.strerror or error}", 3)
        except Exception as error:
            if "NORMCLI_DEBUG" in os.environ:
                raise
            if isinstance(error, ImportError) and not (error.name or "").startswith("normcli"):
                fail(*_not_imported(error))
            fail(
                f"this is a bug in normcli ({type(error).__name__}: {error})",
                3,
                hint="please report it with the command line; NORMCLI_DEBUG=1 shows where it happened",
            )


def _not_imported(error: ImportError) -> tuple[str, int, str]:
    """A library that is missing or broken: message, exit code, hint. NumPy says the reason last, after a page."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    library = str(error.name or "a library").partition(".")[0]
    return f"{library} cannot be imported: {str(reason).strip().partition(chr(10))[0]}", 3, "install normcli again"


def fail(message: str, code: int, hint: str | None = None) -> NoReturn:
    """Say what went wrong, in one line on standard error, and exit."""
    complain(message, hint)
    sys.exit(code)


def _close_quietly() -> None:
    """Point standard output at nothing, so that the interpreter's last flush cannot fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _usage(error: typer.TyperException) -> tuple[str, int, str | None]:
    """A usage error in our words: message, exit code, hint."""
    if type(error).__name__ == "NoArgsIsHelpError":  # a class of typer's private copy of Click
        alone = getattr(error, "ctx", None) is not None and error.ctx.parent is None  # type: ignore[attr-defined]
        if alone:  # nobody made a mistake who asks what this is
            sys.stdout.write(_START)
            sys.exit(0)
        sys.stderr.write(error.format_message() + "\n")
        sys.exit(2)
    message = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "normcli"
    unknown = getattr(error, "option_name", None)
    name = str(unknown or "").lstrip("-").replace("-", "_").removeprefix("no_")
    owners = [kind.name for kind in EVERY.values() if name in {row.name for row in rows_of(kind)}]
    near = getattr(error, "possibilities", None)
    if near:
        from difflib import get_close_matches

        message = f"no such option: {unknown}; did you mean {get_close_matches(str(unknown), near, 1, 0.0)[0]}?"
    if owners and context and context.info_name in set(EVERY) - set(owners):
        message = f"{context.info_name} has no option {unknown}; it belongs to {either(owners)}"
    return message[:1].lower() + message[1:], 2, f"{path} --help shows what is possible"


def _version(value: bool) -> None:
    if value:
        reason = arithmetic.loops.why_not()
        print(f"normcli {__version__} ({f'no compiled loops: {reason}' if reason else 'compiled loops'})")
        raise typer.Exit


def _schema(value: bool) -> None:
    if value:
        sys.stdout.write(Path(showing.__path__[0], "schema.json").read_text(encoding="utf-8"))
        raise typer.Exit


def make_app(names: Collection[str] = COMMANDS) -> typer.Typer:
    """The application with some of its commands: a run needs only its own, and starts sooner."""
    app = typer.Typer(
        cls=Application,
        add_completion=len(names) > 1,  # a run of one command need not offer it
        no_args_is_help=True,
        rich_markup_mode=None,  # rich would read [nan] in help and messages as markup, and drop it
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def normcli(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
        ] = False,
        schema: Annotated[
            bool,
            typer.Option(
                "--schema", callback=_schema, is_eager=True, help="Show the JSON Schema of what --json prints."
            ),
        ] = False,
    ) -> None:
        """Normalize a tensor: y = (x - mean) / sqrt(var + eps) * weight + bias.

        INPUT is a literal such as '[[1,2],[3,4]]', a file (JSON, NPY, NPZ, CSV, or pasted
        tensor text), or - for standard input.
        """

    for name in names:
        if name in EVERY:
            app.command(name, help=_help(name), no_args_is_help=True)(_command(EVERY[name]))
        else:
            command = getattr(getattr(commands, name), name)
            app.command(name, help=_help(name), no_args_is_help=name != "conventions")(command)
    return app


def examples(command: str) -> tuple[str, ...]:
    """What a command's help shows of its use."""
    return EVERY[command].examples if command in EVERY else _EXAMPLES[command]


def _help(command: str) -> str:
    summary = EVERY[command].summary if command in EVERY else _SUMMARIES[command]
    blocks = ["Examples:\n" + "\n".join(f"  {line}" for line in examples(command)), _EPILOGUES.get(command)]
    return "\n\n".join([summary, *(f"\b\n{block}" for block in blocks if block)])


def _command(kind: Kind) -> Callable[..., None]:
    """The function of a kind's command, its signature made from the options that the kind has."""
    several = kind.has_running_stats
    help_text = "Literal, file or -" + ("; several, or JSON Lines, are consecutive batches." if several else ".")
    argument = typer.Argument(metavar="INPUT..." if several else "INPUT", help=help_text, show_default=False)
    source = inspect.Parameter(
        "inputs",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Annotated[list[str] if several else str, argument],
    )
    rows = rows_of(kind)
    first = [source]
    if kind is FORMULA:
        what = typer.Argument(metavar="LINES", help="name = expression; ..., or a kind's name.", show_default=False)
        text = inspect.Parameter("lines", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Annotated[str, what])
        first = [text, source.replace(annotation=Annotated[str | None, argument], default=None)]

    def command(inputs: list[str] | str | None, lines: str | None = None, **given: Any) -> None:
        if inputs is None:
            sys.stdout.write(commands.formula.own(str(lines)))
            return
        values = {row.name: row.read(given[row.name], row.name) for row in rows if given[row.name] not in (None, [])}
        shown = {row.name: values.pop(row.name) for row in PRESENTATION if row.name in values}
        values |= {} if lines is None else {"lines": lines}
        sources = [inputs] if isinstance(inputs, str) else inputs
        # calculate is named first, for it imports NumPy at once: deeper down, where the import crosses a chunk of
        # Python's stack again and again, it takes 5 ms more.
        if code := commands.calculate.calculate(kind, sources, values, commands.show.Show(**shown)):
            raise typer.Exit(code)

    command.__signature__ = inspect.Signature([*first, *(row.parameter(kind) for row in rows)])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def __getattr__(name: str) -> Any:
    # The application with all its commands, made where somebody asks for it: a run makes only what it needs.
    if name == "app":
        return make_app()
    raise AttributeError(f"module 'normcli.commands.cli' has no attribute {name!r}")
