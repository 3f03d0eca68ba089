"""The language of the lines: what is read, what is refused and where, how it is written, and what rules change."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normcli.arithmetic.evaluate import Group, worked_out
from normcli.errors import InputError
from normcli.formula import tex
from normcli.formula.extents import elementwise, needed, readings
from normcli.formula.family import CENTERED, DDOF_1, RMS
from normcli.formula.language import Call, Line, Name, Node, Number, lines, parsed, substituted
from normcli.formula.rewrite import fit, replaced, rewritten
from normcli.formula.spelled import GAP, LIST, TERMS, Text, inlined, spelled


class Fractions:
    """Exact numbers, one or in a list for the elements of a group."""

    def number(self, value: float) -> Fraction:
        return Fraction(value)

    def sum(self, value: Any, axes: tuple[int, ...]) -> Any:
        return Each([sum(value.items, Fraction(0))]).items[0]

    def sqrt(self, value: Any) -> Any:
        raise NotImplementedError


class Each:
    """A fraction for each element."""

    def __init__(self, items: list[Fraction]) -> None:
        self.items = items

    def __sub__(self, other: Fraction) -> Each:
        return Each([item - other for item in self.items])

    def __mul__(self, other: Each) -> Each:
        return Each([a * b for a, b in zip(self.items, other.items, strict=True)])


# --- reading --------------------------------------------------------------------------------------

READ = {
    "2 + 3 * 4": Fraction(14),
    "-2^2": Fraction(-4),  # Python's own ^ binds looser than +
    "2^3 + 1": Fraction(9),
    "8 / 4 / 2": Fraction(1),
    "8 / (4 / 2)": Fraction(4),
    "5 - 3 - 1": Fraction(1),
    "-(1 - 3) * 2": Fraction(4),
    "0.5 + 1e0": Fraction(3, 2),
    "abs(1 - 3)": Fraction(2),
}


@pytest.mark.parametrize("text", READ)
def test_a_formula_means_what_it_says(text: str) -> None:
    assert worked_out(parsed(text), Fractions(), lambda name: None) == READ[text]


REFUSED = {
    "a dot": ("x.mean", "column 1: a formula has numbers, names, + - * / ^, parentheses and functions only"),
    "an index": ("x[0]", "column 1: a formula has"),
    "a comparison": ("2 * (x < 1)", "column 6: a formula has"),
    "a lambda": ("lambda: 1", "column 1: a formula has"),
    "a text": ("x + 'a'", "column 5: only numbers stand in a formula"),
    "a truth value": ("x + True", "column 5: only numbers"),
    "an imaginary number": ("2j * x", "column 1: only numbers"),
    "a keyword": ("sum(x, axis=1)", "column 1: a formula has"),
    "a call of a call": ("sqrt(x)(x)", "column 1: a formula has"),
    "an unknown function": ("1 / sqr(x)", "column 5: there is no sqr; did you mean sqrt?"),
    "too many arguments": ("sqrt(x, y)", "column 1: sqrt takes 1 expression"),
    "axes that are no name": ("sum(x, 1)", "column 1: sum takes one expression, and perhaps the name of axes"),
    "a number too large": ("x + 1e400", "column 5: the number is too large"),
    "a parenthesis too few": ("(1 + 2", "column 1: this cannot be read"),
    "nothing": ("", "column 1: this cannot be read"),
    "an end": ("x +", "this cannot be read"),
    "two operators": ("2 ^ ^ 3", "this cannot be read"),
    "after a power": ("x^2 + y.a", "column 7: a formula has"),
    "an assignment": ("(x := 1)", "a formula has"),
    "two lines": ("x\ny", "this cannot be read"),
    "an old power": ("x**2", "this cannot be read"),
    "a matrix product": ("x @ y", "column 1: a formula has"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_formula_is_refused_where_it_stands(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(InputError) as refused:
        parsed(text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["x" * 501, "-" * 400 + "x", "(" * 250 + "x" + ")" * 250, "9" * 400], ids=len)
def test_what_is_too_much_is_refused_or_read(text: str) -> None:
    """Never a crash: Python's parser has limits of its own."""
    try:
        parsed(text)
    except InputError as refused:
        assert "\n" not in str(refused)  # either way will do


def test_a_line_needs_a_name() -> None:
    with pytest.raises(InputError, match="is no line; write NAME = FORMULA"):
        lines("2 = x")


def test_roles_of_lines() -> None:
    assert [line.role for line in lines("a = 1; where b = 2; beside c = 3")] == ["shown", "where", "beside"]


MACROS = {
    "var(x)": "mean((x - mean(x))^2)",
    "std(x)": "sqrt(mean((x - mean(x))^2))",
    "norm(x)": "sqrt(sum(x^2))",
    "rms(2 * x)": "sqrt(mean((2 * x)^2))",
}


@pytest.mark.parametrize("macro", MACROS)
def test_macros_are_written_out(macro: str) -> None:
    assert parsed(macro) == parsed(MACROS[macro])


def test_the_axes_of_a_macro_are_those_of_its_reductions() -> None:
    assert parsed("norm(mean(x), hw)") == parsed("sqrt(sum(mean(x)^2, hw))")


# --- writing --------------------------------------------------------------------------------------

NAMES = st.sampled_from([Name("x"), Name("mean"), Name("eps"), Number(1), Number(2), Number(0.5)])


