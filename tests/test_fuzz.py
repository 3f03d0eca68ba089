"""A slice of the fuzzer (tests/fuzz.py), which runs thousands of command lines and files by hand."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest

from normcli.commands import calculate
from normcli.errors import InputError

SLICES = range(0, 1000, 50)


@pytest.mark.filterwarnings("default")  # as in a process of one's own
@pytest.mark.parametrize("first", SLICES)
def test_every_case_ends_in_words(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LONGEST", 30.0)  # the machine may have other work
    ended = {number: fuzz.tried(number) for number in range(first, first + 50)}
    assert {number: (made, end) for number, (made, end, wrong) in ended.items() if wrong} == {}


def test_a_number_makes_the_same_case_again() -> None:
    assert fuzz.case(7) == fuzz.case(7) != fuzz.case(8)


def test_cases_end_in_every_way() -> None:
    assert {fuzz.tried(number)[1].code for number in range(200)} >= {0, 1, 2}


BROKEN = {
    "a bug": ValueError("out of range"),
    "exit code 130": KeyboardInterrupt(),
    "another line on standard error": InputError(""),
}


@pytest.mark.parametrize(("wrong", "error"), BROKEN.items(), ids=BROKEN)
def test_the_fuzzer_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, error: Exception) -> None:
    def fails(*arguments: object, **options: object) -> int:
        raise error

    monkeypatch.setattr(calculate, "calculate", fails)
    made = fuzz.Case(arguments=["layer", "[1,2]"], stdin=b"")
    assert fuzz.wrong_with(made, fuzz.run(made, tmp_path)) == wrong


FOUND = {
    "a slow one": (fuzz.Ended(code=0, stdout="", stderr="", seconds=9.0, left=()), "9.0 seconds"),
    "a traceback": (fuzz.Ended(code=1, stdout="", stderr="Traceback (most", seconds=0, left=()), "a bug"),
    "output": (fuzz.Ended(code=2, stdout="1", stderr="error: no", seconds=0, left=()), "output of what failed"),
    "two errors": (fuzz.Ended(code=2, stdout="", stderr="error: a\nerror: b", seconds=0, left=()), "not one error"),
    "a file": (
        fuzz.Ended(code=2, stdout="", stderr="error: a", seconds=0, left=("y",)),
        "a file written by what failed",
    ),
    "half a file": (
        fuzz.Ended(code=0, stdout="", stderr="", seconds=0, left=(".normcli-1.tmp",)),
        "a temporary file left",
    ),
    "NaN": (fuzz.Ended(code=0, stdout='{"a": NaN}', stderr="", seconds=0, left=()), "no JSON"),
    "nothing": (fuzz.Ended(code=0, stdout='{"a": "NaN"}', stderr="warning: b", seconds=0, left=()), None),
}


@pytest.mark.parametrize(("ended", "wrong"), FOUND.values(), ids=FOUND)
def test_the_fuzzer_sees_what_is_wrong(ended: fuzz.Ended, wrong: str | None) -> None:
    assert fuzz.wrong_with(fuzz.Case(arguments=["layer", "[1,2]", "--json"], stdin=b""), ended) == wrong
