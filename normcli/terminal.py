"""What text is shown on: how wide it is, whether it has colours, and words that are broken to fit."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

READABLE = 100  # columns of prose, however wide the terminal is
WHEN = ("auto", "always", "never")
BAD, DOUBTFUL, GOOD = "1;31", "1;33", "1;32"  # as terminals count colours

_INSIDE = r"(?<= [-+*/=x]) (?=\S)| (?=[-+*/=x] )|(?<=\d,) (?=(?:\d+, )*\d+\))"  # the blanks of a formula or shape
_LEAST = 20  # columns, where a terminal says that it has fewer
_settled = {"colour": "auto"}  # one terminal, one answer


def settle_colour(when: str) -> None:
    """Say for the rest of the run whether there are colours: auto, always or never."""
    _settled["colour"] = when


def has_colours(stream: TextIO) -> bool:
    """Whether text on a stream is to be coloured.

    A stream of ours says so itself, by ``colours``. Else what was settled comes first, then NO_COLOR, then FORCE_COLOR;
    and a terminal has colours by itself, unless it is dumb.

    >>> from io import StringIO
    >>> has_colours(StringIO()) and "FORCE_COLOR" not in os.environ
    False
    """
    if (own := getattr(stream, "colours", None)) is not None:
        return bool(own)
    if _settled["colour"] != "auto":
        return _settled["colour"] == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in a colour where the stream has any."""
    return f"\033[{colour}m{text}\033[0m" if colour and has_colours(stream) else text


def width_of(stream: TextIO) -> int | None:
    """How many columns there are: COLUMNS where it is set, else a terminal's own; None where nothing limits them."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns) > 0:
        return max(_LEAST, int(columns))
    if not stream.isatty():
        return None
    for one in (stream, sys.__stdout__):
        try:
            own = os.get_terminal_size(one.fileno()).columns if one is not None else 0
            return max(_LEAST, own) if own else 80  # 0 columns has a terminal that does not know
        except (AttributeError, ValueError, OSError):
            continue
    return 80


def places(text: str) -> int:
    """How many places of a terminal the text takes: Chinese, Japanese and Korean letters take two.

    >>> places("mean"), places("平均")
    (4, 4)
    """
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def words(text: str, width: int) -> list[str]:
    """What is between the blanks of a text; a formula or a shape that is short for the width is one word.

    >>> words("LayerNorm of (2, 6, 4): sum(x) / n, not n - 1.", 40)
    ['LayerNorm', 'of', '(2, 6, 4):', 'sum(x) / n,', 'not', 'n - 1.']
    """
    found: list[str] = []
    for word in re.sub(_INSIDE, "\0", text).split(" "):
        whole = word.replace("\0", " ")
        found += [whole] if places(whole) <= width // 3 else whole.split(" ")
    return found


def folded(text: str, width: int | None, hang: int | None = None) -> list[str]:
    """A line in lines of at most ``width`` places, broken at blanks only; a longer word has a line to itself.

    The lines that follow are indented as the first one is, or by ``hang``. After a gap of two blanks or more there
    is a second column, and they stand below that.

    >>> folded("error: one two three", 13, 2)
    ['error: one', '  two three']
    >>> folded("  --eps  Added to the variance.", 20)
    ['  --eps  Added to', '         the', '         variance.']
    """
    if width is None or places(text) <= width:
        return [text]
    first = " " * (len(text) - len(text.lstrip(" ")))
    if hang is None:
        hang = len(first)
        if columns := re.match(r" *\S.*?  +(?=\S)", text):
            if columns.end() > width // 2:  # too little is left beside it
                below = first + " " * 6 + text[columns.end() :]
                return [*folded(columns[0].rstrip(), width), *folded(below, width)]
            first, hang = columns[0], columns.end()
    word, *others = words(text[len(first) :], width)
    lines = [first + word]
    for word in others:
        if places(longer := f"{lines[-1]} {word}") > width:
            lines.append(" " * hang + word)
        else:
            lines[-1] = longer
    return lines


def folded_command(line: str, width: int) -> list[str]:
    """A command in lines that a shell still takes for one: broken at blanks outside quotes, with a backslash.

    >>> print(*folded_command("  normcli layer '[1, 2]' --trace", 28), sep="\\n")
      normcli layer '[1, 2]' \\
          --trace
    """
    if len(line) <= width:
        return [line]
    start = " " * (len(line) - len(line.lstrip(" ")))
    words = re.findall(r"(?:'[^']*'|\S)+", line)
    lines = [start + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > width and lines[-1].strip() != words[0]:
            lines[-1] += " \\"
            lines.append(f"{start}    {word}")
        else:
            lines[-1] += f" {word}"
    return lines


def prose(text: str, stream: TextIO, hang: int | None = None) -> Iterator[str]:
    """The lines of a text as the stream has room for them, and not wider than one reads easily."""
    width = width_of(stream)
    for line in text.split("\n"):
        yield from folded(line, width and min(width, READABLE), hang)
