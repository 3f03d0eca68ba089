"""What the commands do: read, calculate, check, compare, and hand the outcome to a renderer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.reference import SMALL
from normcli.arithmetic.result import STATE_ARRAYS, Result, State
from normcli.calculate import assumed, initial_state, run, run_stored, said
from normcli.commands.options import PARTS, Show, Source
from normcli.errors import InputError, NormcliError, complain, hint, room_for, warn
from normcli.files.read import read_tensor, read_tensors
from normcli.floats import as_float_array
from normcli.planning.kinds import Kind
from normcli.planning.plan import Plan, plan
from normcli.words import count, either, flag, near, printable

if TYPE_CHECKING:
    from normcli.files.stored import Stored
    from normcli.layers import Filled
    from normcli.showing.report import Section
    from normcli.teaching.printed import Printed
    from normcli.teaching.trace import Trace
    from normcli.teaching.verdict import Check
    from normcli.teaching.versus import Comparison

FORMATS = ("table", "json", "markdown", "latex", "csv", "python")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that is said about one input."""

    result: Result
    x: Any = None  # where a picture or a script needs it
    trace: Trace | None = None
    check: Check | None = None
    comparisons: tuple[Comparison, ...] = ()
    written: bool = False  # whether the output is in its file already


@dataclass(kw_only=True)
class Files:
    """The files that are open: outputs on their way to their places, and what is read while it is shown."""

    written: ExitStack
    held: ExitStack
    slow: bool = False  # whether it has been said that a tensor takes long


def calculate(kind: Kind, inputs: list[str], options: dict[str, Any], show: Show) -> int:
    """Normalize the inputs one after the other, write and show every outcome; the exit code."""
    show = _settled(inputs, options, show)
    _check_files(show)
    with ExitStack() as held:
        with ExitStack() as written:  # no file is in its place before all of them are whole
            files = Files(written=written, held=held)
            if show.expect:
                outcomes = list(_checked(kind, inputs[0], options, show))
            else:
                outcomes = list(_outcomes(kind, inputs, options, show, files))
            for outcome in outcomes:
                _refuse_unshowable(outcome, show)
                warn(outcome.result.warnings)
            _write_files(outcomes, show, written)
        _render_all(outcomes, show)
    return int(any(outcome.check is not None and not outcome.check.ok for outcome in outcomes))


def _render_all(outcomes: list[Outcome], show: Show) -> None:
    for index, outcome in enumerate(outcomes):
        if index and show.format not in ("json", "csv"):
            sys.stdout.write("\n")
        _render(outcome, show, index if len(outcomes) > 1 else None)


def _write_files(outcomes: list[Outcome], show: Show, written: ExitStack) -> None:
    """Write what is asked for into files that go to their places together."""
    from normcli.files.write import whole_file, write_tensor_to

    if show.save_state:
        from normcli.layers import write_state_to

        write_state_to(written.enter_context(whole_file(show.save_state)), show.save_state, outcomes[-1].result)
    for index, outcome in enumerate(outcomes):
        if show.output and not outcome.written:
            path = show.output.replace("{i}", str(index))
            write_tensor_to(written.enter_context(whole_file(path)), path, outcome.result.output)
    if show.svg:
        written.enter_context(whole_file(show.svg)).write(_picture(outcomes, show).encode())


def _picture(outcomes: list[Outcome], show: Show) -> str:
    """What a screen of our own shows when everything is printed on it."""
    from contextlib import redirect_stdout

    from normcli.showing import svg
    from normcli.showing.report import headline
    from normcli.showing.table import Screen

    with redirect_stdout(Screen()) as kept:
        _render_all(outcomes, replace(show, format="table"))
    return svg.svg(kept.runs(), headline(outcomes[0].result))


