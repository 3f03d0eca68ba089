"""normcli formula NAME: a kind's own lines, to be changed and run."""

from __future__ import annotations

from normcli.errors import InputError
from normcli.formula.spelled import spelled
from normcli.planning.further import EVERY, own_lines
from normcli.words import quoted


def own(name: str) -> str:
    """The lines of a kind as text; InputError where there is an input missing instead.

    >>> print(own("pixel"), end="")
    mean_square = sum(x^2) / n
    rstd = 1 / sqrt(mean_square + eps)
    output = x * rstd
    """
    if name.strip() not in EVERY or name.strip() == "formula":
        raise InputError(f"{quoted(name)} needs an INPUT; a kind's name alone, such as batch, prints its lines")
    roles = {"shown": "", "where": "where ", "beside": "beside "}
    return "".join(f"{roles[line.role]}{line.name} = {spelled(line.value)}\n" for line in own_lines(name))
