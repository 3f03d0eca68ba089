"""A model's file as arrays by name, the name as a layer's and the array's own: ``layer1.0.bn1.weight``.

No array is read before it is asked for. Nothing is unpickled here: a PyTorch checkpoint, which is a
pickle, is left to torch's own restricted reader, and only where that has no known holes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from normcli.errors import InputError, NormcliError, UnavailableError, with_torch
from normcli.files.json import document
from normcli.files.numbers import Shape, Tensor, numbers_of, to_float64
from normcli.files.streams import Source
from normcli.floats import as_float_array, dtype_name
from normcli.words import listed, shown

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training scripts put the state_dict
_LONGEST_NAME = 1000  # characters; names nested in JSON could else grow as the square of the file

# weights_only ran code until 2.6.0 (CVE-2025-32434) and let memory be corrupted until 2.10.0 (CVE-2026-24747).
_SAFE_TORCH = (2, 10)
_AS_SAFETENSORS = "from Python: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"


@dataclass(frozen=True, kw_only=True)
class Array:
    """An array of a file: its name there, what the header says of it, and how to read it."""

    name: str
    shape: Shape
    dtype: str
    read: Callable[[], Tensor]


@contextmanager
def damage_of(name: str) -> Iterator[None]:
    """What is done within reads what ``name`` stands for; whatever a library raises of it is an InputError, in words.

    >>> with damage_of("x.npz"):
    ...     raise RuntimeError("bad magic number")
    Traceback (most recent call last):
    normcli.errors.InputError: x.npz is damaged: bad magic number
    """
    try:
        yield
    except (NormcliError, MemoryError):
        raise
    except Exception as error:  # zipfile and torch raise a dozen types on damaged files
        raise InputError(f"{name} is damaged: {shown(str(error) or type(error).__name__)}") from None


def arrays(source: Source, wanted: Callable[[str], bool]) -> Iterator[Array]:
    """The arrays of a JSON document whose names are wanted, nested ones under dotted names.

    >>> from io import BytesIO
    >>> [array.name for array in arrays(Source(BytesIO(b'{"bn": {"weight": [1, 2]}}'), "x"), lambda name: True)]
    ['bn.weight']
    """
    name = source.name
    if source.head.startswith(b"\x80"):
        raise InputError(f"{name} looks like a Python pickle, which is never loaded", hint=_AS_SAFETENSORS)
    held = document(source.text(), name, keep=True)
    if not isinstance(held, dict):
        raise InputError(f"{name} is not a state: a JSON object with the keys weight, bias, running_mean, ...")
    index = held.get("weight_map")
    if isinstance(index, dict):
        files = listed(sorted(set(map(str, index.values()))), most=3)
        raise InputError(f"{name} is an index of the files {files}; give the one that holds the layer")
    for key, value in _flat(held, name):
        if wanted(key) and isinstance(value, list | int | float) and not isinstance(value, bool):
            yield _of_value(key, value, name)


def chosen(names: list[str], name: str, key: str | None) -> int:
    """Which of the arrays of a file has that name, or the only one's number; InputError where that cannot be told.

    >>> chosen(["weight", "bias"], "x.npz", "bias")
    1
    """
    if key is None and len(names) > 1:
        hint = f"{name}::{shown(names[0])} is the first"
        raise InputError(f"{name} holds {len(names)} arrays: {listed(names)}; choose one", hint=hint)
    if not names:
        raise InputError(f"{name} holds no arrays")
    if key is None:
        return 0
    if names.count(key) != 1:
        problem = "two arrays" if key in names else "no array"
        raise InputError(f"{name} holds {problem} named {shown(key)}; it has {listed(names)}")
    return names.index(key)


def check_stored(members: Iterable[Any], name: str) -> None:
    """Refuse what torch never writes: packed members, which could unpack to anything, and programs."""
    from zipfile import ZIP_STORED

    for member in members:
        if member.compress_type != ZIP_STORED or member.file_size != member.compress_size:
            raise InputError(f"{name} is a PyTorch file with packed members, which torch.save never writes")
        if member.filename.endswith("constants.pkl"):
            raise InputError(f"{name} is a TorchScript program, not a state_dict", hint=_AS_SAFETENSORS)


def tensors_of_torch(stream: BinaryIO, name: str, wanted: Callable[[str], bool]) -> Iterator[Array]:
    """The tensors of a checkpoint, by torch's reader for weights alone, which runs no code of the file."""
    loaded = _loaded_by_torch(stream, name)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{name} holds a {type(loaded).__name__}, not a state_dict", hint=_AS_SAFETENSORS)
    for key, value in _flat(loaded, name):
        if wanted(key) and hasattr(value, "detach"):
            yield _of_tensor(key, value, name)


def _of_value(key: str, value: Any, name: str) -> Array:
    what = f"{name}::{shown(key)}"
    numbers = numbers_of(value, what)

    def read() -> Tensor:
        values, warnings = to_float64(numbers, what)
        return Tensor(array=values, warnings=warnings, written=numbers)

    return Array(name=key, shape=numbers.shape, dtype="float64", read=read)


def _flat(held: Mapping[Any, Any], file: str) -> Iterator[tuple[str, Any]]:
    """The values of nested mappings under dotted names; a mapping that holds itself is taken once."""
    waiting: list[tuple[str, Any]] = [("", held)]
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
    with damage_of(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on its own storages
        try:
            return torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise InputError(
                f"{name} holds more than tensors, or is damaged: torch's reader for weights alone refuses it",
                f"save the state_dict alone, {_AS_SAFETENSORS}",
            ) from None


def _of_tensor(key: str, tensor: Any, name: str) -> Array:
    what, dtype = f"{name}::{shown(key)}", dtype_name(tensor)

    def read() -> Tensor:
        try:
            return Tensor(array=as_float_array(tensor, name=what))
        except (NormcliError, MemoryError):
            raise
        except Exception as error:  # sparse, quantized, on the meta device, of a dtype that NumPy lacks
            reason = shown(str(error).split("\n")[0])
            raise InputError(f"{what} is of dtype {dtype} and cannot be read: {reason}") from None

    return Array(name=key, shape=tuple(tensor.shape), dtype=dtype, read=read)
