"""How an answer is worked: a calculation, and what a slip changes in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.numbers import FLOATS, Float
from normcli.arithmetic.result import State
from normcli.floats import rounded
from normcli.formula.language import Lines, names_in, parsed
from normcli.planning.kinds import GRADIENTS, RANK
from normcli.planning.layout import Layout
from normcli.planning.plan import Plan
from normcli.teaching.printed import Printed
from normcli.teaching.program import ANY_AXES, Program, program_of
from normcli.teaching.sheet import Array, Sheet, by_channel

STARTS = {"running_mean": 0.0, "running_var": 1.0}
_KNOWN = frozenset({"x", "n", "N", "eps", "m", "weight", "bias", "grad_output", "batch_size"})


@dataclass(frozen=True)
class Change:
    """What a slip changes, as data."""

    rules: str = ""  # of ``normcli.formula.rewrite``; the backward pass follows
    backward: str = ""  # rules for the lines of the backward pass alone
    options: Mapping[str, Any] = field(default_factory=dict)  # of the plan
    given: Mapping[str, str] = field(default_factory=dict)  # the input and the parameters, from those given
    report: Mapping[str, str] = field(default_factory=dict)  # for a quantity another, or a rule for its line
    layout: Layout | None = None  # whose groups share one mean
    numbers: str = ""  # the dtype in which the changed lines read x
    dtypes: Mapping[str, str] = field(default_factory=dict)  # to which given and reported numbers are rounded
    decimals: int | None = None  # to which each step but the last is rounded
    updates: int | None = None  # of the running statistics, where a batch updates them
    updated_first: bool = False  # whether the updated running statistics normalize this very batch
    note: str = ""  # the number that a slip's sentence names

    @property
    def is_of_lines(self) -> bool:
        """Whether it changes nothing but lines."""
        more = (self.options, self.given, self.layout, self.numbers, self.dtypes, self.updates, self.updated_first)
        return not any(more) and self.decimals is None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A calculation as somebody may have done it: the right one, but for what was changed."""

    sheet: Sheet
    plan: Plan
    state: State
    layout: Layout  # whose groups share one mean; the plan's own unless the axes are slipped
    made: Change = Change()  # all that was changed, but for what the fields above have already
    answers: Mapping[str, Printed] = field(default_factory=dict)  # from which a slip may solve for a number
    grad_output: Array | None = None

    @property
    def goes_back(self) -> bool:
        """Whether the backward pass is asked for."""
        return self.grad_output is not None and not self.answers.keys().isdisjoint(GRADIENTS)

    @property
    def from_batch(self) -> bool:
        """Whether the batch's own statistics normalize it."""
        return self.plan.source == "batch" and not self.made.updated_first

    @cached_property
    def program(self) -> Program | None:
        """All lines, in the order in which they are worked out; None where a change does not fit them."""
        own, made = self.plan, self.made
        there = own if self.layout is own.layout else replace(own, layout=self.layout)
        running = (there if self.has_channels else own).running_lines
        again = replace(own, mode="eval").lines if made.updated_first else ()
        given = frozenset(name for name in ("weight", "bias") if self.goes_back or not self._is_neutral(name))
        backward = made.backward if self.goes_back else None
        report, updates = tuple(made.report.items()), 1 if made.updates is None else made.updates
        counted = {"k"} if own.momentum is None or self.state.num_batches_tracked else frozenset()
        known = _KNOWN | counted | frozenset(STARTS if own.track_running_stats else ())
        known |= {"ranks", *RANK} if own.merges else set()
        roles = own.layout.roles if own.renorm else ANY_AXES
        return program_of(
            there.lines,
            running,
            again,
            given,
            own.momentum is None,
            known,
            updates,
            made.rules,
            backward,
            report,
            roles,
        )

    @property
    def has_channels(self) -> bool:
        """Whether the groups of the layout are those of the plan's channels, whole or in parts."""
        own, layout = self.plan.layout, self.layout
        return layout is own or (layout.channel_axis, len(layout.channels)) == (own.channel_axis, len(own.channels))

    def changed(self, change: Change) -> Work | None:
        """The work after a change; None where the change does not apply, or changes nothing."""
        settled, state = self.plan, self.state
        layout = self.sheet.one(change.layout) if change.layout else self.layout
        if change.options:
            if not change.options.keys() <= set(settled.kind.options):
                return None
            settled = replace(settled, **change.options)
            state = _started(settled, state)
            alone = replace(self, plan=settled, state=state)
            if alone._numbers == self._numbers and not change.updated_first:
                return None
        if change.backward and not self.goes_back:
            return None
        if (change.updated_first or change.updates is not None) and not settled.updates_running:
            return None
        if change.layout is not None and (settled.source == "running" or settled.renorm):
            return None
        ddof = max(settled.ddof, settled.running_ddof if change.options and settled.updates_running else 0)
        if settled.source == "batch" and layout.count <= ddof and (change.options or change.layout):
            return None
        made = replace(
            change,
            rules="; ".join(filter(None, (self.made.rules, change.rules))),
            backward="; ".join(filter(None, (self.made.backward, change.backward))),
            report={**self.made.report, **change.report},
            updates=self.made.updates if change.updates is None else change.updates,
            updated_first=self.made.updated_first or change.updated_first,
        )
        layout = settled.layout if change.updated_first else layout
        work = replace(self, plan=settled, state=state, layout=layout, made=made)
        given = work._from(change.given)
        if given is None:
            return None
        work = work._with(given | {n: round_to(work._given(n), t) for n, t in change.dtypes.items() if work._has(n)})
        return None if work.program is None or not work._shows(change, self) else work

    def _shows(self, change: Change, before: Work) -> bool:
        """Whether the quantities that are asked for can be others after a change."""
        if self.behind != before.behind:
            return True
        if change.is_of_lines:
            return False
        given = change.given.keys()
        return not given or any(not given.isdisjoint(names_in(line.value)) for line in self.behind)

    @cached_property
    def behind(self) -> Lines:
        """The lines of the quantities that are asked for; all lines where none is."""
        assert self.program is not None
        return self.program.behind(frozenset(self.answers)) if self.answers else self.program.lines

    @property
    def _numbers(self) -> tuple[Any, ...]:
        return (None if self.program is None else self.behind), self.plan.eps, self._momentum

    @property
    def _momentum(self) -> float | None:
        is_asked = not self.answers or not self.answers.keys().isdisjoint(STARTS)
        return self.plan.momentum if self.plan.updates_running and is_asked else None

    def _is_neutral(self, name: str) -> bool:
        values, number = getattr(self.state, name), self.plan.neutral[name]
        if values is None:
            return True
        return self.sheet.once((id(values), name), lambda: (values, bool((values == number).all())))[1]

    def _given(self, name: str) -> Any:
        return self.sheet.x if name == "x" else getattr(self.state, name, None)

    def _has(self, name: str) -> bool:
        return self._given(name) is not None

    def _with(self, given: Mapping[str, Array]) -> Work:
        if not given:
            return self
        state = replace(self.state, **{name: values for name, values in given.items() if name != "x"})  # type: ignore[arg-type]
        return replace(self, state=state, sheet=Sheet(given["x"]) if "x" in given else self.sheet)

    def _from(self, changes: Mapping[str, str]) -> dict[str, Array] | None:
        """What is given after a change of it; None where nothing was given of what that takes, or has no use here."""
        trees = {name: parsed(text) for name, text in changes.items()}
        taken = {name for tree in trees.values() for name in names_in(tree)} - {"x"}
        usable = all(name in self.plan.kind.options and (name not in STARTS or self.plan.updates_running)
                     for name in trees if name != "x")  # fmt: skip
        if not usable or (taken and not any(map(self._has, taken))):
            return None
        found = {}
        for target, tree in trees.items():
            value = worked_out(tree, FLOATS, partial(self._for, target))
            found[target] = np.broadcast_to(value.hi, self.plan.shape if target == "x" else self.plan.weight_shape)
        return found

    def _for(self, target: str, node: Any) -> Float:
        """A given value in the shape of another."""
        known, settled = self._given(node.name), self.plan
        if known is None:
            known = np.full(settled.weight_shape, ({**settled.neutral, **STARTS})[node.name])
        known = np.asarray(known, np.float64)
        return Float(by_channel(known, settled.layout, settled.shape) if target == "x" != node.name else known)


