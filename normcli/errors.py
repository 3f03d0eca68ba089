"""What can go wrong for a person, and the exit code that says so."""


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


def count(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: ``count(1, "value")`` is '1 value', ``count(2, "value")`` '2 values'.

    >>> count(0, "axis", "axes")
    '0 axes'
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
