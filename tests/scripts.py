"""Calculations that scripts are written of, and what a script gives when it is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.testing as npt

import normcli
from normcli.showing.formats import pieces
from normcli.showing.report import Detail, Report

RNG = np.random.default_rng(11)
X = RNG.normal(0.7, 2.0, (5, 6, 3, 4))
LAST = np.moveaxis(X, 1, -1).copy()
SIX = {"weight": RNG.uniform(-2, 2, 6), "bias": RNG.normal(size=6)}
KEPT = {"running_mean": RNG.normal(size=6), "running_var": RNG.uniform(0.5, 3, 6)}
TWO_AXES = {"weight": RNG.uniform(-2, 2, (3, 4)), "bias": RNG.normal(size=(3, 4))}
BIASED: dict[str, Any] = {"running_ddof": 0}  # as Flax and Keras have it

CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "batch": (X, "batch", {**SIX, **KEPT}),
    "batch plain": (X[:, :, 0, 0], "batch", {"affine": False}),
    "batch cumulative": (X[..., 0], "batch", {**SIX, **KEPT, "momentum": None, "num_batches_tracked": 3}),
    "batch decay": (X, "batch", {**SIX, "decay": 0.99, "eps": 1e-3}),
    "batch eval": (X, "batch", {**SIX, **KEPT, "mode": "eval"}),
    "batch untracked": (X, "batch", {**SIX, "mode": "eval", "track_running_stats": False}),
    "batch channels last": (LAST, "batch", {**SIX, **KEPT, "channel_axis": -1}),
    "batch channels first": (X.swapaxes(0, 1), "batch", {**SIX, "channel_axis": 0}),
    "batch of six axes": (X.reshape(5, 6, 3, 2, 1, 2), "batch", {**SIX, **KEPT}),
    "instance": (X, "instance", {**SIX}),
    "instance plain": (X[..., 0], "instance", {}),
    "instance of one sample": (X[0, :, 0], "instance", {**SIX}),
    "instance channels last": (LAST, "instance", {**SIX, "channel_axis": -1}),
    "instance of six axes": (X.reshape(5, 6, 3, 2, 1, 2), "instance", {**SIX}),
    "layer": (X, "layer", {**TWO_AXES, "normalized_shape": (3, 4)}),
    "layer last axis": (LAST, "layer", {"weight": SIX["weight"], "eps": 1e-3}),
    "layer plain": (X, "layer", {"affine": False}),
    "group": (X, "group", {**SIX, "groups": 3}),
    "group of rows": (X[:, :, 0, 0], "group", {**SIX, "groups": 2}),
    "group channels last": (LAST, "group", {**SIX, "groups": 3, "channel_axis": -1}),
    "group plain": (X, "group", {"groups": 2, "affine": False}),
    "rms": (LAST, "rms", {"weight": SIX["weight"]}),
    "rms of two axes": (X, "rms", {"weight": TWO_AXES["weight"], "normalized_shape": (3, 4), "eps": 1e-6}),
    "rms plain": (X, "rms", {"affine": False}),
}
TOLERANCES = {"float64": 1e-11, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def written(name: str, x: Any, kind: str, **options: Any) -> tuple[str, normcli.Result]:
    """The script of that format, and the result that it is to give."""
    result = normcli.normalize(x, kind, **options)
    x = np.asarray(x).astype(result.output.dtype)
    return "".join(pieces(name, Report(result=result, x=x), Detail())), result


def check(name: str, case: str, *, gradients: bool = False, dtype: str = "float64", **more: Any) -> None:
    """Run the script of a case, and hold what it gives against normcli's own numbers."""
    x, kind, options = CASES[case]
    given = {"grad_output": np.cos(np.arange(x.size)).reshape(x.shape)} if gradients else {}
    if "running_ddof" in more and kind not in ("batch", "instance"):
        more = {}
    script, result = written(name, x, kind, dtype=dtype, **options, **given, **more)
    found: dict[str, Any] = {}
    exec(compile(script.replace("print(", "str("), "script", "exec"), found)
    wanted: dict[str, Any] = {"output": result.output, **result.gradients()}
    if not result.plan.affine:
        wanted = {name: values for name, values in wanted.items() if name not in ("grad_weight", "grad_bias")}
    if result.plan.updates_running:
        wanted |= {"running_mean": result.running_mean, "running_var": result.running_var}
    arithmetic = "float32" if (name, dtype) == ("keras", "float64") else dtype  # in which Keras computes on JAX
    for quantity, values in wanted.items():
        theirs = found[quantity]
        theirs = theirs.detach().double() if hasattr(theirs, "detach") else theirs
        theirs, ours = np.asarray(theirs, np.float64), np.asarray(values, np.float64)
        atol = TOLERANCES[arithmetic] * max(1.0, float(np.abs(ours).max()))
        npt.assert_allclose(theirs, ours, rtol=0, atol=atol, err_msg=quantity)
        assert theirs.shape == ours.shape, quantity
    assert str(found["output"].dtype).endswith(dtype)
