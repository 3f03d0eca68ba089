"""Reading tensors: every form of input, and for every bad one the sentence that says what is wrong."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from normcli.errors import InputError
from normcli.files import streams
from normcli.files.npy import npy_bytes
from normcli.files.numbers import EXACT, Tensor
from normcli.files.read import read_tensor, read_tensor_text
from normcli.teaching.printed import read_printed

NAN, INF = float("nan"), float("inf")
IS_ROOT = getattr(os, "geteuid", int)() == 0


def piped(data: bytes | str, **options: Any) -> Tensor:
    """What is read from standard input that holds these bytes."""
    encoded = data.encode() if isinstance(data, str) else data
    return read_tensor("-", stdin=io.BytesIO(encoded), **options)


def refusal_of(given: str, **options: Any) -> InputError:
    with pytest.raises(InputError) as refused:
        read_tensor(given, **options)
    return refused.value


def refusal_of_piped(data: bytes | str, **options: Any) -> InputError:
    with pytest.raises(InputError) as refused:
        piped(data, **options)
    return refused.value


GOOD = {
    "list": ("[[1, 2.5], [-3, 1e2]]", [[1, 2.5], [-3, 100]]),
    "blanks_around": (" \n [1, 2]\t", [1, 2]),
    "blank_before_minus": (" -1.5e-3", -1.5e-3),
    "number": ("3", 3),
    "nan": ("nan", NAN),
    "minus_inf": ("-inf", -INF),
    "bare_constants": ("[NaN, Infinity, -Infinity]", [NAN, INF, -INF]),
    "quoted_constants": ('["NaN", "Infinity", "-Infinity"]', [NAN, INF, -INF]),
    "quoted_short_constants": ('["nan", "inf", "-inf"]', [NAN, INF, -INF]),
    "decimal_comma_is_two_values": ("[1,5]", [1, 5]),
    "data": ('{"data": [1, 2], "x": null}', [1, 2]),
    "output": ('{"input": {"shape": [2], "dtype": "float64"}, "output": [1, 2]}', [1, 2]),
    "input": ('{"input": [1, 2], "output": null}', [1, 2]),
    "data_before_output": ('{"output": [1], "data": [2]}', [2]),
    "scalar_data": ('{"data": 2.5}', 2.5),
    "tensor": ("tensor([[1., 2.],\n        [3., 4.]])", [[1, 2], [3, 4]]),
    "tensor_of_nan": ("tensor([nan, inf, -inf])", [NAN, INF, -INF]),
    "tensor_on_cuda": ("tensor([1., 2.], device='cuda:0')", [1, 2]),
    "tensor_with_grad": ("tensor([1., 2.], grad_fn=<NativeBatchNormBackward0>)", [1, 2]),
    "tensor_requires_grad": ("tensor([1., 2.], requires_grad=True)", [1, 2]),
    "parameter": ("Parameter containing:\ntensor([1., 2.], requires_grad=True)", [1, 2]),
    "scalar_tensor": ("tensor(2.5000)", 2.5),
    "array": ("array([[0. , 1.5],\n       [2. , 3. ]])", [[0, 1.5], [2, 3]]),
    "array_with_shape": ("array([1, 2], shape=(2,))", [1, 2]),
    "np_array": ("np.array([1, 2])", [1, 2]),
    "numpy_scalar": ("np.float64(2.5)", 2.5),
    "numpy_scalars": ("[np.float64(2.5), np.float64(-1.0)]", [2.5, -1]),
    "numpy_print": ("[[0. 1.]\n [2. 3.]]", [[0, 1], [2, 3]]),
    "numpy_print_exponents": ("[1.0e-05 -2.5e+03]", [1e-5, -2500]),
    "python_list": ("[1., .5, +2]", [1, 0.5, 2]),
    "tuples": ("((1, 2), (3,4))", [[1, 2], [3, 4]]),
    "tuple_of_one": ("(1,)", [1]),
    "csv_literal": ("1,2\n3,4", [[1, 2], [3, 4]]),
    "64_axes": ("[" * 64 + "7" + "]" * 64, np.full((1,) * 64, 7.0)),
}


@pytest.mark.parametrize(("text", "expected"), GOOD.values(), ids=GOOD)
def test_literals_are_read(text: str, expected: Any) -> None:
    tensor = read_tensor(text)

    assert tensor.array.dtype == np.float64
    assert tensor.warnings == ()
    np.testing.assert_array_equal(tensor.array, np.array(expected), strict=False)
    assert tensor.array.shape == np.shape(expected)


@pytest.mark.parametrize(("text", "expected"), GOOD.values(), ids=GOOD)
def test_files_hold_what_literals_hold(text: str, expected: Any, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(text)

    np.testing.assert_array_equal(read_tensor(str(path)).array, np.array(expected))


TABLES = {
    "commas": ("1,2\n3,4\n", [[1, 2], [3, 4]]),
    "tabs": ("1\t2\n3\t4", [[1, 2], [3, 4]]),
    "semicolons": ("1;2\n3;4", [[1, 2], [3, 4]]),
    "blanks": ("1  2\n3 4\n", [[1, 2], [3, 4]]),
    "windows_lines": ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
    "header": ("width,height\n1,2\n3,4", [[1, 2], [3, 4]]),
    "quoted": ('"a","b, c"\n"1","2"\n"3","4"', [[1, 2], [3, 4]]),
    "comment": ("# made by hand\n1,2\n3,4", [[1, 2], [3, 4]]),
    "spaces_in_cells": ("1, 2\n3 ,4", [[1, 2], [3, 4]]),
    "blank_lines": ("1,2\n\n3,4\n\n", [[1, 2], [3, 4]]),
    "not_finite": ("nan,-inf\nInfinity,NaN", [[NAN, -INF], [INF, NAN]]),
    "one_row": ("1,2,3\n", [1, 2, 3]),
    "one_column": ("1\n2\n3\n", [1, 2, 3]),
    "column_with_name": ("x\n1\n2", [1, 2]),
}


@pytest.mark.parametrize(("text", "expected"), TABLES.values(), ids=TABLES)
def test_tables_are_read(text: str, expected: Any) -> None:
    tensor = piped(text)

    assert tensor.array.shape == np.shape(expected)
    np.testing.assert_array_equal(tensor.array, np.array(expected))


def test_an_index_without_a_name_is_pointed_out() -> None:
    assert piped(",a,b\n0,1,2\n1,3,4").warnings == ("the first column has no name; its numbers are read as data",)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "text", ["[[1, 2], [3, 4]]", "1,2\n3,4", "tensor([[1, 2], [3, 4]])"], ids=["json", "csv", "pt"]
)
def test_text_is_read_with_and_without_byte_order_mark(text: str, encoding: str) -> None:
    np.testing.assert_array_equal(piped(text.encode(encoding)).array, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("tensor([1.5, 2.], dtype=torch.float16)", "float16"),
        ("tensor([1.5, 2.], dtype=torch.bfloat16)", "bfloat16"),
        ("tensor([1.5, 2.], device='cuda:0', dtype=torch.float64)", "float64"),
        ("array([1.5, 2.], dtype=float32)", "float32"),
        ("array([1.5, 2.], dtype='>f4')", "float32"),
        ("array([1, 2], dtype=int32)", "float64"),
        ("tensor([1, 2], dtype=torch.int32)", "float64"),
        ("array([1, 2], dtype='<i2')", "float64"),
        ("tensor([1.5, 2.])", "float64"),
        ('{"input": {"shape": [2], "dtype": "float16"}, "output": [1.5, 2]}', "float16"),
        ('{"input": {"shape": [2], "dtype": "int8"}, "output": [1.5, 2]}', "float64"),
        ('{"dtype": "float16", "data": [1.5, 2]}', "float64"),
    ],
)
def test_the_dtype_that_a_text_names_is_honoured(text: str, dtype: str) -> None:
    assert str(read_tensor(text).array.dtype) == dtype


def test_the_dtype_asked_for_wins() -> None:
    assert read_tensor("tensor([1.], dtype=torch.float16)", dtype="float32").array.dtype == np.float32


def test_an_unknown_dtype_is_left_for_the_plan_to_refuse() -> None:
    assert read_tensor("[1]", dtype="float12").array.dtype == np.float64


def test_bfloat16_is_rounded_once() -> None:
    assert float(read_tensor(f"[{1 + 2**-8 + 2**-40!r}]", dtype="bfloat16").array[0]) == 1.0078125


WARNINGS = {
    "rounds_to_zero": ("[1e-400]", ("1e-400 rounds to 0",)),
    "capital_exponent": ("[1E-400, 1]", ("1E-400 rounds to 0",)),
    "long_zero": (f"[0.{'0' * 400}1]", ("0.0000000000000000000... rounds to 0",)),
    "several_round_to_zero": ("[1e-400, -2e-500]", ("2 numbers, such as 1e-400, round to 0",)),
    "plain_zero": ("[0, 0.0, 1e-300]", ()),
    "zero_with_exponent": ("[0e-400]", ()),
    "integer": ("[9007199254740993]", ("9007199254740993 is rounded to float64",)),
    "integer_held": ("[9007199254740994]", ()),
    "pasted_integer": ("tensor([9007199254740993])", ("9007199254740993 is rounded to float64",)),
    "pasted_overflow": ("tensor([7e4], dtype=torch.float16)", ("1 value beyond the range of float16 became infinite",)),
    "pasted_infinity": ("tensor([inf], dtype=torch.float16)", ()),
}


@pytest.mark.parametrize(("text", "warnings"), WARNINGS.values(), ids=WARNINGS)
def test_what_is_lost_is_said(text: str, warnings: tuple[str, ...]) -> None:
    assert read_tensor(text).warnings == warnings


REFUSED = {
    "empty": ("", "the tensor is empty"),
    "blank": (" \n", "the tensor is empty"),
    "trailing_comma": ("[1,]", "the tensor has a trailing comma before the ']' at position 4"),
    "leading_comma": ("[,1]", "the tensor has a comma with no number before it at position 2"),
    "double_comma": ("[1,,2]", "the tensor has a comma with no number before it at position 4"),
    "unclosed": ("[[1,2]", "the tensor is cut off: 1 bracket is not closed"),
    "unclosed_call": ("tensor([1., 2.]", "the tensor is cut off: 1 bracket is not closed"),
    "closed_twice": ("[[1,2]]]", "the tensor closes a bracket at position 8 that was never opened"),
    "closed_by_another": ("[1)", "the tensor closes the '[' of position 1 with ')' at position 3"),
    "two_documents": ("[1]\n[2]", "the tensor holds more than one JSON value; line 2, position 1"),
    "two_objects": ('{"data": [1]}\n{}', "the tensor holds more than one JSON value; line 2, position 1"),
    "two_on_a_line": ("[1][2]", "the tensor holds more than one JSON value; position 4"),
    "two_tensors": ("tensor([1]) tensor([2])", "the tensor holds more than one tensor; position 13"),
    "trailing_word": ("[1] x", "the tensor has 'x' at position 5, after the end of the tensor"),
    "ragged": ("[[1,2],[3]]", "the tensor is ragged: row 1 has 1 value, row 0 has 2"),
    "ragged_within": ("[[[1],[2]],[[3],[4,5]]]", "the tensor is ragged: [1][1] has 2 values, [0][0] has 1"),
    "ragged_depth": ("[1,[2]]", "the tensor is ragged: [1] is a list, [0] is not a list"),
    "null": ("[1,null]", "the tensor has null at [1]; write NaN if you mean not-a-number"),
    "true": ("[[1],[true]]", "the tensor has true at [1][0], not a number"),
    "text_number": ('["1"]', "the tensor has text at [0], not a number: '1'"),
    "object": ('[{"a":1}]', "the tensor has an object at [0], not a number"),
    "duplicate_key": ('{"a":[1],"a":[2]}', "the tensor has the key 'a' twice"),
    "no_known_key": (
        '{"a":[1],"b":2}',
        "the tensor has no tensor under the key data, output or input; its keys are a, b",
    ),
    "bad_object": ('{"data": [1,}', "the tensor is not valid JSON: Expecting value at position 13"),
    "overflow": ("[0, 1e400]", "the tensor has 1e400 at [1], which does not fit in float64"),
    "overflow_beside_infinity": (
        "[[Infinity], [-1e400]]",
        "the tensor has -1e400 at [1][0], which does not fit in float64",
    ),
    "overflow_pasted": ("tensor([1e400])", "the tensor has 1e400 at [0], which does not fit in float64"),
    "integer_of_350_digits": (
        f"[{'7' * 350}]",
        "the tensor has 777777777777777777777... at [0], which does not fit in float64",
    ),
    "integer_of_5000_digits": (
        f"[{'7' * 5000}]",
        "the tensor has a number that does not fit in float64: 777777777777777777777...",
    ),
    "hexadecimal": ("[0x1]", "the tensor has '0x1' at position 2, which is not a decimal number"),
    "underscore": ("[1_000]", "the tensor has '1_000' at position 2, which is not a decimal number"),
    "no_break_space": (
        "[1,\u00a02]",
        "the tensor has the character U+00A0 (NO-BREAK SPACE) at position 4; write numbers with 0-9",
    ),
    "zero_width_space": (
        "[1,\u200b2]",
        "the tensor has the character U+200B (ZERO WIDTH SPACE) at position 4; write numbers with 0-9",
    ),
    "arabic_digit": (
        "[\u0661]",
        "the tensor has the character U+0661 (ARABIC-INDIC DIGIT ONE) at position 2; write numbers with 0-9",
    ),
    "nul": ("[1]\0", "the tensor has '\\x00' at position 4, after the end of the tensor"),
    "100000_unclosed": ("[" * 100_000, "the tensor is cut off: 100000 brackets are not closed"),
    "100_unclosed": ("[" * 100, "the tensor is cut off: 100 brackets are not closed"),
    "65_axes": ("[" * 65 + "]" * 65, "the tensor is nested more than 64 levels deep"),
    "100000_deep": ("[" * 100_000 + "]" * 100_000, "the tensor is nested more than 64 levels deep"),
    "65_deep_pasted": ("[" * 65 + "1." + "]" * 65, "the tensor is nested more than 64 levels deep"),
    "no_elements": ("[]", "the tensor has no elements (shape (0,))"),
    "empty_rows": ("[[],[]]", "the tensor has no elements (shape (2, 0))"),
    "empty_tensor": ("tensor([], size=(0, 3))", "the tensor has no elements (shape (0, 3))"),
    "abbreviated": ("tensor([0, 1, ..., 9])", "the tensor is abbreviated ('...' at position 15)"),
    "subtraction": ("[1-2]", "the tensor has '1-2' at position 2, which is not a decimal number"),
    "division": ("[1/3]", "the tensor has '1/3' at position 2, which is not a decimal number"),
    "complex": (
        "array([1.+2.j])",
        "the tensor has the complex number '1.+2.j' at position 8; only real numbers can be normalized",
    ),
    "python_true": ("tensor([ True, False])", "the tensor has True at position 10, not a number"),
    "python_none": ("[None]", "the tensor has None at position 2; write NaN if you mean not-a-number"),
    "text_in_pasted": ("[1., 'a']", "the tensor has text at position 6, not a number: \"'a'\""),
    "missing_comma": ("[1 2, 3]", "the tensor lacks a comma before position 4"),
    "missing_comma_between_rows": ("[[1,2][3,4]]", "the tensor lacks a comma before position 7"),
    "missing_comma_on_a_line": ("[[1, 2],\n [3 4]]", "the tensor lacks a comma before line 2, position 5"),
    "missing_comma_between_lines": (
        "tensor([[1., 2.]\n [3., 4.]])",
        "the tensor lacks a comma before line 2, position 2",
    ),
    "bool_dtype": (
        "array([], dtype=bool)",
        "the tensor holds bool values; use float16, bfloat16, float32 or float64",
    ),
    "complex_dtype": (
        "array([1], dtype=complex64)",
        "the tensor holds complex64 values; use float16, bfloat16, float32 or float64",
    ),
    "second_line": ("[[1.],\n [0x2]]", "the tensor has '0x2' at line 2, position 3, which is not a decimal number"),
    "missing_file": ("data.npy", "no file data.npy, and it is not a tensor literal"),
    "missing_strange_file": ("a\nb\x1b[1m", "no file a\\nb\\x1b[1m, and it is not a tensor literal"),
    "key_of_a_list": ("[1]", "the tensor holds one tensor without a name; there is no w to choose"),
    "key_of_an_object": ('{"data": [1]}', "the tensor has no key 'w'; it has data"),
}
KEYS = {"key_of_a_list": "w", "key_of_an_object": "w"}


LONE_CR = {
    "rows": ("1,2\r3,4\r", [[1, 2], [3, 4]]),
    "quoted": ('"1",2\r"3",4\r', [[1, 2], [3, 4]]),
    "names": ("a;b\r1;2\r", [1, 2]),
    "mixed with others": ("1\t2\r\n3\t4\n5\t6\r7\t8", [[1, 2], [3, 4], [5, 6], [7, 8]]),
}


@pytest.mark.parametrize(("text", "numbers"), LONE_CR.values(), ids=LONE_CR)
def test_lines_may_end_as_on_old_macs(text: str, numbers: list[Any]) -> None:
    assert piped(text.encode()).array.tolist() == numbers


def test_a_cell_longer_than_any_is_refused() -> None:
    refusal = refusal_of_piped(f'1,2\n"{"1" * 200_000}",2')
    assert str(refusal) == "standard input cannot be read in line 2: field larger than field limit (131072)"


def test_a_word_longer_than_a_file_name_is_no_file() -> None:
    assert str(refusal_of("a" * 300)) == f"no file {'a' * 197}..., and it is not a tensor literal"


@pytest.mark.parametrize("name", REFUSED)
def test_bad_text_is_refused_in_one_sentence(name: str) -> None:
    text, message = REFUSED[name]

    assert str(refusal_of(text, key=KEYS.get(name))) == message


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "7" * 100_000], ids=len)
def test_absurd_text_is_refused_fast(text: str) -> None:
    start = time.perf_counter()

    refusal_of(text)

    assert time.perf_counter() - start < 1


def test_messages_name_the_option() -> None:
    assert str(refusal_of("[null]", what="--weight")) == (
        "--weight has null at [0]; write NaN if you mean not-a-number"
    )


REFUSED_TABLES = {
    "ragged": ("1,2\n\n3\n", "standard input is ragged: line 3 has 1 value, line 1 has 2"),
    "word": ("1,2\n3,x", "standard input has 'x' at line 2, column 2, which is not a decimal number"),
    "word_in_first_row": ("x,1\n2,3", "standard input has 'x' at line 1, column 1, which is not a decimal number"),
    "empty_cell": ("1,2\n3,", "standard input has an empty cell at line 2, column 2"),
    "decimal_comma": (
        "1,5;2,5",
        "standard input has a decimal comma in '1,5' at line 1, column 1; write a decimal point",
    ),
    "overflow": ("1\n1e400", "standard input has 1e400 at [1], which does not fit in float64"),
    "no_break_space": (
        "1,\u00a02",
        "standard input has the character U+00A0 (NO-BREAK SPACE) at line 1, column 2; write numbers with 0-9",
    ),
    "arabic_digits_are_no_header": (
        "\u0661,\u0662\n1,2",
        "standard input has the character U+0661 (ARABIC-INDIC DIGIT ONE) at line 1, column 1; write numbers with 0-9",
    ),
    "words": ("hello world", "standard input holds no tensor, but 'hello world'"),
    "null": ("null", "standard input holds no tensor, but 'null'"),
    "comment_alone": ("# nothing\n", "standard input is empty"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED_TABLES.values(), ids=REFUSED_TABLES)
def test_bad_tables_are_refused_in_one_sentence(text: str, message: str) -> None:
    assert str(refusal_of_piped(text)) == message


REFUSED_BYTES = {
    "empty": (b"", "standard input is empty"),
    "byte_order_mark_alone": (b"\xff\xfe", "standard input is empty"),
    "nul": (b"[1]\0", "standard input has a NUL byte at position 4, so it is no text"),
    "utf16_without_mark": ("[1]".encode("utf-16-le"), "standard input has a NUL byte at position 2, so it is no text"),
    "latin1": (b"caf\xe9", "standard input is neither NPY, NPZ nor text in UTF-8"),
    "cut_utf8": ("[1] é".encode()[:-1], "standard input is neither NPY, NPZ nor text in UTF-8"),
    "pickle": (
        b"\x80\x04\x95",
        "standard input looks like a Python pickle, which is never loaded; save the tensor as NPY",
    ),
    "gzip": (b"\x1f\x8b\x08\0", "standard input is compressed by gzip; unpack it first"),
    "cut_npy": (npy_bytes(np.zeros(4))[:-3], "standard input holds 29 of 32 bytes of data"),
    "cut_magic": (b"\x93NUM", "standard input is not an NPY file"),
    "zip_magic_alone": (b"PK\x03\x04", "standard input is damaged: File is not a zip file"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED_BYTES.values(), ids=REFUSED_BYTES)
def test_bad_bytes_are_refused_in_one_sentence(data: bytes, message: str) -> None:
    assert str(refusal_of_piped(data)) == message


@pytest.mark.parametrize(("data", "message"), REFUSED_BYTES.values(), ids=REFUSED_BYTES)
def test_bad_files_are_refused_by_their_path(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)

    assert str(refusal_of(str(path))) == message.replace("standard input", str(path))


class TestPlaces:
    """Where a tensor comes from: a file, a pipe, a literal."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("name", ["1", "nan", "tensor(1)", "x y.npy", "-1.npy", "a::b"])
    def test_a_file_wins_over_a_literal(self, folder: Path, name: str) -> None:
        (folder / name).write_text("[7, 8]")

        assert read_tensor(name).array.tolist() == [7, 8]

    def test_a_bracket_is_a_literal_even_beside_a_file(self, folder: Path) -> None:
        (folder / "[1]").write_text("[7, 8]")

        assert read_tensor("[1]").array.tolist() == [1]

    def test_a_blank_put_before_a_file_name_is_ignored(self, folder: Path) -> None:
        (folder / "-1.npy").write_bytes(npy_bytes(np.ones(3)))

        assert read_tensor(" -1.npy").array.tolist() == [1, 1, 1]

    def test_a_close_name_is_offered(self, folder: Path) -> None:
        (folder / "data.npy").touch()

        assert refusal_of("data.nyp").hint == "did you mean data.npy?"

    def test_a_folder_is_refused(self, folder: Path) -> None:
        assert str(refusal_of(str(folder))) == f"{folder} is a folder, not a file"

    def test_a_dangling_link_is_refused(self, folder: Path) -> None:
        (folder / "x.npy").symlink_to("gone")

        assert str(refusal_of("x.npy")) == "x.npy is a link to a file that is not there"

    def test_a_link_to_itself_is_refused(self, folder: Path) -> None:
        (folder / "x.npy").symlink_to("x.npy")

        assert str(refusal_of("x.npy")) == "x.npy is a link to a file that is not there"

    @pytest.mark.skipif(IS_ROOT, reason="root may read everything")
    def test_an_unreadable_file_is_refused(self, folder: Path) -> None:
        (folder / "x.npy").touch(mode=0)

        assert str(refusal_of("x.npy")) == "cannot read x.npy: Permission denied"

    def test_a_socket_is_refused(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.sock")

            assert str(refusal_of("x.sock")) == "cannot read x.sock: No such device or address"

    @pytest.mark.parametrize("data", [b"[1, 2, 3]", npy_bytes(np.arange(1.0, 4))], ids=["text", "npy"])
    def test_a_named_pipe_is_read(self, folder: Path, data: bytes) -> None:
        os.mkfifo("pipe")
        thread = threading.Thread(target=(folder / "pipe").write_bytes, args=(data,))
        thread.start()

        assert read_tensor("pipe").array.tolist() == [1, 2, 3]
        thread.join()

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
    def test_an_endless_file_is_refused_fast(self) -> None:
        assert str(refusal_of("/dev/zero")) == "/dev/zero has a NUL byte at position 1, so it is no text"

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc")
    def test_a_file_that_fails_while_it_is_read_is_refused(self) -> None:
        assert str(refusal_of("/proc/self/mem")) == "cannot read /proc/self/mem: Input/output error"

    @pytest.mark.parametrize("name", ["x.npy", "x.npz"])
    def test_text_under_a_binary_name_is_read(self, folder: Path, name: str) -> None:
        (folder / name).write_text("[1, 2]")

        assert read_tensor(name).array.tolist() == [1, 2]

    def test_bad_text_under_a_binary_name_is_called_text(self, folder: Path) -> None:
        (folder / "x.npy").write_text("[null]")

        assert str(refusal_of("x.npy")).startswith("x.npy (text, not NPY) has null at [0]")

    def test_npy_under_any_name_is_read(self, folder: Path) -> None:
        (folder / "x.txt").write_bytes(npy_bytes(np.arange(3, dtype="f4")))

        assert read_tensor("x.txt").array.dtype == np.float32

    def test_a_second_array_in_a_file_is_refused(self, folder: Path) -> None:
        (folder / "x.npy").write_bytes(npy_bytes(np.zeros(3)) * 2)

        assert str(refusal_of("x.npy")) == "x.npy has 152 bytes after the end of its data"

    def test_integers_of_a_file_are_converted_with_a_warning(self, folder: Path) -> None:
        np.save("x.npy", np.array([2**62 + 1]))

        assert read_tensor("x.npy").warnings == ("4611686018427387905 is rounded to float64",)

    def test_bfloat16_of_a_file_is_read_when_asked_for(self, folder: Path) -> None:
        np.save("x.npy", np.array([1.5], dtype=ml_dtypes.bfloat16))

        assert str(read_tensor("x.npy", dtype="bfloat16").array.dtype) == "bfloat16"

    def test_a_file_is_cast_to_the_dtype_asked_for(self, folder: Path) -> None:
        np.save("x.npy", np.array([1e5, 0.1]))

        tensor = read_tensor("x.npy", dtype="float16")

        assert tensor.array.tolist() == [INF, float(np.float16(0.1))]
        assert tensor.warnings == ("1 value beyond the range of float16 became infinite",)

    def test_a_large_text_file_is_refused_before_it_is_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "MOST_TEXT", 2**20)
        (folder / "x.json").touch()
        os.truncate("x.json", 2**20 + 1)
        with (folder / "x.json").open("r+b") as stream:
            stream.write(b"[1, 2, 3, 4]")

        assert str(refusal_of("x.json")) == "x.json holds more than 1 MiB of text; use NPY for tensors of this size"

    def test_a_large_text_pipe_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "MOST_TEXT", 2**20)

        assert "more than 1 MiB of text" in str(refusal_of_piped("1 " * 2**20))

    def test_a_large_archive_in_a_pipe_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "MOST_TEXT", 2**20)

        refusal = refusal_of("-", stdin=Pipe(b"PK\x03\x04" + bytes(2**20)))

        assert "more than 1 MiB" in str(refusal)


