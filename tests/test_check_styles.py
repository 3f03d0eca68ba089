"""Right answers in every way in which people print them, from every arithmetic that they come from: all check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from normcli.calculate import initial_state, normalize
from normcli.planning.plan import plan
from normcli.teaching.check import check
from normcli.teaching.printed import Printed, read_printed
from normcli.teaching.verdict import Check

torch = pytest.importorskip("torch")

SEED, ROUNDS = 20250311, 3  # rounds for each way of printing
Style = Callable[[np.ndarray], str]

# kind, shape, parameters drawn (weight, bias, running statistics), options
LAYERS = (
    ("batch", (5, 3), "wb", {}),
    ("batch", (4, 3, 5), "wbr", {"momentum": 0.3}),
    ("batch", (5, 3), "wbr", {"mode": "eval"}),
    ("batch", (16, 8, 6, 6), "", {}),
    ("instance", (2, 3, 5), "wb", {}),
    ("instance", (3, 2, 7), "", {}),
    ("layer", (3, 5), "wb", {}),
    ("layer", (2, 3, 4), "wb", {"normalized_shape": (3, 4)}),
    ("layer", (4, 64), "", {}),
    ("group", (2, 6, 4), "wb", {"groups": 2}),
    ("rms", (3, 5), "w", {}),
    ("rms", (2, 3, 4), "w", {"normalized_shape": (3, 4), "eps": 1e-3}),
)


def nested(cell: Callable[[Any], str]) -> Style:
    def text(values: Any) -> str:
        return f"[{','.join(text(item) for item in values)}]" if np.ndim(values) else cell(values)

    return text


def fixed(decimals: int) -> Style:
    return nested(lambda value: f"{float(value):.{decimals}f}")


def stripped(decimals: int) -> Style:
    return nested(lambda value: f"{float(value):.{decimals}f}".rstrip("0").rstrip(".") or "0")


def significant(digits: int) -> Style:
    return nested(lambda value: f"{float(value):.{digits}g}")


def exponent(digits: int) -> Style:
    return nested(lambda value: f"{float(value):.{digits}e}")


def cut_off(decimals: int) -> Style:
    return nested(lambda value: f"{np.trunc(float(value) * 10**decimals) / 10**decimals:.{decimals}f}")


def shortest(dtype: type) -> Style:
    return lambda values: nested(str)(np.asarray(values).astype(dtype))


def printed_by_numpy(dtype: type) -> Style:
    return lambda values: np.array2string(np.asarray(values).astype(dtype), threshold=10**9)


def pasted_from_numpy(dtype: type) -> Style:
    def text(values: np.ndarray) -> str:
        with np.printoptions(threshold=10**9):
            return repr(np.asarray(values).astype(dtype))

    return text


def printed_by_torch(name: str) -> Style:
    def text(values: np.ndarray) -> str:
        torch.set_printoptions(threshold=10**9)
        return str(torch.tensor(np.asarray(values, np.float64)).to(getattr(torch, name)))

    return text


STYLES: dict[str, Style] = {
    **{f"{n} decimals": fixed(n) for n in range(2, 9)},
    **{f"{n} decimals, zeros stripped": stripped(n) for n in (2, 4, 6)},
    **{f"{n} significant digits": significant(n) for n in range(3, 10)},
    **{f"exponent, {n} decimals": exponent(n) for n in (2, 3, 4, 6)},
    **{f"{n} decimals, cut off": cut_off(n) for n in (2, 3, 4, 6)},
    **{f"shortest {dtype.__name__}": shortest(dtype) for dtype in (np.float16, np.float32, np.float64)},
    **{f"print of NumPy, {dtype.__name__}": printed_by_numpy(dtype) for dtype in (np.float32, np.float64)},
    **{f"repr of NumPy, {t.__name__}": pasted_from_numpy(t) for t in (np.float16, np.float32, np.float64)},
    **{f"print of torch, {name}": printed_by_torch(name) for name in ("float16", "bfloat16", "float32", "float64")},
}
SOURCES = {"exact": "float64", "float32": "float32", "float16": "float16", "torch32": "float32", "torch64": "float64"}


def by_torch(kind: str, x: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """The answer of torch.nn.functional in the dtype of x."""
    f, tensor = torch.nn.functional, torch.from_numpy(x)
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, var = (
        None if options.get(name) is None else torch.tensor(options[name], dtype=tensor.dtype) for name in names
    )
    eps, shape = options.get("eps", 1e-5), options.get("normalized_shape", x.shape[-1:])
    called = {
        "batch": lambda: f.batch_norm(tensor, mean, var, weight, bias, options.get("mode") != "eval", 0.1, eps),
        "instance": lambda: f.instance_norm(tensor, weight=weight, bias=bias, eps=eps),
        "layer": lambda: f.layer_norm(tensor, shape, weight, bias, eps),
        "group": lambda: f.group_norm(tensor, options["groups"], weight, bias, eps),
        "rms": lambda: f.rms_norm(tensor, shape, weight, options.get("eps")),
    }
    return np.asarray(called[kind]())


def answers(name: str) -> Iterator[tuple[str, Check]]:
    """Every layer with numbers of one source after the other, its answer printed in that style and read again."""
    rng = np.random.default_rng(SEED + list(STYLES).index(name))
    style, sources = STYLES[name], [source for source in SOURCES if "bfloat16" not in name or source != "float16"]
    for turn in range(ROUNDS * len(LAYERS)):
        kind, shape, drawn, options = LAYERS[turn % len(LAYERS)]
        source = sources[turn % len(sources)]
        far = [0.0, 0.4, 3.0] if source == "float16" else [0.0, 0.4, 3.0, 100.0]
        mean, spread = float(rng.choice(far)), float(rng.choice([0.5, 1, 30] if source == "float16" else [0.02, 1, 30]))
        x = (rng.normal(mean, 1, shape) * spread).astype(SOURCES[source])
        size = plan(kind, shape, "float64", options).weight_shape
        parameters = {
            "weight": np.round(rng.uniform(0.4, 2, size), 2),
            "bias": np.round(rng.uniform(-1, 1, size), 2),
            "running_mean": np.round(rng.normal(mean * spread, 0.5 * spread, size), 3),
            "running_var": np.round(rng.uniform(0.3, 2, size) * spread**2, 4),
        }
        given = {name: values for name, values in parameters.items() if name[0] in drawn}
        asked = options | given
        torchs = source.startswith("torch")
        exact = by_torch(kind, x, asked) if torchs else np.asarray(normalize(x, kind, **asked).output)
        answer, _ = read_printed(style(exact))
        settled = plan(kind, shape, SOURCES[source], asked)
        found = check(
            Printed.exactly(x, SOURCES[source]),
            settled,
            initial_state(settled, asked),
            {"output": answer},
            parameters={name: Printed.exactly(values) for name, values in given.items()},
        )
        yield f"{kind} {shape} {source}, mean {mean}, spread {spread}", found


@pytest.mark.parametrize("name", STYLES)
def test_right_answers_check_however_they_were_printed(name: str) -> None:
    verdicts = list(answers(name))
    assert Counter(what for what, found in verdicts if not found.ok) == Counter()
    assert len(verdicts) * len(STYLES) >= 1000


def beyond_three_units(found: Check, answer: Printed) -> bool:
    """Whether any cell passes with more than three units of the last digit that it shows."""
    (compared,) = found.quantities
    with np.errstate(over="ignore"):
        unit = np.where(answer.shown, 10.0 ** -answer.decimals.astype(float), np.inf)
    return bool((compared.difference > 3 * unit).any())


@pytest.mark.parametrize("decimals", [2, 4, 6])
def test_no_answer_checks_by_more_than_three_units_without_saying_what_it_assumes(decimals: int) -> None:
    rng = np.random.default_rng(SEED + decimals)
    for turn in range(36):
        x = np.round(rng.normal(0.4, 1, (3, 4)), turn % 3 + 1)
        settled = plan("layer", x.shape, "float64", {})
        noise = rng.uniform(-1, 1, x.shape) * 10.0 ** -rng.uniform(0, decimals)
        answer, _ = read_printed(fixed(decimals)(normalize(x, "layer").output + noise))
        given = Printed(x, np.full(x.shape, turn % 3 + 1))
        found = check(given, settled, initial_state(settled, {}), {"output": answer})
        assert not found.ok or found.assumes or not beyond_three_units(found, answer)
