"""torch and the reference on the same tensors: outputs, running statistics, modules and functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normcli

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

nn, functional = torch.nn, torch.nn.functional

# What torch's own arithmetic may be off by, for data of size 1 around 0 or 3. See pytorch #51102, #98075.
TOLERANCE = {"float64": {"rtol": 1e-12, "atol": 1e-13}, "float32": {"rtol": 2e-5, "atol": 2e-6}}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def drawn(shape: tuple[int, ...], dtype: str, *, mean: float = 3.0, seed: int = 5) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 2 + mean).astype(dtype)


def parameters(shape: tuple[int, ...], dtype: str) -> dict[str, np.ndarray]:
    return {"weight": drawn(shape, dtype, mean=1.5, seed=6), "bias": drawn(shape, dtype, mean=-0.5, seed=7)}


def as_torch(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def assert_agree(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected.detach().numpy(), **TOLERANCE[str(actual.dtype)])


def assert_state_agrees(actual: np.ndarray, expected: Any) -> None:
    """The reference's state is float64; torch keeps the dtype of its buffers."""
    np.testing.assert_allclose(actual, expected.numpy(), **TOLERANCE[str(expected.numpy().dtype)])


# shape of x, shape of weight, kind, options, torch's function of (x, weight, bias)
FUNCTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, dict[str, Any], Callable[..., Any]]] = {
    "batch_2d": (
        (7, 3),
        (3,),
        "batch",
        {},
        lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True),
    ),
    "batch_4d_eps": (
        (4, 3, 5, 2),
        (3,),
        "batch",
        {"eps": 1e-2},
        lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True, eps=1e-2),
    ),
    "instance_3d": ((4, 3, 6), (3,), "instance", {}, lambda x, w, b: functional.instance_norm(x, weight=w, bias=b)),
    "instance_5d": (
        (2, 3, 2, 4, 5),
        (3,),
        "instance",
        {},
        lambda x, w, b: functional.instance_norm(x, weight=w, bias=b),
    ),
    "layer_last": ((4, 3, 6), (6,), "layer", {}, lambda x, w, b: functional.layer_norm(x, (6,), w, b)),
    "layer_3_axes": (
        (4, 3, 6, 5),
        (3, 6, 5),
        "layer",
        {"normalized_shape": (3, 6, 5), "eps": 1e-3},
        lambda x, w, b: functional.layer_norm(x, (3, 6, 5), w, b, eps=1e-3),
    ),
    "group_2d": ((4, 6), (6,), "group", {"groups": 3}, lambda x, w, b: functional.group_norm(x, 3, w, b)),
    "group_4d": ((4, 6, 5, 2), (6,), "group", {"groups": 2}, lambda x, w, b: functional.group_norm(x, 2, w, b)),
    "group_1": ((4, 6, 5, 2), (6,), "group", {"groups": 1}, lambda x, w, b: functional.group_norm(x, 1, w, b)),
}


@pytest.mark.parametrize("case", list(FUNCTIONS.values()), ids=list(FUNCTIONS))
@each_dtype
def test_function(case: tuple, dtype: str) -> None:
    shape, form, kind, options, function = case
    x, learned = drawn(shape, dtype), parameters(form, dtype)
    expected = function(torch.from_numpy(x), *as_torch(learned).values())
    assert_agree(normcli.normalize(x, kind, **options, **learned).output, expected)


