"""A model's layer into the options of a calculation, and a Result into a state file.

A file is taken as arrays by name, the name as a layer's and the array's own: ``layer1.0.bn1.weight``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from normcli.errors import InputError
from normcli.files import safetensors
from normcli.files.checkpoint import Array
from normcli.files.json import json_chunks
from normcli.files.numbers import Tensor
from normcli.files.read import open_arrays
from normcli.files.write import check_suffix, write_npz
from normcli.floats import as_float_array
from normcli.planning.kinds import KINDS, STATE_ARRAYS, Kind
from normcli.words import count, either, listed, near, quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcli.arithmetic.result import Result

ARRAYS = (*STATE_ARRAYS, "num_batches_tracked")
AFFINE, RUNNING = ("weight", "bias"), ("running_mean", "running_var", "num_batches_tracked")

# What keras and papers, flax, and mxnet call them.
_WORDS = {name: name for name in ARRAYS} | {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
    "scale": "weight", "mean": "running_mean", "var": "running_var",
    "moving_var": "running_var",
}  # fmt: skip
_COLLECTIONS = {"params", "batch_stats"}  # flax keeps a layer's weight in one and its running mean in the other
_NAMED_NORM = re.compile(r"norm|^[bgl]n|[bgl]n\d*$", re.IGNORECASE)

_MOST_NUMBERS = 2**27  # in one array of a layer: 1 GiB as float64


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The arrays under one prefix, by torch's names for them."""

    prefix: str
    arrays: Mapping[str, Array]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of normalization that have such arrays; none for a convolution or a linear layer.

        Running statistics tell batch and instance. Else weight and bias of one shape do, for a
        convolution's weight has more axes than its bias; a weight alone could be anything, so that
        of several axes needs a name that speaks of a norm, as does one of a single number (PReLU).
        """
        shapes = {name: array.shape for name, array in self.arrays.items()}
        if "running_mean" in shapes or "running_var" in shapes:
            of_channels = {shape for name, shape in shapes.items() if name != "num_batches_tracked"}
            both = {"running_mean", "running_var"} <= set(shapes)
            return ("batch", "instance") if both and len(of_channels) == 1 and len(min(of_channels)) == 1 else ()
        weight = shapes.get("weight", ())
        if not weight or shapes.get("bias", weight) != weight:
            return ()
        if "bias" in shapes:
            return ("layer", "group", "instance", "batch") if len(weight) == 1 else ("layer",)
        sure = len(weight) == 1 and weight != (1,)
        return ("rms", "layer") if sure or _NAMED_NORM.search(self.prefix.rpartition(".")[2]) else ()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The layers of an open file by prefix, normalization or not; ``name`` stands for the file in messages."""

    name: str
    layers: Mapping[str, Layer]

    @property
    def norms(self) -> list[Layer]:
        """The layers that can be a normalization."""
        return [layer for layer in self.layers.values() if layer.kinds]

    def layer(self, prefix: str | None, kind: Kind, option: str = "--prefix") -> Layer:
        """The layer of that prefix; without one the arrays without a prefix, or the only normalization layer.

        ``option`` is what tells which.
        """
        if prefix is not None:
            wanted = _dotted(prefix.strip()).strip(".")
            wanted = wanted if wanted in self.layers else wanted.partition(".")[2] if _is_flax(wanted) else wanted
            if wanted not in self.layers:
                raise self._unknown(wanted, [layer.prefix for layer in self.norms])
            return self.layers[wanted]
        if "" in self.layers:
            return self.layers[""]
        norms = sorted(self.norms, key=lambda layer: kind.name not in layer.kinds)
        if not norms:
            raise InputError(f"{self.name} holds no normalization layer")
        if len(norms) > 1:
            names = listed((layer.prefix for layer in norms), most=3)
            raise InputError(
                f"{self.name} holds {len(norms)} normalization layers; say which with {option} {names}",
                hint=f"normcli state {self.name} shows them all",
            )
        return norms[0]

    def convolution(self, prefix: str | None) -> Layer:
        """The convolution or linear layer of that prefix; without one the only one that there is."""
        found = {name: one for name, one in self.layers.items() if len(_shape(one, "weight")) > 1 and not one.kinds}
        if prefix is None and len(found) == 1:
            return next(iter(found.values()))
        if prefix is None:
            names = f"; say which with --conv {listed(found, most=3)}" if found else ""
            raise InputError(f"{self.name} holds {count(len(found), 'convolution or linear layer')}{names}")
        wanted = _dotted(prefix.strip()).strip(".")
        if wanted in self.layers and wanted not in found:
            shape = _shape(self.layers[wanted], "weight")
            holds = f"a weight of shape {shape}" if shape else "no weight"
            raise InputError(f"{shown(wanted)} in {self.name} is no convolution or linear layer: it holds {holds}")
        if wanted not in found:
            raise self._unknown(wanted, list(found))
        return found[wanted]

    def _unknown(self, prefix: str, known: list[str]) -> InputError:
        names = known or list(self.layers)
        meant = [name for name in names if f".{name}".endswith(f".{prefix}")]
        meant = meant or [name for name in names if name.startswith(f"{prefix}.")]
        meant = meant or [name for name in [near(prefix, names)] if name is not None]
        hint = f"did you mean {either(map(shown, meant[:3]))}?" if meant else f"it holds {listed(names, most=5)}"
        return InputError(f"{self.name} holds no layer {quoted(prefix)}", hint=hint if all(meant) else None)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Options with the numbers of a layer filled in."""

    options: dict[str, Any]
    decimals: Mapping[str, NDArray[np.int64]]  # of the arrays that came from the file; EXACT in a binary one
    warnings: tuple[str, ...]


def arrays_of(layer: Layer, file: str) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """The arrays of a layer by torch's names, and what is to be said of them."""
    found = {name: numbers(array, file) for name, array in layer.arrays.items()}
    return {name: one.array for name, one in found.items()}, tuple(w for one in found.values() for w in one.warnings)


