"""--svg: what the terminal shows, kept as a picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Run

SVG = "{http://www.w3.org/2000/svg}"
BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"


def shown(file: Path) -> list[str]:
    """What a picture says, line by line, blanks as one."""
    lines: dict[float, list[str]] = {}
    for text in ElementTree.parse(file).iter(f"{SVG}text"):
        lines.setdefault(float(text.get("y", "0")), []).append(text.text or "")
    return [" ".join(" ".join(words).split()) for words in lines.values()]


def test_the_picture_says_what_the_terminal_says(normcli: Run, tmp_path: Path) -> None:
    printed = normcli("batch", BN1D, "--element", "1,0", "--only", "trace", "--svg", "trace.svg").stdout
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines[0] == "trace of element (1, 0)"
    assert shown(tmp_path / "trace.svg")[:2] == lines[:2]
    assert (
        shown(tmp_path / "trace.svg")[3:6]
        == lines[3:6]
        == [
            "mean sum(x) / n (1 + 6 + 2) / 3 3.0000",
            "centered x - mean 6 - 3 3.0000",
            "var sum(centered^2) / n ((-2)^2 + 3^2 + (-1)^2) / 3 4.6667",
        ]
    )


def test_the_picture_has_a_title(normcli: Run, tmp_path: Path) -> None:
    printed = normcli("layer", "[1,2]", "--svg", "layer.svg").stdout
    assert ElementTree.parse(tmp_path / "layer.svg").findtext(f"{SVG}title") == printed.splitlines()[0]


def test_what_would_be_markup_is_text(normcli: Run, tmp_path: Path) -> None:
    normcli("batch", BN1D, "--versus", "torch", "--svg", "versus.svg")
    assert any("> 1 ulp" in line for line in shown(tmp_path / "versus.svg"))


@pytest.mark.parametrize("options", [[], ["--picture"], ["--trace"]], ids=str)
def test_nothing_is_left_out_by_what_it_is_clipped_to(normcli: Run, tmp_path: Path, options: list[str]) -> None:
    normcli("batch", BN1D, *options, "--svg", "batch.svg")
    picture = ElementTree.parse(tmp_path / "batch.svg").getroot()
    boxes = {f"url(#{box.get('id')})" for box in picture.iter(f"{SVG}clipPath")}
    assert {text.get("clip-path") for text in picture.iter(f"{SVG}text") if (text.text or "").strip()} <= boxes
    _, _, width, height = map(float, picture.get("viewBox", "").split())
    sizes = [
        [float(box.get(name, "0")) for name in ("x", "width", "y", "height")] for box in picture.iter(f"{SVG}rect")
    ]
    assert all(x + across <= width and y + down <= height for x, across, y, down in sizes)


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_the_picture_is_in_colour_wherever_it_is_made(normcli: Run, tmp_path: Path, env: dict[str, str]) -> None:
    normcli("batch", BN1D, "--picture", "--svg", "picture.svg", env=env)
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert text.count('fill="#fde725"') > 1
    assert len(set(re.findall('<rect fill="(#[0-9a-f]{6})"', text))) == 18  # nine of each scale
    assert "▄" in text


def test_the_picture_asks_the_network_for_nothing(normcli: Run, tmp_path: Path) -> None:
    normcli("layer", "[1,2,4]", "--svg", "layer.svg")
    text = (tmp_path / "layer.svg").read_text(encoding="utf-8")
    assert text.count("://") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1
    assert all(text.count(word) == 0 for word in ("@import", "@font-face", "href", "src"))
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", text))


def test_json_goes_out_beside_the_picture(normcli: Run, tmp_path: Path) -> None:
    done = normcli("layer", "[1,3]", "--eps", "0", "--json", "--svg", "layer.svg")
    assert json.loads(done.stdout)["output"] == [-1, 1]
    assert "row mean var var_unbiased rstd" in shown(tmp_path / "layer.svg")


def test_several_inputs_are_one_picture(normcli: Run, tmp_path: Path) -> None:
    normcli("batch", "[[1,2],[3,5]]", "[[0,2],[3,9]]", "--only", "running", "--svg", "both.svg")
    assert sum(line.startswith("running statistics") for line in shown(tmp_path / "both.svg")) == 2


def test_a_picture_that_cannot_be_written_is_refused(normcli: Run) -> None:
    done = normcli("layer", "[1,2]", "--svg", "nowhere/layer.svg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot write nowhere/layer.svg: No such file or directory\n"
