"""What normcli gives to Python, in words, in a notebook and as pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.arithmetic.result import Named, Result, State
from normcli.calculate import run
from normcli.floats import as_float_array, is_torch
from normcli.planning.kinds import ALL, STATE_ARRAYS
from normcli.showing import axes as picture
from normcli.showing import beside, cube, html, latex, sections, table, versus
from normcli.showing.figure import Figure, figure_of
from normcli.showing.report import Detail, Report
from normcli.teaching.trace import Trace, trace
from normcli.teaching.verdict import Check
from normcli.teaching.versus import Comparison
from normcli.words import Told

if TYPE_CHECKING:
    from typing import Literal, Unpack

    from normcli.planning.options import KindName, Shaping


class _Paper(StringIO):
    """What is printed on to have it as text."""

    encoding = "utf-8"
    colours = False  # whatever the environment says


def told(thing: object) -> str:
    """A Result, a Check, a Comparison, a Trace or Axes as the command line prints it.

    >>> from normcli.teaching.python import check
    >>> print(told(check([[1, 3]], "layer", [[-1.0, 1.0]])))
    checks: all 2 cells agree, to the 1 decimal given
    """
    return "".join(table.shown(_report(thing), Detail(), _Paper())).strip("\n")


def mimebundle(thing: object) -> dict[str, Any]:
    """What a notebook shows: always text; of a Result its page, in a shadow root; of that and of a Trace the formulas.

    >>> from normcli.calculate import normalize
    >>> [*mimebundle(normalize([[1, 3]], "layer"))]
    ['text/plain', 'text/html', 'text/latex']
    """
    found = {"text/plain": repr(thing) if isinstance(thing, Result) else told(thing)}
    traced = thing if isinstance(thing, Trace) else None
    if isinstance(thing, Result):
        report = _calculated(thing)
        found["text/html"] = html.fragment(report)
        traced = report.trace
    if traced is not None:
        found["text/latex"] = latex.displayed(traced, Detail().precision)
    return found


def _report(thing: object) -> Report:
    """What is to be said of it."""
    if isinstance(thing, Result):
        return Report(result=_here(thing))
    if isinstance(thing, Check):
        return Report(check=thing)
    if isinstance(thing, Comparison):
        return Report(sections=tuple(versus.sections([thing])))
    if isinstance(thing, Trace):
        return Report(sections=(sections.traced(thing, Detail().precision, full=True),))
    assert isinstance(thing, Axes)
    return thing.report


def _calculated(result: Result) -> Report:
    """A result with its trace, where its input is still what it was.

    The Result has the input itself, which may have been written to since: only if it gives the same output again
    are the numbers on the way those of this result.
    """
    result = _here(result)
    if result.x is None:
        return Report(result=result)
    device = None if result.device == "cpu" else result.device
    again = run(
        result.x,
        result.plan,
        result.before,
        backend=result.backend,
        device=device,
        steps=True,
        grad_output=result.grad_output,
    )
    if not np.array_equal(np.asarray(again.output), result.output, equal_nan=True):
        return Report(result=result)
    return Report(result=again, x=result.x, trace=trace(again, result.x))


def _here(result: Result) -> Result:
    """The result with arrays in the place of torch's tensors."""
    if not is_torch(result.output):
        return result
    arrays = {name: _array(value) for name, value in result.named.items()}
    x = None if result.x is None else _array(result.x)
    before, after = (_state_here(state) for state in (result.before, result.after))
    return replace(result, named=Named(arrays), output=_array(result.output), x=x, before=before, after=after)


def _state_here(state: State) -> State:
    return replace(state, **{name: _array(getattr(state, name)) for name in STATE_ARRAYS})


def _array(value: Any) -> Any:
    return as_float_array(value) if is_torch(value) else value


@dataclass(frozen=True, repr=False)
class Axes(Told):
    """Which elements share one mean, for one kind or for all: a picture in text, and as a drawing where there is room.

    ``figures`` are what is drawn, ``document`` is the same for programs.
    """

    figures: tuple[Figure, ...]
    report: Report

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The object that --json prints, for each kind."""
        return [picture.document(figure) for figure in self.figures]

    def svg(self) -> str:
        """The block of cells that papers show."""
        return cube.svg(*(same[0] for same in beside.alike([*self.figures])))

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": str(self), "image/svg+xml": self.svg()}


def axes(kind: KindName | Literal["all"], shape: tuple[int, ...], **options: Unpack[Shaping]) -> Axes:
    """Which elements of a tensor of that shape share one mean; of ``all`` kinds side by side.

    Raises InputError (a ValueError) for what cannot be normalized so.

    >>> axes("group", (2, 4), groups=2)
    GroupNorm --groups 2 of (2, 4): equal letters share one mean
    <BLANKLINE>
          C 0  C 1  C 2  C 3
    N 0   A    A    B    B
    N 1   C    C    D    D
    <BLANKLINE>
    Each letter is one element.
    4 means, one for each sample and group of channels, over 2 elements each (2 of C).
    Weight and bias have shape (4,), along axis C.
    No other kind computes the same here.
    """
    shape = tuple(shape)
    if kind == ALL:
        drawn = beside.figures(shape, options)
        return Axes(tuple(drawn), beside.report(drawn))
    figure = figure_of(kind, shape, options)
    return Axes((figure,), picture.report(figure))
