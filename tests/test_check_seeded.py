"""Many answers, right and wrong, made from one seed: right ones check, slips are named, noise is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from normcli.arithmetic.result import State
from normcli.calculate import initial_state, normalize
from normcli.files.numbers import EXACT
from normcli.planning.kinds import GRADIENTS
from normcli.planning.plan import Plan, plan
from normcli.teaching.check import check
from normcli.teaching.figures import Figures
from normcli.teaching.printed import Printed
from normcli.teaching.sheet import Sheet
from normcli.teaching.slips import SLIPS
from normcli.teaching.verdict import Check
from normcli.teaching.work import right

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
    ("rms", (3, 5), {"weight": DRAWN, "eps": 1e-6, "weight_offset": 1}),
    ("layer", (3, 5), {"weight": DRAWN, "bias": DRAWN, "weight_offset": 1, "cast": "before"}),
)  # fmt: skip
# What batches can be besides: in parts, of several ranks, and taken to the running statistics.
BATCHES = (
    ("batch", (6, 3), {"virtual_batch": 3, "weight": DRAWN}),
    ("batch", (7, 3), {"ranks": (2, 5), "bias": DRAWN}),
    ("batch", (5, 3), {"renorm": True, "rmax": 1.1, "dmax": 0.1, "running_mean": DRAWN, "running_var": DRAWN}),
)
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
    for layer, decimals in layers(rng, 10):
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
    assert len(verdicts) >= 150
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


# --- slips and noise over short numbers -----------------------------------------------------------


def short(values: np.ndarray, decimals: int) -> Printed:
    """Numbers such as 0.1, as a person types them: zeros at the end dropped, whole numbers bare."""
    rounded = np.round(values, decimals)
    shown = np.full(rounded.shape, EXACT)
    for places in range(decimals, 0, -1):
        shown[np.isclose(rounded, np.round(rounded, places), rtol=0, atol=1e-12)] = places
    shown[rounded == np.round(rounded)] = EXACT
    return Printed(rounded, shown)


@dataclass(frozen=True)
class Typed:
    """A layer whose numbers were all typed, short and exact."""

    layer: Layer
    x: Printed
    parameters: dict[str, Printed]

    def check(self, expected: dict[str, Printed]) -> Check:
        return check(self.x, self.layer.plan, self.layer.state, expected, parameters=self.parameters)


def typed_layers(rng: np.random.Generator, layers: Iterable[Any]) -> Iterator[Typed]:
    for kind, shape, options in layers:
        layer = drawn(rng, kind, shape, options, float(rng.choice([0.3, 1.0, 5.0])))
        x = short(layer.x, int(rng.choice([1, 2])))
        given = {name: short(value, 1) for name, value in layer.options.items() if isinstance(value, np.ndarray)}
        options = layer.options | {name: one.values for name, one in given.items()}
        yield Typed(Layer(x.values, options, kind), x, given)


@dataclass(frozen=True)
class Tried:
    key: str
    keys: list[tuple[str, ...]]


def wrong_answers(seed: int) -> Iterator[Tried]:
    """Every slip that applies to a layer, as an answer for what it affects, where its digits show it."""
    rng = np.random.default_rng(seed)
    for typed in typed_layers(rng, LAYERS + BATCHES):
        settled, state = typed.layer.plan, typed.layer.state
        work = right(Sheet(typed.x.values), settled, state)
        result = normalize(typed.x.values, typed.layer.kind, steps=True, **typed.layer.options)
        exact = {name: getattr(result, name) for name in quantities(typed.layer, result)}
        for slip in SLIPS:
            works = slip.works(work)
            if not works:
                continue
            decimals = int(rng.choice([3, 4, 5, 6]))
            slipped = Figures(works[int(rng.integers(len(works)))])
            asked = ("output", "running_mean", "running_var", "var", "mean_square", "rstd")
            shown = [name for name in asked if name in slip.affects & slipped.names & exact.keys()]
            shown = [name for name in shown if slipped[name].shape == exact[name].shape]
            shown = [name for name in shown if np.isfinite(slipped[name]).all()]
            gap = max((float(np.abs(slipped[name] - exact[name]).max()) for name in shown), default=0.0)
            if gap > 1.5 * 10.0**-decimals:  # two units of the last digit apart, or more
                found = typed.check({name: printed(slipped[name], decimals) for name in shown})
                yield Tried(slip.key, found.keys)


CHUNKS = range(2)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_slips_over_short_numbers_are_named(chunk: int) -> None:
    tried = list(wrong_answers(SEED + chunk))
    missed = Counter(one.key for one in tried if not any(one.key in keys for keys in one.keys))
    assert len(tried) * len(CHUNKS) >= 700
    assert sum(missed.values()) <= 0.01 * len(tried), missed


def test_every_slip_can_be_named() -> None:
    rng = np.random.default_rng(SEED)
    works = [right(Sheet(one.x.values), one.layer.plan, one.layer.state) for one in typed_layers(rng, LAYERS + BATCHES)]
    works += [replace(work, plan=replace(work.plan, dtype="bfloat16")) for work in works]
    gradients = dict.fromkeys(GRADIENTS, Printed.exactly(np.zeros(())))
    works += [replace(work, answers=gradients, grad_output=rng.normal(size=work.sheet.x.shape)) for work in works]
    named = {slip.key for slip in SLIPS if any(slip.works(work) for work in works)}
    assert {slip.key for slip in SLIPS} == named


def noise(rng: np.random.Generator, output: np.ndarray, decimals: int) -> np.ndarray:
    """Numbers that no slip gives: noise in some cells, in half of them or in all; others altogether; a line of them."""
    signs = rng.choice([-1, 1], output.shape)
    off = output + rng.uniform(0.3, 1.0, output.shape) * signs * 10.0 ** rng.uniform(1.0 - decimals, 0)
    order = rng.permutation(output.size).reshape(output.shape)
    ways = (
        off,
        np.where(order < max(2, output.size // 2), off, output),
        np.where(order < 2, off, output),
        rng.normal(size=output.shape),
        output * rng.uniform(0.5, 1.5) + rng.uniform(-0.5, 0.5),
    )
    return ways[int(rng.integers(len(ways)))]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_noise_gets_no_name(chunk: int) -> None:
    rng = np.random.default_rng(SEED + 10 + chunk)
    found = []
    for typed in typed_layers(rng, LAYERS * 5):
        output = np.asarray(normalize(typed.x.values, typed.layer.kind, **typed.layer.options).output)
        decimals = int(rng.choice([2, 3, 4, 5, 6]))
        found.append(typed.check({"output": printed(noise(rng, output, decimals), decimals)}))
    assert len(found) * len(CHUNKS) >= 150
    assert [one.keys for one in found if one.keys] == []
