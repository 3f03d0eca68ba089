"""Worked-example files: how they are read, what may stand in them, and what a wrong one is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from normcli.commands import help
from normcli.errors import InputError
from normcli.planning.kinds import KINDS, QUANTITIES
from normcli.teaching import worked

EXAMPLE = {"kind": "layer", "input": [[1, 2, 4, 1]], "expect": {"mean": [2]}}
BATCH = {"kind": "batch", "input": [[1, 2], [3, 5]], "expect": {"running_mean": [2, 3.5]}}


def text_of(**parts: str) -> str:
    """A worked example with some values replaced by other text, which need not be JSON."""
    texts = {key: json.dumps(value) for key, value in EXAMPLE.items()} | parts
    return "{" + ", ".join(f'"{key}": {text}' for key, text in texts.items()) + "}"


# --- standard input, and the template -------------------------------------------------------------


def test_a_worked_example_comes_through_a_pipe(normcli: Run) -> None:
    done = normcli("check", "-", stdin=json.dumps(EXAMPLE))
    assert (done.returncode, done.stdout, done.stderr) == (0, "checks\n", "")


def test_paths_in_a_pipe_are_those_of_the_working_folder(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2, 4, 1]]))
    assert normcli("check", "-", stdin=json.dumps(EXAMPLE | {"input": "x.npy"})).returncode == 0


def test_standard_input_is_named_in_errors(normcli: Run) -> None:
    done = normcli("check", "-", stdin="{")
    words = "is not valid JSON: Expecting property name enclosed in double quotes at position 2"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: standard input {words}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "-"), "standard input (-) is given twice"),
        (
            ("--json",),
            "check needs a FILE, or - for standard input\nhint: normcli check --init prints one to start from",
        ),
        (("--init", "x.json"), "--init prints a worked example and checks nothing; give it alone"),
        (("nowhere.json",), "no file nowhere.json"),
        (("",), "the name of a file is empty"),
    ],
    ids=["twice", "no file", "init and a file", "missing", "empty name"],
)
def test_refused_before_anything_is_read(normcli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = normcli("check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_suggestion_follows_the_error(normcli: Run, tmp_path: Path) -> None:
    (tmp_path / "homework.json").write_text(json.dumps(EXAMPLE))
    assert normcli("check", "homwork.json").stderr == "error: no file homwork.json\nhint: did you mean homework.json?\n"


def test_the_template_checks(normcli: Run) -> None:
    template = normcli("check", "--init").stdout
    done = normcli("check", "-", stdin=template)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("checks: all 24 cells agree, to the 4 decimals given\n")


def test_the_template_shows_what_a_file_is_made_of() -> None:
    template = json.loads(worked.TEMPLATE)
    assert set(template) == {"title", "source", "kind", "input", "options", "decimals", "expect"}
    assert set(template["expect"]) == {"mean", "var", "output", "running_var"}


def test_a_digit_changed_in_the_template_does_not_check(normcli: Run) -> None:
    assert normcli("check", "-", stdin=worked.TEMPLATE.replace("1.3887", "1.3888")).returncode == 1


def test_the_help_names_every_key_and_quantity(normcli: Run) -> None:
    words = set(re.findall(r"\w+", normcli("check", "--help").stdout))
    assert {*worked._KEYS, *QUANTITIES, *KINDS} <= words


def test_the_example_of_the_help_checks(normcli: Run) -> None:
    (example,) = re.findall(r"(?m)^\{.*", help._EPILOGUES["check"])
    assert normcli("check", "-", stdin=example).returncode == 0


# --- names ----------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hyphens": (BATCH | {"options": {"running-ddof": 0}}, {"running_ddof": 0}),
    "epsilon": (BATCH | {"options": {"epsilon": 0.5}}, {"eps": 0.5}),
    "momentum none": (BATCH | {"options": {"momentum": "none"}}, {"momentum": None}),
    "momentum null": (BATCH | {"options": {"momentum": None}}, {"momentum": None}),
    "normalized-shape": (EXAMPLE | {"options": {"normalized-shape": [4]}}, {"normalized_shape": (4,)}),
    "gamma": (BATCH | {"options": {"gamma": [1, 2]}}, {"affine": True}),
}


@pytest.mark.parametrize(("example", "settled"), OPTIONS.values(), ids=OPTIONS)
def test_options_may_be_spelled_as_people_do(tmp_path: Path, example: dict[str, Any], settled: dict[str, Any]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(example))
    plan = worked.load_example(tmp_path / "x.json").plan
    assert {name: getattr(plan, name) for name in settled} == settled


def test_other_names_may_have_hyphens_too(tmp_path: Path) -> None:
    text = (
        '{"kind": "batch", "input": [[1.0, 2], [3, 5]], "input-decimals": 1, "expect": {"running-mean": [0.2, 0.35]}}'
    )
    (tmp_path / "x.json").write_text(text)
    example, found = worked.check_file(tmp_path / "x.json")
    assert (example.input_decimals, list(example.expect), found.ok) == (1, ["running_mean"], True)


def test_files_and_literals_stand_for_tensors_as_on_the_command_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([[1.0, 2, 4, 1]]), b=np.ones(3))
    for given in ("x.npz::a", "[[1, 2, 4, 1]]", "tensor([[1., 2., 4., 1.]])"):
        (tmp_path / "x.json").write_text(json.dumps(EXAMPLE | {"input": given}))
        assert worked.check_file(tmp_path / "x.json")[1].ok


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_are_those_of_every_other_file(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.json").write_bytes(json.dumps(EXAMPLE | {"title": "µ"}, ensure_ascii=False).encode(encoding))
    assert worked.load_example(tmp_path / "x.json").title == "µ"


# --- what is refused, in the words of every other reader ------------------------------------------

BEYOND = "777777777777777777777... at [0], which does not fit in float64"
TWICE = ": eps and epsilon are two words for the same thing; give one of them"
REFUSED = {
    "400 digits": (text_of(input=f"[{'7' * 400}]"), ": input has " + BEYOND),
    "5000 digits": (
        text_of(input="[" + "7" * 5000 + "]"), " has a number that does not fit in float64: 777777777777777777777...",
    ),
    "1e400": (text_of(expect='{"mean": [1e400]}'), ": expect.mean has 1e400 at [0], which does not fit in float64"),
    "an option of 1e400": (text_of(options='{"eps": 1e400}'), ": eps is inf; it must be a finite number, 0 or more"),
    "kind in a list": (
        text_of(kind='["rms"]'),
        ": kind ['rms'] is not known; use batch, instance, layer, group or rms, or another of normcli --help",
    ),
    "convention in a list": (
        text_of(options='{"convention": ["keras"]}'),
        ": convention ['keras'] is not known; use torch, keras, flax, onnx, mlx, d2l or cs231n",
    ),
    "a key twice": ('{"kind": "layer", "kind": "rms"}', " has the key 'kind' twice"),
    "one thing twice": (text_of(options='{"eps": 1, "epsilon": 2}'), TWICE),
    "null": (text_of(input="[null]"), ": input has null at [0]; write NaN if you mean not-a-number"),
    "deep": (text_of(input="[" * 65 + "1" + "]" * 65), ": input is nested more than 64 levels deep"),
    "deeper": (text_of(input="[" * 5000 + "1" + "]" * 5000), " is nested more than 64 levels deep"),
    "title no text": (text_of(title="3"), ": title is 3; it must be text"),
    "affine no switch": (text_of(options='{"affine": "no"}'), ": affine is 'no'; it must be true or false"),
    "two documents": (text_of() + text_of(), " holds more than one JSON value; position 68"),
    "empty": (" ", " is empty"),
    "standard input within": (text_of(input='"-"'), ": input is '-', and standard input is no file beside this one"),
    "binary": ("\udcff", " is neither NPY, NPZ nor text in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_example_is_refused_in_the_words_of_every_reader(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as refused:
        worked.load_example(path)
    assert str(refused.value) == f"{path}{message}"


ZEROS = {"beyond a C long": f"0e-{'7' * 30}", "beyond Python's own": f"0e-{'7' * 5000}", "large": f"0e{'7' * 30}"}


@pytest.mark.parametrize("zero", ZEROS.values(), ids=ZEROS)
def test_an_exponent_may_have_any_length(tmp_path: Path, zero: str) -> None:
    (tmp_path / "x.json").write_text(text_of(input=f"[[1, -1, {zero}]]", expect='{"mean": [0]}'))
    assert worked.check_file(tmp_path / "x.json")[1].ok


@pytest.mark.filterwarnings("error")
def test_what_overflows_in_a_slip_is_only_no_explanation(tmp_path: Path) -> None:
    options = '{"weight": [1e300, 1, 1]}'
    (tmp_path / "x.json").write_text(
        text_of(input="[[1e300, 1, -1]]", options=options, expect='{"normalized": [[1, 2, 3]]}')
    )
    assert not worked.check_file(tmp_path / "x.json")[1].ok


@pytest.mark.parametrize("depth", range(940, 1000, 5))
def test_no_depth_is_too_much_for_the_words_about_it(tmp_path: Path, depth: int) -> None:
    (tmp_path / "x.json").write_text(text_of(title="[" * depth + "]" * depth))
    with pytest.raises(InputError, match=r"title is \[\[|nested (too|more than 64 levels) deep"):
        worked.load_example(tmp_path / "x.json")


SUGGESTIONS = {
    "an option": (text_of(options='{"normalised_shape": [4]}'), "did you mean normalized_shape?"),
    "a key": (text_of(inputs="[1]"), "did you mean input?"),
    "an option of no kind": (text_of(options='{"qqq": 1}'), None),
}


@pytest.mark.parametrize(("text", "hint"), SUGGESTIONS.values(), ids=SUGGESTIONS)
def test_a_wrong_key_gets_a_suggestion(tmp_path: Path, text: str, hint: str | None) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError) as refused:
        worked.load_example(tmp_path / "x.json")
    assert refused.value.hint == hint


def gradient_example(tmp_path: Path, grad_output: str, expect: str) -> Path:
    (tmp_path / "g.json").write_text("[[1, 0, 0]]")
    path = tmp_path / "x.json"
    path.write_text(f'{{"kind": "layer", "input": [[1, 2, 6]], {grad_output}, "expect": {expect}}}')
    return path


FLOWS = {
    "a tensor": ('"grad_output": [[1, 0, 0]]', '{"dbeta": [1, 0, 0]}'),
    "a file": ('"grad_output": "g.json"', '{"grad_bias": [1, 0, 0]}'),
    "another word": ('"dy": [[1, 0, 0]]', '{"dbias": [1, 0, 0]}'),
    "a number": ('"grad-output": 0.5', '{"grad-bias": [0.5, 0.5, 0.5]}'),
    "ones": ('"grad_output": "ones"', '{"dx": [[0, 0, 0]]}'),
}


@pytest.mark.parametrize(("flow", "expect"), FLOWS.values(), ids=FLOWS)
def test_a_gradient_is_checked_for_whatever_flows_in(tmp_path: Path, flow: str, expect: str) -> None:
    assert worked.check_file(gradient_example(tmp_path, flow, expect))[1].ok
    wrong = expect.replace("0", "7").replace(".5", ".9")
    assert not worked.check_file(gradient_example(tmp_path, flow, wrong))[1].ok


def test_a_gradient_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    path = gradient_example(tmp_path, '"grad_output": [1, 2]', '{"dx": [[0, 0, 0]]}')
    with pytest.raises(InputError, match=r"grad_output has shape \(2,\); \(1, 3\) is needed"):
        worked.check_file(path)
