"""The kernel for large tensors, compiled and in NumPy: within 0.5001 ulp of double-double, whatever the layout."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import normcli
from normcli.arithmetic import large, loops, reference, slabs, uncompiled, whole
from normcli.arithmetic.reference import by_lines
from normcli.arithmetic.result import Result
from normcli.calculate import initial_state
from normcli.floats import numpy_dtype, rounded, ulp
from normcli.planning.plan import plan

LAYOUTS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "batch": ("batch", (30, 7, 11, 13), {}),
    "batch features": ("batch", (4000, 20), {}),
    "batch wide": ("batch", (7, 5000), {}),
    "batch channels last": ("batch", (30, 11, 13, 7), {"channel_axis": -1}),
    "batch long": ("batch", (3, 2, 9000), {}),
    "batch short": ("batch", (5000, 3, 4), {}),
    "batch eval": ("batch", (40, 7, 31), {"mode": "eval"}),
    "instance": ("instance", (6, 7, 33, 40), {}),
    "instance tracked": ("instance", (6, 7, 33), {"track_running_stats": True}),
    "instance channels last": ("instance", (6, 33, 40, 7), {"channel_axis": -1}),
    "layer": ("layer", (500, 100), {}),
    "layer long": ("layer", (3, 20000), {}),
    "layer short": ("layer", (20000, 3), {}),
    "layer axes": ("layer", (2, 3, 4, 5, 600), {"normalized_shape": (5, 600)}),
    "layer alone": ("layer", (70000,), {}),
    "layer ddof": ("layer", (50, 70), {"ddof": 1}),
    "group": ("group", (6, 12, 30, 40), {"groups": 3}),
    "group channels last": ("group", (6, 30, 40, 12), {"groups": 4, "channel_axis": -1}),
    "group interleaved": ("group", (6, 12, 30, 40), {"groups": 3, "convention": "mlx", "channel_axis": 1}),
    "rms": ("rms", (500, 100), {}),
    "rms long": ("rms", (3, 20000), {}),
}
TINY = {"SLAB": 3001, "LEAST_SLAB": 3001, "LEAST_RUN": 3001, "_LEAST_CELL": 257, "_SLAB_SPAN": 31}
COMPILED = pytest.param(
    "compiled", marks=pytest.mark.skipif(loops.compiled() is None, reason="installed without a C compiler")
)


@pytest.fixture(params=[COMPILED, "NumPy"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two does the arithmetic."""
    monkeypatch.setattr(reference, "SMALL", 0)
    if request.param == "NumPy":
        monkeypatch.setattr(loops, "compiled", lambda: None)
    return str(request.param)


