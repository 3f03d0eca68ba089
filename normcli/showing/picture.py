"""Input and output as pictures: heat maps side by side, and what each channel's values look like before and after.

On a terminal the values are colours; without colour they are shade characters, or letters of more
and more ink where there is only ASCII. The input's scale goes from its least to its greatest value; the
output's reaches as far below 0 as above it, so that a mean of 0 is seen to be one, or begins at 0 where nothing is
below. A large tensor is drawn by its edges, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.result import Result
from normcli.digits import short
from normcli.showing.canvas import Canvas, Edges, Index, Line

# Paper and ink from low to high: viridis, of S. van der Walt and N. Smith, whose order is kept in grey as well.
_HEAT = (
    ("#440154", "#ffffff"),
    ("#472d7b", "#ffffff"),
    ("#3b528b", "#ffffff"),
    ("#2c728e", "#ffffff"),
    ("#21918c", "#000000"),
    ("#28ae80", "#000000"),
    ("#5ec962", "#000000"),
    ("#addc30", "#000000"),
    ("#fde725", "#000000"),
)
# From below 0 to above it: blue, white and red, of C. Brewer's ColorBrewer, pale where the numbers are small.
_SIGNED = (
    ("#2166ac", "#ffffff"),
    ("#4393c3", "#000000"),
    ("#92c5de", "#000000"),
    ("#d1e5f0", "#000000"),
    ("#f7f7f7", "#000000"),
    ("#fddbc7", "#000000"),
    ("#f4a582", "#000000"),
    ("#d6604d", "#000000"),
    ("#b2182b", "#ffffff"),
)
_SHADES = "·░▒▓█"  # of each an odd number: 0 lies in the middle of the one in the middle
_ASCII = ".:~o%#@"
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_TICKS = ("└", "┴", "┘", "─")  # of an axis: its start, 0, its end, and between them
_ASCII_TICKS = ("+", "+", "+", "-")
_MARKS = {"nan": "??", "inf": "++", "-inf": "--"}
_LEFT_OUT = ".."

_ROWS = Edges(most=12, head=5, tail=5)
_SLICES = Edges(most=4, head=2, tail=1)
_LISTED = Edges(most=8, head=4, tail=4)
_WIDEST = 24  # columns of a map
_BINS = 15
_BETWEEN = "   "
_BLOCK = 2**20  # elements looked at together

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """The range of numbers that the colours stand for; a signed one has 0 in its middle, and colours on both sides."""

    low: float
    high: float
    signed: bool = False

    def level(self, value: float, levels: int) -> int:
        """Which of the levels a finite value has; the middle one where all values are the same.

        >>> Scale(0, 1).level(0.5, 5), Scale(-1e308, 1e308).level(1e308, 5), Scale(3, 3).level(3, 5)
        (2, 4, 2)
        """
        if self.high == self.low:
            return levels // 2
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return min(levels - 1, max(0, int(share * levels)))

    @property
    def words(self) -> str:
        """Its ends, in words."""
        return f"{short(self.low)} to {short(self.high)}"


def extent(array: NDArray[Any]) -> Scale | None:
    """The least and the greatest finite value; None if there is none.

    >>> extent(np.array([1.0, np.nan, -2, np.inf]))
    Scale(low=-2.0, high=1.0, signed=False)
    """
    low, high = math.inf, -math.inf
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float64)
        finite = block[np.isfinite(block)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return Scale(low, high) if low <= high else None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An input and its output, each with its scale."""

    x: NDArray[Any]
    result: Result
    before: Scale
    after: Scale

    @property
    def output(self) -> NDArray[Any]:
        """The output as an array."""
        return np.asarray(self.result.output)


def pair(x: NDArray[Any], result: Result) -> Pair:
    """The two tensors of a calculation, ready to be drawn."""
    nothing = Scale(0.0, 0.0)
    after = extent(np.asarray(result.output)) or nothing
    reach = max(-after.low, after.high)
    scale = Scale(-reach, reach, signed=True) if after.low < 0 else Scale(0.0, reach)
    return Pair(x=x, result=result, before=extent(x) or nothing, after=scale)


def drawer(x: NDArray[Any], result: Result) -> Callable[[Canvas], list[Line]]:
    """What draws the two tensors of a calculation on a canvas."""
    return lambda canvas: lines(pair(x, result), canvas)


def lines(drawn: Pair, canvas: Canvas) -> list[Line]:
    """Legend, heat maps and histograms."""
    return [*_legend(drawn, canvas), *_maps(drawn, canvas), [], *_histograms(drawn, canvas)]


