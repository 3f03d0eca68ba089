"""Numbers out of text: JSON, what ``print`` shows of a tensor or an array, and CSV.

Nothing is guessed: text that is not plainly a tensor is refused, with the place of the first thing
that is not. Nested lists are checked level by level, so that the time is spent in C. Text of twice
the length takes twice the time, whatever it holds: no pattern can give back what another could take.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.files.npy import rounding_warnings
from normcli.words import count, either, listed, quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int, ...]

BLANKS = " \t\r\n"
EXACT = 1000  # decimals of a number written without any: half a unit of its last digit is 0.0

_COARSEST = -308  # only zero can be written with fewer decimals, and 10**309 is beyond float64

_DEEPEST = 64  # axes that NumPy can hold
_LONGEST_INTEGER = 400  # digits; every integer longer than this is beyond float64
_EXACT_INTEGERS = 2.0**53

# Patterns are compiled where they are used (and then kept by re): most runs need few of them.
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_SPELLED = r"(?i)[-+]?(?:nan|inf|infinity)"
_QUOTED = {"NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"}

# What a number must hold to be rounded to 0. One pattern for all would take longer than json itself:
# re and str search fast only for what begins with fixed letters.
_SMALL_EXPONENTS = re.compile("e-0*[1-9][0-9]{2}"), re.compile("E-0*[1-9][0-9]{2}")
_MANY_ZEROS = "0" * 300
_NAME = r"[^\W\d]"  # how the name of a column begins
_ONLY_NUMBERS = r"[-+.0-9][-+.0-9eE,;\s]*"

# What print shows: tensor([[1., 2.]], device='cuda:0'), Parameter containing:, array(...), np.float64(1.5)
_CALL = (
    r"\s*(?:Parameter containing:\s*)?(?:[A-Za-z]+\.)?"
    r"(?:[Tt]ensor|[Aa]rray|asarray|Parameter|b?float[0-9]+|u?int[0-9]+)\("
)
_KEYWORD = r"""[ \t\r\n]*,[ \t\r\n]*(\w+)=(<[^>]*>|\([^()]*\)|'[^']*'|"[^"]*"|[\w.:]+)"""
_CALL_END = r"[ \t\r\n]*(?:,[ \t\r\n]*)?\)"
_TOKEN = r"[ \t\r\n]*(np\.[a-z]+[0-9]+\([^()\[\],]*\)|[\[\](),]|[^ \t\r\n,\[\]()]+)"
_WRAPPED = r"np\.[a-z]+[0-9]+\((.*)\)"  # numpy 2 shows the numbers of a list as np.float64(1.5)

_DTYPE_NAMES = {"float": "float64", "double": "float64", "half": "float16", "torch.float": "float32"}
_DTYPE_CODE = r"[<>=|]?([fiu])([0-9])"
_INTEGER_DTYPE = r"u?int[0-9]*|long|short"


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
        return re.compile(_SPELLED).fullmatch(self.text) is not None


