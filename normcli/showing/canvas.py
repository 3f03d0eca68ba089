"""What pictures are made of: a canvas, its colours, lines of spans, and the edges of what is too large to draw."""

from __future__ import annotations

from typing import NamedTuple

# Paper and ink: the colours of M. Okabe and K. Ito, which the colour-blind can tell apart as well. A letter's
# contrast to its paper is at least 4.5 to 1, as WCAG 2 (1.4.3) asks of text.
PALETTE = (
    ("#56b4e9", "#000000"),
    ("#e69f00", "#000000"),
    ("#009e73", "#000000"),
    ("#f0e442", "#000000"),
    ("#cc79a7", "#000000"),
    ("#0072b2", "#ffffff"),
    ("#d55e00", "#000000"),
    ("#bbbbbb", "#000000"),
)

Index = int | None  # a place along an axis, or None for what is left out between its edges
Span = tuple[str, str | None]  # text, and the style that it is set in
Line = list[Span]


class Canvas(NamedTuple):
    """What a picture is printed on: how many columns, and whether there are colours and more than ASCII."""

    width: int
    colour: bool
    utf8: bool


class Edges(NamedTuple):
    """How much of an axis is drawn: all of it up to ``most`` places, else its two ends."""

    most: int
    head: int
    tail: int

    def of(self, size: int) -> list[Index]:
        """The places drawn, None where some are left out.

        >>> Edges(most=4, head=2, tail=1).of(20)
        [0, 1, None, 19]
        """
        if size <= self.most:
            return [*range(size)]
        return [*range(self.head), None, *range(size - self.tail, size)]