def _legend(drawn: Pair, canvas: Canvas) -> Iterator[Line]:
    scales = {"input": drawn.before, "output": drawn.after}
    wide = max(map(len, scales))
    least = max(len(short(scale.low)) for scale in scales.values())
    for name, scale in scales.items():
        ramp = [_tile(level, scale, canvas) for level in range(len(_ramp(canvas)))]
        yield [(f"{name:{wide}}  {short(scale.low):>{least}} ", None), *ramp, (f" {short(scale.high)}", None)]
    marks = [f"{mark} {name}" for name, mark in _MARKS.items() if _holds(drawn, name)]
    if marks:
        yield [(", ".join(marks), None)]


def _holds(drawn: Pair, name: str) -> bool:
    """Whether a value that is not finite is among those of either tensor."""
    for array in (drawn.x, drawn.output):
        flat = array.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            if (np.isnan(block) if name == "nan" else block == float(name)).any():
                return True
    return False


def _ramp(canvas: Canvas) -> tuple[str, ...]:
    """The texts of the levels, low to high."""
    if canvas.colour:
        return ("  ",) * len(_HEAT)
    return tuple(shade * 2 for shade in (_SHADES if canvas.utf8 else _ASCII))


def _tile(level: int, scale: Scale, canvas: Canvas) -> tuple[str, str | None]:
    paper, ink = (_SIGNED if scale.signed else _HEAT)[level] if canvas.colour else ("", "")
    return _ramp(canvas)[level], f"{ink} on {paper}" if canvas.colour else None


# --- heat maps ------------------------------------------------------------------------------------


def _maps(drawn: Pair, canvas: Canvas) -> Iterator[Line]:
    """The last two axes of each slice, input on the left and output on the right."""
    shape = drawn.x.shape
    leading = shape[:-2]
    rows: list[Index] = _ROWS.of(shape[-2]) if len(shape) > 1 else [0]
    columns = _columns(shape[-1], canvas.width)
    slices = _SLICES.of(math.prod(leading))
    for place in slices:
        yield []
        if place is None:
            yield [("...", None)]
            continue
        index = tuple(int(i) for i in np.unravel_index(place, leading)) if leading else ()
        at = "".join(f"{i}, " for i in index)
        titles = [f"{name}[{at}:, :]" if index else name for name in ("input", "output")]
        wide = max(2 * len(columns), len(titles[0]))
        yield [(titles[0].ljust(wide) + _BETWEEN + titles[1], "cyan")]
        sides = [(drawn.x[index], drawn.before), (drawn.output[index], drawn.after)]
        for row in rows:
            left, right = (list(_strip(values, scale, row, columns, canvas)) for values, scale in sides)
            yield [*left, (" " * (wide - 2 * len(columns)) + _BETWEEN, None), *right]
    yield from _left_out(shape, rows, columns, slices, canvas)


