"""Checking answers on the command line: verdict, table, slip in words, exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT, Run

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
CHECKS = ROOT / "examples" / "checks"
UNBIASED = "[[-0.7559,-1.0000,0.0000,-0.5773],[1.1339,0.0000,-1.0000,1.1547],[-0.3780,1.0000,1.0000,-0.5773]]"


def test_a_right_answer_checks(normcli: Run) -> None:
    done = normcli("layer", "[1,2,4,1]", "--expect", "[-0.8165, 0.0000, 1.6330, -0.8165]")
    assert (done.returncode, done.stdout) == (0, "checks: all 4 cells agree, to the 4 decimals given\n")


def test_the_unbiased_variance_is_named(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--mode", "eval", "--no-track-running-stats", "--expect", UNBIASED)
    first, *_, before_last, last = done.stdout.splitlines()
    assert done.returncode == 1
    assert first == "does not check: 10 of 12 cells differ, the largest by 0.2595 (allowed: 0.00005)"
    assert before_last == "Your numbers are what the unbiased variance gives, sum(centered^2) / (n - 1)."
    assert last == "BatchNorm normalizes with the biased one, sum(centered^2) / n.   [ddof1]"


def test_json_carries_the_check(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--expect", UNBIASED, "--json")
    check = json.loads(done.stdout)["check"]
    assert done.returncode == 1
    assert (check["ok"], check["mismatches"]) == (False, 10)
    assert [diagnosis["keys"] for diagnosis in check["diagnoses"]] == [["ddof1"]]


def test_pasted_answers_and_weights_keep_their_decimals(normcli: Run) -> None:
    done = normcli(
        "batch", str(ROOT / "examples" / "bn2d-check.txt"),
        "--weight", str(ROOT / "examples" / "bn2d-check-weight.txt"),
        "--expect", "tensor([[[[-1.1237, -0.5106, -0.5561, 0.3679], [-0.2391, 0.2873, 0.6510, 0.6729], "
        "[0.0612, -0.4233, 0.8173, -0.0050]], [[-0.0293, 0.0120, -0.0372, -0.0373], "
        "[-0.0066, 0.0282, 0.0237, 0.0777], [0.0032, -0.0325, 0.0084, -0.0103]]]])",
    )  # fmt: skip
    first = "checks, if the input was rounded to 4 decimals: all 24 cells agree, to the 4 decimals given"
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, first)


def test_decimals_can_be_said(normcli: Run) -> None:
    arguments = ("layer", "[1,2,4,1]", "--expect", "[-0.82, 0.0, 1.63, -0.82]")
    assert normcli(*arguments).returncode == 0
    assert normcli(*arguments, "--decimals", "4").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("layer", "[1,2]", "--decimals", "3"), "--decimals is about an answer that is checked"),
        (("layer", "[1,2]", "--expect", "[1,2,3]"), "the answer for output has shape (3,); output has shape (2,)"),
        (("batch", BN1D, BN1D, "--expect", UNBIASED), "--expect is the answer for one input; 2 are given"),
        (("layer", "-", "--expect", "-"), "standard input (-) is given twice"),
    ],
    ids=["decimals alone", "shape", "two inputs", "stdin twice"],
)
def test_refused(normcli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = normcli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_every_cell_is_shown_when_asked(normcli: Run) -> None:
    arguments = ("layer", "[1,2,4,1]", "--expect", "[-0.8165, 0.0, 1.6330, -0.8165]", "--cells")
    assert [line.split()[:2] for line in normcli(*arguments).stdout.splitlines()[5:9]] == [
        ["output", f"({i})"] for i in range(4)
    ]
    cells = json.loads(normcli(*arguments, "--json").stdout)["check"]["cells"]
    assert [cell["allowed"] > 5e-5 for cell in cells] == [True] * 4


def test_one_file_is_reported_in_full(normcli: Run) -> None:
    done = normcli("check", str(CHECKS / "d2l-both-as-torch.json"))
    assert done.returncode == 1
    assert "[momentum_reversed, running_var_biased]" in done.stdout


def test_many_files_are_a_line_each_and_a_summary(normcli: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    done = normcli("check", str(CHECKS / "bn1d-train.json"), str(broken), str(CHECKS / "bn1d-eval-unbiased.json"))
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (2, 3)
    assert lines[1].endswith("[ddof1]")
    assert lines[2] == "3 files: 1 check, 1 do not, 1 could not be read"
    assert done.stderr.startswith("error: ")


def test_files_as_json_lines(normcli: Run) -> None:
    done = normcli("check", str(CHECKS / "bn1d-train.json"), str(CHECKS / "bn1d-running.json"), "--json")
    assert [json.loads(line)["check"]["ok"] for line in done.stdout.splitlines()] == [True, True]