class Pipe(io.BytesIO):
    """A stream that cannot be searched and gives a few bytes at a time."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("seek")

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(3, size or 0))


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


class TestStandardInput:
    def test_a_slow_pipe_of_text_is_read(self) -> None:
        assert read_tensor("-", stdin=Pipe(b"\xef\xbb\xbf[1.5, 2, 3]")).array.tolist() == [1.5, 2, 3]

    def test_a_slow_pipe_of_npy_is_read(self) -> None:
        assert read_tensor("-", stdin=Pipe(npy_bytes(np.arange(3.0)))).array.tolist() == [0, 1, 2]

    def test_a_slow_pipe_of_npz_is_read(self) -> None:
        assert read_tensor("-", stdin=Pipe(npz(a=np.arange(3.0)))).array.tolist() == [0, 1, 2]

    def test_a_redirected_file_is_read_from_where_it_stands(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"skipped" + npy_bytes(np.arange(3.0)))
        with (tmp_path / "x").open("rb") as stream:
            stream.read(7)

            assert read_tensor("-", stdin=stream).array.tolist() == [0, 1, 2]

    def test_the_process_s_own_is_taken_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))

        assert read_tensor("-").array.tolist() == [1, 2]

    def test_a_terminal_is_refused_with_a_way_out(self) -> None:
        refusal = refusal_of("-", stdin=Terminal())

        assert str(refusal) == "standard input is a terminal, and nothing is piped in"
        assert "give a file or a literal" in str(refusal.hint)

    def test_a_closed_one_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)

        assert str(refusal_of("-")) == "standard input is closed; give a file or a literal"


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        for name, data in members:
            made.writestr(name, data)
    return stream.getvalue()


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


ZEROS = npy_bytes(np.zeros(4))
TWO = npz(weight=np.ones(3), bias=np.zeros(3))
UNKNOWN_METHOD = patched(
    patched(archive(("a.npy", ZEROS)), b"PK\x03\x04\x14\0\0\0\0\0", b"PK\x03\x04\x14\0\0\0\x63\0"),
    b"PK\x01\x02\x14\x03\x14\0\0\0\0\0",
    b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0",
)
ENCRYPTED = patched(
    patched(archive(("a.npy", ZEROS)), b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\1\0"),
    b"PK\x01\x02\x14\x03\x14\0\0\0",
    b"PK\x01\x02\x14\x03\x14\0\1\0",
)

REFUSED_ARCHIVES = {
    "several": (TWO, None, "standard input holds 2 arrays: weight, bias; choose one"),
    "wrong_key": (TWO, "gamma", "standard input holds no array named gamma; it has weight, bias"),
    "empty": (archive(), None, "standard input holds no arrays"),
    "no_arrays": (archive(("word/document.xml", b"<x/>")), None, "standard input holds no arrays"),
    "pytorch": (
        archive(("archive/data.pkl", b"")),
        None,
        "standard input is a PyTorch file, a pickle, which is never loaded; save the tensor as NPY",
    ),
    "short_member": (
        archive(("a.npy", ZEROS.replace(b"(4,)", b"(9,)"))),
        None,
        "standard input::a holds 32 of 72 bytes of data",
    ),
    "long_member": (archive(("a.npy", ZEROS + b"1")), None, "standard input::a has 1 byte after the end of its data"),
    "bad_member": (archive(("a.npy", b"hello")), None, "standard input::a is not an NPY file"),
    "cut": (TWO[: len(TWO) // 2], None, "standard input is damaged: File is not a zip file"),
    "bad_checksum": (
        archive(("a.npy", ZEROS)).replace(bytes(32), bytes(31) + b"1"),
        None,
        "standard input is damaged: Bad CRC-32 for file 'a.npy'",
    ),
    "unknown_compression": (
        UNKNOWN_METHOD,
        None,
        "standard input::a is compressed by method 99, which is not known",
    ),
    "encrypted": (ENCRYPTED, None, "standard input::a is encrypted"),
    "objects": (
        archive(("a.npy", ZEROS.replace(b"'<f8'", b"'|O' "))),
        None,
        "standard input::a contains Python objects (O); only real numbers can be normalized",
    ),
    "many": (
        archive(*((f"{number}.npy", ZEROS) for number in range(2000))),
        None,
        f"standard input holds 2000 arrays: {', '.join(map(str, range(20)))} and 1980 more; choose one",
    ),
    "strange_names": (
        archive(("../../etc/x.npy", ZEROS), ("\x1b[1m.npy", ZEROS)),
        None,
        "standard input holds 2 arrays: ../../etc/x, \\x1b[1m; choose one",
    ),
}


class TestArchives:
    @pytest.mark.parametrize(
        "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    def test_a_single_array_is_taken(self, compression: int) -> None:
        array = np.arange(6, dtype="f4").reshape(2, 3)

        tensor = piped(archive(("a.npy", npy_bytes(array)), ("notes.txt", b"hello"), compression=compression))

        assert tensor.array.dtype == np.float32
        np.testing.assert_array_equal(tensor.array, array)

    @pytest.mark.parametrize("key", ["weight", "weight.npy"])
    def test_a_key_chooses_an_array(self, key: str) -> None:
        assert piped(TWO, key=key).array.tolist() == [1, 1, 1]

    @pytest.mark.parametrize("data", [TWO, b'{"bias": [0], "weight": [1, 1, 1], "data": [2]}'], ids=["npz", "json"])
    def test_a_path_chooses_an_array(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(data)

        assert read_tensor(f"{tmp_path}/x::weight").array.tolist() == [1, 1, 1]
        assert read_printed(f"{tmp_path}/x::weight")[0].values.tolist() == [1, 1, 1]

    @pytest.mark.parametrize("data", [b"[1, 2]", b"1,2", npy_bytes(np.zeros(2))], ids=["list", "csv", "npy"])
    def test_what_has_no_names_has_none_to_choose(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(data)

        with pytest.raises(
            InputError, match=r"x holds one (tensor|array) without a name; there is no weight to choose"
        ):
            read_tensor(f"{tmp_path}/x::weight")

    def test_several_arrays_come_with_a_hint(self) -> None:
        assert refusal_of_piped(TWO).hint == "standard input::weight is the first"

    @pytest.mark.parametrize(("data", "key", "message"), REFUSED_ARCHIVES.values(), ids=REFUSED_ARCHIVES)
    def test_bad_archives_are_refused_in_one_sentence(self, data: bytes, key: str | None, message: str) -> None:
        assert str(refusal_of_piped(data, key=key)) == message

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_arrays_of_one_name_are_refused(self) -> None:
        data = archive(("a.npy", ZEROS), ("a.npy", ZEROS))

        assert str(refusal_of_piped(data, key="a")) == "standard input holds two arrays named a; it has a, a"

    def test_a_bomb_is_refused_before_it_is_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("normcli.files.npz._LARGE_MEMBER", 2**20)
        data = archive(("a.npy", npy_bytes(np.zeros(2**18))), compression=zipfile.ZIP_DEFLATED)

        assert str(refusal_of_piped(data)) == "standard input::a would grow from 0.0 to 2 MiB; unpack it to NPY first"

    def test_128_mebibytes_of_zeros_is_a_bomb(self) -> None:
        start = npy_bytes(np.zeros(1))[:10]  # what follows would only be seen if it were unpacked
        data = archive(("a.npy", start + bytes(2**27)), compression=zipfile.ZIP_DEFLATED)

        assert str(refusal_of_piped(data)) == "standard input::a would grow from 0.1 to 128 MiB; unpack it to NPY first"

    def test_names_that_look_like_paths_are_only_names(self, tmp_path: Path) -> None:
        data = archive(("../../etc/x.npy", ZEROS))

        assert piped(data, key="../../etc/x").array.tolist() == [0, 0, 0, 0]
        assert list(tmp_path.iterdir()) == []

    def test_a_key_chooses_from_a_json_object(self) -> None:
        assert read_tensor('{"weight": [1], "data": [2]}', key="weight").array.tolist() == [1]

    def test_a_key_of_an_npy_file_is_refused(self) -> None:
        assert str(refusal_of_piped(ZEROS, key="w")) == (
            "standard input holds one array without a name; there is no w to choose"
        )


class TestRoundTrips:
    FINITE_OR_NOT = hnp.arrays(
        np.float64, hnp.array_shapes(max_dims=4, max_side=4), elements=st.floats(allow_subnormal=True)
    )

    @settings(deadline=None)
    @given(FINITE_OR_NOT)
    def test_json_keeps_every_bit(self, array: Any) -> None:
        np.testing.assert_array_equal(read_tensor_text(json.dumps(array.tolist())).array, array)

    @settings(deadline=None)
    @given(FINITE_OR_NOT)
    def test_numpy_s_repr_keeps_every_bit(self, array: Any) -> None:
        with np.printoptions(floatmode="unique", threshold=10**9):
            text = repr(array)

        np.testing.assert_array_equal(read_tensor_text(text).array, array)

    @settings(deadline=None)
    @given(FINITE_OR_NOT)
    def test_numpy_s_str_keeps_every_bit(self, array: Any) -> None:
        with np.printoptions(floatmode="unique", threshold=10**9):
            text = str(array)

        np.testing.assert_array_equal(read_tensor_text(text).array, array)

    @settings(deadline=None)
    @given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
    def test_float32_repr_keeps_dtype_and_bits(self, array: Any) -> None:
        with np.printoptions(floatmode="unique", threshold=10**9):
            back = read_tensor_text(repr(array)).array

        assert back.dtype == np.float32
        np.testing.assert_array_equal(back, array)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_what_torch_prints_is_read(self, dtype: torch.dtype) -> None:
        tensor = torch.arange(24, dtype=dtype).reshape(2, 3, 4) / 8

        back = read_tensor_text(repr(tensor)).array

        assert f"torch.{back.dtype}" == str(dtype)
        np.testing.assert_array_equal(back.astype(np.float64), tensor.to(torch.float64).numpy())

    def test_what_torch_prints_of_a_parameter_is_read(self) -> None:
        parameter = torch.nn.Parameter(torch.tensor([[0.5, -1.25]]))

        assert read_tensor_text(repr(parameter)).array.tolist() == [[0.5, -1.25]]

    def test_what_torch_prints_of_an_output_is_read(self) -> None:
        output = torch.nn.LayerNorm(2)(torch.tensor([[1.0, 3.0]]))

        assert "grad_fn" in repr(output)
        assert read_tensor_text(repr(output)).array.tolist() == [[-1.0, 1.0]]

    def test_what_is_printed_in_part_is_refused(self) -> None:
        with pytest.raises(InputError, match="abbreviated"):
            read_tensor_text(repr(torch.zeros(2000)))


class TestWritten:
    @pytest.mark.parametrize(
        ("text", "decimals"),
        [
            ("[1, -2, 0]", [EXACT, EXACT, EXACT]),
            ("[0., 1., 1.0]", [EXACT, EXACT, 1]),
            ("[0.5, -0.50, 12.345]", [1, 2, 3]),
            ("[1.5e-3, 1e-05, 1.5e3, 2E2]", [4, 5, -2, -2]),
            ("[NaN, Infinity]", [EXACT, EXACT]),
            ("[[1.5, 2], [3.25, 4.125]]", [[1, EXACT], [2, 3]]),
            ("tensor([[0.1235, 1.0000]])", [[4, 4]]),
            ("0.25,1\n0.5,2", [[2, EXACT], [1, EXACT]]),
            ("2.50", 2),
            ('{"data": [0.5], "other": [0.125]}', [1]),
        ],
    )
    def test_decimals_are_counted_as_written(self, text: str, decimals: Any) -> None:
        assert read_printed(text)[0].decimals.tolist() == decimals

    def test_the_tensor_is_the_same(self) -> None:
        assert read_printed("[[1, 2.5], [3, -4e-3]]")[0].values.tolist() == [[1, 2.5], [3, -0.004]]

    def test_a_number_too_large_is_refused_as_written(self) -> None:
        with pytest.raises(InputError, match=r"has 1\.00e400 at \[0\]"):
            read_printed("[1.00e400]")

    def test_binary_files_are_exact(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[0.5, 1.5]]))

        assert read_printed(str(tmp_path / "x.npy"))[0].decimals.tolist() == [[EXACT, EXACT]]


FUZZ = settings(max_examples=300, deadline=None)


def outcome_of(data: bytes) -> Any:
    """The tensor or the refusal; any other exception is a bug, and passes through."""
    try:
        return piped(data)
    except InputError as refusal:
        return refusal


@FUZZ
@given(st.text("[](),. \n-+0123456789eEnaif\"{}:data\u0661x;\t'=", max_size=40))
def test_random_text_is_read_or_refused(text: str) -> None:
    assert isinstance(outcome_of(text.encode()), Tensor | InputError)


@FUZZ
@given(st.text("[](),. \n-+0123456789", max_size=30))
def test_random_calls_are_read_or_refused(text: str) -> None:
    assert isinstance(outcome_of(f"tensor({text}".encode()), Tensor | InputError)


@FUZZ
@given(st.binary(max_size=60))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    assert isinstance(outcome_of(data), Tensor | InputError)


@FUZZ
@given(st.integers(0, len(TWO) - 1), st.integers(0, 255))
def test_damaged_archives_are_read_or_refused(at: int, value: int) -> None:
    data = bytearray(npz(a=np.arange(3.0)))
    data[at % len(data)] = value

    assert isinstance(outcome_of(bytes(data)), Tensor | InputError)


@FUZZ
@given(st.integers(0, len(TWO) - 1))
def test_cut_archives_are_refused(length: int) -> None:
    assert isinstance(outcome_of(TWO[:length]), InputError)
