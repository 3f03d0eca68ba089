"""Where work is done: worker processes and clusters that die, a server of S3, and the ranks of a training program."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT, Run

import normcli
from normcli.datasets import engine, shards
from normcli.errors import InputError, UnavailableError


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve large files, so that each has a shard of its own."""
    place = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    for number in range(12):
        np.save(place / f"{number:02}.npy", rng.standard_normal((50, 3, 200, 200), dtype=np.float32) + number)
    return str(place)


@pytest.fixture(scope="session")
def bits(data: str) -> bytes:
    """What one process makes of them."""
    return of(normcli.stats(data))


def of(pooled: normcli.Pooled) -> bytes:
    assert pooled.part.total is not None and pooled.part.samples is not None
    return pooled.part.total.tobytes() + pooled.part.samples.tobytes()


# --- processes ------------------------------------------------------------------------------------


def dying(path: str, times: int, number: int) -> int:
    """Kill this process, unless so many have died here before."""
    place = Path(path)
    deaths = len(list(place.iterdir()))
    if number == 2 and deaths < times:
        (place / str(deaths)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def tasks(place: Path, times: int) -> list[engine.Task]:
    return [engine.Task(number, f"file {number}", (str(place), times, number)) for number in range(5)]


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    found = engine.Engine(workers=2).run(dying, tasks(tmp_path, 1))
    assert sorted(found) == [(number, number) for number in range(5)]


def held_up(path: str, number: int) -> int:
    """Number 0 kills its process once all others are at work or done, and the first time only."""
    place = Path(path)
    if number == 0 and not (place / "dead").exists():
        while len(list(place.iterdir())) < 4:
            time.sleep(0.01)
        (place / "dead").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (place / f"{number}-{time.monotonic_ns()}").touch()
    return number


def test_only_what_the_dead_one_was_at_is_done_anew(tmp_path: Path) -> None:
    some = [engine.Task(number, f"file {number}", (str(tmp_path), number)) for number in range(5)]
    found = engine.Engine(workers=2).run(held_up, some)
    assert sorted(found) == [(number, number) for number in range(5)]
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4", "d"]


def test_one_that_keeps_dying_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"a worker died 3 times while file \d was worked on"):
        list(engine.Engine(workers=2).run(dying, tasks(tmp_path, 99)))


# --- Dask -----------------------------------------------------------------------------------------


class Cluster(NamedTuple):
    """A scheduler and its workers, processes of their own on the loopback."""

    file: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


def started(place: Path, workers: int, environment: dict[str, str]) -> Cluster:
    pytest.importorskip("distributed")
    file = place / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place, "env": environment}
    run = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    scheduler = subprocess.Popen([*run, "--scheduler-file", str(file)], **quiet)
    until = time.monotonic() + 30
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    run = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1"]
    run += ["--no-nanny", "--no-dashboard"]
    return Cluster(str(file), scheduler, [subprocess.Popen(run, **quiet) for _ in range(workers)])


def stop(cluster: Cluster) -> None:
    for process in (*cluster.workers, cluster.scheduler):
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Cluster]:
    """Four workers in four processes."""
    made = started(tmp_path_factory.mktemp("cluster"), 4, environment)
    yield made
    stop(made)


