"""Checking answers on the command line: verdict, table, slip in words, exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Run

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
CHECKS = ROOT / "examples" / "checks"
UNBIASED = "[[-0.7559,-1.0000,0.0000,-0.5773],[1.1339,0.0000,-1.0000,1.1547],[-0.3780,1.0000,1.0000,-0.5773]]"


def test_a_right_answer_checks(normcli: Run) -> None:
    done = normcli("layer", "[1,2,4,1]", "--expect", "[-0.8165, 0.0000, 1.6330, -0.8165]")
    assert (done.returncode, done.stdout) == (0, "checks: all 4 cells agree, to the 4 decimals given\n")


def test_the_unbiased_variance_is_named(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--mode", "eval", "--no-track-running-stats", "--expect", UNBIASED)
    first, *_, before_last, last = done.stdout.splitlines()
    assert done.returncode == 1
    assert first == "does not check: 10 of 12 cells differ, the largest by 0.2595 (allowed: 0.00005)"
    assert before_last == "Your numbers are what the unbiased variance gives, sum(centered^2) / (n - 1)."
    assert last == "BatchNorm normalizes with the biased one, sum(centered^2) / n.   [ddof1]"


def test_json_carries_the_check(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--expect", UNBIASED, "--json")
    check = json.loads(done.stdout)["check"]
    assert done.returncode == 1
    assert (check["ok"], check["mismatches"]) == (False, 10)
    assert [diagnosis["keys"] for diagnosis in check["diagnoses"]] == [["ddof1"]]


def test_pasted_answers_and_weights_keep_their_decimals(normcli: Run) -> None:
    done = normcli(
        "batch", str(ROOT / "examples" / "bn2d-check.txt"),
        "--weight", str(ROOT / "examples" / "bn2d-check-weight.txt"),
        "--expect", "tensor([[[[-1.1237, -0.5106, -0.5561, 0.3679], [-0.2391, 0.2873, 0.6510, 0.6729], "
        "[0.0612, -0.4233, 0.8173, -0.0050]], [[-0.0293, 0.0120, -0.0372, -0.0373], "
        "[-0.0066, 0.0282, 0.0237, 0.0777], [0.0032, -0.0325, 0.0084, -0.0103]]]])",
    )  # fmt: skip
    first = "checks, if the input was rounded to 4 decimals: all 24 cells agree, to the 4 decimals given"
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, first)


def test_decimals_can_be_said(normcli: Run) -> None:
    arguments = ("layer", "[1,2,4,1]", "--expect", "[-0.82, 0.0, 1.63, -0.82]")
    assert normcli(*arguments).returncode == 0
    assert normcli(*arguments, "--decimals", "4").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("layer", "[1,2]", "--decimals", "3"), "--decimals is about an answer that is checked"),
        (("layer", "[1,2]", "--expect", "[1,2,3]"), "the answer for output has shape (3,); output has shape (2,)"),
        (("batch", BN1D, BN1D, "--expect", UNBIASED), "--expect is the answer for one input; 2 are given"),
        (("layer", "-", "--expect", "-"), "standard input (-) is given twice"),
    ],
    ids=["decimals alone", "shape", "two inputs", "stdin twice"],
)
def test_refused(normcli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = normcli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_every_cell_is_shown_when_asked(normcli: Run) -> None:
    arguments = ("layer", "[1,2,4,1]", "--expect", "[-0.8165, 0.0, 1.6330, -0.8165]", "--cells")
    assert [line.split()[:2] for line in normcli(*arguments).stdout.splitlines()[5:9]] == [
        ["output", f"({i})"] for i in range(4)
    ]
    cells = json.loads(normcli(*arguments, "--json").stdout)["check"]["cells"]
    assert [cell["allowed"] > 5e-5 for cell in cells] == [True] * 4


def test_one_file_is_reported_in_full(normcli: Run) -> None:
    done = normcli("check", str(CHECKS / "d2l-both-as-torch.json"))
    assert done.returncode == 1
    assert "[momentum_reversed, running_var_biased]" in done.stdout


def test_many_files_are_a_line_each_and_a_summary(normcli: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    done = normcli("check", str(CHECKS / "bn1d-train.json"), str(broken), str(CHECKS / "bn1d-eval-unbiased.json"))
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (2, 3)
    assert lines[1].endswith("[ddof1]")
    assert lines[2] == "3 files: 1 check, 1 do not, 1 could not be read"
    assert done.stderr.startswith("error: ")


def test_files_as_json_lines(normcli: Run) -> None:
    done = normcli("check", str(CHECKS / "bn1d-train.json"), str(CHECKS / "bn1d-running.json"), "--json")
    assert [json.loads(line)["check"]["ok"] for line in done.stdout.splitlines()] == [True, True]


# --- what was judged wrongly once -----------------------------------------------------------------

X = "[0.1,0.2,0.4]"
JUDGED = {
    "two slips over typed numbers": (
        ("layer", "[0.1,0.2,0.3]", "--expect", "[-1.0000,0.0000,1.0000]"),
        1,
        ("does not check: 2 of 3 cells differ, the largest by 0.2238", "[ddof1, eps_omitted]"),
    ),
    "23 units of the last digit": (
        ("layer", X, "--expect", "[-1.30,-0.10,1.40]"),
        1,
        ("does not check: 3 of 3 cells differ", "No known slip explains these numbers."),
    ),
    "the unbiased variance is no typo": (
        ("layer", X, "--expect", "[-0.8729,-0.2182,1.0911]"),
        1,
        ("the unbiased variance, sum(centered^2) / (n - 1)", "[ddof1, eps_omitted]"),
    ),
    "float32 rounds the mean": (
        ("layer", "[[3.0399999618530273,3.009999990463257,3.009999990463257]]", "--input-decimals", "exact",
         "--expect", "[[1.3801258,-0.6900629,-0.6900629]]"),
        0,
        ("checks, if it was computed in float32: all 3 cells agree",),
    ),
    "a hypothesis has a tolerance of its own": (
        ("batch", "[[[[0,1]]]]", "--mode", "eval", "--running-mean", "[0.5]", "--running-var", "[0.5]",
         "--expect", "[[[[-1.0000,1.0000]]]]"),
        1,
        ("[train_for_eval]", "BatchNorm in eval mode takes the running ones"),
    ),
    "the input was rounded": (
        ("layer", "[1.2346,0.5679,2.3457,1.7654]", "--expect", "[-0.37150,-1.38726,1.32141,0.43735]"),
        0,
        ("checks, if the input was rounded to 4 decimals: all 4 cells agree, to the 5 decimals given",),
    ),
    "the digits were cut off": (
        ("layer", X, "--expect", "[-1.0687,-0.2671,1.3358]"),
        0,
        ("checks, if the digits were cut off, not rounded: all 3 cells agree, to the 4 decimals given",),
    ),
    "significant digits": (
        ("layer", "[1,2,40]", "--expect", "[-0.734,-0.679,1.41]"),
        0,
        ("checks: all 3 cells agree, to the 3 significant digits given",),
    ),
    "exponents": (("layer", X, "--expect", "[-1.07e0,-2.67e-1,1.34e0]"), 0, ("to the 3 significant digits given",)),
    "an eps that nobody has": (
        ("layer", X, "--expect", "[-1.00630921,-0.2515773,1.25788651]", "--eps", "0.001"),
        1,
        ("another eps, 0.002,", "LayerNorm has eps 0.001 here", "[eps_other]"),
    ),
    "a momentum that nobody has": (
        ("batch", BN1D, "--expect", "running_mean=[0.15,0.15,0.2,0.1]"),
        1,
        ("another momentum, 0.05,", "[momentum_other]"),
    ),
    "half precision on the way": (
        ("layer", X, "--expect", "[-1.068359,-0.267090,1.335938]"),
        1,
        ("rounding the output to float16", "[half_precision]"),
    ),
    "numbers whose squares leave float64": (
        ("layer", "[1e155,2e155,4e155]", "--expect", "[-1.0690,-0.2673,1.3363]"),
        0,
        ("checks: all 3 cells agree, to the 4 decimals given",),
    ),
    "a thousand is exact": (
        ("layer", "[1e7,10000001,10000003]", "--expect", "[2.5,-2.25,0.75]"),
        1,
        ("does not check: 3 of 3 cells differ",),
    ),
    "no arithmetic explains everything": (
        ("layer", "[1e8,100000001,100000003]", "--expect", "[7.1,-9.2,3.3]"),
        1,
        ("does not check: 3 of 3 cells differ",),
    ),
    "pasted whole numbers were not rounded": (
        ("layer", "tensor([100000000., 100000001., 100000003.])", "--expect", "[7.1,-9.2,3.3]"),
        1,
        ("does not check: 3 of 3 cells differ",),
    ),
    "digits that float32 does not hold": (
        ("batch", "[[1e8,2],[3e8,5],[4e8,9]]", "--mode", "eval", "--running-mean", "[0,0]", "--dtype", "float32",
         "--expect", "[[99999500.00,2.00],[299998500.00,5.00],[399998030.00,9.00]]"),
        1,
        ("does not check: 2 of 6 cells differ",),
    ),
    "one mean cut off beside a rounded output": (
        ("layer", "[1,2,5]", "--expect", "mean=2.6666", "--expect", "[-0.9806,-0.3922,1.3728]"),
        0,
        ("checks, if the digits were cut off, not rounded: all 4 cells agree",),
    ),
    "one last digit": (
        ("layer", "[[1,2,5],[2,9,4]]", "--expect", "[[-0.9806,-0.3922,1.3728],[-1.0191,1.3587,-0.3397]]"),
        1,
        ("-1.0191 where -1.0190 belongs.   [typo]",),
    ),
    "the deviation of n - 1 beside a right output": (
        ("layer", "[[1,2,5],[2,9,4]]", "--expect", "rstd=[0.4804,0.2774]", "--expect",
         "[[-0.9806,-0.3922,1.3728],[-1.0190,1.3587,-0.3397]]"),
        1,
        ("[ddof1]",),
    ),
    "the input itself": (("layer", X, "--expect", X), 1, ("Your numbers are the input itself, x.", "[untouched]")),
    "another number of groups": (
        ("group", "[[1,2,3,4,5,9,7,1,0,3,2,2.5]]", "--groups", "2", "--expect",
         "[[-1.2247,0.0000,1.2247,-0.9258,-0.4629,1.3887,1.4018,-0.5392,-0.8627,1.2247,-1.2247,0.0000]]"),
        1,
        ("another number of groups, 4 groups,", "[groups_other]"),
    ),
    "one channel scaled": (
        ("batch", BN1D, "--expect",
         "[[-0.9258,-1.2370,0.0000,-0.7071],[1.3887,0.0000,-1.2247,1.4142],[-0.4629,1.2370,1.2247,-0.7071]]"),
        1,
        ("All other cells are right; in channel 1 yours = 1.01 x exact.   [scaled]",),
    ),
    "wrong cells in one row": (
        ("layer", "[[1,2,4],[3,1,7],[0,5,2]]", "--expect", "[[-1.07,-0.27,1.34],[-0.21,-1.3,1.1],[-1.14,1.3,-0.16]]"),
        1,
        ("The wrong cells of output all lie in row 1.",),
    ),
    "the convention of a running variance": (
        ("batch", BN1D, "--expect", "running_var=[1.3667,0.9667,1.1667,1.1000]"),
        1,
        ("BatchNorm in PyTorch takes the unbiased one there", "[running_var_biased]"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "words"), JUDGED.values(), ids=JUDGED)
def test_judged(normcli: Run, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    done = normcli(*arguments)
    assert (done.returncode, done.stderr) == (code, "")
    assert [word for word in words if word not in done.stdout] == []


def test_a_slip_of_all_cells_comes_before_a_typo(normcli: Run) -> None:
    done = normcli("batch", "[[1,1],[2,1],[4,1]]", "--expect", "var=[2.3333,0.0000]", "--json")
    assert [one["keys"] for one in json.loads(done.stdout)["check"]["diagnoses"]] == [["ddof1"]]


def test_quantities_are_checked_by_name(normcli: Run) -> None:
    arguments = ("batch", BN1D, "--expect", "mean=[3,3,4,2]", "--expect", "running-var=[1.6,1.0,1.3,1.2]")
    done = normcli(*arguments, "--json")
    check = json.loads(done.stdout)["check"]
    assert (done.returncode, check["ok"], check["assumes"], check["nearest"]) == (0, True, None, None)
    assert normcli("batch", BN1D, "--expect", "mean=[3,3,4,2.5]").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--expect", "[1,2]", "--expect", "[1,2]"), "--expect gives the output twice; once is enough"),
        (("--expect", "std=[1,2]"), "--expect 'std=[1,2]' names no quantity; use mean, "),
        (("--expect", "[1,2]", "--decimals", "-5"), "--decimals is -5; it must be between 0 and 17"),
        (("--expect", "[1,2]", "--input-decimals", "-9"), "--input-decimals is -9; it must be between 0 and 17"),
        (("--expect", "mean_square=[1]"), "mean_square is not computed here"),
    ],
    ids=["two answers", "no quantity", "decimals", "input decimals", "not computed"],
)
def test_answers_that_are_refused(normcli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = normcli("layer", "[1,2]", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


# --- files keep their dtype -----------------------------------------------------------------------


def test_a_float32_file_is_checked_with_its_own_epsilon(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1e-4, 2e-4, -3e-4]], np.float32))
    right = normcli("rms", "x.npy", "-o", "y.npy")
    assert right.returncode == 0
    for answer in ("y.npy", "[[0.24553,0.49106,-0.73660]]"):
        done = normcli("rms", "x.npy", "--expect", answer, "-o", "z.npy")
        assert (done.returncode, np.load(tmp_path / "z.npy").dtype) == (0, np.float32), done.stdout
    (tmp_path / "e.json").write_text('{"kind": "rms", "input": "x.npy", "expect": {"output": "y.npy"}}')
    assert normcli("check", "e.json").returncode == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_own_output_checks_in_its_file_and_from_a_worked_example(normcli: Run, tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(3, 1, (4, 6)).astype(dtype))
    assert normcli("layer", "x.npy", "-o", "y.npy").returncode == 0
    assert normcli("layer", "x.npy", "--expect", "y.npy").stdout.startswith("checks: all 24 cells agree")
    (tmp_path / "e.json").write_text('{"kind": "layer", "input": "x.npy", "expect": {"output": "y.npy"}}')
    assert normcli("check", "e.json").stdout.splitlines()[-1].startswith("checks: all 24 cells agree")


def test_half_precision_out_of_single_precision_checks(normcli: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(3, 1, (4, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)).astype(np.float16))
    assert normcli("layer", "x.npy", "--expect", "y.npy").returncode == 0


def test_torch_in_float64_checks_whatever_its_sums(normcli: Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(np.random.default_rng(3).normal(3, 1, (16, 8, 10, 10)))
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", torch.nn.functional.batch_norm(x, None, None, training=True).numpy())
    done = normcli("batch", "x.npy", "--expect", "y.npy")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0, "checks, if it was computed in float64: all 12800 cells agree"
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_torch_in_half_precision_checks_where_it_computes_in_halves(normcli: Run, tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(np.random.default_rng(4).normal(3, 1, (8, 5))).to(getattr(torch, dtype))
    answer = str(torch.nn.functional.batch_norm(x, None, None, training=True))
    np.save(tmp_path / "x.npy", x.double().numpy())
    done = normcli("batch", "x.npy", "--dtype", dtype, "--expect", answer)
    assert (done.returncode, done.stdout.startswith("checks")) == (0, True)


# --- the verdict beside other parts ---------------------------------------------------------------


def test_verdict_stands_before_the_part_that_is_asked_for(normcli: Run) -> None:
    lines = normcli("batch", BN1D, "--expect", UNBIASED, "--only", "statistics").stdout.splitlines()
    assert lines[0].startswith("does not check: 10 of 12 cells differ")
    assert "statistics (of the input)" in lines


def test_verdict_and_comparison_are_keys_beside_a_part_of_the_document(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--expect", UNBIASED, "--versus", "keras", "--only", "running", "--json")
    assert list(json.loads(done.stdout)) == ["schema", "running", "check", "versus"]
    alone = normcli("batch", BN1D, "--only", "output", "--json")
    assert isinstance(json.loads(alone.stdout), list)


def test_verdict_and_comparison_are_blocks_of_csv(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--expect", UNBIASED, "--versus", "keras", "--only", "statistics", "--format", "csv")
    heads = [block.splitlines()[0] for block in done.stdout.split("\n\n")]
    assert [head.split(",")[0] for head in heads] == ["quantity", "versus", "i0"]
    assert done.stderr.splitlines()[0].startswith("does not check: 10 of 12 cells differ")


# --- gradients ----------------------------------------------------------------------------------------

X = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
BACK = ("batch", X, "--weight", "[1.5,0.5,2,1]", "--dy", "[[.1,-.2,.3,.4],[.5,.1,-.3,.2],[-.2,.4,.1,.6]]")
DX = "[[.125647,-.000003,.326598,-.07071],[.031412,0,-.1633,-.000001],[-.157059,.000003,-.163298,.070711]]"


@pytest.mark.parametrize("name", ["grad_input", "grad-input", "dx"])
def test_a_right_gradient_checks_by_each_of_its_names(normcli: Run, name: str) -> None:
    ran = normcli(*BACK, "--expect", f"{name}={DX}", "--expect", "dgamma=[.694364,.734841,.489897,-.424263]",
                  "--expect", "dbias=[.4,.3,.1,1.2]")  # fmt: skip
    assert ran.returncode == 0
    assert ran.stdout.startswith("checks: all 20 cells agree, to the 6 decimals given\n")


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("dx=[[.0694,-.1225,.3674,.2828],[.3472,.0612,-.3674,.1414],[-.1389,.2449,.1225,.4243]]", "stats_constant"),
        ("dgamma=[.4,.3,.1,1.2]", "swapped"),
        ("dgamma=[1.0415,.3674,.9798,-.4243]", "parameters_times_weight"),
        ("dbeta=[[.1,-.2,.3,.4],[.5,.1,-.3,.2],[-.2,.4,.1,.6]]", "not_reduced"),
        ("dbeta=[.6,.5,.9]", "sum_axes"),
        ("dbeta=[.1333,.1,.0333,.4]", "mean_for_sum"),
    ],
)
def test_a_wrong_gradient_is_named(normcli: Run, answer: str, key: str) -> None:
    ran = normcli(*BACK, "--json", "--expect", answer)
    assert ran.returncode == 1
    found = json.loads(ran.stdout)["check"]
    assert [key] in [one["keys"] for one in found["diagnoses"]]


def test_a_gradient_of_a_parameter_may_have_kept_the_axes_that_were_summed(normcli: Run) -> None:
    assert normcli(*BACK, "--expect", "dgamma=[[.694364,.734841,.489897,-.424263]]").returncode == 0


def test_a_square_sum_over_the_wrong_axis_is_named(normcli: Run) -> None:
    ran = normcli("batch", "[[1,2],[4,7]]", "--dy", "[[1,3],[2,7]]", "--json", "--expect", "dbeta=[4,9]")
    assert json.loads(ran.stdout)["check"]["diagnoses"][0]["keys"] == ["sum_axes"]


def test_a_gradient_needs_that_of_the_output(normcli: Run) -> None:
    ran = normcli("batch", X, "--expect", f"dx={DX}")
    assert ran.returncode == 2
    assert ran.stderr == "error: grad_input needs the gradient of the output; give it with --grad-output\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("layer", "[[1,2,4,1]]", "--dy", "ones", "--expect", "dx=[[0,0,0,0]]"), "grad_output is constant"),
        (("layer", "[[1,2]]", "--dy", "[[1,3]]", "--decimals", "2", "--expect", "dx=[[0,0]]"), "n is 2"),
        (("layer", "[[1,2,4,1]]", "--dy", "[[0,0,0,0]]", "--expect", "dx=[[0,0,0,0]]"), "the weight is 1"),
    ],
)
def test_a_right_gradient_that_hides_mistakes_is_said_to(normcli: Run, arguments: tuple[str, ...], why: str) -> None:
    ran = normcli(*arguments)
    assert ran.returncode == 0
    assert "These numbers would hide some mistakes" in ran.stdout.splitlines()[1]
    assert why in ran.stdout


def test_a_gradient_that_hides_nothing_is_not_remarked_on(normcli: Run) -> None:
    assert "hide" not in normcli(*BACK, "--expect", f"dx={DX}").stdout


def test_a_rounded_grad_output_explains_what_it_moves(normcli: Run) -> None:
    x, g = "[[1,2,4,1]]", "[[0.123456,-0.2345678,0.1,0.7]]"
    exact = json.loads(normcli("layer", x, "--dy", g, "--json", "--only", "grad-input").stdout)
    ran = normcli("layer", x, "--dy", "[[0.12,-0.23,0.1,0.7]]", "--expect",
                  f"dx={json.dumps([[round(value, 4) for value in exact[0]]])}")  # fmt: skip
    assert (ran.returncode, "grad_output was rounded to 2 decimals" in ran.stdout) == (0, True)


# --- a plain tolerance ----------------------------------------------------------------------------

NEAR = ["layer", "[1,2,4,1]", "--expect", "[-0.8165,0,1.6335,-0.8165]"]  # 0.0005 beside what is right
PLAIN: dict[str, tuple[list[str], int, str]] = {
    "wide": (["--atol", "1e-3"], 0, "checks within --atol 0.001: all 4 cells agree"),
    "narrow": (["--atol", "1e-4"], 1,
               "does not check within --atol 0.0001: 1 of 4 cells differs, by 0.0005123 (allowed: 0.0001)"),
    "relative": (["--rtol", "1e-3"], 0, "checks within --rtol 0.001: all 4 cells agree"),
    "both": (["--atol", "1e-4", "--rtol", "3e-4"], 0, "checks within --atol 0.0001 --rtol 0.0003: all 4 cells agree"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "code", "said"), PLAIN.values(), ids=PLAIN)
def test_a_plain_tolerance_is_the_verdict(normcli: Run, options: list[str], code: int, said: str) -> None:
    done = normcli(*NEAR, *options)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (code, said, "")


def test_within_a_plain_tolerance_a_slip_is_still_named(normcli: Run) -> None:
    unbiased = "[[-0.7559,-1.0000,0.0000,-0.5773],[1.1339,0.0000,-1.0000,1.1547],[-0.3780,1.0000,1.0000,-0.5773]]"
    done = normcli("batch", "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]", "--expect", unbiased, "--atol", "0.1", "--json")
    found = json.loads(done.stdout)["check"]
    assert (done.returncode, found["within"], found["tolerance"]) == (1, {"atol": 0.1}, 0.1)
    assert [one["keys"] for one in found["diagnoses"]] == [["ddof1"]]


def test_a_tolerance_that_is_too_narrow_says_that_the_digits_are_right(normcli: Run) -> None:
    done = normcli("layer", "[1,2,4,1]", "--expect", "[-0.8165,0,1.6330,-0.8165]", "--rtol", "1e-9")
    assert done.returncode == 1
    assert done.stdout.endswith("By the digits that it is printed with, the answer is right.\n")


def test_a_plain_tolerance_for_files(normcli: Run, tmp_path: Path) -> None:
    (tmp_path / "near.json").write_text('{"kind": "layer", "input": [1, 2, 4, 1], "expect": {"mean": 2.01}}')
    assert normcli("check", "near.json").returncode == 1
    done = normcli("check", "near.json", "--rtol", "0.01")
    assert (done.returncode, done.stdout) == (0, "checks within --rtol 0.01\n")


def test_a_plain_tolerance_for_another_kind(normcli: Run) -> None:
    answer = ["softmax", "[1,2,4]", "--expect", "[0.05,0.11,0.84]"]
    assert [normcli(*answer, "--atol", size).returncode for size in ("0.01", "0.001")] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["layer", "[1,2]", "--atol", "1"], "--atol is about an answer that is checked; give the answer with --expect"),
        ([*NEAR, "--atol", "-1"], "--atol is -1; it must be a finite number, 0 or more"),
        ([*NEAR, "--rtol", "inf"], "--rtol is inf; it must be a finite number, 0 or more"),
        ([*NEAR, "--rtol", "1", "--decimals", "2"], "--atol and --rtol take the place of what follows from decimals"),
        (["check", "--init", "--atol", "1"], "--init prints a worked example and checks nothing; give it alone"),
    ],
)
def test_a_plain_tolerance_that_cannot_be_meant_is_refused(normcli: Run, arguments: list[str], said: str) -> None:
    done = normcli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
