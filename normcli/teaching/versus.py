"""The same calculation another way, and how far apart the two answers are.

The ruler is the NumPy reference in float64, rounded once to the compared dtype; differences are
told in absolute and relative terms and in units in the last place (ULP) of that dtype. A gap whose
cause is known is named.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.result import Result, State
from normcli.arithmetic.run import BACKENDS, REFERENCE
from normcli.calculate import run
from normcli.digits import short
from normcli.dtypes import DTYPES, FLOAT_DTYPES
from normcli.errors import InputError
from normcli.files.read import read_tensor
from normcli.floats import as_float_array, rounded, ulp
from normcli.planning.conventions import CONVENTIONS, spelled
from normcli.planning.kinds import STATE_ARRAYS
from normcli.planning.layout import number_of
from normcli.planning.plan import Plan, plan
from normcli.teaching import free_versus
from normcli.words import Told, either

Floats = NDArray[np.float64]


# Gaps that rounding alone can explain need no other cause.
_ROUNDING_ULPS = 1.0
_CELLS = 5  # of the worst ones, that are listed
FILE = "file"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one quantity is off: the largest differences, and the place of the largest absolute one."""

    max_abs: float
    max_rel: float  # over the cells where the reference is not 0
    max_ulp: float
    beyond_one_ulp: int
    at: tuple[int, ...]
    reference: float
    other: float
    cells: tuple[tuple[tuple[int, ...], float, float, float], ...] = ()  # the worst in ULP: at, reference, other, ulp


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option in which a convention differs, and what changing it alone does here."""

    name: str
    here: Any
    there: Any
    output: float  # largest change of the output
    running: float  # largest change of a running statistic


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Told):
    """One other way to calculate, and its differences; ``causes`` are pairs of a stable key and a sentence."""

    name: str
    backend: str  # FILE where the other answer is read
    device: str | None
    dtype: str
    convention: str | None
    size: int
    output: Difference
    running: Mapping[str, Difference]
    gradients: Mapping[str, Difference]
    options: tuple[Option, ...]
    causes: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        causes = "".join(f" [{key}]" for key, _ in self.causes)
        return f"<Comparison with {self.name}: the output differs by {self.output.max_abs:.3g} at most{causes}>"

    @property
    def quantities(self) -> dict[str, Difference]:
        """All differences, by what differs."""
        return {"output": self.output, **self.running, **self.gradients}


@dataclass(frozen=True)
class Way:
    """A parsed SPEC: where and how the calculation is repeated; None means as in the main one."""

    backend: str | None = None
    device: str | None = None
    dtype: str | None = None
    convention: str | None = None


def parse(spec: str, conventions: Collection[str] = CONVENTIONS) -> Way:
    """A SPEC: ``backend[:device[:dtype]]``, empty parts as in the main calculation, or the name of a convention.

    >>> parse("torch:cuda:1:float16"), parse("numpy::float32").dtype, parse("keras").convention
    (Way(backend='torch', device='cuda:1', dtype='float16', convention=None), 'float32', 'keras')
    """
    backend, *rest = spec.strip().split(":")
    backend = spelled(backend)
    if backend in conventions and backend not in BACKENDS and not rest:
        return Way(convention=backend)
    if backend and backend not in BACKENDS:
        known = [*BACKENDS, *(name for name in conventions if name not in BACKENDS)]
        raise InputError(f"--versus {spec!r}: {backend!r} is neither a backend nor a convention; use {either(known)}")
    dtype = rest.pop() if rest and (rest[-1] in FLOAT_DTYPES or (len(rest) > 1 and not rest[-1].isdigit())) else None
    if dtype and dtype not in FLOAT_DTYPES:
        raise InputError(f"--versus {spec!r}: dtype {dtype!r} is not known; use {either(FLOAT_DTYPES)}")
    return Way(backend=backend or None, device=":".join(rest) or None, dtype=dtype or None)


def compare(x: NDArray[Any], given: Mapping[str, Any], result: Result, spec: str) -> Comparison:
    """Repeat a calculation as SPEC says, or read what another gave, and measure the difference to ``result``.

    A file holds an output in any format that an input has; it is held to its own dtype or to that of the
    calculation, whichever is the coarser. ``x`` is the tensor as it entered the calculation, ``given`` the
    options that were given for it.
    Raises InputError for a SPEC that means nothing or cannot compute this, UnavailableError for a
    missing library or device.

    >>> from normcli.calculate import normalize
    >>> x = np.array([[1.0, 2], [3, 6]])
    >>> compared = compare(x, {}, normalize(x, "batch"), "keras")
    >>> [option.name for option in compared.options], compared.causes[-1][0]
    (['eps', 'momentum', 'running_ddof'], 'running_ddof')
    """
    x, main = as_float_array(x), result.plan
    if _is_file(spec):
        return _with_file(x, result, spec.strip())
    way = parse(spec, free_versus.conventions(main) if main.is_free else CONVENTIONS)
    dtype = way.dtype or main.dtype
    settled = _replanned(main, given, way, dtype)
    cast = as_float_array(x, dtype)
    backend = way.backend or result.backend
    device = way.device or (result.device if backend == result.backend != REFERENCE else None)
    state = _state_in(result.before, dtype if backend != REFERENCE else None)
    flow = result.grad_output
    other = run(cast, settled, state, backend=backend, device=device, grad_output=flow)
    ruler = _ruler(x, result, dtype)
    output = _difference(np.asarray(ruler.output, np.float64), np.asarray(other.output, np.float64), dtype)
    running = {
        name: _difference(getattr(ruler.after, name), getattr(other.after, name), "float64")
        for name in ("running_mean", "running_var")
        if getattr(ruler.after, name) is not None and getattr(other.after, name) is not None
    }
    gradients = {
        name: _difference(values, other.gradients()[name], dtype if name == "grad_input" else "float64")
        for name, values in ruler.gradients().items()
        if name in other.gradients()
    }
    options = tuple(_differing_options(x, result, settled)) if way.convention else ()
    return Comparison(
        name=spec.strip(),
        backend=other.backend,
        device=other.device,
        dtype=dtype,
        convention=settled.convention.name,
        size=int(np.asarray(result.output).size),
        output=output,
        running=running,
        gradients=gradients,
        options=options,
        causes=tuple(_causes(x, cast, result, other, output, options)),
    )


def _replanned(main: Plan, given: Mapping[str, Any], way: Way, dtype: str) -> Plan:
    """The plan of the other way: the options given still win, and the tensor's layout stays what it is."""
    if way.convention is None and main.is_free:
        return replace(main, dtype=dtype)
    if main.is_free:
        return free_versus.replanned(main, given, str(way.convention), dtype)  # type: ignore[arg-type]
    if way.convention is None:
        return replace(main, dtype=dtype, eps=_eps(main, given, dtype), cast=main.cast and dtype)
    kept = {"channel_axis": main.layout.channel_axis} if main.layout.channel_axis is not None else {}
    options = dict(given) | {"convention": way.convention, "mode": main.mode} | kept
    options |= {"track_running_stats": main.track_running_stats} if main.kind.has_running_stats else {}
    options.pop("dtype", None)
    known = {name: value for name, value in options.items() if name in main.kind.options}
    return plan(main.kind.name, main.shape, dtype, known)


