"""What every script has: the heading, the numbers it starts from, and the refusal of what a library has not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.errors import InputError
from normcli.planning.conventions import CONVENTIONS
from normcli.showing.report import Detail, Report
from normcli.showing.sections import heading

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result
    from normcli.planning.plan import Plan

_MOST = 2000  # numbers that a script spells out

Write = Callable[["Result", Mapping[str, str]], list[str]]


def pieces(report: Report, detail: Detail, module: str, write: Write) -> Iterator[str]:
    """The script whose lines ``write`` makes of a result and of its numbers; ``module`` has nan and inf.

    InputError for what is no calculation, and for a tensor of more numbers than anybody pastes that is in no NPY file.
    """
    if report.result is None:
        raise InputError("a script works out a calculation, and this is none")
    lines = write(report.result, _given(report, report.result, module))
    above = heading(report, detail, "; ")
    return iter(["\n" if report.number else "", f"# {above}\n" if above else "", *(f"{line}\n" for line in lines)])


def imports(given: Mapping[str, str]) -> list[str]:
    """What the numbers need besides the library."""
    return ["import numpy as np"] if any(values.startswith("np.") for values in given.values()) else []


def refuse(plan: Plan, name: str, layers: Collection[str]) -> None:
    """Refuse what the library of that convention has no layer for, by name and with the way out."""
    library = CONVENTIONS[name]
    if plan.kind.name not in layers:
        raise InputError(f"{library.title} has no {plan.kind.title}; --format python has")
    if plan.ddof:
        raise InputError(
            f"{library.title} normalizes with the biased variance only; leave out --ddof 1, or use --format python"
        )
    if plan.updates_running and plan.running_ddof != library.running_ddof:
        divisor = "n - 1" if library.running_ddof else "n"
        raise InputError(
            f"{library.title} divides its running variance by {divisor}; give --running-ddof {library.running_ddof}, "
            "or --no-track-running-stats, or use --format python"
        )
    if plan.cast or plan.weight_offset or plan.layout.is_per_sample:
        what = "--cast" if plan.cast else "--weight-offset" if plan.weight_offset else "weights of each sample"
        raise InputError(f"{library.title}'s layer has no {what}; use --format python")
    if plan.virtual_batch or plan.renorm:
        what = "--renorm" if plan.renorm else "--virtual-batch"
        raise InputError(f"{library.title}'s layer has no {what}; use --format python")
    if plan.layout.is_interleaved and not library.interleaved_groups:
        raise InputError(f"{library.title} has no interleaved groups; use --format python")
    refused = plan.kind.has_running_stats or (plan.groups is not None and plan.shape[0] == 1)
    if refused and plan.source == "batch" and plan.layout.count == 1 and not library.one_value_per_channel:
        raise InputError(f"{library.title} refuses one value per mean; use --format python")


def decay(result: Result) -> float:
    """The weight of the old value in the update of the running statistics, as the decimal number that is meant."""
    return float(1 - Decimal(repr(result.plan.new_weight(result.before.num_batches_tracked))))


def gradient_names(result: Result) -> list[str]:
    """The gradients that a layer gives: those of its parameters where it has them."""
    return [name for name in result.gradients() if name == "grad_input" or result.plan.affine]


def _given(report: Report, result: Result, module: str) -> dict[str, str]:
    """The numbers that a calculation starts from, by name, as Python text."""
    plan, names = result.plan, ["weight", "bias"]
    if plan.source == "running" or plan.updates_running:
        names += ["running_mean", "running_var"]
    arrays = {"x": report.x} | {name: getattr(result.before, name) for name in names}
    arrays |= result.before.others or {}
    arrays["grad_output"] = result.grad_output
    return {
        name: _text(name, values, report.stored.get(name), module)
        for name, values in arrays.items()
        if values is not None
    }


def _text(name: str, values: Any, file: str | None, module: str) -> str:
    if np.size(values) <= _MOST:
        text = repr(np.asarray(values, np.float64).tolist())
        return text.replace("nan", f"{module}.nan").replace("inf", f"{module}.inf")
    dtype = str(values.dtype)
    if file is not None and dtype != "bfloat16":
        cast = f".astype('{dtype}')" if name == "x" and dtype != "float64" else ""
        return f"np.load({file!r}){cast}.astype(float)"
    if not any(values.strides):  # one number for all
        return f"np.full({values.shape}, {_text(name, values.flat[0], None, 'np')})"
    raise InputError(
        f"a script spells every number out, and the {values.size} of {name} are too many; "
        "give them in an NPY file, which it loads",
        hint="-o out.npy writes the output to a file, which numpy.load reads",
    )
