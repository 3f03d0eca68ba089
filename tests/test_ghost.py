"""Batches that are normalized in parts, in common, or by what earlier ones have left."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import Run
from oracle import MOST_ULPS, exact, exact_gradients, ulps

import normcli
from normcli.arithmetic import loops, reference
from normcli.calculate import initial_state, normalize
from normcli.errors import InputError
from normcli.planning.plan import plan

X = [[1, 2], [3, 4], [6, 1], [2, 5], [0, 3], [9, 1]]
ROWS = json.dumps(X)


def numbers(*shape: int, dtype: Any = np.float64, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def parameters(channels: int) -> dict[str, Any]:
    return {"eps": 1e-3, "weight": numbers(channels, seed=4), "bias": numbers(channels, seed=5)}


def of_x(**options: Any) -> Any:
    return normalize(X, "batch", **options)


# --- virtual batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), [((6, 3), 1), ((6, 3, 4), 1), ((6, 4, 5, 3), -1)])
def test_each_virtual_batch_is_a_batch_of_its_own(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    x, options = numbers(*shape, dtype=dtype), parameters(3) | {"channel_axis": axis}
    found = normcli.normalize(x, "batch", virtual_batch=2, **options)
    parts = [exact(x[start : start + 2], "batch", **options) for start in (0, 2, 4)]
    assert ulps(found.output, [y for part in parts for y in part.output]).max() <= MOST_ULPS[dtype]
    assert found.mean.shape == found.var.shape == (3, 3)
    np.testing.assert_allclose(found.var, np.array([part.var for part in parts], float), 1e-13)


@pytest.mark.parametrize(("momentum", "old", "new"), [(0.25, 0.75, 0.25), (None, 0.8, 0.2)])
def test_running_statistics_take_the_mean_of_the_virtual_batches(
    momentum: float | None, old: float, new: float
) -> None:
    x, before = numbers(6, 3, 4), {"running_mean": numbers(3, seed=8), "running_var": numbers(3, seed=9) ** 2}
    found = normcli.normalize(x, "batch", virtual_batch=3, momentum=momentum, num_batches_tracked=4, **before)
    halves = x.reshape(2, 3, 3, 4)
    mean, var = halves.mean((1, 3)).mean(0), halves.var((1, 3), ddof=1).mean(0)
    np.testing.assert_allclose(found.running_mean, old * before["running_mean"] + new * mean, 1e-13)
    np.testing.assert_allclose(found.running_var, old * before["running_var"] + new * var, 1e-13)
    assert found.num_batches_tracked == 5


def test_gradients_of_virtual_batches() -> None:
    x, flow, options = numbers(6, 3, 4), numbers(6, 3, 4, seed=6), parameters(3)
    found = normcli.normalize(x, "batch", virtual_batch=3, grad_output=flow, **options)
    options.pop("bias")
    parts = [exact_gradients(x[half], flow[half], "batch", **options) for half in (np.s_[:3], np.s_[3:])]
    right = np.array([value for part in parts for value in part.input], float).reshape(x.shape)
    np.testing.assert_allclose(found.grad_input, right, 1e-12, 1e-14)
    for name in ("weight", "bias"):
        np.testing.assert_allclose(
            found.named[f"grad_{name}"], sum(np.array(getattr(part, name), float) for part in parts), 1e-12, 1e-14
        )


def test_one_virtual_batch_is_the_batch() -> None:
    x = numbers(6, 3, 4)
    whole, one = normcli.normalize(x, "batch"), normcli.normalize(x, "batch", virtual_batch=6)
    assert (whole.output == one.output).all()
    assert (whole.running_var == one.running_var).all()


@pytest.mark.skipif(loops.compiled() is None, reason="without the compiled loops there is one way")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 6, 500), (4000, 60), (12, 5, 3)])
def test_compiled_loops_give_what_the_lines_give(
    shape: tuple[int, ...], dtype: str, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, flow = (np.asarray(numbers(*shape, dtype=dtype, seed=seed), order=order) for seed in (3, 6))
    options = parameters(shape[1]) | {"virtual_batch": 4}
    settled = plan("batch", shape, dtype, options)
    state = initial_state(settled, options)
    backward = [None, *([flow] if x.size > reference.SMALL else [])]
    slow = [reference.by_lines(x, settled, state, grad_output=flow) for flow in backward]
    monkeypatch.setattr(reference, "by_lines", None)  # it is not asked
    monkeypatch.setattr(reference, "_is_worth_the_loops", lambda size: True)
    for right, flow in zip(slow, backward, strict=True):
        found = reference.normalize(x, settled, state, grad_output=flow)
        near = 1e-13 if dtype == "float64" else 1e-7
        np.testing.assert_allclose(found.output, right.output, near, near)
        np.testing.assert_allclose(found.mean, right.mean, 1e-12, 1e-15)
        np.testing.assert_allclose(found.running_var, right.running_var, 1e-13)
        if flow is not None:
            np.testing.assert_allclose(found.grad_input, right.grad_input, near, near)
            np.testing.assert_allclose(found.grad_weight, right.grad_weight, 1e-11, 1e-11)


def test_virtual_batches_of_a_file(normcli: Run, tmp_path: Any) -> None:
    x = numbers(40, 6, 500)
    np.save(tmp_path / "x.npy", x)
    arguments = ("batch", str(tmp_path / "x.npy"), "--virtual-batch", "8", "-o", str(tmp_path / "y.npy"))
    assert normcli(*arguments, "--only", "statistics").returncode == 0
    parts = x.reshape(5, 8, 6, 500)
    right = (parts - parts.mean((1, 3), keepdims=True)) / np.sqrt(parts.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), right.reshape(x.shape), 1e-12, 1e-12)


REFUSED = {
    "no divisor": ({"virtual_batch": 4}, "6 samples cannot be split into virtual batches of 4; use 1, 2, 3 or 6"),
    "none": ({"virtual_batch": 0}, "virtual_batch is 0; it must be 1 or more"),
    "a fraction": ({"virtual_batch": 1.5}, "virtual_batch is 1.5; it must be a whole number"),
    "one value": ({"virtual_batch": 1}, "virtual batch size x spatial size is 1 in shape (6, 2)"),
    "eval": ({"virtual_batch": 2, "mode": "eval"}, "--mode eval takes the running statistics for all samples"),
    "channels first": ({"virtual_batch": 2, "channel_axis": 0}, "channel axis 0 holds the channels"),
    "a weight for each": (
        {"virtual_batch": 2, "track_running_stats": False, "weight": np.ones((6, 2))},
        "weight has shape (6, 2); (2,) is needed, the number of channels of this tensor",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        normcli.normalize(X, "batch", **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "torch"), "torch has no virtual batches; --virtual-batch needs the numpy backend"),
        (("--format", "torch"), "PyTorch's layer has no --virtual-batch; use --format python"),
    ],
)
def test_torch_has_none(arguments: tuple[str, ...], message: str, normcli: Run) -> None:
    pytest.importorskip("torch")
    done = normcli("batch", ROWS, "--virtual-batch", "2", *arguments)
    assert done.stderr == f"error: {message}\n"


def _dealt(x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    for batch in (np.s_[::2], np.s_[1::2]):
        y[batch] = normcli.normalize(x[batch], "batch").output
    return y


SLIPS = {
    "all together": (lambda x: normcli.normalize(x, "batch").output, "virtual_omitted"),
    "dealt": (_dealt, "virtual_dealt"),
    "another size": (lambda x: normcli.normalize(x, "batch", virtual_batch=2).output, "virtual_other"),
    "unbiased": (lambda x: normcli.normalize(x, "batch", virtual_batch=3, ddof=1).output, "ddof1"),
}


@pytest.mark.parametrize(("answer", "key"), SLIPS.values(), ids=SLIPS)
def test_the_slip_is_named(answer: Any, key: str, normcli: Run) -> None:
    expected = json.dumps(answer(np.array(X, float)).round(4).tolist())
    done = normcli("batch", ROWS, "--virtual-batch", "3", "--expect", expected, "--json")
    assert [one["keys"] for one in json.loads(done.stdout)["check"]["diagnoses"]] == [[key]]


def test_the_trace_names_the_virtual_batch(normcli: Run) -> None:
    done = normcli("batch", ROWS, "--virtual-batch", "2", "--only", "trace", "--trace")
    assert done.stdout.splitlines()[0] == "trace of virtual batch 0, channel 0"
    assert "0.9 * 0 + 0.1 * (2 + 4 + 4.5000)/3" in done.stdout


def test_the_script_gives_the_same(normcli: Run) -> None:
    done = normcli("batch", ROWS, "--virtual-batch", "3", "--format", "python")
    names: dict[str, Any] = {}
    exec(done.stdout.replace("print(output)", ""), names)
    found = of_x(virtual_batch=3)
    np.testing.assert_allclose(names["output"], found.output, 1e-13, 1e-13)
    np.testing.assert_allclose(names["new_running_var"], found.running_var, 1e-13)


# --- batch renormalization ------------------------------------------------------------------------

BEFORE = {"running_mean": [1, 2], "running_var": [4, 2]}
RENORM = ("batch", ROWS, "--renorm", "--running-mean", "[1,2]", "--running-var", "[4,2]")


def renormalized(
    x: Any, flow: Any, options: dict[str, Any], rmax: float, dmax: float, *, stopped: bool = True, eps: float = 0.0
) -> dict[str, np.ndarray]:
    """Algorithm 1 of Ioffe 2017 in torch, differentiated by autograd; ``eps`` is in the running deviation too."""
    torch = pytest.importorskip("torch")
    given = {name: torch.tensor(np.asarray(value, float)) for name, value in options.items() if name != "eps"}
    leaves = [torch.tensor(np.asarray(x, float)), given["weight"], given["bias"]]
    x, weight, bias = (leaf.requires_grad_() for leaf in leaves)
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    spread = (1, -1) + (1,) * (x.ndim - 2)
    mean, std = x.mean(axes), (x.var(axes, correction=0) + options["eps"]).sqrt()
    old = (given["running_var"] + eps).sqrt()
    r, d = (std / old).clip(1 / rmax, rmax), ((mean - given["running_mean"]) / old).clip(-dmax, dmax)
    r, d = (r.detach(), d.detach()) if stopped else (r, d)
    normalized = (x - mean.reshape(spread)) / std.reshape(spread)
    y = (normalized * r.reshape(spread) + d.reshape(spread)) * weight.reshape(spread) + bias.reshape(spread)
    gradients = torch.autograd.grad(y, leaves, torch.tensor(np.asarray(flow, float)))
    found = dict(zip(("grad_input", "grad_weight", "grad_bias"), gradients, strict=True)) | {
        "output": y,
        "r": r,
        "d": d,
    }
    return {name: value.detach().numpy() for name, value in found.items()}


@pytest.mark.parametrize(("rmax", "dmax"), [(3, 5), (1.1, 0.3), (1, 0)])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4)])
def test_renormalized_as_autograd_has_it(shape: tuple[int, ...], rmax: float, dmax: float) -> None:
    x, flow = numbers(*shape) * 2 + 1, numbers(*shape, seed=6)
    options = parameters(3) | {"running_mean": numbers(3, seed=8), "running_var": numbers(3, seed=9) ** 2 + 0.1}
    found = normalize(x, "batch", renorm=True, rmax=rmax, dmax=dmax, grad_output=flow, **options)
    for name, right in renormalized(x, flow, options, rmax, dmax).items():
        np.testing.assert_allclose(found.output if name == "output" else found.named[name], right, 1e-12, 1e-12)


def test_without_bounds_the_running_statistics_normalize() -> None:
    found = of_x(renorm=True, rmax=100, dmax=100, eps=0, **BEFORE)
    np.testing.assert_allclose(found.output, (np.array(X) - [1, 2]) / np.sqrt([4, 2]), 1e-14, 1e-14)


def test_r_1_and_d_0_are_batch_norm() -> None:
    plain, bound = of_x(**BEFORE), of_x(renorm=True, rmax=1, dmax=0, **BEFORE)
    np.testing.assert_allclose(bound.output, plain.output, 1e-15)
    assert (bound.running_mean == plain.running_mean).all()
    assert (bound.running_var == plain.running_var).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_tensors_are_renormalized(dtype: str) -> None:
    x = numbers(60, 6, 300, dtype=dtype)
    state = {"running_mean": numbers(6, seed=8), "running_var": numbers(6, seed=9) ** 2 + 0.1}
    found = normalize(x, "batch", renorm=True, rmax=2, dmax=1, **state)
    wide = x.astype(float)
    std = np.sqrt(wide.var((0, 2)) + 1e-5)
    r = np.clip(std / np.sqrt(state["running_var"]), 0.5, 2)
    d = np.clip((wide.mean((0, 2)) - state["running_mean"]) / np.sqrt(state["running_var"]), -1, 1)
    spread = [values[:, None] for values in (wide.mean((0, 2)), std, r, d)]
    right = (wide - spread[0]) / spread[1] * spread[2] + spread[3]
    near = 1e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(found.output, right, near, near)


RENORM_REFUSED = {
    "eval": ({"renorm": True, "mode": "eval"}, "--renorm is of training: --mode eval takes the running statistics"),
    "untracked": ({"renorm": True, "track_running_stats": False}, "--renorm needs the running statistics"),
    "virtual": ({"renorm": True, "virtual_batch": 2}, "--renorm and --virtual-batch cannot be combined here"),
    "alone": ({"dmax": 2.0}, "--dmax bounds what --renorm does; give --renorm too"),
    "rmax": ({"renorm": True, "rmax": 0.5}, "rmax is 0.5; it must be a finite number, 1 or more"),
    "dmax": ({"renorm": True, "dmax": -1.0}, "dmax is -1; it must be a finite number, 0 or more"),
    "word": ({"renorm": "yes"}, "renorm is 'yes'; use True or False"),
    "torch": ({"renorm": True, "backend": "torch"}, "torch has no batch renormalization"),
}


@pytest.mark.parametrize(("options", "message"), RENORM_REFUSED.values(), ids=RENORM_REFUSED)
def test_what_cannot_be_renormalized_is_refused(options: dict[str, Any], message: str) -> None:
    if "backend" in options:
        pytest.importorskip("torch")
    with pytest.raises(InputError) as error:
        of_x(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "torch"), "error: PyTorch's layer has no --renorm; use --format python\n"),
        (("--steps", "kratzert"), "error: the steps of kratzert have no batch renormalization; leave out --renorm or"),
    ],
)
def test_what_has_no_renormalization_says_so(arguments: tuple[str, ...], message: str, normcli: Run) -> None:
    assert normcli(*RENORM, *arguments).stderr.startswith(message)


def test_what_is_taken_for_the_running_statistics_is_said() -> None:
    assert of_x(renorm=True).warnings == (
        "no running statistics were given: --renorm takes 0 for the mean and 1 for the variance",
    )


FLOW = [[1, 0], [0, 2], [1, 1], [0, 0], [3, 1], [1, 1]]
PLAIN = {"weight": [2, 3], "bias": [1, -1], "eps": 0.1} | BEFORE
WORKED = (*RENORM, "--weight", "[2,3]", "--bias", "[1,-1]", "--eps", "0.1", "--dy", json.dumps(FLOW))
BOUNDED = ("--rmax", "1.05", "--dmax", "0.6")
# The answer, in what it differs, and the key.
RENORM_SLIPS = {
    "left out": ("output", {"rmax": 1, "dmax": 0}, "renorm_omitted"),
    "no bounds": ("output", {"rmax": 99, "dmax": 99}, "renorm_unclipped"),
    "no bound of d": ("output", {"rmax": 1.05, "dmax": 99}, "renorm_unclipped"),
    "d": ("d", {"rmax": 1.05, "dmax": 99}, "renorm_unclipped"),
    "gradient of the weight": ("grad_weight", {"rmax": 99, "dmax": 0.6}, "renorm_unclipped"),
    "flowing": ("grad_input", {"rmax": 1.05, "dmax": 0.6, "stopped": False}, "renorm_flowing"),
    "eps": ("output", {"rmax": 1.05, "dmax": 0.6, "eps": 0.1}, "renorm_eps"),
}


@pytest.mark.parametrize(("name", "other", "key"), RENORM_SLIPS.values(), ids=RENORM_SLIPS)
def test_the_slip_of_renormalization_is_named(name: str, other: dict[str, Any], key: str, normcli: Run) -> None:
    answer = renormalized(X, FLOW, PLAIN, **other)[name].round(5).tolist()
    done = normcli(*WORKED, *BOUNDED, "--expect", f"{name}={json.dumps(answer)}", "--json")
    assert [one["keys"] for one in json.loads(done.stdout)["check"]["diagnoses"]] == [[key]]


@pytest.mark.parametrize("decimals", ["exact", "2"])
@pytest.mark.parametrize("bounds", [(), BOUNDED])
@pytest.mark.parametrize("name", ["output", "grad_input", "grad_weight", "r", "d"])
def test_a_right_answer_checks(name: str, bounds: tuple[str, ...], decimals: str, normcli: Run) -> None:
    numbers = {"rmax": 1.05, "dmax": 0.6} if bounds else {"rmax": 3, "dmax": 5}
    answer = renormalized(X, FLOW, PLAIN, **numbers)[name].round(5).tolist()
    done = normcli(*WORKED, *bounds, "--expect", f"{name}={json.dumps(answer)}", "--input-decimals", decimals)
    assert done.stdout.startswith("checks: all ")


def test_a_rounded_input_is_followed_through_r_and_d(normcli: Run) -> None:
    rounded = (np.array(X) + numbers(6, 2) * 0.002).round(2)
    answer = renormalized(np.array(X) + numbers(6, 2) * 0.002, FLOW, PLAIN, 3, 5)["output"].round(5).tolist()
    arguments = (RENORM[0], json.dumps(rounded.tolist()), *WORKED[2:])
    done = normcli(*arguments, "--expect", json.dumps(answer), "--input-decimals", "2")
    assert done.stdout.startswith("checks, if the input was rounded to 2 decimals")


def test_the_lines_of_renormalization_in_the_trace(normcli: Run) -> None:
    done = normcli(*RENORM, "--trace", "--json")
    steps = {step["step"]: step for step in json.loads(done.stdout)["trace"]}
    assert steps["d"]["formula"] == "stop(clip((mean - running_mean) / sqrt(running_var), -5, 5))"
    assert steps["d"]["substituted"] == "clip((3.5000 - 1) / sqrt(4), -5, 5)"
    assert steps["output"]["formula"] == "(normalized * r + d) * weight + bias"
    assert json.loads(done.stdout)["options"]["rmax"] == 3


def test_the_script_renormalizes_too(normcli: Run) -> None:
    done = normcli(*RENORM, "--format", "python", "--dy", json.dumps(FLOW))
    names: dict[str, Any] = {}
    exec(done.stdout, names)
    found = of_x(renorm=True, grad_output=FLOW, **BEFORE)
    for name in ("output", "grad_input", "grad_weight"):
        right = found.output if name == "output" else found.named[name]
        np.testing.assert_allclose(names[name], right, 1e-12, 1e-12)
