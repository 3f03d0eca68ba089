"""Every letter can be read: a contrast of 4.5 to 1 at least to what is behind it, as WCAG 2 (1.4.3) defines it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Run

from normcli.showing.canvas import PALETTE
from normcli.showing.picture import _HEAT, _SIGNED

LEAST = 4.5
SVG = "{http://www.w3.org/2000/svg}"

Box = tuple[float, float, float, float, str]  # x, y, width, height, colour


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_what_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known grey that just fails


@pytest.mark.parametrize(("paper", "ink"), [*PALETTE, *_HEAT, *_SIGNED])
def test_letters_on_coloured_paper_can_be_read(paper: str, ink: str) -> None:
    assert contrast(paper, ink) >= LEAST


def texts(drawing: str) -> list[tuple[str, str, str]]:
    """Each text of a drawing, its colour, and that of the last rectangle below its beginning."""
    root = ElementTree.fromstring(drawing)
    inks = dict(re.findall(r"\.([\w-]+-r\d+) \{ fill: (#\w{6})", drawing))
    boxes: list[Box] = []
    found = []
    for part in root.iter():
        if part.tag == f"{SVG}rect" and part.get("fill") is not None:
            x, y, width, height = (float(part.get(name, "0")) for name in ("x", "y", "width", "height"))
            boxes.append((x, y, width, height, part.get("fill", "")))
        if part.tag == f"{SVG}text":
            x, y = float(part.get("x", "0")) + 0.1, float(part.get("y", "0")) - 1
            ink = inks.get(part.get("class", ""), root.get("fill", ""))
            paper = [c for left, top, w, h, c in boxes if left <= x < left + w and top <= y < top + h][-1]
            found.append((part.text or "", ink, paper))
    return found


DRAWINGS = {
    "axes": ["axes", "group", "--shape", "2,6,4,4", "--groups", "3"],
    "a picture": ["layer", "[[-2,0,2],[5,6,7],[1,0,2]]", "--picture"],
    "a trace": ["batch", "[[1,2],[3,5]]", "--trace"],
    "a wrong answer": ["layer", "[[1,2,4]]", "--expect", "[[-0.8729,-0.2182,1.0911]]"],
    "a comparison": ["layer", "[[1,2,4]]", "--versus", "keras", "--versus", "numpy::float16"],
}


@pytest.mark.parametrize("arguments", DRAWINGS.values(), ids=list(DRAWINGS))
def test_every_text_of_a_drawing_can_be_read(arguments: list[str], normcli: Run, tmp_path: Path) -> None:
    normcli(*arguments, "--svg", "drawn.svg")
    drawing = (tmp_path / "drawn.svg").read_text()
    found = texts(drawing)
    assert found
    assert [(text, ink, paper) for text, ink, paper in found if contrast(ink, paper) < LEAST] == []
