"""Command lines and files that nobody would write, run through the real entry point; by hand.

python tests/fuzz.py 20000          that many cases
python tests/fuzz.py 5000 10000     5000 of them, from the 10000th on
python tests/fuzz.py 1 1234         the one case with that number, with what it was

Every case is made from its number alone: a command, options of all sorts with good values and bad ones, and files
of every format, whole or damaged. It must end within LONGEST seconds in exit code 0, 1, 2 or 3, say what is wrong in
lines that begin with error:, hint: or warning:, print nothing where it fails, print JSON where that is asked for, and
leave no temporary file. Exit 1 where a case does not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import signal
import string
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch  # here, so that the seconds of its import are no case's

from normcli.__main__ import main as normcli_main
from normcli.commands import cli
from normcli.commands.options import CALCULATION, PRESENTATION, answers, mark, rows_of, several, switch
from normcli.files import npy, safetensors
from normcli.planning.conventions import CONVENTIONS
from normcli.planning.kinds import ALIASES, GRADIENTS, KINDS, QUANTITIES
from normcli.teaching.worked import TEMPLATE
from normcli.words import flag

LONGEST = 5.0  # seconds
HUNG = 60  # seconds after which a case is ended
EXAMPLES = Path(__file__).parent.parent / "examples"
CHECKS = [path.read_text() for path in sorted((EXAMPLES / "checks").glob("*.json"))]

SHAPES = [*[(3, 4), (2, 4), (2, 4, 3), (2, 4, 2, 3)] * 6, (), (1,), (4,), (1, 4), (4, 1), (1, 1), (2, 4, 1, 1, 2), (0,),
          (2, 0), (3, 200), (1,) * 9, (1,) * 64, (300, 400)]  # fmt: skip
NUMBERS = ["0", "1", "-1", "2.5", "1e-5", "-0.0", "1e308", "-1e308", "1e-320", "1e400", "1e-400", "NaN", "Infinity",
           "-Infinity", "nan", "inf", "7" * 400, "7" * 5000, "9007199254740993", "1_0", "0x1", "1,5", "", " ", "null",
           "true", "1.", ".5", "+1", "1e", "١", "1+2j", "None", "...", "'a'", '"1"', "[1]", "{}",
           "1e999999999"]  # fmt: skip
BEYOND = ["1e400", "1e-400", "NaN", "Infinity", "7" * 400, "7" * 5000, "1e999999999", "1e-5", "-0", "2.50", "0x1"]
VALUES: dict[str, list[str]] = {
    "eps": ["0", "1e-5", "1", "1e300", "5e-324"],
    "dtype": ["float16", "bfloat16", "float32", "float64"],
    "mode": ["eval", "train"],
    "momentum": ["0.1", "none", "1", "0"],
    "decay": ["0.9", "0"],
    "ddof": ["0", "1"],
    "running_ddof": ["0", "1"],
    "convention": list(CONVENTIONS),
    "groups": ["1", "2", "4"],
    "normalized_shape": ["4", "2,3", "3,4", "(4,)", "200"],
    "channel_axis": ["1", "-1", "0", "2"],
    "num_batches_tracked": ["0", "3", str(2**63)],
    "element": ["0,0", "1,0", "0,0,1", "-1,-1", "0"],
    "format": ["table", "json", "markdown", "latex", "csv", "python", "torch", "jax", "keras"],
    "only": ["output", "statistics", "running", "trace"],
    "precision": ["0", "17", "2"],
    "backend": ["numpy", "torch"],
    "device": ["cpu", "cuda", "mps", "cuda:7"],
    "threads": ["1", "2", "64"],
    "decimals": ["0", "4", "17"],
    "input_decimals": ["0", "4", "exact"],
    "versus": ["torch", "torch:cpu:float16", "numpy::float32", *CONVENTIONS, "torch:cuda"],
    "prefix": ["bn1", "layer1.0.bn1", "norm", "rms", "a.b"],
    "key": ["a", "b", "data", "output", "weight"],
    "output": ["y.npy", "y.npz", "y.json", "y.csv", "y{i}.npy", "y.txt", "/dev/null", "no/y.npy", ".", "s.npz"],
    "save_state": ["s.npz", "s.json", "s.safetensors", "s.txt", "no/s.json", "./s.npz"],
    "svg": ["y.svg", "y.png", "no/y.svg"],
    "html": ["y.html", "y.htm", "y.png", "no/y.html"],
    "shape": ["2,6,4,4", "3,4", "2,4", "8,128,512", "1", "4", "2,3,4,5,6,7,8,9"],
}
FIGURE = ["groups", "channel_axis", "normalized_shape", "convention", "svg"]
JUNK = ["", " ", "-1", "0", "nan", "inf", "1e400", "none", "x", "1_0", "0,1", "[1,2", "7" * 5000, "\x00", "\ud800", "é",
        "a" * 300, "[/x]", "-", "--", "1" * 100 + ",2", "numpy::float99", "torch:xyz", ":", "::", "{i}",
        "a\nb"]  # fmt: skip


@dataclass
class Case:
    """A command line, what is piped in, and the files that are there."""

    arguments: list[str]
    stdin: bytes
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a case ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    left: tuple[str, ...]  # names in the folder afterwards


# --- making a case --------------------------------------------------------------------------------


def case(number: int) -> Case:
    """The case with that number, the same on every machine."""
    rng = random.Random(number)
    made = Case(arguments=[], stdin=_tensor_file(rng))
    maker = rng.choices([_calculation, _check, _state, _axes, _conventions, _anything], [55, 20, 10, 8, 3, 4])[0]
    maker(rng, made)
    made.arguments = [text.replace("\x00", "0") if rng.random() < 0.9 else text for text in made.arguments]
    return made


def _calculation(rng: random.Random, made: Case) -> None:
    kind = rng.choice(list(KINDS.values()))
    inputs = [_source(rng, made) for _ in range(rng.choice([1, 1, 1, 1, 2, 3] if kind.has_running_stats else [1]))]
    rows = rows_of(kind) if rng.random() < 0.9 else [*CALCULATION, *PRESENTATION]
    chosen = rng.sample(rows, min(len(rows), rng.choice([0, 0, 1, 1, 2, 2, 3, 4, 6])))
    needed = {"cells": "expect", "decimals": "expect", "input_decimals": "expect", "prefix": "state"}
    names = {row.name for row in chosen} | ({needed.get(row.name) for row in chosen} if rng.random() < 0.9 else set())
    made.arguments = [kind.name, *(inputs[:1] if "expect" in names else inputs)]
    for row in [row for row in rows if row.name in names]:
        name = rng.choice([flag(row.name), *row.aliases])
        if row.read in (mark, switch):
            made.arguments.append(f"--no-{name[2:]}" if row.read is switch and rng.random() < 0.5 else name)
            continue
        for _ in range(rng.choice([1, 1, 2]) if row.read in (several, answers) else 1):
            value = _value(rng, made, row.name)
            named = row.read is answers and rng.random() < 0.5
            made.arguments += [name, f"{rng.choice([*QUANTITIES, 'running-var', 'std'])}={value}" if named else value]
    if rng.random() < 0.2:
        made.arguments.append("--json")
    if kind.name == "group" and rng.random() < 0.8:
        made.arguments += ["--groups", rng.choice(VALUES["groups"])]


def _value(rng: random.Random, made: Case, option: str) -> str:
    if option == "state":
        return _file(rng, made, rng.choice(["s.json", "s.npz", "s.safetensors", "s.pt"]), _state_file(rng))
    good = VALUES.get(option)
    if good is None:  # a tensor
        return _source(rng, made) if rng.random() < 0.3 else _numbers(rng, rng.choice([(4,), (4,), (3, 4)]))
    return rng.choice(good) if rng.random() < 0.9 else rng.choice([*JUNK, *NUMBERS])


def _source(rng: random.Random, made: Case) -> str:
    """A tensor as one gives it: a literal, a file or standard input."""
    where = rng.random()
    if where < 0.4:
        return _damaged_text(rng, _text(rng)) if rng.random() < 0.3 else _text(rng)
    if where < 0.5:
        return "-"
    if where < 0.55:
        return rng.choice([*JUNK, *NUMBERS, ".", "/dev/null", "nowhere.npy"])
    name = f"{rng.choice('abc')}{rng.choice(['.npy', '.npz', '.json', '.csv', '.txt', '', '.jsonl', '.safetensors'])}"
    return _file(rng, made, name, _tensor_file(rng)) + rng.choice(["", "", "", "", "", "::a"])


def _file(rng: random.Random, made: Case, name: str, content: bytes) -> str:
    made.files[name] = _damaged(rng, content) if rng.random() < 0.25 else content
    return name


def _check(rng: random.Random, made: Case) -> None:
    names = []
    for index in range(rng.choice([1, 1, 1, 2])):
        text = _example(rng)
        if rng.random() < 0.15:
            text = _damaged_text(rng, text)
        content = text.encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]), errors="surrogatepass")
        if rng.random() < 0.2:
            made.stdin = content
            names.append("-")
        else:
            made.files[f"e{index}.json"] = content
            names.append(f"e{index}.json" if rng.random() < 0.97 else rng.choice(JUNK))
    made.files.setdefault("x.npy", _tensor_file(rng))
    options = ["--json", "--cells", "--init", "--jsn", "--only"]
    made.arguments = ["check", *names, *(rng.choices(options, [12, 12, 1, 1, 1]) if rng.random() < 0.4 else [])]


def _example(rng: random.Random) -> str:
    """A worked example: one of those that are kept or a new one, some of its values replaced by others."""
    if rng.random() < 0.5:
        document: Any = json.loads(rng.choice([*CHECKS, TEMPLATE]))
    else:
        kind = rng.choice(list(KINDS.values()))
        shape = rng.choice([(3, 4), (2, 4, 3), (4,), (2, 4)])
        options = {name: _json_value(rng, name) for name in rng.sample(kind.options, rng.choice([0, 1, 2, 3]))}
        name = rng.choice([*QUANTITIES, *GRADIENTS, *ALIASES])
        expect = {name: json.loads(_numbers(rng, rng.choice([shape, (4,), (3,)])))}
        document = {"kind": kind.name, "input": json.loads(_numbers(rng, shape)), "options": options, "expect": expect}
        if name not in QUANTITIES or rng.random() < 0.1:
            document["grad_output"] = rng.choice(["ones", 1, *[json.loads(_numbers(rng, shape))] * 5])
        if kind.name == "group":
            options.setdefault("groups", 2)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        _replace_somewhere(rng, document)
    text = json.dumps(document)
    for token in BEYOND:
        text = text.replace(json.dumps(f"<{token}>"), token)  # what JSON has no value for, such as 1e400
    return text


def _json_value(rng: random.Random, name: str) -> Any:
    if name in ("weight", "bias", "running_mean", "running_var"):
        return json.loads(_numbers(rng, rng.choice([(4,), (4,), (4,), (2,), (3, 4)])))
    if name in ("affine", "track_running_stats"):
        return rng.choice([True, False, "no"])
    text = rng.choice(VALUES.get(name, JUNK))
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


def _replace_somewhere(rng: random.Random, document: Any) -> None:
    """Replace, remove, rename or double one value somewhere in a JSON document."""
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), 3))
        places += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    if not places:
        return
    holder, key = rng.choice(places)
    what = rng.random()
    if what < 0.7:
        holder[key] = rng.choice([
            None, True, -1, 0, 1e308, 10**30, "x", "", "-", "x.npy", "none", "exact", [], {}, [[]], [1], ["rms"],
            "NaN", [[1, 2], [3]], "7" * 300, *(f"<{token}>" for token in BEYOND),
        ])  # fmt: skip
    elif isinstance(holder, dict):
        value = holder.pop(key)
        if what < 0.9:
            name = key.replace("_", "-") if rng.random() < 0.5 else key + rng.choice("sx-_")
            holder[{"eps": "epsilon"}.get(name, name)] = value
    elif what < 0.85:
        holder.append(holder[key])
    else:
        del holder[key]


def _state(rng: random.Random, made: Case) -> None:
    name = rng.choice(["s.json", "s.npz", "s.safetensors", "s.pt", "s", "-"])
    content = _state_file(rng) if rng.random() < 0.8 else _tensor_file(rng)
    if name == "-":
        made.stdin = _damaged(rng, content) if rng.random() < 0.4 else content
    else:
        _file(rng, made, name, content)
    named = name if rng.random() < 0.95 else rng.choice(JUNK)
    made.arguments = ["state", named, *rng.choice([[], [], [], ["--json"], ["--json"], ["--js"]])]


def _axes(rng: random.Random, made: Case) -> None:
    kind = rng.choice(list(KINDS)) if rng.random() < 0.95 else rng.choice(JUNK)
    options = [*KINDS[kind].options, "svg"] if kind in KINDS and rng.random() < 0.9 else FIGURE
    known = [name for name in FIGURE if name in options]
    chosen = {*rng.sample(known, min(len(known), rng.choice([0, 1, 1, 2]))), *(["groups"] if kind == "group" else [])}
    made.arguments = ["axes", kind, "--shape", _value(rng, made, "shape")]
    for name in sorted(chosen):
        made.arguments += [flag(name), _value(rng, made, name)]
    made.arguments += rng.choice([[], [], ["--json"]])


def _conventions(rng: random.Random, made: Case) -> None:
    names = [rng.choice([*CONVENTIONS, *CONVENTIONS, *JUNK]) for _ in range(rng.choice([0, 1, 2, 3]))]
    made.arguments = ["conventions", *names, *rng.choice([[], ["--json"]])]


def _anything(rng: random.Random, made: Case) -> None:
    words = [*cli.COMMANDS, *JUNK, *NUMBERS, "--help", "-h", "--version", "--json", "-o", "y.npy", "--eps", "--trace"]
    made.arguments = [rng.choice(words) for _ in range(rng.choice([0, 1, 2, 3, 5]))]


# --- tensors and files ----------------------------------------------------------------------------


def _array(rng: random.Random, shape: tuple[int, ...], dtype: str = "<f8") -> np.ndarray[Any, Any]:
    values = np.random.default_rng(rng.getrandbits(32)).standard_normal(shape)
    values = values * rng.choice([1, 1, 1, 1e-6, 1e6, 1e200, 1e-200, 0]) + rng.choice([0, 0, 0, 1, 1e8])
    if values.size and rng.random() < 0.1:
        values.reshape(-1)[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
    with np.errstate(all="ignore"):
        return np.asarray(values.astype(dtype))


def _numbers(rng: random.Random, shape: tuple[int, ...]) -> str:
    values = np.random.default_rng(rng.getrandbits(32)).standard_normal(shape)
    return json.dumps(values.round(rng.choice([0, 1, 4, 17])).tolist())


def _text(rng: random.Random) -> str:
    """A tensor written out, one of the ways that it can be."""
    small = [shape for shape in SHAPES if np.prod(shape) <= 600]
    array = _array(rng, rng.choice(small))
    lists = json.dumps(array.tolist())
    table = np.atleast_2d(array) if array.ndim < 3 else array.reshape(len(array) or 1, -1)
    sign = rng.choice([",", ";", "\t", " ", ", "])
    end = rng.choice(["\n", "\r\n", "\r"])
    rows = end.join(sign.join(map(repr, row)) for row in table.tolist())
    return rng.choice([
        lists, lists, lists, f"tensor({lists}, dtype=torch.float16)", f"tensor({lists}, device='cuda:0')",
        f"array({lists})",
        str(array), repr(array), f"Parameter containing:\ntensor({lists})", rows, f"a{sign}b{end}{rows}",
        json.dumps({rng.choice(["data", "output", "input", "a"]): array.tolist(), "kind": "batch"}),
        "\n".join([lists] * rng.choice([2, 3])), "\n".join(json.dumps({"data": array.tolist()}) for _ in range(2)),
        f"# {rows}", rng.choice(NUMBERS),
    ])  # fmt: skip


def _tensor_file(rng: random.Random) -> bytes:
    which = rng.random()
    if which < 0.4:
        return _text(rng).encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    dtype = rng.choice(["<f8", "<f4", "<f2", ">f8", ">f4", "<i8", "|u1", "<i4", ">i2"])
    if which < 0.7:
        array = _array(rng, rng.choice(SHAPES), dtype)
        return npy.npy_bytes(np.asfortranarray(array) if rng.random() < 0.3 else array)
    if which < 0.9:
        arrays = {
            name: _array(rng, rng.choice(SHAPES[:28]), dtype)
            for name in rng.sample(["a", "b", "data"], rng.choice([1, 1, 2]))
        }
        return _npz(rng, arrays)
    return _state_file(rng)


def _npz(rng: random.Random, arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    packing = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy.npy_bytes(array))
    return stream.getvalue()


def _state_file(rng: random.Random) -> bytes:
    prefixes = rng.sample(["", "bn1.", "layer1.0.bn1.", "norm.", "params/bn/", "a.b."], rng.choice([1, 1, 2]))
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked", "gamma", "moving_mean", "conv"]
    arrays: dict[str, Any] = {}
    for prefix in prefixes:
        size = rng.choice([(4,), (4,), (2,), (3,), (1,), (4, 3), (2, 4, 1, 1), (0,)])
        for name in rng.sample(names, rng.choice([1, 2, 4, 5])):
            scalar = name == "num_batches_tracked" and rng.random() < 0.8
            arrays[prefix + name] = np.array(rng.choice([0, 7, 2**40])) if scalar else np.abs(_array(rng, size, "<f4"))
    which = rng.random()
    if which < 0.35:
        return json.dumps({name: array.tolist() for name, array in arrays.items()}).encode()
    if which < 0.65:
        return _npz(rng, arrays)
    if which < 0.95:
        stream = io.BytesIO()
        safetensors.write(stream, arrays)
        return stream.getvalue()
    return _checkpoint({name: array.tolist() for name, array in arrays.items()})


def _checkpoint(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save({name: torch.tensor(values) for name, values in arrays.items()}, stream)
    return stream.getvalue()


def _damaged(rng: random.Random, content: bytes) -> bytes:
    """The bytes with something amiss: changed, cut off, doubled, put in, or all of it turned into something else."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        at, end = (min(at, 200), min(end, 250)) if rng.random() < 0.5 else (at, end)  # headers are where it matters
        odd = bytes([rng.choice(b"\0\xff\x80 [](){},:\"'\\\r\n")])
        word = rng.choice([*NUMBERS, *JUNK]).encode(errors="replace")
        content = rng.choice(
            [
                content[:at],
                content[at:],
                content[:at] + content[end:],
                content[:end] + content[at:],
                content + rng.randbytes(3),
                content[:at] + rng.randbytes(4) + content[at + 4 :],
                content[:at] + word + content[at:],
                content[:at] + odd + content[at + 1 :],
            ]
        )
    return content


