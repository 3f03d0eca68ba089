"""Every view in every format: it is shown, and can be read by what reads that format, or it is refused in a line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Run

from normcli.showing.formats import FORMATS, LISTS, SCRIPTS

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
GRADIENT = "[[0.1,-0.2,0.3,0.4],[0.5,0.1,-0.3,0.2],[-0.2,0.4,0.1,0.6]]"
RIGHT, WRONG = ("[[-1,1],[-1,1]]", "[[-1,1],[-0.5,1]]")
LAYER = ["layer", "[[1,3],[2,6]]", "--eps", "0"]
CHECKS = ROOT / "examples" / "checks"

# view: arguments, exit code
VIEWS: dict[str, tuple[list[str], int]] = {
    "result": (["batch", BN1D], 0),
    "results": (["batch", BN1D, BN1D], 0),
    "large": (["layer", "x.npy"], 0),
    "output": ([*LAYER, "--only", "output"], 0),
    "statistics": ([*LAYER, "--only", "statistics"], 0),
    "running": (["batch", BN1D, "--only", "running"], 0),
    "trace": (["batch", BN1D, "--trace"], 0),
    "gradients": (["batch", BN1D, "--grad-output", GRADIENT], 0),
    "grad-input": (["batch", BN1D, "--dy", GRADIENT, "--only", "grad-input"], 0),
    "grad-weight": ([*LAYER, "--dy", "ones", "--only", "grad-weight"], 0),
    "gradients traced": (["batch", BN1D, "--dy", GRADIENT, "--trace"], 0),
    "gradients of an element": (["layer", "[[1,2,4],[6,3,2]]", "--dy", "[[1,2,0],[0,0,1]]", "--element", "1,0"], 0),
    "gradients and versus": (["batch", BN1D, "--dy", GRADIENT, "--versus", "numpy::float32"], 0),
    "element": (["batch", BN1D, "--element", "1,0"], 0),
    "right answer": ([*LAYER, "--expect", RIGHT], 0),
    "wrong answer": ([*LAYER, "--expect", WRONG], 1),
    "every cell": ([*LAYER, "--expect", RIGHT, "--cells"], 0),
    "versus": (["batch", BN1D, "--versus", "keras", "--versus", "numpy::float32"], 0),
    "check and versus": ([*LAYER, "--expect", WRONG, "--versus", "keras"], 1),
    "check": (["check", "right.json"], 0),
    "check of a wrong one": (["check", "wrong.json", "--cells"], 1),
    "check of several": (["check", "wrong.json", "nowhere.json", "right.json"], 2),
    "state": (["state", "state.npz"], 0),
    "state without layers": (["state", "none.npz"], 0),
    "conventions": (["conventions"], 0),
    "two conventions": (["conventions", "torch", "keras"], 0),
    "axes": (["axes", "group", "--shape", "2,6,4,4", "--groups", "3"], 0),
    "large axes": (["axes", "rms", "--shape", "20,64,3,10,10"], 0),
}
CALCULATIONS = {"result", "results", "large", "output", "trace", "gradients", "gradients traced"}  # what a script is of
BIASED = {"jax", "keras"}  # whose running variance is


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", rng.normal(size=(60, 70)))
    layers = {f"a_b.{name}": rng.uniform(1, 2, 5) for name in ("weight", "bias", "running_mean", "running_var")}
    np.savez(tmp_path / "state.npz", **layers)
    np.savez(tmp_path / "none.npz", weight=np.ones((3, 4)))
    example = {"title": "100 % of a_b", "kind": "layer", "input": [[1, 3], [2, 6]], "options": {"eps": 0}}
    for name, answer in (("right", RIGHT), ("wrong", WRONG)):
        (tmp_path / f"{name}.json").write_text(json.dumps(example | {"expect": {"output": json.loads(answer)}}))
    return tmp_path


def are_tables(text: str) -> bool:
    assert "…" not in text
    return True


def are_documents(text: str) -> bool:
    return all(json.loads(line) for line in text.splitlines())


def is_markdown(text: str) -> bool:
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    bars = [{len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} for table in tables]
    return all(len(counts) == 1 for counts in bars)


def is_latex(text: str) -> bool:
    bare = re.sub(r"\\[{}]", "", text)
    nested = [bare[:place].count("{") - bare[:place].count("}") for place in range(len(bare) + 1)]
    assert min(nested) == nested[-1] == 0
    return all(text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") for name in ("tabular", "array"))


def are_rows(text: str) -> bool:
    rows = [[len(row) for row in csv.reader(io.StringIO(table))] for table in text.split("\n\n")]
    return all(len(set(lengths)) == 1 for lengths in rows)


def is_script(text: str) -> bool:
    return bool(compile(text, "script.py", "exec"))


READ: dict[str, Callable[[str], bool]] = {
    "table": are_tables,
    "json": are_documents,
    "markdown": is_markdown,
    "latex": is_latex,
    "csv": are_rows,
    **dict.fromkeys(SCRIPTS, is_script),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_shown_or_refused(normcli: Run, place: Path, view: str, name: str) -> None:
    arguments, code = VIEWS[view]
    running = ["--running-ddof", "0"] if name in BIASED and arguments[0] == "batch" else []
    done = normcli(*arguments, *running, "--format", name)
    if name in SCRIPTS and view not in CALCULATIONS:
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"error: .*\n(hint: .*\n)?", done.stderr)
    elif name == "csv" and view == "state without layers":  # it is said, and there is no table
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "none.npz holds no normalization layer\n"
    else:
        assert done.returncode == code, done.stderr
        assert done.stdout
        assert READ[name](done.stdout)


def test_a_format_is_a_module_with_one_function() -> None:
    modules = [import_module(f"normcli.showing.{module}") for module in FORMATS.values()]
    assert all(callable(module.pieces) for module in modules)
    assert set(READ) == set(FORMATS) == {*LISTS, *SCRIPTS}


# --- what is no calculation -----------------------------------------------------------------------

LISTED = {
    "check": ["check", "right.json"],
    "state": ["state", "state.npz"],
    "conventions": ["conventions"],
    "axes": ["axes", "batch", "--shape", "2,3"],
}


@pytest.mark.parametrize("command", LISTED)
def test_json_is_short_for_its_format(normcli: Run, place: Path, command: str) -> None:
    short, long = (normcli(*LISTED[command], *more).stdout for more in (["--json"], ["--format", "json"]))
    assert short == long != normcli(*LISTED[command]).stdout == normcli(*LISTED[command], "--format", "table").stdout


@pytest.mark.parametrize("command", LISTED)
def test_formats_that_contradict_or_are_none_are_refused(normcli: Run, place: Path, command: str) -> None:
    done = normcli(*LISTED[command], "--json", "--format", "csv")
    assert done.stderr == "error: --json and --format csv contradict each other; give one of them\n"
    done = normcli(*LISTED[command], "--format", "latx")
    assert done.stderr == (
        "error: --format is 'latx'; use table, json, markdown, latex or csv\nhint: did you mean latex?\n"
    )


def test_the_axes_in_every_format(normcli: Run) -> None:
    arguments = ("axes", "group", "--shape", "1,4,2", "--groups", "2")
    assert normcli(*arguments, "--format", "csv").stdout == ",C 0,C 1,C 2,C 3\nN 0,A A,A A,B B,B B\n"
    assert normcli(*arguments, "--format", "markdown").stdout.endswith(
        "|  | C 0 | C 1 | C 2 | C 3 |\n| :-- | :-- | :-- | :-- | :-- |\n| N 0 | A A | A A | B B | B B |\n"
    )


def test_several_checked_files_are_one_table_of_csv(normcli: Run, place: Path) -> None:
    done = normcli("check", "nowhere.json", "wrong.json", "right.json", "--format", "csv")
    rows = [*csv.reader(io.StringIO(done.stdout))]
    assert rows[0] == ["file", "quantity", "index", "yours", "exact", "difference", "allowed", "ok"]
    assert [row[0] for row in rows[1:]] == ["wrong.json"] * 4 + ["right.json"] * 4
    assert [row[-1] for row in rows[1:5]] == ["true", "true", "false", "true"]
    assert done.stderr.splitlines()[-1] == "3 files: 1 check, 1 do not, 1 could not be read"


def test_a_checked_file_in_markdown_has_its_title_and_verdict(normcli: Run, place: Path) -> None:
    text = normcli("check", "wrong.json", "--format", "markdown").stdout
    assert text.startswith("100 % of a\\_b\n\ndoes not check: 1 of 4 cells differs")
    assert "| output (1, 0) | -0.5 | -1.000 |" in text


def test_a_checked_file_without_a_title_goes_by_its_name(normcli: Run, place: Path) -> None:
    (place / "a.json").write_text('{"kind": "layer", "input": [[1, 3]], "expect": {"mean": [2]}}')
    assert normcli("check", "a.json", "--format", "markdown").stdout == "a.json\n\nchecks\n"


def test_state_as_csv_has_a_table_for_each_matter(normcli: Run, place: Path) -> None:
    layers, running = normcli("state", "state.npz", "--format", "csv").stdout.split("\n\n")
    assert layers.splitlines()[0] == "layer,arrays,shape and dtype,can be"
    assert running.splitlines()[0] == "layer,batches,running_mean,running_var"
