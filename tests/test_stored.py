"""Tensors that stay in their files: the same bits as in memory, and every failure in one line."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import normcli
from normcli.arithmetic import loops, slabs, threads, whole
from normcli.arithmetic.result import Result
from normcli.calculate import initial_state, run_stored
from normcli.commands import calculate
from normcli.commands.cli import app
from normcli.commands.show import Show
from normcli.errors import InputError
from normcli.files import npy, stored
from normcli.files.npy import write_array
from normcli.planning.kinds import ALIASES
from normcli.planning.plan import plan

CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "batch": ("batch", (30, 7, 21, 23), {}),
    "batch first axis": ("batch", (5000, 21), {}),
    "batch wide": ("batch", (7, 15000), {}),
    "batch channels last": ("batch", (30, 21, 23, 7), {"channel_axis": -1}),
    "batch eval": ("batch", (40, 70, 31), {"mode": "eval"}),
    "instance": ("instance", (6, 7, 43, 40), {"track_running_stats": True}),
    "layer": ("layer", (700, 110), {}),
    "layer long": ("layer", (3, 30000), {}),
    "layer axes": ("layer", (2, 3, 4, 5, 700), {"normalized_shape": (5, 700)}),
    "group": ("group", (6, 12, 40, 40), {"groups": 3}),
    "group channels last": ("group", (6, 40, 40, 12), {"groups": 4, "channel_axis": -1}),
    "group interleaved": ("group", (6, 12, 40, 40), {"groups": 3, "convention": "mlx", "channel_axis": 1}),
    "rms": ("rms", (700, 110), {}),
}
ARRANGED = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
}


def seeded(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(shape)).normal(0.3, 2.0, shape).astype(dtype)


def saved(path: Path, x: np.ndarray[Any, Any]) -> Path:
    np.save(path, x)
    return path


def from_file(path: Path, kind: str, options: dict[str, Any], out: Path | None) -> Result:
    x = npy.opened(str(path))
    assert x is not None
    settled = plan(kind, x.shape, x.dtype.newbyteorder("=").name, options)
    state = initial_state(settled, options)
    try:
        if out is None:
            result = run_stored(x, settled, state, out=None)
        else:
            with out.open("x+b") as file:
                room = npy.created(file, x)
                result = run_stored(x, settled, state, out=room)
                room.close()
    finally:
        x.close()
    assert result is not None
    return result


@pytest.fixture(params=["usual", "tiny"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_prepared", {})
    monkeypatch.setattr(whole, "_MOST_EXACT", 0)  # a file of so few elements is not read slab by slab
    for name, size in (
        {"SLAB": 3001, "LEAST_SLAB": 3001, "LEAST_RUN": 3001, "_LEAST_CELL": 257, "_SLAB_SPAN": 31}.items()
        if request.param == "tiny"
        else ()
    ):
        monkeypatch.setattr(slabs, name, size)


@pytest.mark.parametrize("arranged", ARRANGED)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("cut")
def test_a_file_gives_the_bits_that_memory_gives(case: str, arranged: str, tmp_path: Path) -> None:
    kind, shape, options = CASES[case]
    x = ARRANGED[arranged](seeded(shape))
    found = from_file(saved(tmp_path / "x.npy", x), kind, options, tmp_path / "y.npy")
    expected = normcli.normalize(x, kind, **options)
    with (tmp_path / "expected.npy").open("wb") as file:
        write_array(file, expected.output)
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    for name in ("mean", "mean_square", "var", "rstd", "running_mean", "running_var"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.skipif(loops.compiled() is None, reason="float64 stays in its file only where C is compiled")
@pytest.mark.parametrize("case", CASES)
def test_float64_too(case: str, tmp_path: Path) -> None:
    kind, shape, options = CASES[case]
    x = seeded(shape, "float64")
    from_file(saved(tmp_path / "x.npy", x), kind, options, tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), normcli.normalize(x, kind, **options).output)


def test_numpy_alone_reads_from_files_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "compiled", lambda: None)
    x = seeded((300, 7, 50))
    from_file(saved(tmp_path / "x.npy", x), "batch", {}, tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), normcli.normalize(x, "batch").output)


def test_statistics_alone_read_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, read = seeded((300, 7, 100)), []
    original = stored.Stored._read_at
    monkeypatch.setattr(
        stored.Stored, "_read_at", lambda self, piece, at: read.append(len(piece)) or original(self, piece, at)
    )
    found = from_file(saved(tmp_path / "x.npy", x), "batch", {}, None)
    assert sum(read) == x.nbytes
    assert found.output is None
    np.testing.assert_array_equal(found.var, normcli.normalize(x, "batch").var)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[[1, 2], [3, 4]]", "JSON"),
        (b"\x93NUMPY\x01\x00", "a header that ends"),
        (b"", "nothing"),
    ],
)
def test_what_is_no_whole_npy_file_is_left_to_the_reader(text: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(text)
    assert npy.opened(str(tmp_path / "x.npy")) is None, why


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_other_dtypes_are_left_to_the_reader(dtype: str, tmp_path: Path) -> None:
    assert npy.opened(str(saved(tmp_path / "x.npy", np.ones((3, 4), dtype)))) is None


def test_a_folder_and_a_missing_file_are_left_to_the_reader(tmp_path: Path) -> None:
    assert [npy.opened(str(path)) for path in (tmp_path, tmp_path / "none.npy")] == [None, None]


def test_a_file_that_shrinks_is_said_to(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", seeded((300, 7, 100)))
    x = npy.opened(str(path))
    assert x is not None
    os.truncate(path, 100_000)
    with pytest.raises(InputError, match="changed while it was read: it is shorter"):
        x.rows(0, 300)
    x.close()


def run_command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "normcli", *arguments], capture_output=True, text=True, **more)


@pytest.mark.parametrize(("kind", "more"), [("batch", []), ("layer", []), ("group", ["--groups", "7"])])
def test_the_command_says_the_same_of_a_file_and_of_a_pipe(kind: str, more: list[str], tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", seeded((300, 7, 50)))
    streamed = run_command(kind, str(path), *more, "-o", str(tmp_path / "y.npy"))
    with path.open("rb") as file:
        piped = run_command(kind, "-", *more, "-o", str(tmp_path / "z.npy"), stdin=file)
    assert (streamed.returncode, streamed.stderr, streamed.stdout) == (0, "", piped.stdout)
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "z.npy").read_bytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_json_still_holds_every_number(order: str, tmp_path: Path) -> None:
    x = np.asarray(seeded((300, 7, 50)), order=order)  # type: ignore[call-overload]
    path = saved(tmp_path / "x.npy", x)
    done = run_command("layer", str(path), "--only", "output", "--json", "-o", str(tmp_path / "y.npy"))
    expected = normcli.normalize(x, "layer").output.astype(float)
    assert done.stdout == f"{expected.tolist()}\n"


def test_output_over_the_input(tmp_path: Path) -> None:
    x = seeded((300, 7, 50))
    path = saved(tmp_path / "x.npy", x)
    assert run_command("batch", str(path), "-o", str(path)).returncode == 0
    np.testing.assert_array_equal(np.load(path), normcli.normalize(x, "batch").output)


def test_running_statistics_carry_over_between_files(tmp_path: Path) -> None:
    first, second = seeded((300, 7, 50)), seeded((200, 7, 50))
    paths = [str(saved(tmp_path / f"x{i}.npy", x)) for i, x in enumerate((first, second))]
    done = run_command("batch", *paths, "--only", "running", "--json")
    after = normcli.normalize(first, "batch")
    later = normcli.normalize(
        second, "batch", running_mean=after.running_mean, running_var=after.running_var, num_batches_tracked=1
    )
    assert str(later.running_mean.tolist()) in done.stdout.splitlines()[1]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", seeded((300, 7, 50)))
    done = run_command(
        "layer",
        str(path),
        "-o",
        str(tmp_path / "y.npy"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    reason = os.strerror(errno.EFBIG)
    assert (done.returncode, done.stderr) == (3, f"error: cannot write {tmp_path / 'y.npy'}: {reason}\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InputError("x.npy changed while it was read")])
def test_a_failure_on_the_way_leaves_nothing(failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.npy", seeded((300, 7, 50)))

    def fails(self: Any, region: Any, values: Any) -> None:
        raise failure

    monkeypatch.setattr(stored.Stored, "__setitem__", fails)
    show = Show(output=str(tmp_path / "y.npy"))
    with pytest.raises((KeyboardInterrupt, InputError)):
        calculate.calculate(plan("layer", (2, 2), "float32", {}).kind, [str(path)], {}, show)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]


def test_numbers_beyond_the_range_of_squares_are_taken_into_memory(tmp_path: Path) -> None:
    x = seeded((300, 700), "float64") * 1e200
    path = saved(tmp_path / "x.npy", x)
    assert run_command("layer", str(path), "-o", str(tmp_path / "y.npy")).returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), normcli.normalize(x, "layer").output)


def test_a_helper_thread_does_not_outlive_an_interruption() -> None:
    before = threading.active_count()
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)

    def step(item: int) -> None:
        if item == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    try:
        with pytest.raises(KeyboardInterrupt):
            threads.parallel(step, range(1000), 3)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "more", [[], ["--json"], ["--format", "csv", "--only", "statistics"]], ids=["table", "json", "csv"]
)
def test_the_numbers_of_a_file_are_held_once(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(3).normal(size=(2**12, 2**12)).astype(np.float32)  # 64 MiB
    path = str(saved(tmp_path / "x.npy", x))
    monkeypatch.setattr(calculate, "pieces", lambda *report: iter(()))  # what is printed takes longer than this
    CliRunner().invoke(app, ["layer", path, *more])
    tracemalloc.start()
    try:
        done = CliRunner().invoke(app, ["layer", path, "--threads", "2", *more])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.exit_code == 0
    assert peak < 1.4 * x.nbytes


BACKWARD = ("batch", "batch eval", "instance", "layer long", "group channels last", "rms")


def flags(options: dict[str, Any]) -> list[str]:
    """Options as the command line has them."""
    given = {name: str(value).strip("()") for name, value in options.items() if value is not True}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()] + [
        f"--{name.replace('_', '-')}" for name, value in options.items() if value is True
    ]


@pytest.mark.parametrize(
    ("compiled", "only"), [*product([True], ("output", "dx", "dgamma")), (False, "dx"), (False, "dgamma")]
)
@pytest.mark.parametrize("arranged", ARRANGED)
@pytest.mark.parametrize("case", BACKWARD)
@pytest.mark.usefixtures("cut")
def test_gradients_of_files_are_those_of_memory(
    case: str, arranged: str, only: str, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(loops, "compiled", lambda: None)
    kind, shape, options = CASES[case]
    options = options | ({"affine": True} if kind == "instance" else {})
    x, g = (ARRANGED[arranged](values) for values in (seeded(shape), seeded(shape[::-1]).T))
    paths = [str(saved(tmp_path / name, values)) for name, values in (("x.npy", x), ("g.npy", g))]
    expected = normcli.normalize(x, kind, grad_output=g, **options)
    monkeypatch.setattr(calculate, "read_tensor", None)  # nothing is read into memory
    out = tmp_path / "out.npy"
    command = [kind, paths[0], "--grad-output", paths[1], "--only", only, "-o", str(out), *flags(options)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = np.load(out)
    np.testing.assert_array_equal(found, getattr(expected, ALIASES.get(only, only)))
    assert found.dtype == (np.float64 if only == "dgamma" else np.float32)


@pytest.mark.parametrize("arranged", ["Fortran order", "float64", "integers", "literal"])
def test_grad_output_that_lies_otherwise(arranged: str, tmp_path: Path) -> None:
    x, g = seeded((300, 7, 50)), np.round(seeded((50, 7, 300)).T)
    given = {"Fortran order": np.asfortranarray, "float64": np.float64, "integers": np.int32}.get(arranged)
    source = "2.5" if given is None else str(saved(tmp_path / "g.npy", given(g)))
    path, out = str(saved(tmp_path / "x.npy", x)), tmp_path / "dx.npy"
    assert run_command("layer", path, "--dy", source, "--only", "dx", "-o", str(out)).returncode == 0
    expected = normcli.normalize(x, "layer", grad_output=2.5 if given is None else given(g)).grad_input
    np.testing.assert_array_equal(np.load(out), expected)


def test_gradients_are_said_the_same_of_a_file_and_of_a_pipe(tmp_path: Path) -> None:
    x, g = (
        saved(tmp_path / name, seeded(shape).reshape(300, 7, 50))
        for name, shape in (("x.npy", (7, 15000)), ("g.npy", (300, 350)))
    )
    for more in ([], ["--json"], ["--only", "grad-input"], ["--only", "statistics"], ["-o", str(tmp_path / "y.npy")]):
        streamed = run_command("layer", str(x), "--grad-output", str(g), *more)
        with x.open("rb") as file:
            piped = run_command("layer", "-", "--grad-output", str(g), *more, stdin=file)
        assert (streamed.returncode, streamed.stderr, streamed.stdout) == (0, "", piped.stdout)


def test_grad_output_of_another_shape_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    x, g = saved(tmp_path / "x.npy", seeded((300, 350))), saved(tmp_path / "g.npy", seeded((350, 300)))
    done = run_command("layer", str(x), "--grad-output", str(g), "-o", str(tmp_path / "y.npy"))
    assert (done.returncode, "(300, 350) is needed" in done.stderr) == (2, True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.npy", "x.npy"]


@pytest.mark.parametrize("only", ["output", "grad-input"])
def test_a_backward_pass_from_file_to_file_holds_neither(only: str, tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(2**15, 2**10)).astype(np.float32)  # 128 MiB
    paths = [str(saved(tmp_path / name, x)) for name in ("x.npy", "g.npy")]
    command = ["layer", paths[0], "--grad-output", paths[1], "--only", only, "-o", str(tmp_path / "y.npy")]
    tracemalloc.start()
    try:
        done = CliRunner().invoke(app, [*command, "--threads", "2"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.exit_code == 0
    assert peak < 0.4 * x.nbytes