@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("form", [(6,), (3, 6)], ids=str)
@each_dtype
def test_rms_norm(eps: float | None, form: tuple[int, ...], dtype: str) -> None:
    x, weight = drawn((4, 3, 6), dtype), parameters(form, dtype)["weight"]
    expected = functional.rms_norm(torch.from_numpy(x), form, torch.from_numpy(weight), eps=eps)
    assert_agree(normcli.normalize(x, "rms", weight=weight, normalized_shape=form, eps=eps).output, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_default_eps_of_rms_norm(dtype: str) -> None:
    opmath = torch.float64 if dtype == "float64" else torch.float32
    assert normcli.normalize([[0.0, 1.0]], "rms", dtype=dtype).plan.eps == torch.finfo(opmath).eps


def test_rms_norm_of_tiny_values_shows_the_default_eps() -> None:
    x = np.array([[1e-4, -2e-4, 3e-4]], np.float32)
    assert_agree(normcli.normalize(x, "rms").output, functional.rms_norm(torch.from_numpy(x), (3,)))


@pytest.mark.parametrize("kind", ["batch", "instance"])
@each_dtype
def test_eval_function(kind: str, dtype: str) -> None:
    x, learned = drawn((4, 3, 6), dtype), parameters((3,), dtype)
    state = {"running_mean": drawn((3,), dtype, seed=8), "running_var": abs(drawn((3,), dtype, seed=9))}
    expected = functional.batch_norm(
        torch.from_numpy(x), **as_torch(state), **as_torch(learned), training=False, eps=1e-5
    )
    assert_agree(normcli.normalize(x, kind, mode="eval", **state, **learned).output, expected)


# module of 3 channels, shape of the batches, kind, options
MODULES: dict[str, tuple[Callable[..., Any], tuple[int, ...], str, dict[str, Any]]] = {
    "BatchNorm1d_2d": (lambda: nn.BatchNorm1d(3), (7, 3), "batch", {}),
    "BatchNorm1d_3d": (lambda: nn.BatchNorm1d(3), (1, 3, 5), "batch", {}),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 2), "batch", {}),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), (2, 3, 4, 1, 5), "batch", {}),
    "BatchNorm2d_momentum": (
        lambda: nn.BatchNorm2d(3, momentum=0.35, eps=1e-3),
        (4, 3, 5, 2),
        "batch",
        {"momentum": 0.35, "eps": 1e-3},
    ),
    "BatchNorm2d_momentum_none": (
        lambda: nn.BatchNorm2d(3, momentum=None),
        (4, 3, 5, 2),
        "batch",
        {"momentum": None},
    ),
    "InstanceNorm1d": (
        lambda: nn.InstanceNorm1d(3, track_running_stats=True),
        (4, 3, 6),
        "instance",
        {"track_running_stats": True},
    ),
    "InstanceNorm2d_affine": (
        lambda: nn.InstanceNorm2d(3, track_running_stats=True, affine=True, momentum=0.4),
        (4, 3, 5, 2),
        "instance",
        {"track_running_stats": True, "momentum": 0.4},
    ),
    "InstanceNorm3d": (
        lambda: nn.InstanceNorm3d(3, track_running_stats=True),
        (4, 3, 2, 3, 2),
        "instance",
        {"track_running_stats": True},
    ),
}
each_module = pytest.mark.parametrize("case", list(MODULES.values()), ids=list(MODULES))


def trained(module: Any, batches: list[np.ndarray]) -> Any:
    """The output for the last batch, after the module has seen all of them in training."""
    return [module(torch.from_numpy(batch)) for batch in batches][-1]


def tracked(batches: list[np.ndarray], kind: str, options: dict[str, Any]) -> normcli.Result:
    """The same three batches, each from the state that the one before left."""
    first = normcli.normalize(batches[0], kind, **options)
    second = normcli.normalize(batches[1], kind, **options, **fed_back(first))
    return normcli.normalize(batches[2], kind, **options, **fed_back(second))


def fed_back(result: normcli.Result) -> dict[str, Any]:
    return {
        "running_mean": result.running_mean,
        "running_var": result.running_var,
        "num_batches_tracked": result.num_batches_tracked,
    }


