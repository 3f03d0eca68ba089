"""The benchmarks by hand still run, on tensors so small that nothing is measured, and their picture can be read."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch", reason="the benchmarks compare with it")

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the picture; `.speed` is the one that measures."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    limit = importlib.import_module("limit")
    limit.speed = importlib.import_module("speed")
    monkeypatch.setattr(limit.speed, "ROUNDS", 1)
    monkeypatch.setattr(limit.speed, "CALLS", 1)
    monkeypatch.setattr(limit.torch, "set_num_threads", lambda threads: None)  # the process is shared with other tests
    return limit


def test_each_shape_has_a_row_and_each_goal_a_line(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [("batch", (4, 3, 5, 2), {}, ("float32", "bfloat16")), ("group", (3, 4), {"groups": 2}, ("float16",))]
    monkeypatch.setattr(benchmark.speed, "FAMILY", tiny)
    benchmark.speed.main(["float32", "bfloat16"])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in said[2:6]] == [
        ["batch", "4x3x5x2", dtype, order] for dtype in ("float32", "bfloat16") for order in ("first", "last")
    ]
    assert {len(line.split()) for line in said[1:6]} == {11}
    assert [line.partition(" at most ")[2].split(":")[0] for line in said[6:]] == ["0.90", "0.90", "0.60", "1.25"]


def test_a_goal_is_met_or_not(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.speed.goal("the same", 1.25, 1.25)
    benchmark.speed.goal("more", 1.26, 1.25)
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()] == ["met", "not met"]


def test_the_picture_has_a_panel_for_each_kind_and_thing(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main([100, 1000, 10_000], [1, 10], 100, tmp_path / "x.svg")
    assert capsys.readouterr().out.count("at most") == 6
    assert drawn(tmp_path / "x.svg") == {"polyline": 4 * 3 + 3, "numbers": [3, 3, 2, 2]}


def test_the_picture_of_the_page_is_one_of_these() -> None:
    assert drawn(ROOT / "examples" / "speed.svg") == {"polyline": 4 * 3 + 3, "numbers": [7, 7, 8, 8]}
    assert (ROOT / "examples" / "speed.svg").stat().st_size < 20_000


def drawn(path: Path) -> dict[str, object]:
    """How many curves there are, and how many points each panel's have."""
    lines = ElementTree.parse(path).getroot().findall(f"{SVG}polyline")
    points = [len(line.attrib["points"].split()) for line in lines[3:]]
    assert points[0::3] == points[1::3] == points[2::3]
    return {"polyline": len(lines), "numbers": points[0::3]}
