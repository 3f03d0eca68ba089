"""Help that teaches: examples that run, and completion in the shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Run, Started
from test_docs import prepare

from normcli.commands.cli import COMMANDS
from normcli.commands.help import _HEADINGS, examples
from normcli.commands.options import SECTIONS, rows_of
from normcli.planning.further import EVERY
from normcli.planning.kinds import KINDS

# What x.npy is for the examples of each kind's help.
SHAPES = {
    "batch": (4, 2, 3),
    "instance": (2, 3, 4),
    "layer": (2, 6, 4, 4),
    "group": (2, 12, 3),
    "rms": (3, 4),
    "frn": (2, 3, 4),
    "grn": (2, 3, 4),
}
EXAMPLES = ROOT / "examples"
HELP_EXAMPLES = [example for command in COMMANDS for example in examples(command)]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, started: Started) -> Path:
    """A folder with a ``normcli`` command, beside a copy of examples/."""
    made = tmp_path_factory.mktemp("help")
    prepare(made / "examples", made / "bin" / "normcli", started(torch=False))
    return made


def put_files(place: Path, example: str) -> None:
    """What an example of the help reads."""
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


def run(example: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    put_files(place, example)
    env = environment | {"PATH": f"{place / 'bin'}:{environment['PATH']}"}
    return subprocess.run(["bash", "-c", example], cwd=place, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("example", HELP_EXAMPLES)
def test_examples_in_help_run(place: Path, environment: dict[str, str], example: str) -> None:
    done = run(example, place, environment)
    wrong = int("examples/checks" in example)  # some of those claims are false
    assert (done.returncode, done.stderr, bool(done.stdout)) == (wrong, "", True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_three_examples(normcli: Run, command: str) -> None:
    assert normcli(command, "--help").stdout.count("\n  normcli ") >= 3


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_has_an_answer_to_check_in_its_help(kind: str) -> None:
    assert any("--expect" in example for example in examples(kind))


def test_what_to_start_with_runs(normcli: Run, place: Path, environment: dict[str, str]) -> None:
    lines = [line.strip() for line in normcli().stdout.splitlines() if line.startswith("  normcli ")]
    done = {line: run(line, place, environment) for line in lines}
    assert [line for line, one in done.items() if one.returncode or one.stderr] == []
    assert any("--expect" in line for line in lines)


# What somebody new asks, and an option or a command of the example that answers it.
QUESTIONS = {
    "Is my answer right?": ("--expect", "checks"),
    "Why do these two frameworks differ?": ("--versus", "why"),
    "What does the layer in my checkpoint do?": ("--state", "BatchNorm, eval"),
}


@pytest.mark.parametrize(("question", "option", "answer"), [(q, *rest) for q, rest in QUESTIONS.items()], ids=QUESTIONS)
def test_a_question_is_answered_in_two_more_helps(
    normcli: Run, place: Path, environment: dict[str, str], question: str, option: str, answer: str
) -> None:
    said = normcli("--help").stdout.split(f"  {question}\n")[1]
    named = [found[1] for line in said.splitlines() if (found := re.match(r" {6}normcli (\S+) --help", line))]
    own = said.splitlines()[: next(i for i, line in enumerate(said.splitlines()) if not line.startswith(" " * 6))]
    helps = [normcli(command, "--help").stdout for command in named[: len(own)]]
    assert 1 <= len(helps) <= 2
    shown = [line.strip() for text in helps for line in text.replace("\\\n", "").splitlines()]
    example = next(line for line in shown if line.startswith("normcli ") and option in line)
    done = run(example, place, environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer in done.stdout


# --- headings and width ---------------------------------------------------------------------------

HEADINGS = ("Formula", "State", "Check", "Compare", "Show", "Files")


def headings(text: str) -> list[str]:
    return re.findall(r"^(\S.*):$", text, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_options_stand_under_headings(normcli: Run, kind: str) -> None:
    found = headings(normcli(kind, "--help").stdout)
    assert found == ["Examples", "Arguments", *HEADINGS, "Every command"]


def test_every_option_under_a_heading_is_one() -> None:
    rows = {row.name for kind in EVERY.values() for row in rows_of(kind)}
    assert {name for names in SECTIONS.values() for name in names} <= rows


def test_the_family_comes_first(normcli: Run) -> None:
    said = normcli("--help").stdout
    assert headings(said) == ["Questions", *_HEADINGS, "Options"]
    commands = re.findall(r"^  ([a-z][a-z-]*)  ", said.partition("Calculate:")[2], re.MULTILINE)
    assert commands[: len(KINDS)] == list(KINDS)
    assert sorted(commands) == sorted(COMMANDS)


WIDTHS = (60, 80, 120, 200)
LONG = "[" + ",".join(["1.25"] * 60) + "]"
UNBIASED = "[[-0.7559,-1.0000,0.0000,-0.5773],[1.1339,0.0000,-1.0000,1.1547],[-0.3780,1.0000,1.0000,-0.5773]]"
DIAGNOSED = ["batch", "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]", "--expect", UNBIASED]
TEXTS: dict[str, list[str]] = {
    "start": [],
    "help": ["--help"],
    **{command: [command, "--help"] for command in COMMANDS},
    "a diagnosis": DIAGNOSED,
    "no known slip": ["layer", "[1,2,4,1]", "--expect", "[1,2,3,4]"],
    "a long name": ["layer", "folder/" * 40 + "x.npy"],
    "a long value": ["layer", "[1,2]", "--only", "word " * 40],
    "a long list": ["layer", "[1,2]", "--expect", f"nothing={LONG}"],
    "a long shape": ["layer", LONG, "--normalized-shape", ",".join(["3"] * 60)],
    "a long word": ["batch", "[[1,2]]", "--mode", "x" * 300],
    "a warning": ["layer", "[1,1]", "--eps", "0", "--only", "output"],
}


def words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said, word by word, without the rules of tables and what continues a command."""
    said = re.sub(r" \\\n +", " ", done.stdout) + done.stderr
    return [word for word in said.split() if set(word) != {"─"}]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("arguments", TEXTS.values(), ids=TEXTS)
def test_text_breaks_at_words_only(normcli: Run, arguments: list[str], width: int) -> None:
    done = normcli(*arguments, env={"COLUMNS": str(width)})
    assert words(done) == words(normcli(*arguments, env={"COLUMNS": "100000"}))
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if len(line) > width and len(line.split()) > 2] == []


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
    "kinds of the picture": ("normcli axes ", [*(name for name in EVERY if name != "formula"), "all"]),
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