@dataclass(frozen=True, kw_only=True)
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

        >>> parse("[[1, 2.50], [1e-05, 0.]]", "x", keep=True).decimals().tolist()
        [[1000, 2], [5, 1000]]
        """
        places = [leaf.decimals if isinstance(leaf, Written) else EXACT for leaf in self.leaves]
        return np.array(places, dtype=np.int64).reshape(self.shape)


def parse(text: str, name: str, *, key: str | None = None, keep: bool = False) -> Numbers:
    """The numbers of JSON, pasted or CSV text; ``name`` stands for the text in messages.

    ``key`` chooses from a JSON object, else ``data``, ``output`` or ``input`` is taken. ``keep`` keeps
    how every number is written. Raises InputError for what is no tensor.

    >>> numbers = parse("tensor([[1., 2.]], dtype=torch.float16)", "x")
    >>> numbers.leaves, numbers.shape, numbers.dtype
    ([1.0, 2.0], (1, 2), 'float16')
    """
    text = text.removeprefix("\ufeff")
    stripped = text.strip(BLANKS)
    if not stripped:
        raise InputError(f"{name} is empty")
    if stripped[0] in "[{":
        numbers = _from_json(text, name, key, keep)
    elif stripped[0] == "(" or re.compile(_CALL).match(text):
        numbers = _pasted(text, name, keep)
    else:
        scalar = _number(stripped, keep)
        numbers = _table(text, name, keep) if scalar is None else Numbers(leaves=[scalar], shape=(), text=text)
    if key is not None and stripped[0] != "{":
        raise InputError(f"{name} holds one tensor without a name; there is no {shown(key)} to choose")
    return numbers


def parse_each(text: str, name: str, *, key: str | None = None) -> list[Numbers]:
    """The numbers of every document where the text is JSON Lines, else of the one tensor that ``parse`` finds.

    The errors are those of ``parse``; of several documents the one at fault is named by its line.

    >>> [numbers.leaves for numbers in parse_each("[1, 2]\\n[3, 4]\\n", "x")]
    [[1, 2], [3, 4]]
    """
    text = text.removeprefix("\ufeff")
    decoder, start = _decoder(name, keep=False), _after_blanks(text, 0)
    places: list[tuple[Any, int, int]] = []
    while text.startswith(("[", "{"), start):
        try:
            value, end = _decoded(decoder, text, start, name)
        except json.JSONDecodeError as error:
            if places:
                raise _not_json(text, error, name) from None
            break
        places.append((value, start, end))
        start = _after_blanks(text, end)
        if "\n" not in text[end:start]:  # anything else on a document's line is a slip
            break
    if len(places) < 2 or start < len(text):
        return [parse(text, name, key=key)]
    line, counted, found = 1, 0, []
    for value, start, end in places:
        line, counted = line + text.count("\n", counted, start), start
        found.append(_numbers(value, text[start:end], f"{name}, line {line},", key))
    return found


def to_float64(numbers: Numbers, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The numbers as an array, and what float64 could not hold of them, in words.

    Raises InputError for a number beyond float64.

    >>> to_float64(parse("[1e-400, 1]", "x"), "x")
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


def looks_like_tensor(text: str) -> bool:
    """Whether a word of the command line is a tensor written out rather than the name of a file.

    >>> looks_like_tensor("tensor([1.])"), looks_like_tensor("-1.5"), looks_like_tensor("x.npy")
    (True, True, False)
    """
    return bool(
        text[:1] in ("[", "(", "{")
        or text.startswith("Parameter containing:")
        or re.compile(_CALL).match(text)
        or re.compile(_ONLY_NUMBERS).fullmatch(text)
        or re.compile(_SPELLED).fullmatch(text)
    )


def json_document(text: str, name: str, *, keep: bool = False) -> Any:
    """The JSON value that the text is; ``keep`` makes its numbers Written. InputError for what is not JSON.

    >>> json_document('{"bn1": {"weight": [1, 2.5]}}', "x")
    {'bn1': {'weight': [1, 2.5]}}
    """
    text = text.removeprefix("\ufeff")
    if not text.strip(BLANKS):
        raise InputError(f"{name} is empty")
    try:
        value, end = _decoded(_decoder(name, keep), text, _after_blanks(text, 0), name)
    except json.JSONDecodeError as error:
        raise _not_json(text, error, name) from None
    if _after_blanks(text, end) < len(text):
        raise _leftover(text, end, name)
    return value


def numbers_of(value: Any, name: str) -> Numbers:
    """The numbers of a JSON value, a number or nested lists of them; ``name`` stands for it in messages.

    >>> numbers_of([[1, 2.5]], "x").shape
    (1, 2)
    """
    leaves, shape = _flattened(value, name)
    return Numbers(leaves=leaves, shape=shape, text=" ".join(leaf.text for leaf in leaves if isinstance(leaf, Written)))


def _from_json(text: str, name: str, key: str | None, keep: bool) -> Numbers:
    start = _after_blanks(text, 0)
    try:
        value, end = _decoded(_decoder(name, keep), text, start, name)
    except json.JSONDecodeError as error:
        if text[start] == "[":
            return _pasted(text, name, keep)
        raise _not_json(text, error, name) from None
    if _after_blanks(text, end) < len(text):
        raise _leftover(text, end, name)
    return _numbers(value, text, name, key)


def _numbers(value: Any, text: str, name: str, key: str | None) -> Numbers:
    """The numbers of a JSON document, which may be an object that holds them."""
    dtype = None
    if isinstance(value, dict):
        value, dtype = _chosen(value, name, key)
    leaves, shape = _flattened(value, name)
    return Numbers(leaves=leaves, shape=shape, text=text, dtype=dtype)


def _after_blanks(text: str, at: int) -> int:
    """Where the next character is that is no blank."""
    blanks = re.compile(r"[ \t\r\n]*").match(text, at)
    assert blanks is not None  # it matches nothing at all, too
    return blanks.end()


def _decoder(name: str, keep: bool) -> json.JSONDecoder:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise InputError(f"{name} has the key {quoted(twice)} twice")
        return found

    return json.JSONDecoder(object_pairs_hook=unique, parse_constant=Written, parse_float=Written if keep else None)


def _decoded(decoder: json.JSONDecoder, text: str, start: int, name: str) -> tuple[Any, int]:
    """The JSON value that begins there, and where it ends."""
    try:
        return decoder.raw_decode(text, start)
    except (InputError, json.JSONDecodeError):
        raise
    except RecursionError:
        raise _too_deep(text, name) from None
    except ValueError:  # Python reads no integer of more than 4300 digits
        longest = max(re.compile(_NUMBER).findall(text), key=len)
        raise InputError(f"{name} has a number that does not fit in float64: {shown(longest, 24)}") from None


def _not_json(text: str, error: json.JSONDecodeError, name: str) -> InputError:
    return InputError(f"{name} is not valid JSON: {error.msg} at {_place(text, error.pos)}")


def _chosen(document: dict[str, Any], name: str, key: str | None) -> tuple[Any, str | None]:
    """The tensor of a JSON object, and the dtype that a normcli document says it has."""
    if key is not None:
        if key not in document:
            raise InputError(f"{name} has no key {quoted(key)}; it has {listed(document)}")
        return document[key], None
    about = document.get("input")
    named = about.get("dtype") if isinstance(about, dict) else None
    dtype = named if named in FLOAT_DTYPES else None
    for candidate in ("data", "output", "input"):
        value = document.get(candidate)
        if isinstance(value, list | int | float) and not isinstance(value, bool):
            return value, dtype if candidate == "output" else None
    raise InputError(f"{name} has no tensor under the key data, output or input; its keys are {listed(document)}")


def _flattened(value: Any, name: str) -> tuple[list[Any], Shape]:
    """The numbers of a nested list and its shape, found level by level."""
    level: list[Any] = [value]
    shape: Shape = ()
    while (types := set(map(type, level))) == {list}:
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise _ragged(level, shape, name)
        shape = (*shape, sizes.pop())
        if len(shape) > _DEEPEST:
            raise InputError(f"{name} is nested more than {_DEEPEST} levels deep")
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


def _pasted(text: str, name: str, keep: bool) -> Numbers:
    call = re.compile(_CALL).match(text)
    value, end = _nested(text, call.end() if call else 0, name, keep)
    dtype = None
    if call:
        keywords, end = _keywords(text, end, name)
        dtype = _dtype(keywords.get("dtype"), name)
        size = keywords.get("size") or keywords.get("shape")
        if value == [] and size:
            raise InputError(f"{name} has no elements (shape {shown(size)})")
    if text[end:].strip(BLANKS):
        raise _leftover(text, end, name)
    leaves, shape = _flattened(value, name)
    return Numbers(leaves=leaves, shape=shape, text=text, dtype=dtype, pasted=bool(call) or "," not in text)


@dataclass(kw_only=True)
class _Bracket:
    """A bracket that is open, and what it holds so far."""

    at: int
    sign: str
    items: list[Any]
    after_comma: bool = False


def _nested(text: str, start: int, name: str, keep: bool) -> tuple[Any, int]:
    """The first value from ``start`` on, a number or nested lists of them, and where it ends.

    Commas may be missing, as in what NumPy prints, but then all of them.
    """
    brackets: list[_Bracket] = []
    commas, missing = False, None  # whether there are any, and before which item the first one is missing
    for token in re.compile(_TOKEN).finditer(text, start, len(text.rstrip(BLANKS))):
        sign, at = token[1], token.start(1)
        if sign in "[(":
            if len(brackets) == _DEEPEST:
                raise _too_deep(text, name)
            brackets.append(_Bracket(at=at, sign=sign, items=[]))
            continue
        if sign == ",":
            _take_comma(brackets, text, at, name)
            commas = True
            continue
        if sign in "])":
            value: Any
            value, at = _closed(brackets, sign, text, at, name)
        else:
            wrapped = re.compile(_WRAPPED).fullmatch(sign)
            word = wrapped[1] if wrapped else sign
            value = _number(word, keep)
            if value is None:
                _refuse_word(word, _place(text, at), name)
        if not brackets:
            if commas and missing is not None:
                raise InputError(f"{name} lacks a comma before {_place(text, missing)}")
            return value, token.end()
        if missing is None and brackets[-1].items and not brackets[-1].after_comma:
            missing = at
        brackets[-1].items.append(value)
        brackets[-1].after_comma = False
    raise _unclosed(text, name)


def _take_comma(brackets: list[_Bracket], text: str, at: int, name: str) -> None:
    if not brackets or brackets[-1].after_comma or not brackets[-1].items:
        raise InputError(f"{name} has a comma with no number before it at {_place(text, at)}")
    brackets[-1].after_comma = True


def _closed(brackets: list[_Bracket], sign: str, text: str, at: int, name: str) -> tuple[list[Any], int]:
    """The items of the innermost bracket, closed by ``sign``, and where it was opened."""
    if not brackets:
        raise InputError(f"{name} closes a bracket at {_place(text, at)} that was never opened")
    bracket = brackets.pop()
    if {"[": "]", "(": ")"}[bracket.sign] != sign:
        opened = _place(text, bracket.at)
        raise InputError(f"{name} closes the {bracket.sign!r} of {opened} with {sign!r} at {_place(text, at)}")
    if bracket.after_comma and sign == "]":
        raise InputError(f"{name} has a trailing comma before the ']' at {_place(text, at)}")
    return bracket.items, bracket.at


def _keywords(text: str, start: int, name: str) -> tuple[dict[str, str], int]:
    """What follows the numbers inside ``tensor(...)``, and where the parenthesis closes."""
    keywords = {}
    while match := re.compile(_KEYWORD).match(text, start):
        keywords[match[1]] = match[2]
        start = match.end()
    end = re.compile(_CALL_END).match(text, start)
    if end:
        return keywords, end.end()
    if not text[start:].strip(BLANKS):
        raise _unclosed(text, name)
    raise _leftover(text, start, name)


def _dtype(written: str | None, name: str) -> str | None:
    """The floating dtype that the pasted text names; None for integers, as for no dtype at all."""
    if written is None:
        return None
    bare = written.strip("'\"")
    last = _DTYPE_NAMES.get(bare) or _DTYPE_NAMES.get(bare.rpartition(".")[2]) or bare.rpartition(".")[2]
    code = re.compile(_DTYPE_CODE).fullmatch(last)
    if code:
        last = ("float" if code[1] == "f" else "int") + str(8 * int(code[2]))
    if last in FLOAT_DTYPES:
        return last
    if re.compile(_INTEGER_DTYPE).fullmatch(last):
        return None
    raise InputError(f"{name} holds {shown(bare)} values; use {either(FLOAT_DTYPES)}")


def _number(word: str, keep: bool) -> Any:
    """The word as a number, or None if it is none: an int, a float, or a Written one."""
    if re.compile(_NUMBER).fullmatch(word):
        if word.lstrip("-+").isdecimal():
            return int(word) if len(word) < _LONGEST_INTEGER else Written(word)
        return Written(word) if keep else float(word)
    return Written(word) if re.compile(_SPELLED).fullmatch(word) else None


def _refuse_word(word: str, place: str, name: str) -> NoReturn:
    """Say why a word is not a number, as precisely as can be told."""
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


def _place(text: str, at: int) -> str:
    """The position of a character, counted from 1, with its line where there are several."""
    line = text.count("\n", 0, at) + 1
    position = at - text.rfind("\n", 0, at)
    return f"line {line}, position {position}" if "\n" in text.strip(BLANKS) else f"position {position}"


def _leftover(text: str, end: int, name: str) -> InputError:
    """The error for what stands after the end of the tensor."""
    at = end + len(text[end:]) - len(text[end:].lstrip(BLANKS))
    place = _place(text, at)
    if text[at] in "])":
        return InputError(f"{name} closes a bracket at {place} that was never opened")
    if text[at] in "[({" or re.compile(_NUMBER).match(text, at) or re.compile(_CALL).match(text, at):
        what = "JSON value" if text.lstrip(BLANKS)[0] in "[{" else "tensor"
        return InputError(f"{name} holds more than one {what}; {place}")
    return InputError(f"{name} has {quoted(text[at : at + 12])} at {place}, after the end of the tensor")


def _unclosed(text: str, name: str) -> InputError:
    brackets = max(1, _surplus(text))
    return InputError(f"{name} is cut off: {count(brackets, 'bracket')} {'is' if brackets == 1 else 'are'} not closed")


def _too_deep(text: str, name: str) -> InputError:
    if _surplus(text) > 0:
        return _unclosed(text, name)
    return InputError(f"{name} is nested more than {_DEEPEST} levels deep")


def _surplus(text: str) -> int:
    """How many brackets are opened more than closed."""
    return sum(map(text.count, "[({")) - sum(map(text.count, "])}"))


def _overflows(leaf: Any) -> bool:
    try:
        return math.isinf(leaf)
    except OverflowError:
        return True


def _too_large(numbers: Numbers, at: int, name: str) -> InputError:
    """The error for a number beyond float64; a float no longer knows how it was written, the text does."""
    leaf = numbers.leaves[at]
    if type(leaf) is float:
        written = next(word for word in re.compile(_NUMBER).findall(numbers.text) if math.isinf(float(word)))
    else:
        written = leaf.text if isinstance(leaf, Written) else str(leaf)
    return InputError(f"{name} has {shown(written, 24)} at {_path(at, numbers.shape)}, which does not fit in float64")


def _vanished(text: str) -> tuple[str, ...]:
    """The warning that numbers of the text are too small for float64."""
    if _MANY_ZEROS not in text and not any(exponent.search(text) for exponent in _SMALL_EXPONENTS):
        return ()
    zeros = [word for word in re.compile(_NUMBER).findall(text) if float(word) == 0]
    words = [word for word in zeros if re.search("[1-9]", word.lower().partition("e")[0])]
    if len(words) < 2:
        return tuple(f"{shown(word, 24)} rounds to 0" for word in words)
    return (f"{len(words)} numbers, such as {shown(words[0], 24)}, round to 0",)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line of a table, cut into its cells."""

    line: int
    cells: list[str]


