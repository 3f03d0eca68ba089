"""normcli batch, instance, layer, group and rms: read, calculate, check, compare, and show what came of it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import normcli
from normcli import arithmetic, showing, teaching
from normcli.arithmetic.ranks import joined
from normcli.arithmetic.reference import SMALL
from normcli.arithmetic.run import REFERENCE
from normcli.calculate import assumed, gradient_of_output, initial_state, run, run_stored, said
from normcli.commands.show import Show, refuse_overwriting, settled
from normcli.commands.texts import Source
from normcli.errors import hint, room_for, warn
from normcli.files.npy import created, opened
from normcli.files.read import read_tensor, read_tensors
from normcli.files.write import is_replaceable, whole_file, write_tensor_to
from normcli.floats import as_float_array
from normcli.planning.kinds import KINDS
from normcli.planning.plan import plan
from normcli.showing.formats import pieces
from normcli.showing.report import Report
from normcli.words import flag

if TYPE_CHECKING:
    from normcli.arithmetic.result import Result, State
    from normcli.files.stored import Stored
    from normcli.layers import Filled
    from normcli.planning.kinds import Kind
    from normcli.planning.plan import Plan
    from normcli.teaching.printed import Printed
    from normcli.teaching.trace import Trace


@dataclass(kw_only=True)
class Files:
    """The files that are open: outputs on their way to their places, and what is read while it is shown."""

    written: ExitStack
    held: ExitStack
    slow: bool = False  # whether it has been said that a tensor takes long


def calculate(kind: Kind, inputs: list[str], options: dict[str, Any], show: Show) -> int:
    """Normalize the inputs one after the other, write and show every result; the exit code."""
    gc.freeze()  # what is imported is no garbage; tensors may be
    gc.enable()
    show = settled(inputs, options, show)
    with ExitStack() as held:
        with ExitStack() as written:  # no file is in its place before all of them are whole
            files = Files(written=written, held=held)
            if show.expect:
                reports = [_checked(kind, inputs, options, show)]
            else:
                reports = list(_reports(kind, inputs, options, show, files))
            if len(reports) > 1:
                axes = max(len(report.calculated.plan.shape) for report in reports)
                reports = [report._replace(number=number, axes=axes) for number, report in enumerate(reports)]
            texts = []
            for report in reports:
                texts.append(pieces(str(show.format), report, show.detail))
                warn(report.calculated.warnings)
            _write_files(reports, show, written)
        for text in texts:
            sys.stdout.writelines(text)
    return int(any(report.check is not None and not report.check.ok for report in reports))


def _write_files(reports: list[Report], show: Show, written: ExitStack) -> None:
    """Write what is asked for into files that go to their places together."""
    if show.save_state:
        stream = written.enter_context(whole_file(show.save_state))
        normcli.layers.write_state_to(stream, show.save_state, reports[-1].calculated)
    for index, tensor in enumerate(_tensors(reports, show)):
        if tensor is not None:
            path = str(show.output).replace("{i}", str(index))
            write_tensor_to(written.enter_context(whole_file(path)), path, tensor, show.tensor)
    if show.svg:
        drawn = showing.svg.screenshot(reports, show.detail)
        written.enter_context(whole_file(show.svg)).write(drawn.encode())
    if show.html:
        page = showing.html.page(reports, show.detail)
        written.enter_context(whole_file(show.html)).write(page.encode())


def _tensors(reports: list[Report], show: Show) -> Iterator[Any]:
    """What is to be written, one tensor for each input; None in the place of what is in its file already."""
    for report in reports if show.output else ():
        if report.written:
            yield None
        else:
            showing.sections.tensor(report.calculated, show.tensor)
            yield from report.calculated.by_rank(show.tensor)


def _reports(kind: Kind, inputs: list[str], options: dict[str, Any], show: Show, files: Files) -> Iterator[Report]:
    """What is to be said of each input; the running statistics carry over from one to the next."""
    given: dict[str, Any] = {
        name: _read(value) if isinstance(value, Source) else value for name, value in options.items()
    }
    if "let" in given:
        given["let"] = {name: _read(value) for name, value in given["let"].items()}
    if filled := _filled(kind, given, show):
        given = filled.options
    flow = None if show.grad_output is None else _flow(show.grad_output, files if show.streams else None)
    state: State | None = None
    index = 0
    together: NDArray[Any] | None = None
    if given.get("ranks"):
        together, sizes = joined([x for text in inputs for x in _batches(kind, text, given, show)])
        refuse_overwriting(show, len(sizes))
        given["ranks"], inputs = sizes, [""]
    for text in inputs:
        streamed = _streamed(kind, text, given, show, state, flow, index, files) if together is None else None
        batches = [together] if together is not None else [] if streamed else _batches(kind, text, given, show)
        refuse_overwriting(show, index + len(batches))
        for x in batches:
            _hint_if_slow(x, show, files)
        for report in [streamed] if streamed else (_report(kind, x, given, show, state, flow) for x in batches):
            result = report.calculated
            if state is None:
                result = said(result, *assumed(result.plan, given))
                _explain_momentum(result.plan, given)
            state = result.after
            index += 1
            stored = _stored(options | {"x": Source(text, ""), "grad_output": show.grad_output}) if show.spelled else {}
            yield report._replace(result=result, stored=stored)


def _stored(given: Mapping[str, Any]) -> dict[str, str]:
    """The NPY files that tensors are given as, by the name of the tensor."""
    files: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, Source) and (stored := opened(value.text)) is not None:
            stored.close()
            files[name] = value.text
    return files


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


_MANY = 2**19  # elements from which on narrower dtypes than float64 show that the loops are missing
_SLOW = (
    "{} tensors of this size are slow without the compiled loops (normcli --version says why there are none); "
    "to install normcli anew where there is a C compiler brings them"
)


def _hint_if_slow(x: NDArray[Any] | Stored, show: Show, files: Files) -> None:
    """Say once that a tensor takes long only because nothing was compiled."""
    here = show.backend == REFERENCE and not show.traced
    if files.slow or not here or x.size <= (SMALL if x.dtype.itemsize == 8 else _MANY):
        return
    if arithmetic.loops.compiled() is None:
        files.slow = True
        hint(_SLOW.format(x.dtype.name))


def _streamed(
    kind: Kind,
    text: str,
    given: dict[str, Any],
    show: Show,
    state: State | None,
    flow: Stored | NDArray[Any] | str | None,
    index: int,
    files: Files,
) -> Report | None:
    """The report on a large NPY file that is read slab by slab; None for all that must be in memory.

    Its output, or the gradient that is asked for alone, goes to another NPY file, slab by slab too, or into memory, or
    nowhere where it is not asked for.
    """
    path = show.output.replace("{i}", str(index)) if show.output else ""
    if not show.streams or given.get("dtype") is not None or kind.name not in KINDS:
        return None
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
        grad_output = None if flow is None else gradient_of_output(flow, settled)
        results: dict[str, Stored | NDArray[Any]] = {}
        for name in ("output",) if flow is None else ("output", "grad_input"):
            if path and to_file and show.tensor == name:
                results[name] = room = created(own.enter_context(whole_file(path)), x)
                files.held.callback(room.close)
            elif show.only in (None, name) or (path and show.tensor == name):
                with room_for(x.name, x.size * x.dtype.itemsize):
                    results[name] = np.empty(x.shape, native, order="F" if x.fortran_order else "C")
        _hint_if_slow(x, show, files)
        with _progress(x):
            out, grad_input = (results.get(name) for name in ("output", "grad_input"))
            result = run_stored(
                x, settled, state, out=out, grad_output=grad_output, grad_input=grad_input, threads=show.threads
            )
        files.written.push(own.pop_all())
        return Report(result=result, written=to_file and show.tensor in results)


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
            shown.append(bars.enter_context(showing.table.progress_bar(x.name)))
        for show in shown:
            show(fraction)

    x.advanced = advanced
    with bars:
        yield


def _report(
    kind: Kind,
    x: NDArray[Any],
    given: dict[str, Any],
    show: Show,
    state: State | None,
    flow: Stored | NDArray[Any] | str | None,
) -> Report:
    settled = plan(kind.name, x.shape, str(x.dtype), given)
    state = initial_state(settled, given) if state is None else state
    result = run(
        x,
        settled,
        state,
        backend=str(show.backend),
        device=show.device,
        steps=show.traced,
        threads=show.threads,
        grad_output=None if flow is None else gradient_of_output(flow, settled),
    )
    return Report(
        result=result,
        x=x if show.spelled else None,
        picture=showing.picture.drawer(x, result) if show.picture else None,
        trace=_trace(result, x, show) if show.traced else None,
        comparisons=tuple(teaching.versus.compare(x, given, result, spec) for spec in show.versus),
    )


def _trace(result: Result, x: NDArray[Any], show: Show) -> Trace:
    """The trace of a result, or of the same in the stages of a course."""
    staged = result if show.steps is None else teaching.trace.in_stages(result, x, show.steps)
    return teaching.trace.trace(staged, x, show.element, show.precision, full=show.full)


def _filled(kind: Kind, given: Mapping[str, Any], show: Show) -> Filled | None:
    """The options with what the file of --state says of the layer, if one is given."""
    if show.state is None:
        return None
    filled = normcli.layers.with_state(kind, given, show.state.text, show.prefix)
    warn(filled.warnings)
    return filled


def _checked(kind: Kind, inputs: list[str], options: dict[str, Any], show: Show) -> Report:
    """The report on an input, or on all ranks, whose answer is checked: numbers are read with written decimals."""
    written = {name: _read_written(value) for name, value in options.items() if isinstance(value, Source)}
    given: dict[str, Any] = {
        name: written[name].in_dtype if name in written else value for name, value in options.items()
    }
    if "let" in given:
        lets = {name: _read_written(value) for name, value in given["let"].items()}
        written |= lets
        given["let"] = {name: value.in_dtype for name, value in lets.items()}
    if filled := _filled(kind, given, show):
        given = filled.options
        written |= {
            name: teaching.printed.Printed(np.asarray(given[name], np.float64), filled.decimals[name])
            for name in filled.decimals
        }
    read = [_read_written(Source(text, ""), show.key) for text in inputs]
    if given.get("ranks"):
        x, given["ranks"] = teaching.printed.Printed.joined(read)
    else:
        [x] = read
    cast = as_float_array(x.in_dtype, given.get("dtype"))
    flow: Printed | None = None
    if show.grad_output is not None:
        is_ones = _is_ones(show.grad_output)
        flow = teaching.printed.Printed.exactly(np.ones(())) if is_ones else _read_written(show.grad_output)
    report = _report(kind, cast, given, show, None, None if flow is None else flow.in_dtype)
    if flow is not None:
        written["grad_output"] = flow.spread(cast.shape)
    found = teaching.check.check_result(
        replace(x, values=np.asarray(cast, np.float64)),
        report.calculated,
        {name: _read_written(source) for name, source in show.expect.items()},
        parameters={name: value for name, value in written.items() if np.ndim(value.values)},
        decimals=show.decimals,
        input_decimals=show.input_decimals,
        within=show.within,
    )
    return report._replace(check=found)


def _flow(source: Source, files: Files | None = None) -> Stored | NDArray[Any] | str:
    """What flows into the output: a tensor, or the word ones; an NPY file stays open among ``files``."""
    if _is_ones(source):
        return "ones"
    if files is None or (stored := opened(source.text)) is None:
        return _read(source)
    files.held.callback(stored.close)
    return stored


def _is_ones(source: Source) -> bool:
    return source.text.strip().lower() == "ones"


def _read(source: Source) -> NDArray[Any]:
    read = read_tensor(source.text, what=flag(source.option))
    warn(read.warnings)
    return read.array


def _read_written(source: Source, key: str | None = None) -> Printed:
    what = flag(source.option) if source.option else "the tensor"
    printed, warnings = teaching.printed.read_printed(source.text, what=what, key=key)
    warn(warnings)
    return printed
