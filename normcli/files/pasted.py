"""What ``print`` shows of a tensor or an array: ``tensor([[1., 2.]])``, ``array(...)``, and bare brackets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.files.numbers import DEEPEST, Numbers, flattened, number
from normcli.files.text import BLANKS, CALL, leftover, place, refuse_word, too_deep, unclosed
from normcli.words import either, shown

_KEYWORD = r"""[ \t\r\n]*,[ \t\r\n]*(\w+)=(<[^>]*>|\([^()]*\)|'[^']*'|"[^"]*"|[\w.:]+)"""
_CALL_END = r"[ \t\r\n]*(?:,[ \t\r\n]*)?\)"
_TOKEN = r"[ \t\r\n]*(np\.[a-z]+[0-9]+\([^()\[\],]*\)|[\[\](),]|[^ \t\r\n,\[\]()]+)"
_WRAPPED = r"np\.[a-z]+[0-9]+\((.*)\)"  # numpy 2 shows the numbers of a list as np.float64(1.5)

_DTYPE_NAMES = {"float": "float64", "double": "float64", "half": "float16", "torch.float": "float32"}
_DTYPE_CODE = r"[<>=|]?([fiu])([0-9])"
_INTEGER_DTYPE = r"u?int[0-9]*|long|short"


def parse(text: str, name: str, *, keep: bool, **_: object) -> list[Numbers]:
    """The numbers of text as ``print`` shows it, of one tensor; ``keep`` keeps how every number is written.

    >>> [numbers] = parse("tensor([[1., 2.]], dtype=torch.float16)", "x", keep=False)
    >>> numbers.leaves, numbers.shape, numbers.dtype
    ([1.0, 2.0], (1, 2), 'float16')
    """
    call = re.compile(CALL).match(text)
    value, end = _nested(text, call.end() if call else 0, name, keep)
    dtype = None
    if call:
        keywords, end = _keywords(text, end, name)
        dtype = _dtype(keywords.get("dtype"), name)
        size = keywords.get("size") or keywords.get("shape")
        if value == [] and size:
            raise InputError(f"{name} has no elements (shape {shown(size)})")
    if text[end:].strip(BLANKS):
        raise leftover(text, end, name)
    leaves, shape = flattened(value, name)
    return [Numbers(leaves=leaves, shape=shape, text=text, dtype=dtype, pasted=bool(call) or "," not in text)]


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
            if len(brackets) == DEEPEST:
                raise too_deep(text, name)
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
            value = number(word, keep=keep)
            if value is None:
                refuse_word(word, place(text, at), name)
        if not brackets:
            if commas and missing is not None:
                raise InputError(f"{name} lacks a comma before {place(text, missing)}")
            return value, token.end()
        if missing is None and brackets[-1].items and not brackets[-1].after_comma:
            missing = at
        brackets[-1].items.append(value)
        brackets[-1].after_comma = False
    raise unclosed(text, name)


def _take_comma(brackets: list[_Bracket], text: str, at: int, name: str) -> None:
    if not brackets or brackets[-1].after_comma or not brackets[-1].items:
        raise InputError(f"{name} has a comma with no number before it at {place(text, at)}")
    brackets[-1].after_comma = True


def _closed(brackets: list[_Bracket], sign: str, text: str, at: int, name: str) -> tuple[list[Any], int]:
    """The items of the innermost bracket, closed by ``sign``, and where it was opened."""
    if not brackets:
        raise InputError(f"{name} closes a bracket at {place(text, at)} that was never opened")
    bracket = brackets.pop()
    if {"[": "]", "(": ")"}[bracket.sign] != sign:
        opened = place(text, bracket.at)
        raise InputError(f"{name} closes the {bracket.sign!r} of {opened} with {sign!r} at {place(text, at)}")
    if bracket.after_comma and sign == "]":
        raise InputError(f"{name} has a trailing comma before the ']' at {place(text, at)}")
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
        raise unclosed(text, name)
    raise leftover(text, start, name)


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
