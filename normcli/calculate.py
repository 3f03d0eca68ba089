"""From a tensor and options to a Result: plan, gather the state, run the backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

import normcli
from normcli import arithmetic
from normcli.arithmetic.result import Result, State
from normcli.arithmetic.run import REFERENCE, chosen
from normcli.arithmetic.run import backend as backend_named
from normcli.errors import InputError
from normcli.files.stored import Stored
from normcli.floats import as_float_array, dtype_name, is_torch
from normcli.planning.kinds import KINDS, STATE_ARRAYS
from normcli.planning.plan import Plan, check_state_shape, plan
from normcli.planning.values import switch, whole
from normcli.words import repr_of

if TYPE_CHECKING:
    from typing import Unpack

    from normcli.planning.free import Given
    from normcli.planning.options import KindName, Options

_ALIASES = {"gamma": "weight", "beta": "bias"}
_KEPT = 2**16  # elements of an input that its Result may keep alive


def normalize(
    x: Any,
    kind: KindName,
    *,
    backend: Literal["numpy", "torch"] = "numpy",
    device: str | None = None,
    out: Any = None,
    steps: bool = False,
    threads: int | None = None,
    grad_output: Any = None,
    **options: Unpack[Options],
) -> Result:
    """Normalize a tensor: y = (x - mean) / sqrt(var + eps) * weight + bias.

    ``x`` is anything ``numpy.asarray`` takes; floating dtypes are kept, integers become float64. ``kind`` is
    batch, instance, layer, group or rms. The options are those of the command line, with underscores: eps,
    weight, bias, affine, mode, momentum (None: cumulative average), decay, track_running_stats, running_mean,
    running_var, num_batches_tracked, normalized_shape, groups, channel_axis, ddof, running_ddof, convention,
    dtype; ``state`` and ``prefix`` name a file that holds the layer's numbers, and the layer in it. Other kinds
    are lp, zscore, minmax, softmax, logsoftmax, pixel, frn, grn, lrn, weight, weight-std and spectral, with p,
    axes, size, u and the like, and formula: one's own ``lines``, with ``axes`` (a tuple, or tuples by name) and
    ``let`` (numbers and tensors by name). ``out`` is an array of the output's shape and dtype to write to (it
    may be ``x`` itself). With ``ranks=True``, of batch, ``x`` is a list of the tensors that several ranks have
    of one batch. ``steps=True`` keeps centered and normalized in the Result; ``threads`` is how many
    work on a large tensor (all cores by default; the result does not depend on it). ``grad_output``, of the
    tensor's shape, or one number for all, or "ones", adds the gradients of sum(output * grad_output):
    grad_input, grad_weight and grad_bias.

    Raises InputError (a ValueError) for what cannot be computed, UnavailableError where the backend
    or the device is missing.

    >>> result = normalize([[1, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]], "batch")
    >>> result.mean.tolist(), result.running_var.round(4).tolist()
    ([3.0, 3.0, 4.0, 2.0], [1.6, 1.0, 1.3, 1.2])
    """
    given, lost = settled_options(kind, options) if options else ({}, ())
    if "ranks" in given:
        x, given = of_ranks(x, given)
    if is_torch(x) and (backend != REFERENCE or device is not None):
        tensor = x if x.is_floating_point() else x.double()
    else:
        tensor = as_float_array(x, given.get("dtype"))
    settled = plan(kind, tuple(tensor.shape), dtype_name(tensor), given)
    state = initial_state(settled, given)
    result = run(
        tensor, settled, state, backend=backend, device=device, out=out, steps=steps, threads=threads,
        grad_output=None if grad_output is None else gradient_of_output(grad_output, settled),
    )  # fmt: skip
    result = said(result, *lost, *assumed(settled, given))
    if math.prod(settled.shape) <= _KEPT:
        object.__setattr__(result, "x", tensor)  # a copy of the frozen record would take longer than many a call
    return result


def of_ranks(x: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The tensor and the options; with ``ranks=True`` of several tensors one, and how many samples each has.

    >>> x, given = of_ranks([[[1, 2]], [[3, 4], [5, 6]]], {"ranks": True})
    >>> x.shape, given
    ((3, 2), {'ranks': (1, 2)})
    """
    if given.get("ranks") is not True:
        return x, dict(given)
    if not isinstance(x, list | tuple):
        raise InputError(f"with ranks=True x is a list of tensors, one for each rank; it is a {type(x).__name__}")
    x, sizes = arithmetic.ranks.joined(
        [as_float_array(rank, given.get("dtype"), name=f"rank {number}") for number, rank in enumerate(x)]
    )
    return x, {**given, "ranks": sizes}


