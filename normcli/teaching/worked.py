"""Worked examples: a calculation and the numbers that somebody claims for it, in a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from normcli.arithmetic.result import Result, State
from normcli.calculate import gradient_of_output, initial_state, run
from normcli.errors import InputError
from normcli.files.numbers import EXACT, numbers_of, to_float64
from normcli.files.read import read_document
from normcli.files.text import looks_like_tensor
from normcli.floats import as_float_array
from normcli.planning.kinds import ALIASES, FORMULA, GRADIENTS, STATE_ARRAYS, quantities
from normcli.planning.plan import Plan, plan
from normcli.teaching.check import check
from normcli.teaching.printed import Printed, read_printed
from normcli.teaching.verdict import Check
from normcli.words import either, near, quoted, shown


@dataclass(frozen=True, kw_only=True)
class Example:
    """A worked example from a file: the calculation, and the numbers that somebody claims for it.

    ``slips`` are the keys that the diagnosis should give, in a file that keeps a false claim.
    """

    title: str
    source: str
    x: Printed
    plan: Plan
    state: State
    parameters: Mapping[str, Printed]
    expect: Mapping[str, Printed]
    grad_output: Printed | None = None
    decimals: int | None = None
    input_decimals: int | None = None
    slips: tuple[str, ...] = ()


_KEYS = ("title", "source", "kind", "input", "grad_output", "input_decimals", "options", "decimals", "expect", "slip")
_ALIASES = {"gamma": "weight", "beta": "bias", "epsilon": "eps"}

TEMPLATE = """\
{
  "title": "BatchNorm of three samples with four features, in training",
  "source": "worked by hand",
  "kind": "batch",
  "input": [[1, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]],
  "options": {"eps": 1e-5, "momentum": 0.1},
  "decimals": 4,
  "expect": {
    "mean": [3, 3, 4, 2],
    "var": [4.6667, 0.6667, 2.6667, 2],
    "output": [[-0.9258, -1.2247, 0, -0.7071], [1.3887, 0, -1.2247, 1.4142], [-0.4629, 1.2247, 1.2247, -0.7071]],
    "running_var": [1.6, 1, 1.3, 1.2]
  }
}
"""


def check_file(path: str | Path, within: Mapping[str, float] = MappingProxyType({})) -> tuple[Example, Check]:
    """Read a worked-example file (see ``load_example``) and check what it claims; raises InputError, which names it."""
    example = load_example(path)
    try:
        return example, check_example(example, within)
    except InputError as error:
        raise InputError(f"{_name(path)}: {error}", error.hint) from None


def check_example(example: Example, within: Mapping[str, float] = MappingProxyType({})) -> Check:
    """Check every quantity that a worked example claims, perhaps ``within`` a plain tolerance."""
    return check(
        example.x,
        example.plan,
        example.state,
        example.expect,
        grad_output=None if example.grad_output is None else example.grad_output.values,
        parameters=example.parameters,
        decimals=example.decimals,
        input_decimals=example.input_decimals,
        within=within,
    )


def calculation(example: Example) -> Result:
    """The exact result of a worked example, with its steps."""
    flow = None if example.grad_output is None else example.grad_output.values
    return run(example.x.values, replace(example.plan, dtype="float64"), example.state, steps=True, grad_output=flow)


def load_example(path: str | Path) -> Example:
    """Read a worked-example file, or standard input for ``-``; numbers keep the decimals that they were written with.

    A JSON object with the keys kind, input and expect, and perhaps title, source, options, grad_output (for the
    gradients; also a number, or "ones"), decimals, input_decimals (a number, or "exact") and slip. ``input``
    and the parameters among the options are nested lists, or paths relative to the file. A name may have
    hyphens, as on the command line. Raises InputError, which names the file.
    """
    name = _name(path)
    given = read_document(str(path))
    try:
        return _example(given, Path(path).parent)
    except InputError as error:
        raise InputError(f"{name}: {error}", error.hint) from None
    except RecursionError:
        raise InputError(f"{name} is nested too deep") from None


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else shown(str(path), 200)


def _example(given: Any, folder: Path) -> Example:
    if not isinstance(given, dict):
        raise InputError("a worked example is an object with the keys kind, input and expect")
    given = _named(given, {"dy": "grad_output"})
    for name in given:
        if name not in _KEYS:
            meant = near(name, _KEYS)
            hint = f"did you mean {meant}?" if meant else None
            raise InputError(f"the key {quoted(name)} is not known; use {either(_KEYS)}", hint)
    for name in ("kind", "input", "expect"):
        if name not in given:
            raise InputError(f"the key {name!r} is missing")
    options = _options(given.get("options", {}))
    names = (*STATE_ARRAYS, "u", "tau")
    parameters = {name: _written(options[name], name, folder) for name in names if options.get(name) is not None}
    arrays = options | {name: written.values for name, written in parameters.items()}
    if "let" in options:
        lets = {name: _written(value, name, folder) for name, value in _object(options["let"], "let").items()}
        arrays["let"] = {name: written.values for name, written in lets.items()}
        parameters |= {name: written for name, written in lets.items() if written.values.ndim}
    if given["kind"] == FORMULA.name:
        sets = arrays.get("axes", ())
        named = {name or None: own for name, own in sets.items()} if isinstance(sets, dict) else {None: sets}
        arrays["axes"] = {name: _axes(own) for name, own in named.items()}
    elif "axes" in arrays:
        arrays["axes"] = _axes(arrays["axes"])
    x = _written(given["input"], "input", folder)
    values = as_float_array(x.in_dtype, options.get("dtype"))
    settled = plan(given["kind"], values.shape, str(values.dtype), arrays)
    flow = _flow(given["grad_output"], folder, settled) if "grad_output" in given else None
    return Example(
        title=_text(given, "title"),
        source=_text(given, "source"),
        x=replace(x, values=values.astype(np.float64)),
        plan=settled,
        state=initial_state(settled, arrays),
        parameters=parameters if flow is None else parameters | {"grad_output": flow},
        grad_output=flow,
        expect=_expected(given["expect"], folder, settled),
        decimals=_decimals(given, "decimals"),
        input_decimals=_decimals(given, "input_decimals"),
        slips=_slips(given.get("slip", [])),
    )


def _named(given: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """The values under their proper names: with underscores, and without the papers' words."""
    keys: dict[str, str] = {}
    for key in given:
        name = key.replace("-", "_")
        name = aliases.get(name, name)
        if name in keys:
            raise InputError(f"{shown(keys[name])} and {shown(key)} are two words for the same thing; give one of them")
        keys[name] = key
    return {name: given[key] for name, key in keys.items()}


