"""Plans of formulas over any axes: kinds beyond the family, and one's own formula.

Such a plan knows its lines, the dimensions of each set of axes by name, the numbers, and which
dimensions each tensor that comes with the input varies over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from normcli import formula
from normcli.errors import InputError
from normcli.formula.apart import apart
from normcli.formula.extents import Extent, Space, extent, extents, numbered
from normcli.formula.language import (
    FUNCTIONS,
    REDUCTIONS,
    WINDOW,
    Call,
    Line,
    Lines,
    Name,
    Node,
    names_in,
    parsed,
    walked,
)
from normcli.formula.rewrite import fit
from normcli.planning.conventions import TORCH, Profile
from normcli.planning.kinds import Kind
from normcli.planning.layout import Layout, Shape
from normcli.planning.plan import Plan
from normcli.words import count, printable

OUTPUT = "output"


class Given(NamedTuple):
    """A tensor that comes with the input: its name and shape, and beside which of the input's axes its first one is."""

    name: str
    shape: Shape
    first: int
    dimensions: Shape  # of the input, that it varies over
    key: str = ""  # that it was given by, if not by its name

    def view(self, rank: int) -> Shape:
        """Its shape with length 1 in the dimensions that it lacks."""
        return (1,) * self.first + self.shape + (1,) * (rank - self.first - len(self.shape))


@dataclass(frozen=True, kw_only=True)
class FreePlan(Plan):
    """A plan whose lines may be anything: ``axes`` by name (None: the usual ones), numbers and tensors by name."""

    program: Lines
    named_axes: tuple[tuple[str | None, Shape], ...]
    numbers: tuple[tuple[str, float], ...] = ()
    given_tensors: tuple[Given, ...] = ()
    shown: tuple[tuple[str, Any], ...] = ()  # the options as they are told of

    is_free = True

    @property
    def tensors(self) -> tuple[Given, ...]:
        """What comes with the input."""
        return self.given_tensors

    @cached_property
    def lines(self) -> Lines:
        """The lines that are computed."""
        return self.program

    @cached_property
    def space(self) -> Space:
        """The dimensions, and what varies over them."""
        axes = tuple((name, frozenset(dimensions)) for name, dimensions in self.named_axes)
        given = tuple((one.name, frozenset(one.dimensions)) for one in self.tensors)
        return Space(len(self.shape), axes, given)

    @cached_property
    def gradient_lines(self) -> Lines:
        """The lines of the backward pass, derived from those that are computed."""
        found: Lines = formula.gradient.gradient(self.program, self.space, leaves=self.leaves)
        return found

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        """The names of the lines that have one value for each group of statistics, or fewer."""
        usual = self.space.over(None)
        varied = {line.name for line in self.program if usual & self.spans[line.name]}
        return tuple(line.name for line in self.program if line.name not in varied | {OUTPUT})

    @property
    def leaves(self) -> tuple[str, ...]:
        """What there is a gradient for."""
        return ("x", *(one.name for one in self.tensors))

    @cached_property
    def spans(self) -> Mapping[str, Extent]:
        """The dimensions that each name varies over, those of the backward pass among them."""
        try:
            backward = self.gradient_lines
        except InputError:
            backward = ()
        return extents(self.program + backward, self.space)

    def shape_of(self, name: str) -> Shape:
        """The shape of a name's values: the sizes of the dimensions that it varies over."""
        for one in self.tensors:
            if name in (one.name, self.gradient_name(one.name)):
                return one.shape
        return tuple(self.shape[axis] for axis in sorted(self.spans.get(name, frozenset())))

    def span(self, name: str) -> Shape:
        """The dimensions that a name varies over."""
        return tuple(sorted(self.spans.get(name, frozenset())))

    def parameter_shape(self, name: str) -> Shape:
        """The shape of a tensor that comes with the input."""
        return self.shape_of(name)

    def dimensions(self, axes: str | None) -> Shape:
        """The dimensions of a set of axes."""
        return tuple(sorted(self.space.over(axes)))

    @cached_property
    def constants(self) -> dict[str, float]:
        """The numbers of the lines: those given, and how many elements each set of axes has."""
        sizes = {name or "n": math.prod(self.shape[axis] for axis in own) for name, own in self.named_axes}
        for line in self.program:
            for node in walked(line.value):
                if isinstance(node, Call) and numbered(node.axes):
                    sizes[str(node.axes)] = math.prod(self.shape[axis] for axis in self.dimensions(node.axes))
        return sizes | dict(self.numbers)

    def options(self) -> dict[str, Any]:
        """The options that shaped the result, resolved."""
        return dict(self.shown)


