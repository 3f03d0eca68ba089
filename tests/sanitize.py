"""The compiled loops under the address and undefined-behaviour sanitizers, on arrays that lie in every odd way.

Run by hand, with gcc or clang on Linux: ``python tests/sanitize.py``, or ``python tests/sanitize.py thread`` for the
sanitizer of threads. It compiles a copy of its own, runs itself with the sanitizer's library loaded first, and
ends with what they found, or with nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FLAGS = ["-O1", "-g", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
CHECKS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-fsanitize=thread", "-U__gnu_linux__"],  # which has no clones, whose choice it cannot follow
}
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


def main(check: str) -> int:
    """Compile, and run the calculations in a process of their own."""
    compiler = os.environ.get("CC", "gcc")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "tiles.so"
        sources = [str(path) for path in sorted((ROOT / "normcli" / "arithmetic").glob("*.c"))]
        include = f"-I{sysconfig.get_path('include')}"
        subprocess.run([compiler, *FLAGS, *CHECKS[check], include, *sources, "-o", str(library), "-lm"], check=True)
        runtime = subprocess.run(
            [compiler, f"-print-file-name={RUNTIMES[check]}"], capture_output=True, text=True, check=True
        )
        settings = {
            "LD_PRELOAD": runtime.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own, which live as long as it does
            "TSAN_OPTIONS": "halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",  # so that every array ends where its memory does
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, __file__, str(library)]
        if check == "thread":
            command = ["setarch", "--addr-no-randomize", *command]  # it wants its memory where it expects it
        return subprocess.run(command, env=os.environ | settings, check=False).returncode


def arranged(x: Any) -> Iterator[tuple[str, Any]]:
    """The same numbers in memory in every odd way."""
    import numpy as np

    yield "C order", x.copy()
    yield "Fortran order", np.asfortranarray(x)
    yield "backwards", np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1]
    yield "every other", np.repeat(x, 2, axis=2)[:, :, ::2]
    yield "transposed", np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    packed = np.zeros(x.shape, np.dtype([("mark", "u1"), ("value", x.dtype)]))
    packed["value"] = x
    yield "packed records", packed["value"]
    odd = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    odd[...] = x
    yield "odd address", odd
    yield "broadcast", np.broadcast_to(x[:1], x.shape)
    yield "read-only", np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)


def calculate(library: str) -> None:
    """Every kind and dtype, on every arrangement; tiles and slabs small and of the usual size."""
    from types import SimpleNamespace
    from unittest import mock

    import numpy as np

    import normcli
    from normcli.arithmetic import large_backward, loops, reference, slabs, whole
    from normcli.dtypes import FLOAT_DTYPES
    from normcli.floats import rounded

    with mock.patch("importlib.util.find_spec", lambda name: SimpleNamespace(origin=library)):
        loops._found.cache_clear()
        assert loops.compiled() is not None, loops.why_not()
    cases: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
        ("batch", (9, 6, 35), {"channel_axis": 1}),
        ("batch", (9, 35, 6), {"channel_axis": -1}),
        ("batch", (300, 2, 3), {"channel_axis": -1}),
        ("batch", (9, 6, 35), {"mode": "eval"}),
        ("instance", (9, 35, 6), {"channel_axis": -1}),
        ("layer", (5, 7, 1100), {}),
        ("layer", (40, 7, 3), {"ddof": 1}),
        ("layer", (2, 3, 350), {"normalized_shape": (3, 350)}),
        ("group", (9, 6, 35), {"groups": 3}),
        ("group", (9, 35, 6), {"groups": 3, "channel_axis": -1}),
        ("group", (9, 35, 6), {"groups": 2, "channel_axis": -1, "convention": "mlx"}),
        ("rms", (5, 7, 1100), {}),
    ]
    reference.SMALL = 0
    rng = np.random.default_rng(0)
    ran = 0
    for tiny, (kind, shape, options), dtype in product((False, True), cases, FLOAT_DTYPES):
        if tiny:
            slabs.SLAB = slabs.LEAST_SLAB = slabs.LEAST_RUN = 501
            slabs._LEAST_CELL, whole._SHARE, whole._prepared = 97, 1, {}
            slabs._SLAB_SPAN, loops.TILE, large_backward._SHORT = 31, 97, 194
        x = rounded(rng.normal(0.3, 2.0, shape), dtype)
        x.ravel()[[3, 50, 60]] = np.nan, np.inf, 0
        parameters = options.get("normalized_shape", shape[-1:] if kind in ("layer", "rms") else None)
        weight = rng.normal(size=parameters or shape[options.get("channel_axis", 1)])
        g = rng.normal(0.3, 2.0, shape)
        given_back = {of_g: dict(arranged(rounded(g, of_g))) for of_g in (dtype, "float64")}
        for given, (way, array) in product(({}, {"weight": weight}), arranged(x)):
            for out in (None, *(dict(arranged(x))[other] for other in ("backwards", "odd address"))):
                normcli.normalize(array, kind, out=out, threads=2, **options, **given)
                ran += 1
            for other, of_g in product((way, "backwards"), (dtype, "float64")):
                normcli.normalize(array, kind, grad_output=given_back[of_g][other], threads=2, **options, **given)
                ran += 1
    print(f"{ran + pooled(rng)} calculations, nothing found")


def pooled(rng: Any) -> int:
    """What elements add up to, of every dtype, in pieces of every length, from odd addresses, with and without NaN."""
    import numpy as np

    from normcli.arithmetic import pool
    from normcli.dtypes import FLOAT_DTYPES
    from normcli.floats import rounded

    shapes = [(1, 1, 1, 1), (1, 1, 3, 40_000), (2, 1, 3, 8193), (1, 9000, 3, 1), (1, 300, 2, 49), (3, 2, 2, 127)]
    ran = 0
    for dtype, shape, odd, finite in product((*FLOAT_DTYPES, *pool.INTEGERS), shapes, (0, 1), (True, False)):
        values = rng.normal(60, 20, shape)
        x = rounded(values, dtype) if dtype in FLOAT_DTYPES else values.astype(np.int64).astype(dtype)
        if not finite and dtype in FLOAT_DTYPES:
            x.ravel()[::21], x.ravel()[7::21], x.ravel()[14::21] = np.inf, np.nan, -np.inf
        block = np.zeros(x.nbytes + odd, np.uint8)[odd:]
        block[...] = x.reshape(-1).view(np.uint8)
        pool.add(block.view(x.dtype).reshape(shape), pool.empty(shape[0], shape[2]))
        ran += 1
    return ran


if __name__ == "__main__":
    sys.exit(
        calculate(sys.argv[1])
        if len(sys.argv) > 1 and sys.argv[1].endswith(".so")
        else main(*sys.argv[1:] or ["address"])
    )
