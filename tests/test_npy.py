"""The NPY reader: what it accepts, what it refuses and in which words, and that nothing else comes out."""

from __future__ import annotations

import io
import os
import struct
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.errors import InputError, UnavailableError
from normcli.files.npy import MAGIC, Header, as_floating, npy_bytes, read_data, read_header, read_tensor, write_array

FIELDS = "{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }"


def read_array(*arguments: Any, **named: Any) -> np.ndarray:
    return read_tensor(*arguments, **named).array


def raw(header: str | bytes, version: tuple[int, int] = (1, 0), data: bytes = bytes(32)) -> bytes:
    """NPY bytes with a header written by hand."""
    encoded = header.encode("latin-1") if isinstance(header, str) else header
    length = struct.pack("<H" if version == (1, 0) else "<I", len(encoded))
    return MAGIC + bytes(version) + length + encoded + data


def typed(descr: str) -> bytes:
    return raw(FIELDS.replace("'<f8'", descr))


def shaped(shape: str) -> bytes:
    return raw(FIELDS.replace("(4,)", shape))


def saved(array: Any, version: tuple[int, int] | None = None) -> bytes:
    """The array as NumPy itself writes it."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), version=version)
    return stream.getvalue()


class Trickle(io.BytesIO):
    """A stream that gives a few bytes at a time, as a slow pipe does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(3, size or 0))


def grid(dtype: str) -> np.ndarray[Any, Any]:
    return np.arange(24).reshape(2, 3, 4).astype(dtype)


@pytest.mark.parametrize("size_known", [True, False], ids=["file", "pipe"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", "CF")
@pytest.mark.parametrize("code", ["f2", "f4", "f8"])
def test_floating_arrays_keep_values_and_dtype(
    code: str, layout: Any, order: str, version: tuple[int, int], size_known: bool
) -> None:
    stored = np.array(grid(order + code), order=layout)
    data = saved(stored, version)

    array = read_array(io.BytesIO(data), "x.npy", [None, len(data)][size_known])

    assert array.dtype == np.dtype(code)
    np.testing.assert_array_equal(array, grid(code))


@pytest.mark.parametrize("code", ["i1", "u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8", ">i8", ">u8"])
def test_integers_become_float64(code: str) -> None:
    array = read_array(io.BytesIO(saved(grid(code))), "x.npy")

    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, grid("f8"))


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        pytest.param([2**53, -(2**53), 2**53 + 2], (), id="exact"),
        pytest.param([1, 2**53 + 1], ("9007199254740993 is rounded to float64",), id="one"),
        pytest.param([-(2**53) - 1], ("-9007199254740993 is rounded to float64",), id="negative"),
        pytest.param([2**63 - 1], ("9223372036854775807 is rounded to float64",), id="largest"),
        pytest.param([-(2**63)], (), id="smallest"),
        pytest.param(
            [2**53 + 1, 2**54 + 1],
            ("2 integers, such as 9007199254740993, are rounded to float64",),
            id="two",
        ),
    ],
)
def test_rounded_integers_are_named(values: list[int], warnings: tuple[str, ...]) -> None:
    assert as_floating(np.array(values, dtype=np.int64)).warnings == warnings


def test_the_largest_unsigned_integer_is_rounded() -> None:
    assert as_floating(np.array([2**64 - 1, 2**63], dtype=np.uint64)).warnings == (
        "18446744073709551615 is rounded to float64",
    )


def test_a_zero_dimensional_array_is_read() -> None:
    assert read_array(io.BytesIO(saved(np.float64(3.5))), "x.npy").shape == ()


def test_long_integers_of_python_2_are_read() -> None:
    assert read_array(io.BytesIO(shaped("(2L, 2L)")), "x.npy").shape == (2, 2)


def test_a_slow_pipe_is_read_to_its_end() -> None:
    data = saved(grid("f4"))

    np.testing.assert_array_equal(read_array(Trickle(data), "x.npy"), grid("f4"))


