"""What models do with the weight: adding 1 to it, rounding before it multiplies, and one weight for each sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import Run
from oracle import MOST_ULPS, exact, exact_gradients, ulps

import normcli
from normcli.arithmetic import loops, reference
from normcli.arithmetic.numbers import PAIRS
from normcli.arithmetic.pair import Pair
from normcli.calculate import initial_state
from normcli.errors import InputError
from normcli.formula.spelled import spelled
from normcli.layers import is_about_zero
from normcli.planning.plan import plan

X = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
ROW, WEIGHT = "[1,2,4,1]", "[0.5,-0.25,0,1]"
GEMMA = ("rms", ROW, "--weight", WEIGHT, "--eps", "1e-6", "--weight-offset", "1")
bfloat16 = np.dtype(ml_dtypes.bfloat16)


def numbers(*shape: int, dtype: Any = np.float64, scale: float = 1.0, seed: int = 3) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(dtype)


def lines(kind: str, **options: Any) -> dict[str, str]:
    settled = plan(kind, (3, 4), options.pop("dtype", "float64"), options)
    return {line.name: spelled(line.value) for line in settled.lines + settled.gradient_lines}


# --- the lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "output"),
    [
        ("rms", {"weight_offset": 1}, "normalized * (1 + weight)"),
        ("layer", {"weight_offset": 1}, "normalized * (1 + weight) + bias"),
        ("layer", {"cast": "before", "dtype": "float16"}, "float16(normalized) * weight + bias"),
        ("rms", {"cast": "before", "weight_offset": 1}, "float64(normalized) * (1 + weight)"),
        ("rms", {"weight_offset": 1, "affine": False}, "normalized"),
    ],
)
def test_the_output_line_says_it(kind: str, options: dict[str, Any], output: str) -> None:
    assert lines(kind, **options)["output"] == output


def test_the_gradient_follows_from_the_lines() -> None:
    found = lines("rms", weight_offset=1, cast="before", dtype="bfloat16")
    assert found["grad_normalized"] == "grad_output * (1 + weight)"
    assert found["grad_weight"] == "sum(grad_output * bfloat16(normalized), rest)"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("rms", {"weight_offset": 2}, "weight_offset is 2; use 0 or 1"),
        ("layer", {"cast": "now"}, "cast is 'now'; use after or before"),
        ("batch", {"weight_offset": 1}, "batch has no option weight_offset; it belongs to layer or rms"),
        ("group", {"cast": "before", "groups": 2}, "group has no option cast; it belongs to layer or rms"),
    ],
)
def test_what_does_not_belong_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(kind, (3, 4), "float64", options)
    assert str(error.value) == message


# --- the numbers ----------------------------------------------------------------------------------


def test_one_is_added_exactly() -> None:
    """15.8125 + 1 is 16.8125, which bfloat16 rounds to 16.75."""
    weight = np.array([15.8125, 15.8125], bfloat16)
    found = normcli.normalize(np.array([1.0, 1.0]), "rms", weight=weight, weight_offset=1, eps=0)
    assert found.output.tolist() == [16.8125, 16.8125]


def test_a_row_of_gemma() -> None:
    found = normcli.normalize([1, 2, 4, 1], "rms", weight=[0.5, -0.25, 0, 1], eps=1e-6, weight_offset=1)
    assert found.output.round(6).tolist() == [0.639602, 0.639602, 1.705606, 0.852803]


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_a_weight_that_nobody_gave_is_0(kind: str) -> None:
    x = numbers(3, 5)
    result = normcli.normalize(x, kind, weight_offset=1, grad_output=x)
    plain = normcli.normalize(x, kind, grad_output=x)
    assert (result.output == plain.output).all()
    assert (result.grad_weight == plain.grad_weight).all()
    assert normcli.layers.state_arrays(result)["weight"].tolist() == [0] * 5


CASES = [
    (kind, dtype, offset, cast)
    for kind in ("rms", "layer")
    for dtype in ("float16", "bfloat16", "float32", "float64")
    for offset, cast in ((1, "after"), (0, "before"), (1, "before"))
]


@pytest.mark.parametrize(("kind", "dtype", "offset", "cast"), CASES)
def test_within_the_bound_of_the_exact_result(kind: str, dtype: str, offset: int, cast: str) -> None:
    x = numbers(4, 9, dtype=bfloat16 if dtype == "bfloat16" else dtype)
    options: dict[str, Any] = {"weight": numbers(9, scale=0.1, seed=4), "eps": 1e-6}
    options |= {"bias": numbers(9, seed=5)} if kind == "layer" else {}
    judge = {"weight_offset": offset, "cast": dtype if cast == "before" else None}
    found = normcli.normalize(x, kind, **options, weight_offset=offset, cast=cast)
    assert ulps(found.output, exact(x, kind, **options, **judge).output).max() <= MOST_ULPS[dtype]


@pytest.mark.parametrize(("kind", "dtype", "offset", "cast"), CASES)
def test_gradients_are_those_of_the_closed_form(kind: str, dtype: str, offset: int, cast: str) -> None:
    x = numbers(4, 9, dtype=bfloat16 if dtype == "bfloat16" else dtype)
    options: dict[str, Any] = {"weight": numbers(9, scale=0.1, seed=4), "eps": 1e-6}
    flow = numbers(4, 9, seed=6)
    judge = {"weight_offset": offset, "cast": dtype if cast == "before" else None}
    right = exact_gradients(x, flow, kind, **options, **judge)
    found = normcli.normalize(x, kind, grad_output=flow, **options, weight_offset=offset, cast=cast)
    np.testing.assert_allclose(found.grad_weight, np.array(right.weight, float), rtol=1e-14)
    unit = normcli.dtypes.DTYPES[dtype].unit
    np.testing.assert_allclose(np.float64(found.grad_input).ravel(), np.array(right.input, float), 2 * unit, 1e-15)


def test_a_cast_is_rounded_once() -> None:
    """Just above halfway between 1 and the next number of bfloat16, by less than float64 tells from it."""
    halfway = Pair(np.array([1 + 2.0**-8] * 3), np.array([2.0**-70, 0.0, -(2.0**-70)]))
    assert PAIRS.rounded(halfway, "bfloat16").hi.tolist() == [1 + 2.0**-7, 1, 1]
    assert PAIRS.rounded(-halfway, "float16").hi.tolist() == [-1 - 2.0**-8] * 3


LARGE = {
    "offset": {"weight_offset": 1},
    "cast": {"cast": "before"},
    "both": {"weight_offset": 1, "cast": "before"},
    "a row for each sample": {"rows": True},
    "all": {"rows": True, "weight_offset": 1, "cast": "before"},
}


@pytest.mark.skipif(loops.compiled() is None, reason="they were not compiled")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", LARGE)
def test_the_compiled_loops_give_what_the_lines_give(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(LARGE[name])
    x = numbers(8, 30, 300, dtype=bfloat16 if dtype == "bfloat16" else dtype)
    shape = (8, 300) if options.pop("rows", False) else (300,)
    options |= {"weight": numbers(*shape, dtype=np.float32, scale=0.1), "bias": numbers(*shape, seed=5)}
    settled = plan("layer", x.shape, dtype, options)
    state = initial_state(settled, options)
    slow = reference.by_lines(x, settled, state)
    monkeypatch.setattr(reference, "by_lines", None)  # it is not asked
    fast = reference.normalize(x, settled, state)
    assert (np.float64(fast.output) == np.float64(slow.output)).all()
    assert (fast.plan, fast.before, fast.after) == (settled, state, state)
    np.testing.assert_allclose(fast.rstd, slow.rstd, rtol=1e-15)


@pytest.mark.parametrize("name", ["offset", "a row for each sample"])
def test_large_gradients_give_what_the_lines_give(name: str) -> None:
    options = dict(LARGE[name])
    x, flow = numbers(8, 30, 300, dtype=np.float32), numbers(8, 30, 300, seed=6)
    options |= {"weight": numbers(*((8, 300) if options.pop("rows", False) else (300,)), dtype=np.float32)}
    settled = plan("rms", x.shape, "float32", options)
    state = initial_state(settled, options)
    slow, fast = (way(x, settled, state, grad_output=flow) for way in (reference.by_lines, reference.normalize))
    assert (fast.grad_input == slow.grad_input).all()
    np.testing.assert_allclose(fast.grad_weight, slow.grad_weight, rtol=1e-13, atol=1e-13)


def test_a_weight_that_float64_cannot_add_1_to_is_still_added_exactly() -> None:
    x = numbers(300, 300)
    options: dict[str, Any] = {"weight": numbers(300, scale=1e-3), "weight_offset": 1, "eps": 1e-6}
    found = normcli.normalize(x, "rms", **options).output
    assert ulps(found[:2], exact(x[:2], "rms", **options).output).max() <= 0.501


def test_output_written_over_the_input() -> None:
    x = numbers(300, 300, dtype=np.float32)
    right = normcli.normalize(x, "rms", cast="before", weight_offset=1).output
    normcli.normalize(x, "rms", cast="before", weight_offset=1, out=x)
    assert (x == right).all()


# --- a weight for each sample ---------------------------------------------------------------------

ROWS = {
    "layer": ("layer", (3, 5, 4), (3, 4), {}),
    "layer, two axes": ("layer", (3, 5, 4), (3, 5, 4), {"normalized_shape": (5, 4)}),
    "layer, samples alone": ("layer", (3, 4), (3, 4), {}),
    "rms": ("rms", (3, 5, 4), (3, 4), {}),
    "instance": ("instance", (3, 4, 5), (3, 4), {}),
    "instance, channels last": ("instance", (3, 5, 4), (3, 4), {"channel_axis": -1}),
    "group": ("group", (3, 4, 5), (3, 4), {"groups": 2}),
    "group, samples and channels": ("group", (3, 4), (3, 4), {"groups": 2}),
    "batch": ("batch", (3, 4, 5), (3, 4), {"track_running_stats": False}),
    "batch, samples and channels": ("batch", (3, 4), (3, 4), {"track_running_stats": False}),
}


@pytest.mark.parametrize(("kind", "shape", "rows", "options"), ROWS.values(), ids=ROWS)
def test_rows_of_weights(kind: str, shape: tuple, rows: tuple, options: dict[str, Any]) -> None:
    x, flow = numbers(*shape), numbers(*shape, seed=6)
    given: dict[str, Any] = {"eps": 1e-3, "weight": numbers(*rows, seed=4)}
    given |= {} if kind == "rms" else {"bias": numbers(*rows, seed=5)}
    judge = {name: value for name, value in options.items() if name != "track_running_stats"}
    found = normcli.normalize(x, kind, grad_output=flow, **given, **options)
    assert ulps(found.output, exact(x, kind, **given, **judge).output).max() <= MOST_ULPS["float64"]
    given.pop("bias", None)
    right = exact_gradients(x, flow, kind, **given, **judge)
    np.testing.assert_allclose(found.grad_input.ravel(), np.array(right.input, float), 1e-12, 1e-14)
    np.testing.assert_allclose(found.grad_weight, np.array(right.weight, float).reshape(rows), 1e-12, 1e-14)
    if kind != "rms":
        np.testing.assert_allclose(found.grad_bias, np.array(right.bias, float).reshape(rows), 1e-12, 1e-14)


REFUSED = {
    "layer": ("layer", (3, 4), "[1]", "normalized_shape of this tensor, or (3, 4), a row for each sample"),
    "instance": ("instance", (3, 4, 5), "[1]", "channels of this tensor, or (3, 4), a row for each sample"),
    "batch": ("batch", (2, 3), "[[1,1,1],[1,1,1]]", "(3,) is needed, the number of channels of this tensor"),
    "no samples": ("layer", (4,), "[[1,2,3,4]]", "(4,) is needed, normalized_shape of this tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "shape", "weight", "message"), REFUSED.values(), ids=REFUSED)
def test_both_shapes_are_named(kind: str, shape: tuple, weight: str, message: str, normcli: Run) -> None:
    done = normcli(kind, json.dumps(numbers(*shape).tolist()), "--weight", weight)
    assert done.returncode == 2
    assert message in done.stderr
    assert ("a row" in done.stderr) == ("a row" in message)


def test_weight_and_bias_have_rows_together(normcli: Run) -> None:
    done = normcli("layer", "[[1,2],[3,5]]", "--weight", "[[1,2],[3,4]]", "--bias", "[1,2]")
    assert done.stderr == "error: bias has shape (2,); (2, 2) is needed, if each sample has a weight and a bias\n"


def test_gradients_of_rows_are_listed_by_sample(normcli: Run) -> None:
    done = normcli("layer", "[[1,2],[3,5]]", "--weight", "[[1,2],[3,4]]", "--dy", "ones", "--only", "grad-weight")
    assert done.stdout.splitlines()[1].split() == ["sample", "axis", "1", "grad_weight"]


# --- checked answers ------------------------------------------------------------------------------

SLIPS = {
    "omitted": ((*GEMMA, "--expect", "[0.2132,-0.2132,0.0,0.4264]"), "offset_omitted"),
    "twice": ((*GEMMA, "--expect", "[1.0660,1.4924,3.4112,1.2792]"), "offset_twice"),
    "none here": ((*GEMMA[:-2], "--expect", "[0.6396,0.6396,1.7056,0.8528]"), "weight_plus_one"),
    "gradient": ((*GEMMA, "--dy", "[1,-2,3,0.5]", "--expect", "dx=[0.1744,0.1357,-0.1551,0.1744]"), "offset_omitted"),
}


@pytest.mark.parametrize(("arguments", "key"), SLIPS.values(), ids=SLIPS)
def test_the_slip_is_named(arguments: tuple[str, ...], key: str, normcli: Run) -> None:
    done = normcli(*arguments, "--json")
    assert done.returncode == 1
    assert [one["keys"] for one in json.loads(done.stdout)["check"]["diagnoses"]] == [[key]]


def test_the_slip_in_words(normcli: Run) -> None:
    done = normcli(*GEMMA, "--expect", "[0.2132,-0.2132,0.0,0.4264]")
    assert done.stdout.splitlines()[-2:] == [
        "Your numbers are what multiplying by the weight itself, as Llama does, gives, normalized * weight + bias.",
        "RMSNorm adds 1 to it first, normalized * (1 + weight) + bias.   [offset_omitted]",
    ]


def _in_bfloat16(cast: str, place: Path) -> tuple[str, ...]:
    """The arguments of a calculation, and an answer that was cast in that place."""
    x, weight = numbers(4, 8, dtype=bfloat16), numbers(8, dtype=bfloat16, scale=0.3, seed=4)
    answer = normcli.normalize(x, "rms", weight=weight, eps=1e-6, weight_offset=1, cast=cast).output
    np.save(place, np.float32(answer))
    given = [json.dumps(np.float64(values).tolist()) for values in (x, weight)]
    return ("rms", given[0], "--weight", given[1], "--eps", "1e-6", "--dtype", "bfloat16", "--weight-offset", "1")


@pytest.mark.parametrize(("made", "told"), [("before", "after"), ("after", "before")])
def test_an_answer_that_was_cast_elsewhere(made: str, told: str, normcli: Run, tmp_path: Path) -> None:
    place = tmp_path / "y.npy"
    arguments = (*_in_bfloat16(made, place), "--expect", str(place))
    right, other = (normcli(*arguments, "--cast", cast).stdout.splitlines() for cast in (made, told))
    assert right == ["checks: all 32 cells agree"]
    assert other[0] == "checks, if it was computed in bfloat16: all 32 cells agree"
    assert other[-1].startswith("They are exactly what rounding ")
    assert other[-1].endswith(f": --cast {made}.   [cast_{made}]")


def test_a_slip_of_the_weight_is_named_whatever_the_cast(normcli: Run, tmp_path: Path) -> None:
    place = tmp_path / "y.npy"
    command, text, *rest = _in_bfloat16("before", place)
    rest[rest.index("--weight-offset") + 1] = "0"
    done = normcli(command, text, *rest, "--expect", str(place), "--json")
    assert [one["keys"] for one in json.loads(done.stdout)["check"]["diagnoses"]] == [["weight_plus_one"]]


# --- shown ----------------------------------------------------------------------------------------


def test_the_trace_says_what_is_rounded(normcli: Run) -> None:
    done = normcli(*GEMMA, "--dtype", "bfloat16", "--cast", "before", "--element", "1")
    last = done.stdout.splitlines()[-1].split("  ")
    assert [part.strip() for part in last if part][1:] == [
        "bfloat16(normalized) * (1 + weight)", "bfloat16(bfloat16(0.8528) * (1 + (-0.25)))", "0.6406",
    ]  # fmt: skip
    assert "weight offset 1  cast to bfloat16 before the weight" in done.stdout


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_the_script_gives_the_same(kind: str, dtype: str, normcli: Run) -> None:
    arguments = (kind, X, "--dtype", dtype, "--cast", "before", "--weight-offset", "1", "--weight", WEIGHT, "--dy", X)
    script = normcli(*arguments, "--format", "python").stdout
    found = json.loads(normcli(*arguments, "--json").stdout)
    names: dict[str, Any] = {}
    exec(script, names)
    np.testing.assert_allclose(names["output"], found["output"], rtol=2.0**-7)
    np.testing.assert_allclose(names["grad_weight"], found["gradients"]["weight"], rtol=1e-14)


def test_latex(normcli: Run) -> None:
    done = normcli(*GEMMA, "--dtype", "float16", "--cast", "before", "--trace", "--format", "latex")
    assert r"\mathrm{float16}(\hat{x}) \cdot (1 + \gamma)" in done.stdout


def test_rows_of_weights_in_every_format(normcli: Run) -> None:
    arguments = (
        "layer",
        "[[1,2],[3,5]]",
        "--weight",
        "[[1,2],[3,4]]",
        "--weight-offset",
        "1",
        "--dy",
        "[[1,0],[2,-1]]",
    )
    assert json.loads(normcli(*arguments, "--json").stdout)["gradients"]["weight"] == pytest.approx(
        np.array([[-1, 0], [-2, -1]]), abs=1e-4
    )
    for name in ("markdown", "latex", "csv"):
        assert normcli(*arguments, "--trace", "--format", name).returncode == 0
    names: dict[str, Any] = {}
    exec(normcli(*arguments, "--format", "python").stdout, names)
    assert names["grad_weight"].shape == (2, 2)


# --- a file's layers ------------------------------------------------------------------------------


def test_weights_about_0_are_remarked_upon(normcli: Run, tmp_path: Path) -> None:
    place = tmp_path / "model.npz"
    weights = {"a": numbers(16, scale=0.1), "b": 1 + numbers(16, scale=0.2), "c": np.abs(numbers(16, scale=0.02))}
    np.savez(place, **{f"{name}.weight": values for name, values in weights.items()}, **{"zero.weight": np.zeros(4)})
    layers = json.loads(normcli("state", str(place), "--json").stdout)["layers"]
    remark = "this layer may add 1 (--weight-offset 1): its weights lie about 0, not about 1"
    assert {layer["prefix"]: layer["remarks"] for layer in layers} == {
        "a": [remark], "b": [], "c": [], "zero": [remark],
    }  # fmt: skip


def test_one_weight_is_about_itself() -> None:
    assert not is_about_zero(np.array([0.3]))
