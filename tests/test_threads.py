"""The compiled loops' threads: as many as are wanted, after a fork, at the end of the process, for many callers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import normcli
from normcli.arithmetic import loops

pytestmark = [
    pytest.mark.skipif(loops.compiled() is None, reason="installed without a C compiler"),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="nothing says how many threads there are"),
]
START = """
import os, sys, time
import numpy as np, normcli
x = np.random.default_rng(0).normal(size=(2000, 300)).astype(np.float32)
count = lambda: len(os.listdir("/proc/self/task"))
def bits(threads): return normcli.normalize(x, "layer", threads=threads).output.tobytes()
alone = bits(1)
before = count()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", START + code], env=settings, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(count() - before)", "0"),
        ("bits(2), bits(2); print(count() - before)", "1"),
        ("bits(2), bits(4), bits(3); print(count() - before)", "3"),
    ],
    ids=["none for one", "kept", "the most that were wanted"],
)
def test_threads_are_started_when_they_are_wanted(code: str, said: str) -> None:
    assert run(code).stdout.split() == [said]


FORK = """
assert bits(2) == alone
child = os.fork()
if not child:
    assert count() == 1
    assert bits(2) == alone and count() == 2
    os._exit(0)
print(os.waitpid(child, 0)[1], bits(2) == alone)
"""
POOL = """
import multiprocessing
bits(2)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(set(pool.map(bits, [1, 2, 3, 2])) == {alone})
"""
WHILE_WORKING = """
import threading
busy = threading.Thread(target=lambda: [bits(3) for _ in range(200)], daemon=True)
busy.start()
for _ in range(20):
    child = os.fork()
    if not child:
        os._exit(bits(2) != alone)
    print(os.waitpid(child, 0)[1], end=" ")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("code", "said"), [(FORK, "0 True"), (POOL, "True"), (WHILE_WORKING, "0 " * 20)], ids=["fork", "pool", "working"]
)
def test_a_child_has_threads_of_its_own(code: str, said: str) -> None:
    done = run(code)
    assert (done.stdout.split(), done.returncode) == (said.split(), 0), done.stderr


INTERRUPTED = """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        bits(3)
except KeyboardInterrupt:
    print(bits(3) == alone)
"""
AT_THE_END = """
import threading
threading.Thread(target=lambda: [bits(3) for _ in range(10**6)], daemon=True).start()
time.sleep(0.1)
print("done")
"""


@pytest.mark.parametrize(("code", "said"), [(INTERRUPTED, "True"), (AT_THE_END, "done")], ids=["Ctrl-C", "exit"])
def test_nothing_hangs(code: str, said: str) -> None:
    done = run(code)
    assert (done.stdout.split(), done.returncode) == ([said], 0), done.stderr


def test_many_callers_at_a_time_get_the_bits_of_one() -> None:
    rng = np.random.default_rng(1)
    tensors = [
        rng.normal(size=shape).astype(np.float32) for shape in ((700, 300), (300, 700), (3, 90_000), (90_000, 3))
    ]
    kinds = ("layer", "batch", "rms")

    def found(threads: int) -> list[str]:
        results = (normcli.normalize(x, kind, threads=threads).output for x in tensors for kind in kinds)
        return [hashlib.sha256(output.tobytes()).hexdigest() for output in results]

    several: list[list[str]] = []
    callers = [threading.Thread(target=lambda n=n: several.extend(found(n) for _ in range(3))) for n in (2, 3, 8, 2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert several == [found(1)] * 12
