"""The command line as a user meets it: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from typer.testing import CliRunner

from normcli.commands.cli import COMMANDS, app
from normcli.planning.kinds import KINDS

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"


def document(normcli: Run, *arguments: str, **extra: str) -> dict[str, object]:
    done = normcli(*arguments, "--json", **extra)
    assert done.stderr == ""
    return json.loads(done.stdout)


# --- what is printed ------------------------------------------------------------------------------


def test_json_document_of_a_batch_norm(normcli: Run) -> None:
    assert document(normcli, "batch", "[[1,2],[3,6]]", "--eps", "0", "--momentum", "0.5") == {
        "schema": 1,
        "kind": "batch",
        "convention": "torch",
        "mode": "train",
        "backend": "numpy",
        "device": "cpu",
        "input": {"shape": [2, 2], "dtype": "float64"},
        "options": {
            "eps": 0.0,
            "affine": True,
            "momentum": 0.5,
            "track_running_stats": True,
            "ddof": 0,
            "running_ddof": 1,
            "channel_axis": 1,
        },
        "axes": [0],
        "count": 2,
        "statistics": {
            "source": "batch",
            "mean": [2.0, 4.0],
            "var": [1.0, 4.0],
            "var_unbiased": [2.0, 8.0],
            "rstd": [1.0, 0.5],
        },
        "running": {"mean": [1.0, 2.0], "var": [1.5, 4.5], "num_batches_tracked": 1},
        "output": [[-1.0, -1.0], [1.0, 1.0]],
    }


def test_json_document_of_an_rms_norm_has_mean_square(normcli: Run) -> None:
    statistics = document(normcli, "rms", "[3,4]", "--eps", "0")["statistics"]
    assert statistics == {"source": "batch", "mean_square": 12.5, "rstd": 0.282842712474619}


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (("batch",), (6,)),
        (("instance",), (2, 6)),
        (("group", "--groups", "3"), (2, 3)),
        (("layer",), (2, 6)),
        (("layer", "--normalized-shape", "6,4"), (2,)),
        (("rms", "--normalized-shape", "(2,6,4)"), ()),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else None,
)
def test_statistics_have_one_value_for_each_group(
    normcli: Run, tmp_path: Path, arguments: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(2, 6, 4)))
    statistics = document(normcli, *arguments, "x.npy")["statistics"]
    assert isinstance(statistics, dict)
    assert np.shape(statistics["rstd"]) == shape


def test_nan_and_infinity_are_strings_and_read_back(normcli: Run) -> None:
    first = normcli("layer", "[[NaN, 1], [Infinity, 2], [0, 2]]", "--json")
    assert json.loads(first.stdout)["output"][:2] == [["NaN", "NaN"], ["NaN", "NaN"]]
    assert normcli("layer", "-", "--json", stdin=first.stdout).returncode == 0


def test_eval_leaves_the_running_statistics_unchanged(normcli: Run) -> None:
    running = document(normcli, "batch", BN1D, "--mode", "eval", "--running-mean", "[0,0,0,0]")["running"]
    assert running == {"mean": [0.0] * 4, "var": [1.0] * 4, "num_batches_tracked": 0}


def test_several_inputs_are_consecutive_batches(normcli: Run) -> None:
    lines = normcli("batch", "[[1],[3]]", "[[5],[7]]", "--momentum", "none", "--json").stdout.splitlines()
    assert [json.loads(line)["running"]["mean"] for line in lines] == [[2.0], [4.0]]


def test_json_numbers_round_trip_through_float32(normcli: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    normcli("layer", "x.npy", "-o", "y.npy")
    output = document(normcli, "layer", "x.npy")["output"]
    assert np.array_equal(np.array(output), np.load(tmp_path / "y.npy").astype(np.float64))


def test_one_document_feeds_the_next(normcli: Run) -> None:
    done = normcli("layer", "-", "--json", stdin=normcli("batch", BN1D, "--json").stdout)
    assert json.loads(done.stdout)["kind"] == "layer"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("output", [[-1.0, 1.0]]),
        ("statistics", {"source": "batch", "mean": [2.0], "var": [1.0], "var_unbiased": [2.0], "rstd": [1.0]}),
        ("running", None),
        ("trace", "sum(x) / n"),
    ],
)
def test_only_prints_one_part(normcli: Run, part: str, expected: object) -> None:
    value = json.loads(normcli("layer", "[[1,3]]", "--eps", "0", "--json", "--only", part).stdout)
    assert (value[0]["formula"] if part == "trace" else value) == expected


def test_element_trace_is_the_hand_calculation(normcli: Run) -> None:
    expected = """\
