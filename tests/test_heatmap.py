"""Heat maps and histograms of a calculation, on whatever they are shown."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from normcli.calculate import normalize
from normcli.showing.canvas import Canvas
from normcli.showing.picture import Scale, extent, lines, pair

PLAIN = Canvas(width=80, colour=False, utf8=True)


def drawn(x: np.ndarray, kind: str, canvas: Canvas = PLAIN, **options: object) -> str:
    picture = pair(x, normalize(x, kind, **options))
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines(picture, canvas))


def test_input_and_output_side_by_side_on_one_scale(normcli: Run) -> None:
    done = normcli("layer", "[[-2,0,2],[5,6,7]]", "--eps", "0", "--picture", "--only", "statistics")
    assert (
        done.stdout.partition("\n\n")[2]
        == """\
input and output  -2 ··░░▒▒▓▓██ 7

input    output
··░░▒▒   ··░░░░
▓▓████   ··░░░░

values of each row, from low to high on the scale
row  input                  output
  0  █ █  █        -2 to 2   ██ █         -1.2247 to 1.2247
  1           ███  5 to 7    ██ █         -1.2247 to 1.2247
"""
    )


def test_without_utf8_there_is_only_ascii(normcli: Run) -> None:
    done = normcli("layer", "[[-2,0,2],[5,6,7]]", "--picture", env={"PYTHONIOENCODING": "ascii"})
    assert done.stdout.isascii()
    assert "..::~~ooxx%%##@@" in done.stdout


def test_what_is_not_finite_is_marked() -> None:
    text = drawn(np.array([[1, np.nan, 3], [np.inf, 2, -np.inf], [1, 2, 4.0]]), "layer")
    assert "?? nan, ++ inf, -- -inf\n" in text
    assert "nothing finite" in text


def test_a_narrow_output_has_a_scale_of_its_own() -> None:
    text = drawn(np.array([[100.0, 300, 200], [5, 1000, 7]]), "layer")
    assert "input         5 ··░░▒▒▓▓██ 1000\n" in text
    assert "Each has its own scale: in one for both, a picture would have one colour.\n" in text


def test_large_tensors_are_drawn_by_their_edges() -> None:
    x = np.random.default_rng(0).normal(size=(3, 12, 40, 50))
    text = drawn(x, "batch", Canvas(width=200, colour=False, utf8=True))
    assert "Only the edges are drawn: 10 of 40 along axis 2, 23 of 50 along axis 3, 3 of 36 slices.\n" in text
    assert "on the scale: 8 of 12 shown\n" in text
    assert "input[2, 11, :, :]" in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 12, 40, 50)) * 1e-5
    text = drawn(x, "batch", Canvas(width=width, colour=False, utf8=True))
    assert max(map(len, text.splitlines())) <= width


def test_the_histogram_counts_each_channel_alone() -> None:
    text = drawn(np.array([[0.0, 10], [0, 10], [0, 10], [10, 0]]), "batch", eps=0.0)
    rows = [line.partition("  ")[2].strip() for line in text.splitlines() if "0 to 10" in line]
    assert [row.split("0 to 10")[0].rstrip() for row in rows] == ["0   █         ▃", "1   ▃         █"]


def test_a_channel_axis_at_the_end_is_found() -> None:
    x = np.arange(24.0).reshape(2, 4, 3)
    assert drawn(x, "batch", channel_axis=-1).splitlines()[-1].split()[0] == "2"


def test_extremes_of_float64_are_drawn() -> None:
    assert Scale(-1.7e308, 1.7e308).level(1.7e308, 5) == 4
    assert drawn(np.array([[-1.7e308, 1.7e308, 0.0]]), "layer")


def test_extent_of_nothing_finite_is_none() -> None:
    assert extent(np.array([np.nan, np.inf])) is None


def test_a_picture_has_no_place_in_json(normcli: Run) -> None:
    done = normcli("layer", "[1,2]", "--picture", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --picture is drawn with tables; it has no place in --format json\n"


def in_terminal(arguments: list[str], env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "normcli", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=env):
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # Linux says so when the other side is closed
            pass
    os.close(ours)
    return text.decode()


@pytest.mark.parametrize("arguments", [["layer", "[[1,2,4]]", "--picture"], ["axes", "batch", "--shape", "2,3"]])
def test_colours_are_on_a_terminal_alone(environment: dict[str, str], arguments: list[str], tmp_path: Path) -> None:
    on = {"TERM": "xterm-256color", "COLUMNS": "80"}
    assert "48;5;" in in_terminal(arguments, environment | on)
    assert "\x1b[" not in in_terminal(arguments, environment | on | {"NO_COLOR": "1"})
