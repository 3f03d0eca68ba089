"""Whole commands on a file of 2 GiB: normcli against np.load, torch and np.save; time, and memory above start-up.

The two take turns; the quickest of the rounds counts, with the file in the system's cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROUNDS = 3
COMMANDS = {
    "layer": ([], "layer_norm(x, x.shape[-1:])"),
    "group": (["--groups", "8"], "group_norm(x, 8)"),
    "batch": ([], "batch_norm(x, None, None, training=True)"),
}
SCRIPT = """import numpy as np, torch
x = torch.from_numpy(np.load({x!r}))
np.save({y!r}, torch.nn.functional.{call}.numpy())"""


# A small process starts the command: one that is started takes over the peak of its parent, which is large here.
LAUNCHER = """import os, sys, time
start = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ, file_actions=quiet)
status, usage = os.wait4(child, 0)[1:]
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))"""


def measured(arguments: list[str]) -> tuple[float, float]:
    """The seconds that a command takes, and the most memory that it holds, in MiB."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *arguments], capture_output=True, text=True, check=True
    )
    seconds, most = map(float, done.stdout.split())
    return seconds, most / (2**20 if sys.platform == "darwin" else 2**10)


def main(shape: tuple[int, ...] = (524_288, 1024)) -> None:
    """Print the table."""
    idle = measured(["-m", "normcli", "layer", "[[1, 2]]"])[1]
    with tempfile.TemporaryDirectory() as folder:
        x, y = str(Path(folder, "x.npy")), str(Path(folder, "y.npy"))
        rng = np.random.default_rng(1)
        with open(x, "wb") as file:  # noqa: PTH123
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for _ in range(0, shape[0], 8192):
                file.write(rng.standard_normal((8192, *shape[1:]), dtype=np.float32).tobytes())
        print(f"float32 {'x'.join(map(str, shape))}, {np.prod(shape) * 4 / 2**30:.1f} GiB")
        for kind, (options, call) in COMMANDS.items():
            commands = {
                "normcli": ["-m", "normcli", kind, x, "-o", y, *options],
                "script": ["-c", SCRIPT.format(x=x, y=y, call=call)],
            }
            found = {name: [measured(arguments)] for name, arguments in commands.items()}
            for _ in range(ROUNDS - 1):
                for name, arguments in commands.items():
                    found[name].append(measured(arguments))
            best = {name: min(times)[0] for name, times in found.items()}
            memory = {name: max(most for _, most in times) - idle for name, times in found.items()}
            said = "   ".join(f"{name} {best[name]:5.2f} s {memory[name]:6.0f} MiB" for name in commands)
            print(f"{kind:9} {said}   ratio {best['normcli'] / best['script']:.2f}", flush=True)