def _damaged_text(rng: random.Random, text: str) -> str:
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice([0, 1, 1, 3, 10]))
        put = rng.choice(
            [*NUMBERS, *"[](){},:\"' \n\r\t", "", "", rng.choice(string.printable), "\u00a0", "\ud800", "..."]
        )
        text = text[:at] + put + text[end:]
    return text


# --- running a case -------------------------------------------------------------------------------


class Hung(BaseException):
    """A case took longer than any may."""


def run(made: Case, folder: Path) -> Ended:
    """Run a case in this process, in an empty folder."""
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace") for _ in range(2))
    stdin = io.TextIOWrapper(io.BytesIO(made.stdin), "utf-8")
    code: Any = None
    start = time.perf_counter()
    with _replaced(folder, ["normcli", *made.arguments], stdin, stdout, stderr):
        try:
            normcli_main()
        except SystemExit as ended:
            code = ended.code
        except Hung:
            stderr.write(f"hung for {HUNG} seconds")
        except BaseException:
            stderr.write(traceback.format_exc())
    seconds = time.perf_counter() - start
    stdout.flush()
    stderr.flush()
    printed = [stream.buffer.getvalue().decode() for stream in (stdout, stderr)]  # type: ignore[attr-defined]
    left = tuple(sorted(entry.name for entry in folder.iterdir()))
    return Ended(code=0 if code is None else code, stdout=printed[0], stderr=printed[1], seconds=seconds, left=left)


