"""The safetensors format: what the package writes is read, what is written the package reads, and nothing else.

A file is read at offsets, a pipe from memory; either must give the same.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as package
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.errors import InputError
from normcli.files import safetensors
from normcli.files.read import read_tensor
from normcli.files.streams import Source, opened

ARRAYS = {
    "bn.weight": np.array([1.5, -0.25, 3.0], np.float32),
    "bn.running_mean": np.array([[0.1, 2.5e-300]]),
    "bn.half": np.array([1, 65504, -0.0], np.float16),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "bn.bytes": np.array([0, 255], np.uint8),
    "bn.empty": np.zeros((0, 3), np.float32),
    "bn.flags": np.array([True, False]),
}


def read_all(data: bytes, path: Path | None = None) -> dict[str, np.ndarray]:
    """Every array of a file, or of a pipe where no path is given to write it to."""
    if path is None:
        found = safetensors.arrays(Source(io.BytesIO(data), "x.safetensors"), lambda name: True)
        return {array.name: array.read().array for array in found}
    path.write_bytes(data)
    with opened(str(path)) as source:
        source.name = "x.safetensors"
        return {array.name: array.read().array for array in safetensors.arrays(source, lambda name: True)}


@pytest.fixture(params=["pipe", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "x.safetensors" if request.param == "file" else None


def file_of(header: Any, data: bytes = b"") -> bytes:
    """A file with that header, be it right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refusal(data: bytes, path: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_all(data, path)
    return str(caught.value)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert {key: (a.dtype, a.shape, a.tobytes()) for key, a in found.items()} == {
        key: (a.dtype, a.shape, a.tobytes()) for key, a in expected.items()
    }


def test_what_the_package_writes_is_read(path: Path | None) -> None:
    """As float64 where NumPy has integers; what is no real number is for whoever asked to refuse."""
    integers = {"bn.num_batches_tracked", "bn.bytes"}
    expected = {key: array.astype(np.float64) if key in integers else array for key, array in ARRAYS.items()}
    assert_same(read_all(package.save(ARRAYS, metadata={"format": "np"}), path), expected)


def test_what_is_written_the_package_reads() -> None:
    stream = io.BytesIO()
    safetensors.write(stream, ARRAYS)
    assert_same(package.load(stream.getvalue()), ARRAYS)


def test_data_begins_at_a_multiple_of_eight() -> None:
    stream = io.BytesIO()
    safetensors.write(stream, {"a": np.ones(3)})
    assert int.from_bytes(stream.getvalue()[:8], "little") % 8 == 0


@pytest.mark.parametrize(
    ("bits", "value"),
    [(0x3F80, 1.0), (0xC049, -3.140625), (0x7F80, np.inf), (0x0001, 2.0**-133), (0x8000, -0.0)],
    ids=["1", "pi", "infinity", "subnormal", "-0"],
)
def test_bfloat16_is_read_exactly_as_float32(bits: int, value: float, path: Path | None) -> None:
    data = file_of({"a": entry("BF16", [1], [0, 2])}, bits.to_bytes(2, "little"))
    assert_same(read_all(data, path), {"a": np.array([value], np.float32)})


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    """A sparse file of 8 GiB: the two numbers at its end come without the rest."""
    path, size = tmp_path / "large.safetensors", 2**33
    header = {"large": entry("F32", [size // 4], [0, size]), "a": entry("F32", [2], [size, size + 8])}
    with path.open("wb") as stream:
        stream.write(file_of(header))
        stream.seek(size, io.SEEK_CUR)
        stream.write(np.array([1.5, -2], np.float32).tobytes())
    with opened(str(path)) as source:
        found = {array.name: array for array in safetensors.arrays(source, lambda name: True)}
        assert found["large"].shape == (size // 4,)
        assert found["a"].read().array.tolist() == [1.5, -2.0]


def test_an_array_of_a_checkpoint_is_a_tensor_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(package.save(ARRAYS))
    found = read_tensor(f"{tmp_path}/x::bn.weight").array
    assert (found.dtype, found.tolist()) == (np.float32, [1.5, -0.25, 3.0])
    assert read_tensor("-", key="bn.half", stdin=io.BytesIO(package.save(ARRAYS))).array.dtype == np.float16


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "standard input holds 7 arrays: bn.bytes, bn.empty, bn.flags, bn.half, .*; choose one"),
        ("weight", "standard input holds no array named weight; it has bn.bytes, bn.empty"),
        ("bn.flags", "standard input::bn.flags holds bool values; only real numbers can be normalized"),
    ],
)
def test_a_checkpoint_that_gives_no_tensor_is_refused(key: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tensor("-", key=key, stdin=io.BytesIO(package.save(ARRAYS)))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(package.save({"a": np.ones(1000)}))
    with opened(str(path)) as source:
        [array] = safetensors.arrays(source, lambda name: True)
        os.truncate(path, 200)
        with pytest.raises(InputError, match=r"x\.safetensors::a cannot be read: .*failed to fill whole buffer"):
            array.read()


def test_a_dtype_that_cannot_be_read_is_refused_only_when_asked_for() -> None:
    data = file_of({"a": entry("F8_E4M3", [2], [0, 2]), "b": entry("F32", [1], [2, 6])}, bytes(6))
    refused, read = safetensors.arrays(Source(io.BytesIO(data), "x"), lambda name: True)
    assert read.read().array.tolist() == [0.0]
    assert refused.dtype == "F8_E4M3"
    with pytest.raises(InputError, match="x::a is of dtype F8_E4M3, which cannot be read; save it as F32 or BF16"):
        refused.read()


GOOD = file_of({"a": entry()}, bytes(8))
BAD_HEADER = "x.safetensors has a bad safetensors header: "
MALFORMED = {
    "empty": (b"", "x.safetensors is empty"),
    "cut in the length": (GOOD[:5], "x.safetensors holds 5 bytes; a safetensors file begins with the 8 of"),
    "cut in the header": (GOOD[:30], "x.safetensors holds 30 bytes, and its safetensors header alone would take 69"),
    "cut in the data": (GOOD[:-1], "x.safetensors holds 7 bytes of data, and 'a' would end at byte 8"),
    "bytes left": (GOOD + b"x", "x.safetensors has 1 bytes after the end of its data"),
    "huge header": ((2**63).to_bytes(8, "little") + b"{}", "header: 9223372036854775808 bytes, where 100000000 is"),
    "no JSON": (file_of(b'{"a":'), "the safetensors header of x.safetensors is not valid JSON: Expecting value at"),
    "no UTF-8": (file_of(b'{"\xff":1}'), BAD_HEADER + "it is not UTF-8"),
    "no object": (file_of([]), BAD_HEADER + "it is not a JSON object"),
    "no header": (file_of(b""), "the safetensors header of x.safetensors is empty"),
    "deep": (file_of(b"[" * 200_000), "header of x.safetensors is cut off: 200000 brackets are not closed"),
    "long integer": (file_of(b'{"a":' + b"7" * 5000 + b"}"), "has a number that does not fit in float64: 777"),
    "duplicate key": (file_of(b'{"a":{},"b":{},"a":{}}'), "header of x.safetensors has the key 'a' twice"),
    "duplicate field": (file_of(b'{"a":{"dtype":"F32","dtype":"F64"}}'), "safetensors has the key 'dtype' twice"),
    "no description": (file_of({"a": 3}), BAD_HEADER + "invalid type: integer `3`, expected struct TensorInfo"),
    "field missing": (file_of({"a": {"dtype": "F32", "shape": []}}), BAD_HEADER + "missing field `data_offsets`"),
    "unknown dtype": (
        file_of({"a": entry("F33")}, bytes(8)),
        BAD_HEADER + "unknown variant `F33`, expected one of `BOOL`",
    ),
    "dtype no text": (
        file_of({"a": entry(["F32"])}, bytes(8)),
        BAD_HEADER + "invalid type: sequence, expected string or map",
    ),
    "negative size": (
        file_of({"a": entry(shape=[-2])}, bytes(8)),
        BAD_HEADER + "invalid value: integer `-2`, expected usize",
    ),
    "fractional size": (
        file_of({"a": entry(shape=[2.0])}, bytes(8)),
        BAD_HEADER + "invalid type: floating point `2.0`, expected usize",
    ),
    "true for a size": (
        file_of({"a": entry(shape=[True])}, bytes(8)),
        BAD_HEADER + "invalid type: boolean `true`, expected usize",
    ),
    "shape no list": (
        file_of({"a": entry(shape="2")}, bytes(8)),
        BAD_HEADER + 'invalid type: string "2", expected a sequence',
    ),
    "65 axes": (
        file_of({"a": entry(shape=[1] * 65)}, bytes(8)),
        BAD_HEADER + "invalid shape, data type, or offset for tensor",
    ),
    "overflow": (
        file_of({"a": entry(shape=[2**62, 4])}, bytes(8)),
        BAD_HEADER + "overflow computing buffer size from shape and/or element type",
    ),
    "NaN for a size": (
        file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}') + bytes(8),
        BAD_HEADER + "expected value at line 1",
    ),
    "size mismatch": (
        file_of({"a": entry(shape=[3])}, bytes(8)),
        BAD_HEADER + "invalid shape, data type, or offset for tensor",
    ),
    "offsets reversed": (file_of({"a": entry(offsets=[8, 0])}, bytes(8)), BAD_HEADER + "invalid offset for tensor `a`"),
    "offset negative": (
        file_of({"a": entry(offsets=[-8, 0])}, bytes(8)),
        BAD_HEADER + "invalid value: integer `-8`, expected usize",
    ),
    "three offsets": (
        file_of({"a": entry(offsets=[0, 8, 9])}, bytes(8)),
        BAD_HEADER + "invalid length 3, expected 2 elements in sequence",
    ),
    "offset outside": (
        file_of({"a": entry(offsets=[8, 16])}, bytes(8)),
        "x.safetensors holds 8 bytes of data, and 'a' would end at byte 16",
    ),
    "overlap": (
        file_of({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
        BAD_HEADER + "invalid offset for tensor `b`",
    ),
    "same place": (file_of({"a": entry(), "b": entry()}, bytes(8)), BAD_HEADER + "invalid offset for tensor"),
    "hole": (
        file_of({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
        BAD_HEADER + "invalid offset for tensor `b`",
    ),
}


@pytest.mark.parametrize(("data", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_in_words(data: bytes, message: str, path: Path | None) -> None:
    assert message in refusal(data, path)


def test_a_header_of_many_names_with_one_twice_is_refused_at_once() -> None:
    names = b",".join(b'"%d":1' % i for i in range(100_000))
    assert (
        refusal(file_of(b"{" + names + b',"99999":1}'))
        == "the safetensors header of x.safetensors has the key '99999' twice"
    )


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.data())
def test_a_file_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever the package refuses is refused here too, in words."""
    valid = package.save({key: ARRAYS[key] for key in ("bn.weight", "bn.half", "bn.num_batches_tracked")})
    changed = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(valid) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.sampled_from([len(valid)] * 3 + [len(valid) // 2, len(valid) - 1]))])
    try:
        found = read_all(cut)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert_same(
        found,
        {
            key: array.astype(np.float64) if array.dtype.kind in "iu" else array
            for key, array in package.load(cut).items()
        },
    )