def check_files(files: list[str], *, as_json: bool, cells: bool) -> int:
    """Verify worked-example files, a broken one without stopping at it; the exit code."""
    from normcli.showing.json import text
    from normcli.teaching import verdict, worked

    if files.count("-") > 1:
        raise InputError("standard input (-) is given twice; it can be read once")
    code = 0
    tally = {"check": 0, "do not": 0, "could not be read": 0}
    for file in files:
        try:
            example, found = worked.check_file(file)
        except NormcliError as error:
            tally["could not be read"] += 1
            code = max(code, error.exit_code)
            complain(str(error), error.hint)
            if as_json:
                sys.stdout.write(text({"file": file, "error": str(error)}) + "\n")
            continue
        code = code if found.ok else max(code, 1)
        tally["check" if found.ok else "do not"] += 1
        if as_json:
            parts = {"file": file, "title": example.title, "check": verdict.document(found, cells=cells)}
            sys.stdout.write(text(parts) + "\n")
        elif len(files) == 1:
            _print_check(found, example.title, cells=cells)
        else:
            keys = "".join(f" [{', '.join(names)}]" for names in found.keys[:3])
            sys.stdout.write(f"{printable(file)}: {verdict.verdict(found)}{keys}\n")
    if len(files) > 1 and not as_json:
        said = ", ".join(f"{number} {what}" for what, number in tally.items() if number)
        sys.stdout.write(f"{count(len(files), 'file')}: {said}\n")
    return code


def show_conventions(names: list[str], *, as_json: bool) -> None:
    """Print what the conventions say, or where the named ones differ."""
    from normcli.planning.conventions import CONVENTIONS, table

    rows = table(names)
    chosen = names or list(CONVENTIONS)
    if as_json:
        from normcli.showing.json import text

        said = {name: {point: texts[i] for point, texts in rows.items()} for i, name in enumerate(chosen)}
        sys.stdout.write(text(said) + "\n")
        return
    from normcli.showing.report import Section
    from normcli.showing.table import print_sections

    title = f"where {' and '.join(names)} differ" if len(names) > 1 else "conventions"
    body = [[point, *texts] for point, texts in rows.items()]
    sources = [[name, CONVENTIONS[name].source] for name in chosen]
    sections = [
        Section(part="conventions", title=title, columns=["", *chosen], rows=body, text=True),
        Section(part="conventions", title="sources", columns=["", "public file"], rows=sources, text=True),
    ]
    print_sections(None, sections)


def show_state(file: str, *, as_json: bool) -> None:
    """List the normalization layers in a file."""
    from normcli.showing import layers

    name, others, found = layers.summaries(file)
    if as_json:
        from normcli.showing.json import text

        described = [layers.document(summary) for summary in found]
        sys.stdout.write(text({"file": name, "layers": described, "others": others}) + "\n")
    elif not found:
        sys.stdout.write(f"{name} holds no normalization layer\n")
    else:
        from normcli.showing.table import print_sections

        print_sections(None, layers.sections(name, found))


def _settled(inputs: list[str], options: Mapping[str, Any], show: Show) -> Show:
    """The presentation with its defaults; what cannot be shown or written is refused before anything is read."""
    if show.json:
        if show.format not in (None, "json"):
            raise InputError(f"--json and --format {show.format} contradict each other; give one of them")
        show = replace(show, format="json")
    show = replace(show, format=show.format or "table")
    if show.format not in FORMATS:
        meant = near(str(show.format).lower(), FORMATS)
        hint = f"did you mean {meant}?" if meant else None
        raise InputError(f"--format is {show.format!r}; use {either(FORMATS)}", hint=hint)
    if show.picture and show.format != "table":
        raise InputError(f"--picture is drawn with tables; it has no place in --format {show.format}")
    if show.only is not None and show.only not in PARTS:
        raise InputError(f"--only is {show.only!r}; use {either(PARTS)}")
    if not 0 <= show.precision <= 17:
        raise InputError(f"--precision is {show.precision}; it must be between 0 and 17")
    if show.backend == "numpy" and show.device is not None:
        raise InputError("--backend numpy and --device contradict each other: a device implies torch")
    sources = [
        *inputs,
        *(v.text for v in [*options.values(), *show.expect.values(), show.state] if isinstance(v, Source)),
    ]
    if [text.strip() for text in sources].count("-") > 1:
        raise InputError("standard input (-) is given twice; it can be read once")
    if show.prefix is not None and show.state is None:
        raise InputError("--prefix names a layer of a file; give the file with --state")
    more = show.expect or show.versus or show.element is not None or show.only not in (None, "output")
    if show.format == "python" and more:
        raise InputError(
            "--format python writes the calculation alone", hint="leave out --expect, --versus, --only and --trace"
        )
    _refuse_overwriting(show, len(inputs))
    for name in ("decimals", "input_decimals", "cells"):
        if getattr(show, name) not in (None, False) and not show.expect:
            raise InputError(f"{flag(name)} is about an answer that is checked; give the answer with --expect")
    if show.expect and len(inputs) > 1:
        raise InputError(f"--expect is the answer for one input; {len(inputs)} are given")
    return show


