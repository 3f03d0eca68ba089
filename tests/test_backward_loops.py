"""The backward pass in compiled loops, against the formula in double-double arithmetic, whatever the layout.

Where no terms cancel, each gradient of the input is within 0.5001 ulp; where they do, the error stays below 2^-50
of the largest term besides. What weight and bias receive is float64 for every dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from test_kernel import LAYOUTS as FORWARD
from test_kernel import TINY, of_many_axes, records

from normcli.arithmetic import large, large_backward, loops, reference, slabs, whole
from normcli.arithmetic.pair import Pair
from normcli.arithmetic.result import Result, State
from normcli.calculate import initial_state
from normcli.dtypes import FLOAT_DTYPES
from normcli.files.stored import Stored
from normcli.floats import rounded, ulp
from normcli.planning.plan import Plan, plan

pytestmark = pytest.mark.skipif(loops.compiled() is None, reason="installed without a C compiler")

Array = np.ndarray[Any, Any]
LAYOUTS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = FORWARD | {
    "batch ddof": ("batch", (9, 7, 11, 13), {"ddof": 1}),
    "batch eval channels last": ("batch", (40, 31, 7), {"mode": "eval", "channel_axis": -1}),
    "batch few channels last": ("batch", (4000, 5), {"channel_axis": -1}),
    "group ddof": ("group", (6, 12, 30), {"groups": 3, "ddof": 1}),
    "group few channels last": ("group", (6, 300, 12), {"groups": 6, "channel_axis": -1, "ddof": 1}),
    "group alone": ("group", (700, 12), {"groups": 4}),
    "layer rows of a chunk and more": ("layer", (21, 1500), {}),
    "rms axes": ("rms", (2, 40, 5, 60), {"normalized_shape": (5, 60)}),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A calculation: what is given, and the plan for it."""

    x: Array
    grad_output: Array
    plan: Plan
    state: State

    def backward(self, *, out: Any = None, grad_input: Any = None, threads: int = 2) -> Result | None:
        """What the loops make of it; None where they leave it to the lines."""
        given = {"out": out, "threads": threads, "grad_output": self.grad_output, "grad_input": grad_input}
        return large.normalize(self.x, self.plan, self.state, **given)

    def result(self, **more: Any) -> Result:
        """The same, where they do not."""
        found = self.backward(**more)
        assert found is not None
        return found


def case(x: Array, kind: str, options: dict[str, Any], grad_output: Array | None = None) -> Case:
    """A calculation on a tensor, with a grad_output whose mean is not 0 unless one is given."""
    settled = plan(kind, x.shape, str(x.dtype), options)
    g = (
        rounded(np.random.default_rng(3).normal(0.4, 1.0, x.shape), str(x.dtype))
        if grad_output is None
        else grad_output
    )
    return Case(x, g, settled, initial_state(settled, options))


@cache
def seeded(layout: str, dtype: str, mean: float, *, weighted: bool = True) -> Case:
    """A tensor of a layout, with weight and running statistics that are not 1 and 0."""
    kind, shape, options = LAYOUTS[layout]
    rng = np.random.default_rng(len(layout))
    x = rounded(rng.normal(mean, 2.0, size=shape), dtype)
    parameters = options.get("normalized_shape", shape[-1:] if kind in ("layer", "rms") else None)
    parameters = parameters or (shape[options.get("channel_axis", 1)],)
    running = {"running_mean": rng.normal(size=parameters), "running_var": rng.uniform(0.5, 2.0, parameters)}
    given = options | (running if options.get("mode") == "eval" else {})
    return case(x, kind, given | ({"weight": rng.uniform(-2.0, 2.0, parameters)} if weighted else {}))


@dataclass(frozen=True)
class Judgement:
    """The exact gradients, and the size of what they are sums of."""

    grad_input: Pair
    largest: Array  # of the terms of each gradient
    grad_weight: Pair
    grad_bias: Pair
    sizes: dict[str, Array]  # the sums of |g * xhat| and of |g|