BatchNorm, train  (3, 4) float64  mean over axis 0, n = 3  eps 1e-05  momentum 0.1 (weight of the new batch)  torch convention  numpy on cpu

trace of element (1, 0)
step          formula                          with the numbers              value
──────────────────────────────────────────────────────────────────────────────────
mean          sum(x) / n                       (1 + 6 + 2) / 3              3.0000
centered      x - mean                         6 - 3                        3.0000
var           sum(centered^2) / n              ((-2)^2 + 3^2 + (-1)^2) / 3  4.6667
rstd          1 / sqrt(var + eps)              1 / sqrt(4.6667 + 1e-05)     0.4629
normalized    centered * rstd                  3 * 0.4629                   1.3887
output        normalized * weight + bias       1.3887 * 1 + 0               1.3887
running_mean  (1 - m) * old + m * mean         0.9 * 0 + 0.1 * 3            0.3000
running_var   (1 - m) * old + m * var*n/(n-1)  0.9 * 1 + 0.1 * 7            1.6000
"""  # noqa: E501
    assert normcli("batch", BN1D, "--element", "1,0").stdout == expected


def test_an_element_may_be_counted_from_the_end(normcli: Run) -> None:
    last, second = (normcli("layer", "[1,2,4]", "--element", index).stdout for index in ("-1", "2"))
    assert last == second


def test_tables_of_a_layer_norm(normcli: Run) -> None:
    expected = """\
LayerNorm  (2, 4) float64  mean over axis 1, n = 4  eps 1e-05  torch convention  numpy on cpu

statistics (of the input)
row    mean     var  var_unbiased    rstd
─────────────────────────────────────────
  0  2.0000  1.5000        2.0000  0.8165
  1  3.7500  2.1875        2.9167  0.6761

output
         0        1        2        3