def checked(
    program: Lines,
    known: Mapping[str, Any],
    rank: int,
    named: Mapping[str | None, Shape],
    tensors: Sequence[Given] = (),
) -> Lines:
    """The lines, if each name is defined before it is used and all axes are there.

    InputError, with the way out, if not.

    >>> from normcli.formula.language import lines
    >>> [line.name for line in checked(lines("y = x / larger(norm(x), eps)"), {"eps": 1e-5}, 1, {None: (0,)})]
    ['sum', 'output']
    """
    if not program:
        raise InputError("there is no formula; write one such as 'y = (x - mean(x)) / std(x)'")
    there = {"x", *known, *(name or "n" for name in named)}
    found: list[Line] = []
    for number, line in enumerate(program):
        if line.name in ("x", "n") or line.name in known or line.name in named:
            what = "the input" if line.name == "x" else "given already"
            raise InputError(f"{line.name} is {what}; a line needs another name")
        if line.name in FUNCTIONS or line.name in {one.name for one in found}:
            what = "a function" if line.name in FUNCTIONS else "the name of a line before"
            raise InputError(f"{line.name} is {what}; a line needs another name")
        for name in sorted(names_in(line.value) - there):
            if name in {later.name for later in program[number:]}:
                raise InputError(f"{name} is used before its line; put that line first")
            raise InputError(f"{name} is not defined by a line; give it with --let {printable(name)}=TENSOR")
        for node in walked(line.value):
            if isinstance(node, Call) and (node.function in REDUCTIONS or node.function == WINDOW):
                _check_axes(node, rank, named)
                if node.function == WINDOW and "before" not in known:
                    raise InputError("window needs its size; give it with --let size=3")
        there.add(line.name)
        found.append(line)
    names = {line.name: line for line in found}
    last = found[-1]
    if OUTPUT in names and last.name != OUTPUT:
        raise InputError("the line called output must be the last one")
    if OUTPUT not in names:
        found[-1] = Line(OUTPUT, last.value, "shown")
    if not _depends(found):
        raise InputError("the last line does not depend on x")
    sets = tuple((name, frozenset(own)) for name, own in named.items())
    space = Space(rank, sets, tuple((t.name, frozenset(t.dimensions)) for t in tensors))
    known_extents = extents(tuple(found), space)
    for node in (node for line in found for node in walked(line.value) if isinstance(node, Call)):
        if node.function == WINDOW and not space.over(node.axes) <= extent(node.parts[0], known_extents, space):
            raise InputError("window needs what varies along its axis")
    return apart(found, space, there | {OUTPUT}, _words)


_SQUARES = parsed("mean((A - M)^2)")


def _words(reduction: Call, names: Mapping[Node, Node]) -> Iterator[str]:
    """What a reduction may be called: by its function, and a variance as such, with a number where there is another."""
    is_var = (fits := fit(_SQUARES, reduction)) and fits[Name("M")] == names.get(_mean_of(reduction))
    word = "var" if is_var else reduction.function
    yield word
    yield from (f"{word}_{i}" for i in range(2, 1000))


def _mean_of(node: Call) -> Node:
    """The mean of what a mean of squared deviations is of."""
    found = fit(_SQUARES, node) or {}
    return Call("mean", (found.get(Name("A"), Name("x")),), node.axes)


def _depends(program: Sequence[Line]) -> bool:
    behind = {"x"}
    for line in program:
        if names_in(line.value) & behind:
            behind.add(line.name)
    return bool(names_in(program[-1].value) & behind)


