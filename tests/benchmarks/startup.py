"""How long normcli takes to start, as ratios to ``python -c "import numpy"``, the floor.

Run it by hand with the interpreter that normcli is installed for:

    python tests/benchmarks/startup.py

The commands take turns, so that a machine that slows down slows them all; bytecode is compiled
first, as an installer does. The goals are those of the design.
"""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROUNDS = 25
TENSOR = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
FLOOR = ["-c", "import numpy"]
GOALS = {
    "small calculation, JSON": (["-m", "normcli", "batch", TENSOR, "--json"], 1.6),
    "small calculation, tables": (["-m", "normcli", "batch", TENSOR], 2.1),
    "help": (["-m", "normcli", "--help"], 1.0),
    "help of a command": (["-m", "normcli", "batch", "--help"], 1.0),
}


def seconds(arguments: list[str]) -> float:
    """The wall time of one run of the interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return time.perf_counter() - start


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    import normcli

    for folder in (sysconfig.get_paths()["purelib"], Path(normcli.__file__).parent):
        compileall.compile_dir(str(folder), quiet=2)
    commands = {"import numpy": FLOOR, **{name: command for name, (command, _) in GOALS.items()}}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    floor = times["import numpy"]
    print(f"{'':28}{'median ms':>10}{'ratio':>8}{'goal':>7}")
    for name, taken in times.items():
        ratio = statistics.median(t / f for t, f in zip(taken, floor, strict=True))
        goal = f"{GOALS[name][1]:7.1f}" if name in GOALS else ""
        print(f"{name:28}{statistics.median(taken) * 1e3:10.1f}{ratio:8.2f}{goal}")


if __name__ == "__main__":
    main()
