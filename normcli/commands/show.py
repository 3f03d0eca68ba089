"""What is to be done with the results of a calculation, and what of it cannot be done together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import normcli
from normcli.arithmetic.run import REFERENCE, chosen
from normcli.commands.options import PARTS, chosen_format
from normcli.commands.texts import Source, plain_tolerance
from normcli.errors import InputError
from normcli.files.write import OUTPUTS, PAGES, check_suffix
from normcli.planning.kinds import ALIASES, GRADIENTS
from normcli.showing.formats import SCRIPTS
from normcli.showing.report import Detail
from normcli.words import either, flag


class Show(NamedTuple):  # see normcli.showing.report
    """The options of PRESENTATION, with their defaults."""

    grad_output: Source | None = None
    only: str | None = None
    element: tuple[int, ...] | None = None
    precision: int = 4
    full: bool = False
    cells: bool = False
    key: str | None = None
    state: Source | None = None
    prefix: str | None = None
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    expect: Mapping[str, Source] = MappingProxyType({})
    decimals: int | None = None
    input_decimals: int | None = None
    atol: float | None = None
    rtol: float | None = None
    versus: tuple[str, ...] = ()
    trace: bool = False
    steps: str | None = None
    picture: bool = False
    format: str | None = None
    json: bool = False
    svg: str | None = None
    html: str | None = None
    output: str | None = None
    save_state: str | None = None

    @property
    def detail(self) -> Detail:
        """How much of a report is shown."""
        return Detail(only=self.only, element=self.element, precision=self.precision, full=self.full, cells=self.cells)

    @property
    def within(self) -> dict[str, float]:
        """The plain tolerance that an answer is held to; empty for the derived one."""
        return plain_tolerance(self.atol, self.rtol)

    @property
    def streams(self) -> bool:
        """Whether an input may stay in its file: nothing but the reference's own result is asked for."""
        plain = self.backend == REFERENCE and self.key is None
        more = self.picture or self.spelled or self.traced or self.versus or self.expect
        return plain and not more

    @property
    def spelled(self) -> bool:
        """Whether the input itself is written out."""
        return self.format in SCRIPTS or self.html is not None

    @property
    def tensor(self) -> str:
        """The name of the tensor that is written to --output."""
        return self.only if self.only in GRADIENTS else "output"

    @property
    def traced(self) -> bool:
        """Whether the steps of the calculation are wanted."""
        return self.trace or self.steps is not None or self.element is not None or self.only == "trace"


def settled(inputs: list[str], options: Mapping[str, Any], show: Show) -> Show:
    """The presentation with its defaults; what cannot be shown or written is refused before anything is read."""
    show = show._replace(format=chosen_format(show.format, json=show.json))
    if show.picture and show.format != "table":
        raise InputError(f"--picture is drawn with tables; it has no place in --format {show.format}")
    if show.only is not None:
        show = show._replace(only=_part(show.only, show))
    if not 0 <= show.precision <= 17:
        raise InputError(f"--precision is {show.precision}; it must be between 0 and 17")
    show = show._replace(backend=chosen(show.backend, show.device))
    sources = [
        *inputs,
        *(
            v.text
            for v in [*options.values(), *show.expect.values(), show.state, show.grad_output]
            if isinstance(v, Source)
        ),
    ]
    if [text.strip() for text in sources].count("-") > 1:
        raise InputError("standard input (-) is given twice; it can be read once")
    if show.prefix is not None and show.state is None:
        raise InputError("--prefix names a layer of a file; give the file with --state")
    more = show.expect or show.versus or show.element is not None or show.only not in (None, "output")
    if show.format in SCRIPTS and more:
        raise InputError(
            f"--format {show.format} writes the calculation alone",
            hint="leave out --expect, --versus, --only and --trace",
        )
    refuse_overwriting(show, len(inputs))
    for name in ("decimals", "input_decimals", "atol", "rtol", "cells"):
        if getattr(show, name) not in (None, False) and not show.expect:
            raise InputError(f"{flag(name)} is about an answer that is checked; give the answer with --expect")
    if show.within and (show.decimals, show.input_decimals) != (None, None):
        raise InputError("--atol and --rtol take the place of what follows from decimals; give one or the other")
    if show.expect and len(inputs) > 1 and not options.get("ranks"):
        raise InputError(f"--expect is the answer for one input; {len(inputs)} are given")
    _check_files(show)
    return show


def _part(text: str, show: Show) -> str:
    """The part that --only names, a gradient by any of its names."""
    name = ALIASES.get(text, text.replace("-", "_"))
    if name not in (*PARTS, *GRADIENTS):
        raise InputError(f"--only is {text!r}; use {either(PARTS)}")
    if name in GRADIENTS and show.grad_output is None:
        raise InputError(f"--only {text} needs the gradient of the output; give it with --grad-output")
    return name


def refuse_overwriting(show: Show, times: int) -> None:
    """Refuse to write the outputs of several inputs to one file."""
    if show.output and times > 1 and "{i}" not in show.output:
        raise InputError(
            f"--output {show.output} would be written {times} times; "
            "put {i} into the name for the number of the input"
        )


def _check_files(show: Show) -> None:
    """Refuse files that cannot be written, or of which one would be written over the other."""
    for name in ("output", "save_state", "svg", "html"):
        if (path := getattr(show, name)) is not None:
            check_suffix(path, _suffixes(name), flag(name))
    if show.output and show.save_state:
        import re
        from os.path import realpath

        pattern = re.escape(realpath(show.output)).replace(r"\{i\}", "[0-9]+")
        if re.fullmatch(pattern, realpath(show.save_state)):
            raise InputError(f"--output and --save-state are the same file, {show.save_state}; give one another name")


def _suffixes(name: str) -> Iterable[str]:
    if name == "save_state":
        return normcli.layers.FORMATS
    return {"output": OUTPUTS, "svg": [".svg"], "html": PAGES}[name]
