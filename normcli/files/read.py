"""What is read: the table of formats, and the one reader of tensors, documents and arrays by name.

What a file, a pipe or a word of the command line holds is told by content, not by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from normcli.dtypes import FLOAT_DTYPES
from normcli.errors import InputError
from normcli.files import json
from normcli.files.numbers import Numbers, Tensor, to_float64
from normcli.files.streams import Source, exists, missing, opened
from normcli.files.text import BLANKS, CALL, looks_like_tensor
from normcli.floats import rounded
from normcli.words import count, shown

if TYPE_CHECKING:
    from normcli.files.checkpoint import Array

# What tells a format: the first bytes of a file, or how a text begins. A module is imported when its format is met.
_BINARY: Mapping[bytes, str] = {
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",  # an archive without members
    b"\x93": "npy",  # no text begins with this byte
}
_TEXTS: Mapping[str, str] = {
    "json": r"[\[{]",
    "pasted": rf"[\[(]|{CALL}",  # also a list that is not JSON
    "table": "",
}


def read_tensor(
    given: str,
    *,
    what: str = "the tensor",
    key: str | None = None,
    stdin: BinaryIO | None = None,
    dtype: str | None = None,
    keep: bool = False,
) -> Tensor:
    """Read a tensor from what stands on the command line: a literal, a path, or ``-`` for standard input.

    A file may hold NPY, NPZ, safetensors, JSON, CSV or the text that ``print`` shows of a tensor. Binary
    files keep their floating dtype and pasted text the one it names; all else is float64, or ``dtype`` if given.
    ``key`` names one array of a file that holds several under names (as does ``file::name``); ``what``
    stands for a literal in messages; ``keep`` keeps how the numbers of a text are written. Raises
    InputError, in one sentence, for what is no tensor, and UnavailableError for one that does not fit
    in memory.

    >>> read_tensor("[[1, 2.5]]").array.tolist(), read_tensor(" -1e-400").warnings
    ([[1.0, 2.5]], ('-1e-400 rounds to 0',))
    """
    return _read(given, what, key, stdin, dtype, keep=keep, each=False)[0]


def read_tensors(
    given: str, *, what: str = "the tensor", key: str | None = None, dtype: str | None = None
) -> list[Tensor]:
    """As ``read_tensor``, every tensor where the text is JSON Lines: one document to a line.

    >>> [tensor.array.tolist() for tensor in read_tensors("[1, 2]\\n[3, 4]")]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return _read(given, what, key, None, dtype, keep=False, each=True)


def read_tensor_text(text: str, what: str = "the tensor", *, key: str | None = None) -> Tensor:
    """Read a tensor from text that is already here: JSON, CSV, or what ``print`` shows.

    >>> str(read_tensor_text("array([[0., 1.]], dtype=float32)").array.dtype)
    'float32'
    """
    return _of_text(text, what, key, keep=False, each=False)[0]


def read_document(path: str) -> Any:
    """The JSON value that a file holds, or standard input for ``-``; its numbers are Written.

    >>> read_document("/dev/null")
    Traceback (most recent call last):
    normcli.errors.InputError: /dev/null is empty
    """
    with opened(path) as source:
        return json.document(source.text(), source.name, keep=True)


@contextmanager
def open_arrays(path: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, list[Array]]]:
    """The name of a file for messages and its arrays by name, those that are wanted, while it is open to read them.

    The file is NPZ, safetensors, JSON or a PyTorch checkpoint; ``-`` is standard input. Raises InputError,
    in one sentence, for one that holds no arrays by name or is damaged, and UnavailableError for a
    PyTorch checkpoint where no safe torch is there to read it.
    """
    with opened(path) as source:
        format_ = _format(source)
        if format_ != "npz" and path.lower().endswith(".safetensors") and not _may_be_json(source.head):
            format_ = "safetensors"  # damaged, perhaps
        yield source.name, list(_module(format_ or "checkpoint").arrays(source, wanted))


