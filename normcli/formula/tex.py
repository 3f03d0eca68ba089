"""Lines as LaTeX, with the symbols of the papers: gamma for weight, beta for bias, mu for the mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from normcli.formula.language import Call, Name, Number
from normcli.formula.spelled import ABOUT, GAP, LIST, PARENTHESES, TERMS, Text, whole

LINE = 50  # digits, about, that stand beside a symbol in a column of text

SYMBOLS = {
    "x": "x", "n": "n", "m": "m", "N": "N", "eps": r"\epsilon", "old": r"\mathrm{old}",
    "mean": r"\mu", "centered": "d", "var": r"\sigma^2", "var_unbiased": r"s^2", "rstd": "r",
    "mean_square": r"\overline{x^2}", "normalized": r"\hat{x}", "output": "y", "weight": r"\gamma", "bias": r"\beta",
    **{
        f"grad_{name}": rf"\frac{{\partial L}}{{\partial {symbol}}}"
        for name, symbol in {
            "input": "x", "output": "y", "normalized": r"\hat{x}", "rstd": "r", "centered": "d", "mean": r"\mu",
            "var": r"\sigma^2", "var_unbiased": "s^2", "mean_square": r"\overline{x^2}",
            "weight": r"\gamma", "bias": r"\beta",
        }.items()
    },
    "running_mean": r"\mu_{\mathrm{running}}", "running_var": r"\sigma^2_{\mathrm{running}}",
    "rank_n": "n_r", "rank_mean": r"\mu_r", "rank_var": r"\sigma_r^2",
    "merged_mean": r"\mu", "merged_var": r"\sigma^2", "merged_var_unbiased": "s^2",
}  # fmt: skip
_NAMED = {
    "exp": r"\exp", "log": r"\log", "max": r"\max", "min": r"\min", "largest": r"\max", "smallest": r"\min",
    "larger": r"\max", "smaller": r"\min",
}  # fmt: skip
_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        **{character: f"\\{character}" for character in "#$%&_{}"},
    }
)  # fmt: skip


def escaped(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> escaped("100 % of var_unbiased (see --full)")
    '100 \\% of var\\_unbiased (see -{}-full)'
    """
    return text.translate(_SPECIAL).replace("--", "-{}-")  # two would become one dash


def number(text: str) -> str:
    r"""A number's text in LaTeX: powers of ten written out, and names for what is no number.

    >>> number("1e-05"), number("-2.5e+10"), number("nan"), number("-inf")
    ('10^{-5}', '-2.5 \\times 10^{10}', '\\mathrm{NaN}', '-\\infty')
    """
    sign, size = ("-", text[1:]) if text.startswith("-") else ("", text)
    if size in ("nan", "inf"):
        return sign + {"nan": r"\mathrm{NaN}", "inf": r"\infty"}[size]
    digits, _, exponent = size.lower().partition("e")
    if not exponent:
        return text
    power = f"10^{{{int(exponent)}}}"
    return sign + (power if digits == "1" else rf"{digits} \times {power}")


def formula(node: Any) -> str:
    r"""An expression as one formula.

    >>> from normcli.formula.language import parsed
    >>> formula(parsed("1 / sqrt(var + eps)"))
    '\\frac{1}{\\sqrt{\\sigma^2 + \\epsilon}}'
    """
    return _tex(whole(node))


def lines(node: Any) -> list[str]:
    r"""An expression as a formula in as many lines as it takes; sums and lists are cut between their terms.

    >>> lines(Call("/", (Call(TERMS, (Text("100.25"),) * 12), Number(12))))[0]
    '\\tfrac{1}{12} \\bigl( 100.25 + 100.25 + 100.25 + 100.25 + 100.25'
    """
    node = whole(node)
    if _length(node) <= LINE or node.function not in ("/", LIST, TERMS, "+", "-"):
        return [_tex(node)]
    if node.function == "/" and _is_parenthesized(node.parts[0]):
        first, *more = _filled(list(_terms(node.parts[0].parts[0])))
        found = [rf"\tfrac{{1}}{{{_tex(_bare(node.parts[1]))}}} \bigl( {first}", *(rf"\quad {line}" for line in more)]
        return [*found[:-1], rf"{found[-1]} \bigr)"]
    if node.function == "/":
        return [_tex(node)]
    return _filled(list(_terms(node)))


def values(texts: list[str]) -> list[str]:
    """Numbers between commas, in as many lines as they take."""
    return _filled([number(text) + (r",\;" if i < len(texts) - 1 else "") for i, text in enumerate(texts)])


