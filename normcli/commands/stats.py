"""normcli stats: one set of statistics over many files."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

import normcli
from normcli import datasets, files, showing
from normcli.commands.options import ListFormat, chosen_format, integer, integers, number
from normcli.errors import InputError, warn
from normcli.showing.formats import LISTS, pieces
from normcli.words import count, flag

if TYPE_CHECKING:
    from normcli.datasets.expected import Verdict
    from normcli.datasets.pooling import Pooled

_MOST_WORKERS = 1024


def _option(name: str, metavar: str, help: str, *more: str) -> Any:
    return typer.Option(flag(name), *more, metavar=metavar, help=help, show_default=False)


def stats(
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="ADDRESS...",
            help="Files, globs, {000..127}, folders, s3:// and other remote addresses, FILE::MEMBER.",
            show_default=False,
        ),
    ],
    channel_axis: Annotated[
        str | None,
        _option("channel_axis", "N|none", "The axis of the channels; none: one mean for all [1; images -1]."),
    ] = None,
    axes: Annotated[str | None, _option("axes", "N,N,...", "The axes averaged over: the other way to say it.")] = None,
    select: Annotated[
        str | None, _option("select", "A:B,...", "Take slices of the leading axes, as in Python.")
    ] = None,
    scale: Annotated[str | None, _option("scale", "FLOAT", "Divide by this, such as 255 [1].")] = None,
    convert: Annotated[str | None, _option("convert", "MODE", "Bring images to RGB, RGBA or L first.")] = None,
    finite: Annotated[bool, typer.Option("--finite", help="Leave out NaN and infinities, which are counted.")] = False,
    ddof: Annotated[
        str | None,
        _option("ddof", "0|1", "The divisor n - ddof for --expect std, --output and --save-state [0; state 1]."),
    ] = None,
    expect: Annotated[
        list[str] | None,
        _option("expect", "NAME=T", "Check this mean, std, var, min or max; repeatable; exit 1 if wrong."),
    ] = None,
    workers: Annotated[
        str | None, _option("workers", "N", "Processes on this machine [1]; the result is the same.")
    ] = None,
    dask: Annotated[
        str | None, _option("dask", "ADDRESS", "A running Dask cluster: tcp://, tls://, or its scheduler file.")
    ] = None,
    timeout: Annotated[str | None, _option("timeout", "SECONDS", "How long to wait for the cluster [30].")] = None,
    resume: Annotated[
        str | None, _option("resume", "FILE", "Keep what is finished in FILE, and go on from there the next time.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and list them.")
    ] = False,
    output: Annotated[
        str | None,
        _option("output", "PATTERN", "Write each file standardized: 'out/{name}.npy'; {i} is its number.", "-o"),
    ] = None,
    save_state: Annotated[
        str | None, _option("save_state", "FILE", "Write BatchNorm's running statistics: .json, .npz or .safetensors.")
    ] = None,
    precision: Annotated[
        str | None, _option("precision", "N", "Decimals in tables [4]; JSON and CSV are exact.")
    ] = None,
    format: ListFormat = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Mean, variance and extremes of everything given, exactly."""
    gc.enable()
    name = chosen_format(format, json=json, known=LISTS)
    decimals = 4 if precision is None else _between(precision, "precision", 0, 17)
    divisor = None if ddof is None else _between(ddof, "ddof", 0, 1)
    whole = channel_axis is not None and channel_axis.strip().lower() == "none"
    spec = datasets.spec.Spec(
        channel_axis=None if channel_axis is None or whole else integer(channel_axis, "channel_axis"),
        axes=None if axes is None else integers(axes, "axes"),
        whole=whole,
        select=() if select is None else datasets.spec.selection(select),
        convert=_mode(convert),
        skip_bad=skip_bad,
    )
    if channel_axis is not None and axes is not None:
        raise InputError("--channel-axis and --axes say the same in different ways; give one of them")
    engine = datasets.engine.Engine(
        1 if workers is None else _between(workers, "workers", 1, _MOST_WORKERS),
        dask,
        30.0 if timeout is None else number(timeout, "timeout"),
    )
    if dask is not None and workers is not None:
        raise InputError("--workers are processes of this machine, and a cluster has its own; leave one of them out")
    factor = 1.0 if scale is None else number(scale, "scale")
    if not 0 < factor < float("inf"):
        raise InputError(f"--scale is {factor:g}; it must be a positive number, such as 255")
    claims = _claims(expect or [])
    if save_state is not None:
        files.write.check_suffix(save_state, normcli.layers.FORMATS, "--save-state")
    found = datasets.addresses.expanded(addresses)
    paths = None if output is None else datasets.standardize.outputs(found, output)
    with _progress(count(len(found), "file")) as progress:
        part = datasets.pooling.of_files(found, spec, engine, resume, progress)
    pooled = datasets.pooling.pooled(part, found, scale=factor, finite=finite)
    verdicts = [_judged(pooled, quantity, text, divisor) for quantity, text in claims.items()]
    if paths is not None:
        with _progress("standardizing") as progress:
            datasets.standardize.standardize(pooled, spec, paths, engine, ddof=divisor or 0, progress=progress)
    if save_state is not None:
        _save(pooled, save_state, 1 if divisor is None else divisor)
    warn(_warnings(pooled))
    said = showing.stats.report(pooled, verdicts, precision=decimals, exact=name == "csv")
    sys.stdout.writelines(pieces(name, said, showing.report.Detail()))
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(1)


