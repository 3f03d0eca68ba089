"""The normalization layers of a file: what they can be, their running statistics, and what is odd about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normcli.arithmetic.result import STATE_ARRAYS
from normcli.digits import short
from normcli.errors import InputError
from normcli.layers import RUNNING, Layer, batches, numbers, open_checkpoint
from normcli.showing.report import Section
from normcli.words import count, shown


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A normalization layer as ``normcli state`` lists it; ranges are (smallest, largest)."""

    layer: Layer
    batches: int | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of the running statistics
    remarks: tuple[str, ...] = ()


def summaries(path: str) -> tuple[str, int, list[Summary]]:
    """The file's name, the number of its other layers, and its normalization layers.

    Only running statistics and weights of one axis are read.
    """
    with open_checkpoint(path) as file:
        found = [_summary(layer, file.name) for layer in file.norms]
        return file.name, len(file.layers) - len(found), found


def _summary(layer: Layer, file: str) -> Summary:
    seen: int | None = None
    ranges: dict[str, tuple[float, float]] = {}
    remarks: list[str] = []
    for name, array in layer.arrays.items():
        if len(array.shape) > 1:
            continue
        try:
            values = numbers(array, file).array
            if name == "num_batches_tracked":
                seen = batches(values, shown(array.name))
                continue
        except InputError as error:
            remarks.append(str(error))
            continue
        values = values.astype(np.float64)
        finite = np.isfinite(values)
        if name in RUNNING and finite.any():
            ranges[name] = float(values[finite].min()), float(values[finite].max())
        if name == "running_var" and (values[finite] < 0).any():
            remarks.append(f"{name} holds {count(int((values[finite] < 0).sum()), 'negative value')}")
        if not finite.all():
            remarks.append(f"{name} holds {count(int((~finite).sum()), 'NaN or infinite value')}")
    return Summary(layer=layer, batches=seen, ranges=ranges, remarks=tuple(remarks))


def sections(file: str, found: Sequence[Summary]) -> list[Section]:
    """The layers of a file as tables: what they are, their running statistics, and what is odd about them."""
    layers = [
        [_label(one), ", ".join(name for name in one.layer.arrays if name in STATE_ARRAYS), _sizes(one.layer),
         ", ".join(one.layer.kinds)]
        for one in found
    ]  # fmt: skip
    running = [
        [_label(one), "" if one.batches is None else str(one.batches), *(_range(one, name) for name in RUNNING[:2])]
        for one in found
        if one.batches is not None or one.ranges
    ]
    remarks = [[_label(one), remark] for one in found for remark in one.remarks]
    tables = (
        (f"normalization layers of {file}", ["layer", "arrays", "shape and dtype", "can be"], layers),
        ("running statistics", ["layer", "batches", "running_mean", "running_var"], running),
        ("remarks", ["layer", "remark"], remarks),
    )
    return [Section(part="state", title=title, columns=columns, rows=rows, text=True) for title, columns, rows in tables
            if rows]  # fmt: skip


def document(summary: Summary) -> dict[str, Any]:
    """The JSON parts of one layer."""
    arrays: dict[str, Any] = {}
    for name, array in summary.layer.arrays.items():
        arrays[name] = {"name": array.name, "shape": list(array.shape), "dtype": array.dtype}
        if name in summary.ranges:
            arrays[name] |= dict(zip(("min", "max"), summary.ranges[name], strict=True))
    return {
        "prefix": summary.layer.prefix,
        "kinds": list(summary.layer.kinds),
        "arrays": arrays,
        "num_batches_tracked": summary.batches,
        "remarks": list(summary.remarks),
    }


def _label(summary: Summary) -> str:
    return shown(summary.layer.prefix) or "(no prefix)"


def _sizes(layer: Layer) -> str:
    """The shape that the arrays share, and their dtype; both where they differ."""
    arrays = [array for name, array in layer.arrays.items() if name in STATE_ARRAYS]
    return ", ".join(dict.fromkeys(f"{array.shape} {array.dtype}".replace(",)", ")") for array in arrays))


def _range(summary: Summary, name: str) -> str:
    if name not in summary.ranges:
        return ""
    least, most = (short(value) for value in summary.ranges[name])
    return least if least == most else f"{least} to {most}"