def test_a_real_pipe_is_read() -> None:
    reading, writing = os.pipe()
    array = np.arange(100_000.0)

    def fill() -> None:
        with os.fdopen(writing, "wb") as stream:
            stream.write(saved(array))

    thread = threading.Thread(target=fill)
    thread.start()
    with os.fdopen(reading, "rb") as stream:
        np.testing.assert_array_equal(read_array(stream, "x.npy"), array)
    thread.join()


def test_the_header_says_where_the_data_begins() -> None:
    stream = io.BytesIO(saved(np.array(grid(">f4"), order="F")))

    header = read_header(stream, "x.npy")

    assert header == Header(dtype=np.dtype(">f4"), shape=(2, 3, 4), fortran_order=True, data_offset=stream.tell())


def test_bfloat16_is_read_when_it_is_asked_for() -> None:
    stored = np.array([1.5, -2.0], dtype=ml_dtypes.bfloat16)

    array = read_array(io.BytesIO(saved(stored)), "x.npy", bfloat16=True)

    assert array.dtype == stored.dtype
    assert array.tolist() == [1.5, -2.0]


def test_asking_for_bfloat16_leaves_other_dtypes_alone() -> None:
    assert read_array(io.BytesIO(saved(grid("f4"))), "x.npy", bfloat16=True).dtype == np.float32


ONLY_REAL = "only real numbers can be normalized"
BAD = "x.npy has a bad NPY header: "

