"""Lines with numbers in them: how each is written, and with how many digits a line comes out as it is printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import cached_property
from typing import Any

import numpy as np

from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.numbers import PAIRS
from normcli.arithmetic.pair import Pair
from normcli.digits import computed, decimal, significant, written
from normcli.floats import rounded
from normcli.formula.language import Call, Number
from normcli.formula.spelled import ABOUT, GAP, LIST, PARENTHESES, TERMS, Text, mapped

EXACT = Context(prec=1500)  # holds any sum of float64 numbers and of their squares to the last digit
_SERIES = Context(prec=60)  # for exp, log and powers
_FLOAT_DIGITS = 17  # that say which float64 number it is
_SURE_DIGITS = 15  # of a float64 number that is the rounding of another
_FLOAT_UNIT = Decimal("1e-15")  # of a float64 number: a few of its units in the last place
_SAME = Decimal("1e-14")  # within which the exact statistic is that of a float64 one
_LEAST = Decimal("1e-307")  # below, float64 has fewer digits, or none: the square of a small number is 0


class Decimals:
    """Decimal numbers, one or in an array."""

    def number(self, value: float) -> Decimal:
        """One number."""
        return Decimal(value)

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        """The sum over axes."""
        with localcontext(EXACT):
            return np.add.reduce(value, axis=axes)

    def sqrt(self, value: Decimal) -> Decimal:
        """The square root."""
        return value.sqrt()

    def sign(self, value: Any) -> Any:
        """-1, 0 or 1."""
        return (value > 0) * Decimal(1) - (value < 0) * Decimal(1)

    def rounded(self, value: Any, dtype: str) -> Any:
        """The value as that dtype holds it, rounded once; from an array each of its numbers."""
        if isinstance(value, np.ndarray):
            return np.array([self.rounded(one, dtype) for one in value], object)
        near = float(value)
        rest = float(value - Decimal(near)) if math.isfinite(near) else 0.0
        return Decimal(float(PAIRS.rounded(Pair(np.array([near]), np.array([rest])), dtype).hi[0]))

    def exp(self, value: Decimal) -> Decimal:
        """e to that power."""
        return value.exp(_SERIES)

    def log(self, value: Decimal) -> Decimal:
        """The natural logarithm."""
        return value.ln(_SERIES)

    def to_the(self, base: Decimal, power: Decimal) -> Decimal:
        """A power."""
        return _SERIES.power(base, power)

    def larger(self, one: Decimal, other: Decimal) -> Decimal:
        """The larger of two."""
        return max(one, other)

    def smaller(self, one: Decimal, other: Decimal) -> Decimal:
        """The smaller of two."""
        return min(one, other)

    def greater(self, one: Decimal, other: Decimal) -> Decimal:
        """1 where the one is greater, 0 elsewhere."""
        return Decimal(int(one > other))

    def equal(self, one: Decimal, other: Decimal) -> Decimal:
        """1 where both are the same, 0 elsewhere."""
        return Decimal(int(one == other))

    def stop(self, value: Decimal) -> Decimal:
        """The number itself."""
        return value

    def settled(self, total: Any, size: Any) -> Any:
        """The sum itself: hardly anything is rounded."""
        return total


@dataclass(frozen=True)
class Figure:
    """A number of a line: how it is written at first, and, if it was computed, where more than float64's digits are."""

    value: float
    text: str
    exact: Callable[[], Decimal | None] | None = None

    def written(self, digits: int) -> str:
        """The number with so many significant digits; as at first where that has as many, and for 0."""
        if not digits or not math.isfinite(self.value):
            return self.text
        if digits <= _FLOAT_DIGITS and self.is_read_back(self.text):
            return self.text
        if self.exact is None and digits <= _FLOAT_DIGITS:
            return written(self.value)
        if len(Decimal(self.text).as_tuple().digits) >= digits:
            return self.text
        return significant(self._known(digits), digits)

    def marked(self, digits: int) -> str:
        """The same, with a mark if these are more digits than at first, and still not all."""
        text = self.written(digits)
        whole = text == self.text or (self.is_read_back(text) and Decimal(text) == self._known(digits, text))
        return text if whole else f"~{text}"

    def is_read_back(self, text: str) -> bool:
        """Whether the text says which number it is, as near as float64 can tell."""
        return math.isclose(float(text), self.value, rel_tol=float(_FLOAT_UNIT))

    def _known(self, digits: int, otherwise: str | None = None) -> Decimal:
        """The number as exactly as so many digits need it."""
        if digits <= _FLOAT_DIGITS and otherwise is not None:
            return Decimal(otherwise)
        value = Decimal(self.value)
        wanted = digits > _SURE_DIGITS or abs(self.value) < _LEAST
        more = self.exact() if self.exact is not None and wanted else None
        return more if more is not None and abs(more - value) <= max(abs(value), _LEAST) * _SAME else value


