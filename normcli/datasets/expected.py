"""A constant that is claimed for a data set: whether it is right, and whose slip it is if not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normcli.arithmetic.pool import Floats
from normcli.datasets.pooling import Pooled
from normcli.dtypes import DTYPES
from normcli.errors import InputError
from normcli.files.read import read_tensor
from normcli.floats import dtype_name
from normcli.words import count, either

QUANTITIES = ("mean", "var", "var_unbiased", "std", "std_unbiased", "min", "max")


class Verdict(NamedTuple):
    """Whether a claim holds, by how much it is off at most, and the slips that give it, by their keys and in words."""

    name: str
    ok: bool
    error: float
    keys: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def read(text: str, what: str) -> tuple[Floats, Floats]:
    """The numbers that are claimed, and half a unit of each one's last digit.

    >>> values, half = read("[0.229, 0.2]", "std")
    >>> values.tolist(), half.tolist()
    ([0.229, 0.2], [0.0005, 0.05])
    """
    tensor = read_tensor(text, what=what, keep=True)
    values = np.asarray(tensor.array, np.float64)
    if tensor.written is None:
        return values, np.abs(values) * DTYPES[dtype_name(tensor.array)].eps / 2
    return values, 0.5 * 10.0 ** -np.asarray(tensor.written.decimals(), np.float64)


def judged(pooled: Pooled, name: str, claimed: Floats, half: Floats, *, ddof: int = 0) -> Verdict:
    """A claim for one quantity, right where it lies within half a unit of its last digit of the exact one.

    A single number is claimed for all channels. Raises InputError where there are other channels than numbers.
    """
    exact = {name: getattr(pooled, name) for name in QUANTITIES if name not in ("std", "var")}
    exact |= {"std": pooled.deviation(ddof), "var": pooled.variance(ddof)}
    if name not in exact:
        raise InputError(f"--expect names {name!r}; use {either(QUANTITIES)}")
    right = exact[name].reshape(-1)
    if claimed.size not in (1, right.size):
        raise InputError(
            f"--expect {name} has {count(claimed.size, 'number')}, and there are {count(right.size, 'channel')}"
        )
    claimed, half = (np.broadcast_to(values.reshape(-1), right.shape) for values in (claimed, half))
    error = float(np.max(np.abs(claimed - right)))
    if _is_near(claimed, right, half):
        return Verdict(name, ok=True, error=error)
    found = [(slip.key, slip.words) for slip in pooled.mistakes if _gives(slip, name, claimed, half)]
    if name in ("std", "var"):
        other = exact[f"{name}_unbiased"] if ddof == 0 else getattr(pooled, name)
        if _is_near(claimed, other.reshape(-1), half):
            found.insert(0, ("other_divisor", f"divided by n{'' if ddof else ' - 1'}"))
    return Verdict(
        name, ok=False, error=error, keys=tuple(key for key, _ in found), words=tuple(words for _, words in found)
    )


def _gives(slip: object, name: str, claimed: Floats, half: Floats) -> bool:
    values = getattr(slip, "mean" if name == "mean" else "std", None)
    if values is None or name not in ("mean", "std", "var"):
        return False
    return _is_near(claimed, values**2 if name == "var" else values, half)


def _is_near(claimed: Floats, exact: Floats, half: Floats) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.all(np.abs(claimed - exact) <= half + 4e-16 * np.abs(exact)))
