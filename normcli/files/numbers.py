"""Numbers in words and lists, and as arrays: how each is written, what float64 holds of it, and what is no number.

Nested lists are checked level by level, so that the time is spent in C.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.errors import InputError
from normcli.words import count, quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int, ...]

EXACT = 1000  # decimals of a number written without any: half a unit of its last digit is 0.0
DEEPEST = 64  # axes that NumPy can hold

# Patterns are compiled where they are used (and then kept by re): most runs need few of them.
NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
SPELLED = r"(?i)[-+]?(?:nan|inf|infinity)"

_COARSEST = -308  # only zero can be written with fewer decimals, and 10**309 is beyond float64
_LONGEST_INTEGER = 400  # digits; every integer longer than this is beyond float64
_EXACT_INTEGERS = 2.0**53
_QUOTED = {"NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"}

# What a number must hold to be rounded to 0. One pattern for all would take longer than json itself:
# re and str search fast only for what begins with fixed letters.
_SMALL_EXPONENTS = re.compile("e-0*[1-9][0-9]{2}"), re.compile("E-0*[1-9][0-9]{2}")
_MANY_ZEROS = "0" * 300


class Written(float):
    """A number that remembers how it was written.

    >>> Written("1.5e-3") + 1, Written("1.5e-3").decimals, Written("2.50").decimals
    (1.0015, 4, 2)
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Written:
        """The number that the text says, as ``float`` reads it."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    @property
    def decimals(self) -> int:
        """The place of the last digit, counted from the decimal point; EXACT where none was written.

        An exponent moves it, below 0 too: 1.5e3 is -2. Numbers such as ``3``, ``0.``, nan and inf
        are meant exactly.
        """
        mantissa, _, exponent = self.text.lower().partition("e")
        _, _, fraction = mantissa.partition(".")
        if not fraction and not exponent:
            return EXACT
        if self.is_spelled:
            return EXACT
        try:
            places = len(fraction) - int(exponent or 0)
        except ValueError:  # Python reads no integer of more than 4300 digits
            places = EXACT if exponent.startswith("-") else -EXACT
        return max(_COARSEST, min(places, EXACT))

    @property
    def is_spelled(self) -> bool:
        """Whether it is written as a word, such as NaN or -inf."""
        return re.compile(SPELLED).fullmatch(self.text) is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers:
    """The numbers of a text in order: integers, floats and Written ones, with their shape."""

    leaves: list[Any]
    shape: Shape
    text: str  # where they come from
    dtype: str | None = None  # the floating dtype that the text names
    pasted: bool = False  # whether it is what print shows, which rounds
    warnings: tuple[str, ...] = ()

    def decimals(self) -> NDArray[np.int64]:
        """Digits written after the decimal point, an array of the numbers' shape; EXACT for integers.

        >>> numbers_of([[1, Written("2.50")]], "x").decimals().tolist()
        [[1000, 2]]
        """
        places = [leaf.decimals if isinstance(leaf, Written) else EXACT for leaf in self.leaves]
        return np.array(places, dtype=np.int64).reshape(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """A tensor that was read, of a floating dtype, and what was lost on the way, in words."""

    array: NDArray[Any]
    warnings: tuple[str, ...] = ()
    written: Numbers | None = None  # the numbers of a text, where it was asked how they are written; no binary file's

    def decimals(self) -> NDArray[np.int64]:
        """Digits written after the decimal point of each number; EXACT for those of a binary file."""
        return np.full(self.array.shape, EXACT) if self.written is None else self.written.decimals()


def number(word: str, *, keep: bool) -> Any:
    """The word as a number, or None if it is none: an int, a float, or a Written one.

    >>> number("2", keep=False), number("2.50", keep=False), number("2.5O", keep=False)
    (2, 2.5, None)
    """
    if re.compile(NUMBER).fullmatch(word):
        if word.lstrip("-+").isdecimal():
            return int(word) if len(word) < _LONGEST_INTEGER else Written(word)
        return Written(word) if keep else float(word)
    return Written(word) if re.compile(SPELLED).fullmatch(word) else None


def numbers_of(value: Any, name: str) -> Numbers:
    """The numbers of a JSON value, a number or nested lists of them; ``name`` stands for it in messages.

    >>> numbers_of([[1, 2.5]], "x").shape
    (1, 2)
    """
    leaves, shape = flattened(value, name)
    return Numbers(leaves=leaves, shape=shape, text=" ".join(leaf.text for leaf in leaves if isinstance(leaf, Written)))


def to_float64(numbers: Numbers, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The numbers as an array, and what float64 could not hold of them, in words.

    Raises InputError for a number beyond float64.

    >>> to_float64(numbers_of([Written("1e-400"), 1], "x"), "x")
    (array([0., 1.]), ('1e-400 rounds to 0',))
    """
    leaves = numbers.leaves
    try:
        flat = np.array(leaves, dtype=np.float64)
    except OverflowError:
        raise _too_large(numbers, next(at for at, leaf in enumerate(leaves) if _overflows(leaf)), name) from None
    for at in np.flatnonzero(np.isinf(flat)).tolist():
        if not (isinstance(leaves[at], Written) and leaves[at].is_spelled):
            raise _too_large(numbers, at, name)
    large = np.flatnonzero(np.abs(flat) >= _EXACT_INTEGERS).tolist()
    rounded = [leaves[at] for at in large if type(leaves[at]) is int and int(flat[at]) != leaves[at]]
    vanished = _vanished(numbers.text) if not flat.all() else ()
    return flat.reshape(numbers.shape), (*numbers.warnings, *rounding_warnings(rounded), *vanished)