def _columns(size: int, width: int) -> list[Index]:
    most = max(5, min(_WIDEST, (width - len(_BETWEEN)) // 4))
    return Edges(most=most, head=most // 2, tail=(most - 1) // 2).of(size)


def _strip(
    values: NDArray[Any], scale: Scale, row: Index, columns: list[Index], canvas: Canvas
) -> Iterator[tuple[str, str | None]]:
    """One line of a heat map."""
    matrix = values.reshape(-1, values.shape[-1])
    for column in columns:
        if row is None or column is None:
            yield _LEFT_OUT, None
            continue
        value = float(matrix[row, column])
        if math.isfinite(value):
            yield _tile(scale.level(value, len(_ramp(canvas))), scale, canvas)
        else:
            yield _MARKS[str(value)], "bold" if canvas.colour else None


def _left_out(
    shape: tuple[int, ...], rows: list[Index], columns: list[Index], slices: list[Index], canvas: Canvas
) -> Iterator[Line]:
    sizes = {f"axis {len(shape) - 2}": (rows, shape[-2] if len(shape) > 1 else 1)}
    sizes |= {f"axis {len(shape) - 1}": (columns, shape[-1])}
    said = [f"{len(kept) - 1} of {size} along {name}" for name, (kept, size) in sizes.items() if None in kept]
    if None in slices:
        said.append(f"{len(slices) - 1} of {math.prod(shape[:-2])} slices")
    if said:
        yield []
        yield from _sentence(f"Only the edges are drawn: {', '.join(said)}.", canvas)


def _sentence(text: str, canvas: Canvas, style: str | None = None) -> Iterator[Line]:
    for line in wrap(text, canvas.width):
        yield [(line, style)]


# --- histograms -----------------------------------------------------------------------------------


def _histograms(drawn: Pair, canvas: Canvas) -> Iterator[Line]:
    """How the values of each channel (of each row, where a kind has no channels) lie on the scales."""
    word, before, after = _listed(drawn)
    places = _LISTED.of(len(before))
    shown = [place for place in places if place is not None]
    of = f": {len(shown)} of {len(before)} shown" if None in places else ""
    yield from _sentence(f"values of each {word}, from low to high on the scale{of}", canvas, "cyan")
    wide = max(len(word), len(str(len(before) - 1)))
    rows = {p: (_told(before[p], drawn.before, canvas), _told(after[p], drawn.after, canvas)) for p in shown}
    reach = max(len("input"), *(len(left) for left, _ in rows.values()))
    beside = max(wide + 2 + reach + 2 + len(right) for _, right in rows.values()) <= canvas.width
    heads = f"{'input':{reach}}  output" if beside else "input, output below it"
    yield [(f"{word:>{wide}}  {heads}", "dim" if canvas.colour else None)]
    for place in places:
        if place is None:
            yield [(f"{'...':>{wide}}", None)]
            continue
        left, right = rows[place]
        if beside:
            yield [(f"{place:>{wide}}  {left:{reach}}  {right}", None)]
        else:
            yield [(f"{place:>{wide}}  {left}", None)]
            yield [(f"{'':{wide}}  {right}", None)]
    axes = (_axis(drawn.before, canvas), _axis(drawn.after, canvas))
    if beside:
        for left, right in zip(*axes, strict=True):
            yield [(f"{'':{wide}}  {left:{reach}}  {right}", None)]
    else:
        for (ticks, ends), name in zip(axes, ("input", "output"), strict=True):
            yield [(f"{'':{wide}}  {ticks}  {name}", None)]
            yield [(f"{'':{wide}}  {ends}", None)]


def _axis(scale: Scale, canvas: Canvas) -> tuple[str, str]:
    """The line below histograms, with a mark at each end and at 0, and the numbers below the marks."""
    start, zero, end, line = _TICKS if canvas.utf8 else _ASCII_TICKS
    low, high = (f"{value:.2g}" for value in (scale.low, scale.high))
    ticks, ends = [start, *line * (_BINS - 2), end], low + " " * max(1, _BINS - len(low) - len(high)) + high
    if scale.low < 0 < scale.high:
        place = scale.level(0.0, _BINS)
        ticks[place] = zero if 0 < place < _BINS - 1 else ticks[place]
        if ends[place - 1 : place + 2] == "   ":
            ends = f"{ends[:place]}0{ends[place + 1 :]}"
    return "".join(ticks), ends


def _told(values: NDArray[Any], scale: Scale, canvas: Canvas) -> str:
    """A histogram and the ends of its values."""
    finite = extent(values)
    return f"{_bars(values, scale, canvas)}  {finite.words if finite else 'nothing finite'}"


def _listed(drawn: Pair) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """What the histograms are of: a word for it, and the values with one row for each."""
    axis = drawn.result.plan.layout.channel_axis
    if axis is None:
        rows = (math.prod(drawn.result.plan.layout.stats_shape), -1)
        return "row", drawn.x.reshape(rows), drawn.output.reshape(rows)
    return "channel", np.moveaxis(drawn.x, axis, 0), np.moveaxis(drawn.output, axis, 0)


def _bars(values: NDArray[Any], scale: Scale, canvas: Canvas) -> str:
    """The histogram as a line of bars; the least of a bin that is not empty is seen."""
    marks = _BARS if canvas.utf8 else _ASCII_BARS
    counts = _counts(values, scale)
    most = max(1, *counts)
    return "".join(marks[0 if not n else max(1, round(n / most * (len(marks) - 1)))] for n in counts)


def _counts(values: NDArray[Any], scale: Scale) -> list[int]:
    """How many finite values lie in each bin of the scale."""
    counts = np.zeros(_BINS, np.int64)
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float64)
        block = block[np.isfinite(block)] / 2
        span = scale.high / 2 - scale.low / 2
        share = (block - scale.low / 2) / span if span else np.full(block.shape, 0.5)
        counts += np.bincount(np.clip((share * _BINS).astype(np.int64), 0, _BINS - 1), minlength=_BINS)
    return [int(n) for n in counts]