def _eps(main: Plan, given: Mapping[str, Any], dtype: str) -> float:
    """eps as the options give it: machine epsilon, the default of rms, changes with the dtype."""
    if given.get("eps") is not None or main.convention.eps[main.kind.name] is not None:
        return main.eps
    return plan(main.kind.name, main.shape, dtype, {"convention": main.convention.name}).eps


def _state_in(state: State, dtype: str | None) -> State:
    """The state with its numbers rounded to a dtype, as a layer of that dtype holds them."""
    if dtype is None:
        return state
    cast: dict[str, Any] = {
        name: as_float_array(value, dtype) for name in STATE_ARRAYS if (value := getattr(state, name)) is not None
    }
    others = {name: as_float_array(value, dtype) for name, value in (state.others or {}).items()}
    return replace(state, **cast, others=others)


def _ruler(x: NDArray[Any], result: Result, dtype: str) -> Result:
    """What another answer of a dtype is held to: the reference in float64, from exactly the numbers that entered it.

    Another backend's result is its own ruler.
    """
    if result.backend != REFERENCE:
        return result
    main = result.plan
    state = _state_in(result.before, dtype if dtype == main.dtype else None)
    return run(as_float_array(x, "float64"), replace(main, dtype="float64"), state, grad_output=result.grad_output)


