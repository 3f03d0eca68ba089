"""One known slip: the words for it, and what it changes in a calculation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from normcli.formula.language import Lines
from normcli.planning.kinds import GRADIENTS
from normcli.teaching.other_axes import LAYOUTS
from normcli.teaching.work import Change, Work

GRADIENT = frozenset(GRADIENTS)
STATISTICS = frozenset({"mean", "var", "mean_square", "var_unbiased", "rstd"})
NORMALIZED = frozenset({"rstd", "normalized", "output"}) | GRADIENT
RUNNING = frozenset({"running_mean", "running_var"})
EVERYTHING = STATISTICS | NORMALIZED | RUNNING
SIZES = "a tensor whose axes all differ in length"


@dataclass(frozen=True, kw_only=True)
class Slip:
    """One known slip: the words for it, and how a calculation is changed by it.

    ``changes`` are its variants, a rule alone for one that is no more than that, or a function where they
    depend on the calculation; ``axes`` names layouts to take the statistics over. Two slips of one
    ``family`` change the same thing, so they make no pair; a family of None makes no pair at all.
    ``affects`` are the quantities that can show the slip.
    """

    key: str
    gives: str  # completes "Your numbers are what ... gives"
    slipped: str  # the formula
    instead: str  # completes "{title} ..."
    right: str  # the formula
    changes: str | Change | tuple[Change, ...] | Callable[[Work], Iterator[Change]] = ()
    axes: str | None = None
    family: str | None
    affects: frozenset[str] = NORMALIZED
    tells: str = "more decimals or other data"  # what would show it, where two slips give the same numbers
    rare: bool = False  # ranked after the common slips, and not tried in pairs
    itself: bool = False  # whether the numbers are what ``gives`` names, not what it gives
    conventional: bool = False  # whether another framework does it so
    late: bool = False  # whether arithmetic in few bits, if that explains the answer, is no slip
    crude: bool = False  # whether it leaves so few digits that two common slips may well explain more

    def apart(self, shape: tuple[int, ...]) -> str:
        """What would show the slip to be another one; nothing where a tensor of that shape shows it already."""
        return "" if self.tells == SIZES and len(set(shape)) == len(shape) and 1 not in shape else self.tells

    def works(self, work: Work) -> list[Work]:
        """The changed works; none where the slip does not apply."""
        found: list[Work] = []
        seen: set[Lines] = set()
        for change in self._changes(work):
            changed = work.changed(change)
            if changed is None or (change.is_of_lines and changed.behind in seen):
                continue  # where not all is asked for, two variants may be the same
            found.append(changed)
            if change.is_of_lines:
                seen.add(changed.behind)
        return found

    def _changes(self, work: Work) -> Iterator[Change]:
        if self.axes is not None:
            seen = {work.layout}
            for layout, note in LAYOUTS[self.axes](work.plan):
                if layout not in seen:
                    seen.add(layout)
                    yield Change(layout=layout, note=note)
        elif callable(self.changes):
            yield from self.changes(work)
        elif isinstance(self.changes, str):
            yield Change(self.changes)
        else:
            yield from (self.changes,) if isinstance(self.changes, Change) else self.changes