@dataclass(frozen=True)
class Expression:
    """A line's expression with numbers at its leaves, and its value as printed."""

    tree: Any
    value: str

    @cached_property
    def numbers(self) -> list[Figure]:
        """The numbers, in order."""
        return [*_leaves(self.tree)]

    @cached_property
    def whole(self) -> bool:
        """Whether no terms are left out."""
        return all(number is not LEFT_OUT for number in self.numbers)

    def text(self, digits: int, dtype: str | None = None) -> Any:
        """The tree with the numbers written."""
        tree = mapped(self.tree, lambda leaf: leaf if isinstance(leaf, Number) else _text(leaf, digits))
        return Call(dtype, (tree,)) if dtype else tree

    def marked(self) -> Any:
        """The tree, marked as a whole."""
        return Call(ABOUT, (Call(PARENTHESES, (self.text(0),)),))

    def holds(self, digits: int, dtype: str | None = None) -> bool:
        """Whether the numbers as written give the value as printed; of what is not finite nothing is asked.

        Halfway between two values either is right, as near as float64 can tell, unless numbers came to lie
        there by being rounded; those of a dtype lie where they are.
        """
        if not self.whole:
            return True
        texts = [number.written(digits) for number in self.numbers]
        if not all(math.isfinite(float(text)) for text in [*texts, self.value]):
            return True
        try:
            found = worked_out(self.tree, Decimals(), lambda number: Decimal(number.written(digits)))  # type: ignore[union-attr]
        except ArithmeticError:  # what it is divided by was rounded to 0
            return False
        if dtype:
            found = Decimal(float(rounded(np.array(float(found)), dtype)))
        value = Decimal(self.value)
        if not found.is_finite():
            return False
        off, unit = abs(found - value) * 2, Decimal(1).scaleb(int(value.as_tuple().exponent))
        as_meant = dtype is not None or all(
            number.is_read_back(text) for number, text in zip(self.numbers, texts, strict=True)
        )
        return bool(off < unit or (as_meant and off <= unit + abs(value) * _FLOAT_UNIT))


LEFT_OUT = Figure(0.0, "...")


def _text(number: Figure, digits: int) -> Any:
    return GAP if number is LEFT_OUT else Text(number.marked(digits))


def _leaves(tree: Any) -> Iterator[Figure]:
    if isinstance(tree, Call):
        for part in tree.parts:
            yield from _leaves(part)
    elif isinstance(tree, Figure):
        yield tree


def listed(trees: list[Any], size: int) -> Any:
    """So many values between commas, those in the middle left out where the trees are fewer; one stands alone."""
    return trees[0] if size == 1 else Call(LIST, tuple(gapped(trees, GAP, size)))


def summed(trees: list[Any], size: int) -> Call:
    """The sum of so many terms, those in the middle left out where the trees are fewer."""
    return Call(TERMS, tuple(gapped(trees, LEFT_OUT, size)))


def gapped(trees: list[Any], gap: Any, size: int) -> list[Any]:
    """The trees, with a gap in the middle where they are fewer than there should be."""
    return trees if len(trees) == size else [*trees[:3], gap, *trees[3:]]


def as_printed(value: float, notation: str) -> str:
    """A value of a list as it is printed; a whole number with the decimals that it might have had."""
    text = computed(value, notation)
    return decimal(value, notation) if text.lstrip("-").isdigit() and notation.endswith("f") else text