def _check_files(show: Show) -> None:
    """Refuse files that cannot be written, or of which one would be written over the other."""
    for name in ("output", "save_state", "svg"):
        if (path := getattr(show, name)) is not None:
            _check_format(name, path)
    if show.output and show.save_state:
        import re
        from os.path import realpath

        pattern = re.escape(realpath(show.output)).replace(r"\{i\}", "[0-9]+")
        if re.fullmatch(pattern, realpath(show.save_state)):
            raise InputError(f"--output and --save-state are the same file, {show.save_state}; give one another name")


def _check_format(name: str, path: str) -> None:
    from normcli.files.write import OUTPUTS, check_suffix

    known: Iterable[str] = OUTPUTS if name == "output" else [".svg"]
    if name == "save_state":
        from normcli import layers

        known = layers.FORMATS
    check_suffix(path, known, flag(name))


def _refuse_unshowable(outcome: Outcome, show: Show) -> None:
    """Refuse what could not be printed in the end, before a file is in its place."""
    plan = outcome.result.plan
    if show.only == "running" and show.format != "json" and not plan.track_running_stats:
        raise InputError("there are no running statistics to show", hint="they come with --track-running-stats")
    if show.format == "python":
        from normcli.showing.formats import check_script

        check_script(plan.shape)


def _refuse_overwriting(show: Show, times: int) -> None:
    if show.output and times > 1 and "{i}" not in show.output:
        raise InputError(
            f"--output {show.output} would be written {times} times; "
            "put {i} into the name for the number of the input"
        )


def _outcomes(kind: Kind, inputs: list[str], options: dict[str, Any], show: Show, files: Files) -> Iterator[Outcome]:
    """Each input's outcome; the running statistics carry over from one to the next."""
    given: dict[str, Any] = {
        name: _read(value) if isinstance(value, Source) else value for name, value in options.items()
    }
    if filled := _filled(kind, given, show):
        given = filled.options
    state: State | None = None
    index = 0
    for text in inputs:
        streamed = _streamed(kind, text, given, show, state, index, files)
        batches = [] if streamed else _batches(kind, text, given, show)
        _refuse_overwriting(show, index + len(batches))
        for x in batches:
            _hint_if_slow(x, show, files)
        for outcome in [streamed] if streamed else (_outcome(kind, x, given, show, state) for x in batches):
            if state is None:
                outcome = replace(outcome, result=said(outcome.result, *assumed(outcome.result.plan, given)))
                _explain_momentum(outcome.result.plan, given)
            state = outcome.result.after
            index += 1
            yield outcome


def _batches(kind: Kind, text: str, given: Mapping[str, Any], show: Show) -> list[NDArray[Any]]:
    """The tensors of an input: where several are consecutive batches, one for each line of JSON Lines."""
    dtype = given.get("dtype")
    several = kind.has_running_stats
    read = read_tensors(text, key=show.key, dtype=dtype) if several else [read_tensor(text, key=show.key, dtype=dtype)]
    for tensor in read:
        warn(tensor.warnings)
    return [tensor.array for tensor in read]


def _explain_momentum(settled: Plan, given: Mapping[str, Any]) -> None:
    """Say which way round momentum is, where what was typed is usual for the other way."""
    momentum = given.get("momentum")
    if settled.updates_running and momentum is not None and 0.5 < momentum < 1:
        hint(
            f"--momentum {momentum} is the weight of the new batch; "
            f"{momentum} as the weight of the old value, as in Keras or cs231n, is --decay {momentum}"
        )


_SLOW = (
    "float64 tensors of this size are slow without the compiled loops (normcli --version says why there are none); "
    "to install normcli anew where there is a C compiler brings them"
)


def _hint_if_slow(x: NDArray[Any] | Stored, show: Show, files: Files) -> None:
    """Say once that a tensor takes long only because nothing was compiled."""
    elsewhere = show.backend == "torch" or show.device is not None or show.steps
    if files.slow or x.dtype.newbyteorder("=") != np.float64 or x.size <= SMALL or elsewhere:
        return
    from normcli.arithmetic import loops

    if loops.compiled() is None:
        files.slow = True
        hint(_SLOW)