def _tex(node: Any) -> str:
    if node == GAP:
        return r"\cdots"
    if isinstance(node, Text):
        return rf"{{\sim}}{number(node[1:])}" if node.startswith("~") else number(node)
    if isinstance(node, Number):
        return number(f"{node.value:g}")
    if isinstance(node, Name):
        return SYMBOLS.get(node.name) or rf"\mathrm{{{escaped(node.name)}}}"
    if node.function in ("+", TERMS, LIST) or (node.function == "-" and len(node.parts) > 1):
        return " ".join(_terms(node))
    one, two = (*node.parts, None)[:2]
    written = {
        "-": lambda: f"-{_tex(one)}",
        ABOUT: lambda: rf"{{\sim}}{_tex(one)}",
        "=": lambda: rf"{_tex(one)} = {_tex(two)}",
        "*": lambda: rf"{_tex(one)} \cdot {_tex(two)}" if _has_digits(node) else rf"{_tex(one)} \, {_tex(two)}",
        "/": lambda: rf"\frac{{{_tex(_bare(one))}}}{{{_tex(_bare(two))}}}",
        "^": lambda: f"{_based(_tex(one))}^{{{_tex(two)}}}",
        PARENTHESES: lambda: f"({_tex(one)})",
        "sqrt": lambda: rf"\sqrt{{{_tex(one)}}}",
        "abs": lambda: rf"\lvert {_tex(one)} \rvert",
        "sum": lambda: rf"\sum{_below(node.axes)} {_tex(_of_a_sum(one))}",
    }
    if node.function in written:
        return written[node.function]()
    name = _NAMED.get(node.function) or rf"\mathrm{{{escaped(node.function)}}}"
    return rf"{name}{_below(node.axes)}({', '.join(map(_tex, node.parts))})"


def _of_a_sum(node: Any) -> Any:
    """What is summed up; several terms get parentheses, for a sum reaches no further than its first."""
    several = isinstance(node, Call) and node.function in ("+", "-") and len(node.parts) > 1
    return Call(PARENTHESES, (node,)) if several else node


def _below(axes: str | None) -> str:
    return rf"_{{\mathrm{{{escaped(axes)}}}}}" if axes else ""


def _terms(node: Any) -> Iterator[str]:
    """The terms of a sum or of a list, each with the sign or the comma that belongs to it."""
    if isinstance(node, Call) and node.function == LIST:
        for index, part in enumerate(node.parts):
            yield _tex(part) + (r",\;" if index < len(node.parts) - 1 else "")
        return
    for index, (sign, part) in enumerate(_signed(node)):
        yield f"{sign} {_tex(part)}" if index else _tex(part)


def _signed(node: Any) -> Iterator[tuple[str, Any]]:
    """The terms of a sum with their signs."""
    if isinstance(node, Call) and node.function == TERMS:
        yield from (("+", part) for part in node.parts)
    elif isinstance(node, Call) and node.function in ("+", "-") and len(node.parts) > 1:
        yield from _signed(node.parts[0])
        yield node.function, node.parts[1]
    else:
        yield "+", node


def _is_parenthesized(node: Any) -> bool:
    return isinstance(node, Call) and node.function == PARENTHESES


def _based(text: str) -> str:
    """What a power is taken of; a power of ten gets parentheses."""
    return f"({text})" if "^" in text and not text.startswith("(") else text


def _bare(node: Any) -> Any:
    """Without the parentheses that a fraction makes needless."""
    return node.parts[0] if _is_parenthesized(node) else node


def _has_digits(node: Any) -> bool:
    if isinstance(node, Call):
        return any(_has_digits(part) for part in node.parts)
    return isinstance(node, Text | Number)


def _length(node: Any) -> int:
    """About how many digits wide a formula is."""
    if isinstance(node, Text):
        signs = len(node) - len(node.lstrip("~-"))
        return len(node) + 2 * signs
    if not isinstance(node, Call):
        return len(node.name) if isinstance(node, Name) else len(f"{node.value:g}")
    if node.function == "/":
        return max(_length(part) for part in node.parts)
    if node.function in ("+", "-", TERMS) and len(node.parts) > 1:
        return 1 + sum(_length(part) + 2 + 3 * (sign == "-") for sign, part in _signed(node))
    return 1 + sum(_length(part) + 2 for part in node.parts)


def _filled(terms: list[str]) -> list[str]:
    """The terms in lines of about LINE digits."""
    found, room = [""], 0
    for term in terms:
        wide = width(term) + 2
        if found[-1] and room + wide > LINE:
            found.append("")
            room = 0
        found[-1] += f" {term}" if found[-1] else term
        room += wide
    return found


def width(formula: str) -> int:
    r"""About how many digits wide a formula is, a fraction's both parts counted.

    >>> width(r"&= \tfrac{1}{4} \cdot 0.25")
    8
    """
    return len(re.sub(r"\\[a-z]+|[{}^\\& ]", "", formula)) + formula.count(" + ") + formula.count(r"\cdot")