@cache
def judged(given: Case) -> Judgement:
    """The formula, term by term, in double-double arithmetic."""
    settled, state, layout = given.plan, given.state, given.plan.layout
    x, g = (Pair(values.astype(np.float64).reshape(layout.view)) for values in (given.x, given.grad_output))
    of_channels = {
        name: Pair(np.asarray(value, np.float64).reshape(layout.channels_view))
        for name in ("weight", "running_mean", "running_var")
        if (value := getattr(state, name)) is not None
    }
    d, n, one = g * of_channels.get("weight", Pair(np.float64(1))), Pair(np.float64(layout.count)), Pair(np.float64(1))
    divisor = Pair(np.float64(layout.count - settled.ddof))
    eps = Pair(np.float64(settled.eps))
    if settled.source == "running":
        centered = x - of_channels["running_mean"]
        rstd = one / (of_channels["running_var"] + eps).sqrt()
        terms = [d * rstd]
    else:
        centered = x - x.sum(layout.axes) / n if settled.kind.centers else x
        rstd = one / ((centered * centered).sum(layout.axes) / divisor + eps).sqrt()
        terms = [d * rstd, -(rstd * rstd * rstd * centered * ((d * centered).sum(layout.axes) / divisor))]
        terms += [-(rstd * (d.sum(layout.axes) / n))] if settled.kind.centers else []
    scaled, lacking = g * (centered * rstd), tuple(set(range(len(layout.view))) - set(layout.channels))
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    largest = np.max(np.broadcast_arrays(*(np.abs(term.hi) for term in terms)), axis=0)
    sizes = {"grad_weight": np.abs(scaled.hi).sum(lacking), "grad_bias": np.abs(g.hi).sum(lacking)}
    return Judgement(
        grad_input=total.reshape(settled.shape),
        largest=largest.reshape(settled.shape),
        grad_weight=scaled.sum(lacking).reshape(settled.weight_shape),
        grad_bias=g.sum(lacking).reshape(settled.weight_shape),
        sizes={name: size.reshape(settled.weight_shape) for name, size in sizes.items()},
    )


def distance(found: Array, exact: Pair) -> Array:
    """How far numbers are from exact ones."""
    return np.asarray(np.abs(found.astype(np.float64) - exact.hi - exact.lo), np.float64)


def check(given: Case, *, units: float = 0.5001) -> None:
    """Hold all gradients against the exact ones."""
    result = given.result()
    grad_input, grad_weight, grad_bias = result.grad_input, result.grad_weight, result.grad_bias
    exact = judged(given)
    error, unit = distance(grad_input, exact.grad_input), ulp(exact.grad_input.hi, given.plan.dtype)
    assert (error <= units * unit + 2.0**-50 * exact.largest).all()
    conditioned = np.abs(exact.grad_input.hi) > 2.0**-10 * exact.largest
    assert (error <= units * unit)[conditioned].all()
    assert grad_input.dtype == given.x.dtype
    if not given.plan.affine:
        assert grad_weight is None and grad_bias is None
        return
    assert (distance(grad_weight, exact.grad_weight) <= 2.0**-49 * exact.sizes["grad_weight"]).all()
    assert (grad_bias is None) == (not given.plan.kind.centers)
    if grad_bias is not None:
        assert (distance(grad_bias, exact.grad_bias) <= 2.0**-50 * exact.sizes["grad_bias"]).all()


