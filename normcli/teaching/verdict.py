"""What a check finds: the cells, the explanations, the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from normcli.digits import aligned
from normcli.words import Told

Floats = NDArray[np.float64]
Index = tuple[int, ...]

_LEAST_DECIMALS = 4  # that an answer of many digits is shown with


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of an answer beside the exact one."""

    quantity: str
    index: Index
    yours: float
    exact: float

    @property
    def name(self) -> str:
        """Where the cell is: its quantity and its index."""
        return f"{self.quantity} ({', '.join(str(i) for i in self.index)})" if self.index else self.quantity


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One expected quantity: yours, the exact values, their difference and what is allowed, cell by cell.

    ``own`` is half a unit of each number's last digit, and ``digits`` says how the answer was read.
    """

    name: str
    yours: Floats
    exact: Floats
    difference: Floats
    allowed: Floats
    own: Floats
    wrong: NDArray[np.bool_]
    digits: str = ""

    def cell(self, place: Sequence[int]) -> Cell:
        """The cell of that index."""
        index = tuple(int(i) for i in place)
        return Cell(quantity=self.name, index=index, yours=float(self.yours[index]), exact=float(self.exact[index]))

    def shown(self, cell: Cell, value: float, *, more: int = 0) -> str:
        """A number of a cell with the decimals that the answer has there, and some more."""
        own, apart = float(self.own[cell.index]), float(self.difference[cell.index])
        decimals = min(_digits(2 * own), max(_LEAST_DECIMALS, _digits(apart) + 1))
        text = aligned([value], decimals + more)[0]
        return f"{value:.{_LEAST_DECIMALS + more}g}" if "e" in text else text


def _digits(size: float) -> int:
    """How many decimals show a number of that size."""
    return min(17, max(0, math.ceil(-math.log10(size) - 0.01))) if 0 < size < math.inf else 0


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """An explanation that reproduces all the given numbers: the keys of its slips and words for people."""

    keys: tuple[str, ...]
    text: str
    max_error: float  # what the explanation still leaves
    right_formula: str
    slipped_formula: str
    first_cell: Cell | None  # the first in which the answer and the exact numbers part


@dataclass(frozen=True, kw_only=True, repr=False)
class Check(Told):
    """The verdict on an answer; ``nearest`` is the closest explanation where none reproduces the numbers.

    An answer that is right only if something holds has its name in ``assumes`` (rounded_input,
    truncated_answer, float32_arithmetic and the like) and the words for it in ``assumption``.
    """

    quantities: tuple[Compared, ...]
    assumes: str | None = None
    assumption: str = ""
    diagnoses: tuple[Diagnosis, ...] = ()
    apart: str = ""  # what would tell several diagnoses apart
    nearest: Diagnosis | None = None
    turned: str = ""  # that the answer's axes are in another order, which leaves no cell to compare
    where: str = ""  # the part of the tensor in which the wrong cells lie, and what they have in common
    note: str = ""  # what was not tried, or what a right answer does not show
    within: Mapping[str, float] = field(default_factory=dict)  # atol and rtol, where somebody gave them

    def __repr__(self) -> str:
        keys = "".join(f" [{', '.join(key)}]" for key in self.keys)
        return f"<Check: {'ok' if self.ok else f'{self.mismatches} of {self.cells} wrong'}{keys}>"

    @property
    def ok(self) -> bool:
        """Whether every number is right, as far as its digits go."""
        return self.mismatches == 0 and not self.turned

    @property
    def mismatches(self) -> int:
        """How many cells differ by more than is allowed."""
        return sum(int(quantity.wrong.sum()) for quantity in self.quantities)

    @property
    def cells(self) -> int:
        """How many numbers were given."""
        return sum(quantity.yours.size for quantity in self.quantities)

    @property
    def tolerance(self) -> float:
        """The largest difference that is allowed in any cell."""
        return max(float(quantity.allowed.max()) for quantity in self.quantities)

    @property
    def max_error(self) -> float:
        """The largest difference; infinite where one of the two is not a number."""
        return max(float(quantity.difference.max()) for quantity in self.quantities)

    @property
    def keys(self) -> list[tuple[str, ...]]:
        """The keys of the diagnoses, the simplest first."""
        return [diagnosis.keys for diagnosis in self.diagnoses]


def first_wrong(found: Check) -> Cell:
    """The first cell, in the order of the answer, that is wrong."""
    quantity = next(quantity for quantity in found.quantities if quantity.wrong.any())
    return quantity.cell(np.argwhere(quantity.wrong)[0])
