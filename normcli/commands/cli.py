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

from normcli import __version__, arithmetic, commands, showing
from normcli.commands import help, typed
from normcli.commands.options import PRESENTATION, rows_of
from normcli.errors import InputError, NormcliError, complain
from normcli.planning.further import EVERY
from normcli.planning.kinds import FORMULA, Kind
from normcli.words import either, shown

COMMANDS = (*EVERY, *help.SUMMARIES)

# --- the commands ---------------------------------------------------------------------------------


class Application(help.Commands):
    """The group of commands; the one place where a failure becomes a line and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named; InputError, with the one that is meant, for any other word."""
        if args[0] in self.commands or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        if meant := typed.command_meant(args[0], self.commands):
            raise InputError(f"no such command: {shown(args[0])}; did you mean {meant}?", typed.corrected(args, meant))
        hint = "normcli --help describes the commands"
        if args[0].strip()[:1] in "[(-.0123456789":
            hint = f"{hint}; a kind comes first: {typed.corrected(['', *args], 'batch')}"
        raise InputError(f"no such command: {shown(args[0])}", hint)

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
            sys.stdout.write(help.start())
            sys.exit(0)
        sys.stderr.write(error.format_message() + "\n")
        sys.exit(2)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "normcli"
    message = _answered(error, context) or error.format_message().strip().rstrip(".")
    hint = f"{path} --help shows what is possible"
    message, is_extra, extra = message.partition("(s) (") if message.startswith("Got unexpected") else (message, "", "")
    if context is not None and is_extra:
        first = [text for text in context.params.values() if isinstance(text, str)][:1]
        numbers = [*first, *extra.removesuffix(")").split()]
        if wrong := typed.quotes_missing(EVERY.get(str(context.info_name)), numbers):
            return wrong, 2, hint
        hint += "; what holds blanks goes in quotes"
    message += f": {extra.removesuffix(')')}" if extra else ""
    return message[:1].lower() + message[1:], 2, hint


def _answered(error: typer.TyperException, context: Any) -> str | None:
    """What is meant by an option that is not there, in words; None where nobody can tell, or for another mistake."""
    unknown = str(getattr(error, "option_name", None) or "")
    if type(error).__name__ != "NoSuchOption" or context is None:
        return None
    command = str(context.info_name)
    known = [str(param.name) for param in context.command.get_params(context)]
    if meant := typed.option_meant(unknown, known, command):
        return meant
    option, owners = typed.owners_of(
        unknown, {kind.name: [row.name for row in rows_of(kind)] for kind in EVERY.values()}
    )
    if owners and command in set(EVERY) - set(owners):
        if option == unknown:
            return f"{command} has no option {unknown}; it belongs to {either(owners)}"
        return f"{command} has no option {unknown}; that is {option}, which belongs to {either(owners)}"
    if near := getattr(error, "possibilities", None):
        from difflib import get_close_matches

        begun = [option for option in near if option.startswith(unknown)]
        meant = either(begun) if begun else get_close_matches(unknown, near, 1, 0.0)[0]
        return f"no such option: {unknown}; did you mean {meant}?"
    return None


def _version(value: bool) -> None:
    if value:
        reason = arithmetic.loops.why_not()
        print(f"normcli {__version__} ({f'no compiled loops: {reason}' if reason else 'compiled loops'})")
        raise typer.Exit


def _schema(value: bool) -> None:
    if value:
        sys.stdout.write(Path(showing.__path__[0], "schema.json").read_text(encoding="utf-8"))
        raise typer.Exit


def make_app(names: Collection[str] = COMMANDS, *, listed: bool = False) -> typer.Typer:
    """The application with some of its commands: a run needs only its own, and starts sooner.

    Where they are ``listed`` alone, their names and summaries will do.
    """
    app = typer.Typer(
        cls=Application,
        add_completion=len(names) > 1,  # a run of one command need not offer it
        no_args_is_help=True,
        rich_markup_mode=None,  # rich would read [nan] in help and messages as markup, and drop it
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
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
        """Normalize a tensor."""

    for name in names:
        if listed:
            app.command(name, cls=help.Command, help=help.summary(name))(lambda: None)
        elif name in EVERY:
            app.command(name, cls=help.Command, help=help.summary(name), no_args_is_help=True)(_command(EVERY[name]))
        else:
            command = getattr(getattr(commands, name), name)
            alone = name != "conventions"
            app.command(name, cls=help.Command, help=help.summary(name), no_args_is_help=alone)(command)
    return app


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
        if wrong := typed.quotes_missing(kind, sources):
            raise InputError(wrong)
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
