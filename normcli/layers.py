"""The numbers of a layer in a file: JSON, NPZ, safetensors, or a PyTorch checkpoint; told by content.

A file is taken as arrays by name, the name as a layer's and the array's own: ``layer1.0.bn1.weight``.
No array is read before it is asked for. Nothing is unpickled here: a PyTorch checkpoint, which is a
pickle, is left to torch's own restricted reader, and only where that has no known holes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from normcli.arithmetic.run import with_torch
from normcli.calculate import STATE_ARRAYS
from normcli.errors import InputError, NormcliError, UnavailableError
from normcli.files import npy, safetensors
from normcli.files.npy import read_up_to
from normcli.files.read import ZIP, Tensor, archive_bytes, check_packing, extent, open_file, read_text
from normcli.files.text import EXACT, json_document, numbers_of, to_float64
from normcli.files.write import check_suffix, json_chunks
from normcli.floats import as_float_array
from normcli.planning.kinds import KINDS, Kind
from normcli.words import count, either, listed, near, quoted, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcli.arithmetic.result import Result

Shape = tuple[int, ...]

ARRAYS = (*STATE_ARRAYS, "num_batches_tracked")
AFFINE, RUNNING = ("weight", "bias"), ("running_mean", "running_var", "num_batches_tracked")

# What keras and papers, flax, and mxnet call them.
_WORDS = {name: name for name in ARRAYS} | {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
    "scale": "weight", "mean": "running_mean", "var": "running_var",
    "moving_var": "running_var",
}  # fmt: skip
_COLLECTIONS = {"params", "batch_stats"}  # flax keeps a layer's weight in one and its running mean in the other
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training scripts put the state_dict
_NAMED_NORM = re.compile(r"norm|^[bgl]n|[bgl]n\d*$", re.IGNORECASE)

_LONGEST_NAME = 1000  # characters; names nested in JSON could else grow as the square of the file
_MOST_NUMBERS = 2**27  # in one array of a layer: 1 GiB as float64

# weights_only ran code until 2.6.0 (CVE-2025-32434) and let memory be corrupted until 2.10.0 (CVE-2026-24747).
_SAFE_TORCH = (2, 10)
_AS_SAFETENSORS = "from Python: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"


@dataclass(frozen=True, kw_only=True)
class Array:
    """An array of a file: its name there, what the header says, and how to read it (with what was lost, in words)."""

    name: str
    shape: Shape
    dtype: str
    read: Callable[[], tuple[Any, tuple[str, ...]]]
    decimals: Callable[[], NDArray[np.int64]] | None = None  # with which the numbers are written, in text


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

    def layer(self, prefix: str | None, kind: Kind) -> Layer:
        """The layer of that prefix; without one the arrays without a prefix, or the only normalization layer."""
        if prefix is not None:
            wanted = _dotted(prefix.strip()).strip(".")
            wanted = wanted if wanted in self.layers else wanted.partition(".")[2] if _is_flax(wanted) else wanted
            if wanted not in self.layers:
                raise self._unknown(wanted)
            return self.layers[wanted]
        if "" in self.layers:
            return self.layers[""]
        norms = sorted(self.norms, key=lambda layer: kind.name not in layer.kinds)
        if not norms:
            raise InputError(f"{self.name} holds no normalization layer")
        if len(norms) > 1:
            names = listed((layer.prefix for layer in norms), most=3)
            raise InputError(
                f"{self.name} holds {len(norms)} normalization layers; say which with --prefix {names}",
                hint=f"normcli state {self.name} shows them all",
            )
        return norms[0]

    def _unknown(self, prefix: str) -> InputError:
        names = [layer.prefix for layer in self.norms] or list(self.layers)
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
        found = {name: _numbers(array, file.name) for name, array in wanted.items()}
        decimals = {
            name: np.full(array.shape, EXACT) if array.decimals is None else array.decimals()
            for name, array in wanted.items()
            if name in STATE_ARRAYS
        }
    arrays = {name: tensor.array for name, tensor in found.items()}
    options = dict(given) | arrays
    if "num_batches_tracked" in arrays:
        options["num_batches_tracked"] = _batches(arrays["num_batches_tracked"], where)
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
    if kind.name != "batch" or any(name in options for name in (*RUNNING, "track_running_stats")):
        return options, ()
    options["track_running_stats"] = False
    warning = f"{where} holds no running statistics, so none are kept, and eval takes those of the batch"
    return options, (f"{warning}; --track-running-stats starts them at 0 and 1",)


def _numbers(array: Array, file: str) -> Tensor:
    what = f"{file}::{shown(array.name)}"
    if math.prod(array.shape) > _MOST_NUMBERS:
        raise InputError(f"{what} has shape {array.shape}; {_MOST_NUMBERS} numbers are the most a layer may have")
    if 0 in array.shape:
        raise InputError(f"{what} has no elements (shape {array.shape})")
    values, warnings = array.read()
    return Tensor(array=as_float_array(values, name=what), warnings=warnings)


def _batches(array: NDArray[Any], where: str) -> int:
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
    batches: int | None = None
    ranges: dict[str, tuple[float, float]] = {}
    remarks: list[str] = []
    for name, array in layer.arrays.items():
        if len(array.shape) > 1:
            continue
        try:
            values = _numbers(array, file).array
            if name == "num_batches_tracked":
                batches = _batches(values, shown(array.name))
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
    return Summary(layer=layer, batches=batches, ranges=ranges, remarks=tuple(remarks))


# --- reading --------------------------------------------------------------------------------------


@contextmanager
def open_checkpoint(path: str) -> Iterator[Checkpoint]:
    """The layers of a file, which stays open for their arrays to be read; ``-`` is standard input.

    Raises InputError, in one sentence, for a file that holds no arrays by name or is damaged, and
    UnavailableError for a PyTorch checkpoint where no safe torch is there to read it.
    """
    name = "standard input" if path == "-" else shown(path, 200)
    try:
        with open_file(path) as stream:
            yield Checkpoint(name=name, layers=_layers(list(_arrays(stream, name)), name))
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from None
    except MemoryError:
        raise UnavailableError(f"{name} does not fit in memory") from None


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


def _arrays(stream: BinaryIO, name: str) -> Iterator[Array]:
    start, size = extent(stream)
    head = read_up_to(stream, 9)
    if not head:
        raise InputError(f"{name} is empty")
    if head.startswith(ZIP):
        yield from _of_zip(archive_bytes(stream, start, head, name), name)
    elif _is_safetensors(head, name):
        stream = archive_bytes(stream, start, head, name)
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        yield from _of_safetensors(stream, size, name)
    elif head.startswith(npy.MAGIC):
        raise InputError(f"{name} holds one array without a name; a state is several: weight, bias, running_mean, ...")
    elif head.startswith(b"\x80"):
        raise InputError(f"{name} looks like a Python pickle, which is never loaded", hint=_AS_SAFETENSORS)
    else:
        yield from _of_json(json_document(read_text(stream, head, size, name), name, keep=True), name)


def _is_safetensors(head: bytes, name: str) -> bool:
    """Whether the file begins with a length and a JSON object; text holds no NUL, which a length does."""
    if b"\0" in head[:8]:
        return head[8:] == b"{" or name.lower().endswith(".safetensors")
    return name.lower().endswith(".safetensors") and not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def _of_safetensors(stream: BinaryIO, size: int, name: str) -> Iterator[Array]:
    known = {key: stored for key, stored in safetensors.read_header(stream, size, name).items() if _is_known(key)}
    for key in sorted(known, key=_by_numbers):  # the format's own order is that of the dtypes' sizes
        yield _of_stored(stream, key, known[key], name)


def _by_numbers(name: str) -> list[list[tuple[int, str]]]:
    """A key for sorting by the parts of a name, in which layer10 comes after layer2."""
    pieces = [re.split(r"([0-9]+)", part) for part in name.split(".")]
    # A number is longer than a smaller one: Python makes none of more than 4300 digits.
    return [
        [(len(n := piece.lstrip("0")), n) if piece.isdecimal() else (-1, piece) for piece in part] for part in pieces
    ]


def _of_stored(stream: BinaryIO, key: str, stored: safetensors.Stored, name: str) -> Array:
    return Array(
        name=key,
        shape=stored.shape,
        dtype=stored.dtype,
        read=lambda: npy.as_floating(safetensors.read_tensor(stream, stored, f"{name}::{shown(key)}")),
    )


def _of_json(document: Any, name: str) -> Iterator[Array]:
    if not isinstance(document, dict):
        raise InputError(f"{name} is not a state: a JSON object with the keys weight, bias, running_mean, ...")
    index = document.get("weight_map")
    if isinstance(index, dict):
        files = listed(sorted(set(map(str, index.values()))), most=3)
        raise InputError(f"{name} is an index of the files {files}; give the one that holds the layer")
    for key, value in _flat(document, name):
        if _is_known(key) and isinstance(value, list | int | float) and not isinstance(value, bool):
            yield _of_value(key, value, name)


def _of_value(key: str, value: Any, name: str) -> Array:
    numbers = numbers_of(value, f"{name}::{shown(key)}")
    return Array(
        name=key,
        shape=numbers.shape,
        dtype="float64",
        read=lambda: to_float64(numbers, f"{name}::{shown(key)}"),
        decimals=numbers.decimals,
    )


def _flat(document: Mapping[Any, Any], file: str) -> Iterator[tuple[str, Any]]:
    """The values of nested mappings under dotted names; a mapping that holds itself is taken once."""
    waiting: list[tuple[str, Any]] = [("", document)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if len(name) > _LONGEST_NAME:
            raise InputError(f"{file} has a name of more than {_LONGEST_NAME} characters: {shown(name)}")
        if not isinstance(value, Mapping):
            yield name, value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += reversed([(f"{name}.{key}" if name else str(key), item) for key, item in value.items()])


def _of_zip(stream: BinaryIO, name: str) -> Iterator[Array]:
    from zipfile import ZipFile

    try:
        archive = ZipFile(stream)  # open as long as the stream: its arrays are read later
        members = archive.infolist()
        if any(member.filename.endswith("data.pkl") for member in members):
            _check_stored(members, name)
            stream.seek(0)
            yield from _of_torch(stream, name)
            return
        if not any(member.filename.endswith(".npy") for member in members):
            raise InputError(f"{name} holds no arrays")
        for member in members:
            key = member.filename.removesuffix(".npy")
            if key != member.filename and _is_known(key):
                yield _of_member(archive, member, f"{name}::{shown(key)}", key)
    except (NormcliError, MemoryError, GeneratorExit):
        raise
    except Exception as error:  # zipfile raises a dozen types on damaged archives
        raise _damaged(name, error) from None


def _of_member(archive: Any, member: Any, inner: str, key: str) -> Array:
    check_packing(member, inner)
    with archive.open(member) as packed:
        header = npy.read_header(cast(BinaryIO, packed), inner, bfloat16=True)

    def read() -> tuple[Any, tuple[str, ...]]:
        try:
            with archive.open(member) as packed:
                data = cast(BinaryIO, packed)
                stored = npy.read_header(data, inner, bfloat16=True)
                return npy.as_floating(npy.read_data(data, stored, inner, member.file_size))
        except (NormcliError, MemoryError):
            raise
        except Exception as error:
            raise _damaged(inner, error) from None

    return Array(name=key, shape=header.shape, dtype=header.dtype.name, read=read)


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(f"{name} is damaged: {shown(str(error) or type(error).__name__)}")


def _check_stored(members: Iterable[Any], name: str) -> None:
    """Refuse what torch never writes: packed members, which could unpack to anything, and programs."""
    from zipfile import ZIP_STORED

    for member in members:
        if member.compress_type != ZIP_STORED or member.file_size != member.compress_size:
            raise InputError(f"{name} is a PyTorch file with packed members, which torch.save never writes")
        if member.filename.endswith("constants.pkl"):
            raise InputError(f"{name} is a TorchScript program, not a state_dict", hint=_AS_SAFETENSORS)


def _of_torch(stream: BinaryIO, name: str) -> Iterator[Array]:
    """The tensors of a checkpoint, by torch's reader for weights alone, which runs no code of the file."""
    loaded = _loaded_by_torch(stream, name)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{name} holds a {type(loaded).__name__}, not a state_dict", hint=_AS_SAFETENSORS)
    for key, value in _flat(loaded, name):
        if _is_known(key) and hasattr(value, "detach"):
            yield _of_tensor(key, value, name)