def _streamed(
    kind: Kind, text: str, given: dict[str, Any], show: Show, state: State | None, index: int, files: Files
) -> Outcome | None:
    """The outcome of a large NPY file that is read slab by slab; None for all that must be in memory.

    Its output goes to another NPY file, slab by slab too, or into memory, or nowhere where it is not asked for.
    """
    path = show.output.replace("{i}", str(index)) if show.output else ""
    if not show.streams or given.get("dtype") is not None:
        return None
    from normcli.files.npy import created, opened
    from normcli.files.write import is_replaceable, whole_file

    to_file = path.lower().endswith(".npy") and is_replaceable(path)
    x = opened(text)
    if x is None:
        return None
    with ExitStack() as own:
        own.callback(x.close)
        if x.size <= SMALL:
            return None
        native = x.dtype.newbyteorder("=")
        settled = plan(kind.name, x.shape, native.name, given)
        state = initial_state(settled, given) if state is None else state
        out: Stored | NDArray[Any] | None = None
        if to_file:
            out = created(own.enter_context(whole_file(path)), x)
            files.held.callback(out.close)
        elif path or show.only not in ("statistics", "running"):
            with room_for(x.name, x.size * x.dtype.itemsize):
                out = np.empty(x.shape, native, order="F" if x.fortran_order else "C")
        _hint_if_slow(x, show, files)
        with _progress(x):
            result = run_stored(x, settled, state, out=out, threads=show.threads)
        files.written.push(own.pop_all())
        return Outcome(result=result, written=to_file)


