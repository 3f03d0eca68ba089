"""normcli stats on many files: against cat, against NumPy, torch and Dask on hard data, and on 100,000 tiny files.

python tests/benchmarks datasets 10      on 10 GiB of NPY shards [1], made here and removed in the end
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

SHAPE = (128, 3, 224, 224)  # of a shard: 73.5 MiB
ROUNDS = 2
TINY = 100_000

# Runs the command, and prints its seconds, and the most memory that it or any of its workers has held above start-up.
WATCHED = """import os, sys, threading, time, subprocess
def held(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0
def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        pass
    return found
start, most = time.perf_counter(), 0
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
while child.poll() is None:
    most = max([most, held(child.pid), *(held(one) for one in children(child.pid))])
    time.sleep(0.02)
print(time.perf_counter() - start, most / 1024)
sys.exit(child.returncode)"""


def watched(*arguments: str) -> tuple[float, float]:
    """The seconds that a command takes, and the most memory of any of its processes, in MiB."""
    done = subprocess.run([sys.executable, "-S", "-c", WATCHED, *arguments], capture_output=True, text=True, check=True)
    seconds, most = map(float, done.stdout.split())
    return seconds, most


def forgotten(paths: list[Path]) -> None:
    """Have the system drop what it holds of some files."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def shards(folder: Path, size: float) -> list[Path]:
    """So many GiB of float32 NPY shards."""
    rng, paths = np.random.default_rng(1), []
    block = rng.standard_normal(SHAPE, dtype=np.float32)
    for number in range(max(2, round(size * 2**30 / block.nbytes))):
        paths.append(folder / f"{number:04}.npy")
        np.save(paths[-1], block + np.float32(number % 7))
    os.sync()
    return paths


def throughput(size: float) -> None:
    """Print how fast shards are pooled by some workers, next to one cat and to as many at once, the bound."""
    folder = Path(tempfile.mkdtemp())
    try:
        paths = shards(folder, size)
        total = sum(path.stat().st_size for path in paths) / 2**30
        print(f"{len(paths)} shards of float32 {'x'.join(map(str, SHAPE))}, {total:.1f} GiB")
        normcli = [sys.executable, "-m", "normcli", "stats", f"{folder}/*.npy", "--json"]
        idle = watched(sys.executable, "-m", "normcli", "stats", str(folder / "0000.npy"), "--select", "0:1")[1]
        every = [n for n in (1, 2, 4, 8) if n <= (os.cpu_count() or 1)]
        cats = {n: " & ".join(f"cat {' '.join(map(str, paths[at::n]))}" for at in range(n)) for n in every}
        commands = {f"{n} cat{'s' * (n > 1)}": ["sh", "-c", f"{cats[n]} & wait"] for n in every}
        commands |= {f"{n} worker{'s' * (n > 1)}": [*normcli, "--workers", str(n)] for n in every}
        for cold in (True, False):
            state, best = "cold" if cold else "cached", dict[str, float]()
            for _ in range(1 if cold else ROUNDS):
                for name, command in commands.items():
                    if cold:
                        forgotten(paths)
                    seconds, most = watched(*command)
                    best[name] = min(best.get(name, seconds), seconds)
                    memory = f"{most - idle:5.0f} MiB above start-up" if "worker" in name else ""
                    print(f"  {state} {name:10} {seconds:6.2f} s {total / seconds:5.2f} GiB/s {memory}")
            for n in every:
                mine, bound = (best[f"{n} {what}{'s' * (n > 1)}"] for what in ("worker", "cat"))
                print(
                    f"{state}: {n} worker{'s' * (n > 1)} {best['1 cat'] / mine:.2f} of one cat, "
                    f"{bound / mine:.2f} of {n} cats at once (at least {0.8 * n:.1f}, or 0.8 of what {n} cats get)",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder)


def tiny(number: int) -> None:
    """Print what a tiny file costs, next to reading it."""
    folder = Path(tempfile.mkdtemp())
    try:
        rng = np.random.default_rng(1)
        for at in range(number):
            np.save(folder / f"{at:06}.npy", rng.standard_normal((3, 8), dtype=np.float32))
        times = {}
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for path in sorted(folder.iterdir()):
                path.read_bytes()
            times["read"] = min(times.get("read", np.inf), time.perf_counter() - start)
            seconds, _ = watched(sys.executable, "-m", "normcli", "stats", str(folder), "--channel-axis", "0", "--json")
            times["normcli"] = min(times.get("normcli", np.inf), seconds)
        print(
            f"{number} files of 224 bytes: read {times['read']:.2f} s, normcli {times['normcli']:.2f} s, "
            f"ratio {times['normcli'] / times['read']:.2f} (at most 3)"
        )
    finally:
        shutil.rmtree(folder)


def hard() -> None:
    """Print the units in the last place by which mean and variance are off, against fractions."""
    import torch

    import normcli

    rng = np.random.default_rng(2)
    spike = np.full(40_000, 0.1)
    spike[777] = 1e3
    data = {
        "mean 1e6, std 1e-4": 1e6 + 1e-4 * rng.standard_normal(40_000),
        "constant 0.1": np.full(40_000, 0.1),
        "one spike": spike,
        "standard normal": rng.standard_normal(40_000),
    }
    engines: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
        "normcli": lambda x: (lambda p: (p.mean.item(), p.var.item()))(normcli.stats(np.array_split(x, 7))),
        "numpy": lambda x: (float(x.mean()), float(x.var())),
        "torch": lambda x: tuple(torch.var_mean(torch.from_numpy(x), correction=0))[::-1],
    }
    try:
        import dask.array

        engines["dask"] = lambda x: tuple(
            float(part.compute()) for part in ((lambda a: (a.mean(), a.var()))(dask.array.from_array(x, chunks=6000)))
        )
    except ImportError:
        pass
    print("units in the last place, mean / variance" + "".join(f"{name:>22}" for name in engines))
    for name, values in data.items():
        numbers = list(map(Fraction, values.tolist()))
        mean = sum(numbers) / len(numbers)
        var = sum((number - mean) ** 2 for number in numbers) / len(numbers)
        cells = []
        for engine in engines.values():
            found = engine(values)
            off = [
                abs(Fraction(float(got)) - exact) / Fraction(float(np.spacing(float(exact))))
                for got, exact in zip(found, (mean, var), strict=True)
            ]
            cells.append(" / ".join(f"{float(one):.3g}" for one in off))
        print(f"{name:40}" + "".join(f"{cell:>22}" for cell in cells))


def main(size: float = 1.0, number: int = TINY) -> None:
    """Print everything."""
    hard()
    tiny(number)
    throughput(size)
