"""Checking, comparing and tracing as one calls them from Python: arrays and nested lists in, a record out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from normcli.arithmetic.run import REFERENCE
from normcli.calculate import gradient_of_output, initial_state, normalize, of_ranks, settled_options
from normcli.errors import InputError
from normcli.files.numbers import EXACT
from normcli.floats import as_float_array, dtype_name, is_torch
from normcli.planning.kinds import ALIASES, GRADIENTS, STATE_ARRAYS, quantities
from normcli.planning.plan import plan
from normcli.teaching.check import check as checked
from normcli.teaching.printed import Printed, read_printed
from normcli.teaching.trace import Trace, in_stages
from normcli.teaching.trace import trace as traced
from normcli.teaching.verdict import Check
from normcli.teaching.versus import Comparison, compare
from normcli.words import either, quoted

if TYPE_CHECKING:
    from typing import Unpack

    from normcli.planning.options import KindName, Options


def check(
    x: Any,
    kind: KindName,
    expected: Any,
    *,
    grad_output: Any = None,
    decimals: int | None = None,
    input_decimals: int | Literal["exact"] | None = None,
    **options: Unpack[Options],
) -> Check:
    """Is this answer right? If not, which slip gives exactly these numbers?

    ``expected`` is the output, or a mapping from names of quantities (mean, var, grad_input, ...) to answers.
    Tensors are arrays, nested lists, or text as it was printed. Nested lists and text are judged by the digits
    that they show, an array by what its dtype can hold. ``decimals`` and ``input_decimals`` say otherwise, as on
    the command line. Print what comes back to read it in words. Raises InputError (a ValueError) for what cannot
    be checked.

    >>> found = check([[1, 2, 4]], "layer", [[-0.8729, -0.2182, 1.0911]])
    >>> found
    <Check: 3 of 3 wrong [ddof1]>
    >>> print(found.diagnoses[0].text)
    Your numbers are what the unbiased variance gives, sum(centered^2) / (n - 1).
    LayerNorm normalizes with the biased one, sum(centered^2) / n.   [ddof1]
    """
    given, _ = settled_options(kind, options)
    written = {name: _written(given[name], name) for name in STATE_ARRAYS if given.get(name) is not None}
    given |= {name: printed.in_dtype for name, printed in written.items()}
    if given.get("ranks") is True and isinstance(x, list | tuple):
        read, given["ranks"] = Printed.joined([_written(rank, f"rank {number}") for number, rank in enumerate(x)])
    else:
        read = _written(x, "the tensor")
    tensor = as_float_array(read.in_dtype, given.get("dtype"))
    settled = plan(kind, tensor.shape, dtype_name(tensor), given)
    flow = None
    if grad_output is not None:
        flow = gradient_of_output(grad_output, settled)
        is_whole = np.shape(grad_output) == settled.shape  # and not one number for all, or the word ones
        written["grad_output"] = _written(grad_output, "grad_output") if is_whole else Printed.exactly(np.asarray(flow))
    return checked(
        replace(read, values=np.asarray(tensor, np.float64)),
        settled,
        initial_state(settled, given),
        {name: _written(answer, name) for name, answer in named(expected).items()},
        grad_output=None if flow is None else np.asarray(flow),
        parameters=written,
        decimals=decimals,
        input_decimals=EXACT if input_decimals == "exact" else input_decimals,
    )


def versus(
    x: Any,
    kind: KindName,
    spec: str,
    *,
    backend: Literal["numpy", "torch"] = "numpy",
    device: str | None = None,
    grad_output: Any = None,
    **options: Unpack[Options],
) -> Comparison:
    """The same calculation another way: how far apart the two are, and why.

    ``spec`` is ``backend[:device[:dtype]]`` or a convention's name, as on the command line: "torch", "numpy::float16",
    "keras". Print what comes back to read it in words. Raises InputError or UnavailableError.

    >>> versus([[1, 2], [3, 6]], "batch", "keras")
    <Comparison with keras: the output differs by 0.000495 at most [eps] [momentum] [running_ddof]>
    """
    x, given = of_ranks(x, settled_options(kind, options)[0])
    tensor = as_float_array(x, given.get("dtype"))
    if "ranks" in given:
        options["ranks"] = given["ranks"]
    result = normalize(tensor, kind, backend=backend, device=device, grad_output=grad_output, **options)
    return compare(tensor, given, result, spec)


def trace(
    x: Any,
    kind: KindName,
    element: int | Sequence[int] | None = None,
    *,
    precision: int = 4,
    full: bool = False,
    steps: str | None = None,
    backend: Literal["numpy", "torch"] = "numpy",
    device: str | None = None,
    grad_output: Any = None,
    **options: Unpack[Options],
) -> Trace:
    """The steps that lead to an element of the output, or to the first group of statistics.

    Each step has its name, its formula, the formula with the numbers filled in, and its value. Print it to read it as a
    table. ``precision`` is the number of decimals, ``full`` writes every term, ``steps`` names a course whose stages to
    follow. Raises InputError for an element that the tensor does not have.

    >>> trace([[1, 2, 4]], "layer", (0, 2), eps=0)
    <Trace of element (0, 2): mean, centered, var, rstd, normalized, output>
    >>> trace([[1, 2, 4]], "layer", (0, 2), eps=0).steps[2].substituted
    '((-1.3333)^2 + (-0.3333)^2 + 1.6667^2) / 3'
    """
    x, given = of_ranks(x, settled_options(kind, options)[0])
    tensor = x if is_torch(x) and backend != REFERENCE else as_float_array(x, given.get("dtype"))
    if "ranks" in given:
        options["ranks"] = given["ranks"]
    result = normalize(tensor, kind, backend=backend, device=device, steps=True, grad_output=grad_output, **options)
    array = as_float_array(tensor)
    place = (element,) if isinstance(element, int) else None if element is None else tuple(element)
    return traced(result if steps is None else in_stages(result, array, steps), array, place, precision, full=full)


def named(given: Any) -> dict[str, Any]:
    """Answers by the quantity that each is for; one that is no mapping is for the output.

    >>> named({"dx": 1}), named([2])
    ({'grad_input': 1}, {'output': [2]})
    """
    if not isinstance(given, Mapping):
        return {"output": given}
    known = (*quantities(), *GRADIENTS)
    found: dict[str, Any] = {ALIASES.get(str(name), str(name)): answer for name, answer in given.items()}
    for name in found:
        if name not in known:
            raise InputError(f"{quoted(name)} names no quantity; use {either(known)}")
    return found


def _written(value: Any, name: str) -> Printed:
    """Numbers with the digits that they show: all that text has, the shortest of a list's; an array is exact."""
    if isinstance(value, str):
        return read_printed(value, what=name)[0]
    array = as_float_array(value, name=name)
    if not isinstance(value, list | tuple) or not array.size:
        return Printed.exactly(array, dtype_name(array))
    try:
        text = json.dumps(value)  # whole numbers are exact, 1.0 has a decimal
    except TypeError:  # NumPy's numbers in a list
        text = json.dumps(array.tolist())
    return read_printed(text, what=name)[0]
