"""The kinds beyond the family against the libraries that they are from, with these libraries' own defaults.

Beside the conventions of the family, in the same environment; see test_conformance.py.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from test_conformance import onnx_run

import normcli

os.environ.setdefault("KERAS_BACKEND", "jax")

Array = np.ndarray[Any, np.dtype[Any]]

RNG = np.random.default_rng(21)
X = RNG.normal(0.7, 2.0, (4, 4, 3, 5)).astype(np.float32)
TABLE = RNG.normal(3.0, 2.0, (7, 4)) * [1, 10, 1e-3, 1]
TABLE[:, 3] = 0.25  # one value alone: nothing to divide by


def close(ours: Any, theirs: Any, off: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(ours, np.float64), np.asarray(theirs, np.float64), rtol=off, atol=off)


# --- tables ---------------------------------------------------------------------------------------


def test_scikit_learn_scales_to_the_standard_deviation() -> None:
    module = pytest.importorskip("sklearn.preprocessing", reason="scikit-learn is not installed")
    close(normcli.normalize(TABLE, "zscore", convention="sklearn").output, module.StandardScaler().fit_transform(TABLE))


def test_scikit_learn_scales_to_the_range() -> None:
    module = pytest.importorskip("sklearn.preprocessing", reason="scikit-learn is not installed")
    close(normcli.normalize(TABLE, "minmax").output, module.MinMaxScaler().fit_transform(TABLE))


@pytest.mark.parametrize(("norm", "p"), [("l1", 1), ("l2", 2), ("max", float("inf"))])
def test_scikit_learn_divides_rows_by_a_norm(norm: str, p: float) -> None:
    module = pytest.importorskip("sklearn.preprocessing", reason="scikit-learn is not installed")
    rows = np.vstack([TABLE, np.zeros(4)])
    close(normcli.normalize(rows, "lp", p=p).output, module.Normalizer(norm).fit_transform(rows))


@pytest.mark.parametrize("ddof", [0, 1])
def test_scipy_has_the_same_scores(ddof: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    close(normcli.normalize(TABLE[:, :3], "zscore", ddof=ddof).output, stats.zscore(TABLE[:, :3], ddof=ddof))


def test_pandas_divides_by_one_less() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(TABLE[:, :3])
    close(normcli.normalize(TABLE[:, :3], "zscore", convention="pandas").output, (frame - frame.mean()) / frame.std())


# --- Keras and Flax -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 3e-13])  # the floor is eps squared, under the root
def test_keras_makes_unit_vectors(size: float) -> None:
    keras = pytest.importorskip("keras", reason="keras is not installed")
    x = (X * size).astype(np.float32)
    close(normcli.normalize(x, "lp", convention="keras").output, keras.layers.UnitNormalization()(x), 2e-6)


def test_keras_normalizes_by_a_singular_value() -> None:
    keras = pytest.importorskip("keras", reason="keras is not installed")
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(4), power_iterations=2)
    layer.build((None, 6))
    kernel, u = np.asarray(layer.kernel), np.asarray(layer.vector_u)
    found = layer.normalized_weights()
    theirs = found[-1] if isinstance(found, tuple) else found
    ours = normcli.normalize(kernel.T, "spectral", convention="keras", iterations=2, u=u.ravel())
    close(ours.output.T, theirs, 2e-6)


@pytest.mark.parametrize("size", [1.0, 1e-6])  # eps is added under the root
def test_flax_makes_unit_vectors(size: float) -> None:
    module = pytest.importorskip("flax.linen.normalization", reason="flax is not installed")
    x = (X * size).astype(np.float32)
    close(normcli.normalize(x, "lp", convention="flax").output, module._l2_normalize(x, axis=-1), 2e-6)


def test_flax_normalizes_weights() -> None:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")
    scale, x = np.array([1.0, -2, 0.5], np.float32), np.eye(5, dtype=np.float32)
    module = linen.WeightNorm(linen.Dense(3, use_bias=False))
    kernel = X[0, 0].T.copy()
    params = module.init(np.array([0, 1], np.uint32), x)["params"]
    assert set(params) == {"layer_instance", "layer_instance/kernel/scale"}
    values = {"layer_instance": {"kernel": kernel}, "layer_instance/kernel/scale": scale}
    ours = normcli.normalize(kernel, "weight", channel_axis=-1, weight=scale)
    close(ours.output, module.apply({"params": values}, x), 2e-6)


# --- ONNX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1, 2])
def test_onnx_divides_by_a_norm(p: int) -> None:
    x = np.abs(X)  # for p = 1 the evaluator adds up the numbers, not their sizes
    theirs = onnx_run("LpNormalization", 22, {"x": x}, ["y"], axis=1, p=p)[0]
    close(normcli.normalize(x, "lp", p=p).output, theirs, 2e-6)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_onnx_looks_at_neighbours(size: int) -> None:
    theirs = onnx_run("LRN", 13, {"x": X}, ["y"], size=size, alpha=0.5)[0]  # as many samples as channels
    close(normcli.normalize(X, "lrn", convention="onnx", size=size, alpha=0.5).output, theirs, 2e-6)


@pytest.mark.parametrize(("kind", "operator"), [("softmax", "Softmax"), ("logsoftmax", "LogSoftmax")])
def test_onnx_has_softmax(kind: str, operator: str) -> None:
    close(normcli.normalize(X, kind).output, onnx_run(operator, 13, {"x": X}, ["y"])[0], 2e-6)


def test_onnx_normalizes_mean_and_variance() -> None:
    theirs = onnx_run("MeanVarianceNormalization", 13, {"x": X}, ["y"])[0]
    ours = normcli.normalize(X, "zscore", convention="onnx")
    assert ours.plan.layout.axes == (0, 2, 3)
    close(ours.output, theirs, 2e-5)


# --- scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("jax", "softmax", {}),
        ("jax", "logsoftmax", {"axes": (1, 2)}),
        ("keras", "softmax", {}),
        ("keras", "logsoftmax", {"axes": (1,)}),
        ("keras", "lp", {"convention": "keras"}),
    ],
)
def test_a_script_gives_the_same_numbers(name: str, kind: str, options: dict[str, Any]) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    from normcli.showing.formats import pieces
    from normcli.showing.report import Detail, Report

    x, flow = X[0], X[1]
    result = normcli.normalize(x, kind, grad_output=flow, **options)
    found: dict[str, Any] = {"print": lambda *shown: None}
    exec("".join(pieces(name, Report(result=result, x=x), Detail())), found)
    close(found["output"], result.output, 2e-6)
    close(found["grad_input"], result.grad_input, 2e-5)
