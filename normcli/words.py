"""Words for people: names in a row, counts with their nouns, and what was given instead of what was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import normcli


class Told:
    """What is said in words when it is printed, and shown in a notebook as its page has it.

    How, is for the room of showing to say, which the face of the package brings here when it is asked for.
    """

    def __str__(self) -> str:
        return normcli.told(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return normcli.mimebundle(self)


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


def flag(option: str) -> str:
    """The option as it is typed.

    >>> flag("running_mean")
    '--running-mean'
    """
    return "--" + option.replace("_", "-")


def either(choices: Iterable[object]) -> str:
    """The choices as words.

    >>> either([1, 2, 4])
    '1, 2 or 4'
    """
    words = [str(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def listed(names: Any, most: int = 20) -> str:
    """Names in one line, the first ``most`` of them.

    >>> listed("abc", most=2)
    'a, b and 1 more'
    """
    every = [shown(str(name)) for name in names]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return (", ".join(every[:most]) or "none") + rest


def shown(text: str, most: int = 60) -> str:
    """Text from outside as it may stand in a message: one line, nothing unprintable, not too long.

    >>> shown("a\\nb"), shown("7" * 5000, 9)
    ('a\\\\nb', '777777...')
    """
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def quoted(text: str, most: int = 60) -> str:
    """Text from outside in quotes, as ``shown`` shows it.

    >>> print(quoted("a\\0b"), quoted("it's"))
    'a\\x00b' "it's"
    """
    return repr(text if len(text) <= most else text[: most - 3] + "...")