def _loaded_by_torch(stream: BinaryIO, name: str) -> Any:
    import pickle
    import warnings

    what = f"{name} is a PyTorch checkpoint, a pickle"
    missing = f"{what}, which only torch may read, and it is not installed"
    torch = with_torch("torch", missing, _AS_SAFETENSORS, names=("__version__", "load"))
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        raise UnavailableError(
            f"{what}, and a crafted one could run code in torch {torch.__version__} even with weights_only=True; "
            f"{_SAFE_TORCH[0]}.{_SAFE_TORCH[1]} or later reads it safely",
            _AS_SAFETENSORS,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on its own storages
            return torch.load(stream, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{name} holds more than tensors, or is damaged: torch's reader for weights alone refuses it",
            f"save the state_dict alone, {_AS_SAFETENSORS}",
        ) from None
    except Exception as error:  # torch raises whatever its parts raise
        raise _damaged(name, error) from None


def _of_tensor(key: str, tensor: Any, name: str) -> Array:
    dtype = str(tensor.dtype).removeprefix("torch.")

    def read() -> tuple[Any, tuple[str, ...]]:
        try:
            return as_float_array(tensor, name=f"{name}::{shown(key)}"), ()
        except (NormcliError, MemoryError):
            raise
        except Exception as error:  # sparse, quantized, on the meta device, of a dtype that NumPy lacks
            reason = shown(str(error).split("\n")[0])
            raise InputError(f"{name}::{shown(key)} is of dtype {dtype} and cannot be read: {reason}") from None

    return Array(name=key, shape=tuple(tensor.shape), dtype=dtype, read=read)


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
        arrays["weight"] = np.ones(plan.weight_shape) if state.weight is None else np.asarray(state.weight)
        arrays["bias"] = np.zeros(plan.weight_shape) if state.bias is None else np.asarray(state.bias)
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
    """Write the state after a calculation, in the format of the suffix of the path that it goes to.

    The errors are those of ``check_suffix`` and ``state_arrays``.
    """
    from pathlib import PurePath

    check_suffix(path, FORMATS)
    FORMATS[PurePath(path).suffix.lower()](stream, state_arrays(result))


def _write_json(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    text = ", ".join(
        f'"{name}": {int(array) if name == "num_batches_tracked" else "".join(json_chunks(array))}'
        for name, array in arrays.items()
    )
    stream.write(f"{{{text}}}\n".encode("ascii"))


def _write_npz(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    from zipfile import ZipFile

    with ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(cast(BinaryIO, member), array)


FORMATS: Mapping[str, Callable[[BinaryIO, Mapping[str, NDArray[Any]]], None]] = {
    ".json": _write_json,
    ".npz": _write_npz,
    ".safetensors": safetensors.write,
}
