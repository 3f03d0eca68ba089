"""Help that teaches: examples that run, and completion in the shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Run
from test_docs import prepare

from normcli.commands.cli import COMMANDS, examples
from normcli.planning.kinds import KINDS

# What x.npy is for the examples of each kind's help.
SHAPES = {"batch": (4, 2, 3), "instance": (2, 3, 4), "layer": (2, 6, 4, 4), "group": (2, 12, 3), "rms": (3, 4)}
EXAMPLES = ROOT / "examples"
HELP_EXAMPLES = [example for command in COMMANDS for example in examples(command)]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``normcli`` command, beside a copy of examples/."""
    made = tmp_path_factory.mktemp("help")
    prepare(made / "examples", made / "bin" / "normcli")
    return made


@pytest.mark.parametrize("example", HELP_EXAMPLES)
def test_examples_in_help_run(place: Path, environment: dict[str, str], example: str) -> None:
    shape = SHAPES.get(example.split()[1], (3, 4))
    for name in ("x.npy", "first.npy", "second.npy"):
        np.save(place / name, np.arange(np.prod(shape), dtype=np.float64).reshape(shape) ** 2)
    np.save(place / "w.npy", np.arange(1.0, shape[-1] + 1))
    layer = {array: np.arange(1.0, 3.0) for array in ("weight", "bias", "running_mean", "running_var")}
    np.savez(place / "checkpoint.npz", **{f"bn1.{name}": values for name, values in layer.items()})
    (place / "model.safetensors").write_bytes((EXAMPLES / "model.safetensors").read_bytes())
    if "--state" in example:
        np.save(place / "x.npy", np.arange(24.0).reshape(2, 6, 2) ** 2)
    for folder in ("train", "photos"):
        (place / folder).mkdir(exist_ok=True)
    np.save(place / "train" / "0.npy", np.arange(12.0).reshape(4, 3) ** 2)
    (place / "homework.json").write_text('{"kind": "layer", "input": [[1, 2, 4, 1]], "expect": {"mean": [2]}}')
    env = environment | {"PATH": f"{place / 'bin'}:{environment['PATH']}"}
    done = subprocess.run(["bash", "-c", example], cwd=place, env=env, capture_output=True, text=True, check=False)
    wrong = int("examples/checks" in example)  # some of those claims are false
    assert (done.returncode, done.stderr, bool(done.stdout)) == (wrong, "", True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_three_examples(normcli: Run, command: str) -> None:
    assert normcli(command, "--help").stdout.count("    normcli ") == 3


# --- completion -----------------------------------------------------------------------------------

COMPLETED: dict[str, tuple[str, list[str]]] = {
    "commands": ("normcli la", ["layer"]),
    "options": ("normcli batch --mo", ["--mode", "--momentum"]),
    "mode": ("normcli batch x.npy --mode ", ["train", "eval"]),
    "dtype": ("normcli rms --dtype fl", ["float16", "float32", "float64"]),
    "convention": ("normcli layer --convention k", ["keras"]),
    "backend": ("normcli layer --backend ", ["numpy", "torch"]),
    "only": ("normcli layer --only s", ["statistics"]),
    "format": ("normcli layer --format j", ["json", "jax"]),
    "kinds of the picture": ("normcli axes ", [*KINDS, "all"]),
    "frameworks": ("normcli conventions fl", ["flax"]),
    "a file is the shell's own to complete": ("normcli layer x.n", []),
}


@pytest.mark.parametrize(("typed", "offered"), COMPLETED.values(), ids=list(COMPLETED))
def test_a_tab_completes(normcli: Run, typed: str, offered: list[str]) -> None:
    words = typed.split(" ")
    tab = {"_NORMCLI_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = normcli(env=tab)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(normcli: Run, shell: str) -> None:
    done = normcli(env={"_NORMCLI_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0
    assert f"_NORMCLI_COMPLETE=complete_{shell}" in done.stdout