─────────────────────────────────────
0  -0.8165   0.0000   1.6330  -0.8165
1   1.5213  -0.5071  -1.1832   0.1690
"""
    assert normcli("layer", "[[1,2,4,1],[6,3,2,4]]").stdout == expected


def test_no_number_is_cut_in_a_pipe(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(3).normal(size=(2, 100)))
    table = normcli("layer", "x.npy", "--only", "output", "--precision", "12").stdout
    cells = [cell for line in table.splitlines()[3:] for cell in line.split()[1:]]
    assert [len(cell.split(".")[1]) for cell in cells] == [12] * 200


def test_higher_ranks_are_labelled_slices(normcli: Run) -> None:
    table = normcli("instance", "[[[[1,2],[3,4]],[[5,6],[7,9]]]]", "--only", "output").stdout
    assert [line for line in table.splitlines() if line.startswith("output")] == [
        "output[0, 0, :, :]",
        "output[0, 1, :, :]",
    ]


def test_large_tensors_are_shown_by_their_edges(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(3).normal(size=(50, 60)))
    table = normcli("batch", "x.npy", "--only", "output").stdout
    assert table.splitlines()[1].split() == ["0", "1", "2", "...", "57", "58", "59"]


# --- colour and width -----------------------------------------------------------------------------


def in_terminal(arguments: list[str], environment: dict[str, str], columns: int) -> str:
    """What a terminal of that many columns receives."""
    import pty

    main, secondary = pty.openpty()
    env = environment | {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    child = subprocess.Popen([sys.executable, "-m", "normcli", *arguments], stdout=secondary, env=env)
    os.close(secondary)
    received = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        received += piece
    child.wait()
    os.close(main)
    return received.decode().replace("\r\n", "\n")


def test_colour_only_on_a_terminal(normcli: Run, environment: dict[str, str]) -> None:
    assert "\x1b[" in in_terminal(["layer", "[1,2]"], environment, 80)
    assert "\x1b[" not in normcli("layer", "[1,2]").stdout


def test_no_color_is_honoured(environment: dict[str, str]) -> None:
    assert "\x1b" not in in_terminal(["layer", "[1,2]"], environment | {"NO_COLOR": "1"}, 80)


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_tables_fit_the_terminal(environment: dict[str, str], columns: int) -> None:
    wide = str([[(7 * i + j * j) % 13 for j in range(20)] for i in range(3)])
    shown = in_terminal(["layer", wide, "--only", "output"], environment | {"NO_COLOR": "1"}, columns)
    assert max(len(line) for line in shown.splitlines()) <= columns
    assert shown.count(".") == 60


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("arguments", [("batch", BN1D, "--trace"), ("conventions",)], ids=["trace", "conventions"])
def test_text_fits_the_terminal(environment: dict[str, str], arguments: tuple[str, ...], columns: int) -> None:
    shown = in_terminal(list(arguments), environment | {"NO_COLOR": "1"}, columns).partition("sources")[0]
    assert max(len(line) for line in shown.splitlines()) <= columns


def test_a_terminal_that_does_not_know_its_width_has_80_columns(environment: dict[str, str]) -> None:
    shown = in_terminal(["layer", "[1,2,4]", "--expect", "[1,2,4]"], environment | {"NO_COLOR": "1"}, 0)
    assert shown.startswith("does not check: 3 of 3 cells differ, the largest by 2.664 (allowed: 2.7e-15)\n")


# --- what is refused ------------------------------------------------------------------------------


def test_a_missing_value_leads_to_the_command_s_help(normcli: Run) -> None:
    done = normcli("layer", "[1,2]", "--expect")
    assert done.stderr.splitlines()[1] == "hint: normcli layer --help shows what is possible"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("layer", "[1,2]", "--momentum", "0.1"), "layer has no option --momentum; it belongs to batch or instance"),
        (("layer", "[1,2]", "--esp", "1"), "no such option: --esp; did you mean --eps?"),
        (("lyer", "[1,2]"), "no such command: lyer; did you mean layer?"),
        (("layer", "[1,2]", "--eps", "x"), "--eps is 'x'; it must be a number"),
        (("layer", "[1,2]", "--eps", "1_0"), "--eps is '1_0'; it must be a number"),
        (("layer", "[1,2]", "--eps", ""), "--eps is ''; it must be a number"),
        (("layer", "[1,2]", "--eps", "-1"), "eps is -1; it must be a finite number, 0 or more"),
        (("layer", "[1,2]", "--eps", "nan"), "eps is nan"),
        (("layer", "[1,2]", "--eps", "1e400"), "eps is inf"),
        (("layer", "[1,2]", "--eps"), "option '--eps' requires an argument"),
        (("layer", "[1,2]", "--precision", "-1"), "--precision is -1; it must be between 0 and 17"),
        (("layer", "[1,2]", "--precision", "1.5"), "--precision is '1.5'; it must be a whole number"),
        (("layer", "[1,2]", "--only", "mean"), "--only is 'mean'; use output, statistics, running, trace, grad-input"),
        (("layer", "[1,2]", "--format", "xml"), "--format is 'xml'; use "),
        (("layer", "[1,2]", "--format", "table", "--json"), "--json and --format table contradict each other"),
        (("layer", "[1,2]", "--dtype", "int8"), "dtype 'int8' is not known"),
        (("layer", "[1,2]", "--convention", "caffe"), "convention 'caffe' is not known"),
        (("layer", "[1,2]", "--backend", "jax"), "backend 'jax' is not known; use numpy or torch"),
        (("layer", "[1,2]", "--weight", "[1,2,3]"), "weight has shape (3,); (2,) is needed"),
        (("layer", "[1,2]", "--no-affine", "--bias", "[1,2]"), "--bias and --no-affine contradict each other"),
        (("layer", "[1,2]", "--normalized-shape", "3"), "normalized_shape (3,) does not end the tensor's shape (2,)"),
        (("layer", "[1,2]", "--element", "5"), "element (5) is outside the tensor of shape (2,)"),
        (("layer", "[1,2]", "--element", "0,1"), "element (0, 1) has 2 indices; a tensor of shape (2,) needs 1"),
        (("layer", "[1,2]", "[3,4]"), "unexpected extra argument"),
        (("layer", "7"), "layer needs one axis or more; the tensor is a single number"),
        (("layer", "-1"), "layer needs one axis or more; the tensor is a single number"),
        (("batch", "[1,2]"), "batch needs (N, C) or more; the tensor is shape (2,)"),
        (("batch", "[[1,2]]"), "BatchNorm needs more than 1 value per channel"),
        (("instance", "[[[1],[2]]]"), "spatial size is 1 in shape (1, 2, 1)"),
        (("batch", BN1D, "--momentum", "1.5"), "momentum is 1.5; it must be between 0 and 1"),
        (("batch", BN1D, "--momentum", "0.1", "--decay", "0.9"), "--momentum and --decay say the same thing twice"),
        (("batch", BN1D, "--mode", "test"), "mode is 'test'; use train or eval"),
        (("batch", BN1D, "--channel-axis", "2"), "channel axis 2 does not exist"),
        (("batch", BN1D, "--ddof", "2"), "ddof is 2; use 0 or 1"),
        (("batch", "-", "-"), "standard input (-) is given twice"),
        (("batch", BN1D, BN1D, "-o", "y.npy"), "put {i} into the name"),
        (("group", BN1D), "group needs the number of groups; give --groups N"),
        (("group", BN1D, "--groups", "3"), "4 channels cannot be split into 3 groups; use 1, 2 or 4"),
        (("group", BN1D, "--groups", "0"), "groups is 0; it must be 1 or more"),
        (("layer", "data.npy"), "no file data.npy"),
        (("layer", "[1,2"), "not closed"),
        (("layer", ""), "empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_refused_in_one_line(normcli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = normcli(*arguments)
    first, *rest = done.stderr.splitlines()
    assert message in first
    assert first.startswith("error: ")
    assert [line[:6] for line in rest] == ["hint: "] * len(rest)
    assert (done.returncode, done.stdout) == (2, "")


def test_value_per_channel_message_names_the_product(normcli: Run) -> None:
    message = normcli("batch", "[[[1],[2]]]").stderr
    assert "batch size x spatial size is 1 in shape (1, 2, 1)" in message


def test_no_arguments_show_a_start(normcli: Run) -> None:
    done = normcli()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("  normcli ") == 6
    listed = done.stdout[done.stdout.index("Commands: ") :].partition("normcli COMMAND")[0]
    assert all(re.search(rf"\b{command}\b", listed) for command in COMMANDS)


@pytest.mark.parametrize("kind", KINDS)
def test_help_shows_examples_with_brackets(normcli: Run, kind: str) -> None:
    text = normcli(kind, "--help").stdout
    assert text.count(f"normcli {kind} ") >= 3
    assert "'[" in text


def test_errors_keep_brackets_and_escape_control_characters(normcli: Run) -> None:
    assert r"no file [/bold]\x1b[31m\n.npy" in normcli("layer", "./[/bold]\x1b[31m\n.npy").stderr.replace("./", "")


def test_failures_are_lines_under_the_test_runner_too() -> None:
    done = CliRunner().invoke(app, ["layer", "[1,2]", "--eps", "x"])
    assert (done.exit_code, done.stderr.startswith("error: --eps is 'x'")) == (2, True)


# --- files and streams ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_output_file_reads_back(normcli: Run, tmp_path: Path, suffix: str) -> None:
    normcli("batch", BN1D, "-o", f"y.{suffix}")
    direct = json.loads(normcli("batch", BN1D, "--json", "--only", "output").stdout)
    again = json.loads(normcli("layer", f"y.{suffix}", "--json").stdout)
    assert again["input"] == {"shape": [3, 4], "dtype": "float64"}
    loaded = np.load(tmp_path / "y.npy") if suffix == "npy" else np.array(json.loads((tmp_path / "y.json").read_text()))
    assert np.array_equal(loaded, np.array(direct))


def test_numbered_outputs_for_several_inputs(normcli: Run, tmp_path: Path) -> None:
    normcli("batch", BN1D, BN1D, "-o", "y{i}.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y0.npy", "y1.npy"]


def test_output_may_replace_the_input(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 3.0]]))
    normcli("layer", "x.npy", "--eps", "0", "-o", "x.npy")
    assert np.load(tmp_path / "x.npy").tolist() == [[-1.0, 1.0]]


def test_a_failed_run_writes_nothing(normcli: Run, tmp_path: Path) -> None:
    normcli("batch", BN1D, "[[1,2]]", "-o", "y{i}.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_ends_quietly(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m normcli batch '{BN1D}' | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout.splitlines()[0][:9]) == ("", "BatchNorm")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_exit_3(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "normcli", "batch", BN1D, "--json"],
            stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "error: cannot write the result: No space left on device\n")


def test_a_closed_standard_output_is_an_error(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m normcli layer '[1,2]' >&-"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "error: standard output is closed\n")


def test_ctrl_c_ends_without_a_traceback(environment: dict[str, str]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "normcli", "layer", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert child.stdin is not None
    child.stdin.write(b" " * 300_000)  # more than a pipe holds: the command is reading
    child.stdin.flush()
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=30)
    assert (child.returncode, stderr) == (130, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_of_standard_output(normcli: Run, encoding: str) -> None:
    done = normcli("batch", BN1D, "--trace", env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")


# --- what is imported -----------------------------------------------------------------------------


def modules(environment: dict[str, str], *arguments: str) -> set[str]:
    """The modules that a run of normcli imports."""
    code = "import sys, atexit\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    code += f"sys.argv = ['normcli', *{list(arguments)!r}]\nfrom normcli.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return {name.split(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("absent", ["torch", "rich", "pydantic", "ml_dtypes", "safetensors", "zipfile"])
def test_json_needs_neither_torch_nor_rich(environment: dict[str, str], absent: str) -> None:
    assert absent not in modules(environment, "batch", BN1D, "--json")


@pytest.mark.parametrize("absent", ["numpy", "rich", "torch"])
def test_help_needs_neither_numpy_nor_rich(environment: dict[str, str], absent: str) -> None:
    assert absent not in modules(environment, "--help")


SEARCHES = """import atexit, gc, sys
from normcli.__main__ import main
gc.callbacks.append(lambda phase, info: sys.stderr.write(f"{phase} "))
atexit.register(lambda: sys.stderr.write(f"left in peace: {gc.get_freeze_count() > 10_000}"))
main()"""


@pytest.mark.parametrize("arguments", [["--help"], ["batch", "--help"]], ids=" ".join)
def test_help_is_not_searched_for_garbage(environment: dict[str, str], arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SEARCHES, *arguments], env=environment, capture_output=True, text=True)
    assert done.stderr == "left in peace: True"


@pytest.mark.parametrize("arguments", [["batch", BN1D, "--json"], ["check", "-"]], ids=["batch", "check"])
def test_what_a_calculation_makes_is_searched(environment: dict[str, str], arguments: list[str]) -> None:
    """A tensor in a circle of objects would else stay, and all later ones with it."""
    code = SEARCHES.replace("main()", 'atexit.register(lambda: print("on:", gc.isenabled()))\nmain()')
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, input=""
    )
    assert done.stdout.endswith("on: True\n")
    assert "left in peace: True" in done.stderr


def test_the_import_check_can_fail(environment: dict[str, str]) -> None:
    assert "rich" in modules(environment, "batch", BN1D)


MOMENTUM = (
    "hint: --momentum 0.9 is the weight of the new batch; "
    "0.9 as the weight of the old value, as in Keras or cs231n, is --decay 0.9\n"
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--momentum", "0.9"], MOMENTUM),
        (["--momentum", "0.9", "--convention", "keras"], MOMENTUM),
        (["--momentum", "0.5"], ""),
        (["--momentum", "1"], ""),
        (["--momentum", "none"], ""),
        (["--decay", "0.1"], ""),
        (["--momentum", "0.9", "--no-track-running-stats"], ""),
        (["--momentum", "0.9", "--mode", "eval", "--running-mean", "[1,2]"], ""),
    ],
    ids=" ".join,
)
def test_a_momentum_usual_for_the_other_way_round_is_explained(normcli: Run, options: list[str], said: str) -> None:
    assert normcli("batch", "[[1,2],[3,5]]", "[[1,2],[3,5]]", *options).stderr == said


ASSUMED = "no running statistics were given: eval mode takes 0 for the mean and 1 for the variance"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "eval"}, (ASSUMED,)),
        ({"mode": "eval", "track_running_stats": False}, ()),
        ({"mode": "eval", "running_mean": [0.0, 0.0]}, ()),
        ({"mode": "eval", "running_var": [1.0, 1.0]}, ()),
        ({"mode": "eval", "num_batches_tracked": 3}, (ASSUMED,)),
        ({}, ()),
    ],
    ids=str,
)
def test_running_statistics_that_were_assumed_are_said(options: dict[str, Any], said: tuple[str, ...]) -> None:
    from normcli import normalize

    assert normalize([[1, 2], [3, 5]], "batch", **options).warnings == said


def test_running_statistics_that_were_assumed_are_said_on_the_command_line(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((300, 300)))
    for given in ("[[1,2],[3,5]]", "x.npy"):
        assert normcli("batch", given, "--mode", "eval").stderr == f"warning: {ASSUMED}\n"
    after = normcli("batch", "[[1,2],[3,5]]", "--save-state", "state.json")
    assert after.returncode == 0
    assert normcli("batch", "[[1,2],[3,5]]", "--mode", "eval", "--state", "state.json").stderr == ""


# --- JSON Lines -----------------------------------------------------------------------------------

TWO_BATCHES = ("[[1,2],[3,5]]", "[[2,1],[7,3]]")


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_json_lines_are_consecutive_batches_as_inputs_are(normcli: Run, tmp_path: Path, kind: str) -> None:
    as_inputs = normcli(kind, *TWO_BATCHES, "--json", "--track-running-stats")
    (tmp_path / "x.jsonl").write_text("\n".join(TWO_BATCHES))
    assert as_inputs.stdout.count("\n") == 2
    for given, stdin in (("-", "\n".join(TWO_BATCHES)), ("x.jsonl", ""), ("\n\n".join(TWO_BATCHES), "")):
        done = normcli(kind, given, "--json", "--track-running-stats", stdin=stdin)
        assert (done.stdout, done.stderr) == (as_inputs.stdout, "")


def test_documents_of_one_run_feed_the_next(normcli: Run, tmp_path: Path) -> None:
    out = normcli("batch", *TWO_BATCHES, "--only", "output", "--json").stdout.splitlines()
    done = normcli("batch", "-", "--json", stdin=normcli("batch", *TWO_BATCHES, "--json").stdout)
    assert done.stdout == normcli("batch", *out, "--json").stdout
    assert [json.loads(line)["running"]["num_batches_tracked"] for line in done.stdout.splitlines()] == [1, 2]


def test_json_lines_after_another_input_go_on_from_it(normcli: Run) -> None:
    done = normcli(
        "batch", "[[0,1],[4,9]]", "-", "-o", "y{i}.npy", "--only", "running", "--json", stdin="\n".join(TWO_BATCHES)
    )
    assert [json.loads(line)["num_batches_tracked"] for line in done.stdout.splitlines()] == [1, 2, 3]


TWO_LINES = "[[1],[2]]\n[[3],[4]]"
NO_LINES = {
    "a kind of one input": ("layer", "[1,2]\n[3,5]", (), "standard input holds more than one JSON value; line 2, "),
    "two on a line": ("batch", "[[1],[2]] [[3],[4]]", (), "standard input holds more than one JSON value; position 11"),
    "the second cut off": (
        "batch", '{"data": [[1],[2]]}\n{"data": [[3],', (),
        "standard input is not valid JSON: Expecting value at line 2, position 15",
    ),
    "the second ragged": (
        "batch", "[[1],[2]]\n\n[[3],[4,5]]", (), "standard input, line 3, is ragged: row 1 has 2 values, row 0 has 1",
    ),
    "other channels": ("batch", "[[1],[2]]\n[[3,4],[4,5]]", (), "running_mean has shape (1,); (2,) is needed"),
    "one answer": ("batch", TWO_LINES, ("--expect", "[[-1],[1]]"), "standard input holds more than one JSON value"),
    "one file": ("batch", TWO_LINES, ("-o", "y.npy"), "--output y.npy would be written 2 times; put {i} into"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "options", "message"), NO_LINES.values(), ids=NO_LINES)
def test_what_is_no_json_lines_is_refused(
    normcli: Run, tmp_path: Path, kind: str, text: str, options: tuple[str, ...], message: str
) -> None:
    done = normcli(kind, "-", *options, stdin=text)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
