"""The floating-point formats that tensors come in: one table, without NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


class Dtype:
    """A binary format: its significant bits, the hidden one counted, and the exponent of its least number.

    >>> DTYPES["float32"].unit == 2.0**-24, DTYPES["float16"].eps == 2.0**-23
    (True, True)
    """

    def __init__(self, bits: int, least: int) -> None:
        self.bits: Final = bits
        self.least: Final = least
        self.unit: Final = 2.0**-bits  # the most that rounding moves a number, as a part of it
        self.eps: Final = 2.0 ** (1 - max(bits, 24))  # of the format that frameworks compute in: float32 or float64


DTYPES: Mapping[str, Dtype] = {
    "float16": Dtype(11, -24),
    "bfloat16": Dtype(8, -133),
    "float32": Dtype(24, -149),
    "float64": Dtype(53, -1074),
}
FLOAT_DTYPES = tuple(DTYPES)