@contextlib.contextmanager
def _replaced(folder: Path, arguments: list[str], *streams: io.TextIOWrapper) -> Iterator[None]:
    """What a process has of its own, as a new one would have it."""
    kept = sys.argv, sys.stdin, sys.stdout, sys.stderr, Path.cwd(), cli._close_quietly

    def hang(number: int, frame: object) -> None:
        raise Hung

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, hang)
    signal.alarm(HUNG)
    os.chdir(folder)
    sys.argv, (sys.stdin, sys.stdout, sys.stderr) = arguments, streams  # type: ignore[misc]
    cli._close_quietly = lambda: None  # it closes the process's own output
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            yield
    finally:
        signal.alarm(0)
        sys.argv, sys.stdin, sys.stdout, sys.stderr, place, cli._close_quietly = kept
        os.chdir(place)
        for number, handler in handlers.items():
            signal.signal(number, handler)


SAID = re.compile(r"(error|hint|warning): \S.*")


def wrong_with(made: Case, ended: Ended) -> str | None:
    """What is wrong with how a case ended; None where nothing is."""
    if "a bug" in ended.stderr or "Traceback" in ended.stderr or "hung" in ended.stderr:
        return "a bug"
    if ended.code not in (0, 1, 2, 3) or (ended.code == 1 and not {"check", "--expect"} & set(made.arguments)):
        return f"exit code {ended.code}"
    helped = len([text for text in made.arguments if text != "--"]) == 1  # a command alone prints its help
    if not helped and any(not SAID.fullmatch(line) for line in ended.stderr.splitlines()):
        return "another line on standard error"
    failed, check = ended.code >= 2, made.arguments[:1] == ["check"]
    if failed and not helped and ended.stderr.count("error: ") != 1 and not check:
        return "not one error"
    if failed and ended.stdout and not check:
        return "output of what failed"
    if any(name.startswith(".normcli-") for name in ended.left):
        return "a temporary file left"
    if failed and not check and set(ended.left) - set(made.files):
        return "a file written by what failed"
    if "--json" in made.arguments and not failed and ended.stdout[:1] == "{" and not _is_json(ended.stdout):
        return "no JSON"
    if ended.seconds > LONGEST:
        return f"{ended.seconds:.1f} seconds"
    return None


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        for line in text.splitlines():
            json.loads(line, parse_constant=refuse)
    except ValueError:
        return False
    return True


