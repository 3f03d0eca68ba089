"""What somebody types: other words for commands and options, and what shells make of a tensor."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from conftest import Run

import normcli as api
from normcli.commands.cli import COMMANDS
from normcli.commands.options import rows_of
from normcli.commands.typed import _KINDS, _OPTIONS, joined
from normcli.planning.further import EVERY

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"

# --- other words ----------------------------------------------------------------------------------

ANSWERED: dict[str, tuple[list[str], str]] = {
    "axis of batch": (["batch", BN1D, "--axis", "1"], "batch has no option --axis; here it is --channel-axis"),
    "axis of layer": (["layer", "[1]", "--axis", "0"], "layer has no option --axis; here it is --normalized-shape"),
    "axis of lp": (["lp", "[1]", "--axis", "0"], "lp has no option --axis; here it is --axes"),
    "scale": (["layer", "[1]", "--scale", "2"], "layer has no option --scale; here it is --weight"),
    "training": (["batch", BN1D, "--training"], "here it is --mode train or --mode eval"),
    "eval": (["batch", BN1D, "--eval"], "batch has no option --eval; here it is --mode eval"),
    "eval of a layer": (["layer", "[1]", "--eval"], "that is --mode, which belongs to batch or instance"),
    "epsilon": (["rms", "[1]", "--epsilon", "1"], "here it is --eps"),
    "checkpoint": (["layer", "[1]", "--checkpoint", "x"], "here it is --state"),
    "format": (["state", "x", "--fmt", "json"], "here it is --format"),
    "the beginning of an option": (["layer", "[1]", "--exp", "1"], "no such option: --exp; did you mean --expect?"),
    "a typing error": (["layer", "[1]", "--esp", "1"], "no such option: --esp; did you mean --eps?"),
    "numbers": (["layer", "1", "2", "3", "4"], "4 numbers are one tensor in quotes and brackets: "
                "normcli layer '[1, 2, 3, 4]'"),
    "numbers of a batch": (["batch", "1", "2", "-3"], "normcli batch '[[1, 2, -3]]'"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), ANSWERED.values(), ids=ANSWERED)
def test_another_word_is_answered(normcli: Run, arguments: list[str], said: str) -> None:
    done = normcli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *(("bn", "batch"), ("BatchNorm", "batch"), ("BatchNorm2d", "batch"), ("nn.BatchNorm1d", "batch")),
        *(
            ("ln", "layer"),
            ("layernorm", "layer"),
            ("LayerNormalization", "layer"),
            ("gn", "group"),
            ("in", "instance"),
        ),
        *(("rmsnorm", "rms"), ("InstanceNorm3d", "instance"), ("groupnorm", "group"), ("bacth", "batch")),
        *(("GRN", "grn"), ("log_softmax", "logsoftmax"), ("PixelNorm", "pixel"), ("weight_norm", "weight")),
    ],
)
def test_another_word_for_a_command_is_answered_with_the_line(normcli: Run, word: str, kind: str) -> None:
    done = normcli(word, "[[1, 2]]")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: no such command: {word}; did you mean {kind}?\nhint: normcli {kind} '[[1, 2]]'\n"


def test_a_tensor_without_a_kind_is_answered(normcli: Run) -> None:
    assert "a kind comes first: normcli batch '[[1,2]]'" in normcli("[[1,2]]").stderr


def test_words_lead_to_what_is_there() -> None:
    rows = {row.name for kind in EVERY.values() for row in rows_of(kind)} | {"color", "shape"}
    assert {name for names in _OPTIONS.values() for name in names} <= rows
    assert set(_KINDS.values()) <= set(COMMANDS)


def test_help_is_a_word_too(normcli: Run) -> None:
    assert normcli("help").stdout == normcli("--help").stdout
    assert normcli("help", "rms").stdout == normcli("rms", "--help").stdout


@pytest.mark.parametrize("name", ["pytorch", "PyTorch", "Torch", " torch "])
def test_a_framework_is_known_by_its_own_name(normcli: Run, name: str) -> None:
    assert json.loads(normcli("layer", "[1,2]", "--convention", name, "--json").stdout)["convention"] == "torch"
    assert api.normalize([1.0, 2.0], "layer", convention=name).plan.convention.name == "torch"


def test_a_framework_is_compared_with_by_its_own_name(normcli: Run) -> None:
    said = json.loads(normcli("lp", "[[3,4]]", "--convention", "PyTorch", "--versus", "Keras", "--json").stdout)
    assert (said["convention"], said["versus"][0]["convention"]) == ("torch", "keras")
    assert normcli("conventions", "PyTorch", "Keras").stdout == normcli("conventions", "torch", "keras").stdout


# --- what shells make of a tensor -----------------------------------------------------------------

SHELLS: dict[str, tuple[list[str], list[str]]] = {
    "quotes of cmd.exe": (["layer", "'[[1,2],[3,4]]'"], ["layer", "[[1,2],[3,4]]"]),
    "quotes of cmd.exe, with blanks": (["layer", "'[[1,", "2],", "[3,4]]'"], ["layer", "[[1, 2], [3,4]]"]),
    "no quotes": (["layer", "[[1,", "2],[3,4]]"], ["layer", "[[1, 2],[3,4]]"]),
    "an option": (["layer", "[1,2]", "--expect", "output=[-1,", "1]", "--json"],
                  ["layer", "[1,2]", "--expect", "output=[-1, 1]", "--json"]),
    "what print shows": (["layer", "tensor([[1.,", "2.]])"], ["layer", "tensor([[1., 2.]])"]),
    "a formula": (["formula", "'x", "/", "sum(x)'", "'[1,2]'"], ["formula", "x / sum(x)", "[1,2]"]),
    "never closed": (["layer", "[[1,", "2]", "--json"], ["layer", "[[1,", "2]", "--json"]),
    "two tensors": (["batch", "[[1,2]]", "[[3,4]]"], ["batch", "[[1,2]]", "[[3,4]]"]),
    "files": (["batch", "x.npy", "it's.npy", "-"], ["batch", "x.npy", "it's.npy", "-"]),
    "a file of a checkpoint": (["layer", "m.npz::[a", "b"], ["layer", "m.npz::[a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize(("given", "meant"), SHELLS.values(), ids=SHELLS)
def test_what_a_shell_took_apart_is_joined(given: list[str], meant: list[str]) -> None:
    assert joined(given) == meant


def test_quotes_of_cmd_are_read(normcli: Run) -> None:
    right = normcli("layer", "[[1, 2],[3,4]]").stdout
    assert normcli("layer", "'[[1,", "2],[3,4]]'").stdout == normcli("layer", "[[1,", "2],[3,4]]").stdout == right


@pytest.mark.parametrize("text", ["[[1,\u22122],[3,4]]", "\u22121,2", "tensor([\u22121.5, 2.])"])
def test_a_typeset_minus_is_a_minus(normcli: Run, text: str) -> None:
    plain = text.replace("\u2212", "-")
    assert normcli("layer", text).stdout == normcli("layer", plain).stdout != ""
    assert normcli("layer", "-", stdin=text).stdout == normcli("layer", plain).stdout


def test_a_typeset_minus_in_an_option(normcli: Run) -> None:
    done = normcli("batch", "[[1,2],[3,5]]", "--channel-axis", "\u22121", "--running-mean", "[\u22121,0]", "--json")
    said = json.loads(done.stdout)
    assert said["options"]["channel_axis"] == 1
    assert said["running"]["mean"] == pytest.approx([-0.7, 0.35])


# --- cs231n ---------------------------------------------------------------------------------------


def test_cs231n_starts_at_zero_and_counts_by_n() -> None:
    result = api.normalize([[1.0, 2.0], [3.0, 6.0]], "batch", convention="cs231n")
    assert result.running_mean.tolist() == pytest.approx([0.2, 0.4])
    assert result.running_var.tolist() == pytest.approx([0.1, 0.4])  # 0.9 * 0 + 0.1 * np.var(x, axis=0)


def test_what_cs231n_starts_with_is_said(normcli: Run) -> None:
    done = normcli("batch", "[[1,2],[3,6]]", "--convention", "cs231n", "--mode", "eval")
    assert done.stderr.endswith("eval mode takes 0 for the mean and 0 for the variance\n")


# --- terminals ------------------------------------------------------------------------------------

WRONG = ["layer", "[1,2,4,1]", "--expect", "[-0.8165,0,1.5,-0.8165]"]
RIGHT = ["layer", "[1,2,4,1]", "--expect", "[-0.8165,0,1.6330,-0.8165]"]


def on_a_terminal(environment: dict[str, str], arguments: list[str], **extra: str) -> str:
    """Both streams as a terminal shows them."""
    ours, theirs = pty.openpty()
    env = environment | {"TERM": "xterm", "COLUMNS": "80"} | extra
    subprocess.run([sys.executable, "-m", "normcli", *arguments], stdout=theirs, stderr=theirs, env=env, check=False)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # the terminal is gone
        pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_a_verdict_is_green_or_red(environment: dict[str, str]) -> None:
    assert "\033[1;32mchecks\033[0m: all 4" in on_a_terminal(environment, RIGHT)
    assert "\033[1;31mdoes not check\033[0m: 1 of 4" in on_a_terminal(environment, WRONG)


def test_the_digits_that_differ_are_marked(environment: dict[str, str]) -> None:
    assert re.search(r"1\.\033\[31m5\S*\033\[0m +1\.\033\[31m63", on_a_terminal(environment, WRONG))


def test_errors_and_warnings_stand_out(environment: dict[str, str]) -> None:
    assert "\033[1;31merror:\033[0m no file x.npy" in on_a_terminal(environment, ["layer", "x.npy"])
    assert "\033[1;33mwarning:\033[0m " in on_a_terminal(environment, ["layer", "[1,1]", "--eps", "0"])


COLOURS: dict[str, tuple[list[str], dict[str, str], bool]] = {
    "NO_COLOR": ([], {"NO_COLOR": "1"}, False),
    "a dumb terminal": ([], {"TERM": "dumb"}, False),
    "never": (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    "always before NO_COLOR": (["--color", "always"], {"NO_COLOR": "1"}, True),
    "NO_COLOR before FORCE_COLOR": ([], {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    "auto": (["--color=auto"], {}, True),
}


@pytest.mark.parametrize(("options", "env", "coloured"), COLOURS.values(), ids=COLOURS)
def test_who_decides_on_colours(
    environment: dict[str, str], options: list[str], env: dict[str, str], coloured: bool
) -> None:
    assert ("\033[" in on_a_terminal(environment, [*WRONG, *options], **env)) == coloured
    assert ("\033[" in on_a_terminal(environment, ["layer", "x.npy", *options], **env)) == coloured


PIPED: dict[str, tuple[list[str], dict[str, str], bool]] = {
    "by itself": ([], {}, False),
    "always": (["--color", "always"], {}, True),
    "always, where the terminal is dumb": (["--color", "always"], {"TERM": "dumb"}, True),
    "FORCE_COLOR": ([], {"FORCE_COLOR": "1"}, True),
    "FORCE_COLOR=0": ([], {"FORCE_COLOR": "0"}, False),
}


@pytest.mark.parametrize(("options", "env", "coloured"), PIPED.values(), ids=PIPED)
def test_a_pipe_has_no_colours_by_itself(normcli: Run, options: list[str], env: dict[str, str], coloured: bool) -> None:
    done = normcli(*WRONG, *options, env=env)
    assert ("\033[1;31mdoes not check\033[0m" in done.stdout, "\033[31m" in done.stdout) == (coloured, coloured)
    assert ("\033[" in normcli("layer", "x.npy", *options, env=env).stderr) == coloured


def test_another_word_for_when_is_refused(normcli: Run) -> None:
    done = normcli("layer", "[1,2]", "--color", "sometimes")
    assert (done.returncode, done.stderr) == (2, "error: --color is 'sometimes'; use auto, always or never\n")


def test_a_pipe_is_as_wide_as_columns_says_where_it_says_so(normcli: Run) -> None:
    wide = "[" + ",".join(["1", "2"] * 20) + "]"
    assert max(map(len, normcli("layer", wide).stdout.splitlines())) > 200
    narrow = normcli("layer", wide, env={"COLUMNS": "60"}).stdout.splitlines()
    assert max(map(len, narrow)) <= 60
    assert normcli("layer", wide, env={"COLUMNS": "wide"}).stdout == normcli("layer", wide).stdout


PLAIN = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["batch", "--help"], WRONG, ["conventions"], RIGHT], ids=str)
def test_the_plainest_terminal_shows_it_all(environment: dict[str, str], arguments: list[str]) -> None:
    shown = on_a_terminal(environment, arguments, **PLAIN)
    assert shown.isascii()
    assert "\033" not in shown
    assert "\\u" not in shown
    assert len(shown.splitlines()) > 0
    assert "Traceback" not in shown
