"""Many answers, right and wrong, made from one seed: right ones check, slips are named, noise is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from normcli.calculate import initial_state, normalize
from normcli.check import Check, check
from normcli.plan import Plan, plan
from normcli.result import State
from normcli.slips import SLIPS, Reference, right
from normcli.tolerance import Printed

SEED = 20240711

# kind, shape, options: every kind in every mode, axes of different lengths; DRAWN numbers.
DRAWN = None  # numbers drawn from the seed
LAYERS = (
    ("batch", (5, 3), {"weight": DRAWN, "bias": DRAWN}),
    ("batch", (4, 3, 5), {"weight": DRAWN, "bias": DRAWN, "momentum": 0.3, "num_batches_tracked": 4}),
    ("batch", (6, 4), {"convention": "keras", "weight": DRAWN, "bias": DRAWN}),
    ("batch", (5, 3), {"mode": "eval", "running_mean": DRAWN, "running_var": DRAWN, "weight": DRAWN, "bias": DRAWN}),
    ("batch", (5, 4), {"mode": "eval", "track_running_stats": False}),
    ("batch", (4, 3), {"ddof": 1, "momentum": None, "num_batches_tracked": 3, "running_mean": DRAWN,
                       "running_var": DRAWN}),
    ("instance", (2, 3, 5), {"weight": DRAWN, "bias": DRAWN}),
    ("instance", (2, 3, 4), {"track_running_stats": True, "running_mean": DRAWN, "running_var": DRAWN}),
    ("instance", (3, 2, 5), {"mode": "eval", "track_running_stats": True, "running_mean": DRAWN, "running_var": DRAWN}),
    ("layer", (3, 5), {"weight": DRAWN, "bias": DRAWN}),
    ("layer", (2, 3, 4), {"normalized_shape": (3, 4), "weight": DRAWN, "bias": DRAWN}),
    ("group", (2, 6, 4), {"groups": 2, "weight": DRAWN, "bias": DRAWN}),
    ("group", (3, 6), {"groups": 2, "weight": DRAWN, "bias": DRAWN}),
    ("rms", (3, 5), {"weight": DRAWN, "eps": 1e-6}),
    ("rms", (2, 3, 4), {"normalized_shape": (3, 4), "weight": DRAWN, "eps": 1e-3}),
)  # fmt: skip
DECIMALS = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Layer:
    """A calculation with drawn numbers."""

    x: np.ndarray
    options: dict[str, object]
    kind: str

    @property
    def plan(self) -> Plan:
        return plan(self.kind, self.x.shape, "float64", self.options)

    @property
    def state(self) -> State:
        return initial_state(self.plan, self.options)


def drawn(
    rng: np.random.Generator, kind: str, shape: tuple[int, ...], options: dict[str, object], spread: float
) -> Layer:
    """Input and parameters with mixed signs; weights away from 1, biases away from 0."""
    x = rng.normal(0.4, 1.0, shape) * spread
    size = plan(
        kind, shape, "float64", {k: v for k, v in options.items() if v is not DRAWN or k == "momentum"}
    ).weight_shape
    parameters = {
        "weight": rng.uniform(0.4, 2.0, size),
        "bias": rng.uniform(-1.0, 1.0, size),
        "running_mean": rng.normal(0.5, 0.5, size),
        "running_var": rng.uniform(0.3, 2.0, size),
    }
    return Layer(x, {k: parameters[k] if v is DRAWN and k in parameters else v for k, v in options.items()}, kind)


def printed(values: np.ndarray, decimals: int) -> Printed:
    return Printed(np.round(values, decimals), np.full(np.shape(values), decimals))


def layers(rng: np.random.Generator, rounds: int) -> Iterator[tuple[Layer, int]]:
    for turn in range(rounds):
        for index, (kind, shape, options) in enumerate(LAYERS):
            spread = float(rng.choice([0.02, 1.0, 30.0]))
            yield drawn(rng, kind, shape, options, spread), DECIMALS[(turn + index) % len(DECIMALS)]


def quantities(layer: Layer, result: object) -> list[str]:
    names = ["output", "mean", "var", "rstd", "normalized", "mean_square", "running_mean", "running_var"]
    return [name for name in names if getattr(result, name) is not None]


# --- right answers --------------------------------------------------------------------------------


def right_answers() -> Iterator[tuple[str, Check]]:
    rng = np.random.default_rng(SEED)
    for layer, decimals in layers(rng, 40):
        result = normalize(layer.x, layer.kind, steps=True, **layer.options)
        expected = {name: printed(getattr(result, name), decimals) for name in quantities(layer, result)}
        # Half of the inputs are printed too: what the reader has is not what was computed with.
        rounded = rng.random() < 0.5
        x = printed(layer.x, max(4, decimals)) if rounded else Printed.exactly(layer.x)
        arrays = {name: value for name, value in layer.options.items() if isinstance(value, np.ndarray)}
        given = {name: printed(value, 4) if rounded else Printed.exactly(value) for name, value in arrays.items()}
        options = layer.options | {name: written.values for name, written in given.items()}
        settled = plan(layer.kind, layer.x.shape, "float64", options)
        yield layer.kind, check(x, settled, initial_state(settled, options), expected, parameters=given)


def test_every_right_answer_checks() -> None:
    verdicts = [(kind, found.ok) for kind, found in right_answers()]
    assert len(verdicts) >= 500
    assert Counter(kind for kind, ok in verdicts if not ok) == Counter()


def test_right_answers_of_torch_in_float32_check() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    wrong = []
    for turn in range(200):
        x = torch.from_numpy(rng.normal(3, 2, (8, 5)).astype(np.float32))
        y = torch.nn.functional.layer_norm(x, (5,)).double().numpy()
        found = check(
            Printed.exactly(x.double().numpy()),
            plan("layer", (8, 5), "float64", {}),
            State(),
            {"output": printed(y, turn % 5 + 2)},
        )
        wrong += [] if found.ok else [turn]
    assert wrong == []


# --- slips ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    key: str
    keys: list[tuple[str, ...]]
    ok: bool


def wrong_answers() -> Iterator[Tried]:
    """Every slip that applies to a layer, as an answer for what it affects."""
    rng = np.random.default_rng(SEED + 1)
    for layer, decimals in layers(rng, 3):
        settled, state = layer.plan, layer.state
        work = right(Reference(layer.x), settled, state)
        result = normalize(layer.x, layer.kind, steps=True, **layer.options)
        exact = {name: getattr(result, name) for name in quantities(layer, result)}
        for slip in SLIPS:
            works = slip.works(work)
            if not works:
                continue
            slipped = works[int(rng.integers(len(works)))].done().quantities
            shown = [
                name
                for name in ("output", "running_mean", "running_var", "var", "mean_square", "rstd")
                if name in slip.affects
                and name in slipped
                and name in exact
                and slipped[name].shape == exact[name].shape
            ]
            if not shown:
                continue
            asked = {name: printed(slipped[name], decimals) for name in shown}
            found = check(Printed.exactly(layer.x), settled, state, asked)
            yield Tried(slip.key, found.keys, found.ok)


def test_slips_are_named() -> None:
    tried = list(wrong_answers())
    visible = [one for one in tried if not one.ok]
    named = [one for one in visible if (one.key,) in one.keys]
    missed = Counter(one.key for one in visible if (one.key,) not in one.keys)
    assert len(visible) >= 500
    assert {one.key for one in visible} == {slip.key for slip in SLIPS}
    assert len(named) >= 0.95 * len(visible), missed


# --- noise ----------------------------------------------------------------------------------------


def unexplained_answers(cells: float) -> Iterator[Check]:
    """The right answer with noise in a share of the cells, from a few units of the last digit to the values' size."""
    rng = np.random.default_rng(SEED + 2)
    for layer, decimals in layers(rng, 4):
        output = np.asarray(normalize(layer.x, layer.kind, **layer.options).output)
        size = 10.0 ** rng.uniform(1.5 - decimals, 0)
        noise = rng.uniform(0.3, 1.0, output.shape) * rng.choice([-1, 1], output.shape) * size
        struck = rng.permutation(output.size).reshape(output.shape) < max(2, cells * output.size)
        noisy = printed(np.where(struck, output + noise, output), decimals)
        yield check(Printed.exactly(layer.x), layer.plan, layer.state, {"output": noisy})


@pytest.mark.parametrize("cells", [0.0, 0.5, 1.0], ids=["two cells", "half of the cells", "all cells"])
def test_noise_gets_no_name(cells: float) -> None:
    found = list(unexplained_answers(cells))
    assert len(found) >= 60
    assert [one.keys for one in found if one.ok or one.keys] == []