def _table(text: str, name: str, keep: bool) -> Numbers:
    """Rows of numbers, one to a line, below a row of names or not.

    One row, or one bare number to a line, is a tensor of one axis.
    """
    rows, separator = _rows(text, name)
    if not rows:
        raise InputError(f"{name} is empty")
    warnings: tuple[str, ...] = ()
    if _are_names(rows[0].cells):
        names = rows.pop(0).cells
        if not rows:
            raise InputError(f"{name} holds no tensor, but {quoted(' '.join(names), 24)}")
        if not names[0]:
            warnings = ("the first column has no name; its numbers are read as data",)
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            odd = f"line {row.line} has {count(len(row.cells), 'value')}"
            raise InputError(f"{name} is ragged: {odd}, line {rows[0].line} has {width}")
    leaves = _cell_numbers(rows, name, keep)
    flat = len(rows) == 1 or (separator is None and width == 1)
    return Numbers(leaves=leaves, shape=(len(leaves),) if flat else (len(rows), width), text=text, warnings=warnings)


def _rows(text: str, name: str) -> tuple[list[_Row], str | None]:
    """The lines that hold something, and what separates their cells; None: blanks do."""
    ended = text.replace("\r\n", "\n").replace("\r", "\n")  # a lone CR ended the lines of old Macs
    lines = [(number, line) for number, line in enumerate(ended.split("\n"), 1) if line.strip(BLANKS)]
    lines = [(number, line) for number, line in lines if not line.lstrip(BLANKS).startswith("#")]
    separator = next((sign for sign in "\t;," if any(sign in line for _, line in lines)), None)
    return [_Row(line=number, cells=_cells(line, separator, number, name)) for number, line in lines], separator