def three_batches(shape: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    return [drawn(shape, dtype, mean=mean, seed=seed) for mean, seed in ((0.0, 1), (3.0, 2), (-2.0, 3))]


@each_module
@each_dtype
def test_module_in_training(case: tuple, dtype: str) -> None:
    make, shape, kind, options = case
    batches = three_batches(shape, dtype)
    expected = trained(make().to(getattr(torch, dtype)), batches)
    assert_agree(tracked(batches, kind, options).output, expected)


@each_module
@each_dtype
@pytest.mark.parametrize("quantity", ["running_mean", "running_var"])
def test_running_statistics_of_the_module(case: tuple, dtype: str, quantity: str) -> None:
    make, shape, kind, options = case
    batches, module = three_batches(shape, dtype), make().to(getattr(torch, dtype))
    trained(module, batches)
    assert_state_agrees(getattr(tracked(batches, kind, options), quantity), getattr(module, quantity))


@each_module
@each_dtype
def test_module_in_eval(case: tuple, dtype: str) -> None:
    make, shape, kind, options = case
    batches, module = three_batches(shape, dtype), make().to(getattr(torch, dtype))
    trained(module, batches)
    x = drawn(shape, dtype, seed=4)
    result = normcli.normalize(x, kind, **options, **fed_back(tracked(batches, kind, options)), mode="eval")
    assert_agree(result.output, module.eval()(torch.from_numpy(x)))


@pytest.mark.parametrize(
    ("kind", "module"),
    [("batch", nn.BatchNorm2d(3)), ("instance", nn.InstanceNorm2d(3, track_running_stats=True))],
    ids=["BatchNorm2d", "InstanceNorm2d"],
)
def test_fresh_module_in_eval(kind: str, module: Any) -> None:
    x = drawn((4, 3, 5, 2), "float32")
    result = normcli.normalize(x, kind, mode="eval", track_running_stats=True)
    assert_agree(result.output, module.eval()(torch.from_numpy(x)))


def test_batches_are_counted_as_the_module_counts() -> None:
    batches, module = three_batches((7, 3), "float64"), nn.BatchNorm1d(3, dtype=torch.float64)
    trained(module, batches)
    assert tracked(batches, "batch", {}).num_batches_tracked == module.num_batches_tracked.item()


@pytest.mark.parametrize("mode", ["train", "eval"])
@each_dtype
def test_batch_norm_without_running_statistics(mode: str, dtype: str) -> None:
    x = drawn((4, 3, 5, 2), dtype)
    module = nn.BatchNorm2d(3, track_running_stats=False, dtype=getattr(torch, dtype)).train(mode == "train")
    result = normcli.normalize(x, "batch", track_running_stats=False, mode=mode)
    assert_agree(result.output, module(torch.from_numpy(x)))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_instance_norm_without_running_statistics(mode: str) -> None:
    x = drawn((4, 3, 5, 2), "float64")
    module = nn.InstanceNorm2d(3).train(mode == "train")
    assert_agree(normcli.normalize(x, "instance", mode=mode).output, module(torch.from_numpy(x)))


def test_instance_norm_of_one_sample_without_its_batch_axis() -> None:
    x = drawn((3, 6), "float64")
    assert_agree(normcli.normalize(x, "instance").output, nn.InstanceNorm1d(3)(torch.from_numpy(x)))


# What torch refuses, and what it computes although one might think it would not.

REFUSED = {
    "batch_one_value": ((1, 3), "batch", {}, lambda: nn.BatchNorm1d(3)),
    "batch_one_value_eval": (
        (1, 3),
        "batch",
        {"track_running_stats": False, "mode": "eval"},
        lambda: nn.BatchNorm1d(3, track_running_stats=False).eval(),
    ),
    "instance_one_value": ((4, 3, 1), "instance", {}, lambda: nn.InstanceNorm1d(3)),
    "group_one_value": ((1, 3), "group", {"groups": 3}, lambda: nn.GroupNorm(3, 3)),
}
each_refused = pytest.mark.parametrize("case", list(REFUSED.values()), ids=list(REFUSED))


@each_refused
def test_normcli_refuses_one_value(case: tuple) -> None:
    shape, kind, options, _ = case
    with pytest.raises(ValueError, match="more than 1 value per"):
        normcli.normalize(drawn(shape, "float32"), kind, **options)


@each_refused
def test_torch_refuses_one_value(case: tuple) -> None:
    shape, _, _, make = case
    x = torch.from_numpy(drawn(shape, "float32"))
    module = make()
    with pytest.raises(ValueError, match="more than 1"):
        module(x)


def test_several_samples_of_one_value_for_each_group_give_the_bias() -> None:
    x, bias = drawn((4, 3), "float64"), np.array([0.5, -1.0, 2.0])
    expected = functional.group_norm(torch.from_numpy(x), 3, bias=torch.from_numpy(bias))
    assert_agree(normcli.normalize(x, "group", groups=3, bias=bias).output, expected)
