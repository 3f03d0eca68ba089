"""The trace's arithmetic, ``(1 + 6 + 2) / 3``, as LaTeX: read as an expression, written as a formula.

What is read is what ``normcli.teaching.trace`` writes: numbers, names, + - * / ^, parentheses, functions, lists
between commas, ``~`` before what is rounded, and ``...`` for terms left out. The symbols are those of
the papers: gamma for weight, beta for bias, mu for the mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINE = 50  # digits, about, that stand beside a symbol in a column of text

SYMBOLS = {
    "x": "x", "n": "n", "m": "m", "N": "N", "eps": r"\epsilon", "old": r"\mathrm{old}",
    "mean": r"\mu", "centered": "d", "var": r"\sigma^2", "var_unbiased": r"s^2", "rstd": "r",
    "mean_square": r"\overline{x^2}", "normalized": r"\hat{x}", "output": "y", "weight": r"\gamma", "bias": r"\beta",
    "running_mean": r"\mu_{\mathrm{running}}", "running_var": r"\sigma^2_{\mathrm{running}}",
}  # fmt: skip
_TOKEN = re.compile(r"\s*(\.\.\.|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?:nan|inf)(?!\w)|[A-Za-z_]\w*|[-+*/^(),=~])")
_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        **{character: f"\\{character}" for character in "#$%&_{}"},
    }
)  # fmt: skip


@dataclass(frozen=True)
class Node:
    """An operation and what it is applied to; ``op`` alone for a number or a name."""

    op: str
    parts: tuple[Node, ...] = ()


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


def formula(text: str) -> str:
    r"""An expression as one formula.

    >>> formula("1 / sqrt(var + eps)"), formula("(1 + 6 + 2) / 3")
    ('\\frac{1}{\\sqrt{\\sigma^2 + \\epsilon}}', '\\frac{1 + 6 + 2}{3}')
    """
    return _tex(parsed(text))


def lines(text: str) -> list[str]:
    r"""An expression as a formula in as many lines as it takes; sums and lists are cut between their terms.

    >>> lines("(" + " + ".join(["100.25"] * 12) + ") / 12")[0]
    '\\tfrac{1}{12} \\bigl( 100.25 + 100.25 + 100.25 + 100.25 + 100.25'
    """
    node = parsed(text)
    if _length(node) <= LINE or node.op not in ("/", "list", "+"):
        return [_tex(node)]
    if node.op == "/" and node.parts[0].op == "()":
        first, *more = _filled(list(_terms(node.parts[0].parts[0])))
        found = [rf"\tfrac{{1}}{{{_tex(_bare(node.parts[1]))}}} \bigl( {first}", *(rf"\quad {line}" for line in more)]
        return [*found[:-1], rf"{found[-1]} \bigr)"]
    return _filled(list(_terms(node)))


def values(texts: list[str]) -> list[str]:
    """Numbers between commas, in as many lines as they take."""
    return _filled([number(text) + (r",\;" if i < len(texts) - 1 else "") for i, text in enumerate(texts)])


def parsed(text: str) -> Node:
    """The expression that a text of the trace stands for; ValueError for what is none.

    >>> parsed("3 * (-2)^2").op
    '*'
    """
    tokens = [match[1] for match in _TOKEN.finditer(text)]
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"no expression: {text!r}")
    node, rest = _list(tokens)
    if rest:
        raise ValueError(f"no expression: {text!r}")
    return node


def _list(tokens: list[str]) -> tuple[Node, list[str]]:
    items: list[Node] = []
    while True:
        node, tokens = _sum(tokens)
        if tokens[:1] == ["="]:
            other, tokens = _sum(tokens[1:])
            node = Node("=", (node, other))
        items.append(node)
        if tokens[:1] != [","]:
            return (items[0] if len(items) == 1 else Node("list", tuple(items))), tokens
        tokens = tokens[1:]


def _sum(tokens: list[str]) -> tuple[Node, list[str]]:
    """Terms with a plus or a minus between them: one node, for a thousand of them must not nest."""
    node, at = _product(tokens, 0)
    terms = [node]
    while at < len(tokens) and tokens[at] in "+-":
        sign = tokens[at]
        node, at = _product(tokens, at + 1)
        terms.append(Node("negative", (node,)) if sign == "-" else node)
    return (terms[0] if len(terms) == 1 else Node("+", tuple(terms))), tokens[at:]


def _product(tokens: list[str], at: int) -> tuple[Node, int]:
    node, at = _power(tokens, at)
    while at < len(tokens) and tokens[at] in "*/":
        op = tokens[at]
        other, at = _power(tokens, at + 1)
        node = Node(op, (node, other))
    return node, at


def _power(tokens: list[str], at: int) -> tuple[Node, int]:
    node, at = _atom(tokens, at)
    if at < len(tokens) and tokens[at] == "^":
        other, at = _atom(tokens, at + 1)
        node = Node("^", (node, other))
    return node, at


def _atom(tokens: list[str], at: int) -> tuple[Node, int]:
    if at >= len(tokens):
        raise ValueError("an expression ends too soon")
    token = tokens[at]
    if token in "-~":
        node, at = _atom(tokens, at + 1)
        return Node("negative" if token == "-" else "about", (node,)), at
    if token == "(" or tokens[at + 1 : at + 2] == ["("]:
        start = at + 1 if token == "(" else at + 2
        inside, rest = _list(tokens[start:])
        if rest[:1] != [")"]:
            raise ValueError("a parenthesis is not closed")
        return Node("()" if token == "(" else token, (inside,)), len(tokens) - len(rest) + 1
    if token in "+*/^),=":
        raise ValueError(f"{token} stands where a number should")
    return Node(token), at + 1


def _tex(node: Node) -> str:
    one, two = (*node.parts, Node(""), Node(""))[:2]
    if not node.parts:
        symbol = r"\cdots" if node.op == "..." else SYMBOLS.get(node.op)
        return symbol or (
            number(node.op) if not node.op[:1].isalpha() or node.op in ("nan", "inf") else escaped(node.op)
        )
    if node.op in ("+", "list"):
        return " ".join(_terms(node))
    written = {
        "negative": lambda: f"-{_tex(one)}",
        "about": lambda: rf"{{\sim}}{_tex(one)}",
        "=": lambda: rf"{_tex(one)} = {_tex(two)}",
        "*": lambda: rf"{_tex(one)} \cdot {_tex(two)}" if _has_digits(node) else rf"{_tex(one)} \, {_tex(two)}",
        "/": lambda: rf"\frac{{{_tex(_bare(one))}}}{{{_tex(_bare(two))}}}",
        "^": lambda: f"{_based(_tex(one))}^{{{_tex(two)}}}",
        "()": lambda: f"({_tex(one)})",
        "sqrt": lambda: rf"\sqrt{{{_tex(one)}}}",
        "sum": lambda: rf"\sum {_tex(one)}",
    }
    return written[node.op]() if node.op in written else rf"\mathrm{{{escaped(node.op)}}}({_tex(one)})"


def _terms(node: Node) -> Iterator[str]:
    """The terms of a sum or of a list, each with the sign or the comma that belongs to it."""
    if node.op == "list":
        for index, part in enumerate(node.parts):
            yield _tex(part) + (r",\;" if index < len(node.parts) - 1 else "")
        return
    for index, part in enumerate(node.parts if node.op == "+" else (node,)):
        if part.op == "negative" and index:
            yield f"- {_tex(part.parts[0])}"
        else:
            yield f"+ {_tex(part)}" if index else _tex(part)


def _based(text: str) -> str:
    """What a power is taken of; a power of ten gets parentheses."""
    return f"({text})" if "^" in text and not text.startswith("(") else text


def _bare(node: Node) -> Node:
    """Without the parentheses that a fraction makes needless."""
    return node.parts[0] if node.op == "()" else node


def _has_digits(node: Node) -> bool:
    return node.op[:1].isdigit() or node.op in ("nan", "inf") or any(_has_digits(part) for part in node.parts)


def _length(node: Node) -> int:
    """About how many digits wide a formula is."""
    if node.op == "/":
        return max(_length(part) for part in node.parts)
    return (len(node.op) if not node.parts else 1) + sum(_length(part) + 2 for part in node.parts)


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
