"""How an answer was printed: the digits that each number shows, and the ways in which they can be read.

The same numbers may be four decimals with the zeros at the end dropped, three significant digits,
or the shortest digits of a float32. Each way is a ``Reading``, which says how far a right number
may lie from the exact one; an answer is held to whichever of its readings fits all its cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.ranks import joined
from normcli.dtypes import DTYPES
from normcli.files.numbers import EXACT, to_float64
from normcli.files.read import read_tensor
from normcli.floats import rounded
from normcli.words import count

Floats = NDArray[np.float64]

# Half the distance between the neighbours of 1, and half the least number above 0.
_LEAST = {"float64": 2.0**-1075, "float32": 2.0**-150, "float16": 2.0**-25, "bfloat16": 2.0**-134}

_SHARP = 6  # half units: three of the last digit in all
_MOST_DECIMALS = 12  # that are spoken of as such; more of them are counted as digits
_FINER = 20  # nobody shows digits of a float16 that are so many times finer than its step


@dataclass(frozen=True)
class Printed:
    """Numbers, and how they were written.

    ``decimals`` has their shape: the place of each number's last digit, ``EXACT`` where none was
    written. ``dtype`` is the floating dtype that holds them where that is known (a binary file, or
    text that names it), and ``pasted`` says that they are what ``print`` shows, which rounds.

    >>> Printed(np.array([0.5653, -1.2, 0.0]), np.array([4, 1, EXACT])).half_units.tolist()
    [5e-05, 5e-05, 0.0]
    """

    values: Floats
    decimals: NDArray[np.int64]
    dtype: str | None = None
    pasted: bool = False
    fixed: bool = False  # whether the decimals were said, and are not to be read off the digits

    @classmethod
    def exactly(cls, values: NDArray[np.floating], dtype: str | None = None) -> Printed:
        """Numbers that nobody has rounded, but perhaps to ``dtype``."""
        return cls(np.asarray(values, np.float64), np.full(np.shape(values), EXACT), dtype)

    @classmethod
    def joined(cls, ranks: Sequence[Printed]) -> tuple[Printed, tuple[int, ...]]:
        """The numbers of several ranks as one along axis 0, and how many samples each has.

        >>> ranks = [Printed.exactly(np.ones((size, 2))) for size in (1, 2)]
        >>> Printed.joined(ranks)[1]
        (1, 2)
        """
        sizes = joined([rank.in_dtype for rank in ranks])[1]
        values, decimals = (np.concatenate([getattr(r, name) for r in ranks]) for name in ("values", "decimals"))
        return cls(values, decimals, ranks[0].dtype, any(r.pasted for r in ranks), all(r.fixed for r in ranks)), sizes

    def rounded_to(self, decimals: int | None) -> Printed:
        """The same numbers, all of them printed with ``decimals`` decimals; None leaves them alone."""
        if decimals is None:
            return self
        return replace(self, decimals=np.full(self.values.shape, decimals), pasted=decimals != EXACT, fixed=True)

    def spread(self, shape: tuple[int, ...]) -> Printed:
        """One number, or numbers of that shape already, for all of it."""
        return replace(self, values=np.broadcast_to(self.values, shape), decimals=np.broadcast_to(self.decimals, shape))

    @property
    def in_dtype(self) -> NDArray[Any]:
        """The numbers in the dtype that holds them; float64 where it is not known."""
        with np.errstate(over="ignore"):
            return rounded(self.values, self.dtype) if self.dtype else self.values

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """The numbers that show decimals."""
        return np.not_equal(self.decimals, EXACT)

    @property
    def most_decimals(self) -> int:
        """The most decimals that any of the numbers shows; ``EXACT`` where none shows any."""
        return int(self.decimals[self.shown].max()) if self.shown.any() else EXACT

    @property
    def half_units(self) -> Floats:
        """Half a unit of each number's last printed digit, 0 where it is exact: by how much an input may be off.

        A tensor is printed with one number of decimals, and JSON drops the zeros at the end: -1.2
        among numbers of four decimals was -1.2000. In scientific notation each number has its own.
        """
        if not self.shown.any():
            return np.zeros(self.values.shape)
        digits = self._digits[self.shown & (self.values != 0)]
        own = bool(digits.size) and digits.min() == digits.max() >= 4
        rounded = self.shown if own or self.fixed else self.shown & (self.decimals > 0)  # 1.5e3 is 1500, no more
        return np.where(rounded, _half(np.where(own, self.decimals, self.most_decimals)), 0.0)

    @cached_property
    def _digits(self) -> NDArray[np.int64]:
        """How many significant digits each number shows: of a whole number those before its zeros, of 0 none."""
        magnitude = _magnitude(self.values)
        digits = np.where(self.shown, self.decimals, 0) + magnitude + 1
        whole = ~self.shown & np.isfinite(self.values) & (magnitude >= 0) & (magnitude < 16)
        left = np.where(whole, np.abs(self.values), 1.0)
        for _ in range(16):  # the zeros at the end of a whole number show nothing
            zero = (left % 10 == 0) & whole & (left > 0)
            left, digits = np.where(zero, left / 10, left), digits - zero
        return np.where((self.values == 0) | ~np.isfinite(self.values), 0, digits)

    def readings(self, dtype: str) -> list[Reading]:
        """The ways in which an answer may have been printed; ``dtype`` is that of the input.

        An answer of whole numbers alone is exact, and so is a binary file but for its own dtype.

        >>> answer = Printed(np.array([1.23, 12.3]), np.array([2, 1]))
        >>> sorted({reading.words for reading in answer.readings("float64")})
        ['2 decimals', '3 significant digits']
        """
        if dtype not in self._read:  # a search for slips asks hundreds of times
            tried = (
                self._reading(words, half_units, name, expected=name in (dtype, self.dtype))
                for words, half_units in self._styles()
                for name in self._dtypes(dtype)
            )
            self._read[dtype] = [reading for reading in tried if reading is not None]
        return self._read[dtype]

    @cached_property
    def _read(self) -> dict[str, list[Reading]]:
        return {}

    def _styles(self) -> Iterator[tuple[str, Floats]]:
        """What the digits can mean: words for it, and half a unit of the last one for each number."""
        if not self.shown.any():
            yield "", np.zeros(self.values.shape)
            return
        most, digits = self.most_decimals, int(self._digits[self.shown].max(initial=0))
        usual = most > 0 or self.fixed or not digits
        words = count(most, "decimal") if usual and most <= _MOST_DECIMALS else count(digits, "significant digit")
        yield words, _half(np.full(self.values.shape, most))
        if not self.fixed and digits >= self._digits.max(initial=0) and digits:
            half_units = _half(digits - 1 - _magnitude(self.values))
            yield count(digits, "significant digit"), np.where(self.values == 0, 0.0, half_units)

    def _dtypes(self, dtype: str) -> list[str]:
        """The dtypes that the answer may have been held in, the finest first."""
        if self.dtype in ("float16", "bfloat16", "float32"):
            return list(dict.fromkeys([self.dtype, *([dtype] if DTYPES[dtype].unit > DTYPES[self.dtype].unit else [])]))
        halves = ["float16", "bfloat16"] if self.shown.any() else []
        return list(dict.fromkeys(["float64", "float32", dtype, *halves]))

    def _reading(self, words: str, half_units: Floats, dtype: str, *, expected: bool) -> Reading | None:
        """The answer as numbers of that dtype; None where it shows digits that these would not."""
        values = np.where(np.isfinite(self.values), self.values, 0.0)
        step = half_step(np.abs(values) + half_units, dtype)
        if dtype == "float64":
            return Reading(words, self.values, half_units, step, np.maximum(half_units, step), dtype)
        with np.errstate(over="ignore"):
            held = rounded(values, dtype)
        gap = np.abs(held.astype(np.float64) - values)
        own = np.where(self.shown, _half(self.decimals), np.inf)
        near = gap <= half_units * (1 + 1e-6)  # an exact tie may be rounded either way
        if dtype == "float32":
            pass
        elif expected:  # its digits may have been cut off, or be those of a float32
            near |= gap <= np.maximum(2 * half_units, half_step(values, "float32"))
        elif not self.pasted:  # any few decimals are near some number of 16 bits
            near = np.zeros_like(near)
            if (own * _FINER < step).any():
                return None
        if dtype != self.dtype and not _are_shortest(held[~near], values[~near]):
            return None
        # A number whose shortest digits these are was that number, not the one that the digits say.
        meant = np.where(near, self.values, np.where(np.isfinite(self.values), held, self.values))
        half_units = np.where(near, np.maximum(half_units, gap), 0.0)
        own = np.maximum(half_units, np.minimum(step, own))
        return Reading(words, meant, half_units, step, own, dtype, is_known=expected)


@dataclass(frozen=True)
class Reading:
    """One way to read an answer: how far a right number may lie from the exact one because it was printed.

    ``values`` are the numbers meant, ``half_units`` of the last digit and the ``half_steps`` of the dtype
    that held them what these may be off; ``own`` is half a unit of the last digit that a number really
    shows. Arrays of the answer's shape.
    """

    words: str  # completes "to the ..."; empty where nothing was rounded for printing
    values: Floats
    half_units: Floats
    half_steps: Floats
    own: Floats
    dtype: str
    is_known: bool = True  # whether the dtype is that of the file or of the input, and not told from the digits

    @property
    def arithmetic(self) -> float:
        """Half a unit of the arithmetic that the answer comes from as a rule: float32 for numbers of 16 bits too."""
        return DTYPES["float64" if self.dtype == "float64" else "float32"].unit

    @property
    def coarsest(self) -> float:
        """The same for arithmetic in the dtype itself, as torch's BatchNorm of 16 bits has it on a processor."""
        return DTYPES[self.dtype].unit if self.is_known else self.arithmetic

    def allowed(self, computed: Floats) -> Floats:
        """What is allowed where arithmetic is off by ``computed``."""
        return self.half_units + self.half_steps + computed

    def sharp(self, computed: Floats) -> Floats:
        """The same, but no more than three units of the last digit that each number shows."""
        return np.minimum(self.allowed(computed), _SHARP * self.own)

    @property
    def least(self) -> float:
        """The most that ``sharp`` and ``outward`` allow beyond what printing does."""
        return _SHARP * float(self.own.max(initial=0.0))

    def outward(self, computed: Floats) -> Floats:
        """How far a number whose digits were cut off may lie further from 0 than the exact one."""
        return self.half_steps + np.minimum(computed, _SHARP * self.own)