def _check_axes(node: Call, rank: int, named: Mapping[str | None, Shape]) -> None:
    own = numbered(node.axes)
    if own and max(own) >= rank:
        raise InputError(f"there is no axis {max(own)}; the tensor has axes 0 to {rank - 1}")
    if not own and node.axes not in named:
        if node.axes is None:
            raise InputError(f"{node.function} needs axes; give them with --axes, such as --axes 1")
        raise InputError(f"no axes are called {node.axes}; give them with --axes {node.axes}=1")
    if node.function == WINDOW and len(own or named[node.axes]) != 1:
        raise InputError("window goes along one axis")


def axes_in(given: Sequence[int], rank: int, what: str = "--axes") -> Shape:
    """Dimensions counted from the start; InputError for those that are not there, or twice.

    >>> axes_in((-1, 0), 3)
    (0, 2)
    """
    for axis in given:
        if not -rank <= axis < rank:
            raise InputError(f"{what} has axis {axis}; the tensor has {count(rank, 'axis', 'axes')}, 0 to {rank - 1}")
    found = tuple(sorted({axis % rank for axis in given}))
    if len(found) < len(given):
        raise InputError(f"{what} names an axis twice")
    return found


def placed(name: str, shape: Shape, of: Shape, at: int | None = None) -> Given:
    """A tensor beside an input of shape ``of``: its last axis is the input's last, or its first one is axis ``at``.

    >>> placed("weight", (3,), (2, 3, 4), 1).dimensions
    (1,)
    """
    first = len(of) - len(shape) if at is None else axes_in((at,), len(of), f"--let {name}@{at}")[0]
    if first < 0 or first + len(shape) > len(of):
        raise InputError(f"{name} has shape {shape}; the input has {count(len(of), 'axis', 'axes')}")
    own = tuple(range(first, first + len(shape)))
    for axis, size in zip(own, shape, strict=True):
        if size not in (1, of[axis]):
            hint = None if at is not None else f"--let {name}@1=... puts its first axis beside axis 1"
            raise InputError(f"{name} has shape {shape}, which does not go with {of}", hint)
    return Given(name, shape, first, tuple(axis for axis, size in zip(own, shape, strict=True) if size == of[axis]))


def layout_over(shape: Shape, axes: Shape, channels: Shape = ()) -> Layout:
    """A layout whose usual axes are these.

    >>> layout_over((2, 3), (1,)).stats_shape
    (2,)
    """
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return Layout(view=shape, axes=axes, channels=channels, stats_shape=kept, reported_axes=axes)


def free_plan(
    kind: Kind,
    convention: Profile,
    shape: Shape,
    dtype: str,
    program: Lines,
    *,
    axes: Mapping[str | None, Shape],
    numbers: Mapping[str, float],
    tensors: Sequence[Given] = (),
    shown: Mapping[str, Any],
    channel_axis: int | None = None,
) -> FreePlan:
    """The plan of checked lines.

    >>> from normcli.planning.conventions import OWN
    >>> from normcli.planning.kinds import FORMULA
    >>> from normcli.formula.language import lines
    >>> own = checked(lines("y = x / sum(x)"), {}, 2, {None: (1,)})
    >>> free_plan(FORMULA, OWN, (2, 3), "float64", own, axes={None: (1,)}, numbers={}, shown={}).statistics
    ('sum',)
    """
    usual = axes.get(None, ())
    channels = tuple(sorted({axis for one in tensors for axis in one.dimensions}))
    layout = layout_over(shape, usual, channels)
    return FreePlan(
        kind=kind,
        convention=TORCH._replace(name=convention.name, title=convention.name, eps={}, source=convention.source),
        shape=shape,
        dtype=dtype,
        mode="train",
        eps=numbers.get("eps", 0.0),
        affine=bool(tensors),
        momentum=None,
        ddof=0,
        running_ddof=0,
        track_running_stats=False,
        groups=None,
        normalized_shape=None,
        layout=replace(layout, channel_axis=channel_axis),
        program=program,
        named_axes=((None, usual), *((name, own) for name, own in axes.items() if name is not None)),
        numbers=tuple(numbers.items()),
        given_tensors=tuple(tensors),
        shown=tuple(shown.items()),
    )
