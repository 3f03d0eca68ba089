"""What is to be said, whatever the format: one record, the tables in it, and how much of it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.showing.canvas import Canvas, Line
    from normcli.teaching.trace import Trace
    from normcli.teaching.verdict import Check
    from normcli.teaching.versus import Comparison

BLOCK = 2**14  # cells of a large table that are text at one time


class Rows:
    """Rows of a large table, written anew, block by block, each time they are gone through.

    ``write`` gives the rows from a start to a stop; ``width`` is the number of cells in one.

    >>> [*Rows(3, 2**14, lambda start, stop: [[str(i)] for i in range(start, stop)])]
    [['0'], ['1'], ['2']]
    """

    def __init__(self, count: int, width: int, write: Callable[[int, int], list[list[str]]]) -> None:
        self._count, self._step, self._write = count, max(1, BLOCK // width), write

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[str]]:
        for start in range(0, self._count, self._step):
            yield from self._write(start, min(start + self._step, self._count))


# Every run makes the classes below: a frozen dataclass takes it a millisecond, a named tuple a tenth of that.


class Section(NamedTuple):
    """One table: its part of the result, a title, column heads and rows of finished text.

    ``labels`` is the number of leading columns that name a row; ``text`` says that the cells are
    formulas, to be set flush left and folded at blanks where the terminal is narrow. ``marks`` says from
    which letter on a cell, by its row and column, is to be marked where there are colours.
    """

    part: str  # what --only calls it: statistics, running, output, trace
    title: str
    columns: list[str]
    rows: list[list[str]] | Rows
    labels: int = 1
    text: bool = False
    marks: Mapping[tuple[int, int], int] = MappingProxyType({})

    @property
    def is_matrix(self) -> bool:
        """Whether it is a tensor's slice over two axes."""
        return self.part in ("output", "grad_input")

    def is_words(self, column: int) -> bool:
        """Whether a column holds text, and is set flush left."""
        if self.part == "trace" and column == len(self.columns) - 1:
            return False
        return self.text or (column < self.labels and any(c.isalpha() for row in self.rows for c in row[column]))


class Report(NamedTuple):
    """All that is said about one input of a calculation, or about one file, figure or list.

    A result, its trace, check and comparisons are put into words and tables by the formats; what is
    no calculation comes with its ``words`` and ``sections``, and with its ``document`` for JSON.
    """

    result: Result | None = None
    x: Any = None  # where a script needs it
    stored: Mapping[str, str] = MappingProxyType({})  # the NPY files that x and other tensors are in, by name
    trace: Trace | None = None
    check: Check | None = None
    comparisons: tuple[Comparison, ...] = ()
    written: bool = False  # whether the output is in its file already
    number: int | None = None  # which it is, where there are several
    axes: int = 0  # of the largest rank among them
    file: str = ""  # that holds the answer
    headline: str = ""
    words: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    picture: Callable[[Canvas], list[Line]] | None = None
    document: Mapping[str, Any] | None = None

    @property
    def calculated(self) -> Result:
        """The result of what is a calculation."""
        assert self.result is not None
        return self.result


class Detail(NamedTuple):
    """How much of a report is shown: one part alone, so many decimals, large tensors in full, every checked cell."""

    only: str | None = None
    element: tuple[int, ...] | None = None
    precision: int = 4
    full: bool = False
    cells: bool = False

    def part(self, report: Report) -> str | None:
        """The one part of a result that is shown; None for all of them."""
        return self.only or ("trace" if self.element is not None or report.check is not None else None)