@pytest.fixture(params=["usual", "tiny"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs, blocks and tiles of the usual size, or so small that every way to merge them is taken."""
    for name, size in (TINY if request.param == "tiny" else {}).items():
        monkeypatch.setattr(slabs, name, size)
    monkeypatch.setattr(whole, "_prepared", {})
    if request.param == "tiny":
        monkeypatch.setattr(loops, "TILE", 257)
        monkeypatch.setattr(uncompiled, "BLOCK", 257)
        monkeypatch.setattr(uncompiled, "_SPAN", 5)


def both(
    x: np.ndarray[Any, Any], kind: str, options: dict[str, Any], threads: int = 2, out: Any = None
) -> tuple[Result, Result]:
    """The kernel's result, and that of double-double arithmetic in float64 on the same numbers."""
    settled = plan(kind, x.shape, str(x.dtype), options)
    state = initial_state(settled, options)
    fast = reference.normalize(x, settled, state, out=out, threads=threads)
    exact = reference.by_lines(x.astype(np.float64), replace(settled, dtype="float64"), state)
    return fast, exact


def seeded(layout: str, dtype: str, mean: float) -> tuple[np.ndarray[Any, Any], str, dict[str, Any]]:
    """A tensor of a layout, with weight, bias and running statistics that are not 1 and 0."""
    kind, shape, options = LAYOUTS[layout]
    rng = np.random.default_rng(len(layout))
    x = rounded(rng.normal(mean, 2.0, size=shape), dtype)
    parameters = options.get("normalized_shape", shape[-1:] if kind in ("layer", "rms") else None)
    parameters = parameters or (shape[options.get("channel_axis", 1)],)
    given = {**options, "weight": rng.uniform(0.5, 2.0, parameters)}
    given |= {"bias": rng.normal(size=parameters)} if kind != "rms" else {}
    given |= {"running_var": rng.uniform(0.5, 2.0, parameters)} if options.get("mode") == "eval" else {}
    return x, kind, given


def worst(fast: Result, exact: Result) -> float:
    error = np.abs(fast.output.astype(np.float64) - exact.output) / ulp(exact.output, fast.plan.dtype)
    return float(error.max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("arithmetic", "cut")
def test_every_output_is_rounded_once(layout: str, dtype: str) -> None:
    fast, exact = both(*seeded(layout, dtype, 0.3))
    assert worst(fast, exact) <= 0.5001


@pytest.mark.parametrize("mean", [0.3, 2e4])
@pytest.mark.parametrize("arithmetic", [COMPILED], indirect=True)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("arithmetic", "cut")
def test_float64_is_as_good_as_double_double(layout: str, mean: float) -> None:
    fast, exact = both(*seeded(layout, "float64", mean))
    assert worst(fast, exact) <= 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("arithmetic")
def test_large_means_lose_nothing(layout: str) -> None:
    x, kind, given = seeded(layout, "float32", 0.0)
    fast, exact = both((x * np.float32(0.01) + np.float32(1e4)).astype(np.float32), kind, given)
    assert worst(fast, exact) <= 0.5001


@pytest.mark.parametrize("name", ["mean", "var", "var_unbiased", "rstd", "running_mean", "running_var"])
@pytest.mark.parametrize("layout", ["batch", "batch features", "batch channels last", "instance tracked"])
@pytest.mark.usefixtures("arithmetic")
def test_statistics_are_those_of_the_reference(layout: str, name: str) -> None:
    fast, exact = both(*seeded(layout, "float32", 0.3))
    np.testing.assert_allclose(getattr(fast, name), getattr(exact, name), rtol=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("arithmetic")
def test_threads_do_not_change_a_bit(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in TINY.items():
        monkeypatch.setattr(slabs, name, size)
    monkeypatch.setattr(whole, "_SHARE", 1)
    monkeypatch.setattr(whole, "_prepared", {})
    x, kind, given = seeded(layout, "float32", 0.3)
    results = [both(x, kind, given, threads=threads)[0] for threads in (1, 2, 3, 8)]
    assert {result.output.tobytes() for result in results} == {results[0].output.tobytes()}
    assert {result.rstd.tobytes() for result in results} == {results[0].rstd.tobytes()}


@pytest.mark.parametrize(
    "arranged",
    [
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1, ::2],
        lambda x: x.transpose(1, 0, 2),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: np.frombuffer(b"0" + x.tobytes(), np.float32, offset=1).reshape(x.shape),
        lambda x: x[:, :, ::-2],
    ],
    ids=["Fortran order", "strided", "transposed", "broadcast", "unaligned", "backwards"],
)
@pytest.mark.usefixtures("arithmetic")
def test_any_arrangement_in_memory(arranged: Any) -> None:
    x = arranged(np.random.default_rng(4).normal(size=(40, 42, 60)).astype(np.float32))
    fast, exact = both(x, "batch", {})
    assert worst(fast, exact) <= 0.5001


def records(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same numbers as a field of packed records, of which most are not aligned."""
    packed = np.zeros(x.shape, np.dtype([("mark", "u1"), ("value", x.dtype)]))
    packed["value"] = x
    return packed["value"]


def of_many_axes(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same numbers with 18 axes, no two of which lie in memory as one would."""
    spread = np.zeros((2,) * 18 + (2,), x.dtype)
    apart = spread[..., 0].transpose(0, 1, *range(17, 1, -1))
    apart[...] = x.reshape(apart.shape)
    return apart


@pytest.mark.parametrize("arranged", [records, of_many_axes])
@pytest.mark.parametrize("where", ["x", "out"])
@pytest.mark.usefixtures("arithmetic")
def test_float64_that_c_cannot_take_keeps_its_digits(arranged: Any, where: str) -> None:
    x = np.random.default_rng(4).normal(1e4, 1, size=(2,) * 18)
    out = arranged(np.zeros(x.shape)) if where == "out" else None
    fast = normcli.normalize(arranged(x) if where == "x" else x, "batch", out=out)
    settled = plan("batch", x.shape, "float64", {})
    exact = reference.by_lines(x, settled, initial_state(settled, {}))
    assert worst(fast, exact) <= 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("arithmetic")
def test_what_is_not_finite_is_what_the_reference_says(
    layout: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "SMALL", 0)
    x, kind, given = seeded(layout, dtype, 0.3)
    x.ravel()[[5, 700, 1000, 1200]] = np.nan, np.inf, -np.inf, np.inf
    given["weight"].ravel()[:1] = 0.0
    settled = plan(kind, x.shape, dtype, given)
    state = initial_state(settled, given)
    fast = normcli.normalize(x, kind, **given).output
    exact = reference.by_lines(x, settled, state).output
    np.testing.assert_array_equal(np.where(np.isfinite(fast), 0, fast), np.where(np.isfinite(exact), 0, exact))


@pytest.mark.usefixtures("arithmetic")
def test_a_constant_channel_is_exactly_the_bias() -> None:
    x = np.random.default_rng(5).normal(size=(500, 3, 50)).astype(np.float32)
    x[:, 1] = 1e8
    fast, _ = both(x, "batch", {"bias": np.array([1.0, 0.25, 3.0])})
    assert set(np.unique(fast.output[:, 1]).tolist()) == {0.25}


@pytest.mark.usefixtures("arithmetic")
def test_a_constant_group_with_eps_0_is_0_and_warned_about() -> None:
    x = np.random.default_rng(6).normal(size=(700, 100)).astype(np.float32)
    x[13] = 0.1
    fast, _ = both(x, "layer", {"eps": 0.0})
    assert not fast.output[13].any()
    assert fast.warnings == ("1 group of statistics with variance 0 and eps 0: normalized is 0 by definition",)


@pytest.mark.usefixtures("arithmetic")
def test_nan_and_infinities_stay_in_their_group() -> None:
    x = np.random.default_rng(7).normal(size=(700, 100)).astype(np.float32)
    x[3, 5], x[9, 2] = np.nan, np.inf
    fast, exact = both(x, "layer", {})
    assert np.flatnonzero(~np.isfinite(fast.output).all(axis=1)).tolist() == [3, 9]
    np.testing.assert_array_equal(np.isnan(fast.output), np.isnan(exact.output))
    assert fast.warnings == ("the input holds 1 NaN and 1 infinity",)


@pytest.mark.usefixtures("arithmetic")
def test_an_overflow_of_the_dtype_is_warned_about() -> None:
    x = np.random.default_rng(8).normal(size=(700, 100)).astype(np.float16)
    fast, _ = both(x, "layer", {"weight": np.full(100, 6e4)})
    assert "beyond the range of float16 became infinite" in fast.warnings[0]


@pytest.mark.usefixtures("arithmetic")
def test_values_near_the_end_of_float32() -> None:
    x = (np.random.default_rng(9).uniform(-3e38, 3e38, size=(20, 5000))).astype(np.float32)
    fast, exact = both(x, "layer", {})
    assert worst(fast, exact) <= 0.5001


def test_out_receives_the_output() -> None:
    x = np.random.default_rng(10).normal(size=(300, 300)).astype(np.float32)
    out = np.empty_like(x)
    assert normcli.normalize(x, "layer", out=out).output is out
    np.testing.assert_array_equal(out, normcli.normalize(x, "layer").output)


@pytest.mark.parametrize("shift", [0, 1])
def test_out_may_be_or_overlap_the_input(shift: int) -> None:
    memory = np.random.default_rng(12).normal(size=90_001).astype(np.float32)
    x, out = memory[:90_000].reshape(300, 300), memory[shift : 90_000 + shift].reshape(300, 300)
    expected = normcli.normalize(x.copy(), "batch").output
    np.testing.assert_array_equal(normcli.normalize(x, "batch", out=out).output, expected)


@pytest.mark.usefixtures("arithmetic")
def test_an_element_close_to_the_mean_keeps_its_digits() -> None:
    x = np.random.default_rng(11).normal(size=(1, 70001)).astype(np.float32)
    x[0, 0] = np.float32(x.astype(np.float64).mean())
    fast, exact = both(x, "layer", {"eps": 0.0})
    assert abs(float(fast.output[0, 0]) - exact.output[0, 0]) <= 0.5001 * float(ulp(exact.output[0, 0], "float32"))


def test_large_tensors_take_this_path(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(whole, "prepared", lambda *a, **k: called.append(a) or (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        normcli.normalize(np.ones((600, 600), np.float32), "layer")
    assert len(called) == 1


# --- one call for a tensor --------------------------------------------

ARRANGED = {
    "C order": lambda x: x,
    "Fortran order": np.asfortranarray,
    "backwards": lambda x: x[::-1],
    "apart": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "constant": np.zeros_like,
    "with NaN": lambda x: np.where(x > np.median(x), np.nan, x).astype(x.dtype),
    "with infinities": lambda x: np.where(x > np.max(x) * 0.9, np.inf, x).astype(x.dtype),
}
SMALL_LAYERS = [
    ("layer", (10, 100), {}), ("layer", (3, 5), {"ddof": 1}), ("layer", (1, 3), {"eps": 0}), ("layer", (40, 100), {}),
    ("batch", (8, 5, 3), {"momentum": 0.3}), ("batch", (8, 5, 3), {"channel_axis": 2, "momentum": None}),
    ("batch", (6, 7), {"running_ddof": 0}), ("batch", (30, 100), {"ddof": 1}),
    ("instance", (3, 4, 7), {"track_running_stats": True}), ("group", (4, 6, 5), {"groups": 3}), ("rms", (5, 33), {}),
]  # fmt: skip


@pytest.mark.parametrize("arranged", ARRANGED.values(), ids=ARRANGED)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("kind", "shape", "options"), SMALL_LAYERS, ids=str)
def test_a_small_tensor_has_every_bit_of_the_interpreted_lines(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str, arranged: Callable[[np.ndarray], np.ndarray]
) -> None:
    rng = np.random.default_rng(len(kind) + sum(shape))
    for far in (0, 1e4):
        x = arranged((rng.normal(size=shape) * 3 + far).astype(numpy_dtype(dtype)))
        settled = plan(kind, shape, dtype, {**options, "affine": True})
        given = {"weight": rng.normal(size=settled.weight_shape), "bias": rng.normal(size=settled.weight_shape)}
        if kind == "rms":
            del given["bias"]
        state = initial_state(settled, given)
        slow, fast = (function(x, settled, state, out=None, threads=1) for function in (by_lines, large.normalize))
        if fast is None:
            assert not np.ptp(x.astype(float))  # a constant without eps
            continue
        np.testing.assert_array_equal(fast.output.astype(float), slow.output.astype(float))
        for name in (*slow.named, "running_mean", "running_var"):
            if getattr(slow, name) is not None:
                np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=2.3e-16, atol=0)  # a tie
        assert (fast.warnings, fast.num_batches_tracked) == (slow.warnings, slow.num_batches_tracked)


@pytest.mark.parametrize(("samples", "channels", "n"), [(7, 30, 10), (3, 300, 4), (9, 1, 10), (2, 3, 8)])
@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"running_ddof": 0, "momentum": 0.3}], ids=str)
def test_samples_that_share_a_channel_are_averaged_as_the_lines_have_it(
    samples: int, channels: int, n: int, options: dict[str, Any]
) -> None:
    x = np.random.default_rng(n).normal(3, 2, size=(samples, channels, n)).astype(np.float32)
    settled = plan("instance", x.shape, "float32", {**options, "track_running_stats": True})
    state = initial_state(settled, {})
    slow, fast = by_lines(x, settled, state), normcli.normalize(x, "instance", track_running_stats=True, **options)
    np.testing.assert_allclose(fast.running_mean, slow.running_mean, rtol=2.3e-16, atol=0)
    np.testing.assert_allclose(fast.running_var, slow.running_var, rtol=2.3e-16, atol=0)


def test_a_result_lists_every_name_and_can_be_pickled() -> None:
    result = normcli.normalize(np.eye(3, dtype=np.float32), "layer")
    assert {"mean", "output", "grad_input", "rstd"} <= {*dir(result)}
    again = pickle.loads(pickle.dumps(result))  # noqa: S301  # its own
    np.testing.assert_array_equal(again.var_unbiased, result.var_unbiased)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e300])
@pytest.mark.usefixtures("arithmetic")
def test_float64_beyond_what_its_squares_can_hold(scale: float) -> None:
    x = np.random.default_rng(13).normal(size=(700, 100))
    expected = normcli.normalize(x, "layer", eps=0.0).output
    np.testing.assert_allclose(normcli.normalize(x * scale, "layer", eps=0.0).output, expected, rtol=1e-11)


@pytest.mark.parametrize("shape", [(3, 4), (700, 100)], ids=["small", "large"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.usefixtures("arithmetic")
def test_an_infinity_is_told_of_where_the_root_of_its_mean_square_divides(shape: tuple[int, int], dtype: str) -> None:
    x = np.ones(shape)
    x[1, 2] = np.inf
    assert normcli.normalize(rounded(x, dtype), "rms").warnings == ("the input holds 1 infinity",)


@pytest.mark.usefixtures("arithmetic")
def test_float64_nan_stays_in_its_group_beside_a_constant_one() -> None:
    x = np.random.default_rng(14).normal(size=(700, 100))
    x[3, 5], x[9, 2], x[11] = np.nan, np.inf, 0.1
    fast = normcli.normalize(x, "layer")
    assert np.flatnonzero(~np.isfinite(fast.output).all(axis=1)).tolist() == [3, 9]
    assert not fast.output[11].any()


@pytest.mark.parametrize("weight", [1.0, 1 / 3, 0.9999, 3e-5, 1e-8, 7e3, 1e30, 2.0**-110 / 3])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.usefixtures("arithmetic")
def test_every_number_of_16_bits_is_read_and_rounded_right(dtype: str, weight: float) -> None:
    bits = np.arange(2**16 + 2**14).astype(np.uint16)  # all of them, and enough to be a large tensor
    x = bits.view(numpy_dtype(dtype)).reshape(1, -1)
    options = {"mode": "eval", "eps": 0.0, "weight": np.full(x.shape[1], weight)}
    found = normcli.normalize(x, "batch", **options).output.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = rounded(x.astype(np.float64) * weight, dtype).astype(np.float64)
    np.testing.assert_array_equal(found, expected)
