"""A BatchNorm in eval mode folded into the convolution or linear layer before it, and what that changes.

BatchNorm of a convolution's output is a convolution again: each output channel's kernel times weight * rstd, and for a
bias what BatchNorm makes of the old one. Both come from BatchNorm's own lines, in about 106 bits, and are rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.evaluate import Group, worked_out
from normcli.arithmetic.numbers import PAIRS, WIDES, is_far
from normcli.arithmetic.outcome import as_floats
from normcli.arithmetic.result import State
from normcli.errors import InputError
from normcli.floats import Floats, dtype_name, rounded, ulp
from normcli.formula.family import used
from normcli.formula.language import parsed
from normcli.planning.plan import plan
from normcli.words import count

_SCALE = parsed("weight * rstd")
_AT_ONCE = 2**16  # numbers of a weight whose pairs are in memory
_BLOCK = 2**22  # numbers of the data's windows in memory
_SAMPLES, _WINDOWS = 8, 4  # of data that is made up; windows along each axis


class Convolution(NamedTuple):
    """A convolution or a linear layer as torch keeps it: weight of shape (out, in / groups, kernel...).

    A transposed convolution's is (in, out / groups, kernel...). ``bias`` has shape (out), or is None.
    """

    weight: NDArray[Any]
    bias: NDArray[Any] | None = None
    transposed: bool = False
    groups: int = 1

    @property
    def channels(self) -> int:
        """The number of output channels."""
        return int(self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0])

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        return int(self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.groups)

    @property
    def kernel(self) -> tuple[int, ...]:
        """The sizes of the kernel; none of a linear layer."""
        return tuple(self.weight.shape[2:])

    def rows(self) -> NDArray[Any]:
        """The weight with an output channel for each row: (out, in / groups, kernel...), as it multiplies a window."""
        if not self.transposed:
            return self.weight
        turned = self._split(self.weight, self.inputs).swapaxes(1, 2)
        return np.flip(turned.reshape(self.channels, -1, *self.kernel), self._spatial)

    def like(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Such rows in the arrangement of the weight."""
        if not self.transposed:
            return rows
        turned = self._split(np.flip(rows, self._spatial), self.channels).swapaxes(1, 2)
        return np.ascontiguousarray(turned.reshape(self.weight.shape))

    @property
    def _spatial(self) -> tuple[int, ...]:
        return tuple(range(2, self.weight.ndim))

    def _split(self, array: NDArray[Any], channels: int) -> NDArray[Any]:
        return array.reshape(self.groups, channels // self.groups, -1, *self.kernel)


class Folded(NamedTuple):
    """The layer that does both, in the dtype of the weight, and what the rounding took from it.

    ``scale`` is what each output channel is multiplied with. ``lost`` (as the rows of the weight) and ``lost_bias``
    are the rounded numbers less the exact ones.
    """

    layer: Convolution
    scale: Floats
    lost: Floats
    lost_bias: Floats


class Differences(NamedTuple):
    """How far the outputs of the folded layer are from those of the two layers, for each output channel.

    Both are exact, for the numbers that the layers have. ``absolute`` is the largest difference, ``ulp`` the largest
    in units in the last place of the output where it is, ``of_largest`` in those of the channel's largest output.
    """

    outputs: int  # that were compared, of all channels
    absolute: Floats
    ulp: Floats
    of_largest: Floats


def fold(layer: Convolution, norm: State, eps: float) -> Folded:
    """The convolution that gives what BatchNorm gives of the convolution's output.

    ``norm`` has running_mean and running_var of shape (out), and weight and bias where BatchNorm has them.
    Raises InputError for shapes that do not fit, and for a variance that has no root.

    >>> layer = Convolution(np.array([[1.0, 2.0]]), np.array([1.0]))
    >>> folded = fold(layer, State(running_mean=np.array([2.0]), running_var=np.array([4.0])), 0.0)
    >>> folded.layer.weight.tolist(), folded.layer.bias.tolist()
    ([[0.5, 1.0]], [-0.5])
    """
    _check(layer, norm)
    dtype, size = dtype_name(layer.weight), layer.channels
    rows = layer.rows()
    column = (size, *(1 for _ in rows.shape[1:]))
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = {name: np.asarray(v, np.float64) for name in names if (v := getattr(norm, name)) is not None}
    if not (arrays["running_var"] + eps > 0).all():
        wrong = int(np.count_nonzero(~(arrays["running_var"] + eps > 0)))
        raise InputError(f"running_var + eps is not above 0 in {count(wrong, 'channel')}; such a BatchNorm gives NaN")
    arrays["x"] = np.zeros(size) if layer.bias is None else np.asarray(layer.bias, np.float64)
    given = {name: values.reshape(column) for name, values in arrays.items()}
    settled = plan("batch", (1, size), "float64", {"mode": "eval", "eps": eps})
    far = any(map(is_far, (*arrays.values(), np.array([settled.eps]), rows)))
    numbers = WIDES if far else PAIRS
    weight, lost = np.empty(rows.shape, layer.weight.dtype), np.empty(rows.shape)
    bias, lost_bias, scale = np.empty(size, layer.weight.dtype), np.empty(size), np.empty(size)
    step = max(1, _AT_ONCE // math.prod(rows.shape[1:]))
    with np.errstate(all="ignore"):  # what overflows is said in words
        for part in (slice(start, start + step) for start in range(0, size, step)):
            own = {name: numbers.array(values[part]) for name, values in given.items()}
            group = Group(
                used(settled.lines, frozenset(own)), numbers, {**own, "eps": numbers.number(settled.eps)}, [dict], {}
            )
            factor = worked_out(_SCALE, numbers, group.named) if "weight" in own else group["rstd"]
            scale[part] = as_floats(factor).ravel()
            weight[part], lost[part] = _rounded(numbers.array(rows[part]) * factor, numbers, dtype)
            whole, rest = _rounded(group["output"], numbers, dtype)
            bias[part], lost_bias[part] = whole.ravel(), rest.ravel()
    return Folded(layer._replace(weight=layer.like(weight), bias=bias), scale, lost, lost_bias)


def differences(folded: Folded, x: NDArray[Any]) -> Differences:
    """What the rounding of the folded weight changes in the outputs on ``x``, where the kernel lies within it whole.

    ``x`` has shape (N, in, ...), or (N, in) for a linear layer; InputError for another. The kernel takes steps of 1.

    >>> layer = Convolution(np.float32([[1.0], [3.0]]))
    >>> state = State(running_mean=np.zeros(2), running_var=np.array([1.0, 9.0]))
    >>> differences(fold(layer, state, 0.0), np.ones((4, 1))).absolute.tolist()
    [0.0, 0.0]
    """
    layer, dtype = folded.layer, dtype_name(folded.layer.weight)
    windows = _windows(layer, x)
    split = (layer.groups, layer.channels // layer.groups, -1)
    rows, lost = (values.reshape(split).swapaxes(1, 2) for values in (layer.rows().astype(np.float64), folded.lost))
    own = np.asarray(layer.bias, np.float64)
    bias, lost_bias = (values.reshape(split).swapaxes(1, 2) for values in (own, folded.lost_bias))
    found = {name: np.zeros(layer.channels) for name in ("absolute", "ulp", "largest")}
    outputs = 0
    with np.errstate(all="ignore"):
        for block in _blocks(windows, 1 + len(layer.kernel)):
            data = block.reshape(-1, layer.groups, rows.shape[1]).swapaxes(0, 1)
            # The difference itself is a sum of small terms: nothing of it cancels, and float64 is enough.
            moved = np.abs(data @ lost + lost_bias)
            size = np.abs(data @ rows + bias)
            outputs += size.size
            for name, values in (("absolute", moved), ("ulp", moved / ulp(size, dtype)), ("largest", size)):
                found[name] = np.maximum(found[name], values.max(axis=1).ravel())
        of_largest = found["absolute"] / ulp(found["largest"], dtype)
    return Differences(outputs, found["absolute"], found["ulp"], of_largest)


def made_up(layer: Convolution, seed: int) -> NDArray[Any]:
    """Data to compare on, of the standard normal distribution, in the dtype of the weight.

    >>> made_up(Convolution(np.ones((4, 3, 5), np.float32)), 0).shape
    (8, 3, 8)
    """
    spatial = tuple(size + _WINDOWS - 1 for size in layer.kernel)
    shape = (_SAMPLES if layer.kernel else _SAMPLES * _WINDOWS**2, layer.inputs, *spatial)
    return rounded(np.random.default_rng(seed).standard_normal(shape), dtype_name(layer.weight))


def _rounded(exact: Any, numbers: Any, dtype: str) -> tuple[NDArray[Any], Floats]:
    """A number in the dtype, and what it then is more than it was."""
    near = rounded(as_floats(exact), dtype)
    return near, as_floats(numbers.array(near) - exact)


def _check(layer: Convolution, norm: State) -> None:
    shape = layer.weight.shape
    if len(shape) < 2:
        raise InputError(f"the weight has shape {shape}; that of a convolution or linear layer has 2 axes or more")
    if layer.groups < 1 or layer.inputs % layer.groups or layer.channels % layer.groups:
        what = f"{count(layer.inputs if layer.transposed else layer.channels, 'channel')} of the weight {shape}"
        raise InputError(f"the {what} cannot be split into {count(layer.groups, 'group')}")
    axis = 1 if layer.transposed else 0
    arrays: Mapping[str, Any] = {
        "the layer's bias": layer.bias,
        **{f"BatchNorm's {n}": v for n, v in vars(norm).items()},
    }
    for name, values in arrays.items():
        if np.ndim(values) and values.shape != (layer.channels,):
            other = layer._replace(transposed=not layer.transposed)
            fits = values.shape == (other.channels,)
            without = "without" if layer.transposed else "with"
            raise InputError(
                f"{name} has shape {values.shape}; ({layer.channels},) is needed, the output channels "
                f"of the weight {shape} (axis {axis})",
                hint=f"{without} --transposed it would fit" if fits else None,
            )


def _windows(layer: Convolution, x: NDArray[Any]) -> NDArray[Any]:
    """The data as windows of the kernel's size: (N, places..., in, kernel...)."""
    kernel, values = layer.kernel, np.asarray(x, np.float64)
    if values.ndim == 1 + len(kernel):
        values = values[None]  # one sample
    places = values.shape[2:] if kernel else ()
    if not kernel:
        values = values.reshape(-1, values.shape[-1]) if values.ndim else values
    needed = ", ".join(["N", str(layer.inputs), *(f"{size} or more" for size in kernel)])
    fits = values.ndim == 2 + len(kernel) and values.shape[1] == layer.inputs and 0 not in values.shape
    if not fits or any(size < least for size, least in zip(places, kernel, strict=True)):
        raise InputError(f"the data has shape {np.shape(x)}; ({needed}) is needed for the weight {layer.weight.shape}")
    if not np.isfinite(values).all():
        raise InputError("the data holds NaN or infinite values; outputs are compared on finite data")
    if not kernel:
        return values
    axes = tuple(range(2, values.ndim))
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, kernel, axes), 1, values.ndim - 1)


def _blocks(windows: NDArray[Any], own: int) -> Iterator[NDArray[Any]]:
    """The windows in pieces that fit the memory; the last ``own`` axes stay whole."""
    rest = math.prod(windows.shape[1:])
    if rest > _BLOCK and windows.ndim > own + 1:
        for part in windows:
            yield from _blocks(part, own)
        return
    step = max(1, _BLOCK // rest)
    yield from (windows[start : start + step] for start in range(0, len(windows), step))
