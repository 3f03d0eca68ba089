"""Failures that are graceful: nothing half written or lost, the right thing blamed, and the exit code that says so."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from normcli.commands.calculate import calculate
from normcli.commands.show import Show
from normcli.errors import InputError
from normcli.files import stored
from normcli.files.write import whole_file, write_tensor
from normcli.planning.kinds import KINDS

BATCH = "[[1,2],[3,5]]"
CUBE = "[[[1,2],[3,5]],[[0,2],[3,9]]]"

# --- refused before anything is read or written ---------------------------------------------------

REFUSED = {
    "output is the state": (
        ("batch", "nowhere", "-o", "s.npz", "--save-state", "s.npz"),
        "--output and --save-state are the same file, s.npz; give one another name",
    ),
    "output is the state by another path": (
        ("batch", "nowhere", "-o", "s.npz", "--save-state", "./link.npz"),
        "--output and --save-state are the same file, ./link.npz; give one another name",
    ),
    "an output is the state": (
        ("batch", "nowhere", "nowhere", "-o", "s{i}.npz", "--save-state", "s1.npz"),
        "--output and --save-state are the same file, s1.npz; give one another name",
    ),
    "empty output": (
        ("layer", "nowhere", "-o", ""), "--output is empty; give one that ends in .npy, .npz, .json or .csv",
    ),
    "empty state": (
        ("batch", "nowhere", "--save-state", " "), "--save-state is empty; give one that ends in .json,",
    ),
    "empty picture": (("layer", "nowhere", "--svg", ""), "--svg is empty; give one that ends in .svg"),
    "empty drawing": (("axes", "batch", "--shape", "2,3", "--svg", ""), "--svg is empty; give one that ends in .svg"),
    "a picture that is no SVG": (
        ("layer", "nowhere", "--svg", "z.png"), "cannot tell the format of 'z.png' by its suffix",
    ),
    "a drawing that is no SVG": (
        ("axes", "batch", "--shape", "2,3", "--svg", "z.png"), "cannot tell the format of 'z.png' by its suffix",
    ),
    "an output of no format": (
        ("layer", "nowhere", "-o", "y.txt"), "cannot tell the format of 'y.txt' by its suffix",
    ),
    "a script of one part": (
        ("layer", "nowhere", "--format", "python", "--only", "statistics", "-o", "y.npy"),
        "--format python writes the calculation alone\nhint: leave out --expect, --versus, --only and --trace",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_is_read(
    normcli: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "link.npz").symlink_to("s.npz")
    done = normcli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["link.npz"]


UNWRITTEN = {
    "no running statistics": (("layer", BATCH, "--only", "running"), "there are no running statistics to show"),
    "none kept": (("batch", BATCH, "--no-track-running-stats", "--only", "running"), "there are no running statistics"),
    "none kept, as Markdown": (
        ("layer", BATCH, "--only", "running", "--format", "markdown"), "there are no running statistics to show",
    ),
    "a script too long": (
        ("layer", str([0.5] * 10_001), "--format", "python"), "the 10001 of x are too many",
    ),
    "CSV of three axes": (("batch", CUBE, "-o", "y.csv"), "CSV holds tensors of 1 or 2 axes, and this one has 3"),
    "no such element": (("layer", BATCH, "--element", "5,5"), "element (5, 5) is outside the tensor of shape (2, 2)"),
    "no such backend": (("layer", BATCH, "--versus", "jax"), "'jax' is neither a backend nor a convention"),
    "a folder that is not there": (("layer", BATCH, "--svg", "nowhere/y.svg"), "cannot write nowhere/y.svg"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), UNWRITTEN.values(), ids=UNWRITTEN)
def test_refused_before_anything_is_written(
    normcli: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    more = ("--save-state", "s.json") if arguments[0] == "batch" else ()
    output = () if "-o" in arguments else ("-o", "y.npy")
    done = normcli(*arguments, *output, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_running_statistics_that_are_not_kept_are_null_in_json(normcli: Run) -> None:
    assert normcli("layer", BATCH, "--only", "running", "--json").stdout == "null\n"


# --- the input is to blame ------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("layer",), ("check",), ("state",)], ids=lambda command: command[0])
def test_a_word_longer_than_a_file_name_is_no_file(normcli: Run, command: tuple[str, ...]) -> None:
    done = normcli(*command, "a" * 300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no file aaa")


def test_a_disk_that_fails_under_the_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((400, 500)))

    def fails(self: Any, piece: memoryview, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(stored.Stored, "_read_at", fails)
    show = Show(output=str(tmp_path / "y.npy"))
    with pytest.raises(InputError, match=r"^cannot read .*x\.npy: Input/output error$"):
        calculate(KINDS["layer"], [str(tmp_path / "x.npy")], {}, show)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]


# --- signals --------------------------------------------------------------------------------------

# The streamed output stands still in the middle, and says that it has come there.
STANDS_STILL = """import sys, time
from normcli.files import stored
write = stored.Stored.__setitem__
def slow(self, region, values):
    write(self, region, values)
    print("written", flush=True)
    time.sleep(60)