def _cells(line: str, separator: str | None, number: int, name: str) -> list[str]:
    if separator is None:
        return re.split(r"[ \t]+", line.strip(BLANKS))
    if '"' not in line:
        return [cell.strip(BLANKS) for cell in line.split(separator)]
    import csv

    try:
        return [cell.strip(BLANKS) for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    except csv.Error as error:  # a cell of more than 128 KiB
        raise InputError(f"{name} cannot be read in line {number}: {error}") from None


def _are_names(cells: list[str]) -> bool:
    """Whether a row names the columns: words, none of which is a number; an index may have no name."""
    words = cells if cells[0] else cells[1:]
    return bool(words) and all(_number(word, keep=False) is None and re.compile(_NAME).match(word) for word in words)


def _cell_numbers(rows: list[_Row], name: str, keep: bool) -> list[Any]:
    leaves = [_number(cell, keep) for row in rows for cell in row.cells]
    if None in leaves:
        at, column = divmod(leaves.index(None), len(rows[0].cells))
        _refuse_cell(rows[at].cells[column], f"line {rows[at].line}, column {column + 1}", name)
    return leaves


def _refuse_cell(cell: str, place: str, name: str) -> NoReturn:
    if not cell:
        raise InputError(f"{name} has an empty cell at {place}")
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", cell):
        raise InputError(f"{name} has a decimal comma in {quoted(cell, 24)} at {place}; write a decimal point")
    _refuse_word(cell, place, name)
