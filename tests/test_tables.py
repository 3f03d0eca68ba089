"""Tables on terminals of all widths, and on those that show nothing but ASCII."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from normcli import calculate
from normcli.showing import table
from normcli.showing.report import Detail, Report, Section
from normcli.showing.sections import sections

ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal; its width comes from COLUMNS."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("NO_COLOR", "1")
    return monkeypatch


def printed(parts: list[Section], stream: io.StringIO) -> str:
    stream.writelines(table.tables("", parts, stream))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def wide() -> list[Section]:
    x = np.random.default_rng(3).normal(size=(2, 3, 5, 400))
    return sections(Report(result=calculate.normalize(x, "group", groups=3)), Detail())


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(plain: pytest.MonkeyPatch, columns: int) -> None:
    plain.setenv("COLUMNS", str(columns))
    assert max(map(len, printed(wide(), Terminal()).splitlines())) <= columns


def test_a_narrow_terminal_shows_the_same_numbers_as_a_pipe(plain: pytest.MonkeyPatch) -> None:
    plain.setenv("COLUMNS", "40")
    numbers = [sorted(re.findall(r"-?[0-9]+[.][0-9]{4}", printed(wide(), stream)))
               for stream in (Terminal(), io.StringIO())]  # fmt: skip
    assert numbers[0] == numbers[1]


def test_edges_are_those_of_numpy_and_counted(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(4000.0).reshape(8, 500) ** 0.5)
    assert (
        normcli("layer", "x.npy", "--precision", "1", "--only", "output").stdout
        == """\
output: edges of 8 x 500 shown, 3964 of 4000 elements left out (see --full)
        0     1     2  ...  497  498  499
─────────────────────────────────────────
  0  -2.8  -2.6  -2.5  ...  1.4  1.4  1.4
  1  -1.8  -1.8  -1.8  ...  1.6  1.6  1.6
  2  -1.8  -1.8  -1.8  ...  1.7  1.7  1.7
...   ...   ...   ...  ...  ...  ...  ...
  5  -1.8  -1.7  -1.7  ...  1.7  1.7  1.7
  6  -1.8  -1.7  -1.7  ...  1.7  1.7  1.7
  7  -1.7  -1.7  -1.7  ...  1.7  1.7  1.7
"""
    )


def test_without_unicode_a_table_is_the_same_with_hyphens(normcli: Run) -> None:
    fancy, ascii_only = (normcli("layer", "[[1,2],[3,5]]", env=env).stdout for env in ({}, ASCII))
    assert ascii_only == fancy.replace("─", "-")


def test_a_title_that_the_terminal_cannot_show_is_escaped(normcli: Run, tmp_path: Path) -> None:
    example = {"title": "批归一化", "kind": "layer", "input": [[1, 3]], "options": {"eps": 0}, "expect": {"mean": [2]}}
    (tmp_path / "cjk.json").write_text(json.dumps(example))
    done = normcli("check", "cjk.json", env=ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\\u6279\\u5f52\\u4e00\\u5316\nchecks\n"


def test_wide_letters_take_two_places(plain: pytest.MonkeyPatch) -> None:
    plain.setenv("COLUMNS", "20")
    part = Section(part="check", title="t", columns=["層", "平均", "分散"], rows=[["一", "1.0", "2.0"]])
    assert (
        printed([part], Terminal())
        == """\
t
層  平均  分散
──────────────
一   1.0   2.0
"""
    )


def test_large_tables_look_like_small_ones(plain: pytest.MonkeyPatch) -> None:
    small = printed(wide(), io.StringIO())
    plain.setattr(table, "_MOST", 0)
    assert printed(wide(), io.StringIO()) == small
