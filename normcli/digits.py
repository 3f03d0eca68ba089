"""How numbers are written for people: decimals that line up, and never a digit cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal  # imported where there is one, for the sake of a fast start

_WIDEST = 1e9  # from here on fixed notation is harder to read than an exponent


def aligned(values: Iterable[float], precision: int) -> list[str]:
    """All values in one notation: ``precision`` decimals, or an exponent where those would hide them.

    >>> aligned([1, -0.5], 4), aligned([1e-7, 2e-7], 2), aligned([float("nan"), -1e-9, 1], 2)
    (['1.0000', '-0.5000'], ['1.00e-07', '2.00e-07'], ['nan', '0.00', '1.00'])
    """
    numbers = [float(value) for value in values]
    one = notation(numbers, precision)
    return [decimal(number, one) for number in numbers]


def notation(values: Iterable[float], precision: int) -> str:
    """The notation of numbers that stand side by side.

    >>> notation([1e-9, float("inf"), 2.5], 4)
    '.4f'
    """
    return common(max((abs(value) for value in values if math.isfinite(value)), default=0.0), precision)


def common(largest: float, precision: int) -> str:
    """The notation of numbers, the largest of which is that large: decimals, or an exponent.

    >>> common(2.5, 4), common(1e-7, 2)
    ('.4f', '.2e')
    """
    exponent = largest >= _WIDEST or 0 < largest < 10.0**-precision
    return f".{precision}{'e' if exponent else 'f'}"


def decimal(value: float, notation: str) -> str:
    """One number in the notation that ``common`` gives.

    >>> decimal(-1e-9, ".2f")
    '0.00'
    """
    return _unsigned_zero(format(value, notation))


def computed(value: float, notation: str) -> str:
    """One computed number within a formula: whole numbers bare, others in the notation that ``common`` gives.

    >>> computed(3.0, ".4f"), computed(4.66666, ".4f"), computed(1e-05, ".4e")
    ('3', '4.6667', '1.0000e-05')
    """
    if math.isfinite(value) and value == math.floor(value) and abs(value) < _WIDEST:
        return written(value)
    return decimal(value, notation)


def written(value: float) -> str:
    """A number as a person would type it: the shortest text that reads back to the same float.

    >>> written(6.0), written(-0.5), written(1e-05)
    ('6', '-0.5', '1e-05')
    """
    text = repr(float(value))
    return text.removesuffix(".0")


def significant(value: Decimal, digits: int) -> str:
    """A number rounded to so many significant digits, zeros at the end left out.

    >>> from decimal import Decimal
    >>> significant(Decimal("-0.000203333"), 4), significant(Decimal("1.5e-7"), 9), significant(Decimal("1e10"), 3)
    ('-0.0002033', '1.5e-07', '1e+10')
    """
    near = round(value, digits - 1 - value.adjusted()).normalize() if value else value
    if -5 <= near.adjusted() < 9:
        return f"{near:f}"
    sign, (first, *rest), _ = near.as_tuple()
    return f"{'-' * sign}{first}{'.' * bool(rest)}{''.join(map(str, rest))}e{near.adjusted():+03d}"


def short(value: float) -> str:
    """A parameter such as eps: as written, unless it has more digits than anybody types.

    >>> short(1e-05), short(2.0**-52)
    ('1e-05', '2.2204e-16')
    """
    text = written(value)
    return text if len(text) <= 8 else f"{value:.5g}"


def factor(text: str) -> str:
    """A number's text where a minus sign needs parentheses.

    >>> factor("-2"), factor("3")
    ('(-2)', '3')
    """
    return f"({text})" if text.removeprefix("~").startswith("-") else text


def _unsigned_zero(text: str) -> str:
    return text[1:] if text.startswith("-") and not any(digit in text for digit in "123456789if") else text
