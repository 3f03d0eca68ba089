"""Writing tensors: every bit kept, and a file that is there whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from normcli.errors import InputError, UnavailableError
from normcli.files.json import json_chunks
from normcli.files.read import read_tensor, read_tensor_text
from normcli.files.write import output_format, whole_file, write_tensor

NAN, INF = float("nan"), float("inf")
IS_ROOT = getattr(os, "geteuid", int)() == 0
FORMATS = [".npy", ".npz", ".json", ".csv"]
TABLE = np.array([[0.1, -0.0, 1e300], [NAN, INF, -INF]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_comes_back_with_every_bit(suffix: str) -> None:
    write_tensor(f"y{suffix}", TABLE)

    back = read_tensor(f"y{suffix}").array

    assert back.tobytes() == TABLE.tobytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_row_stays_a_row(suffix: str) -> None:
    write_tensor(f"y{suffix}", np.array([1.5, 2, 3]))

    assert read_tensor(f"y{suffix}").array.tolist() == [1.5, 2, 3]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_any_number_of_axes_comes_back(suffix: str) -> None:
    array = np.arange(24.0).reshape(2, 1, 3, 4)

    write_tensor(f"y{suffix}", array)

    np.testing.assert_array_equal(read_tensor(f"y{suffix}").array, array)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_binary_formats_keep_the_dtype(suffix: str, dtype: str) -> None:
    write_tensor(f"y{suffix}", np.array([[0.1]], dtype))

    assert read_tensor(f"y{suffix}").array.dtype == dtype


@pytest.mark.parametrize("suffix", FORMATS)
def test_bfloat16_is_written_by_its_exact_values(suffix: str) -> None:
    array = np.array([[0.1, 3.0]], dtype=ml_dtypes.bfloat16)

    write_tensor(f"y{suffix}", array)

    assert read_tensor(f"y{suffix}").array.ravel().tolist() == [0.10009765625, 3.0]


def test_csv_is_what_other_programs_read(folder: Path) -> None:
    write_tensor("y.csv", TABLE)

    assert (folder / "y.csv").read_text() == "0.1,-0.0,1e+300\nnan,inf,-inf\n"


def test_csv_of_many_blocks_holds_every_row(folder: Path) -> None:
    array = np.arange(60_000.0).reshape(20_000, 3)

    write_tensor("y.csv", array)

    with (folder / "y.csv").open() as file:
        assert [[float(cell) for cell in row] for row in csv.reader(file)] == array.tolist()


def test_json_is_the_nested_list(folder: Path) -> None:
    write_tensor("y.json", TABLE)

    assert (folder / "y.json").read_text() == '[[0.1, -0.0, 1e+300], ["NaN", "Infinity", "-Infinity"]]\n'


def test_npz_holds_the_array_under_output() -> None:
    write_tensor("y.npz", TABLE)

    with np.load("y.npz") as archive:
        assert archive.files == ["output"]


def test_the_suffix_may_be_in_capitals(folder: Path) -> None:
    write_tensor("y.NPY", TABLE)

    assert [path.name for path in folder.iterdir()] == ["y.NPY"]


@pytest.mark.parametrize(
    ("path", "rank", "message"),
    [
        ("y.txt", 2, "cannot tell the format of 'y.txt' by its suffix; use .npy, .npz, .json or .csv"),
        ("y", 2, "cannot tell the format of 'y' by its suffix; use .npy, .npz, .json or .csv"),
        ("", 2, "the name of the file is empty; give one that ends in .npy, .npz, .json or .csv"),
        ("y.csv", 3, "CSV holds tensors of 1 or 2 axes, and this one has 3; use .npy, .npz or .json"),
        ("y.csv", 0, "CSV holds tensors of 1 or 2 axes, and this one has 0; use .npy, .npz or .json"),
    ],
)
def test_a_format_that_cannot_be_written_is_refused(path: str, rank: int, message: str) -> None:
    with pytest.raises(InputError) as refused:
        output_format(path, rank)

    assert str(refused.value) == message


class TestJsonChunks:
    @pytest.mark.parametrize(
        ("array", "text"),
        [
            pytest.param(np.float32(0.1), "0.10000000149011612", id="float32_is_widened"),
            pytest.param(np.array(NAN), '"NaN"', id="scalar_nan"),
            pytest.param(np.array([1, 2]), "[1.0, 2.0]", id="integers"),
            pytest.param(np.array([NAN, -INF]), '["NaN", "-Infinity"]', id="not_finite"),
            pytest.param(np.zeros((2, 0)), "[[], []]", id="empty"),
            pytest.param(np.array([[1.5]], dtype=ml_dtypes.bfloat16), "[[1.5]]", id="bfloat16"),
            pytest.param(
                np.array([5e-324, 1.7976931348623157e308]), "[5e-324, 1.7976931348623157e+308]", id="extremes"
            ),
        ],
    )
    def test_numbers_are_exact(self, array: Any, text: str) -> None:
        assert "".join(json_chunks(array)) == text

    @pytest.mark.parametrize("shape", [(100_000,), (50_000, 2), (2, 50_000), (3, 7, 5_000), (40_000, 1, 3)], ids=str)
    def test_pieces_join_to_what_json_writes(self, shape: tuple[int, ...]) -> None:
        array = np.random.default_rng(7).standard_normal(shape)

        assert "".join(json_chunks(array)) == json.dumps(array.tolist())

    def test_not_finite_numbers_are_found_in_every_piece(self) -> None:
        array = np.zeros(100_000)
        array[[0, 50_000, 99_999]] = [NAN, INF, -INF]

        back = json.loads("".join(json_chunks(array)))

        assert [back[0], back[50_000], back[99_999]] == ["NaN", "Infinity", "-Infinity"]

    def test_memory_does_not_grow_with_the_array(self) -> None:
        array = np.ones((1000, 1000), dtype=np.float32)
        tracemalloc.start()

        longest = max(map(len, json_chunks(array)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert longest < 2**20
        assert peak < 2**22

    @settings(deadline=None)
    @given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, max_side=3), elements=st.floats()))
    def test_what_is_written_reads_back(self, array: Any) -> None:
        back = read_tensor_text("".join(json_chunks(array))).array

        np.testing.assert_array_equal(back, array)
        np.testing.assert_array_equal(np.signbit(back[array == 0]), np.signbit(array[array == 0]))


class TestWholeFile:
    def test_nothing_is_there_before_the_end(self, folder: Path) -> None:
        with whole_file("y.npy") as stream:
            stream.write(b"new")

            assert not (folder / "y.npy").exists()

        assert (folder / "y.npy").read_bytes() == b"new"

    @pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, folder: Path, exception: type[BaseException]) -> None:
        (folder / "y.npy").write_bytes(b"old")

        with pytest.raises(exception), whole_file("y.npy") as stream:
            stream.write(b"new")
            raise exception

        assert [path.name for path in folder.iterdir()] == ["y.npy"]
        assert (folder / "y.npy").read_bytes() == b"old"

    def test_a_success_leaves_no_temporary_file(self, folder: Path) -> None:
        write_tensor("y.npy", TABLE)

        assert [path.name for path in folder.iterdir()] == ["y.npy"]

    def test_the_bytes_are_on_the_disk_before_the_file_is_in_place(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there: list[bool] = []
        monkeypatch.setattr(os, "fsync", lambda _: there.append((folder / "y.npy").exists()))

        write_tensor("y.npy", TABLE)

        assert there == [False]

    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o755], ids=oct)
    def test_a_replaced_file_keeps_its_mode(self, folder: Path, mode: int) -> None:
        (folder / "y.npy").touch()
        (folder / "y.npy").chmod(mode)

        write_tensor("y.npy", TABLE)

        assert stat.S_IMODE((folder / "y.npy").stat().st_mode) == mode

    @pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)], ids=["usual", "private"])
    def test_a_new_file_has_the_mode_that_the_umask_leaves(self, folder: Path, mask: int, mode: int) -> None:
        before = os.umask(mask)
        try:
            write_tensor("y.npy", TABLE)
        finally:
            os.umask(before)

        assert stat.S_IMODE((folder / "y.npy").stat().st_mode) == mode

    def test_a_symbolic_link_stays_and_its_target_is_replaced(self, folder: Path) -> None:
        (folder / "there").mkdir()
        (folder / "y.npy").symlink_to("there/target.npy")

        write_tensor("y.npy", TABLE)

        assert (folder / "y.npy").is_symlink()
        assert [path.name for path in (folder / "there").iterdir()] == ["target.npy"]

    def test_the_input_may_be_the_output(self) -> None:
        np.save("x.npy", TABLE)

        write_tensor("x.npy", read_tensor("x.npy").array * 2)

        np.testing.assert_array_equal(np.load("x.npy"), TABLE * 2)

    def test_a_named_pipe_is_written_directly(self, folder: Path) -> None:
        os.mkfifo("y.npy")
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.append((folder / "y.npy").read_bytes()))
        thread.start()

        write_tensor("y.npy", np.ones(3))
        thread.join()

        assert read[0].startswith(b"\x93NUMPY")
        assert stat.S_ISFIFO((folder / "y.npy").stat().st_mode)

    def test_a_link_to_a_device_is_written_directly(self, folder: Path) -> None:
        (folder / "y.npy").symlink_to("/dev/null")

        write_tensor("y.npy", TABLE)

        assert stat.S_ISCHR((folder / "y.npy").stat().st_mode)

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("gone/y.npy", "cannot write gone/y.npy: No such file or directory"),
            ("folder.npy", "cannot write folder.npy: it is a folder"),
            ("file/y.npy", "cannot write file/y.npy: Not a directory"),
            ("loop.npy", "cannot write loop.npy: it is a symbolic link to itself"),
            ("a\nb/y.npy", "cannot write a\\nb/y.npy: No such file or directory"),
        ],
        ids=["missing_folder", "folder", "file_as_folder", "loop", "line_break"],
    )
    def test_a_path_that_cannot_be_written_to_is_refused(self, folder: Path, path: str, message: str) -> None:
        (folder / "folder.npy").mkdir()
        (folder / "file").touch()
        (folder / "loop.npy").symlink_to("loop.npy")

        with pytest.raises(InputError) as refused:
            write_tensor(path, TABLE)

        assert str(refused.value) == message

    @pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
    @pytest.mark.parametrize("protected", [".", "y.npy"], ids=["folder", "file"])
    def test_what_may_not_be_written_to_is_refused(self, folder: Path, protected: str) -> None:
        (folder / "y.npy").touch()
        (folder / protected).chmod(0o555)

        with pytest.raises(InputError, match=r"^cannot write y\.npy: Permission denied$"):
            write_tensor("y.npy", TABLE)
        folder.chmod(0o755)

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "cannot write y.npy: No space left on device"),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), "cannot write y.npy: Disk quota exceeded"),
            (OSError("100 requested and 9 written"), "cannot write y.npy: not all bytes were taken; is the disk full?"),
        ],
        ids=["no_space", "quota", "no_reason"],
    )
    def test_a_full_disk_is_not_the_user_s_mistake(self, folder: Path, error: OSError, message: str) -> None:
        with pytest.raises(UnavailableError) as refused, whole_file("y.npy"):
            raise error

        assert str(refused.value) == message
        assert list(folder.iterdir()) == []

    def test_a_closed_pipe_is_no_error_of_the_file(self) -> None:
        with pytest.raises(BrokenPipeError), whole_file("y.npy"):
            raise BrokenPipeError

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_full_device_is_named(self, folder: Path, suffix: str) -> None:
        (folder / f"y{suffix}").symlink_to("/dev/full")

        with pytest.raises(UnavailableError, match=r"No space left on device$"):
            write_tensor(f"y{suffix}", TABLE)

    @pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_file_that_grows_too_large_leaves_the_old_one(
        self, folder: Path, environment: dict[str, str], suffix: str
    ) -> None:
        (folder / f"y{suffix}").write_text("old")
        script = f"""
import resource
import numpy as np
from normcli.errors import UnavailableError
from normcli.files.write import write_tensor
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_tensor("y{suffix}", np.random.default_rng(1).standard_normal((300, 300)))
except UnavailableError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
        )

        assert (done.stdout, done.stderr) == (f"cannot write y{suffix}: File too large\n", "")
        assert [path.name for path in folder.iterdir()] == [f"y{suffix}"]
        assert (folder / f"y{suffix}").read_text() == "old"