@pytest.fixture(params=["usual", "tiny"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs and tiles of the usual size, or so small that every way to merge them is taken."""
    if request.param == "tiny":
        tiny(monkeypatch)


def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in TINY.items():
        monkeypatch.setattr(slabs, name, size)
    monkeypatch.setattr(loops, "TILE", 257)
    monkeypatch.setattr(large_backward, "_SHORT", 514)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("cut")
def test_every_gradient_is_rounded_once(layout: str, dtype: str) -> None:
    check(seeded(layout, dtype, 0.3))


@pytest.mark.parametrize("mean", [0.3, 2e4])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("cut")
def test_float64_is_as_good_as_double_double(layout: str, mean: float) -> None:
    check(seeded(layout, "float64", mean), units=0.51)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("cut")
def test_without_a_weight(layout: str, dtype: str) -> None:
    given = seeded(layout, dtype, 0.3, weighted=False)
    check(given, units=0.51)
    check(Case(given.x, given.grad_output, replace(given.plan, affine=False), given.state), units=0.51)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("cut")
def test_large_means_lose_nothing(layout: str) -> None:
    kind, _, options = LAYOUTS[layout]
    x = seeded(layout, "float32", 0.0).x * np.float32(0.01) + np.float32(1e4)
    given = {"affine": True} if kind == "instance" else {}
    check(case(x.astype(np.float32), kind, options | given))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_do_not_change_a_bit(layout: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB", 5000)
    monkeypatch.setattr(slabs, "LEAST_SLAB", 5000)
    found = [seeded(layout, dtype, 0.3).result(threads=threads) for threads in (1, 2, 5)]
    bits = [{name: values.tobytes() for name, values in result.gradients().items()} for result in found]
    assert bits[0] == bits[1] == bits[2]


ARRANGED = {
    "Fortran order": lambda x: np.asfortranarray(x),
    "every other": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "transposed": lambda x: np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "unaligned": lambda x: np.frombuffer(b"0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "backwards": lambda x: np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1],
    "packed records": records,
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["batch", "layer"])
@pytest.mark.parametrize("which", ["x", "grad_output", "both"])
@pytest.mark.parametrize("way", ARRANGED)
@pytest.mark.usefixtures("cut")
def test_any_arrangement_in_memory(way: str, which: str, kind: str, dtype: str) -> None:
    rng = np.random.default_rng(4)
    x, g = (rounded(rng.normal(0.4, 1, (40, 42, 60)), dtype) for _ in range(2))
    x = ARRANGED[way](x) if which != "grad_output" else x
    g = ARRANGED[way](g) if which != "x" else g
    check(case(x, kind, {"weight": rng.normal(size=42 if kind == "batch" else 60)}, g), units=0.51)


def test_more_axes_than_the_loops_take() -> None:
    x = np.random.default_rng(4).normal(1e4, 1, size=(2,) * 18)
    check(case(of_many_axes(x), "batch", {}), units=0.51)


@pytest.mark.parametrize("whose", ["x", "grad_output"])
@pytest.mark.parametrize("shift", [0, 1])
def test_out_may_be_or_overlap_what_is_read(whose: str, shift: int) -> None:
    memory = np.random.default_rng(12).normal(size=90_001).astype(np.float32)
    there, out = memory[:90_000].reshape(300, 300), memory[shift : 90_000 + shift].reshape(300, 300)
    other = np.random.default_rng(13).normal(size=(300, 300)).astype(np.float32)
    given = case(there, "batch", {}, other) if whose == "x" else case(other, "batch", {}, there)
    expected = given.result()
    found = given.result(out=out)
    assert found.output is out
    np.testing.assert_array_equal(found.output, expected.output)
    np.testing.assert_array_equal(found.grad_input, expected.grad_input)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_output_and_statistics_are_the_bits_of_the_forward_pass(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_MOST_EXACT", 0)  # tensors of so few elements do not come here with a gradient
    given = seeded(layout, "float32", 0.3)
    forward = large.normalize(given.x, given.plan, given.state, out=None, threads=2)
    assert forward is not None
    found = given.result()
    for name, values in {**forward.named, "output": forward.output}.items():
        np.testing.assert_array_equal(getattr(found, name), values)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_array_equal(getattr(found, name), getattr(forward, name))


@pytest.mark.parametrize(("kind", "shape"), [("layer", (700, 100)), ("batch", (20, 70, 50)), ("layer", (3, 30000))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_stays_in_its_group(kind: str, shape: tuple[int, ...], dtype: str) -> None:
    given = case(np.random.default_rng(7).normal(size=shape).astype(dtype), kind, {})
    clean = given.result()
    place = (2, *[1] * (len(shape) - 1))
    given.x[place] = np.nan
    result = given.result()
    grad_input, grad_weight, grad_bias = result.grad_input, result.grad_weight, result.grad_bias
    group = np.zeros(shape, bool)
    group[(2,) if kind == "layer" else (slice(None), 1)] = True
    np.testing.assert_array_equal(np.isnan(grad_input), group)
    np.testing.assert_array_equal(grad_input[~group], clean.grad_input[~group])
    hit = np.ones(shape[-1], bool) if kind == "layer" else np.arange(shape[1]) == 1
    np.testing.assert_array_equal(np.isnan(grad_weight), hit)
    np.testing.assert_array_equal(grad_bias, clean.grad_bias)
    np.testing.assert_array_equal(grad_weight[~hit], clean.grad_weight[~hit])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite_in_grad_output_stays_in_its_group_and_parameter(dtype: str, value: float) -> None:
    given = case(np.random.default_rng(7).normal(size=(700, 100)).astype(dtype), "layer", {})
    given.grad_output[3, 5] = value
    result = given.result()
    grad_input, grad_weight, grad_bias = result.grad_input, result.grad_weight, result.grad_bias
    assert np.flatnonzero(~np.isfinite(grad_input).any(axis=1)).tolist() == [3]
    for found in (grad_weight, grad_bias):
        assert np.flatnonzero(~np.isfinite(found)).tolist() == [5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eval_takes_no_part_of_x_into_grad_input(dtype: str) -> None:
    x = np.random.default_rng(7).normal(size=(700, 100)).astype(dtype)
    x[3, 5], x[4, 6] = np.nan, np.inf
    given = case(x, "batch", {"mode": "eval", "eps": 0.0, "weight": np.full(100, 0.5)})
    np.testing.assert_array_equal(given.result().grad_input, given.grad_output * 0.5)


def test_a_constant_row_at_1e8() -> None:
    """Where torch's dx is off by its whole scale, and its grad_weight by thousands."""
    x = np.full((1000, 64), 1e8, np.float32)
    given = case(x, "layer", {})
    check(given)
    assert not given.result().grad_weight.any()


def test_bfloat16_whose_mean_is_no_bfloat16() -> None:
    x = np.tile(rounded(np.array([100.5, 100, 100, 100]), "bfloat16"), (20000, 1))
    g = np.tile(rounded(np.array([1000.0, 0, 0, 0]), "bfloat16"), (20000, 1))
    found = case(x, "layer", {}, g).result().grad_input.astype(np.float64)
    np.testing.assert_allclose(found[7], [0.7388, -0.2463, -0.2463, -0.2463], rtol=2e-3)


@pytest.mark.parametrize("layout", ["batch", "layer long", "batch long", "group channels last"])
def test_groups_that_lie_far_apart_inside(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slab, and each tile, has a mean of its own, far from that of the group."""
    tiny(monkeypatch)
    kind, shape, options = LAYOUTS[layout]
    rng = np.random.default_rng(8)
    drift = np.linspace(-1e6, 1e6, int(np.prod(shape))).reshape(shape)
    check(case((drift + rng.normal(size=shape)).astype(np.float32), kind, options))
    check(case(drift + rng.normal(size=shape), kind, options), units=0.51)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_constant_grad_output_leaves_next_to_nothing(layout: str, dtype: str) -> None:
    given = seeded(layout, dtype, 0.3, weighted=False)
    check(replace(given, grad_output=np.broadcast_to(np.array(0.1), given.x.shape)), units=0.51)


DECLINED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "a group divided by 0": (np.ones((700, 100)), "layer", {"eps": 0.0}),
    "running_var + eps is 0": (np.ones((700, 2)), "batch", {"mode": "eval", "eps": 0.0, "running_var": np.zeros(2)}),
    "squares beyond float64": (np.linspace(-1e200, 1e200, 70000), "layer", {}),
    "squares below float64": (np.linspace(-1e-200, 1e-200, 70000), "layer", {"eps": 0.0}),
    "a weight beyond all measure": (np.linspace(-1, 1, 70000), "layer", {"weight": np.full(70000, 1e200)}),
    "a weight that is not finite": (np.linspace(-1, 1, 70000), "layer", {"weight": np.full(70000, np.nan)}),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_the_loops_leave_to_the_lines(name: str) -> None:
    given = case(*DECLINED[name])
    assert given.backward() is None


@pytest.mark.parametrize("scale", [1e200, 1e-280, 1e308])
def test_a_grad_output_near_the_ends_of_float64_is_left_to_the_lines(scale: float) -> None:
    x = np.random.default_rng(9).normal(size=(700, 100))
    given = case(x, "layer", {}, np.random.default_rng(8).uniform(-1, 1, x.shape) * scale)
    assert given.backward() is None


def test_without_compiled_loops_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "compiled", lambda: None)
    given = seeded("layer", "float32", 0.3)
    assert given.backward() is None


@contextmanager
def stored(path: Path, values: Array, order: Literal["C", "F"]) -> Iterator[Stored]:
    """The same numbers in a file."""
    path.write_bytes(values.tobytes(order))
    with path.open("r+b", buffering=0) as file:
        yield Stored(file, 0, values.shape, values.dtype, fortran_order=order == "F")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", ["batch", "layer", "layer long", "group channels last", "rms", "batch eval"])
@pytest.mark.parametrize("wanted", [("out", "grad_input"), ("grad_input",), ("out",), ()])
@pytest.mark.usefixtures("cut")
def test_from_file_to_file(layout: str, order: Literal["C", "F"], wanted: tuple[str, ...], tmp_path: Path) -> None:
    given = seeded(layout, "float32", 0.3)
    x, g = (np.asarray(values, order=order) for values in (given.x, given.grad_output))
    expected = Case(x, g, given.plan, given.state).result()
    with ExitStack() as open_:
        x_file, g_file = (open_.enter_context(stored(tmp_path / name, v, order)) for name, v in (("x", x), ("g", g)))
        room = {name: open_.enter_context(stored(tmp_path / name, np.zeros_like(x), order)) for name in wanted}
        progress: list[float] = []
        x_file.advanced = progress.append
        found = Case(x_file, g_file, given.plan, given.state).result(**room)  # type: ignore[arg-type]
        assert progress == sorted(progress) and progress[-1] == 1.0
        for name, values in {"output": found.output, "grad_input": found.grad_input}.items():
            assert values is room.get("out" if name == "output" else name)
            if values is not None:
                np.testing.assert_array_equal(np.asarray(values), getattr(expected, name))
        np.testing.assert_array_equal(found.grad_weight, expected.grad_weight)
        np.testing.assert_array_equal(
            found.var if found.mean_square is None else found.rstd,
            expected.var if found.mean_square is None else expected.rstd,
        )


@pytest.mark.parametrize("order", ["C", "F"])
def test_grad_output_in_memory_beside_a_file(order: Literal["C", "F"], tmp_path: Path) -> None:
    given = seeded("layer", "float32", 0.3)
    with stored(tmp_path / "x", given.x, order) as x, stored(tmp_path / "out", given.x, order) as room:
        found = replace(given, x=x).result(grad_input=room)  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.asarray(found.grad_input), given.result().grad_input)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["batch", "layer", "layer long", "group few channels last", "batch eval"])
@pytest.mark.usefixtures("cut")
def test_one_number_for_all_of_grad_output(layout: str, dtype: str) -> None:
    """Spread over the tensor, it takes no memory, and is of float64 whatever the tensor is."""
    given = seeded(layout, dtype, 0.3)
    check(replace(given, grad_output=np.broadcast_to(np.array(0.1), given.x.shape)), units=0.51)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("of_grad_output", FLOAT_DTYPES)
@pytest.mark.parametrize("layout", ["layer", "batch", "layer long", "group channels last"])
def test_grad_output_of_another_dtype_keeps_its_digits(layout: str, of_grad_output: str, dtype: str) -> None:
    given = seeded(layout, dtype, 0.3)
    g = rounded(np.random.default_rng(3).normal(0.4, 1.0, given.x.shape), of_grad_output)
    check(replace(given, grad_output=g), units=0.51)


@pytest.mark.parametrize("seed", range(60))
def test_the_loops_say_what_the_lines_say(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any kind, dtype and order, constant groups, large means, NaN and infinities among the numbers."""
    if seed % 2:
        tiny(monkeypatch)
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["batch", "instance", "layer", "group", "rms"]))
    shape = (*rng.integers(2, 9, 2), *rng.integers(1, 40, rng.integers(1, 3))) if kind != "group" else (5, 12, 31)
    dtype, of_g = (str(rng.choice(FLOAT_DTYPES)) for _ in range(2))
    options: dict[str, Any] = {"groups": int(rng.choice([1, 3, 4, 12]))} if kind == "group" else {}
    options |= {"mode": "eval", "running_mean": np.ones(shape[1])} if kind == "batch" and rng.random() < 0.3 else {}
    options |= {"ddof": 1} if kind != "rms" and rng.random() < 0.3 and np.prod(shape[2:]) > 1 < shape[-1] else {}
    owned = shape[-1:] if kind in ("layer", "rms") else shape[1:2]
    options |= {"weight": rng.normal(size=owned).astype(np.float32)} if rng.random() < 0.6 else {"affine": seed % 3 > 0}
    x = rng.normal(rng.choice([0.0, 1e3]), 1.0, shape)
    x[0] = 100.0 if rng.random() < 0.3 else x[0]
    g = rng.normal(0.3, 1.0, shape)
    for values in (x, g):
        if rng.random() < 0.25:
            values.ravel()[rng.integers(values.size)] = rng.choice([np.nan, np.inf])
    order = "F" if rng.random() < 0.3 else "C"
    given = case(np.asarray(rounded(x, dtype), order=order), kind, options, rounded(g, of_g))  # type: ignore[call-overload]
    with np.errstate(all="ignore"):
        largest = judged(given).largest
    found = given.result()
    lines = reference.by_lines(given.x, given.plan, given.state, grad_output=given.grad_output)
    assert found.gradients().keys() == lines.gradients().keys()
    assert found.warnings == lines.warnings
    for name, expected in lines.gradients().items():
        values, expected = (array.astype(np.float64) for array in (getattr(found, name), expected))
        np.testing.assert_array_equal(np.isfinite(values), np.isfinite(expected))
        there = np.isfinite(expected)
        unit = ulp(expected[there], dtype if name == "grad_input" else "float64")
        size = largest[there] if name == "grad_input" else np.abs(g[np.isfinite(g)]).sum() * 50
        assert (np.abs(values[there] - expected[there]) <= 1.01 * unit + 2.0**-49 * size).all(), name
