"""What the text of an option stands for: numbers, names, tensors, answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from normcli.errors import InputError
from normcli.planning.kinds import ALIASES, GRADIENTS, quantities
from normcli.words import either, flag

Number = TypeVar("Number", int, float)
EXACT = 1000  # as normcli.files.numbers has it, which imports NumPy


def number(text: str, option: str) -> float:
    """The number that an option's text stands for; InputError if it is none.

    >>> number("1e-5", "eps")
    1e-05
    """
    return _as(float, text, option, "a number, such as 1e-5")


def integer(text: str, option: str) -> int:
    """The whole number that an option's text stands for; InputError if it is none.

    >>> integer(" -1", "channel_axis")
    -1
    """
    return _as(int, text, option, "a whole number")


def _as(kind: Callable[[str], Number], text: str, option: str, what: str) -> Number:
    try:
        if "_" in text:  # which Python takes between digits
            raise ValueError
        return kind(text.replace("\u2212", "-"))
    except ValueError:
        raise InputError(f"{flag(option)} is {text!r}; it must be {what}") from None


def integers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers between commas, in parentheses or brackets or bare.

    >>> integers("64,256,256", "normalized_shape"), integers("(4,)", "normalized_shape")
    ((64, 256, 256), (4,))
    """
    inside = text.strip().strip("()[]").rstrip(",")
    return tuple(integer(part, option) for part in inside.split(",")) if inside else ()


def momentum(text: str, option: str) -> float | None:
    """A number, or None for the word none: the cumulative average."""
    return None if text.strip().lower() == "none" else number(text, option)


def word(text: str, option: str) -> str:
    """The text itself, without blanks around it."""
    return text.strip()


def tensor(text: str, option: str) -> Source:
    """The literal, path or ``-`` that a tensor is given as; it is read when it is needed."""
    return Source(text, option)


class Source(NamedTuple):
    """Where a tensor comes from: what was typed, and for which option."""

    text: str
    option: str


def several(texts: list[str], option: str) -> tuple[str, ...]:
    """The values of an option that may be given more than once."""
    return tuple(text.strip() for text in texts)


def answers(texts: list[str], option: str) -> dict[str, Source]:
    """Answers by the quantity that each is for; one without a name is for the output.

    >>> answers(["[1]", "running-var=x.npy"], "expect")["running_var"]
    Source(text='x.npy', option='expect running_var')
    """
    return _answers(texts, option, (*quantities(), *GRADIENTS))


def answers_of_lines(texts: list[str], option: str) -> dict[str, Source]:
    """The same where lines of any name may be answered for.

    >>> list(answers_of_lines(["size=[5]"], "expect"))
    ['size']
    """
    return _answers(texts, option, None)


def _answers(texts: list[str], option: str, known: tuple[str, ...] | None) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for text in texts:
        name, mark, rest = text.partition("=")
        name = name.strip().replace("-", "_")
        name = ALIASES.get(name, name)
        if not (mark and name.isidentifier()):
            name, rest = "output", text
        elif known is not None and name not in known:
            raise InputError(f"{flag(option)} {shortened(text)} names no quantity; use {either(known)}")
        if name in found:
            raise InputError(f"{flag(option)} gives the {name} twice; once is enough")
        found[name] = Source(rest, option if name == "output" else f"{option} {name}")
    return found


def named_axes(texts: list[str], option: str) -> dict[str | None, tuple[int, ...]]:
    """Sets of axes by name; one without a name is the usual one.

    >>> named_axes(["1,2", "c=3"], "axes")
    {None: (1, 2), 'c': (3,)}
    """
    found: dict[str | None, tuple[int, ...]] = {}
    for text in texts:
        name, mark, rest = text.rpartition("=")
        key = name.strip() if mark else None
        if key is not None and not key.isidentifier():
            raise InputError(f"{flag(option)} {shortened(text)} has no name before =; write NAME=1,2")
        if key in found:
            raise InputError(f"{flag(option)} gives {key or 'the usual axes'} twice; once is enough")
        found[key] = integers(rest, option)
    return found


def lets(texts: list[str], option: str) -> dict[str, Source]:
    """Numbers and tensors by name, with an axis after @.

    >>> lets(["eps=1e-5"], "let")["eps"].text
    '1e-5'
    """
    found: dict[str, Source] = {}
    for text in texts:
        name, mark, rest = text.partition("=")
        name = name.strip()
        if not mark or not name.partition("@")[0].isidentifier():
            raise InputError(f"{flag(option)} is {shortened(text)}; write NAME=VALUE, such as eps=1e-5")
        if name in found:
            raise InputError(f"{flag(option)} gives {name} twice; once is enough")
        found[name] = Source(rest, f"{option} {name}")
    return found


def shortened(text: str) -> str:
    """The beginning of what was typed, for a message."""
    return repr(text if len(text) <= 24 else text[:24] + "...")


def decimals(text: str, option: str) -> int:
    """A number of decimals, from 0 to 17."""
    number = integer(text, option)
    if not 0 <= number <= 17:
        raise InputError(f"{flag(option)} is {number}; it must be between 0 and 17")
    return number


def tolerance(text: str, option: str) -> float:
    """A number from 0 on.

    >>> tolerance("1e-4", "atol")
    0.0001
    """
    size = number(text, option)
    if not 0 <= size < float("inf"):
        raise InputError(f"{flag(option)} is {size:g}; it must be a finite number, 0 or more")
    return size


def plain_tolerance(atol: float | None, rtol: float | None) -> dict[str, float]:
    """What is given of the two, by name.

    >>> plain_tolerance(0.1, None)
    {'atol': 0.1}
    """
    return {name: size for name, size in (("atol", atol), ("rtol", rtol)) if size is not None}


def input_decimals(text: str, option: str) -> int:
    """The same, or the word exact."""
    return EXACT if text.strip().lower() == "exact" else decimals(text, option)


def switch(given: bool, option: str) -> bool:
    """The value of an option that is on or off: ``--affine / --no-affine``."""
    return given


def mark(given: bool, option: str) -> bool:
    """The value of an option that is there or not: ``--json``."""
    return given