def calls(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    two = st.builds(lambda op, a, b: Call(op, (a, b)), st.sampled_from("+-*/^"), inner, inner)
    one = st.builds(lambda op, a: Call(op, (a,)), st.sampled_from(["-", "sqrt", "sum", "abs"]), inner)
    return two | one


@given(st.recursive(NAMES, calls, max_leaves=12))
def test_what_is_written_reads_back(node: Node) -> None:
    assert parsed(spelled(node)) == node


FILLED = {
    "negative numbers": (Call("-", (Text("-6"), Text("-3"))), "-6 - (-3)", "-6 - (-3)"),
    "a negative base": (Call("^", (Text("-2"), Number(2))), "(-2)^2", "(-2)^{2}"),
    "a small base": (Call("^", (Text("2e-07"), Number(2))), "2e-07^2", r"(2 \times 10^{-7})^{2}"),
    "a sum": (Call("/", (Call(TERMS, (Text("1"), Text("-2"), GAP)), Text("9"))),
              "(1 + (-2) + ...) / 9", r"\frac{1 + (-2) + \cdots}{9}"),
    "not finite": (Call("-", (Text("nan"), Text("inf"))), "nan - inf", r"\mathrm{NaN} - \infty"),
    "a list": (Call(LIST, (Text("-1"), Text("~2"))), "-1, ~2", r"-1,\; {\sim}2"),
    "a product": (Call("*", (Text("-1"), Text("0.5"))), "-1 * 0.5", r"-1 \cdot 0.5"),
    "a root": (parsed("1 / sqrt(var + eps)"), "1 / sqrt(var + eps)", r"\frac{1}{\sqrt{\sigma^2 + \epsilon}}"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILLED)
def test_numbers_are_filled_in(case: str) -> None:
    tree, text, formula = FILLED[case]
    assert (spelled(tree), tex.formula(tree)) == (text, formula)


def test_a_where_line_is_written_inside() -> None:
    line = parsed("(1 - m) * old + m * batch")
    tree = inlined(line, "batch", parsed("sum(var * n / (n - 1), samples) / N"))
    assert spelled(tree) == "(1 - m) * old + m * sum(var*n/(n-1))/N"
    assert tex.formula(tree) == (r"(1 - m) \cdot \mathrm{old} + \frac{m \cdot \sum \frac{\sigma^2 \, n}{n - 1}}{N}")


# --- changing -------------------------------------------------------------------------------------

RULES = {
    "a letter fits anything": ("y = sqrt(a * b + eps)", "sqrt(V + eps) -> sqrt(V) + eps", "sqrt(a * b) + eps"),
    "two letters": ("y = a * weight + bias", "A * weight + bias -> (A + bias) * weight", "(a + bias) * weight"),
    "the same letter twice": ("y = (a - b) * (a - b)", "(A - B) * (A - B) -> (A - B)^2", "(a - b)^2"),
    "inside": ("y = 1 / (x - mean)", "x - M -> M - x", "1 / (mean - x)"),
    "one after the other": ("y = x * weight", "A * weight -> A; x -> x * weight", "x * weight"),
}


@pytest.mark.parametrize("case", RULES)
def test_a_rule_changes_what_it_fits(case: str) -> None:
    before, rule, after = RULES[case]
    [line] = rewritten(lines(before), rule) or [Line("", Name("nothing"))]
    assert line.value == parsed(after)


def test_a_rule_that_fits_nowhere_gives_nothing() -> None:
    assert rewritten(lines(RMS), "x - M -> M - x") is None


def test_a_letter_stands_for_one_thing() -> None:
    assert fit(parsed("A - A"), parsed("a - b")) is None


def test_an_option_replaces_lines() -> None:
    changed = replaced(lines(CENTERED), DDOF_1)
    assert [(line.name, line.role) for line in changed][2:5] == [
        ("var_unbiased", "shown"),
        ("var", "beside"),
        ("rstd", "shown"),
    ]


def test_names_are_replaced_by_trees() -> None:
    assert substituted(parsed("m * mean"), {Name("mean"): parsed("a + b")}) == parsed("m * (a + b)")


# --- what the lines tell --------------------------------------------------------------------------


def test_what_belongs_to_each_element() -> None:
    assert elementwise(lines(CENTERED)) == {"centered", "normalized", "output"}


@pytest.mark.parametrize(("text", "times"), [(CENTERED, 2), (RMS, 1), ("y = x / sum(x) + sum(x^2)", 1)])
def test_how_often_the_elements_are_read(text: str, times: int) -> None:
    assert len(readings(lines(text))) == times


def test_what_is_not_asked_for_is_not_worked_out() -> None:
    assert [line.name for line in needed(lines(CENTERED), ["var"])] == ["mean", "centered", "var"]


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_blocks_are_read_once_for_all_the_sums_of_one_level(blocks: int) -> None:
    x = [Fraction(value) for value in (1, 6, 2, 5, 3, 7)]
    read = []

    def block(start: int) -> dict[str, Each]:
        read.append(start)
        return {"x": Each(x[start : start + len(x) // blocks])}

    program = lines(
        "mean = sum(x) / n; total = sum(x * x); var = sum((x - mean) * (x - mean)) / n; spare = sum(x * x * x)"
    )
    places = range(0, len(x), len(x) // blocks)
    group = Group(program, Fractions(), {"n": Fraction(len(x))}, [lambda at=at: block(at) for at in places], {None: ()})
    assert (group["mean"], group["total"], group["var"]) == (4, sum(v * v for v in x), Fraction(28, 6))
    assert len(read) == (1 if blocks == 1 else 2 * blocks)
