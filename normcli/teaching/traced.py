"""The numbers of one group of statistics, and which of its elements are traced."""

from __future__ import annotations

import math
from copy import copy
from decimal import Context, Decimal, localcontext
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import Group
from normcli.arithmetic.result import Result
from normcli.errors import InputError
from normcli.formula.extents import AXES, across, elementwise
from normcli.formula.language import Call
from normcli.planning.layout import number_of, place_of
from normcli.planning.plan import Plan
from normcli.teaching.filled import Decimals
from normcli.words import count

_LARGEST = 2**16  # elements of a group whose statistics are worked out beyond float64's digits
Over = tuple[str, int]  # the axes that a sum takes, and the member of the group through which it goes
BEYOND = Context(prec=400)  # for a thousand of them, each divided by n or multiplied


class Traced:
    """The numbers of one group of statistics, and which of its elements are traced."""

    def __init__(self, result: Result, x: NDArray[Any], element: tuple[int, ...] | None) -> None:
        self.result, self.plan, layout = result, result.plan, result.plan.layout
        self.n = layout.count
        flat = 0 if element is None else number_of(element, self.plan.shape)
        at = np.unravel_index(flat, layout.view)
        averaged = [axis in layout.axes for axis in range(len(layout.view))]
        self._region = tuple(slice(None) if inside else int(i) for i, inside in zip(at, averaged, strict=True))
        self.backward = (
            self.plan.gradient_lines if {line.name for line in self.plan.gradient_lines} <= result.named.keys() else ()
        )
        base = [0 if inside else int(i) for i, inside in zip(at, averaged, strict=True)]
        place = np.unravel_index(number_of(base, layout.stats_view), layout.stats_shape or (1,))
        self._place = tuple(map(int, place))
        self.one = element is not None
        self.traced = range(self.n) if element is None else self._member(element)
        self.title = self._name() if element is None else f"element {_index(element)}"
        self._given = {"x": x} | {
            name: np.full(self.plan.weight_shape, default) if value is None else value
            for name, default in self.plan.neutral.items()
            for value in (getattr(result.before, name),)
        }
        if self.backward:
            self._given["grad_output"] = result.grad_output
        self._each = elementwise(self.plan.lines + self.backward)
        self._members: dict[tuple[str, Over | None], NDArray[np.float64]] = {}

    @property
    def constants(self) -> dict[str, float]:
        """The numbers of the lines that are typed shortly."""
        return {"eps": self.plan.eps}

    def near(self, node: Call, place: int) -> range:
        """The members that a window at one of them takes: the family has none."""
        raise NotImplementedError(node.function)

    def at(self, element: tuple[int, ...]) -> Traced:
        """The same group, of which another element is traced."""
        other = copy(self)
        other.traced, other.title = self._member(element), f"element {_index(element)}"
        return other

    def _member(self, element: tuple[int, ...]) -> range:
        """The place of an element in its group."""
        layout = self.plan.layout
        place = place_of(number_of(element, self.plan.shape), layout.view)
        picked = number_of((place[axis] for axis in layout.axes), (layout.view[axis] for axis in layout.axes))
        return range(picked, picked + 1)

    @cached_property
    def parameters(self) -> list[str]:
        """The names of what there is one number of for each weight."""
        return [self.plan.gradient_name(name) for name in ("weight", "bias")] if self.backward else []

    def is_each(self, name: str) -> bool:
        """Whether a name has a number for each element."""
        return name in self._given or name in self._each

    @property
    def given_names(self) -> frozenset[str]:
        """The names of what was typed and has a number for each element."""
        return frozenset(self._given)

    def is_given(self, name: str) -> bool:
        """Whether a name of one number for each element was typed, not computed."""
        return name in self._given

    def members(self, name: str, over: Over | None = None) -> NDArray[np.float64]:
        """The group's numbers of a name, in order; ``over`` other axes those that meet one of its members."""
        if (name, over) not in self._members:
            values = self._given[name] if name in self._given else getattr(self.result, name)
            layout, array = self.plan.layout, np.asarray(values, np.float64)
            of_channels = name in ("weight", "bias", *self.parameters)
            shape = layout.channels_view if of_channels else layout.view if self.is_each(name) else layout.stats_view
            region = self._region if over is None else self._through(*over)
            self._members[name, over] = np.broadcast_to(array.reshape(shape), layout.view)[region].ravel()
        return self._members[name, over]

    def _through(self, axes: str, member: int) -> tuple[slice | int, ...]:
        """Where what a sum takes lies in the view."""
        layout = self.plan.layout
        inside = map(int, np.unravel_index(member, [layout.view[axis] for axis in layout.axes]))
        at = (next(inside) if isinstance(part, slice) else part for part in self._region)
        taken = (AXES[axes](role) for role in layout.dimensions)
        return tuple(slice(None) if whole else i for whole, i in zip(taken, at, strict=True))

    @property
    def of_channels(self) -> list[int]:
        """The members that are traced, but one alone for each weight."""
        if self.one:
            return [self.traced.start]
        layout = self.plan.layout
        sizes = [layout.view[axis] if axis in layout.channels else 1 for axis in layout.axes]
        whole = [layout.view[axis] for axis in layout.axes]
        return [number_of(map(int, np.unravel_index(i, sizes)), whole) for i in range(math.prod(sizes))]

    def statistic(self, name: str) -> float:
        """A number of the group as a whole."""
        values = np.asarray(getattr(self.result, name))
        return float(values[self._place] if values.ndim else values)

    def per_sample(self, name: str) -> list[float]:
        """A statistic of this group's channel, for each sample: one number, but for instance norm."""
        values = np.asarray(getattr(self.result, name))
        return [float(value) for value in values[..., self._place[-1]].ravel()]

    def of_ranks(self, name: str) -> list[float]:
        """What each rank has by itself for this group's channel."""
        values: list[float] = np.asarray(getattr(self.result, name))[:, self._place[-1]].tolist()
        return values

    def running(self, name: str) -> tuple[float, float]:
        """A running statistic of this group's channel, before and after."""
        old, new = (getattr(state, name)[self._place[-1]] for state in (self.result.before, self.result.after))
        return float(old), float(new)

    @cached_property
    def _exact(self) -> Group | None:
        """The lines over decimal numbers; None where the numbers are not finite, or the group is too long."""
        given = [self.running(name)[0] for name in ("running_mean", "running_var") if self._takes_running]
        each = {name: self.members(name) for name in (self._given if self.backward else ["x"])}
        if self.n > _LARGEST or not all(np.isfinite(values).all() for values in [np.array(given), *each.values()]):
            return None
        numbers = {"n": Decimal(self.n), "eps": Decimal(self.plan.eps)}
        numbers |= dict(zip(("running_mean", "running_var"), map(Decimal, given), strict=False))
        block = {name: np.array([Decimal(value) for value in values.tolist()], object) for name, values in each.items()}
        lines = self.plan.lines + self.backward
        inside = tuple(line for line in lines if line.name not in across(lines))
        return Group(inside, Decimals(), numbers, [lambda: block], {None: (0,)})

    @property
    def _takes_running(self) -> bool:
        return self.plan.source == "running" or self.plan.renorm

    def exact(self, name: str, place: int | None = None) -> Decimal | None:
        """The value of a name beyond float64's digits, where there is one."""
        if self._exact is None:
            return None
        try:
            with localcontext(BEYOND):
                [block] = self._exact.blocks()
                found = self._exact[name] if place is None else block[name][place]
        except (ArithmeticError, KeyError):  # a quotient by 0; a line that these numbers do not have
            return None
        return Decimal(found)

    def _name(self) -> str:
        words = self.plan.group_words
        if words:
            return ", ".join(f"{word} {i}" for word, i in zip(words, self._place, strict=True))
        return f"row {_index(self._place)}" if self.plan.layout.stats_shape else "the whole tensor"


def counted_from_start(element: tuple[int, ...], plan: Plan) -> tuple[int, ...]:
    """The element's index, negative ones counted from the end as Python does."""
    if len(element) != len(plan.shape):
        raise InputError(
            f"element {_index(element)} has {count(len(element), 'index', 'indices')}; "
            f"a tensor of shape {plan.shape} needs {len(plan.shape)}"
        )
    for index, size in zip(element, plan.shape, strict=True):
        if not -size <= index < size:
            raise InputError(f"element {_index(element)} is outside the tensor of shape {plan.shape}")
    return tuple(index % size for index, size in zip(element, plan.shape, strict=True))


def _index(index: tuple[int, ...]) -> str:
    return f"({', '.join(str(i) for i in index)})"
