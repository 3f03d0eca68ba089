"""The language of the lines: ``name = expression``, parsed once into trees that everything else interprets.

    line = ["where " | "beside "] name " = " expression
    expression = number | name | -e | e (+ - * / ^) e | function(e ...) | reduction(e [, axes]) | window(e, axes)

A where-line is shown inside the lines that use it; a line beside the others is computed and not shown.
Names that no line defines are given. A line that mentions itself means the value before it.
"""

from __future__ import annotations

import _ast
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.words import count, either, near, quoted

LONGEST = 500  # characters of a formula
REDUCTIONS = frozenset({"sum", "mean", "max", "min"})
WINDOW = "window"  # the sum over the places near each one, which keeps its axes
WINDOWS = frozenset({WINDOW, "window_back"})  # and that over the places which it is near to
_FUNCTIONS: Mapping[str, int] = {
    "sqrt": 1, "abs": 1, "sign": 1, "exp": 1, "log": 1, "stop": 1, "larger": 2, "smaller": 2, "greater": 2, "equal": 2,
}  # fmt: skip
CASTS = frozenset(FLOAT_DTYPES)  # functions too, each of which rounds to the dtype of its name
FUNCTIONS: Mapping[str, int] = {**_FUNCTIONS, **dict.fromkeys(FLOAT_DTYPES, 1)}  # and how many arguments each takes
_MACROS: Mapping[str, str] = {
    "var": "mean((A - mean(A))^2)",
    "std": "sqrt(mean((A - mean(A))^2))",
    "norm": "sqrt(sum(A^2))",
    "rms": "sqrt(mean(A^2))",
}
_SHORT: Mapping[str, tuple[str, str]] = {  # what is written shortly, with letters for its parts
    "less": ("AB", "greater(B, A)"),
    "clip": ("ABC", "smaller(larger(A, B), C)"),
}
_OPERATORS = {_ast.Add: "+", _ast.Sub: "-", _ast.Mult: "*", _ast.Div: "/", _ast.Pow: "^"}
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST, without the import of ast


class Number(NamedTuple):
    """A number as it is written in a formula."""

    value: float


class Name(NamedTuple):
    """A line's value, or something given."""

    name: str


class Call(NamedTuple):
    """An operator, a function or a reduction and what it is applied to; ``axes`` of a reduction, None its own."""

    function: str
    parts: tuple[Node, ...]
    axes: str | None = None


Node = Number | Name | Call


class Line(NamedTuple):
    """One line; ``role`` is "shown", "where" or "beside"."""

    name: str
    value: Node
    role: str = "shown"


Lines = tuple[Line, ...]


@cache
def lines(text: str) -> Lines:
    """The lines of a text, between line ends or semicolons.

    >>> [line.name for line in lines("mean = sum(x) / n; centered = x - mean")]
    ['mean', 'centered']
    """
    return tuple(_line(part.strip()) for part in text.replace(";", "\n").splitlines() if part.strip())


def _line(text: str) -> Line:
    role, *rest = text.split(" ", 1)
    role, text = (role, rest[0]) if role in ("where", "beside") and rest else ("shown", text)
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise InputError(f"{quoted(text)} is no line; write NAME = FORMULA")
    return Line(name.strip(), parsed(value), role)


