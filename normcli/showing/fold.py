"""A folded BatchNorm, channel by channel, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from normcli.digits import short
from normcli.floats import dtype_name
from normcli.showing.report import Report, Section
from normcli.words import count, listed, shown

if TYPE_CHECKING:
    from normcli.arithmetic.fold import Differences, Folded
    from normcli.arithmetic.result import State

_MOST = 12  # channels of a table that are not asked for
_HUGE = 100.0  # a scale that makes a hundred of what the convolution's own rounding leaves


def report(
    folded: Folded,
    found: Differences,
    norm: State,
    *,
    named: Mapping[str, str],
    eps: float,
    data: tuple[int, ...],
    seed: int | None,
    full: bool,
) -> Report:
    """What folding gave and what it changes; ``named`` are the layers' names, ``data`` is the shape compared on."""
    scale, var = folded.scale, np.asarray(norm.running_var, np.float64)
    huge = np.flatnonzero(~(np.abs(scale) < _HUGE)).tolist()
    worst = np.argsort(-np.nan_to_num(found.of_largest, nan=np.inf), kind="stable")
    chosen = np.arange(len(scale)) if full or len(scale) <= _MOST else worst[:_MOST]
    columns = [var, scale, found.absolute, found.ulp, found.of_largest]
    rows = [[str(channel), *(_digits(v[channel], 5) for v in columns)] for channel in chosen.tolist()]
    left_out = "" if len(rows) == len(scale) else f": {len(rows)} of {len(scale)} channels, the worst first"
    heads = ["channel", "running_var", "scale", "difference", "ulp of the output", "ulp of the largest"]
    return Report(
        words=tuple(_words(folded, found, data, seed, huge, var, int(worst[0]))),
        sections=(Section(part="fold", title=_title(folded, named, eps) + left_out, columns=heads, rows=rows),),
        document={
            "conv": named.get("conv"),
            "bn": named.get("bn"),
            "eps": eps,
            "weight": {"shape": list(folded.layer.weight.shape), "dtype": dtype_name(folded.layer.weight)},
            "transposed": folded.layer.transposed,
            "groups": folded.layer.groups,
            "data": {"source": "input" if seed is None else "random", "seed": seed, "shape": list(data)},
            "outputs": found.outputs,
            "largest": {
                "difference": found.absolute.max(),
                "ulp": found.ulp.max(),
                "ulp_of_largest": found.of_largest.max(),
                "channel": int(worst[0]),
            },
            "overflowed": _overflowed(folded),
            "huge": huge,
            "channels": {
                "running_var": var,
                "scale": scale,
                "difference": found.absolute,
                "ulp": found.ulp,
                "ulp_of_largest": found.of_largest,
            },
        },
    )


def _title(folded: Folded, named: Mapping[str, str], eps: float) -> str:
    layer = folded.layer
    conv = shown(named.get("conv") or "the weight")
    parts = [f"{shown(named.get('bn') or 'BatchNorm')} folded into {conv}"]
    parts += [f"{layer.weight.shape} {dtype_name(layer.weight)}", f"eps {short(eps)}"]
    parts += ["transposed"] if layer.transposed else []
    parts += [count(layer.groups, "group")] if layer.groups > 1 else []
    return "  ".join(parts)


def _words(
    folded: Folded,
    found: Differences,
    data: tuple[int, ...],
    seed: int | None,
    huge: list[int],
    var: Any,
    worst: int,
) -> Iterator[str]:
    on = "the data" if seed is None else f"random data (seed {seed})"
    yield f"largest difference, of {count(found.outputs, 'exact output')} on {on} of shape {data}:"
    yield (
        f"{_digits(found.of_largest[worst], 3)} units in the last place of the channel's largest output "
        f"(channel {worst}), {_digits(found.ulp.max(), 3)} of the output itself (channel {found.ulp.argmax()})"
    )
    if huge:
        channels = listed([f"{channel} (running_var {_digits(var[channel], 3)})" for channel in huge], most=8)
        yield (
            f"dangerous: the scale is {_HUGE:g} or more in {count(len(huge), 'channel')}: {channels}; "
            "whatever the convolution is off by is multiplied with it"
        )
    if lost := _overflowed(folded):
        yield f"{count(lost, 'number')} of the folded layer overflow {dtype_name(folded.layer.weight)}"


def _digits(value: float, digits: int) -> str:
    return short(float(f"{value:.{digits}g}"))


def _overflowed(folded: Folded) -> int:
    arrays: tuple[Any, ...] = (folded.lost, folded.lost_bias)
    return sum(int(np.count_nonzero(np.isinf(array))) for array in arrays)
