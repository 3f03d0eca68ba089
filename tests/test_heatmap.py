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


def test_input_and_output_side_by_side_each_on_its_scale(normcli: Run) -> None:
    done = normcli("layer", "[[-2,0,2],[5,6,7]]", "--eps", "0", "--picture", "--only", "statistics")
    assert (
        done.stdout.partition("\n\n")[2]
        == """\
input        -2 ··░░▒▒▓▓██ 7
output  -1.2247 ··░░▒▒▓▓██ 1.2247

input    output
··░░▒▒   ··▒▒██
▓▓████   ··▒▒██

values of each row, from low to high on the scale
row  input                     output
  0  █  █  █          -2 to 2  █      █      █  -1.2247 to 1.2247
  1             █ ██  5 to 7   █      █      █  -1.2247 to 1.2247
     └──┴──────────┘           └──────┴──────┘
     -2 0          7           -1.2   0    1.2
"""
    )


def test_without_utf8_there_is_only_ascii(normcli: Run) -> None:
    done = normcli("layer", "[[-2,0,2],[5,6,7]]", "--picture", env={"PYTHONIOENCODING": "ascii"})
    assert done.stdout.isascii()
    assert "..::~~oo%%##@@" in done.stdout
    assert "+--+----------+" in done.stdout


def test_what_is_not_finite_is_marked() -> None:
    text = drawn(np.array([[1, np.nan, 3], [np.inf, 2, -np.inf], [1, 2, 4.0]]), "layer")
    assert "?? nan, ++ inf, -- -inf\n" in text
    assert "nothing finite" in text


def test_zero_is_in_the_middle_of_the_scale_of_the_output() -> None:
    text = drawn(np.array([[100.0, 300, 200], [5, 1000, 7]]), "layer", bias=np.array([0.0, 3, 0]))
    assert "input         5 ··░░▒▒▓▓██ 1000\n" in text
    assert "output  -4.4142 ··░░▒▒▓▓██ 4.4142\n" in text


@pytest.mark.parametrize("levels", [5, 7, 9, 15])
def test_what_is_zero_in_the_output_is_neither_low_nor_high(levels: int) -> None:
    drawn_pair = pair(x := np.array([[1.0, 2, 3]]), normalize(x, "layer"))
    assert drawn_pair.after.level(0.0, levels) == levels // 2


def test_the_axis_of_a_histogram_has_no_zero_where_the_values_have_none() -> None:
    *_, ticks, ends = drawn(np.array([[5.0, 6, 7]]), "layer").splitlines()
    assert ticks.split() == ["└─────────────┘", "└──────┴──────┘"]
    assert ends.split() == ["5", "7", "-1.2", "0", "1.2"]


def test_a_narrow_terminal_has_one_axis_for_each() -> None:
    text = drawn(np.array([[-5.0, 6, 7]]), "layer", Canvas(width=60, colour=False, utf8=True))
    assert [line.split()[-1] for line in text.splitlines() if "└" in line] == ["input", "output"]


def test_input_and_output_have_colours_of_their_own() -> None:
    x = np.array([[-1.0, 0, 1]])
    spans = [
        span for line in lines(pair(x, normalize(x, "layer")), Canvas(80, colour=True, utf8=True)) for span in line
    ]
    white = [style for text, style in spans if text == "  " and style and style.endswith("#f7f7f7")]
    assert len(white) == 2  # of the legend, and of the 0 in the output; none of the 0 in the input


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
    assert [row.split("0 to 10")[0].rstrip() for row in rows] == ["0  █             ▃", "1  ▃             █"]


def test_a_channel_axis_at_the_end_is_found() -> None:
    x = np.arange(24.0).reshape(2, 4, 3)
    assert drawn(x, "batch", channel_axis=-1).splitlines()[-3].split()[0] == "2"


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
