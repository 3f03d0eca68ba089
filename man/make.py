"""The manual page, from the help of the commands: ``python man/make.py`` writes man/normcli.1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer

from normcli import __version__
from normcli.commands.cli import COMMANDS, make_app

PAGE = Path(__file__).parent / "normcli.1"
_CODES = {
    "0": "done, or the answer checks",
    "1": "the answer does not check",
    "2": "bad usage or bad input",
    "3": "it cannot be done here: a library or a device is missing, the disk is full, memory is short",
    "130": "interrupted",
}


def page() -> str:
    """The page in the language of man, with a section for each command.

    >>> page().splitlines()[1][:19]
    '.TH NORMCLI 1 "" "n'
    """
    group = typer.main.get_command(make_app())
    assert isinstance(group, typer.core.TyperGroup)
    outer = typer.Context(group, info_name="normcli", **group.context_settings)
    inner = {name: typer.Context(group.commands[name], parent=outer) for name in COMMANDS}
    lines = [
        r".\" Made by man/make.py from the help of the commands.",
        f'.TH NORMCLI 1 "" "normcli {__version__}" "User Commands"',
        ".SH NAME",
        r"normcli \- a calculator for tensor normalization",
        ".SH SYNOPSIS",
        *(line for name in COMMANDS for line in (f".B normcli {_text(name)}", _usage(inner[name]), ".br")),
        ".SH DESCRIPTION",
        *_prose(group.help or ""),
        ".SH OPTIONS",
        *_options(outer),
    ]
    for name in COMMANDS:
        lines += [f'.SH "{name.upper()}"', *_prose(group.commands[name].help or ""), *_options(inner[name])]
    lines += [".SH EXIT STATUS"]
    for code, meaning in _CODES.items():
        lines += [".TP", f".B {code}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _usage(context: typer.Context) -> str:
    return _text(" ".join(context.command.collect_usage_pieces(context)))


def _prose(help: str) -> Iterator[str]:
    """The paragraphs of a help; those that typer leaves as they are stay so here."""
    for paragraph in re.split(r"\n\s*\n", help.strip()):
        yield ".PP"
        if paragraph.lstrip().startswith("\b"):
            rows = paragraph.replace("\b\n", "").splitlines()
            yield from (".nf", *map(_text, rows), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _options(context: typer.Context) -> Iterator[str]:
    """A paragraph for each option, its names in bold."""
    for parameter in context.command.get_params(context):
        if (record := parameter.get_help_record(context)) is not None:
            names, said = record
            yield from (".TP", f".B {_text(names)}", _text(said))


def _text(text: str) -> str:
    """Text as man shows it: backslashes and hyphens are themselves, a dot begins no request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    PAGE.write_text(page())