def tried(number: int) -> tuple[Case, Ended, str | None]:
    """A case, how it ended, and what is wrong with that."""
    made = case(number)
    with tempfile.TemporaryDirectory() as folder:
        ended = run(made, Path(folder))
    return made, ended, wrong_with(made, ended)


def main(cases: int, first: int = 0) -> int:
    """Run cases and count how they ended."""
    codes: Counter[str] = Counter()
    found = 0
    slowest = (0.0, -1)
    for number in range(first, first + cases):
        made, ended, wrong = tried(number)
        command = made.arguments[0] if made.arguments and made.arguments[0] in cli.COMMANDS else "other"
        codes[f"{command} {ended.code}"] += 1
        slowest = max(slowest, (ended.seconds, number))
        if wrong or cases == 1:
            found += bool(wrong)
            print(
                f"case {number}: {wrong}\n  arguments {made.arguments!r:.2000}\n  stdin {made.stdin!r:.300}", flush=True
            )
            for name, content in made.files.items():
                print(f"  {name} {content!r:.600}")
            print(
                f"  exit {ended.code}, {ended.seconds:.2f} s\n  {ended.stdout[:500]!r}\n  {ended.stderr[-1000:]!r}",
                flush=True,
            )
    print(f"{cases} cases from {first} on: {found} wrong; the slowest is {slowest[1]} with {slowest[0]:.2f} s")
    print(", ".join(f"{name}: {times}" for name, times in sorted(codes.items())))
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