def _options(given: Any) -> dict[str, Any]:
    """The options as ``plan`` takes them; ``"momentum": "none"`` is the command line's word for None."""
    options = _named(_object(given, "options"), _ALIASES)
    for name in ("affine", "track_running_stats"):
        if not isinstance(options.get(name), bool | None):
            raise InputError(f"{name} is {shown(repr(options[name]))}; it must be true or false")
    momentum = options.get("momentum")
    if isinstance(momentum, str) and momentum.strip().lower() == "none":
        options["momentum"] = None
    return options


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(repr(value))}; it must be text")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object")
    return value


def _axes(given: Any) -> tuple[int, ...]:
    axes = [given] if isinstance(given, int) else given
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, int) for axis in axes):
        raise InputError(f"axes is {shown(repr(given))}; it must be a list of whole numbers")
    return tuple(axes)


def _expected(given: Any, folder: Path, settled: Plan) -> dict[str, Printed]:
    expected: dict[str, Any] = _named(_object(given, "expect"), ALIASES)
    known: tuple[str, ...] = (*quantities(), *GRADIENTS)
    if settled.is_free:
        slopes = ("grad_input", *(settled.gradient_name(one.name) for one in settled.tensors))
        known = (*(line.name for line in settled.lines), *slopes)
    for name in expected:
        if name not in known:
            raise InputError(f"expect has {quoted(name)}; use {either(known)}")
    if not expected:
        raise InputError(f"expect is empty; give any of {either(known)}")
    return {name: _written(value, f"expect.{name}", folder) for name, value in expected.items()}


def _flow(given: Any, folder: Path, settled: Plan) -> Printed:
    """What flows into the output: a tensor, one number for all of it, or the word ones."""
    is_ones = isinstance(given, str) and given.strip().lower() == "ones"
    flow = Printed.exactly(np.ones(())) if is_ones else _written(given, "grad_output", folder)
    gradient_of_output(flow.in_dtype, settled)  # which refuses another shape
    return flow.spread(settled.shape)


def _decimals(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if name == "input_decimals" and value == "exact":
        return EXACT
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 17:
        raise InputError(f"{name} is {shown(repr(value))}; it must be a whole number from 0 to 17")
    return value


def _slips(given: Any) -> tuple[str, ...]:
    keys = [given] if isinstance(given, str) else given
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError("slip must be a key, or a list of keys")
    return tuple(keys)


def _written(given: Any, name: str, folder: Path) -> Printed:
    """A tensor of a worked example: nested lists of numbers, or a file's path."""
    if isinstance(given, str):
        return _from_file(given, name, folder)
    numbers = numbers_of(given, name)
    return Printed(to_float64(numbers, name)[0], numbers.decimals())


def _from_file(given: str, name: str, folder: Path) -> Printed:
    if given.strip() == "-":
        raise InputError(f"{name} is '-', and standard input is no file beside this one")
    return read_printed(given if looks_like_tensor(given) else str(folder / given), what=name)[0]