def right(
    sheet: Sheet, settled: Plan, state: State, answers: Mapping[str, Printed] | None = None,
    grad_output: Array | None = None,
) -> Work:  # fmt: skip
    """The work without a slip, for answers that it is held against.

    >>> from normcli.planning.plan import plan
    >>> x = np.array([[1.0, 3.0]])
    >>> work = right(Sheet(x), plan("layer", x.shape, "float64", {"eps": 0}), State())
    >>> from normcli.teaching.figures import Figures
    >>> Figures(work)["output"].tolist()
    [[-1.0, 1.0]]
    """
    return Work(
        sheet=sheet, plan=settled, state=state, layout=settled.layout, answers=answers or {}, grad_output=grad_output
    )


def _started(settled: Plan, state: State) -> State:
    """The state with running statistics, where the plan has them."""
    missing = [name for name in STARTS if settled.track_running_stats and getattr(state, name) is None]
    return replace(state, **{n: np.full(settled.weight_shape, STARTS[n]) for n in missing}) if missing else state  # type: ignore[arg-type]


def round_to(values: NDArray[np.floating], dtype: str) -> Array:
    """Numbers as that dtype holds them."""
    with np.errstate(over="ignore"):
        return np.asarray(rounded(np.asarray(values, np.float64), dtype), np.float64)