stored.Stored.__setitem__ = slow
sys.argv[1:] = ["batch", "x.npy", "x.npy", "-o", "y{i}.npy", "--threads", "1"]
from normcli.__main__ import main
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_leaves_no_file_behind(tmp_path: Path, environment: dict[str, str], name: str, code: int) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((400, 500)))
    (tmp_path / "y0.npy").write_bytes(b"old")
    child = subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"written\n"
    assert len(list(tmp_path.glob(".normcli-*.tmp"))) == 1
    child.send_signal(getattr(signal, name))
    _, stderr = child.communicate(timeout=30)
    seen = child.returncode if child.returncode >= 0 else 128 - child.returncode
    assert (seen, stderr) == (code, b"")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.npy", "y0.npy"]
    assert (tmp_path / "y0.npy").read_bytes() == b"old"


def test_a_signal_removes_every_file_that_is_on_its_way(tmp_path: Path, environment: dict[str, str]) -> None:
    code = """import os, signal
from normcli.files.write import whole_file
with whole_file("a.npy") as a, whole_file("b.npy") as b:
    print(sum(name.startswith(".normcli-") for name in os.listdir()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, b"2\n", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, environment: dict[str, str]) -> None:
    """nohup ignores SIGHUP, and a calculation goes on."""
    code = """import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from normcli.files.write import whole_file
with whole_file("a.npy") as a:
    os.kill(os.getpid(), signal.SIGHUP)
print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"True True\n", b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npy"]


def test_a_signal_that_somebody_hears_is_left_to_them(tmp_path: Path) -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with whole_file(str(tmp_path / "y.npy")) as stream:
            stream.write(b"whole")
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert (tmp_path / "y.npy").read_bytes() == b"whole"


def test_files_are_written_in_other_threads_too(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write_tensor, str(tmp_path / "y.npy"), np.ones(3)).result()
    assert [entry.name for entry in tmp_path.iterdir()] == ["y.npy"]


def test_what_a_killed_run_left_is_in_nobodys_way(normcli: Run, tmp_path: Path) -> None:
    (tmp_path / ".normcli-1-00000000.tmp").write_bytes(b"left")
    assert normcli("layer", BATCH, "-o", "y.npy").returncode == 0
    assert (tmp_path / ".normcli-1-00000000.tmp").read_bytes() == b"left"


# --- memory, and libraries ------------------------------------------------------------------------


def within(mebibytes: int, words: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A run that may take so much address space."""
    limited = ["bash", "-c", f'ulimit -v {mebibytes * 1024}; exec "$0" -m normcli {words}', sys.executable]
    return subprocess.run(limited, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to RLIMIT_AS")
@pytest.mark.parametrize("mebibytes", [40, 60, 80, 100])
def test_too_little_memory_is_said_in_words(tmp_path: Path, environment: dict[str, str], mebibytes: int) -> None:
    """NumPy's BLAS ended the process with exit code 1, which says that an answer does not check."""
    done = within(mebibytes, 'layer "[1,2,3]" --json', tmp_path, environment)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "error: not enough memory: 96 MiB are not free\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to RLIMIT_AS")
def test_a_tensor_that_does_not_fit_is_said_in_words(tmp_path: Path, environment: dict[str, str]) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**14, 2**14)})
        file.truncate(file.tell() + 2**31)  # a sparse file
    done = within(1024, "layer x.npy --only output --json", tmp_path, environment)
    message = "error: x.npy needs 2048 MiB of memory; they are not free\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", message)


def test_a_broken_library_is_said_in_words(tmp_path: Path, environment: dict[str, str]) -> None:
    broken = (
        'raise ImportError("\\nREAD THIS\\nand this") from ImportError("libm.so.9: cannot open shared object file")\n'
    )
    (tmp_path / "numpy.py").write_text(broken)
    done = subprocess.run(
        [sys.executable, "-m", "normcli", "layer", "[1,2]"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    message = (
        "error: a library cannot be imported: libm.so.9: cannot open shared object file\nhint: install normcli again\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", message)
