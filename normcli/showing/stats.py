"""The statistics of a data set, what slips would have made of them, and outlying files, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normcli.digits import aligned
from normcli.showing.report import Report, Section
from normcli.words import count, printable, shown

if TYPE_CHECKING:
    from normcli.datasets.expected import Verdict
    from normcli.datasets.pooling import Pooled

_NUMBERS = ("mean", "std", "std_unbiased", "var", "var_unbiased", "min", "max")
_INFINITE = ("nan", "plus_inf", "minus_inf")
_ROWS = 40  # channels in a table
_COLUMNS = 6  # channels beside one another
_SAME = 1e-6  # as a part: what a slip changes less nobody sees


def report(pooled: Pooled, verdicts: Sequence[Verdict] = (), *, precision: int = 4, exact: bool = False) -> Report:
    """All that is said of a data set; ``exact`` writes every digit."""
    sections = [_statistics(pooled, precision, exact=exact)]
    sections += [section for section in (_slips(pooled, precision, exact=exact), _far(pooled), _bad(pooled)) if section]
    return Report(words=tuple(_words(pooled, verdicts)), sections=tuple(sections), document=_document(pooled, verdicts))


def _statistics(pooled: Pooled, precision: int, *, exact: bool) -> Section:
    labels = _labels(pooled)
    chosen = range(len(labels)) if exact or len(labels) <= _ROWS else [*range(_ROWS // 2), *range(-_ROWS // 2, 0)]
    columns = [labels, [str(n) for n in pooled.n.reshape(-1).tolist()]]
    columns += [_cells(getattr(pooled, name), precision, exact=exact) for name in _NUMBERS]
    names = ["channel", "n", *_NUMBERS]
    for name in _INFINITE:
        if (held := getattr(pooled, name).reshape(-1)).any():
            names.append(name)
            columns.append([str(n) for n in held.tolist()])
    rows = [[column[at] for column in columns] for at in chosen]
    return Section(part="stats", title=_title(pooled), columns=names, rows=rows)


def _title(pooled: Pooled) -> str:
    held = [count(pooled.read, "file" if pooled.files else "batch", None if pooled.files else "batches")]
    if pooled.samples is not None and pooled.samples != pooled.read:
        held.append(count(pooled.samples, "sample"))
    scale = "" if pooled.scale == 1 else f", divided by {pooled.scale:g}"
    return f"statistics of {', '.join(held)}; {', '.join(pooled.part.dtypes)}{scale}"


def _labels(pooled: Pooled) -> list[str]:
    if pooled.columns and len(pooled.shape) == 1:
        return [shown(name, 40) for name in pooled.columns]
    if not pooled.shape:
        return ["all"]
    indices = np.ndindex(*pooled.shape)
    return [str(index[0]) if len(index) == 1 else str(index) for index in indices]


def _cells(values: NDArray[Any], precision: int, *, exact: bool) -> list[str]:
    numbers = values.reshape(-1).tolist()
    return [repr(number) for number in numbers] if exact else aligned(numbers, precision)


def _slips(pooled: Pooled, precision: int, *, exact: bool) -> Section | None:
    labels = _labels(pooled)[: None if exact else _COLUMNS]
    right = {name: getattr(pooled, name).reshape(-1) for name in ("mean", "std")}
    rows = []
    for name in ("std", "mean"):
        for slip in pooled.mistakes:
            values = getattr(slip, name)
            if values is not None and _differs(values, right[name]):
                rows.append([slip.words, name, *_cells(values, precision, exact=exact)[: len(labels)]])
    if not rows:
        return None
    more = f" (the first {len(labels)} channels)" if len(right["std"]) > len(labels) else ""
    heads = [label if label == "all" or pooled.columns else f"channel {label}" for label in labels]
    return Section(
        part="stats",
        title=f"what the usual slips would give{more}",
        columns=["slip", "of", *heads],
        rows=rows,
        labels=2,
    )


def _differs(values: NDArray[Any], right: NDArray[Any]) -> bool:
    with np.errstate(all="ignore"):
        return not np.all(np.abs(values - right) <= _SAME * np.abs(right))


def _far(pooled: Pooled) -> Section | None:
    if not pooled.outliers:
        return None
    rows = [[pooled.name_of(one.file), one.words] for one in pooled.outliers]
    return Section(part="stats", title="outlying files", columns=["file", "what"], rows=rows, text=True)


def _bad(pooled: Pooled) -> Section | None:
    if not pooled.part.bad:
        return None
    rows = [[pooled.name_of(number), reason] for number, reason in pooled.part.bad]
    return Section(part="stats", title="left out", columns=["file", "why"], rows=rows, text=True)


def _words(pooled: Pooled, verdicts: Sequence[Verdict]) -> Iterator[str]:
    hidden = int(np.prod(pooled.shape)) - _ROWS
    if hidden > 0:
        yield f"{count(hidden, 'channel')} in the middle not shown; --json and --format csv hold all"
    for one in verdicts:
        off = f"{one.name} does not check (off by up to {one.error:.4g})"
        if one.ok:
            yield f"{one.name} checks"
        elif one.words:
            yield f"{off}: this slip gives it: {' or '.join(one.words)}   [{', '.join(one.keys)}]"
        else:
            yield f"{off}, and no known slip gives it"


def _document(pooled: Pooled, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "files": pooled.read,
        "samples": pooled.samples,
        "dtypes": list(pooled.part.dtypes),
        "scale": pooled.scale,
        "shape": list(pooled.shape),
        "columns": list(pooled.columns),
        "n": pooled.n.tolist(),
    }
    found |= {name: getattr(pooled, name) for name in _NUMBERS}
    found["nonfinite"] = {name: getattr(pooled, name).tolist() for name in _INFINITE}
    found["mistakes"] = {
        slip.key: {"words": slip.words, "mean": slip.mean, "std": slip.std} for slip in pooled.mistakes
    }
    found["outliers"] = [{"file": pooled.name_of(one.file), "what": one.words} for one in pooled.outliers]
    found["left_out"] = [{"file": pooled.name_of(n), "why": printable(why)} for n, why in pooled.part.bad]
    if verdicts:
        found["check"] = [
            {"name": one.name, "ok": one.ok, "max_error": one.error, "mistakes": list(one.keys)} for one in verdicts
        ]
    return found
