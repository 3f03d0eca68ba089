"""Where something is in a text, and what it is that cannot be read there, in words.

Nothing is guessed: text that is not plainly a tensor is refused, with the place of the first thing
that is not. Text of twice the length takes twice the time, whatever it holds: no pattern can give
back what another could take.
"""

from __future__ import annotations

import re
from typing import NoReturn

from normcli.errors import InputError
from normcli.files.numbers import DEEPEST, NUMBER, SPELLED
from normcli.words import count, quoted

BLANKS = " \t\r\n"

# What print shows: tensor([[1., 2.]], device='cuda:0'), Parameter containing:, array(...), np.float64(1.5)
CALL = (
    r"\s*(?:Parameter containing:\s*)?(?:[A-Za-z]+\.)?"
    r"(?:[Tt]ensor|[Aa]rray|asarray|Parameter|b?float[0-9]+|u?int[0-9]+)\("
)

_ONLY_NUMBERS = r"[-\u2212+.0-9][-\u2212+.0-9eE,;\s]*"


def looks_like_tensor(text: str) -> bool:
    """Whether a word of the command line is a tensor written out rather than the name of a file.

    >>> looks_like_tensor("tensor([1.])"), looks_like_tensor("-1.5"), looks_like_tensor("x.npy")
    (True, True, False)
    """
    return bool(
        text[:1] in ("[", "(", "{")
        or text.startswith("Parameter containing:")
        or re.compile(CALL).match(text)
        or re.compile(_ONLY_NUMBERS).fullmatch(text)
        or re.compile(SPELLED).fullmatch(text)
    )


def refuse_word(word: str, place: str, name: str) -> NoReturn:
    """Say why a word is not a number, as precisely as can be told.

    >>> refuse_word("2j", "position 3", "x")
    Traceback (most recent call last):
    normcli.errors.InputError: x has the complex number '2j' at position 3; only real numbers can be normalized
    """
    named = quoted(word, 24)
    if "..." in word or "…" in word:
        raise InputError(
            f"{name} is abbreviated ('...' at {place})",
            hint="print all of it: torch.set_printoptions(threshold=10**9), or numpy.set_printoptions likewise",
        )
    odd = next((char for char in word if not char.isascii() or not char.isprintable()), None)
    if odd is not None:
        raise InputError(f"{name} has the character {_character(odd)} at {place}; write numbers with 0-9")
    if word in ("None", "null"):
        raise InputError(f"{name} has {word} at {place}; write NaN if you mean not-a-number")
    if word in ("True", "False", "true", "false"):
        raise InputError(f"{name} has {word} at {place}, not a number")
    if word[0] in "'\"":
        raise InputError(f"{name} has text at {place}, not a number: {named}")
    if re.fullmatch(r"[-+.0-9eE]*[ij]", word):
        raise InputError(f"{name} has the complex number {named} at {place}; only real numbers can be normalized")
    raise InputError(f"{name} has {named} at {place}, which is not a decimal number")


def _character(char: str) -> str:
    import unicodedata

    return f"U+{ord(char):04X} ({unicodedata.name(char, 'a control character')})"


def place(text: str, at: int) -> str:
    """The position of a character, counted from 1, with its line where there are several.

    >>> place("1, x", 3), place("1\\n2, x", 5)
    ('position 4', 'line 2, position 4')
    """
    line = text.count("\n", 0, at) + 1
    position = at - text.rfind("\n", 0, at)
    return f"line {line}, position {position}" if "\n" in text.strip(BLANKS) else f"position {position}"


def leftover(text: str, end: int, name: str) -> InputError:
    """The error for what stands after the end of the tensor.

    >>> str(leftover("[1] [2]", 3, "x"))
    'x holds more than one JSON value; position 5'
    """
    at = end + len(text[end:]) - len(text[end:].lstrip(BLANKS))
    where = place(text, at)
    if text[at] in "])":
        return InputError(f"{name} closes a bracket at {where} that was never opened")
    if text[at] in "[({" or re.compile(NUMBER).match(text, at) or re.compile(CALL).match(text, at):
        what = "JSON value" if text.lstrip(BLANKS)[0] in "[{" else "tensor"
        return InputError(f"{name} holds more than one {what}; {where}")
    return InputError(f"{name} has {quoted(text[at : at + 12])} at {where}, after the end of the tensor")


def unclosed(text: str, name: str) -> InputError:
    """The error for brackets that are never closed.

    >>> str(unclosed("[[1", "x"))
    'x is cut off: 2 brackets are not closed'
    """
    brackets = max(1, _surplus(text))
    return InputError(f"{name} is cut off: {count(brackets, 'bracket')} {'is' if brackets == 1 else 'are'} not closed")


def too_deep(text: str, name: str) -> InputError:
    """The error for brackets within more brackets than a tensor has axes.

    >>> str(too_deep("[[1]]", "x"))
    'x is nested more than 64 levels deep'
    """
    if _surplus(text) > 0:
        return unclosed(text, name)
    return InputError(f"{name} is nested more than {DEEPEST} levels deep")


def _surplus(text: str) -> int:
    """How many brackets are opened more than closed."""
    return sum(map(text.count, "[({")) - sum(map(text.count, "])}"))
