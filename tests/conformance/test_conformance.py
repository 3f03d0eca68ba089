"""Every convention against the framework it is named after.

The real layers run on seeded data, with their own default arguments wherever they have them, and must
agree with ``normcli.normalize(..., convention=...)``. Run it in an environment of its own:

    pip install '.[conformance]' && python -m pytest tests/conformance -o addopts='' -o filterwarnings=''
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.errors import InputError

os.environ.setdefault("KERAS_BACKEND", "jax")  # its moments take two passes; the numpy backend's take one

Array = np.ndarray[Any, np.dtype[Any]]

SHAPE_LAST = (5, 3, 4, 6)  # samples, height, width, channels: all different
SHAPE_SECOND = (5, 6, 3, 4)
CHANNELS = 6

RNG = np.random.default_rng(20)
BATCHES_LAST = [RNG.normal(0.7, 2.0, SHAPE_LAST).astype(np.float32) for _ in range(3)]
BATCHES_SECOND = [np.moveaxis(batch, -1, 1).copy() for batch in BATCHES_LAST]
WEIGHT = RNG.uniform(-2.0, 2.0, CHANNELS).astype(np.float32)
BIAS = RNG.normal(size=CHANNELS).astype(np.float32)
MEAN = RNG.normal(size=CHANNELS).astype(np.float32)
VAR = RNG.uniform(0.5, 3.0, CHANNELS).astype(np.float32)


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours, np.float64), np.asarray(theirs, np.float64), rtol=2e-5, atol=2e-5)


def trained(convention: str, batches: list[Array], **options: Any) -> list[normcli.Result]:
    """The results of consecutive batches, the running statistics carried over."""
    results: list[normcli.Result] = []
    state: dict[str, Any] = {}
    for batch in batches:
        result = normcli.normalize(batch, "batch", convention=convention, weight=WEIGHT, bias=BIAS, **options, **state)
        state = {"running_mean": result.running_mean, "running_var": result.running_var}
        results.append(result)
    return results


# --- keras ----------------------------------------------------------------------------------------


def keras_layer(name: str, *arguments: Any, **options: Any) -> Any:
    keras = pytest.importorskip("keras", reason="keras is not installed")
    layer = getattr(keras.layers, name)(*arguments, **options)
    layer.build(SHAPE_LAST)
    return layer


def with_affine(layer: Any, *more: Array) -> Any:
    layer.set_weights([WEIGHT, BIAS, *more] if len(layer.weights) > 1 else [WEIGHT])
    return layer


@pytest.mark.parametrize("count", [1, 3])
def test_keras_batch_in_training(count: int) -> None:
    layer = with_affine(
        keras_layer("BatchNormalization"), np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32)
    )
    outputs = [np.asarray(layer(batch, training=True)) for batch in BATCHES_LAST[:count]]
    last = trained("keras", BATCHES_LAST[:count])[-1]
    close(last.output, outputs[-1])
    close(last.running_mean, layer.moving_mean)
    close(last.running_var, layer.moving_variance)


def test_keras_batch_in_evaluation() -> None:
    layer = with_affine(keras_layer("BatchNormalization"), MEAN, VAR)
    ours = normcli.normalize(
        BATCHES_LAST[0], "batch", convention="keras", mode="eval",
        weight=WEIGHT, bias=BIAS, running_mean=MEAN, running_var=VAR,
    )  # fmt: skip
    close(ours.output, layer(BATCHES_LAST[0], training=False))


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "options"),
    [
        ("layer", "LayerNormalization", {}, {"bias": BIAS}),
        ("rms", "RMSNormalization", {}, {}),
        ("group", "GroupNormalization", {"groups": 3}, {"groups": 3, "bias": BIAS}),
        ("instance", "GroupNormalization", {"groups": -1}, {"bias": BIAS}),
    ],
    ids=["layer", "rms", "group", "instance"],
)
def test_keras_layers(kind: str, name: str, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    layer = with_affine(keras_layer(name, **arguments))
    ours = normcli.normalize(BATCHES_LAST[0], kind, convention="keras", weight=WEIGHT, **options)
    close(ours.output, layer(BATCHES_LAST[0]))


def test_keras_computes_one_value_per_channel() -> None:
    layer = keras_layer("BatchNormalization")
    x = BATCHES_LAST[0][:1, :1, :1]
    ours = normcli.normalize(x, "batch", convention="keras")
    close(ours.output, layer(x, training=True))
    close(ours.running_var, layer.moving_variance)


# --- flax -----------------------------------------------------------------------------------------


def flax_module(name: str, **options: Any) -> Any:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")
    return getattr(linen, name)(**options)


FLAX_AFFINE = {"scale": WEIGHT, "bias": BIAS}


@pytest.mark.parametrize("count", [1, 3])
def test_flax_batch_in_training(count: int) -> None:
    module = flax_module("BatchNorm", use_running_average=False)
    stats: Any = {"mean": np.zeros(CHANNELS, np.float32), "var": np.ones(CHANNELS, np.float32)}
    for batch in BATCHES_LAST[:count]:
        variables = {"params": FLAX_AFFINE, "batch_stats": stats}
        output, updated = module.apply(variables, batch, mutable=["batch_stats"])
        stats = updated["batch_stats"]
    last = trained("flax", BATCHES_LAST[:count])[-1]
    close(last.output, output)
    close(last.running_mean, stats["mean"])
    close(last.running_var, stats["var"])


def test_flax_batch_in_evaluation() -> None:
    module = flax_module("BatchNorm", use_running_average=True)
    variables = {"params": FLAX_AFFINE, "batch_stats": {"mean": MEAN, "var": VAR}}
    ours = normcli.normalize(
        BATCHES_LAST[0], "batch", convention="flax", mode="eval",
        weight=WEIGHT, bias=BIAS, running_mean=MEAN, running_var=VAR,
    )  # fmt: skip
    close(ours.output, module.apply(variables, BATCHES_LAST[0]))


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "options"),
    [
        ("layer", "LayerNorm", {}, {"bias": BIAS}),
        ("rms", "RMSNorm", {}, {}),
        ("group", "GroupNorm", {"num_groups": 3}, {"groups": 3, "bias": BIAS}),
        ("instance", "InstanceNorm", {}, {"bias": BIAS}),
    ],
    ids=["layer", "rms", "group", "instance"],
)
def test_flax_layers(kind: str, name: str, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    params = FLAX_AFFINE if kind != "rms" else {"scale": WEIGHT}
    theirs = flax_module(name, **arguments).apply({"params": params}, BATCHES_LAST[0])
    close(normcli.normalize(BATCHES_LAST[0], kind, convention="flax", weight=WEIGHT, **options).output, theirs)


# --- mlx ------------------------------------------------------------------------------------------


def mlx_layer(name: str, *arguments: Any, **options: Any) -> tuple[Any, Callable[[Array], Any]]:
    layers = pytest.importorskip("mlx.nn", reason="mlx is not installed")
    core = pytest.importorskip("mlx.core", reason="mlx is not installed")
    layer = getattr(layers, name)(*arguments, **options)
    layer.weight = core.array(WEIGHT)
    layer.bias = core.array(BIAS)
    return layer, core.array


@pytest.mark.parametrize("count", [1, 3])
def test_mlx_batch_in_training(count: int) -> None:
    layer, array = mlx_layer("BatchNorm", CHANNELS)
    outputs = [np.array(layer(array(batch))) for batch in BATCHES_LAST[:count]]
    last = trained("mlx", BATCHES_LAST[:count])[-1]
    close(last.output, outputs[-1])
    close(last.running_mean, np.array(layer.running_mean))
    close(last.running_var, np.array(layer.running_var))


def test_mlx_batch_in_evaluation() -> None:
    layer, array = mlx_layer("BatchNorm", CHANNELS)
    layer.running_mean, layer.running_var = array(MEAN), array(VAR)
    layer.eval()
    ours = normcli.normalize(
        BATCHES_LAST[0], "batch", convention="mlx", mode="eval",
        weight=WEIGHT, bias=BIAS, running_mean=MEAN, running_var=VAR,
    )  # fmt: skip
    close(ours.output, np.array(layer(array(BATCHES_LAST[0]))))


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "options"),
    [
        ("layer", "LayerNorm", (CHANNELS,), {"bias": BIAS}),
        ("rms", "RMSNorm", (CHANNELS,), {}),
        ("group", "GroupNorm", (3, CHANNELS), {"groups": 3, "bias": BIAS}),
    ],
    ids=["layer", "rms", "group interleaved"],
)
def test_mlx_layers(kind: str, name: str, arguments: tuple[int, ...], options: dict[str, Any]) -> None:
    layer, array = mlx_layer(name, *arguments)
    ours = normcli.normalize(BATCHES_LAST[0], kind, convention="mlx", weight=WEIGHT, **options)
    close(ours.output, np.array(layer(array(BATCHES_LAST[0]))))


def test_mlx_instance_has_no_weight_by_default() -> None:
    layer, array = mlx_layer("InstanceNorm", CHANNELS)
    del layer.weight, layer.bias
    ours = normcli.normalize(BATCHES_LAST[0], "instance", convention="mlx")
    assert not ours.plan.affine
    close(ours.output, np.array(layer(array(BATCHES_LAST[0]))))


def test_mlx_refuses_one_value_per_channel_and_so_do_we() -> None:
    layer, array = mlx_layer("BatchNorm", CHANNELS)
    x = BATCHES_LAST[0][:1, :1, :1]
    with pytest.raises(ValueError, match="more than one value"):
        layer(array(x))
    with pytest.raises(InputError, match="more than 1 value per channel"):
        normcli.normalize(x, "batch", convention="mlx")


# --- onnx -----------------------------------------------------------------------------------------


def onnx_run(operator: str, opset: int, inputs: dict[str, Array], outputs: list[str], **attributes: Any) -> list[Array]:
    """One operator in ONNX's reference evaluator."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    evaluator = pytest.importorskip("onnx.reference", reason="onnx is not installed").ReferenceEvaluator
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), outputs, **attributes)],
        "one",
        [helper.make_tensor_value_info(name, kind, array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    found: list[Array] = evaluator(model).run(None, inputs)
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_onnx_batch_in_training(count: int) -> None:
    mean, var = np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32)
    for batch in BATCHES_SECOND[:count]:
        inputs = {"x": batch, "scale": WEIGHT, "bias": BIAS, "mean": mean, "var": var}
        output, mean, var = onnx_run("BatchNormalization", 15, inputs, ["y", "m", "v"], training_mode=1)
    last = trained("onnx", BATCHES_SECOND[:count])[-1]
    close(last.output, output)
    close(last.running_mean, mean)
    close(last.running_var, var)


def test_onnx_batch_in_evaluation() -> None:
    # Opset 15: the evaluator's inference of opset 9 blends the batch into the statistics.
    inputs = {"x": BATCHES_SECOND[0], "scale": WEIGHT, "bias": BIAS, "mean": MEAN, "var": VAR}
    ours = normcli.normalize(
        BATCHES_SECOND[0], "batch", convention="onnx", mode="eval",
        weight=WEIGHT, bias=BIAS, running_mean=MEAN, running_var=VAR,
    )  # fmt: skip
    close(ours.output, onnx_run("BatchNormalization", 15, inputs, ["y"])[0])


@pytest.mark.parametrize(
    ("kind", "operator", "opset", "attributes", "options"),
    [
        ("layer", "LayerNormalization", 17, {}, {"bias": BIAS}),
        ("rms", "RMSNormalization", 23, {}, {}),
        # In one pass and float32, as the evaluator computes it, which is enough for these means.
        ("group", "GroupNormalization", 21, {"num_groups": 3}, {"groups": 3, "bias": BIAS}),
        ("instance", "InstanceNormalization", 22, {}, {"bias": BIAS}),
    ],
    ids=["layer", "rms", "group", "instance"],
)
def test_onnx_operators(
    kind: str, operator: str, opset: int, attributes: dict[str, Any], options: dict[str, Any]
) -> None:
    x = BATCHES_LAST[0] if kind in ("layer", "rms") else BATCHES_SECOND[0]
    inputs = {"x": x, "scale": WEIGHT} | ({"bias": BIAS} if "bias" in options else {})
    ours = normcli.normalize(x, kind, convention="onnx", weight=WEIGHT, **options)
    close(ours.output, onnx_run(operator, opset, inputs, ["y"], **attributes)[0])


# --- d2l: from scratch, no framework ----------------------------------------------------------------


def test_d2l_in_training() -> None:
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    for batch in BATCHES_SECOND:
        own_mean = batch.astype(np.float64).mean((0, 2, 3))
        own_var = ((batch - own_mean[:, None, None]) ** 2).mean((0, 2, 3))
        mean, var = 0.9 * mean + 0.1 * own_mean, 0.9 * var + 0.1 * own_var
    last = trained("d2l", BATCHES_SECOND)[-1]
    close(last.running_mean, mean)
    close(last.running_var, var)
