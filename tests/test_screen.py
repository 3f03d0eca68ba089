"""--svg: what the terminal shows, kept as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Run

TEXT = "{http://www.w3.org/2000/svg}text"
BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"


def shown(file: Path) -> list[str]:
    """The words of a picture, line by line."""
    lines: dict[float, list[str]] = {}
    for text in ElementTree.parse(file).iter(TEXT):
        lines.setdefault(float(text.get("y", "0")), []).append(text.text or "")
    return ["  ".join(words) for words in lines.values()]


def test_the_picture_says_what_the_terminal_says(normcli: Run, tmp_path: Path) -> None:
    printed = normcli("batch", BN1D, "--element", "1,0", "--only", "trace", "--svg", "trace.svg").stdout
    assert printed.startswith("trace of element (1, 0)\n")
    assert shown(tmp_path / "trace.svg")[:5] == [
        "trace of element (1, 0)",
        "step  formula  with the numbers  value",
        "─" * 77,
        "mean  sum(x) / n  (1 + 6 + 2) / 3  3.0000",
        "centered  x - mean  6 - 3  3.0000",
    ]


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_the_picture_is_in_colour_wherever_it_is_made(normcli: Run, tmp_path: Path, env: dict[str, str]) -> None:
    normcli("batch", BN1D, "--picture", "--svg", "picture.svg", env=env)
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert text.count('fill="#fde725"') > 1
    assert "▄" in text


def test_the_picture_asks_the_network_for_nothing(normcli: Run, tmp_path: Path) -> None:
    normcli("layer", "[1,2,4]", "--svg", "layer.svg")
    text = (tmp_path / "layer.svg").read_text(encoding="utf-8")
    assert text.count("://") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1
    assert "@import" not in text
    assert "@font-face" not in text


def test_json_goes_out_beside_the_picture(normcli: Run, tmp_path: Path) -> None:
    done = normcli("layer", "[1,3]", "--eps", "0", "--json", "--svg", "layer.svg")
    assert json.loads(done.stdout)["output"] == [-1, 1]
    assert "row  mean  var  var_unbiased  rstd" in shown(tmp_path / "layer.svg")


def test_several_inputs_are_one_picture(normcli: Run, tmp_path: Path) -> None:
    normcli("batch", "[[1,2],[3,5]]", "[[0,2],[3,9]]", "--only", "running", "--svg", "both.svg")
    assert sum(line.startswith("running statistics") for line in shown(tmp_path / "both.svg")) == 2


def test_a_picture_that_cannot_be_written_is_refused(normcli: Run) -> None:
    done = normcli("layer", "[1,2]", "--svg", "nowhere/layer.svg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot write nowhere/layer.svg: No such file or directory\n"