@cache
def parsed(text: str) -> Node:
    """The tree of an expression; InputError, in one sentence that points at the column, for what is none.

    >>> parsed("2 * x^2")
    Call(function='*', parts=(Number(value=2), Call(function='^', parts=(Name(name='x'), Number(value=2)), axes=None)), axes=None)
    """  # noqa: E501
    text = text.strip()
    if len(text) > LONGEST:
        raise InputError(f"the formula has {len(text)} characters; {LONGEST} are the most")
    # Python's own ^ binds looser than +, so it becomes ** before the text is read.
    python = text.replace("**", "?").replace("^", "**")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(python, "formula", "eval", _ONLY_AST)
        return _node(tree.body, text)
    except SyntaxError as error:
        raise _refused(text, (error.offset or 1) - 1, "this cannot be read") from None
    except (RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("the formula is nested too deeply, or holds what no formula has") from None


def _node(tree: _ast.AST, text: str) -> Node:
    match tree:
        case _ast.Constant(value=bool() | str() | bytes() | complex() | None):
            raise _refused(text, tree.col_offset, "only numbers stand in a formula")
        case _ast.Constant(value=float() | int() as value):
            if not math.isfinite(_float(value)):
                raise _refused(text, tree.col_offset, "the number is too large")
            return Number(value)
        case _ast.Name(id=name):
            return Name(name)
        case _ast.UnaryOp(op=_ast.USub(), operand=inner):
            return Call("-", (_node(inner, text),))
        case _ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return Call(_OPERATORS[type(op)], (_node(left, text), _node(right, text)))
        case _ast.Call(func=_ast.Name(id=name), args=parts, keywords=[]):
            return _call(name, parts, tree.col_offset, text)
    where = getattr(tree, "col_offset", 0)
    raise _refused(text, where, "a formula has numbers, names, + - * / ^, parentheses and functions only")


def _call(name: str, parts: list[_ast.expr], where: int, text: str) -> Node:
    if name in REDUCTIONS or name in _MACROS or name == WINDOW:
        axes = parts[1].id if len(parts) == 2 and isinstance(parts[1], _ast.Name) else None
        if len(parts) != 1 + (axes is not None):
            raise _refused(text, where, f"{name} takes one expression, and perhaps the name of axes")
        inside = _node(parts[0], text)
        if name not in _MACROS:
            return Call(name, (inside,), axes)
        return _with_axes(substituted(parsed(_MACROS[name]), {Name("A"): inside}), inside, axes)
    if name in _SHORT and len(parts) == len(_SHORT[name][0]):
        letters, short = _SHORT[name]
        given: dict[Node, Node] = {Name(a): _node(part, text) for a, part in zip(letters, parts, strict=True)}
        return substituted(parsed(short), given)
    if name not in FUNCTIONS:
        known = sorted({*REDUCTIONS, *_FUNCTIONS, *_MACROS, *_SHORT, WINDOW})
        meant = near(name, known)
        use = f"did you mean {meant}?" if meant else f"use {either(known)}"
        raise _refused(text, where, f"there is no {name}; {use}")
    if len(parts) != FUNCTIONS[name]:
        raise _refused(text, where, f"{name} takes {count(FUNCTIONS[name], 'expression')}")
    return Call(name, tuple(_node(part, text) for part in parts))


def _with_axes(node: Node, but: Node, axes: str | None) -> Node:
    """A macro's tree with its reductions over these axes; those of its argument have their own."""
    if not isinstance(node, Call) or node == but or axes is None:
        return node
    own = axes if node.function in REDUCTIONS else node.axes
    return Call(node.function, tuple(_with_axes(part, but, axes) for part in node.parts), own)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _refused(text: str, column: int, why: str) -> InputError:
    before = text.replace("^", "**")[:column].count("**")
    return InputError(f"formula {quoted(text)}, column {column - before + 1}: {why}")


def walked(node: Node) -> Iterator[Node]:
    """The node and everything in it."""
    yield node
    if isinstance(node, Call):
        for part in node.parts:
            yield from walked(part)


@cache
def names_in(node: Node) -> frozenset[str]:
    """The names that an expression mentions.

    >>> sorted(names_in(parsed("(x - mean) * rstd")))
    ['mean', 'rstd', 'x']
    """
    return frozenset(part.name for part in walked(node) if isinstance(part, Name))


def substituted(node: Node, others: Mapping[Node, Node]) -> Node:
    """The expression with other ones in the place of some."""
    if node in others:
        return others[node]
    if not isinstance(node, Call):
        return node
    return Call(node.function, tuple(substituted(part, others) for part in node.parts), node.axes)