def rounding_warnings(integers: list[int]) -> tuple[str, ...]:
    """The warning that float64 does not hold these integers, if there are any.

    >>> rounding_warnings([2**53 + 1, 2**54 + 1])
    ('2 integers, such as 9007199254740993, are rounded to float64',)
    """
    if not integers:
        return ()
    first = shown(str(integers[0]), 40)
    if len(integers) == 1:
        return (f"{first} is rounded to float64",)
    return (f"{len(integers)} integers, such as {first}, are rounded to float64",)


def flattened(value: Any, name: str) -> tuple[list[Any], Shape]:
    """The numbers of a nested list and its shape, found level by level; ``name`` stands for the list in messages.

    >>> flattened([[1, 2], [3, 4]], "x")
    ([1, 2, 3, 4], (2, 2))
    """
    level: list[Any] = [value]
    shape: Shape = ()
    while (types := set(map(type, level))) == {list}:
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise _ragged(level, shape, name)
        shape = (*shape, sizes.pop())
        if len(shape) > DEEPEST:
            raise InputError(f"{name} is nested more than {DEEPEST} levels deep")
        level = list(chain.from_iterable(level))
    if 0 in shape:
        raise InputError(f"{name} has no elements (shape {shape})")
    if not types <= {int, float, Written}:
        level = [_leaf(item, at, level, shape, name) for at, item in enumerate(level)]
    return level, shape


def _leaf(item: Any, at: int, level: list[Any], shape: Shape, name: str) -> Any:
    """The item if it is a number or the quoted word for one; all else is refused with its path."""
    if type(item) in (int, float, Written):
        return item
    path = _path(at, shape)
    if isinstance(item, str):
        if item in _QUOTED:
            return Written(item)
        raise InputError(f"{name} has text at {path}, not a number: {quoted(item, 24)}")
    if item is None:
        raise InputError(f"{name} has null at {path}; write NaN if you mean not-a-number")
    if isinstance(item, bool):
        raise InputError(f"{name} has {str(item).lower()} at {path}, not a number")
    if isinstance(item, dict):
        raise InputError(f"{name} has an object at {path}, not a number")
    other = next(index for index, one in enumerate(level) if isinstance(one, list) != isinstance(item, list))
    here, there = ("", "not ") if isinstance(item, list) else ("not ", "")
    raise InputError(f"{name} is ragged: {path} is {here}a list, {_path(other, shape)} is {there}a list")


def _ragged(rows: list[Any], shape: Shape, name: str) -> InputError:
    """The error for rows of one level that differ in length; the first odd one is named."""
    at = next(index for index, row in enumerate(rows) if len(row) != len(rows[0]))
    odd, first = (f"row {at}", "row 0") if len(shape) == 1 else (_path(at, shape), _path(0, shape))
    return InputError(f"{name} is ragged: {odd} has {count(len(rows[at]), 'value')}, {first} has {len(rows[0])}")


def _path(at: int, shape: Shape) -> str:
    """Where the element with that number is, as one would index it."""
    return "".join(f"[{index}]" for index in np.unravel_index(at, shape)) if shape else "the top"


def _overflows(leaf: Any) -> bool:
    try:
        return math.isinf(leaf)
    except OverflowError:
        return True


def _too_large(numbers: Numbers, at: int, name: str) -> InputError:
    """The error for a number beyond float64; a float no longer knows how it was written, the text does."""
    leaf = numbers.leaves[at]
    if type(leaf) is float:
        written = next(word for word in re.compile(NUMBER).findall(numbers.text) if math.isinf(float(word)))
    else:
        written = leaf.text if isinstance(leaf, Written) else str(leaf)
    return InputError(f"{name} has {shown(written, 24)} at {_path(at, numbers.shape)}, which does not fit in float64")


def _vanished(text: str) -> tuple[str, ...]:
    """The warning that numbers of the text are too small for float64."""
    if _MANY_ZEROS not in text and not any(exponent.search(text) for exponent in _SMALL_EXPONENTS):
        return ()
    zeros = [word for word in re.compile(NUMBER).findall(text) if float(word) == 0]
    words = [word for word in zeros if re.search("[1-9]", word.lower().partition("e")[0])]
    if len(words) < 2:
        return tuple(f"{shown(word, 24)} rounds to 0" for word in words)
    return (f"{len(words)} numbers, such as {shown(words[0], 24)}, round to 0",)
