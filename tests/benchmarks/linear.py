"""What every reader takes for text or a file of twice the size, in shapes made to be slow; by hand.

A reader that is linear in its input takes twice as long; one that goes over the rest again for every part of it
four times. The quickest of the rounds counts, and the mean of doubling twice. Exit 1 where any takes more than MOST
times as long.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from normcli.errors import NormcliError
from normcli.files import npy
from normcli.files.read import read_tensors
from normcli.layers import open_checkpoint, summaries
from normcli.teaching.worked import load_example

MOST = 3.0
ROUNDS = 3
SHORTEST = 0.05  # seconds that a text must take to be counted: what takes less at 8 MiB is only the machine's unrest

Maker = Callable[[int], bytes]


def _zip(n: int, name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # that a name is there twice
        for index in range(n // 100):
            archive.writestr(name.format(index), data)
    return stream.getvalue()


def _npy(header: bytes) -> bytes:
    return npy.MAGIC + b"\x02\x00" + len(header).to_bytes(4, "little") + header


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _header(n: int) -> bytes:
    fields = {f"{i}.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(n // 60)}
    return _safetensors(json.dumps(fields).encode(), bytes(4 * (n // 60)))


def _keys(n: int, value: bytes) -> bytes:
    return b"{" + b",".join(b'"k%d":%s' % (i, value) for i in range(n // 10)) + b',"k0":1}'


ONE = npy.npy_bytes(np.ones(2))
TENSORS: dict[str, Maker] = {
    "JSON, flat": lambda n: b"[" + b"1.5," * (n // 4) + b"2]",
    "JSON, rows": lambda n: b"[" + b"[1.5, 2]," * (n // 9) + b"[1, 2]]",
    "JSON, ragged at the end": lambda n: b"[" + b"[1]," * (n // 4) + b"[1,2]]",
    "JSON, a list at the end": lambda n: b"[" + b"1," * (n // 2) + b"[1]]",
    "JSON, words": lambda n: b"[" + b'"NaN",' * (n // 6) + b"1]",
    "JSON, null at the end": lambda n: b"[" + b"1," * (n // 2) + b"null]",
    "JSON, a key twice": lambda n: _keys(n, b"1"),
    "JSON, integers": lambda n: b"[" + (b"7" * 400 + b",") * (n // 401) + b"1]",
    "JSON, a long integer": lambda n: b"[" + b"7" * n + b"]",
    "JSON, a long fraction": lambda n: b"[0." + b"7" * n + b"]",
    "JSON, a long exponent": lambda n: b"[1e" + b"7" * n + b"]",
    "JSON, small numbers": lambda n: b"[" + b"1e-400," * (n // 7) + b"1]",
    "JSON, zeros": lambda n: b"[1, 0." + b"0" * n + b"1]",
    "JSON, open brackets": lambda n: b"[" * n,
    "JSON, blanks at the end": lambda n: b"[1]" + b" " * n,
    "JSON, a long text": lambda n: b'["' + b"a" * n + b'"]',
    "JSON, escapes": lambda n: b'["' + b"\\u0061" * (n // 6) + b'"]',
    "JSON, objects": lambda n: b'{"a":' * n,
    "JSON lines": lambda n: b"[[1.5], [2]]\n" * (n // 13),
    "JSON lines, the last cut off": lambda n: b"[[1.5], [2]]\n" * (n // 13) + b"[[1",
    "pasted": lambda n: b"tensor([" + b"1.5, " * (n // 5) + b"2.])",
    "pasted, printed by NumPy": lambda n: b"[" + b"[1. 2.]\n " * (n // 9) + b"[1. 2.]]",
    "pasted, cut off, blanks": lambda n: b"tensor([1,2]" + b" " * n,
    "pasted, open, blanks": lambda n: b"tensor([1,2" + b" " * n,
    "pasted, open brackets": lambda n: b"tensor(" + b"[" * n,
    "pasted, closed brackets": lambda n: b"[1.]" + b"]" * n,
    "pasted, a comma missing": lambda n: b"[1. 2., " + b"1., " * (n // 4) + b"1.]",
    "pasted, a comma and blanks": lambda n: b"tensor([1,2]," + b" " * n + b"x",
    "pasted, commas": lambda n: b"tensor([1,2]" + b"," * n + b")",
    "pasted, keywords": lambda n: b"tensor([1,2]" + b", a=b" * (n // 5),
    "pasted, a keyword open": lambda n: b"tensor([1,2], a=(" + b"(" * n,
    "pasted, a keyword in quotes": lambda n: b"tensor([1,2], a='" + b"a" * n,
    "pasted, names": lambda n: b"tensor([" + b"np." * (n // 3) + b"])",
    "pasted, numbers wrapped": lambda n: b"(" + b"np.float64(1.5), " * (n // 17) + b")",
    "pasted, wrapped and open": lambda n: b"(" + b"np.float64(" * (n // 11),
    "pasted, digits": lambda n: b"tensor([" + b"1" * n + b"x])",
    "pasted, points": lambda n: b"tensor([" + b"1." * (n // 2) + b"])",
    "blanks": lambda n: b" " * n + b"x",
    "letters": lambda n: b"a" * n,
    "digits and a cell": lambda n: b"1" * n + b",2",
    "digits and a letter": lambda n: b"1" * n + b"x",
    "digits": lambda n: b"1" * n,
    "signs": lambda n: b"-" * n,
    "CSV, a row": lambda n: b"1.5," * (n // 4) + b"2",
    "CSV, rows": lambda n: b"1.5,2\n" * (n // 6),
    "CSV, rows of old Macs": lambda n: b"1.5,2\r" * (n // 6),
    "CSV, quotes": lambda n: b'"1.5","2"\n' * (n // 10),
    "CSV, a quote open": lambda n: b'1,"2' + b',"3' * (n // 3),
    "CSV, quotes doubled": lambda n: b'"' * n + b",1",
    "CSV, empty cells": lambda n: b"," * n,
    "CSV, empty lines": lambda n: b"1,2" + b"\n" * n,
    "CSV, comments": lambda n: b"#\n" * (n // 2) + b"1,2",
    "CSV, ragged at the end": lambda n: b"1,2\n" * (n // 4) + b"1",
    "CSV, a word at the end": lambda n: b"1,2\n" * (n // 4) + b"1,x",
    "CSV, names": lambda n: b"a," * (n // 2) + b"b\n" + b"1," * (n // 2) + b"1",
    "TSV": lambda n: b"1.5\t2\n" * (n // 6),
    "columns of blanks": lambda n: b"1 2\n" * (n // 4),
    "blanks in a row": lambda n: b"1" + b" " * n + b"2",
    "NUL at the end": lambda n: b"1 " * (n // 2) + b"\0",
    "UTF-16": lambda n: "1,2\n".encode("utf-16-le").join([b"\xff\xfe", *[b""] * (n // 8)]),
    "NPY, data": lambda n: npy.npy_bytes(np.ones(n)),
    "NPZ, members": lambda n: _zip(n, "a{}.npy", ONE),
    "NPZ, members of one name": lambda n: _zip(n, "a.npy", ONE),
}
# An NPY header holds 64 KiB at most, so these are of a size of their own.
HEADERS: dict[str, Maker] = {
    f"NPY header, {what}": make
    for what, make in {
        "blanks": lambda n: _npy(b"{" + b" " * n),
        "parentheses": lambda n: _npy(b"(" * n),
        "braces": lambda n: _npy(b"{" * n),
        "signs": lambda n: _npy(b"-" * n + b"1"),
        "negations": lambda n: _npy(b"not " * (n // 4) + b"1"),
        "lambdas": lambda n: _npy(b"lambda:" * (n // 7) + b"1"),
        "attributes": lambda n: _npy(b"a" + b".a" * (n // 2)),
        "calls": lambda n: _npy(b"a(" * (n // 2)),
        "subscripts": lambda n: _npy(b"a[" * (n // 2)),
        "a long shape": lambda n: _npy(
            b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1," * (n // 2) + b")}"
        ),
        "keys": lambda n: _npy(b"{" + b"'a':1," * (n // 6) + b"}"),
        "sums": lambda n: _npy(b"1+" * (n // 2) + b"1"),
        "texts": lambda n: _npy(b"'a'" * (n // 3)),
        "Python 2": lambda n: _npy(b"{'shape': (" + b"1L," * (n // 3) + b")}"),
        "digits": lambda n: _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1" * n + b",)}"),
    }.items()
}
STATES: dict[str, Maker] = {
    "state, JSON": lambda n: b"{" + b",".join(b'"a%d.weight":[1,2]' % i for i in range(n // 20)) + b"}",
    "state, a key twice": lambda n: _keys(n, b"[1]"),
    "state, a long name over many": lambda n: (
        b'{"%s":{%s}}' % (b"a" * n, b",".join(b'"%d.weight":[1]' % i for i in range(n // 20)))
    ),
    "state, nested": lambda n: b'{"a":' * 900 + b"{" + b",".join(b'"%d.weight":[1]' % i for i in range(n // 20)),
    "state, NPZ": lambda n: _zip(n, "a{}.weight.npy", ONE),
    "state, safetensors": _header,
    "state, safetensors, a key twice": lambda n: _safetensors(_keys(n, b"1")),
    "state, safetensors, long numbers in names": lambda n: _safetensors(
        b'{"%s.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' % (b"7" * n), bytes(4)
    ),
}
EXAMPLES: dict[str, Maker] = {
    "example": lambda n: b'{"kind":"layer","input":[%s1],"expect":{"mean":[1]}}' % (b"1.5," * (n // 4)),
    "example, a key twice": lambda n: _keys(n, b"1"),
    "example, keys": lambda n: _keys(n, b"1")[: -len(b',"k0":1}')] + b"}",
    "example, a long integer": lambda n: b'{"kind":"layer","input":[%s],"expect":{"mean":[1]}}' % (b"7" * n),
    "example, a long option": lambda n: (
        b'{"kind":"layer","input":[1],"options":{"%s":1},"expect":{"mean":[1]}}' % (b"a" * n)
    ),
    "example, many options": lambda n: (
        b'{"kind":"layer","input":[1],"options":%s}' % (_keys(n, b"1")[: -len(b',"k0":1}')] + b"}")
    ),
}


def _read_tensor(path: str) -> None:
    for _ in read_tensors(path):
        pass


def _read_state(path: str) -> None:
    summaries(path)
    with open_checkpoint(path) as file:
        file.layer("bn1", _kind())


def _kind() -> object:
    from normcli.planning.kinds import KINDS

    return KINDS["batch"]


READERS: tuple[tuple[Callable[[str], object], dict[str, Maker], int], ...] = (
    (_read_tensor, TENSORS, 2**23),
    (_read_tensor, HEADERS, 2**16 - 400),
    (_read_state, STATES, 2**23),
    (load_example, EXAMPLES, 2**23),
)


def seconds(read: Callable[[str], object], path: Path) -> float:
    """The time of the quickest round; what is refused is read as far as that takes."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with suppress(NormcliError):
            read(str(path))
        taken.append(time.perf_counter() - start)
    return min(taken)


