"""What can go wrong for a person, in words, and the exit code that says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


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


def count(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: ``count(1, "value")`` is '1 value', ``count(2, "value")`` '2 values'.

    >>> count(0, "axis", "axes")
    '0 axes'
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def near(word: str, names: Iterable[str]) -> str | None:
    """The name that a word was probably meant to be, or None.

    >>> near("epsilon", ["weight", "eps"])
    'eps'
    """
    from difflib import get_close_matches  # only where something is wrong

    close = get_close_matches(word, names, 1) if len(word) < 100 else []
    return close[0] if close else None


def complain(message: str, hint: str | None = None) -> None:
    """Say on standard error what went wrong, in one line, and the way out in another."""
    if sys.stderr is not None:
        sys.stderr.write(f"error: {printable(message)}\n" + (f"hint: {printable(hint)}\n" if hint else ""))


def warn(messages: Iterable[str]) -> None:
    """Say something about the results on standard error, a line each."""
    if sys.stderr is not None:
        sys.stderr.writelines(f"warning: {printable(message)}\n" for message in messages)


def hint(message: str) -> None:
    """Say what would help, in one line on standard error."""
    if sys.stderr is not None:
        sys.stderr.write(f"hint: {printable(message)}\n")


def printable(text: str) -> str:
    """The text on one line, control characters (which a file name may hold) escaped.

    >>> printable("a\\nb")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def repr_of(value: object, most: int = 60) -> str:
    """What was given instead of what was asked for, as it may stand in a message: on one line, and not too long.

    >>> repr_of("a"), repr_of([1] * 99, 12)
    ("'a'", '[1, 1, 1,...')
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of whatever is given; Python writes no integer of more than 4300 digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= most else text[: most - 3] + "..."
