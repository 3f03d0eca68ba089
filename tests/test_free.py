"""Formulas over any axes: the kinds beyond the family, and one's own."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st

import normcli
from normcli import errors
from normcli.__main__ import main
from normcli.arithmetic import free
from normcli.arithmetic.numbers import PAIRS, WIDES
from normcli.errors import InputError, NormcliError, UnavailableError, free_memory
from normcli.floats import ulp
from normcli.formula.spelled import spelled
from normcli.planning.conventions import OWN
from normcli.planning.further import EVERY, FURTHER
from normcli.planning.kinds import FORMULA, KINDS, Kind
from normcli.planning.layout import by_channel
from normcli.planning.plan import plan

X = np.array([[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])
Z = np.array([1.0, 2, 3, 4, 10, 12, 14, 16, -11, -10, -9, -8, 0, 1, 5, 2]).reshape(1, 4, 2, 2)
ONES = np.ones(4)

# Computed in float64 and checked against the sources that the kinds name: the first row, or the first place.
FIXTURES: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "l2": ("lp", {}, [0.213201, 0.426401, 0.852803, 0.213201]),
    "l1": ("lp", {"p": 1}, [0.125, 0.25, 0.5, 0.125]),
    "largest": ("lp", {"p": float("inf")}, [0.25, 0.5, 1, 0.25]),
    "softmax": ("softmax", {}, [0.040316, 0.109591, 0.809776, 0.040316]),
    "zscore": ("zscore", {}, [-0.92582, -1.224745, 0, -0.707107]),
    "pandas": ("zscore", {"convention": "pandas"}, [-0.755929, -1, 0, -0.57735]),
    "lrn": ("lrn", {"alpha": 1, "size": 3}, [0.069995, 0.392377, -0.43306, 0]),
    "lrn even": ("lrn", {"alpha": 1, "size": 2}, [0.737788, 0.520169, -0.32058, 0]),
    "lrn onnx": ("lrn", {"alpha": 1, "size": 2, "convention": "onnx"}, [0.052017, 0.291436, -0.500883, 0]),
    "grn": ("grn", {"weight": ONES}, [1.387992, 28.688174, -25.907179, 0]),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_fixture(name: str) -> None:
    kind, options, expected = FIXTURES[name]
    x = Z if kind in ("lrn", "grn") else X
    output = normcli.normalize(x, kind, **options).output
    first = output[0, :, 0, 0] if output.ndim == 4 else output[0]
    assert np.abs(first - expected).max() < 1e-6


@pytest.mark.parametrize(("iterations", "sigma"), [(1, 10.899058), (2, 10.906386), (3, 10.906675)])
def test_spectral_goes_round(iterations: int, sigma: float) -> None:
    assert abs(normcli.normalize(X, "spectral", iterations=iterations).named["sigma"] - sigma) < 1e-6


def test_grn_has_its_lengths() -> None:
    gx = normcli.normalize(Z, "grn", weight=ONES).named["gx"]
    assert np.abs(gx - [[5.477226, 26.381812, 19.131126, 5.477226]]).max() < 1e-6


# --- against torch --------------------------------------------------------------------------------------

F = torch.nn.functional


def _grn(x: torch.Tensor) -> torch.Tensor:
    gx = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + x * gx / (gx.mean(1, keepdim=True) + 1e-6)


TORCH: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "l2": ("lp", {}, F.normalize),
    "l1": ("lp", {"p": 1}, lambda x: F.normalize(x, p=1.0)),
    "l3": ("lp", {"p": 3}, lambda x: F.normalize(x, p=3.0)),
    "largest": ("lp", {"p": float("inf")}, lambda x: F.normalize(x, p=float("inf"))),
    "softmax": ("softmax", {"axes": (1,)}, lambda x: F.softmax(x, 1)),
    "logsoftmax": ("logsoftmax", {"axes": (1,)}, lambda x: F.log_softmax(x, 1)),
    "zscore": ("zscore", {}, lambda x: (x - x.mean(0)) / x.std(0, correction=0)),
    "minmax": (
        "minmax", {"axes": (2, 3)},
        lambda x: (x - x.amin((2, 3), keepdim=True)) / (x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)),
    ),
    "pixel": ("pixel", {}, lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)),
    "frn": ("frn", {}, lambda x: torch.relu(x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + 1e-6))),
    "grn": ("grn", {"weight": ONES}, _grn),
    "lrn": ("lrn", {"size": 3, "alpha": 1.0}, lambda x: F.local_response_norm(x, 3, 1.0)),
    "lrn even": ("lrn", {"size": 2, "alpha": 1.0}, lambda x: F.local_response_norm(x, 2, 1.0)),
    "weight": ("weight", {}, lambda x: x / x.square().sum((1, 2, 3), keepdim=True).sqrt()),
    "weight-std": (
        "weight-std", {},
        lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_output_and_gradient_are_those_of_torch(name: str) -> None:
    kind, options, function = TORCH[name]
    rng = np.random.default_rng(7)
    x, flow = rng.standard_normal((2, 3, 4, 5, 4))[0], rng.standard_normal((3, 4, 5, 4))
    tensor = torch.tensor(x, requires_grad=True)
    output = function(tensor)
    output.backward(torch.tensor(flow))
    result = normcli.normalize(x, kind, grad_output=flow, **options)
    assert np.abs(result.output - output.detach().numpy()).max() < 1e-14 * max(1.0, np.abs(result.output).max())
    assert tensor.grad is not None
    assert np.abs(result.grad_input - tensor.grad.numpy()).max() < 1e-12


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["lp", "softmax", "logsoftmax", "zscore", "lrn", "pixel", "weight-std"])
def test_output_is_rounded_once(kind: str, dtype: str) -> None:
    x = (np.random.default_rng(3).standard_normal((4, 6)) * 3 + 1).astype(dtype)
    exact = normcli.normalize(x.astype(np.float64), kind).output
    off = np.abs(normcli.normalize(x, kind).output.astype(np.float64) - exact) / ulp(exact, dtype)
    assert off.max() <= 0.5001


# --- exponentials and logarithms ------------------------------------------------------------------------


def test_exp_and_log_are_right_beyond_float64() -> None:
    from decimal import Decimal, localcontext

    values = np.concatenate([np.random.default_rng(1).uniform(-300, 300, 60), [0.0, 1.0, -1e-9]])
    found = PAIRS.exp(PAIRS.array(values))
    back = PAIRS.log(found)
    with localcontext(prec=50):
        for i, value in enumerate(values.tolist()):
            exact = Decimal(value).exp()
            assert abs(Decimal(float(found.hi[i])) + Decimal(float(found.lo[i])) - exact) <= exact * Decimal(2) ** -96
            apart = Decimal(float(back.hi[i])) + Decimal(float(back.lo[i])) - Decimal(value)
            assert abs(apart) <= max(1, abs(Decimal(value))) * Decimal(2) ** -88


def test_what_is_not_a_number_is_told_of() -> None:
    [said] = normcli.normalize([[1.0, 2], [1, 5]], "zscore").warnings
    assert said == "2 output values NaN: 0 divided by 0, or the root or logarithm of a negative number"
    [said] = normcli.normalize([[1.0, np.nan]], "softmax").warnings
    assert said == "the input holds 1 NaN"


def test_far_numbers_stay_in_range() -> None:
    x = np.array([[3e200, 4e200], [3e-200, 4e-200]])
    assert normcli.normalize(x, "lp", eps=0).output.tolist() == [[0.6, 0.8], [0.6, 0.8]]
    assert normcli.normalize(np.array([1000.0, 1001.0]), "softmax").output[1] == pytest.approx(
        0.7310585786300049, abs=0
    )
    wide = WIDES.to_the(WIDES.array(np.array([2.0**600])), WIDES.number(2.5))
    assert wide.exponent.tolist() == [1501]


# --- one's own formula ----------------------------------------------------------------------------------

FAMILY: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "batch": ((0, 2), {}),
    "instance": ((2,), {"affine": True}),
    "layer": ((2,), {}),
    "rms": ((2,), {"eps": 1e-6}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", FAMILY)
def test_a_kinds_own_lines_give_its_own_bits(kind: str, dtype: str) -> None:
    axes, options = FAMILY[kind]
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 4, 5)).astype(dtype)
    size, at = (5, "") if kind in ("layer", "rms") else (4, "@1")
    weight, bias, flow = rng.standard_normal(size), rng.standard_normal(size), rng.standard_normal(x.shape)
    given_ = {"weight": weight} if kind == "rms" else {"weight": weight, "bias": bias}
    own = normcli.normalize(x, kind, grad_output=flow, **given_, **options)
    let = {"eps": options.get("eps", 1e-5)} | {f"{name}{at}": value for name, value in given_.items()}
    found = normcli.normalize(x, "formula", lines=kind, axes=axes, let=let, grad_output=flow)
    assert (found.output == own.output).all()
    assert (found.grad_input == own.grad_input).all()
    assert (found.named["grad_weight"] == own.grad_weight).all()


@pytest.mark.parametrize("kind", FURTHER)
def test_a_further_kinds_own_lines_give_its_own_bits(kind: str) -> None:
    x = np.random.default_rng(5).standard_normal((3, 4, 5))
    settled = plan(kind, x.shape, "float64", {"weight": ONES} if kind == "grn" else {})
    lines = "\n".join(f"{line.name} = {spelled(line.value)}" for line in settled.lines)
    sets: dict[Any, Any] = {name: settled.dimensions(name) for name, _ in settled.named_axes}
    numbers = {name: value for name, value in settled.constants.items() if name not in (*map(str, sets), "n")}
    own = normcli.normalize(x, kind, **({"weight": ONES} if kind == "grn" else {}))
    more = {f"{one.name}@{one.first}": own.before.tensor(one.name) for one in settled.tensors}
    found = normcli.normalize(x, "formula", lines=lines, axes=sets, let=numbers | more)
    assert (found.output == own.output).all()


REFUSED = {
    "nothing": ("", {}, "there is no formula"),
    "unknown name": ("x * tau", {}, "tau is not defined by a line; give it with --let tau=TENSOR"),
    "before its line": ("y = x * a; a = sum(x)", {}, "a is used before its line"),
    "twice": ("y = x; y = x + 1", {}, "y is the name of a line before"),
    "no axes of that name": ("x / sum(x, c)", {}, "no axes are called c; give them with --axes c=1"),
    "no such axis": ("x / sum(x, axis_7)", {}, "there is no axis 7"),
    "column": ("x / foo(x)", {}, "column 5: there is no foo"),
    "attribute": ("x.real", {}, "column 1: a formula has numbers"),
    "not of x": ("3 + eps", {"eps": 1}, "the last line does not depend on x"),
    "another shape": ("x * w", {"w": [1.0, 2, 3]}, "w has shape (3,), which does not go with (3, 4)"),
    "a function's name": ("exp = x; y = exp", {}, "exp is a function"),
    "window of a number": ("x + window(2, axis_1)", {"size": 3}, "window needs what varies along its axis"),
    "window without a size": ("x + window(x, axis_1)", {}, "window needs its size; give it with --let size=3"),
    "the input's name": ("x = 3; y = x + 1", {}, "x is the input"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_refusal(case: tuple[str, dict[str, Any], str]) -> None:
    lines, let, message = case
    with pytest.raises(InputError) as error:
        normcli.normalize(X, "formula", lines=lines, axes=(1,), let=let)
    assert message in str(error.value)


def test_what_stands_inside_is_worked_out_and_shown_once() -> None:
    result = normcli.normalize(X, "formula", lines="(x - mean(x)) / (std(x) + eps)", axes=(1,), let={"eps": 0})
    assert list(result.statistics()) == ["mean", "var"]
    assert np.allclose(result.output, (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True))


def test_a_sum_of_what_does_not_vary_counts_each_place() -> None:
    result = normcli.normalize(X, "formula", lines="total = sum(a); y = x / total", axes=(1,), let={"a": [2.0]})
    assert (result.named["total"] == 8).all()
    assert (
        normcli.normalize(X, "formula", lines="x * mean(2 * a)", axes=(0, 1), let={"a": [3.0]}).output == X * 6
    ).all()


PARTS = ["x", "w", "eps", "2", "sum(x)", "mean(x)", "max(x)", "std(x)", "norm(x, axis_0)", "1e-3"]
OPERATIONS = ["({} + {})", "({} - {})", "({} * {})", "({} / {})", "larger({}, {})", "greater({}, {})", "({} ^ {})"]
FUNCTIONS = ["sqrt({})", "exp({})", "log({})", "abs({})", "-{}", "sum({})", "{}^2", "max({}, axis_0)", "stop({})"]


def _expressions() -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from([*PARTS, "foo"]),
        lambda inner: st.one_of(
            st.builds(str.format, st.sampled_from(OPERATIONS), inner, inner),
            st.builds(str.format, st.sampled_from(FUNCTIONS), inner),
        ),
        max_leaves=6,
    )


@settings(max_examples=300, deadline=None)
@given(_expressions(), st.booleans())
@np.errstate(all="ignore")
def test_a_formula_ends_in_a_result_or_in_one_clear_line(text: str, with_gradient: bool) -> None:
    flow = "ones" if with_gradient else None
    try:
        let = {"eps": 1e-5, "w": [1.0, -2, 0.5, 3]}
        result = normcli.normalize(X, "formula", lines=text, axes=(1,), let=let, grad_output=flow)
        assert result.output.shape == X.shape
    except NormcliError as error:
        assert str(error)
        assert "\n" not in str(error)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="x+-*/^()=;, .eps1_'\"[]{}:@\n\\", max_size=30))
@np.errstate(all="ignore")
def test_any_text_ends_in_a_result_or_in_one_clear_line(text: str) -> None:
    try:
        normcli.normalize(X, "formula", lines=text, axes=(1,), let={"eps": 1e-5})
    except NormcliError as error:
        assert str(error)


@pytest.fixture(name="normcli_cli")
def _command_line(normcli: Callable[..., Any]) -> Callable[..., Any]:
    return normcli


# --- everything else works on them ----------------------------------------------------------------------


def test_a_toy_kind_has_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from normcli.commands.cli import make_app

    toy = Kind(
        name="toy",
        title="Toy",
        summary="Toy: by the largest.",
        options=("eps", "axes", "convention", "dtype"),
        text="top = max(abs(x))\noutput = x / (top + eps)",
        layout=by_channel,
        numbers={"eps": 1.0},
        sets={None: lambda rank, channel: (rank - 1,)},
        profiles={"own": OWN},
    )
    monkeypatch.setitem(FURTHER, "toy", toy)
    app = make_app(("toy",))
    for more, sought in {
        "--trace": "max(abs(1), abs(3))",
        "--json": '"output": [[0.25, 0.75]]',
        "--format markdown": "| 0 |",
        "--format latex --trace": r"\max",
        "--grad-output ones": "grad_input",
        "--expect [[0.2500,0.7500]]": "checks: all 2 cells agree",
    }.items():
        with pytest.raises(SystemExit):
            app(["toy", "[[1,3]]", *more.split(" ")])
        assert sought in capsys.readouterr().out, more


ANSWERS = {
    "p": ("lp", {}, {"p": 1}, "p_other"),
    "convention": ("zscore", {}, {"convention": "pandas"}, "ddof1"),
    "axes": ("softmax", {}, {"axes": (0,)}, "axes_other"),
    "kind": ("softmax", {}, "logsoftmax", "kind_logsoftmax"),
    "eps": ("lp", {"eps": 0.5, "eps_at": "inside"}, {"eps": 0.5, "eps_at": "added"}, "eps_outside"),
    "size": ("lrn", {"alpha": 1, "size": 3}, {"alpha": 3, "size": 3}, "alpha_whole"),
}


@pytest.mark.parametrize("case", ANSWERS.values(), ids=list(ANSWERS))
def test_the_slip_is_named(case: Any, normcli_cli: Callable[..., Any]) -> None:
    kind, options, other, key = case
    slipped = (
        normcli.normalize(X, other, **options)
        if isinstance(other, str)
        else normcli.normalize(X, kind, **(options | other))
    )
    text = json.dumps([[round(value, 6) for value in row] for row in slipped.output.tolist()])
    given_ = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    done = normcli_cli(kind, json.dumps(X.tolist()), *given_, "--expect", text, "--decimals", "6", "--json")
    assert done.returncode == 1
    assert [key] in [found["keys"] for found in json.loads(done.stdout)["check"]["diagnoses"]]


@pytest.mark.parametrize("kind", FURTHER)
def test_a_right_answer_checks(kind: str, normcli_cli: Callable[..., Any]) -> None:
    x = Z + 0.5
    right = normcli.normalize(x, kind).output
    text = json.dumps(right.round(5).tolist())
    done = normcli_cli(kind, json.dumps(x.tolist()), "--expect", text, "--decimals", "5")
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "checks")


def test_every_kind_is_a_command() -> None:
    assert set(EVERY) == {*KINDS, *FURTHER, FORMULA.name}


# --- another way ----------------------------------------------------------------------------------------

LIBRARY: dict[str, dict[str, Any]] = {
    "lp": {"axes": (1, 2), "p": 3}, "softmax": {}, "logsoftmax": {"axes": (0,)}, "pixel": {},
    "lrn": {"size": 4, "alpha": 0.5}, "weight": {"weight": np.array([1.0, -2, 3])},
    "spectral": {"iterations": 3, "u": np.array([0.6, 0.0, -0.8])},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", LIBRARY)
def test_torch_has_its_own_function(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(9)
    x, flow = (rng.standard_normal((3, 4, 5)).astype(dtype) for _ in range(2))
    own = normcli.normalize(x, kind, grad_output=flow, **LIBRARY[kind])
    there = normcli.normalize(x, kind, backend="torch", grad_output=flow, **LIBRARY[kind])
    assert (there.backend, there.output.dtype) == ("torch", dtype)
    off = 40 * np.finfo(dtype).eps
    np.testing.assert_allclose(there.output, own.output, rtol=off, atol=off)
    assert there.gradients().keys() == own.gradients().keys() - {"grad_u"}
    for name, slope in there.gradients().items():
        np.testing.assert_allclose(slope, own.gradients()[name], rtol=off, atol=off)


TORCH_HAS_NOT: dict[str, tuple[str, dict[str, Any], str]] = {
    "kind": ("frn", {}, "torch has no Filter Response Normalization; that needs the numpy backend"),
    "formula": ("formula", {"lines": "x^2"}, "torch has no Formula"),
    "line": ("lp", {"convention": "flax"}, "torch's Lp normalization has another line for size"),
    "alpha": ("lrn", {"convention": "tensorflow"}, "has another line for spread"),
    "window": ("lrn", {"convention": "onnx", "size": 2}, "has another window"),
    "axes": ("softmax", {"axes": (1, 2)}, "torch's Softmax goes over one axis"),
}


@pytest.mark.parametrize("case", TORCH_HAS_NOT.values(), ids=list(TORCH_HAS_NOT))
def test_torch_refuses_by_name(case: tuple[str, dict[str, Any], str]) -> None:
    kind, options, message = case
    with pytest.raises(InputError) as error:
        normcli.normalize(np.ones((2, 3, 4)), kind, backend="torch", **options)
    assert message in str(error.value)


VERSUS: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {
    "line": (["lp", "[[3,4]]", "--versus", "flax"], [("size", "sqrt(sum(x^2))", "sqrt(sum(x^2) + eps)")]),
    "divisor": (
        ["zscore", "[[1],[2]]", "--versus", "pandas"], [("var", "sum(centered^2) / n", "sum(centered^2) / (n - 1)")]
    ),
    "number": (["frn", "[[[1,2]]]", "--versus", "timm"], [("eps", 1e-6, 1e-5)]),
    "window": (
        ["lrn", "[[1,2,4]]", "--size", "2", "--versus", "onnx"],
        [("window", "1 before and 0 after", "0 before and 1 after")],
    ),
    "nothing": (["lrn", "[[1,2,4]]", "--size", "3", "--versus", "onnx"], []),
    "another kind": (
        ["formula", "x / (sum(abs(x)) + eps)", "[[1,2,4]]", "--axes", "1", "--let", "eps=0", "--versus", "minmax"],
        [("formula", "sum = sum(abs(x)); output = x / (sum + eps)",
          "low = min(x); high = max(x); span = high - low; output = (x - low) / (span + equal(span, 0))")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VERSUS.values(), ids=list(VERSUS))
def test_what_differs_is_named(case: tuple[list[str], list[tuple[Any, ...]]], normcli_cli: Callable[..., Any]) -> None:
    arguments, expected = case
    [compared] = json.loads(normcli_cli(*arguments, "--json").stdout)["versus"]
    assert [(one["name"], one["here"], one["there"]) for one in compared["options"]] == expected
    assert bool(compared["max_abs"]) == bool(expected)


def test_a_formula_is_held_against_a_kind(normcli_cli: Callable[..., Any]) -> None:
    arguments = ["formula", "(x - mean(x)) / sqrt(mean((x - mean(x))^2) + 1e-5)", "[[1,2,4],[6,2,5]]", "--axes", "1"]
    [compared] = json.loads(normcli_cli(*arguments, "--versus", "layer", "--json").stdout)["versus"]
    assert compared["max_ulp"] == 0


def test_torch_has_no_steps_to_trace(normcli_cli: Callable[..., Any]) -> None:
    done = normcli_cli("lp", "[[3,4]]", "--device", "cpu", "--trace")
    assert (done.returncode, done.stderr) == (
        2, "error: torch gives the output alone; its steps need the numpy backend\n"
    )  # fmt: skip


# --- scripts --------------------------------------------------------------------------------------------

OWN_FORMULA: dict[str, Any] = {
    "lines": "gx = norm(x, axis_1); nx = gx / (mean(gx) + eps); y = w * x * nx / std(x) + sum(1) * sum(w) + max(x)",
    "axes": (2,),
    "let": {"eps": 1e-3, "w@1": [1.0, -2, 3, 0.5]},
}


def _script(kind: str, options: dict[str, Any], format_: str) -> tuple[Any, Any]:
    """The result of a calculation, and the names that its script ends with."""
    from normcli.showing.formats import pieces
    from normcli.showing.report import Detail, Report

    x, flow = np.random.default_rng(3).standard_normal((2, 3, 4, 2))
    result = normcli.normalize(x, kind, grad_output=flow, **options)
    found: dict[str, Any] = {"print": lambda *shown: None}
    exec(compile("".join(pieces(format_, Report(result=result, x=x), Detail())), "script", "exec"), found)
    return result, found


@pytest.mark.parametrize("kind", [*FURTHER, "formula"])
def test_a_script_of_the_lines_gives_the_same_numbers(kind: str) -> None:
    options = OWN_FORMULA if kind == "formula" else {"weight": ONES + 1} if kind in ("grn", "frn") else {}
    result, found = _script(kind, options, "python")
    for name in ("output", *result.gradients()):
        ours = result.output if name == "output" else result.gradients()[name]
        assert np.shape(found[name]) == np.shape(ours), name
        np.testing.assert_allclose(found[name], ours, rtol=1e-11, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind", ["lp", "softmax", "logsoftmax", "lrn", "weight"])
def test_a_script_of_torch_gives_the_same_numbers(kind: str) -> None:
    options = {"channel_axis": -1} if kind == "lrn" else {"weight": [1.0, 2, 3]} if kind == "weight" else {}
    result, found = _script(kind, options, "torch")
    np.testing.assert_allclose(found["output"].detach(), result.output, rtol=1e-12, atol=1e-12)
    for name, ours in result.gradients().items():
        np.testing.assert_allclose(found[name], ours, rtol=1e-11, atol=1e-11, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frn", "[[[1,2]]]", "--format", "torch"), "PyTorch has no Filter Response Normalization"),
        (("lp", "[[3,4]]", "--format", "keras"), "Keras's Lp normalization has another line for size"),
        (("softmax", "[[3,4]]", "--axes", "0,1", "--format", "torch"), "PyTorch's Softmax goes over one axis"),
        (("formula", "x^2", "[[3,4]]", "--format", "jax"), "Flax has no Formula"),
    ],
)
def test_a_script_of_what_a_library_has_not_is_refused(
    arguments: tuple[str, ...], message: str, normcli_cli: Callable[..., Any]
) -> None:
    done = normcli_cli(*arguments)
    assert (done.returncode, message in done.stderr) == (2, True)


# --- pictures of axes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FURTHER)
def test_axes_are_drawn(kind: str, normcli_cli: Callable[..., Any]) -> None:
    done = normcli_cli("axes", kind, "--shape", "2,3,4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "are taken together" in done.stdout
    assert json.loads(normcli_cli("axes", kind, "--shape", "2,3,4", "--json").stdout)["kind"] == kind


def test_axes_say_what_comes_with_the_input(normcli_cli: Callable[..., Any]) -> None:
    done = normcli_cli("axes", "frn", "--shape", "2,3,4,4")
    assert "Weight has shape (3,), along C; bias has shape (3,), along C; tau has shape (3,), along C." in done.stdout
    assert "6 groups, one for each place along N x C, over 16 elements each (H x W)." in done.stdout
    assert "--axes 1 of (2, 3)" in normcli_cli("axes", "lp", "--shape", "2,3").stdout


def test_a_tensor_that_nothing_takes_has_no_gradient(normcli_cli: Callable[..., Any]) -> None:
    done = normcli_cli("formula", "b = w; y = x", "[1,2]", "--axes", "0", "--let", "w=[1,2]", "--dy", "ones", "--json")
    assert json.loads(done.stdout)["gradients"] == {"input": [1, 1], "weight": None, "bias": None, "w": None}


def test_a_power_0_is_1_for_each_element() -> None:
    found = normcli.normalize([1.0, 2, 3], "formula", lines="x * sum(x^0) + max(x^0)", axes=(0,)).output
    assert found.tolist() == [4, 7, 10]


@pytest.mark.parametrize("options", [{"p": 1, "eps_at": "inside"}, {"p": 3, "convention": "flax"}])
def test_a_root_of_squares_goes_with_the_length_alone(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"goes with --p 2 only; --p is {options['p']}$"):
        normcli.normalize([[3, 4]], "lp", **options)


# --- as tables and pictures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("softmax", ["i0,top,total", "0,2.0,1.3678794411714423"]),
        (
            "grn",
            ["quantity,i0,i1,value", "gx,0,0,1.0", "gx,0,1,2.0", "mean_gx,0,,1.5", "nx,0,0,0.6666662222225185",
             "nx,0,1,1.333332444445037"],
        ),
    ],
)  # fmt: skip
def test_statistics_of_several_shapes_are_a_long_table_of_numbers(kind: str, rows: list[str], normcli: Run) -> None:
    x = "[[[1],[2]]]" if kind == "grn" else "[[1,2]]"
    assert normcli(kind, x, "--only", "statistics", "--format", "csv").stdout.splitlines() == rows


@pytest.mark.parametrize("form", ["csv", "table", "markdown"])
def test_statistics_that_are_not_there_are_refused(form: str, normcli: Run) -> None:
    done = normcli("lrn", "[[1,2]]", "--only", "statistics", "--format", form)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "there are no statistics to show" in done.stderr


def test_the_lines_of_the_power_iteration_are_whole(normcli: Run) -> None:
    lines = normcli("formula", "spectral").stdout
    given_ = (
        "--axes",
        "0,1",
        "--axes",
        "rows=0",
        "--axes",
        "columns=1",
        "--let",
        "u@0=[0.6,0.8]",
        "--let",
        "eps=1e-12",
    )
    shown = ("--only", "output", "--json")
    own = normcli("formula", lines, "[[1,2],[3,4]]", *given_, *shown).stdout
    assert own == normcli("spectral", "[[1,2],[3,4]]", "--u", "[0.6,0.8]", *shown).stdout


@pytest.mark.parametrize(("kind", "scale"), [("softmax", "0 ··░░▒▒▓▓██ 0."), ("zscore", "-1 ··░░▒▒▓▓██ 1")])
def test_the_picture_begins_at_0_where_nothing_is_below(kind: str, scale: str, normcli: Run) -> None:
    squeezed = " ".join(normcli(kind, "[[1,3],[3,1]]", "--picture").stdout.split())
    assert f"output {scale}" in squeezed


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"grad_output": "ones"}], ids=["forward", "backward"])
def test_what_does_not_fit_is_refused_before_it_is_begun(options: dict[str, Any]) -> None:
    x = np.broadcast_to(1.0, (2**20, 2**20))  # which takes 8 bytes here, and 8 TiB once it is worked with
    tracemalloc.start()
    with pytest.raises(UnavailableError, match=r"^the calculation needs \d+ MiB of memory; they are not free$"):
        normcli.normalize(x, "softmax", **options)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_what_is_said_to_be_needed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def room(name: str, needed: int) -> AbstractContextManager[None]:
        asked.append(needed)
        return nullcontext()

    monkeypatch.setattr(free, "room_for", room)
    x = np.random.default_rng(3).normal(size=(8, 16, 32, 32))
    for kind in ("lp", "zscore", "softmax", "lrn"):
        tracemalloc.start()
        normcli.normalize(x, kind, grad_output=x)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken / 4 < asked.pop() < taken * 1.1


MEMORY = {
    "machine": ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 3 kB\nSwapFree: 2 kB\n"}, 5 * 1024),
    "group": (
        {
            "proc/meminfo": "MemAvailable: 3 kB\n",
            "sys/fs/cgroup/memory.max": "1500\n",
            "sys/fs/cgroup/memory.current": "1000\n",
            "sys/fs/cgroup/memory.stat": "anon 7\ninactive_file 300\n",
        },
        800,
    ),
    "group without a limit": (
        {
            "proc/meminfo": "MemAvailable: 3 kB\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "1000\n",
        },
        3 * 1024,
    ),
    "nobody says": ({}, None),
}


@pytest.mark.parametrize(("files", "free_bytes"), MEMORY.values(), ids=MEMORY)
def test_the_memory_that_is_free_is_read(files: dict[str, str], free_bytes: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == free_bytes


def test_the_command_line_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.ones((2**12, 2**12)))
    monkeypatch.setattr(errors, "free_memory", lambda: 2**28)
    monkeypatch.setattr(sys, "argv", ["normcli", "softmax", str(tmp_path / "x.npy")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    assert capsys.readouterr().err == "error: the calculation needs 1280 MiB of memory; they are not free\n"