def _is_file(spec: str) -> bool:
    """Whether a SPEC is a file's: it has a suffix, or is one's name and no word of another way.

    >>> [_is_file(spec) for spec in ("y.npy", "run/dump.npz::y", "torch:cuda:1", "keras", "[1, 2.5]")]
    [True, True, False, False, False]
    """
    path = spec.strip().partition("::")[0]
    has_suffix = Path(path).suffix[1:].isalnum()
    return has_suffix or (path.partition(":")[0] not in (*BACKENDS, *CONVENTIONS) and Path(path).is_file())


def _with_file(x: NDArray[Any], result: Result, spec: str) -> Comparison:
    """The output beside the one that a file holds."""
    theirs = as_float_array(read_tensor(spec).array)
    if theirs.shape != np.shape(result.output):
        raise InputError(
            f"{spec} has shape {theirs.shape}, and the output has {np.shape(result.output)}; "
            "it must be the output of the same input"
        )
    dtype = max(theirs.dtype.name, result.plan.dtype, key=lambda name: DTYPES[name].unit)
    ruler = _ruler(x, result, dtype)
    return Comparison(
        name=spec,
        backend=FILE,
        device=None,
        dtype=dtype,
        convention=None,
        size=theirs.size,
        output=_difference(np.asarray(ruler.output, np.float64), np.asarray(theirs, np.float64), dtype),
        running={},
        gradients={},
        options=(),
        causes=(),
    )


def _difference(reference: Floats, other: Floats, dtype: str) -> Difference:
    reference, other = np.atleast_1d(np.asarray(reference, np.float64)), np.atleast_1d(np.asarray(other, np.float64))
    with np.errstate(all="ignore"):
        here = rounded(reference, dtype).astype(np.float64)
        same = (here == other) | (np.isnan(here) & np.isnan(other))
        gap = np.where(same, 0.0, np.abs(other - here))
        gap = np.where(np.isnan(gap), np.inf, gap)
        relative = np.where(same | (here == 0), 0.0, gap / np.abs(here))
        units = gap / ulp(
            np.where((here == 0) | ~np.isfinite(here), np.where(np.isfinite(other), other, 0), here), dtype
        )
    worst = np.unravel_index(int(np.argmax(gap)), gap.shape)
    beyond = int(np.count_nonzero(units > 1))
    ranked = np.argsort(-np.nan_to_num(units, nan=np.inf), axis=None, kind="stable")[: min(beyond, _CELLS)]
    return Difference(
        max_abs=float(gap.max()),
        max_rel=float(np.where(np.isnan(relative), np.inf, relative).max()),
        max_ulp=float(units.max()),
        beyond_one_ulp=beyond,
        at=tuple(int(i) for i in worst),
        reference=float(here[worst]),
        other=float(other[worst]),
        cells=tuple(
            (place, float(here[place]), float(other[place]), float(units[place]))
            for place in (tuple(int(i) for i in np.unravel_index(flat, gap.shape)) for flat in ranked)
        ),
    )


def _differing_options(x: NDArray[Any], result: Result, other: Plan) -> Iterator[Option]:
    """Each option in which the conventions differ, and the effect of changing that one alone."""
    main = result.plan
    if main.is_free:
        for name, here, there, changed in free_versus.differing(main, other):  # type: ignore[arg-type]
            moved = _gap(result.output, run(x, changed, result.before).output)
            yield Option(name=name, here=here, there=there, output=moved, running=0.0)
        return
    names = {"eps": "eps", "affine": "affine"}
    names |= {"momentum": "momentum", "running_ddof": "running_ddof"} if main.kind.has_running_stats else {}
    changes = {name: {name: getattr(other, name)} for name in names if getattr(other, name) != getattr(main, name)}
    if other.layout != main.layout:
        changes["group_layout"] = {"layout": other.layout}
    for name, change in changes.items():
        alone = run(x, replace(main, **change), result.before)
        yield Option(
            name=name,
            here=_grouping(main) if name == "group_layout" else getattr(main, name),
            there=_grouping(other) if name == "group_layout" else getattr(other, name),
            output=_gap(result.output, alone.output),
            running=max(_gap(result.running_mean, alone.running_mean), _gap(result.running_var, alone.running_var)),
        )


