"""What can go wrong for a person, in words, and the exit code that says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from normcli.terminal import BAD, DOUBTFUL, coloured, prose
from normcli.words import printable


class NormcliError(Exception):
    """A failure that a person can act on: one sentence, an exit code, perhaps a hint."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(NormcliError, ValueError):
    """Bad usage or bad input (exit code 2)."""


class UnavailableError(NormcliError):
    """It cannot be done here: a library, a device, memory or disk space is missing (exit code 3)."""

    exit_code = 3


@contextmanager
def room_for(name: str, bytes_: int) -> Iterator[None]:
    """What is done within takes that much memory for ``name``; UnavailableError, in words, where it is not free.

    >>> with room_for("x.npy", 2**20):
    ...     raise MemoryError
    Traceback (most recent call last):
    normcli.errors.UnavailableError: x.npy needs 1 MiB of memory; they are not free
    """
    try:
        yield
    except MemoryError:
        raise UnavailableError(f"{name} needs {bytes_ / 2**20:.0f} MiB of memory; they are not free") from None


def with_torch(module: str, missing: str, hint: str | None = None, *, names: Iterable[str] = ()) -> Any:
    """A module that needs torch, or torch itself, with the ``names`` that are used of it.

    Raises UnavailableError where there is no torch (``missing`` says so), and where what goes by its
    name is broken or something else.

    >>> with_torch("json", "", names=["loads"]).__name__
    'json'
    """
    try:
        found = import_module(module)
        for name in names:
            getattr(found, name)
    except Exception as error:  # a foreign module raises what it likes
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise UnavailableError(missing, hint) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnavailableError(f"torch is installed but cannot be used: {reason}") from None
    return found


def complain(message: str, hint: str | None = None) -> None:
    """Say on standard error what went wrong, in one line (more on a narrow terminal), and the way out in another."""
    _say("error", BAD, message)
    if hint:
        _say("hint", "", hint)


def warn(messages: Iterable[str]) -> None:
    """Say something about the results on standard error, a line each."""
    for message in messages:
        _say("warning", DOUBTFUL, message)


def hint(message: str) -> None:
    """Say what would help, in one line on standard error."""
    _say("hint", "", message)


def _say(what: str, colour: str, message: str) -> None:
    if (stream := sys.stderr) is not None:
        lines = "\n".join(prose(f"{what}: {printable(message)}", stream, hang=2))
        stream.write(coloured(f"{what}:", colour, stream) + lines.removeprefix(f"{what}:") + "\n")