REFUSED = {
    "empty": (b"", "x.npy is empty"),
    "not_npy": (b"hello, world", "x.npy is not an NPY file"),
    "part_of_the_magic": (MAGIC[:3], "x.npy is not an NPY file"),
    "magic_alone": (MAGIC, "x.npy ends within its NPY header"),
    "cut_header": (raw(FIELDS)[:40], "x.npy ends within its NPY header"),
    "version_9": (MAGIC + b"\x09\0", "x.npy is of NPY version 9.0; 1.0, 2.0 and 3.0 can be read"),
    "header_length_4_gib": (
        MAGIC + b"\2\0\xff\xff\xff\xff",
        "x.npy has a bad header length: 4294967295 bytes, where 65536 is the most",
    ),
    "bool": (typed("'|b1'"), f"x.npy holds bool values (b1); {ONLY_REAL}"),
    "complex": (typed("'<c16'"), f"x.npy holds complex numbers (c16); {ONLY_REAL}"),
    "longdouble": (typed("'<f16'"), f"x.npy holds longdouble or 8-bit floating values (f16); {ONLY_REAL}"),
    "bytes": (typed("'|S3'"), f"x.npy holds byte strings (S3); {ONLY_REAL}"),
    "text": (typed("'<U3'"), f"x.npy holds strings (U3); {ONLY_REAL}"),
    "datetime": (typed("'<M8[s]'"), f"x.npy holds datetime values (M8); {ONLY_REAL}"),
    "timedelta": (typed("'<m8[ns]'"), f"x.npy holds timedelta values (m8); {ONLY_REAL}"),
    "objects": (typed("'|O'"), f"x.npy contains Python objects (O); {ONLY_REAL}"),
    "huge_void": (typed("'|V2147483647'"), f"x.npy holds raw bytes (V2147483647); {ONLY_REAL}"),
    "huge_text": (typed("'<U100000000'"), f"x.npy holds strings (U100000000); {ONLY_REAL}"),
    "wide_integer": (typed("'<i16'"), f"x.npy holds integers of an unusual size (i16); {ONLY_REAL}"),
    "named_fields": (
        typed("[('a','<f8'),('b','<i4')]"),
        "x.npy has named fields (a, b); save one of them as an array of its own",
    ),
    "subarray": (typed("('<f8',(2,))"), "x.npy has an unknown NPY type: ('<f8', (2,))"),
    "unknown_type": (typed("'float64'"), "x.npy has an unknown NPY type: 'float64'"),
    "type_is_a_number": (typed("3"), "x.npy has an unknown NPY type: 3"),
    "maybe_bfloat16": (typed("'|V2'"), "x.npy holds values of 2 bytes without a type, which may be bfloat16"),
    "negative_shape": (shaped("(-1,)"), "x.npy has a bad shape in its NPY header: (-1,)"),
    "bool_shape": (shaped("(True, 4)"), "x.npy has a bad shape in its NPY header: (True, 4)"),
    "float_shape": (shaped("(4.0,)"), "x.npy has a bad shape in its NPY header: (4.0,)"),
    "list_shape": (shaped("[4]"), "x.npy has a bad shape in its NPY header: [4]"),
    "overflowing_shape": (
        shaped("(1099511627776, 1099511627776)"),
        "x.npy has a bad shape in its NPY header: (1099511627776, 1099511627776) is larger than any memory",
    ),
    "size_of_2_63": (
        shaped("(9223372036854775808,)"),
        "x.npy has a bad shape in its NPY header: (9223372036854775808,) is larger than any memory",
    ),
    "endless_size": (
        shaped(f"(0, 0x{'f' * 5000})"),
        "x.npy has a bad shape in its NPY header: a number of thousands of digits is larger than any memory",
    ),
    "65_axes": (shaped(f"({'1,' * 65})"), "x.npy has 65 axes; 64 is the most"),
    "zero_sized": (shaped("(0, 1152921504606846976)"), "x.npy has no elements (shape (0, 1152921504606846976))"),
    "truncated": (saved(np.arange(4.0))[:-3], "x.npy holds 29 of 32 bytes of data"),
    "far_too_short": (shaped("(1099511627776,)"), "x.npy holds 32 of 8796093022208 bytes of data"),
    "not_a_dictionary": (raw("[1, 2]"), BAD + "'[1, 2]'"),
    "a_call": (raw("dict(shape=(4,))"), BAD + "'dict(shape=(4,))'"),
    "missing_key": (raw("{'descr': '<f8', 'fortran_order': False}"), BAD + "it lacks the key 'shape'"),
    "extra_key": (raw(FIELDS.replace("}", "'x': 1}")), BAD + "it has the unknown key 'x'"),
    "duplicate_key": (raw(FIELDS.replace("}", "'shape': (3,)}")), BAD + "a key appears twice"),
    "order_is_a_number": (raw(FIELDS.replace("False", "1")), BAD + "fortran_order is 1"),
    "not_utf8": (raw(b"\xff\xfe", (3, 0)), BAD + "'ÿþ'"),
    "deep_parentheses": (
        shaped("(" * 3000 + "4" + ",)" * 3000),
        BAD + "\"{'descr': '<f8', 'fortran_order': False, 'shape': (((((((...\"",
    ),
    "many_signs": (
        shaped("-" * 60_000 + "1"),
        BAD + "\"{'descr': '<f8', 'fortran_order': False, 'shape': -------...\"",
    ),
}


@pytest.mark.parametrize("size_known", [True, False], ids=["file", "pipe"])
@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_data_is_refused_in_one_sentence(data: bytes, message: str, size_known: bool) -> None:
    with pytest.raises(InputError) as refused:
        read_array(io.BytesIO(data), "x.npy", [None, len(data)][size_known])

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("size", "message"),
    [
        pytest.param(None, "x.npy has bytes after the end of its data", id="pipe"),
        pytest.param(len(saved(np.arange(4.0))) * 2, "x.npy has 160 bytes after the end of its data", id="file"),
    ],
)
def test_a_second_array_in_the_file_is_refused(size: int | None, message: str) -> None:
    data = saved(np.arange(4.0)) * 2

    with pytest.raises(InputError) as refused:
        read_array(io.BytesIO(data), "x.npy", size)

    assert str(refused.value) == message
    assert refused.value.hint == "an NPY file holds one array; NPZ holds several"