@contextmanager
def _progress(x: Stored) -> Iterator[None]:
    """A bar on standard error while a file is worked on, if that is a terminal and it takes more than a second."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    begun, bars = monotonic(), ExitStack()
    shown: list[Callable[[float], None]] = []

    def advanced(fraction: float) -> None:
        if not shown and monotonic() - begun > 1:
            from normcli.showing.table import progress_bar

            shown.append(bars.enter_context(progress_bar(x.name)))
        for show in shown:
            show(fraction)

    x.advanced = advanced
    with bars:
        yield


def _outcome(kind: Kind, x: NDArray[Any], given: dict[str, Any], show: Show, state: State | None) -> Outcome:
    settled = plan(kind.name, x.shape, str(x.dtype), given)
    state = initial_state(settled, given) if state is None else state
    result = run(
        x, settled, state, backend=show.backend or "numpy", device=show.device, steps=show.steps, threads=show.threads
    )
    steps = None
    if show.steps:
        from normcli.teaching.trace import trace

        steps = trace(result, x, show.element, show.precision, full=show.full)
    return Outcome(
        result=result,
        x=x if show.picture or show.format == "python" else None,
        trace=steps,
        comparisons=tuple(_comparisons(x, given, result, show.versus)),
    )


def _filled(kind: Kind, given: Mapping[str, Any], show: Show) -> Filled | None:
    """The options with what the file of --state says of the layer, if one is given."""
    if show.state is None:
        return None
    from normcli.layers import with_state

    filled = with_state(kind, given, show.state.text, show.prefix)
    warn(filled.warnings)
    return filled


def _comparisons(
    x: NDArray[Any], given: Mapping[str, Any], result: Result, specs: tuple[str, ...]
) -> Iterator[Comparison]:
    if specs:
        from normcli.teaching.versus import compare

        for spec in specs:
            yield compare(x, given, result, spec)


def _checked(kind: Kind, text: str, options: dict[str, Any], show: Show) -> Iterator[Outcome]:
    """The outcome of an input whose answer is checked: numbers are read together with their written decimals."""
    from normcli.teaching.check import check_result
    from normcli.teaching.printed import Printed

    written = {name: _read_written(value) for name, value in options.items() if isinstance(value, Source)}
    given: dict[str, Any] = {
        name: written[name].in_dtype if name in written else value for name, value in options.items()
    }
    if filled := _filled(kind, given, show):
        given = filled.options
        written |= {
            name: Printed(np.asarray(given[name], np.float64), filled.decimals[name]) for name in filled.decimals
        }
    x = _read_written(Source(text, ""), show.key)
    cast = as_float_array(x.in_dtype, given.get("dtype"))
    outcome = _outcome(kind, cast, given, show, None)
    found = check_result(
        replace(x, values=np.asarray(cast, np.float64)),
        outcome.result,
        {name: _read_written(source) for name, source in show.expect.items()},
        parameters={name: written[name] for name in STATE_ARRAYS if name in written},
        decimals=show.decimals,
        input_decimals=show.input_decimals,
    )
    yield replace(outcome, check=found)


def _read(source: Source) -> NDArray[Any]:
    read = read_tensor(source.text, what=flag(source.option))
    warn(read.warnings)
    return read.array


def _read_written(source: Source, key: str | None = None) -> Printed:
    from normcli.teaching.printed import read_printed

    what = flag(source.option) if source.option else "the tensor"
    printed, warnings = read_printed(source.text, what=what, key=key)
    warn(warnings)
    return printed


def _render(outcome: Outcome, show: Show, number: int | None) -> None:
    """Print an outcome; ``number`` says which, where there are several."""
    if show.format == "json":
        _write_document(outcome, show)
    elif show.format == "table":
        _print_tables(outcome, show)
        if show.picture:
            _print_picture(outcome.x, outcome.result)
    else:
        from normcli.showing.formats import FORMATTERS, Report
        from normcli.showing.report import headline

        report = Report(
            result=outcome.result,
            x=outcome.x,
            only=_part(outcome, show),
            headline=headline(outcome.result).replace("  ", "; ") if show.only is None else None,
            words=_words(outcome, show),
            sections=_checked_section(outcome, show) + _sections(outcome, show),
            trace=outcome.trace,
            check=outcome.check,
            comparisons=outcome.comparisons,
            number=number,
            precision=show.precision,
            full=show.full,
        )
        for piece in FORMATTERS[str(show.format)](report):
            sys.stdout.write(piece)
        if show.format == "csv" and sys.stderr is not None:  # a table of cells has no place for a verdict in words
            sys.stderr.writelines(f"{line}\n" for line in report.words)


def _print_picture(x: NDArray[Any], result: Result) -> None:
    from normcli.showing import picture
    from normcli.showing.table import print_picture

    sys.stdout.write("\n")
    drawn = picture.pair(x, result)
    print_picture(None, lambda canvas: picture.lines(drawn, canvas), [])


def _print_tables(outcome: Outcome, show: Show) -> None:
    """Tables, those of a check before the rest."""
    from normcli.showing.report import headline
    from normcli.showing.table import print_sections

    if outcome.check is not None:
        _print_check(outcome.check, cells=show.cells)
        if not (show.steps or show.only or outcome.comparisons):
            return
        sys.stdout.write("\n")
    print_sections(headline(outcome.result) if show.only is None else None, _sections(outcome, show))


def _sections(outcome: Outcome, show: Show) -> list[Section]:
    """The tables of a result that are asked for, and of what it is compared with."""
    from normcli.showing.report import sections

    only = _part(outcome, show)
    every = sections(outcome.result, outcome.trace, show.precision, full=show.full)
    parts = [part for part in every if only in (None, part.part)]
    if outcome.comparisons:
        from normcli.teaching import versus

        parts += versus.sections(list(outcome.comparisons))
    return parts


def _part(outcome: Outcome, show: Show) -> str | None:
    """The one part that is shown; None for all of them."""
    return show.only or ("trace" if show.element is not None or outcome.check is not None else None)


def _words(outcome: Outcome, show: Show) -> list[str]:
    """The verdict of a check and its explanation."""
    if outcome.check is None:
        return []
    from normcli.teaching.verdict import explanation, verdict

    return [verdict(outcome.check), *explanation(outcome.check)]


def _checked_section(outcome: Outcome, show: Show) -> list[Section]:
    if outcome.check is None or ((outcome.check.ok or outcome.check.turned) and not show.cells):
        return []
    from normcli.teaching.verdict import section

    return [section(outcome.check, everything=show.cells)]


def _write_document(outcome: Outcome, show: Show) -> None:
    from normcli.showing.json import chunks

    more: dict[str, Any] = {}
    if outcome.check is not None:
        from normcli.teaching import verdict

        more["check"] = verdict.document(outcome.check, cells=show.cells)
    if outcome.comparisons:
        from normcli.teaching import versus

        more["versus"] = versus.documents(list(outcome.comparisons))
    for piece in chunks(outcome.result, outcome.trace, only=show.only, more=more):
        sys.stdout.write(piece)


def _print_check(found: Check, title: str = "", *, cells: bool) -> None:
    """The verdict first, then the cells that differ (or all), then the slip in words."""
    from normcli.showing.table import print_sections
    from normcli.teaching.verdict import explanation, section, verdict

    if title:
        sys.stdout.write(f"{printable(title)}\n")
    sys.stdout.write(verdict(found) + "\n")
    if cells or not (found.ok or found.turned):
        sys.stdout.write("\n")
        print_sections(None, [section(found, everything=cells)])
        sys.stdout.write("\n")
    sys.stdout.writelines(f"{line}\n" for line in explanation(found))
