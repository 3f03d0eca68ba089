"""The numbers of one group of a formula over any axes, and which of its elements are traced."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import Group
from normcli.arithmetic.free import given, value_of, worked
from normcli.arithmetic.numbers import PAIRS
from normcli.arithmetic.result import Result
from normcli.formula.language import WINDOW, Call
from normcli.planning.free import FreePlan
from normcli.planning.layout import number_of
from normcli.teaching.filled import EXACT
from normcli.teaching.traced import Over, Traced

_LARGEST = 2**16  # elements of a tensor whose numbers are worked out beyond float64's digits


class FreeTraced(Traced):
    """The same for lines over any axes: a name may vary over any dimensions."""

    def __init__(self, result: Result, x: NDArray[Any], element: tuple[int, ...] | None) -> None:
        assert isinstance(result.plan, FreePlan)
        self.result, self.plan, self._free = result, result.plan, result.plan
        shape, axes = self.plan.shape, self.plan.layout.axes
        self.n = self.plan.layout.count
        at = (0,) * len(shape) if element is None else element
        self._region = tuple(slice(None) if axis in axes else int(i) for axis, i in enumerate(at))
        lines = self.plan.gradient_lines if result.grad_output is not None else ()
        self.backward = lines if {line.name for line in lines} <= result.named.keys() else ()
        picked = number_of((int(at[axis]) for axis in axes), [shape[axis] for axis in axes])
        self.one = element is not None
        self.traced = range(picked, picked + 1) if self.one else range(self.n)
        kept = [f"axis {axis} at {i}" for axis, i in enumerate(at) if axis not in axes]
        self.title = f"element ({', '.join(map(str, at))})" if self.one else ", ".join(kept) or "the whole tensor"
        self._given = given(self.plan, x, result.before)
        if self.backward:
            self._given["grad_output"] = np.asarray(result.grad_output)
        self._members: dict[tuple[str, Over | None], NDArray[np.float64]] = {}

    @property
    def constants(self) -> dict[str, float]:
        """The numbers of the lines."""
        return {name: value for name, value in self._free.constants.items() if name != "n"}

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the gradients of what came with the input."""
        return [self.plan.gradient_name(one.name) for one in self._free.tensors] if self.backward else []

    def is_each(self, name: str) -> bool:
        """Whether a name has a number for each element of the group."""
        span = self._free.spans.get(name, frozenset())
        return name in self._given or bool(span & set(self.plan.layout.axes)) or name == "output"

    def members(self, name: str, over: Over | None = None) -> NDArray[np.float64]:
        """The group's numbers of a name, in order; ``over`` other axes those that meet one of its members."""
        if (name, over) not in self._members:
            region = self._region if over is None else self._through(*over)
            self._members[name, over] = np.broadcast_to(self._whole(name), self.plan.shape)[region].ravel()
        return self._members[name, over]

    def _whole(self, name: str) -> NDArray[np.float64]:
        """A name's numbers with all the input's dimensions."""
        if name in self._given:
            return np.asarray(self._given[name], np.float64)
        rank = len(self.plan.shape)
        values = np.asarray(self.result.output if name == "output" else self.result.named[name], np.float64)
        for one in self._free.tensors:
            if name == self.plan.gradient_name(one.name):
                return values.reshape(one.view(rank))
        span = self._free.spans[name]
        whole = values.shape == self.plan.shape
        return values if whole else values.reshape([self.plan.shape[a] if a in span else 1 for a in range(rank)])

    def _through(self, axes: str, member: int) -> tuple[slice | int, ...]:
        taken = self._free.dimensions(axes)
        return tuple(slice(None) if axis in taken else i for axis, i in enumerate(self._at(member)))

    def _at(self, member: int) -> list[int]:
        """The index of a member of the group."""
        sizes = [self.plan.shape[axis] for axis in self.plan.layout.axes]
        inside = iter(map(int, np.unravel_index(member, sizes or (1,))))
        return [next(inside) if isinstance(part, slice) else part for part in self._region]

    def near(self, node: Call, place: int) -> range:
        """The places along its axis that a window at a member takes."""
        [axis] = self._free.dimensions(node.axes)
        at, size = self._at(place)[axis], self.plan.shape[axis]
        before, after = (int(self._free.constants[name]) for name in ("before", "after"))
        if node.function != WINDOW:
            before, after = after, before
        return range(max(0, at - before), min(size, at + after + 1))

    @property
    def of_channels(self) -> list[int]:
        """The members that are traced."""
        return [self.traced.start] if self.one else [*range(self.n)]

    def statistic(self, name: str) -> float:
        """A number of the group as a whole."""
        return float(self.members(name)[0])

    @cached_property
    def _pairs(self) -> Group | None:
        values = [np.asarray(array) for array in self._given.values()]
        if self.plan.layout.count * len(self.plan.shape) > _LARGEST or not all(np.isfinite(v).all() for v in values):
            return None
        with np.errstate(all="ignore"):
            return worked(self._free, PAIRS, self._given, back=bool(self.backward))

    def exact(self, name: str, place: int | None = None) -> Decimal | None:
        """The value of a name beyond float64's digits, where there is one."""
        if self._pairs is None:
            return None
        with np.errstate(all="ignore"):
            value = value_of(self._pairs, name)
        at = tuple(self._at(place or 0))
        parts = [
            np.broadcast_to(part, self.plan.shape)[at] for part in (value.hi, np.broadcast_to(value.lo, value.hi.shape))
        ]
        if not np.isfinite(parts).all():
            return None
        with localcontext(EXACT):
            return Decimal(float(parts[0])) + Decimal(float(parts[1]))
