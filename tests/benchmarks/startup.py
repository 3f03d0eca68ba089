"""How long normcli takes to start, as ratios to ``python -c "import numpy"``, the floor.

Run it by hand with the interpreter that normcli is installed for:

    python tests/benchmarks/startup.py

The commands take turns, so that a machine that slows down slows them all; bytecode is compiled
first, as an installer does. Where other cores are busy the floor is dearer and the ratios too good:
the threads that NumPy's BLAS starts there wait in vain, and normcli has it start none.

What each import costs is measured by Python, which slows them down: shares count, not sums.
"""

from __future__ import annotations

import compileall
import math
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROUNDS = 25
DEAREST = 10
TENSOR = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
FLOOR = ["-c", "import numpy"]
GOALS = {
    "small calculation, JSON": (["-m", "normcli", "batch", TENSOR, "--json"], 1.45),
    "small calculation, tables": (["-m", "normcli", "batch", TENSOR], 1.8),
    "help": (["-m", "normcli", "--help"], 0.9),
    "help of a command": (["-m", "normcli", "batch", "--help"], 0.9),
}


def seconds(arguments: list[str]) -> float:
    """The wall time of one run of the interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return time.perf_counter() - start


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def imports(arguments: list[str]) -> dict[str, float]:
    """The milliseconds that each module took to import, those that it imports left out."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, env=ENVIRONMENT, text=True
    )
    lines = (line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:])
    return {name.strip(): int(alone) / 1e3 for alone, _, name in lines}


def tell_imports() -> None:
    """Print the dearest imports of each command, the best of a few runs of each."""
    floor = imports(FLOOR)
    for name, (command, _) in GOALS.items():
        runs = [imports(command) for _ in range(5)]
        taken = {module: min(run.get(module, math.inf) for run in runs) for module in runs[0]}
        print(f"\n{name}: {len(taken)} modules, {sum(taken.values()):.1f} ms; the dearest by themselves")
        for module in sorted(taken, key=taken.__getitem__, reverse=True)[:DEAREST]:
            print(f"  {module:36}{taken[module]:6.1f}{'  (floor)' if module in floor else ''}")


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
        goal = f"{GOALS[name][1]:7.2f}" if name in GOALS else ""
        print(f"{name:28}{statistics.median(taken) * 1e3:10.1f}{ratio:8.2f}{goal}")
    tell_imports()


if __name__ == "__main__":
    main()
