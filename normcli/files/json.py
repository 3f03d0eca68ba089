"""JSON: documents, the nested lists of numbers in them, and arrays as such lists, every number exact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.files.numbers import NUMBER, Numbers, Written, flattened
from normcli.files.stored import Stored
from normcli.files.text import BLANKS, leftover, place, too_deep
from normcli.words import listed, quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 2**14  # elements turned into Python numbers at a time: enough to be fast, too few to be felt
_NOT_FINITE = re.compile(r"NaN|-?Infinity")


def parse(text: str, name: str, *, key: str | None, keep: bool, each: bool) -> list[Numbers] | None:
    """The numbers of a JSON text, or with ``each`` of every document where it is JSON Lines.

    None for a list that is not JSON, as what NumPy prints is none. Raises InputError for what is no
    tensor; of several documents the one at fault is named by its line.

    >>> [numbers.leaves for numbers in parse("[1, 2]\\n[3, 4]", "x", key=None, keep=False, each=True)]
    [[1, 2], [3, 4]]
    """
    decoder, start = _decoder(name, keep), _after_blanks(text, 0)
    try:
        value, end = _decoded(decoder, text, start, name)
    except json.JSONDecodeError as error:
        if text[start] == "[":
            return None
        raise _not_json(text, error, name) from None
    first = end
    places, at = [(value, start, end)], _after_blanks(text, end)
    while each and text.startswith(("[", "{"), at) and "\n" in text[end:at]:  # on a document's own line it is a slip
        start = at
        try:
            value, end = _decoded(decoder, text, start, name)
        except json.JSONDecodeError as error:
            raise _not_json(text, error, name) from None
        places.append((value, start, end))
        at = _after_blanks(text, end)
    if at < len(text):
        raise leftover(text, first, name)
    if len(places) == 1:
        return [_numbers(value, text, name, key)]
    line, counted, found = 1, 0, []
    for value, start, end in places:
        line, counted = line + text.count("\n", counted, start), start
        found.append(_numbers(value, text[start:end], f"{name}, line {line},", key))
    return found


def document(text: str, name: str, *, keep: bool = False) -> Any:
    """The JSON value that the text is; ``keep`` makes its numbers Written. InputError for what is not JSON.

    >>> document('{"bn1": {"weight": [1, 2.5]}}', "x")
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
        raise leftover(text, end, name)
    return value


def json_chunks(array: Any) -> Iterator[str]:
    """The array as JSON, in pieces that take little memory whatever its size.

    Each number is the shortest text of its exact value as float64, so it reads back to the same bits
    (float32 0.1 is 0.10000000149011612). JSON has no NaN and no infinities: they are the strings
    "NaN", "Infinity" and "-Infinity".

    >>> "".join(json_chunks(np.array([[1, 0.1], [-0.0, np.nan]])))
    '[[1.0, 0.1], [-0.0, "NaN"]]'
    """
    values = array if isinstance(array, Stored) else np.asarray(array)
    if values.ndim == 0 or values.size <= _BLOCK:
        yield _json(np.asarray(values))
        return
    row = values.size // len(values)
    yield "["
    if row > _BLOCK:
        for index in range(len(values)):
            yield ", " if index else ""
            yield from json_chunks(values.row(index) if isinstance(values, Stored) else values[index])
    else:
        for start, block in _blocks(values, _BLOCK // row):
            yield (", " if start else "") + _json(block)[1:-1]
    yield "]"


def _numbers(value: Any, text: str, name: str, key: str | None) -> Numbers:
    """The numbers of a JSON document, which may be an object that holds them."""
    dtype = None
    if isinstance(value, dict):
        value, dtype = _chosen(value, name, key)
    leaves, shape = flattened(value, name)
    return Numbers(leaves=leaves, shape=shape, text=text, dtype=dtype)


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
        raise too_deep(text, name) from None
    except ValueError:  # Python reads no integer of more than 4300 digits
        longest = max(re.compile(NUMBER).findall(text), key=len)
        raise InputError(f"{name} has a number that does not fit in float64: {shown(longest, 24)}") from None


def _not_json(text: str, error: json.JSONDecodeError, name: str) -> InputError:
    return InputError(f"{name} is not valid JSON: {error.msg} at {place(text, error.pos)}")


def _blocks(values: NDArray[Any] | Stored, rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(values), rows):
        stop = min(start + rows, len(values))
        yield start, values.rows(start, stop) if isinstance(values, Stored) else values[start:stop]


def _json(values: NDArray[Any]) -> str:
    text = json.dumps(values.astype(np.float64).tolist())
    return text if np.isfinite(values).all() else _NOT_FINITE.sub(r'"\g<0>"', text)
