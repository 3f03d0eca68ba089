"""The check of gradients: right ones check, the slips of the backward pass are named, noise is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from test_check_seeded import LAYERS as EVERY
from test_check_seeded import SEED, Typed, layers, noise, printed, short, typed_layers

from normcli.arithmetic.result import State
from normcli.calculate import initial_state, normalize, run
from normcli.planning.plan import plan
from normcli.teaching.check import check
from normcli.teaching.figures import Figures
from normcli.teaching.printed import Printed
from normcli.teaching.sheet import Sheet
from normcli.teaching.slips import SLIPS
from normcli.teaching.tolerance import Rounding, propagated
from normcli.teaching.verdict import Check
from normcli.teaching.work import Work, right

NAMES = ("grad_input", "grad_weight", "grad_bias")

# Short numbers, of which row 0 of dx, and the parameters' gradients, are known for each slip.
X = [[1, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]]
G = [[0.1, -0.2, 0.3, 0.4], [0.5, 0.1, -0.3, 0.2], [-0.2, 0.4, 0.1, 0.6]]
WEIGHT, BIAS = [1.5, 0.5, 2, 1], [0.1, 0.2, 0.3, 0.4]


def asked(x: Any, g: Any, kind: str = "batch", **options: Any) -> tuple[Work, dict[str, np.ndarray]]:
    """A work that is asked for gradients, and the exact ones."""
    x, g = np.asarray(x, float), np.asarray(g, float)
    settled = plan(kind, x.shape, "float64", options)
    state = initial_state(settled, options)
    exact = run(x, settled, state, grad_output=g).gradients()
    answers = {name: Printed.exactly(values) for name, values in exact.items()}
    return right(Sheet(x), settled, state, answers, g), exact


def gradients(typed: Typed, g: Printed) -> tuple[Work, dict[str, np.ndarray]]:
    return asked(typed.x.values, g.values, typed.layer.kind, **typed.layer.options)


def checked(typed: Typed, g: Printed, expected: dict[str, Printed]) -> Check:
    return check(
        typed.x, typed.layer.plan, typed.layer.state, expected, grad_output=g.values,
        parameters=typed.parameters | {"grad_output": g},
    )  # fmt: skip


# --- the numbers that are known of each slip ----------------------------------------------------------

ROWS = {
    "stats_constant": [[0.0694, -0.1225, 0.3674, 0.2828]],
    "mean_path_omitted": [[0.2182, 0.0612, 0.3674, 0.2121]],
    "var_path_omitted": [[-0.0231, -0.1837, 0.3266, 0]],
    "sums_not_divided": [
        [0.2381, 0.2449, 0.2449, -0.7778], [-0.0595, -0.1225, 0.2449, -0.6364], [0.4232, 0.3674, 0.3266, -0.2121],
    ],
    "ddof_in_one_place": [[0.2000, 0.0919, 0.3266, -0.1061]],
    "weight_omitted_backward": [[0.0838, 0, 0.1633, -0.0707]],
    "weight_twice": [[0.2000, -0.0919, 0.3266, -0.0707]],
    "sign_of_dvar": [[-0.1719, -0.3674, 0.3266, 0.0707]],
    "sign_of_dmu": [[0.3108, 0.1225, 0.4082, 0.4950]],
    "half_or_two": [[0.2744, 0.1837, 0.3266, -0.1414], [0.0513, -0.0919, 0.3266, -0.0354]],
    "power": [
        [0.6712, -0.0612, 0.3266, -0.1414], [0.2983, -0.0337, 0.3266, -0.1], [0.0457, 0.0413, 0.3266, -0.05],
    ],
    "rstd_dropped": [[0.2714, 0, 0.5333, -0.1]],
    "std_for_rstd": [[0.5864, 0, 0.8709, -0.1414]],
    "y_for_xhat": [[0.2995, -0.1477, 0.2029, 0.0040]],
}  # fmt: skip
OF_PARAMETERS = {
    "x_for_xhat": {"grad_weight": [2.7, 1.5, 1.2, 1.8]},
    "c_for_xhat": {"grad_weight": [1.5, 0.6, 0.8, -0.6]},
    "y_for_xhat": {"grad_weight": [1.0815, 0.4274, 1.0098, 0.0557]},
    "parameters_times_weight": {"grad_weight": [1.0415, 0.3674, 0.9798, -0.4243], "grad_bias": [0.6, 0.15, 0.2, 1.2]},
    "mean_for_sum": {"grad_weight": [0.2315, 0.2449, 0.1633, -0.1414], "grad_bias": [0.1333, 0.1, 0.0333, 0.4]},
    "swapped": {"grad_weight": [0.4, 0.3, 0.1, 1.2], "grad_bias": [0.694364, 0.734841, 0.489897, -0.424263]},
}


@pytest.mark.parametrize(("key", "row"), [(key, row) for key, rows in ROWS.items() for row in rows])
def test_each_slip_gives_the_numbers_that_are_known_of_it(key: str, row: list[float]) -> None:
    work, _ = asked(X, G, weight=WEIGHT, bias=BIAS)
    slip = next(slip for slip in SLIPS if slip.key == key)
    given = [Figures(slipped)["grad_input"][0] for slipped in slip.works(work)]
    assert min(np.abs(found - row).max() for found in given) < 6e-5


@pytest.mark.parametrize("key", OF_PARAMETERS)
def test_each_slip_of_the_parameters_is_named_by_the_numbers_that_are_known_of_it(key: str) -> None:
    known = {name: np.array(values) for name, values in OF_PARAMETERS[key].items()}
    settled = plan("batch", (3, 4), "float64", {"weight": WEIGHT, "bias": BIAS})
    state = State(weight=np.array(WEIGHT), bias=np.array(BIAS), running_mean=np.zeros(4), running_var=np.ones(4))
    answers = {name: short(values, 4) for name, values in known.items()}
    found = check(Printed.exactly(np.array(X, float)), settled, state, answers, grad_output=np.array(G))
    assert (key,) in found.keys


@pytest.mark.parametrize("eps", [0.003, 0.2, 7e-4])
def test_the_eps_of_a_gradient_is_found(eps: float) -> None:
    work, _ = asked(X, G, weight=WEIGHT, eps=eps)
    answers = {"grad_input": printed(Figures(work)["grad_input"], 6)}
    settled = plan("batch", (3, 4), "float64", {"weight": WEIGHT})
    state = initial_state(settled, {"weight": WEIGHT})
    found = check(Printed.exactly(np.array(X, float)), settled, state, answers, grad_output=np.array(G))
    assert found.keys == [("eps_other",)]
    assert f"another eps, {eps:g}," in found.diagnoses[0].text


def test_the_formula_of_batch_norm_is_no_slip_in_batch_norm() -> None:
    slip = next(slip for slip in SLIPS if slip.key == "bn_shortcut")
    assert [len(slip.works(asked(X, G, kind, weight=WEIGHT)[0])) for kind in ("batch", "layer", "rms")] == [0, 4, 4]


# --- what rounding moves ------------------------------------------------------------------------------

LAYERS = [
    ("batch", (5, 3), {}),
    ("batch", (2, 3, 4), {"ddof": 1}),
    ("batch", (4, 3), {"mode": "eval"}),
    ("instance", (2, 3, 5), {}),
    ("layer", (3, 5), {"eps": 0.5}),
    ("layer", (2, 3, 4), {"ddof": 1, "normalized_shape": (3, 4)}),
    ("group", (2, 4, 3), {"groups": 2}),
    ("rms", (3, 5), {}),
]


@pytest.mark.parametrize(("kind", "shape", "options"), LAYERS, ids=lambda value: str(value))
@pytest.mark.parametrize("moved", ["x", "weight", "grad_output"])
def test_the_tolerance_is_the_sum_of_all_slopes(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(SEED)
    size = plan(kind, shape, "float64", {**options, "affine": True}).weight_shape
    given = {"x": rng.normal(1, 2, shape), "weight": rng.uniform(0.5, 2, size), "grad_output": rng.normal(size=shape)}
    off = rng.uniform(0.5, 1, given[moved].shape) * 1e-6
    more = (
        {"running_mean": rng.normal(size=size), "running_var": rng.uniform(0.5, 2, size)} if "mode" in options else {}
    )
    work, exact = asked(given["x"], given["grad_output"], kind, weight=given["weight"], **options, **more)

    def slopes(name: str) -> np.ndarray:
        total = np.zeros(exact[name].shape)
        for at in np.ndindex(off.shape):
            ends = []
            for step in (1e-5, -1e-5):
                other = {n: values.copy() for n, values in given.items()}
                other[moved][at] += step
                x, g, weight = (other[n] for n in ("x", "grad_output", "weight"))
                ends.append(asked(x, g, kind, weight=weight, **options, **more)[1][name])
            total += np.abs(ends[0] - ends[1]) / 2e-5 * off[at]
        return total

    def tolerance() -> dict[str, np.ndarray]:
        found = propagated(Figures(work), Rounding(**{moved: off}))
        return {name: found[name] for name in exact}

    exactly = tolerance()
    monkeypatch.setattr("normcli.teaching.tolerance._MOST_SLOPES", 0)
    bounded = tolerance()
    for name in exact:
        right_ = slopes(name)
        is_bound = kind == "group" and (moved, name) in [("x", "grad_weight"), ("weight", "grad_input")]
        if not is_bound:
            np.testing.assert_allclose(exactly[name], right_, rtol=1e-3, atol=1e-15)
        assert (bounded[name] >= exactly[name] * (1 - 1e-9)).all()
        assert (exactly[name] >= right_ * (1 - 1e-3)).all()
        assert (bounded[name] <= 4 * exactly[name] + 1e-15).all()


# --- answers made from one seed -----------------------------------------------------------------------


def right_answers() -> Iterator[tuple[str, Check]]:
    rng = np.random.default_rng(SEED)
    for layer, decimals in layers(rng, 3):
        g = rng.normal(size=layer.x.shape)
        result = normalize(layer.x, layer.kind, grad_output=g, **layer.options)
        expected = {name: printed(values, decimals) for name, values in result.gradients().items()}
        # Half of the inputs are printed too: what the reader has is not what was computed with.
        rounded = rng.random() < 0.5
        x, flow = (printed(v, max(4, decimals)) if rounded else Printed.exactly(v) for v in (layer.x, g))
        arrays = {name: value for name, value in layer.options.items() if isinstance(value, np.ndarray)}
        given = {name: printed(value, 4) if rounded else Printed.exactly(value) for name, value in arrays.items()}
        options = layer.options | {name: written.values for name, written in given.items()}
        settled = plan(layer.kind, layer.x.shape, "float64", options)
        given["grad_output"] = flow
        state = initial_state(settled, options)
        yield layer.kind, check(x, settled, state, expected, grad_output=flow.values, parameters=given)


def test_every_right_gradient_checks() -> None:
    verdicts = [(kind, found.ok) for kind, found in right_answers()]
    assert len(verdicts) >= 50
    assert Counter(kind for kind, ok in verdicts if not ok) == Counter()


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_gradients_of_torch_in_float32_check(kind: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    wrong = []
    for turn in range(50):
        x, g = (torch.from_numpy(rng.normal(m, 2, (8, 5)).astype(np.float32)) for m in (3, 0))
        weight = torch.from_numpy(rng.uniform(0.5, 2, 5).astype(np.float32)).requires_grad_()
        x.requires_grad_()
        norm = torch.nn.functional.layer_norm
        y = norm(x, (5,), weight) if kind == "layer" else torch.nn.functional.batch_norm(
            x, None, None, weight, training=True
        )  # fmt: skip
        y.backward(g)
        exactly = [values.detach().double().numpy() for values in (x, g, weight)]
        settled = plan(kind, (8, 5), "float64", {"weight": exactly[2]})
        found = check(
            Printed.exactly(exactly[0]),
            settled,
            initial_state(settled, {"weight": exactly[2]}),
            {"grad_input": printed(x.grad.double().numpy(), turn % 5 + 2),
             "grad_weight": printed(weight.grad.double().numpy(), turn % 5 + 2)},
            grad_output=exactly[1],
        )  # fmt: skip
        wrong += [] if found.ok else [turn]
    assert wrong == []


@dataclass(frozen=True)
class Tried:
    key: str
    kind: str
    note: str
    keys: list[tuple[str, ...]]


def wrong_answers(seed: int, rounds: int) -> Iterator[Tried]:
    """Every slip that applies to a layer, as an answer for what it affects, where its digits show it."""
    rng = np.random.default_rng(seed)
    for typed in typed_layers(rng, EVERY * rounds):
        g = short(rng.normal(size=typed.x.values.shape), 1)
        work, exact = gradients(typed, g)
        for slip in SLIPS:
            works = slip.works(work)
            if not works or not slip.affects & exact.keys() or rng.random() < 0.8:
                continue
            decimals = int(rng.choice([3, 4, 5, 6]))
            chosen = works[int(rng.integers(len(works)))]
            slipped = Figures(chosen)
            shown = [name for name in exact if name in slip.affects and name in slipped]
            shown = [name for name in shown if np.isfinite(slipped[name]).all()]
            if rng.random() < 0.3 and "grad_input" in shown:
                shown = ["grad_input"]
            gap = max((float(np.abs(slipped[name] - exact[name]).max()) for name in shown), default=0.0)
            if gap > 1.5 * 10.0**-decimals:  # two units of the last digit apart, or more
                found = checked(typed, g, {name: printed(slipped[name], decimals) for name in shown})
                yield Tried(slip.key, typed.layer.kind, chosen.made.note, found.keys)


CHUNKS = range(2)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_slips_of_gradients_are_named(chunk: int) -> None:
    tried = list(wrong_answers(SEED + chunk, 1))
    missed = Counter((one.key, one.kind, one.note) for one in tried if not any(one.key in keys for keys in one.keys))
    assert len(tried) * len(CHUNKS) >= 150
    assert sum(missed.values()) <= 0.05 * len(tried), missed


@pytest.mark.parametrize("chunk", CHUNKS)
def test_noise_in_gradients_gets_no_name(chunk: int) -> None:
    rng = np.random.default_rng(SEED + 10 + chunk)
    found = []
    for typed in typed_layers(rng, EVERY * 2):
        g = short(rng.normal(size=typed.x.values.shape), 1)
        _, exact = gradients(typed, g)
        decimals = int(rng.choice([2, 3, 4, 5, 6]))
        name = list(exact)[int(rng.integers(len(exact)))] if rng.random() < 0.3 else "grad_input"
        found.append(checked(typed, g, {name: printed(noise(rng, exact[name], decimals), decimals)}))
    assert len(found) * len(CHUNKS) >= 60
    assert [one.keys for one in found if one.keys] == []