def test_pickled_objects_are_not_executed(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    stream = io.BytesIO()
    np.save(stream, np.array([Touch()], dtype=object), allow_pickle=True)
    stream.seek(0)

    with pytest.raises(InputError, match="contains Python objects"):
        read_array(stream, "x.npy")

    assert list(tmp_path.iterdir()) == []


def test_no_message_advises_to_allow_pickles() -> None:
    with pytest.raises(InputError) as refused:
        read_array(io.BytesIO(typed("'|O'")), "x.npy")

    assert "pickle" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(-3, "x.npy changed while it was read: it ended after 29 of 32 bytes of data", id="shrinks"),
        pytest.param(+3, "x.npy changed while it was read: it grew", id="grows"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: int, message: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(saved(np.arange(4.0)))
    size = path.stat().st_size
    with path.open("rb", buffering=0) as stream:
        header = read_header(stream, "x.npy")
        os.truncate(path, size + change)

        with pytest.raises(InputError) as refused:
            read_data(stream, header, "x.npy", size)

    assert str(refused.value) == message


def test_too_little_memory_is_said_in_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: Any) -> None:
        raise MemoryError

    data = saved(np.zeros(2**18))
    monkeypatch.setattr(np, "empty", empty)

    with pytest.raises(UnavailableError, match=r"^x.npy needs 2 MiB of memory"):
        read_array(io.BytesIO(data), "x.npy", len(data))


@pytest.mark.parametrize("array", [grid("f2"), grid(">f8"), grid("f4").T, np.float64(3)], ids=["f2", "big", "F", "0d"])
def test_what_is_written_numpy_reads(array: Any) -> None:
    stream = io.BytesIO()

    write_array(stream, array)

    stream.seek(0)
    back = np.load(stream)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_bfloat16_is_written_as_float32() -> None:
    back = np.load(io.BytesIO(npy_bytes(np.array([1.5, 3.0], dtype=ml_dtypes.bfloat16))))

    assert back.dtype == np.float32
    assert back.tolist() == [1.5, 3.0]


FUZZ = settings(max_examples=300, deadline=None)


@FUZZ
@given(header=st.binary(max_size=200), data=st.binary(max_size=40), version=st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_random_headers_are_refused_or_read(header: bytes, data: bytes, version: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        read_array(io.BytesIO(raw(header, version, data)), "x.npy")


@FUZZ
@given(data=st.binary(max_size=60))
def test_random_bytes_after_the_magic_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_array(io.BytesIO(MAGIC + data), "x.npy")


@FUZZ
@given(
    text=st.text("{}'(),: []<f8>descrshapeFalseTruei0123456789-+*\\\n", max_size=30),
    start=st.integers(0, len(FIELDS)),
    length=st.integers(0, 20),
)
def test_mutated_headers_are_refused_or_read(text: str, start: int, length: int) -> None:
    header = FIELDS[:start] + text + FIELDS[start + length :]
    outcome = outcome_of(raw(header))

    assert isinstance(outcome, np.ndarray | InputError)


@FUZZ
@given(st.data())
def test_flipped_bytes_are_refused_or_read(data: st.DataObject) -> None:
    valid = bytearray(saved(grid("f4")))
    valid[data.draw(st.integers(0, 140))] = data.draw(st.integers(0, 255))

    assert isinstance(outcome_of(bytes(valid)), np.ndarray | InputError)


@FUZZ
@given(cut=st.integers(0, len(saved(grid("f4"))) - 1))
def test_every_truncation_is_refused(cut: int) -> None:
    data = saved(grid("f4"))[:cut]

    with pytest.raises(InputError):
        read_array(io.BytesIO(data), "x.npy", len(data))


def outcome_of(data: bytes) -> Any:
    """The array or the refusal; any other exception is a bug, and passes through."""
    try:
        return read_array(io.BytesIO(data), "x.npy", len(data))
    except InputError as refusal:
        return refusal
