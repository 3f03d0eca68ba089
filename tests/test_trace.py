"""Each line of a trace is true to its last digit, worked out here in exact arithmetic from what is printed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from conftest import Run

import normcli
from normcli.floats import rounded
from normcli.formula import tex
from normcli.formula.language import Call, Number
from normcli.formula.spelled import ABOUT, PARENTHESES, Text
from normcli.showing.report import Detail, Report
from normcli.showing.sections import sections
from normcli.teaching.trace import trace

EXACT = Context(prec=1500)
FLOAT_UNIT = Decimal("1e-15")  # what float64 leaves of a number, in a few units of its last place
TOKEN = re.compile(r"\s*((?:nan|inf)\b|[a-z]+\d*(?=\()|\d+\.?\d*(?:e[+-]\d+)?|[-+*/^(),~])")


def worked_out(text: str) -> list[Decimal]:
    """What an expression of a trace gives, one number for each term of its list; the marks say nothing."""
    tokens = [token for token in TOKEN.findall(text) if token != "~"]
    assert "".join(tokens) == re.sub(r"[\s~]", "", text)
    with localcontext(EXACT):
        values = [total(tokens)]
        while tokens:
            assert tokens.pop(0) == ","
            values.append(total(tokens))
    return values


def total(tokens: list[str]) -> Decimal:
    value = product(tokens)
    while tokens and tokens[0] in "+-":
        value = value + product(tokens) if tokens.pop(0) == "+" else value - product(tokens)
    return value


def product(tokens: list[str]) -> Decimal:
    value = power(tokens)
    while tokens and tokens[0] in "*/":
        value = value * power(tokens) if tokens.pop(0) == "*" else value / power(tokens)
    return value


def power(tokens: list[str]) -> Decimal:
    value = atom(tokens)
    if tokens and tokens[0] == "^":
        tokens.pop(0)
        value = value ** int(atom(tokens))
    return value


def atom(tokens: list[str]) -> Decimal:
    token = tokens.pop(0)
    if token == "-":
        return -atom(tokens)
    if tokens[:1] == ["("] and token.isalnum() and not token[0].isdigit():
        tokens.pop(0)
        inside = total(tokens)
        assert tokens.pop(0) == ")"
        return inside.sqrt() if token == "sqrt" else Decimal(float(rounded(np.array(float(inside)), token)))
    if token == "(":
        inside = total(tokens)
        assert tokens.pop(0) == ")"
        return inside
    return Decimal(token)


def untrue(found: Any, precision: int, printed: list[str]) -> Iterator[tuple[str, str, str]]:
    """The lines whose arithmetic does not round to the value printed; of halfway either side is right."""
    for step, value in zip(found.steps, printed, strict=True):
        line = step.substituted
        if any(word in f"{line} {value}" for word in ("nan", "inf")):
            continue
        assert "~(" not in line
        for given, shown in zip(worked_out(line), value.split(", "), strict=True):
            whole = 0 if "e" in value else -precision
            unit = Decimal(1).scaleb(int(Decimal(shown).as_tuple().exponent) if "." in shown else whole)
            if abs(given - Decimal(shown)) * 2 > unit + abs(Decimal(shown)) * FLOAT_UNIT:
                yield step.step, line, shown


def drawn(seed: int) -> tuple[np.ndarray, str, dict[str, Any]]:
    """A small tensor, tame or hostile, its kind and options."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["batch", "instance", "layer", "group", "rms"]))
    shape = (2, 4, 3)
    tame = rng.normal(rng.choice([0, 3, 1e4, -1e7]), rng.choice([1e-3, 1, 50]), size=shape)
    x = [
        lambda: np.round(tame, 2),
        lambda: tame,
        lambda: tame * 1e-9,
        lambda: tame * 1e-200,
        lambda: tame * 1e200,
        lambda: tame * 10.0 ** rng.integers(-30, 30, size=shape),
        lambda: rng.integers(-5, 9, size=shape) * 1.0,
        lambda: np.full(shape, 0.1) + rng.integers(0, 3, size=shape) * 2.0**-56,
        lambda: np.round(tame, 1) * 1e22,
    ][int(rng.integers(9))]()
    options: dict[str, Any] = {"eps": float(rng.choice([1e-5, 1e-12, 0.1, 2.0**-23, 0.0]))}
    options |= {"groups": 2} if kind == "group" else {}
    channels = (3,) if kind in ("layer", "rms") else (4,)
    if rng.random() < 0.5:
        options["weight"] = rng.choice([np.round(rng.normal(size=channels), 1), rng.normal(size=channels) * 1e5])
        options |= {} if kind == "rms" else {"bias": np.round(rng.normal(size=channels), 2)}
    if kind in ("batch", "instance") and rng.random() < 0.6:
        options |= {"mode": str(rng.choice(["train", "eval"])), "momentum": float(rng.choice([0.1, 1 / 3]))}
        options |= {"running_mean": rng.normal(size=4), "running_var": rng.uniform(0, 2, size=4)}
    elif kind != "rms" and rng.random() < 0.3:
        options["ddof"] = 1
    if rng.random() < 0.3:
        options["dtype"] = str(rng.choice(["float16", "bfloat16", "float32"]))
    return x, kind, options


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("precision", [2, 4, 8])
@pytest.mark.parametrize("seed", range(100))
def test_every_line_is_true_to_its_last_digit(seed: int, precision: int) -> None:
    x, kind, options = drawn(seed)
    x = rounded(x, options.get("dtype", "float64"))
    result = normcli.normalize(x, kind, steps=True, **options)
    for element in (None, (1, 2, 1)):
        found = trace(result, x, element, precision, full=True)
        printed = [
            row[-1]
            for row in sections(Report(result=result, trace=found), Detail(precision=precision, full=True))[0].rows
        ]
        assert [*untrue(found, precision, printed)] == []
        assert all(tex.lines(step.filled) for step in found.steps)