def _shape(layer: Layer, name: str) -> tuple[int, ...]:
    """The shape of an array of a layer; that of a number where it has none."""
    return layer.arrays[name].shape if name in layer.arrays else ()


# --- into a calculation ---------------------------------------------------------------------------


def with_state(kind: Kind, given: Mapping[str, Any], path: str, prefix: str | None = None) -> Filled:
    """The options of a calculation, and what they leave open from the layer in the file.

    What is given explicitly wins, and ``affine`` or ``track_running_stats`` False leaves those
    arrays out. As when torch loads a state_dict, an array that the kind does not have is refused:
    a layer with a bias is no RMSNorm. A layer without weight and bias has ``affine`` off; a batch
    norm without running statistics keeps none. Raises InputError or UnavailableError in one sentence.
    """
    with open_checkpoint(path) as file:
        layer = file.layer(prefix, kind)
        where = f"{shown(layer.prefix)} in {file.name}" if layer.prefix else file.name
        left_out = {
            *(AFFINE if given.get("affine") is False else ()),
            *(RUNNING if given.get("track_running_stats") is False else ()),
        }
        wanted = {name: array for name, array in layer.arrays.items() if name not in left_out}
        _refuse_foreign(kind, wanted, where)
        for one, other in (("running_mean", "running_var"), ("running_var", "running_mean")):
            if one in wanted and other not in wanted and other not in given:
                raise InputError(f"{where} holds {one} but no {other}")
        wanted = {name: array for name, array in wanted.items() if name not in given}
        found = {name: numbers(array, file.name) for name, array in wanted.items()}
        decimals = {name: tensor.decimals() for name, tensor in found.items() if name in STATE_ARRAYS}
    arrays = {name: tensor.array for name, tensor in found.items()}
    options = dict(given) | arrays
    if "num_batches_tracked" in arrays:
        options["num_batches_tracked"] = batches(arrays["num_batches_tracked"], where)
    options, implied = _implied(kind, options, where)
    lost = tuple(warning for tensor in found.values() for warning in tensor.warnings)
    return Filled(options=options, decimals=decimals, warnings=(*lost, *implied))


def _refuse_foreign(kind: Kind, names: Iterable[str], where: str) -> None:
    for name in names:
        if name not in kind.options:
            owners = [other.name for other in KINDS.values() if name in other.options]
            raise InputError(f"{where} holds {name}, which {kind.title} does not have; use {either(owners)}")


