"""What can go wrong for a person, in words, and the exit code that says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from normcli.terminal import BAD, DOUBTFUL, coloured, prose
from normcli.words import printable

_MUCH = 2**28  # bytes; less than that is not asked about before it is taken


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
def room_for(name: str, bytes_: int, *, at_once: bool = True) -> Iterator[None]:
    """What is done within takes that much memory for ``name``; UnavailableError, in words, where it is not free.

    Where it is taken ``at_once`` it is asked for before, otherwise as it comes.

    >>> with room_for("x.npy", 2**20):
    ...     raise MemoryError
    Traceback (most recent call last):
    normcli.errors.UnavailableError: x.npy needs 1 MiB of memory; they are not free
    """
    short = UnavailableError(f"{name} needs {bytes_ / 2**20:.0f} MiB of memory; they are not free")
    if at_once and bytes_ > _MUCH and (free := free_memory()) is not None and bytes_ > free:
        raise short  # where a system promises more than it has, what takes it is killed
    try:
        yield
    except MemoryError:
        raise short from None


def free_memory(root: Path = Path("/")) -> int | None:
    """The bytes that may still be taken, of the machine and of the group of processes; None where no file says so."""
    found = []
    with suppress(OSError):
        machine = _sizes(root / "proc/meminfo")
        found = [(machine[name] + machine.get("SwapFree:", 0)) * 1024 for name in ("MemAvailable:",) if name in machine]
    with suppress(OSError, ValueError):
        group = root / "sys/fs/cgroup"
        most, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = _sizes(group / "memory.stat").get("inactive_file", 0)  # given up where it is needed
        found.append(most - taken + cached)
    return min(found, default=None)


def _sizes(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


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