def lines(done: Any) -> dict[str, tuple[str, Any]]:
    return {step["step"]: (step["substituted"], step["value"]) for step in json.loads(done.stdout)["trace"]}


def test_small_numbers_have_the_digits_that_the_line_needs(normcli: Run) -> None:
    found = lines(normcli("layer", "[0.00012,0.00034,0.00051]", "--trace", "--json"))
    assert found["normalized"][0] == "~-0.00020333 * 315.8255, ~0.000016667 * 315.8255, ~0.00018667 * 315.8255"
    assert found["var"][0] == "((~-0.00020333)^2 + ~0.000016667^2 + ~0.00018667^2) / 3"


def test_numbers_that_do_are_written_as_ever(normcli: Run) -> None:
    found = lines(normcli("batch", "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]", "--element", "1,0", "--json"))
    assert [found[name][0] for name in ("rstd", "normalized", "output")] == [
        "1 / sqrt(4.6667 + 1e-05)", "3 * 0.4629", "1.3887 * 1 + 0",
    ]  # fmt: skip


def test_rounding_to_a_dtype_is_said_where_it_shows(normcli: Run) -> None:
    found = lines(normcli("layer", "[1,2,4,1]", "--dtype", "bfloat16", "--trace", "--json"))
    assert found["output"][0] == (
        "bfloat16(-0.8165 * 1 + 0), bfloat16(0 * 1 + 0), bfloat16(1.6330 * 1 + 0), bfloat16(-0.8165 * 1 + 0)"
    )


def test_the_exact_mean_is_shown_where_float64_has_too_few_digits(normcli: Run) -> None:
    found = lines(normcli("layer", "[0.1,0.2,0.3]", "--element", "1", "--json"))
    assert found["centered"] == ("~0.20000000000000001110223 - ~0.20000000000000000185037", pytest.approx(9.2519e-18))


def test_what_another_library_rounded_is_marked_where_it_shows() -> None:
    pytest.importorskip("torch")
    x = np.array([[1e8, 1e8 + 8, 1e8 + 24]], np.float32)
    result = normcli.normalize(x, "layer", backend="torch", steps=True)
    found = {step.step: step.substituted for step in trace(result, x, None).steps}
    assert found["mean"].startswith("~((")


def test_marks_and_dtypes_in_latex() -> None:
    half, more = Text("~-0.5"), Text("~2.5")
    squares = Call("+", (Call("^", (half, Number(2))), Call("^", (more, Number(2)))))
    assert tex.formula(squares) == r"({\sim}-0.5)^{2} + {\sim}2.5^{2}"
    product = Call("float16", (Call("*", (Text("~0.5"), Text("3"))),))
    assert tex.formula(product) == r"\mathrm{float16}({\sim}0.5 \cdot 3)"
    third = Call("/", (Text("1"), Text("3")))
    assert tex.formula(Call(ABOUT, (Call(PARENTHESES, (third,)),))) == r"{\sim}(\frac{1}{3})"


def test_a_value_that_is_not_finite_stands_as_it_is() -> None:
    x = np.array([math.nan, 1.0, math.inf])
    found = trace(normcli.normalize(x, "layer", steps=True), x)
    assert found.steps[0].substituted == "(nan + 1 + inf) / 3"