def read_printed(
    given: str, *, what: str = "the tensor", key: str | None = None, stdin: BinaryIO | None = None
) -> tuple[Printed, tuple[str, ...]]:
    """As ``read_tensor``, but with how every number is written, and what was lost on the way, in words.

    An exponent counts: 1.5e-3 has 4 decimals, 1.5e3 has -2. A number written without a decimal is
    meant exactly, as are the numbers of binary files: they have ``EXACT`` decimals.

    >>> read_printed("[[1, -0.50], [1.5e-3, 0.]]")[0].decimals.tolist()
    [[1000, 2], [4, 1000]]
    """
    tensor = read_tensor(given, what=what, key=key, stdin=stdin, keep=True)
    numbers = tensor.written
    if numbers is None:
        return Printed.exactly(tensor.array, tensor.array.dtype.name), tensor.warnings
    values = to_float64(numbers, what)[0]  # a dtype that the text names has been rounded to before it was printed
    return Printed(values, numbers.decimals(), numbers.dtype, numbers.pasted), tensor.warnings


def half_step(values: Floats, dtype: str) -> Floats:
    """Half the distance from each number to the next one of a dtype.

    >>> half_step(np.array([1.0, 3.0]), "float16").tolist()
    [0.00048828125, 0.0009765625]
    """
    steps: Floats = np.ldexp(DTYPES[dtype].unit, np.frexp(values)[1] - 1)
    return np.maximum(steps, _LEAST[dtype])


def _half(decimals: NDArray[np.int64]) -> Floats:
    return 0.5 * 10.0 ** -np.asarray(decimals, np.float64)


def _magnitude(values: Floats) -> NDArray[np.int64]:
    """The place of the first digit, counted from the decimal point: 0 for 1 to 9.99; 0 for 0."""
    size = np.abs(values)
    counted = (size > 0) & np.isfinite(size)
    return np.floor(np.log10(np.where(counted, size, 1.0)) + 1e-12).astype(np.int64)


def _are_shortest(held: NDArray[np.floating], values: Floats) -> bool:
    """Whether the values are the shortest digits that tell the numbers from their neighbours."""
    known = held if held.dtype.kind == "f" else held.astype(np.float32)  # bfloat16 prints as float32
    few = slice(None, 64)  # of most answers the first say that they are not, long before all are spelled out
    return all((known[part].astype("U32").astype(np.float64) == values[part]).all() for part in (few, slice(64, None)))