def settled_options(kind: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options as a plan takes them, with what a file of the layer adds, and what is to be said of that file.

    >>> settled_options("layer", {"gamma": [1.0], "bias": None})
    ({'weight': [1.0]}, ())
    """
    for alias, name in _ALIASES.items():
        if options.get(alias) is not None and options.get(name) is not None:
            raise InputError(f"{alias} and {name} are two words for the same thing; give one of them")
    aliases = _ALIASES if kind in KINDS else {}  # elsewhere a beta may be another one
    given = {
        aliases.get(name, name): value for name, value in options.items() if value is not None or name == "momentum"
    }
    if isinstance(given.get("dtype"), np.dtype):
        given["dtype"] = given["dtype"].name
    if "let" in given:
        given["let"] = {name: as_float_array(value, name=name) for name, value in dict(given["let"]).items()}
    return _with_state(kind, given) if "state" in given or "prefix" in given else (given, ())


def said(result: Result, *more: str) -> Result:
    """The result with more to be said of it, before its own warnings."""
    return replace(result, warnings=(*more, *result.warnings)) if more else result


def assumed(settled: Plan, given: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be said where the running statistics were not given but are normalized with.

    >>> assumed(plan("batch", (2, 3), "float64", {"mode": "eval"}), {})
    ('no running statistics were given: eval mode takes 0 for the mean and 1 for the variance',)
    """
    takes = "eval mode" if settled.source == "running" else "--renorm" if settled.renorm else None
    if takes is None or not {"running_mean", "running_var"}.isdisjoint(given):
        return ()
    var = f"{settled.convention.running_var:g}"
    return (f"no running statistics were given: {takes} takes 0 for the mean and {var} for the variance",)


def _with_state(kind: str, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options with the numbers of a layer in a file, and what is to be said of these."""
    path, prefix = given.pop("state", None), given.pop("prefix", None)
    if path is None:
        raise InputError("prefix names a layer of a file; give the file as state")
    for name, value in (("state", path), ("prefix", prefix)):
        if not isinstance(value, str | PathLike | None):
            raise InputError(f"{name} is {repr_of(value)}; it must be a {'file' if name == 'state' else 'name'}")
    if not isinstance(kind, str) or kind not in KINDS:
        return given, ()  # the plan says which kinds there are
    filled = normcli.with_state(KINDS[kind], given, str(path), None if prefix is None else str(prefix))
    return filled.options, filled.warnings


def run(
    x: NDArray[Any],
    settled: Plan,
    state: State,
    *,
    backend: str = "numpy",
    device: str | None = None,
    out: Any = None,
    steps: bool = False,
    threads: int | None = None,
    grad_output: NDArray[Any] | Stored | None = None,
) -> Result:
    """Run a planned calculation on the backend of that name; a device implies torch."""
    _check(settled, state, threads)
    steps = switch(steps, "steps")
    if device is not None and backend == REFERENCE:
        backend = chosen(None, device)
    if out is not None:
        _check_out(out, x, settled)
    grad_output = None if grad_output is None else np.asarray(grad_output)
    result = backend_named(backend).normalize(
        x, settled, state, device=device, out=out, steps=steps, threads=threads, grad_output=grad_output
    )
    return arithmetic.ranks.with_own(result, x) if settled.merges else result


def gradient_of_output(value: Any, settled: Plan) -> NDArray[Any] | Stored:
    """What flows into the output: an array of its shape, one number for all of it, or the word ones.

    What is in a file stays there.

    >>> gradient_of_output("ones", plan("layer", (2, 3), "float64", {})).sum()
    np.float64(6.0)
    """
    if isinstance(value, str) and value.strip().lower() != "ones":
        raise InputError(f"grad_output is {repr_of(value)}; give a tensor, a number, or ones")
    is_stored = isinstance(value, Stored)
    array = value if is_stored else as_float_array(1.0 if isinstance(value, str) else value, name="grad_output")
    if array.shape not in ((), settled.shape):
        raise InputError(f"grad_output has shape {array.shape}; {settled.shape} is needed, the shape of the output")
    return array if is_stored else np.broadcast_to(array, settled.shape)


def run_stored(
    x: Stored,
    settled: Plan,
    state: State,
    *,
    out: Stored | NDArray[Any] | None,
    grad_output: Stored | NDArray[Any] | None = None,
    grad_input: Stored | NDArray[Any] | None = None,
    threads: int | None = None,
) -> Result:
    """Run a planned calculation on a tensor that stays in its file; without ``out`` for its statistics alone.

    With ``grad_output`` its gradients too, that of the input into ``grad_input`` where it is given.
    """
    _check(settled, state, threads)
    if isinstance(grad_output, Stored) and grad_output.fortran_order != x.fortran_order:
        grad_output = np.asarray(grad_output)  # a file is read in the order in which its numbers lie
    result: Result = arithmetic.reference.normalize(
        x, settled, state, out=out, threads=threads, grad_output=grad_output, grad_input=grad_input
    )
    return result


def _check(settled: Plan, state: State, threads: int | None) -> None:
    for name in (*STATE_ARRAYS, *(state.others or ())):
        if (array := state.tensor(name)) is not None:
            check_state_shape(settled, name, array.shape)  # carried over from a batch with other channels, perhaps
    if threads is not None and (whole(threads) or 0) < 1:
        raise InputError(f"threads is {repr_of(threads)}; it must be a whole number, 1 or more")


def _check_out(out: Any, x: Any, settled: Plan) -> None:
    """Refuse what the output cannot be written to, before anything is."""
    fits = is_torch(out) if is_torch(x) else type(out) in (np.ndarray, np.memmap)
    if not fits:
        wanted = "a torch tensor" if is_torch(x) else "a NumPy array"
        raise InputError(f"out is a {type(out).__name__}; the output is {wanted}")
    if (tuple(out.shape), dtype_name(out)) != (settled.shape, settled.dtype):
        raise InputError(f"out is {tuple(out.shape)} {out.dtype}; the output is {settled.shape} {settled.dtype}")
    if not is_torch(out) and not out.flags.writeable:
        raise InputError("out is read-only")
    if is_torch(out) and out.requires_grad:
        raise InputError("out takes part in gradients, which writing to it would break; give out.detach()")
    if _overlaps(out.shape, [s * out.itemsize for s in out.stride()] if is_torch(out) else out.strides, out.itemsize):
        raise InputError("out overlaps itself; its elements must lie apart in memory")


def _overlaps(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Whether elements reach into one another; dimensions that interleave count as if they did."""
    reach = itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def initial_state(settled: Plan, given: Mapping[str, Any]) -> State:
    """The layer's numbers before the first input: those given, else ones and zeros where it has them."""
    if settled.tensors:
        return State(others={one.name: _given(settled, one, given) for one in settled.tensors})
    arrays: dict[str, Any] = {}
    for name in STATE_ARRAYS:
        value = given.get(name)
        if value is not None:
            arrays[name] = as_float_array(value, name=name)
    if not settled.track_running_stats:
        return State(**arrays)
    if "running_mean" not in arrays:
        arrays["running_mean"] = np.zeros(settled.weight_shape)
    if "running_var" not in arrays:
        arrays["running_var"] = (
            np.zeros(settled.weight_shape) + settled.convention.running_var
        )  # in half the time of np.ones
    return State(**arrays, num_batches_tracked=int(given.get("num_batches_tracked") or 0))


def _given(settled: Plan, one: Given, given: Mapping[str, Any]) -> NDArray[Any]:
    """A tensor that comes with the input; where it was not given, what the kind takes by itself."""
    value = given.get("let", {}).get(one.key, given.get(one.name))
    if value is not None:
        return as_float_array(value, name=one.name)
    own = settled.kind.tensors[one.name][1]
    return np.full(one.shape, 1 / math.sqrt(math.prod(one.shape)) if math.isnan(own) else own)