def _between(text: str, option: str, least: int, most: int) -> int:
    found = integer(text, option)
    if not least <= found <= most:
        raise InputError(f"{flag(option)} is {found}; it must be between {least} and {most}")
    return found


def _mode(text: str | None) -> str | None:
    if text is not None and text not in ("RGB", "RGBA", "L", "CMYK", "YCbCr", "HSV", "LAB"):
        raise InputError(f"--convert is {text!r}; use RGB, RGBA, L, CMYK, YCbCr, HSV or LAB")
    return text


def _claims(texts: list[str]) -> dict[str, str]:
    """What is claimed of each quantity; one without a name is the standard deviation."""
    found: dict[str, str] = {}
    for text in texts:
        name, mark, rest = text.partition("=")
        name, rest = (name.strip().replace("-", "_"), rest) if mark else ("std", text)
        if name not in datasets.expected.QUANTITIES:
            raise InputError(f"--expect names {name!r}; use {', '.join(datasets.expected.QUANTITIES)}")
        if name in found:
            raise InputError(f"--expect gives the {name} twice; once is enough")
        found[name] = rest
    return found


def _judged(pooled: Pooled, name: str, text: str, ddof: int | None) -> Verdict:
    claimed, half = datasets.expected.read(text, f"--expect {name}")
    return datasets.expected.judged(pooled, name, claimed, half, ddof=ddof or 0)


def _save(pooled: Pooled, path: str, ddof: int) -> None:
    arrays = datasets.pooling.state(pooled, ddof)
    with files.write.whole_file(path) as stream:
        normcli.layers.FORMATS[files.write.suffix(path)](stream, arrays)


def _warnings(pooled: Pooled) -> Iterator[str]:
    held = int((pooled.nan + pooled.plus_inf + pooled.minus_inf).sum())
    if held:
        done = "left out" if pooled.finite else "in the results; --finite leaves them out"
        yield f"{count(held, 'value')} not finite, {done}"
    if pooled.part.bad:
        yield f"{count(len(pooled.part.bad), 'file')} left out"


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error with rate and time left, if that is a terminal and it takes more than a second."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    begun, bars = monotonic(), ExitStack()
    shown: list[Callable[[float], None]] = []

    def advanced(done: int, whole: int) -> None:
        if not shown and monotonic() - begun > 1:
            shown.append(bars.enter_context(showing.table.progress_bar(what, whole)))
        for show in shown:
            show(done)

    with bars:
        yield advanced