@pytest.mark.filterwarnings("default")
@pytest.mark.xdist_group("cluster")
class TestCluster:
    """In this order: the last of these kill parts of the cluster."""

    def test_four_workers_give_the_same_bits(self, cluster: Cluster, data: str, bits: bytes) -> None:
        assert of(normcli.stats(data, dask=cluster.file)) == bits

    def test_a_bad_file_is_named(self, cluster: Cluster, tmp_path: Path, normcli: Run) -> None:
        np.save(tmp_path / "a.npy", np.ones((2, 3)))
        (tmp_path / "b.npy").write_bytes(b"\x93NUMPY" + b"\0" * 70_000)
        done = normcli("stats", str(tmp_path), "--dask", cluster.file)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "b.npy is of NPY version 0.0" in done.stderr

    def test_the_bits_survive_a_worker_that_is_killed(self, cluster: Cluster, data: str, bits: bytes) -> None:
        def kill(done: int, size: int) -> None:
            cluster.workers[0].kill()

        assert of(normcli.stats(data, dask=cluster.file, progress=kill)) == bits

    def test_results_that_died_with_a_worker_are_worked_out_again(self, cluster: Cluster) -> None:
        slow = [engine.Task(number, f"file {number}", (0.7,)) for number in range(9)]
        answers = engine.Engine(dask=cluster.file).run(time.sleep, slow)
        numbers = [next(answers)[0]]
        time.sleep(2.5)  # all are done, and held by the workers
        cluster.workers[1].kill()
        time.sleep(0.3)  # the scheduler says which are lost
        numbers += [number for number, _ in answers]
        assert sorted(numbers) == list(range(9))

    def test_what_is_finished_survives_the_scheduler(
        self, cluster: Cluster, data: str, bits: bytes, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        kept = str(tmp_path / "kept")

        def kill(done: int, size: int) -> None:
            cluster.scheduler.kill()

        with pytest.raises(UnavailableError, match=r"the Dask scheduler at .* was lost") as lost:
            normcli.stats(data, dask=cluster.file, resume=kept, progress=kill, timeout=5)
        assert lost.value.exit_code == 3
        seen: list[int] = []
        again = started(tmp_path, 1, environment)
        try:
            pooled = normcli.stats(data, dask=again.file, resume=kept, progress=lambda done, size: seen.append(done))
        finally:
            stop(again)
        assert (of(pooled), len(seen) < 12) == (bits, True)


def test_a_scheduler_that_is_not_there(tmp_path: Path, normcli: Run) -> None:
    pytest.importorskip("distributed")
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    done = normcli("stats", "a.npy", "--dask", "tcp://127.0.0.1:9", "--timeout", "1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: no Dask scheduler answers at tcp://127.0.0.1:9")


# --- remote addresses -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A server of S3 on the loopback, with a bucket."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    pytest.importorskip("s3fs")
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    yield url
    server.stop()


@pytest.mark.filterwarnings("default")
def test_s3(s3: str, normcli: Run, tmp_path: Path) -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": s3,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    values = np.random.default_rng(1).standard_normal((40, 3, 30, 30)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    made = """import s3fs, numpy as np, io, zarr
system = s3fs.S3FileSystem(); system.mkdir("data"); x = np.load("x.npy")
for i, part in enumerate(np.array_split(x, 4)):
    stream = io.BytesIO(); np.save(stream, part); system.pipe(f"data/train/{i}.npy", stream.getvalue())
    stream = io.BytesIO(); np.savez(stream, a=part); system.pipe(f"data/z/{i}.npz", stream.getvalue())
zarr.create_array("s3://data/x.zarr", shape=x.shape, chunks=(7, 3, 30, 30), dtype="f4")[...] = x
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", made], cwd=tmp_path, env=os.environ | keys, check=True)
    one = json.loads(normcli("stats", "x.npy", "--json").stdout)
    for address in ("s3://data/train/*.npy", "s3://data/train", "s3://data/z/{0..3}.npz::a", "s3://data/x.zarr"):
        done = normcli("stats", address, "--json", env=keys)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [found[name] for name in ("n", "mean", "std", "min")] == [
            one[name] for name in ("n", "mean", "std", "min")
        ]
    done = normcli("stats", "s3://data/nothing.npy", env=keys)
    assert (done.returncode, done.stderr) == (2, "error: no file s3://data/nothing.npy\n")


@pytest.mark.filterwarnings("default")
def test_http_and_memory(tmp_path: Path) -> None:
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    values = np.random.default_rng(1).standard_normal((40, 3))
    np.save(tmp_path / "x.npy", values)
    fsspec.filesystem("memory").pipe("/data/x.npy", (tmp_path / "x.npy").read_bytes())

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = normcli.stats(f"http://127.0.0.1:{server.server_address[1]}/x.npy")
        server.shutdown()
        gone = f"http://127.0.0.1:{server.server_address[1]}/x.npy"
    with pytest.raises(InputError, match=r"cannot read http://127.0.0.1:\d+/x.npy: Cannot connect to host"):
        normcli.stats(gone)
    here = normcli.stats(str(tmp_path / "x.npy"))
    assert found.mean.tolist() == here.mean.tolist()
    assert normcli.stats("memory://data/x.npy").mean.tolist() == here.mean.tolist()


# --- torch.distributed ----------------------------------------------------------------------------


def test_two_ranks_of_a_training_program(environment: dict[str, str]) -> None:
    torch = pytest.importorskip("torch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = [sys.executable, str(ROOT / "examples" / "precise_bn.py")]
    ranks = [
        subprocess.Popen(command, env=environment | meeting | {"RANK": rank}, stdout=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    said = [rank.communicate(timeout=100)[0] for rank in ranks]
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(64, 3, 8, 8, generator=generator, dtype=torch.float64) * 1e-4 + 1e6
    alone = normcli.stats(data)
    assert said == [f"{[4096] * 3} {[f'{std:.6e}' for std in alone.std]}\n"] * 2


def test_without_a_process_group(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(UnavailableError, match=r"torch.distributed is not initialized here"):
        normcli.stats([np.ones((2, 3))], distributed=True)


def test_a_shard_of_each_file(data: str) -> None:
    from normcli.datasets.addresses import expanded

    assert len(shards.cut(expanded([data]))) == 12