def _implied(kind: Kind, options: dict[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options with those that the layer's arrays imply, as torch's module would have them."""
    if not any(name in options for name in (*AFFINE, "affine")):
        options["affine"] = False
    sized = options.get("weight", options.get("bias"))
    if "normalized_shape" in kind.options and "normalized_shape" not in options and sized is not None:
        options["normalized_shape"] = np.shape(sized)
    if not kind.tracks or any(name in options for name in (*RUNNING, "track_running_stats")):
        return options, ()
    options["track_running_stats"] = False
    warning = f"{where} holds no running statistics, so none are kept, and eval takes those of the batch"
    return options, (f"{warning}; --track-running-stats starts them at 0 and 1",)


def numbers(array: Array, file: str) -> Tensor:
    """The numbers of an array of a layer; InputError for too many of them, for none and for what is no real number."""
    what = f"{file}::{shown(array.name)}"
    if math.prod(array.shape) > _MOST_NUMBERS:
        raise InputError(f"{what} has shape {array.shape}; {_MOST_NUMBERS} numbers are the most a layer may have")
    if 0 in array.shape:
        raise InputError(f"{what} has no elements (shape {array.shape})")
    tensor = array.read()
    return replace(tensor, array=as_float_array(tensor.array, name=what))


def batches(array: NDArray[Any], where: str) -> int:
    """The number of batches that a layer has seen.

    >>> batches(np.array([3.0]), "x")
    3
    """
    number = float(array.reshape(-1)[0]) if array.size == 1 else math.nan
    if not (number >= 0 and number.is_integer()):
        raise InputError(f"{where} has a num_batches_tracked that is no whole number from 0")
    return int(number)


# --- what a file holds ----------------------------------------------------------------------------


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
        elif name == "weight" and "layer" in layer.kinds and is_about_zero(values):
            remarks.append("this layer may add 1 (--weight-offset 1): its weights lie about 0, not about 1")
    return Summary(layer=layer, batches=seen, ranges=ranges, remarks=tuple(remarks))


def is_about_zero(weight: NDArray[np.float64]) -> bool:
    """Whether weights lie about 0, as where 1 is added to them: their mean is less than half their deviation, or all 0.

    Weights that are multiplied by as they are start from 1 and stay positive, or nearly all do, however small
    training makes them; about 0 they would leave nothing of what they multiply.

    >>> is_about_zero(np.array([0.1, -0.2, 0.05])), is_about_zero(np.array([0.02, 0.05, 0.01]))
    (True, False)
    """
    return bool(abs(weight.mean()) < weight.std() / 2 or not weight.any())


# --- reading --------------------------------------------------------------------------------------


@contextmanager
def open_checkpoint(path: str) -> Iterator[Checkpoint]:
    """The layers of a file, which stays open for their arrays to be read; the errors are those of ``open_arrays``."""
    with open_arrays(path, _is_known) as (name, arrays):
        yield Checkpoint(name=name, layers=_layers(arrays, name))


def _layers(arrays: list[Array], name: str) -> dict[str, Layer]:
    roots = {_dotted(array.name).partition(".")[0] for array in arrays}
    found: dict[str, dict[str, Array]] = {}
    for array in arrays:
        prefix, _, word = _dotted(array.name).rpartition(".")
        if roots >= _COLLECTIONS and _is_flax(prefix):
            prefix = prefix.partition(".")[2]
        layer = found.setdefault(prefix, {})
        there = layer.get(_WORDS[word])
        if there is not None and _dotted(there.name) == _dotted(array.name):
            raise InputError(f"{name} holds two arrays named {shown(array.name)}")
        if there is None or word in ARRAYS:  # torch's own name comes before another word for it
            layer[_WORDS[word]] = array
    ordered = {prefix: {name: layer[name] for name in ARRAYS if name in layer} for prefix, layer in found.items()}
    return {prefix: Layer(prefix=prefix, arrays=layer) for prefix, layer in ordered.items()}


def _dotted(name: str) -> str:
    """The name with dots between its parts, where keras and flax write ``bn/gamma:0``."""
    return name.replace("/", ".").removesuffix(":0")


def _is_flax(name: str) -> bool:
    return name.partition(".")[0] in _COLLECTIONS


def _is_known(name: str) -> bool:
    """Whether it is the name of an array that a normalization can have."""
    return _dotted(name).rpartition(".")[2] in _WORDS


# --- writing --------------------------------------------------------------------------------------


def state_arrays(result: Result) -> dict[str, NDArray[Any]]:
    """The layer's arrays after a calculation under torch's names, as its module's state_dict would have them.

    Weight and bias (ones and zeros unless given) come with ``affine``, the running statistics where
    they are kept. Each array keeps its dtype: what was read comes back bit for bit, and the running
    statistics are float64 once a batch has moved them. Raises InputError where there is nothing.

    >>> from normcli.calculate import normalize
    >>> list(state_arrays(normalize([[1.0, 2], [3, 5]], "batch", affine=False)))
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    plan, state = result.plan, result.after
    arrays: dict[str, NDArray[Any]] = {}
    if plan.affine:
        for name, number in plan.neutral.items():
            value = getattr(state, name)
            arrays[name] = np.full(plan.weight_shape, number) if value is None else np.asarray(value)
    if plan.track_running_stats:
        arrays["running_mean"] = np.asarray(state.running_mean)
        arrays["running_var"] = np.asarray(state.running_var)
        arrays["num_batches_tracked"] = np.asarray(state.num_batches_tracked, np.int64)
    if not arrays:
        raise InputError(
            "there is no state to save: neither running statistics nor weight and bias",
            hint="--track-running-stats keeps running statistics, --affine weight and bias",
        )
    return arrays


def write_state_to(stream: BinaryIO, path: str, result: Result) -> None:
    """Write the state after a calculation; the errors are those of ``write_arrays_to`` and ``state_arrays``."""
    write_arrays_to(stream, path, state_arrays(result))


def write_arrays_to(stream: BinaryIO, path: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, in the format of the suffix of the path that they go to; the error is its check's."""
    from pathlib import PurePath

    check_suffix(path, FORMATS)
    FORMATS[PurePath(path).suffix.lower()](stream, arrays)


def _write_json(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    text = ", ".join(
        f"{json.dumps(name)}: {int(array) if name == 'num_batches_tracked' else ''.join(json_chunks(array))}"
        for name, array in arrays.items()
    )
    stream.write(f"{{{text}}}\n".encode("ascii"))


FORMATS: Mapping[str, Callable[[BinaryIO, Mapping[str, NDArray[Any]]], None]] = {
    ".json": _write_json,
    ".npz": write_npz,
    ".safetensors": safetensors.write,
}
