"""Worked examples: a calculation and the numbers that somebody claims for it, in a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from normcli.calculate import as_float_array, initial_state
from normcli.check import check
from normcli.errors import InputError
from normcli.judgement import PARAMETERS
from normcli.plan import KINDS, Plan, either, plan
from normcli.printed import Printed
from normcli.result import QUANTITIES, State
from normcli.text import EXACT, Written
from normcli.verdict import Check


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
    decimals: int | None = None
    input_decimals: int | None = None
    slips: tuple[str, ...] = ()


_KEYS = ("title", "source", "kind", "input", "input_decimals", "options", "decimals", "expect", "slip")
_ALIASES = {"gamma": "weight", "beta": "bias"}


def check_file(path: str | Path) -> tuple[Example, Check]:
    """Read a worked-example file and check what it claims; raises InputError, which names the file."""
    example = load_example(path)
    try:
        return example, check_example(example)
    except InputError as error:
        raise InputError(f"{path}: {error}", error.hint) from None


def check_example(example: Example) -> Check:
    """Check every quantity that a worked example claims."""
    return check(
        example.x,
        example.plan,
        example.state,
        example.expect,
        parameters=example.parameters,
        decimals=example.decimals,
        input_decimals=example.input_decimals,
    )


def load_example(path: str | Path) -> Example:
    """Read a worked-example file; numbers keep the decimals that they were written with.

    A JSON object with the keys kind, input and expect, and perhaps title, source, options, decimals,
    input_decimals (a number, or "exact") and slip. ``input`` and the parameters among the options
    are nested lists, or paths relative to the file. Raises InputError, which names the file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}") from None
    try:
        return _example(json.loads(text, parse_float=Written), path.parent)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise InputError(f"{path}: the lists are nested too deeply") from None
    except InputError as error:
        raise InputError(f"{path}: {error}", error.hint) from None


def _example(given: Any, folder: Path) -> Example:
    if not isinstance(given, dict):
        raise InputError("a worked example is an object with the keys kind, input and expect")
    for name in given:
        if name not in _KEYS:
            raise InputError(f"the key {name!r} is not known; use {either(_KEYS)}")
    for name in ("kind", "input", "expect"):
        if name not in given:
            raise InputError(f"the key {name!r} is missing")
    options = _object(given.get("options", {}), "options")
    options = {_ALIASES.get(name, name): value for name, value in options.items()}
    parameters = {name: _written(options[name], name, folder) for name in PARAMETERS if options.get(name) is not None}
    arrays = options | {name: written.values for name, written in parameters.items()}
    x = _written(given["input"], "input", folder)
    values = as_float_array(x.in_dtype, options.get("dtype"))
    if given["kind"] not in KINDS:
        raise InputError(f"kind {given['kind']!r} is not known; use {either(KINDS)}")
    settled = plan(given["kind"], values.shape, str(values.dtype), arrays)
    return Example(
        title=str(given.get("title", "")),
        source=str(given.get("source", "")),
        x=replace(x, values=values.astype(np.float64)),
        plan=settled,
        state=initial_state(settled, arrays),
        parameters=parameters,
        expect=_expected(given["expect"], folder),
        decimals=_decimals(given, "decimals"),
        input_decimals=_decimals(given, "input_decimals"),
        slips=_slips(given.get("slip", [])),
    )


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object")
    return value


def _expected(given: Any, folder: Path) -> dict[str, Printed]:
    expected = _object(given, "expect")
    for name in expected:
        if name not in QUANTITIES:
            raise InputError(f"expect has {name!r}; use {either(QUANTITIES)}")
    if not expected:
        raise InputError(f"expect is empty; give any of {either(QUANTITIES)}")
    return {name: _written(value, f"expect.{name}", folder) for name, value in expected.items()}


def _decimals(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if name == "input_decimals" and value == "exact":
        return EXACT
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 17:
        raise InputError(f"{name} is {value!r}; it must be a whole number from 0 to 17")
    return value


def _slips(given: Any) -> tuple[str, ...]:
    keys = [given] if isinstance(given, str) else given
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError("slip must be a key, or a list of keys")
    return tuple(keys)


def _written(given: Any, name: str, folder: Path) -> Printed:
    """A tensor of a worked example: nested lists of numbers, or a file's path."""
    if isinstance(given, str):
        return _from_file(folder / given)
    values = _mapped(given, lambda number: _number(number, name))
    decimals = _mapped(given, lambda number: number.decimals if isinstance(number, Written) else EXACT)
    return Printed(as_float_array(values, name=name), np.asarray(decimals, np.int64))


def _from_file(path: Path) -> Printed:
    from normcli.read import read_printed  # only here: most worked examples hold their numbers themselves

    return read_printed(str(path))[0]


def _mapped(given: Any, function: Callable[[Any], Any]) -> Any:
    return [_mapped(item, function) for item in given] if isinstance(given, list) else function(given)


_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _number(value: Any, name: str) -> float:
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} holds {value!r}; it must hold numbers")
    return float(value)
