"""Data for programs: documents and their schema, long tables, and somebody else's output beside ours."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import documents
import numpy as np
import pytest
from conftest import ROOT, Run

import normcli
from normcli.planning.conventions import CONVENTIONS
from normcli.showing.json import SCHEMA

X = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"


# --- the schema ---------------------------------------------------------------------------------------


def test_the_schema_is_printed_and_names_the_number_of_the_documents(normcli: Run) -> None:
    printed = json.loads(normcli("--schema").stdout)
    assert printed == json.loads(documents.SCHEMA.read_text())
    assert printed["$defs"]["schema"] == {"const": SCHEMA}


EXAMPLES = ROOT / "examples"
# One of each sort, with every part that a document can have.
RUNS = {
    "calculation": ["batch", X, "--trace", "--grad-output", "ones"],
    "comparisons": ["batch", X, "--versus", "keras", "--versus", "numpy::float16", "--grad-output", "ones"],
    "no number": ["batch", "[[NaN,1],[2,3]]"],
    "a kind beyond the family": ["spectral", "[[1,2],[3,5]]"],
    "own formula": ["formula", "m = sum(x)/n; y = (x - m) * g", X, "--axes", "1", "--let", "g@1=[1,2,3,4]"],
    "answer": ["layer", X, "--expect", "[[1,2,3,4],[1,2,3,4],[1,2,3,4]]", "--cells"],
    "part beside an answer": ["layer", X, "--only", "statistics", "--expect", "mean=[2,3.75,3.25]"],
    "output": ["layer", X, "--only", "output"],
    "statistics": ["layer", X, "--only", "statistics"],
    "running": ["layer", X, "--only", "running"],
    "trace": ["layer", X, "--only", "trace"],
    "files": ["check", str(EXAMPLES / "checks/d2l-both-as-torch.json"), "missing.json"],
    "conventions": ["conventions", "torch", "d2l"],
    "state": ["state", str(EXAMPLES / "model.safetensors")],
    "stats": ["stats", str(EXAMPLES / "four-norms.npy")],
    "checked stats": ["stats", str(EXAMPLES / "iris.npy"), "--expect", "std=[1,2,3,4]"],
    "axes": ["axes", "instance", "--shape", "2,6,4,4"],
    "fold": ["fold", str(EXAMPLES / "model.safetensors"), "--conv", "layer1.0.conv1", "--bn", "layer1.0.bn1"],
}


@pytest.mark.parametrize("arguments", RUNS.values(), ids=RUNS)
def test_the_schema_has_every_sort_of_document(normcli: Run, arguments: list[str]) -> None:
    lines = normcli(*arguments, "--json").stdout.splitlines()  # each is held against the schema there
    assert len(lines) == (2 if arguments[0] == "check" else 1)


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"count": "4"}, {"surprise": 1}, {"output": [["nan"]]}, {"running": 0}, {"options": {"ddof": 2}}],
    ids=lambda change: next(iter(change)),
)
def test_a_document_that_is_not_as_the_schema_says_fails(normcli: Run, change: dict[str, Any]) -> None:
    document = json.loads(normcli("layer", X, "--json").stdout)
    with pytest.raises(AssertionError, match="no such document"):
        documents.check(["--json"], json.dumps(document | change))


def test_a_document_feeds_the_next_calculation(normcli: Run) -> None:
    first = normcli("layer", "[[1,3],[2,8]]", "--eps", "0", "--json").stdout
    assert json.loads(normcli("batch", "-", "--only", "statistics", "--json", stdin=first).stdout)["mean"] == [-1, 1]


# --- conventions --------------------------------------------------------------------------------------


def test_conventions_have_the_same_typed_keys_whatever_is_asked_for(normcli: Run) -> None:
    all_of_them = json.loads(normcli("conventions", "--json").stdout)
    two = json.loads(normcli("conventions", "torch", "d2l", "--json").stdout)
    typed = {name for name in all_of_them["torch"] if " " not in name}
    assert {name for name in two["d2l"] if " " not in name} == typed
    assert {name: all_of_them["torch"][name] for name in typed} == {name: two["torch"][name] for name in typed}


def test_conventions_are_numbers_and_null_for_none(normcli: Run) -> None:
    found = json.loads(normcli("conventions", "--json").stdout)
    assert found["keras"]["eps"] == {"batch": 1e-3, "instance": 1e-3, "layer": 1e-3, "group": 1e-3, "rms": 1e-6}
    assert found["torch"]["eps"]["rms"] == "machine_epsilon"
    assert (found["d2l"]["eps"]["layer"], found["d2l"]["interleaved_groups"]) == (None, None)
    assert {name: found[name]["momentum_default"] for name in CONVENTIONS} == {
        "torch": 0.1, "keras": 0.99, "flax": 0.99, "cs231n": 0.9, "onnx": 0.9, "mlx": 0.1, "d2l": 0.9,
    }  # fmt: skip


# --- long tables --------------------------------------------------------------------------------------


def long_table(normcli: Run) -> str:
    return normcli("instance", "[[[1,2,4],[3,-4,1]]]", "--track-running-stats", "--format", "csv").stdout


def test_a_result_goes_into_a_database(normcli: Run) -> None:
    head, *rows = csv.reader(io.StringIO(long_table(normcli)))
    base = sqlite3.connect(":memory:")
    base.execute(f"create table result ({', '.join(f'{name} numeric' for name in head)})")
    base.executemany(f"insert into result values ({', '.join('?' * len(head))})", rows)
    assert head == ["quantity", "i0", "i1", "i2", "value"]
    expected = normcli_output("[[[1,2,4],[3,-4,1]]]")
    found = base.execute(
        "select i0, i1, i2, value from result where quantity = 'output' order by i0, i1, i2"
    ).fetchall()
    assert found == [(*index, expected[index]) for index in np.ndindex(expected.shape)]
    assert base.execute("select count(*) from result where quantity = 'mean' and i2 = ''").fetchone() == (2,)


def normcli_output(text: str) -> Any:
    return normcli.normalize(json.loads(text), "instance").output


def test_a_result_goes_into_a_data_frame(normcli: Run) -> None:
    pandas = pytest.importorskip("pandas", reason="a data frame needs pandas")
    frame = pandas.read_csv(io.StringIO(long_table(normcli)))
    output = frame[frame.quantity == "output"].set_index(["i0", "i1", "i2"]).value
    np.testing.assert_array_equal(output.to_numpy().reshape(1, 2, 3), normcli_output("[[[1,2,4],[3,-4,1]]]"))
    assert frame[frame.quantity == "mean"].i2.isna().all()


def test_inputs_of_several_ranks_are_one_table(normcli: Run) -> None:
    done = normcli("batch", "[[1,2],[3,5]]", "[[[1,2],[3,5]]]", "--format", "csv")
    widths = {len(row) for row in csv.reader(io.StringIO(done.stdout))}
    assert widths == {len(["input", "quantity", "i0", "i1", "i2", "value"])}


# --- somebody else's output ---------------------------------------------------------------------------


def compared(normcli: Run, *arguments: str) -> dict[str, Any]:
    done = normcli(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)["versus"]
    return dict(found)


def dumped(tmp_path: Path, name: str, values: Any) -> str:
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, y=values, other=values + 1)
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        path.write_text(json.dumps({"output": values.tolist()}))
    return str(path)


@pytest.mark.parametrize(
    ("name", "spec"), [("y.npy", "{}"), ("y.npz", "{}::y"), ("y.json", "{}")], ids=lambda text: str(text)
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_output_in_a_file_is_measured_and_placed(
    normcli: Run, tmp_path: Path, name: str, spec: str, order: str
) -> None:
    theirs = np.array([-0.5, 0.25, 2.0], f"{order}f4") * np.float32(2)
    path = dumped(tmp_path, name, theirs)
    found = compared(normcli, "layer", "[1,2,4]", "--dtype", "float32", "--versus", spec.format(path))
    exact = np.array(normcli_layer([1, 2, 4]), np.float32)
    assert (found["backend"], found["device"], found["convention"], found["dtype"]) == ("file", None, None, "float32")
    assert found["at"] == [2]
    assert found["max_abs"] == 4.0 - float(exact[2])
    assert (found["reference"], found["other"]) == (float(exact[2]), 4.0)


def normcli_layer(values: list[float]) -> Any:
    return normcli.normalize(np.array(values, np.float32), "layer").output


def test_what_normcli_wrote_is_no_difference(normcli: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "y.npy")
    normcli("layer", "[0.1,0.2,0.4]", "--dtype", "float16", "-o", path)
    assert compared(normcli, "layer", "[0.1,0.2,0.4]", "--dtype", "float16", "--versus", path)["max_abs"] == 0


def test_the_coarser_dtype_is_the_ruler(normcli: Run, tmp_path: Path) -> None:
    halves = dumped(tmp_path, "y.npy", normcli_layer([1, 2, 4]).astype(np.float16))
    found = compared(normcli, "layer", "[1,2,4]", "--versus", halves)
    assert (found["dtype"], found["max_ulp"]) == ("float16", 0)


def test_a_file_has_a_row_among_the_other_ways(normcli: Run, tmp_path: Path) -> None:
    dumped(tmp_path, "y.npy", np.array([-1.0, 0.0, 1.0]))
    done = normcli("layer", "[1,2,4]", "--versus", "y.npy", "--versus", "numpy::float32", "--only", "output")
    assert [line.split()[0] for line in done.stdout.splitlines() if " output " in line] == ["y.npy", "numpy::float32"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wide.npy", "wide.npy has shape (2, 3), and the output has (3,); it must be the output of the same input"),
        ("missing.npy", "no file missing.npy, and it is not a tensor literal"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(normcli: Run, tmp_path: Path, spec: str, message: str) -> None:
    dumped(tmp_path, "wide.npy", np.zeros((2, 3)))
    done = normcli("layer", "[1,2,4]", "--versus", spec)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")