def ratio(read: Callable[[str], object], make: Maker, most: int, path: Path) -> tuple[int, float, float]:
    """The largest size, the seconds that it takes, and how many times as long twice as much takes."""
    size = min(2**10, most)
    while True:
        path.write_bytes(make(size))
        once = seconds(read, path)
        if once >= SHORTEST or 4 * size > most:
            break
        size *= 2
    path.write_bytes(make(4 * size))
    most_seconds = seconds(read, path)
    return 4 * size, most_seconds, (most_seconds / once) ** 0.5


def main(chosen: list[str]) -> int:
    """Print the table; 1 where a reader is not linear."""
    worst = 0.0
    print(f"{'':44}{'size':>10}{'seconds':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for read, shapes, most in READERS:
            for name, make in shapes.items():
                if chosen and not any(word in name for word in chosen):
                    continue
                path = Path(folder, "x.safetensors" if "safetensors" in name else "x")
                size, taken, times = ratio(read, make, most, path)
                counted = taken >= SHORTEST
                worst = max(worst, times if counted else 0.0)
                said = "  TOO SLOW" if counted and times > MOST else "" if counted else "  (too short to tell)"
                print(f"{name:44}{size:>10,}{taken:9.3f}{times:7.2f}{said}", flush=True)
    print(f"the worst: {worst:.2f}")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
