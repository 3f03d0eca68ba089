"""Answers to the kinds beyond the family and to one's own formula: right ones check, slips are named, noise is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.calculate import initial_state
from normcli.errors import InputError
from normcli.planning.further import FURTHER
from normcli.planning.plan import plan
from normcli.teaching.check import check
from normcli.teaching.free_check import FreeFigures, FreeWork
from normcli.teaching.printed import Printed
from normcli.teaching.verdict import Check
from normcli.teaching.worked import check_file

SHAPE = (2, 3, 2, 4)
GIVEN: dict[str, dict[str, Any]] = {
    "grn": {"weight": np.array([1.0, -0.5, 2])},
    "frn": {"weight": np.array([1.0, -0.5, 2]), "bias": np.array([0.25, 0, 1]), "tau": np.array([-0.5, 0, 0.5])},
    "lrn": {"alpha": 1.0, "size": 3},
    "weight": {"weight": np.array([2.0, -1])},
    "spectral": {"iterations": 2},
}


def judged(kind: str, x: Any, answers: dict[str, Any], decimals: int = 4, flow: Any = None, **options: Any) -> Check:
    settled = plan(kind, x.shape, "float64", options)
    printed = {
        name: Printed(np.round(np.asarray(values, float), decimals), np.full(np.shape(values), decimals))
        for name, values in answers.items()
    }
    return check(Printed.exactly(x), settled, initial_state(settled, options), printed, grad_output=flow)


@pytest.mark.parametrize("kind", FURTHER)
def test_right_answers_check_and_noise_has_no_name(kind: str) -> None:
    options = GIVEN.get(kind, {})
    for seed in range(17):
        rng = np.random.default_rng(seed)
        x = rng.normal(0.5, 2, SHAPE).round(2)
        right = normcli.normalize(x, kind, **options).output
        assert judged(kind, x, {"output": right}, **options).ok, seed
        if seed < 5:
            verdict = judged(kind, x, {"output": right + rng.normal(0, 0.2, SHAPE)}, **options)
            assert (verdict.ok, verdict.keys) == (False, []), seed


@pytest.mark.parametrize("kind", FURTHER)
def test_right_gradients_check(kind: str) -> None:
    options, rng = GIVEN.get(kind, {}), np.random.default_rng(4)
    x, flow = rng.normal(0.5, 2, (2, *SHAPE)).round(2)
    slopes = normcli.normalize(x, kind, grad_output=flow, **options).gradients()
    assert judged(kind, x, slopes, flow=flow, **options).ok
    slopes["grad_input"] = slopes["grad_input"] + rng.normal(0, 0.2, SHAPE)
    assert not judged(kind, x, slopes, flow=flow, **options).ok


@pytest.mark.parametrize("kind", ["lp", "softmax", "lrn", "weight-std", "frn"])
def test_a_gradient_moves_as_differences_say(kind: str) -> None:
    x, flow = np.random.default_rng(1).normal(size=(2, 2, 3, 2))
    settled = plan(kind, x.shape, "float64", {})
    figures = FreeFigures(FreeWork(plan=settled, state=initial_state(settled, {}), x=x, grad_output=flow))

    def slope(way: Any) -> Any:
        after, before = (normcli.normalize(x + step * way, kind, grad_output=flow).grad_input for step in (1e-5, -1e-5))
        return np.abs(after - before) / 2e-5

    expected = sum(slope(way.reshape(x.shape)) for way in np.eye(x.size))
    moved = figures.moved("grad_input", {"x": np.ones(x.shape)})
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-7 * expected.max())


def _radius(x: Any) -> Any:
    near = sum((np.pad(x**2, [(0, 0), (3, 3), (0, 0), (0, 0)])[:, i : i + 3] for i in range(7)), np.zeros(SHAPE))
    return x / (1 + near / 3) ** 0.75


def _rms(x: Any) -> Any:
    return x / np.sqrt((x**2).mean(1, keepdims=True))


def _without_mean(x: Any) -> Any:
    weight = GIVEN["grn"]["weight"][:, None, None]
    return x + weight * x * np.sqrt((x**2).sum((2, 3), keepdims=True))


# A slip, worked out without normcli's lines.
SLIPS: dict[str, tuple[str, dict[str, Any], Any, str]] = {
    "softmax over the other axis": (
        "softmax", {"axes": (1,)}, lambda x: np.exp(x) / np.exp(x).sum(3, keepdims=True), "axes_other"
    ),
    "the size as a radius": ("lrn", {"alpha": 1.0, "size": 3}, _radius, "size_radius"),
    "the mean under the root": ("lp", {}, _rms, "mean_for_sum"),
    "the length squared": ("lp", {}, lambda x: x / (x**2).sum(1, keepdims=True), "no_sqrt"),
    "lengths without their mean": ("grn", GIVEN["grn"], _without_mean, "no_mean_of_lengths"),
    "the other axis of a weight": (
        "weight", {}, lambda x: x / np.sqrt((x**2).sum((0, 2, 3), keepdims=True)), "axes_other"
    ),
    "a step fewer": (
        "spectral", {"iterations": 3}, lambda x: normcli.normalize(x, "spectral", iterations=2).output,
        "iterations_fewer",
    ),
    "a step more": (
        "spectral", {}, lambda x: normcli.normalize(x, "spectral", iterations=2).output, "iterations_more"
    ),
    "one less": (
        "formula", {"lines": "(x - mean(x)) / std(x)", "axes": (3,)},
        lambda x: (x - x.mean(3, keepdims=True)) / x.std(3, ddof=1, keepdims=True), "ddof1",
    ),
    "eps outside": (
        "formula", {"lines": "x / sqrt(mean(x^2) + eps)", "axes": (3,), "let": {"eps": np.float64(0.5)}},
        lambda x: x / (np.sqrt((x**2).mean(3, keepdims=True)) + 0.5), "eps_outside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SLIPS.values(), ids=list(SLIPS))
def test_a_slip_has_its_name(case: tuple[str, dict[str, Any], Any, str]) -> None:
    kind, options, slipped, key = case
    x = np.random.default_rng(6).normal(0.5, 1, SHAPE).round(2)
    verdict = judged(kind, x, {"output": slipped(x)}, decimals=6, **options)
    assert not verdict.ok
    assert (key,) in verdict.keys
    assert all(found.text.startswith("Your numbers are what ") for found in verdict.diagnoses)


# --- what can be answered for ---------------------------------------------------------------------------


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "a kind": (
        {"kind": "lp", "input": [[3, 4]], "options": {"p": 1}, "expect": {"output": [[0.43, 0.57]], "size": [7]}}, ""
    ),
    "axes": ({"kind": "softmax", "input": [[1, 2], [1, 4]], "options": {"axes": [0]}, "expect": {"top": [1, 4]}}, ""),
    "tensors and gradients": (
        {
            "kind": "frn", "input": [[[1, 2, 4], [1, 1, 2]]], "options": {"tau": [1.5, 1], "eps": 0},
            "grad_output": "ones", "expect": {"grad_tau": [2, 2]},
        },
        "",
    ),
    "a formula": (
        {
            "kind": "formula", "input": [[1, 2, 4]],
            "options": {
                "lines": "m = mean(x); y = w * (x - m) / (std(x) + eps)", "axes": [1], "let": {"eps": 0, "w": [1, 2, 3]}
            },
            "expect": {"m": [2.3333], "output": [[-1.0690, -0.5345, 4.0089]]},
        },
        "",
    ),
    "no such line": (
        {"kind": "lp", "input": [[3, 4]], "expect": {"mean": [1]}}, "expect has 'mean'; use size, output or grad_input"
    ),
    "no axes": (
        {"kind": "lp", "input": [[3, 4]], "options": {"axes": "all"}, "expect": {"size": [1]}},
        "axes is 'all'; it must be a list of whole numbers",
    ),
    "no formula": ({"kind": "formula", "input": [[3, 4]], "expect": {"output": [1]}}, "lines is None; give a formula"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES.values(), ids=list(FILES))
def test_a_worked_example_may_be_of_any_kind(tmp_path: Any, case: tuple[dict[str, Any], str]) -> None:
    document, message = case
    path = tmp_path / "example.json"
    path.write_text(json.dumps(document))
    if not message:
        assert check_file(path)[1].ok
        return
    with pytest.raises(InputError) as error:
        check_file(path)
    assert message in str(error.value)


def test_an_answer_may_be_for_any_line(normcli: Any) -> None:
    assert normcli("lp", "[[3,4]]", "--expect", "size=[5]").returncode == 0
    formula = ("formula", "m = mean(x); y = x - m", "[[1,2,4]]", "--axes", "1")
    assert [normcli(*formula, "--expect", f"m=[{mean}]").returncode for mean in (2.3333, 2.4)] == [0, 1]
    done = normcli("lp", "[[3,4]]", "--expect", "mean=[5]")
    assert (done.returncode, done.stderr) == (
        2, "error: mean is not computed here; an answer can be given for output or size\n"
    )  # fmt: skip