def _grouping(settled: Plan) -> str:
    return "interleaved" if settled.layout.is_interleaved else "consecutive"


def _gap(a: Any, b: Any) -> float:
    if a is None or b is None:
        return 0.0
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(all="ignore"):  # of infinities and NaN
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(gap.max())


def _causes(
    x: NDArray[Any],
    cast: NDArray[Any],
    result: Result,
    other: Result,
    output: Difference,
    options: tuple[Option, ...],
) -> Iterator[tuple[str, str]]:
    plan, dtype = other.plan, other.plan.dtype
    if not np.array_equal(np.asarray(x, np.float64), np.asarray(cast, np.float64), equal_nan=True):
        yield "input_rounded", f"The input was rounded to {dtype} first."
    for option in options:
        if option.output or option.running:
            yield option.name, "" if plan.is_free else _MEANINGS[option.name]
    if plan.is_free:
        return
    mean, var, rstd = _statistics_at(result, output.at)
    computing = "float32" if dtype in ("float16", "bfloat16") else dtype
    vanished = output.max_ulp > _ROUNDING_ULPS and var > _largest(computing)
    if vanished or (math.isfinite(output.reference) and not math.isfinite(output.other)):
        yield "overflow", f"A number on the way left the range of {computing}, which ends at {_largest(computing):.4g}."
        return
    if other.backend == REFERENCE or output.max_ulp <= _ROUNDING_ULPS or options:
        return
    unit = DTYPES[computing].unit
    folded = abs(mean) * rstd if rstd < math.inf else math.inf
    if plan.kind.has_running_stats and other.device == "cpu" and output.max_abs <= 16 * unit * max(folded, 1):
        yield (
            "folded",
            "Folded scale and shift: on the CPU torch computes x * scale + (bias - mean * scale), two terms that "
            f"cancel; at this place |mean| * scale is {folded:.3g}, and so large is what their rounding acts on.",
        )
    elif plan.kind.centers and mean * mean > 100 * var:
        lost = math.log10(abs(mean) / math.sqrt(var)) if var else math.inf
        digits = f"{lost:.1f}" if math.isfinite(lost) else "all"
        yield (
            "cancellation",
            f"Cancellation: |mean| / std is large in this group, so {digits} digits of x - mean are lost.",
        )
    if 0 < var < plan.eps:
        yield (
            "eps_dominates",
            f"eps ({short(plan.eps)}) is larger than the variance here ({short(var)}) and decides the result.",
        )


_MEANINGS = {
    "eps": "Another eps under the root.",
    "momentum": "Another weight of the new batch in the running statistics.",
    "running_ddof": "Biased against unbiased running variance: one divides by n, the other by n - 1.",
    "affine": "Weight and bias are used by one and not by the other.",
    "group_layout": "Channels are grouped interleaved (c mod G) by one, consecutively by the other.",
}


def _statistics_at(result: Result, at: tuple[int, ...]) -> Iterator[float]:
    """mean, var and rstd of the group of statistics that an element belongs to (0 and mean square for rms)."""
    layout = result.plan.layout
    place = np.unravel_index(number_of(at, result.plan.shape), layout.view)
    base = [0 if axis in layout.axes else int(i) for axis, i in enumerate(place)]
    group = number_of(base, layout.stats_view)
    mean, var = (result.mean, result.var) if result.plan.kind.centers else (0.0, result.mean_square)
    for statistic in (mean, var, result.rstd):
        yield float(np.broadcast_to(np.asarray(statistic), layout.stats_shape).ravel()[group])


def _largest(dtype: str) -> float:
    return {"float16": 65504.0, "bfloat16": 3.3895e38, "float32": 3.4028e38, "float64": 1.7977e308}[dtype]