def parse(text: str, name: str, *, key: str | None = None, keep: bool = False, each: bool = False) -> list[Numbers]:
    """The numbers of JSON, pasted or CSV text; ``name`` stands for the text in messages.

    ``key`` chooses from a JSON object, else ``data``, ``output`` or ``input`` is taken. ``keep`` keeps
    how every number is written. There are several only with ``each``, of JSON Lines. Raises InputError
    for what is no tensor.

    >>> parse("[[1, 2.50]]", "x", keep=True)[0].decimals().tolist()
    [[1000, 2]]
    """
    text = text.removeprefix("\ufeff")
    if not text.isascii():
        text = text.replace("\u2212", "-")  # the minus sign of typeset pages
    begun = text.strip(BLANKS)
    if not begun:
        raise InputError(f"{name} is empty")
    found: list[Numbers] | None = None
    for format_, begins in _TEXTS.items():
        if found is None and re.compile(begins).match(begun):
            found = _module(format_).parse(text, name, key=key, keep=keep, each=each)
    assert found is not None  # whatever it is, it is read as a table
    if key is not None and begun[0] != "{" and len(found) == 1:
        raise InputError(f"{name} holds one tensor without a name; there is no {shown(key)} to choose")
    return found


def _read(
    given: str, what: str, key: str | None, stdin: BinaryIO | None, dtype: str | None, *, keep: bool, each: bool
) -> list[Tensor]:
    found: list[Tensor]
    text = given.strip(BLANKS)
    if not text:
        raise InputError(f"{what} is empty")
    if place := ("-", key) if text == "-" else _file(given, text, key):
        path, key = place
        with opened(path, stdin) as source:
            if format_ := _format(source):
                found = _module(format_).tensors(source, key=key, dtype=dtype)
            else:
                name = f"{source.name} (text, not NPY)" if source.name.endswith((".npy", ".npz")) else source.name
                found = _of_text(source.text(name), name, key, keep=keep, each=each)
    elif looks_like_tensor(text):
        found = _of_text(text, what, key, keep=keep, each=each)
    else:
        raise missing(text, ", and it is not a tensor literal")
    return [_cast(tensor, dtype) for tensor in found]


def _file(given: str, text: str, key: str | None) -> tuple[str, str | None] | None:
    """The path that is meant, with the name of the array in it; None where no such file is there."""
    if text.startswith("["):
        return None
    for path in (given, text):
        if exists(path):
            return path, key
    path, _, name = text.rpartition("::")
    return (path, name) if path and exists(path) else None


def _of_text(text: str, name: str, key: str | None, *, keep: bool, each: bool) -> list[Tensor]:
    return [_tensor(numbers, name, keep=keep) for numbers in parse(text, name, key=key, keep=keep, each=each)]


def _tensor(numbers: Numbers, name: str, *, keep: bool) -> Tensor:
    array, warnings = to_float64(numbers, name)
    return _cast(Tensor(array=array, warnings=warnings, written=numbers if keep else None), numbers.dtype)


def _cast(tensor: Tensor, dtype: str | None) -> Tensor:
    """The tensor in a dtype; a name that is not known is left for the plan to refuse."""
    if dtype not in FLOAT_DTYPES or dtype == tensor.array.dtype.name:
        return tensor
    with np.errstate(all="ignore"):
        array = rounded(tensor.array.astype(np.float64), dtype)
    beyond = int(np.count_nonzero(np.isinf(array)) - np.count_nonzero(np.isinf(tensor.array)))
    if not beyond:
        return replace(tensor, array=array)
    warning = f"{count(beyond, 'value')} beyond the range of {dtype} became infinite"
    return replace(tensor, array=array, warnings=(*tensor.warnings, warning))


def _format(source: Source) -> str | None:
    """The format that the source begins as; None for text."""
    if b"\0" in source.head[:8] and source.head[8:] == b"{":  # a length and a JSON object; text holds no NUL
        return "safetensors"
    return next((format_ for mark, format_ in _BINARY.items() if source.head.startswith(mark)), None)


def _module(format_: str) -> Any:
    return import_module(f"normcli.files.{format_}")


def _may_be_json(head: bytes) -> bool:
    return b"\0" not in head[:8] and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))
