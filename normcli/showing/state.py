"""The normalization layers of a file, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from normcli.digits import short
from normcli.layers import RUNNING
from normcli.planning.kinds import STATE_ARRAYS
from normcli.showing.report import Report, Section
from normcli.words import shown

if TYPE_CHECKING:
    from normcli.layers import Layer, Summary


def report(file: str, others: int, found: Sequence[Summary]) -> Report:
    """What a file holds: its normalization layers, and the number of its other ones."""
    return Report(
        words=() if found else (f"{file} holds no normalization layer",),
        sections=tuple(sections(file, found)),
        document={"file": file, "layers": [document(summary) for summary in found], "others": others},
    )


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
