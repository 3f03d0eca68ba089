"""Several ranks share the statistics of one batch, as under SyncBatchNorm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from oracle import exact

import normcli
from normcli.arithmetic.evaluate import worked_out
from normcli.arithmetic.numbers import FLOATS
from normcli.errors import InputError
from normcli.formula.language import parsed

A, B = [[1, 2], [3, 4]], [[6, 1], [2, 5], [0, 3], [9, 1]]
RANKS = (json.dumps(A), json.dumps(B), "--ranks")
WHOLE = np.array(A + B, float)


def numbers(*shape: int, dtype: Any = np.float64, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 2, shape).astype(dtype)


def split(x: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(x, np.cumsum(sizes)[:-1])


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), [((7, 3), 1), ((7, 3, 4), 1), ((7, 4, 5, 3), -1), ((7, 30, 500), 1)])
@pytest.mark.parametrize("sizes", [(1, 4, 2), (5, 2)])
def test_the_bits_are_those_of_the_batch(shape: tuple[int, ...], axis: int, sizes: tuple[int, ...], dtype: str) -> None:
    x, flow = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=6)
    channels = shape[axis]
    options = {"weight": numbers(channels, seed=4), "bias": numbers(channels, seed=5), "channel_axis": axis}
    found = normcli.normalize(split(x, *sizes), "batch", ranks=True, grad_output=flow, **options)
    right = normcli.normalize(x, "batch", grad_output=flow, **options)
    for name in ("output", "mean", "var", "rstd", "running_mean", "running_var", "grad_input", "grad_weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(right, name))
    for part, rows in zip(found.by_rank(), split(right.output, *sizes), strict=True):
        np.testing.assert_array_equal(part, rows)
    assert found.num_batches_tracked == 1


@pytest.mark.parametrize("axis", [1, -1])
def test_each_rank_has_its_own_statistics(axis: int) -> None:
    x = numbers(7, 3, 3)
    found = normcli.normalize(split(x, 1, 4, 2), "batch", ranks=True, channel_axis=axis, ddof=1, weight=[2, 3, 4])
    alone = [exact(part, "batch", channel_axis=axis) for part in split(x, 1, 4, 2)]
    assert found.rank_n.tolist() == [3, 12, 6]
    np.testing.assert_allclose(found.rank_mean, np.array([one.mean for one in alone], float), 1e-15)
    np.testing.assert_allclose(found.rank_var, np.array([one.var for one in alone], float), 1e-15)


def test_a_tensor_may_come_with_the_sizes_of_its_ranks() -> None:
    one, other = (
        normcli.normalize(WHOLE, "batch", ranks=[2, 4]),
        normcli.normalize([A, B], "batch", ranks=True),
    )
    assert one.plan.options() == other.plan.options()
    np.testing.assert_array_equal(one.rank_mean, other.rank_mean)


def test_torch_has_the_same_of_the_whole_batch() -> None:
    pytest.importorskip("torch")
    found = normcli.normalize([A, B], "batch", ranks=True, backend="torch", device="cpu")
    np.testing.assert_allclose(found.output, normcli.normalize(WHOLE, "batch").output, 1e-13, 1e-13)
    assert found.rank_mean.tolist() == [[2, 3], [4.25, 2.5]]


def test_evaluation_takes_the_running_statistics_of_every_rank() -> None:
    before = {"running_mean": [1, 2], "running_var": [4, 2]}
    found = normcli.normalize([A, B], "batch", ranks=True, mode="eval", **before)
    np.testing.assert_array_equal(found.output, normcli.normalize(WHOLE, "batch", mode="eval", **before).output)
    assert found.of_ranks() == {}


def test_python_traces_checks_and_compares_them() -> None:
    found = normcli.trace([A, B], "batch", (3, 1), ranks=True)
    assert [step.value for step in found.steps if step.step.endswith("_mean")][:2] == [[3, 2.5], 8 / 3]
    assert normcli.check([A, B], "batch", {"mean": [3.5, 2.6667]}, ranks=True).ok
    assert "keras" in repr(normcli.versus([A, B], "batch", "keras", ranks=True))


# --- what cannot be -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "one": ([A], {}, "two inputs or more; 1 is given"),
    "empty": ([A, np.zeros((0, 2))], {}, "rank 1 has no elements (shape (0, 2)); it adds nothing, leave it out"),
    "other channels": ([A, [[1]]], {}, "rank 1 has shape (1, 1) and rank 0 (2, 2): only the first size may differ"),
    "other axes": ([A, [1, 2]], {}, "rank 1 has shape (2,) and rank 0 (2, 2)"),
    "other dtypes": ([A, np.ones((1, 2), np.float32)], {}, "rank 1 is float32 and rank 0 float64; --dtype makes"),
    "single numbers": ([1.0, 2.0], {}, "a rank is a single number"),
    "no list": (WHOLE, {}, "x is a list of tensors, one for each rank; it is a ndarray"),
    "channels first": ([A, A], {"channel_axis": 0}, "channel axis 0 holds the channels"),
    "virtual batches too": ([A, A], {"virtual_batch": 2}, "--ranks and --virtual-batch cannot be combined"),
    "unsynchronized": ([A, B], {"mode": "eval", "track_running_stats": False}, "synchronized in training alone"),
    "other sizes": (WHOLE, {"ranks": (2, 3)}, "ranks of 2 + 3 samples are 5; the tensor has 6"),
    "no sizes": (WHOLE, {"ranks": (2.0, 4)}, "ranks is (2.0, 4); give the number of samples of each of them"),
    "a kind without": ([A, B], {"kind": "layer"}, "layer has no option ranks; it belongs to batch"),
}


@pytest.mark.parametrize(("x", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        normcli.normalize(x, **{"kind": "batch", "ranks": True} | options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "arguments", [(json.dumps(A),), (json.dumps(A), "[[1]]"), (json.dumps(A), json.dumps(B), "-o", "y.npy")]
)
def test_the_command_line_says_so_in_one_line(normcli: Run, arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = normcli("batch", "--ranks", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert not (tmp_path / "y.npy").exists()


# --- how it is shown ------------------------------------------------------------------------------


def test_the_document_has_them_among_the_statistics(normcli: Run) -> None:
    document = json.loads(normcli("batch", *RANKS, "--json").stdout)
    assert document["options"]["ranks"] == [2, 4]
    assert document["count"] == 6
    assert document["statistics"]["rank_n"] == [2, 4]
    assert document["statistics"]["rank_var"] == [[1, 1], [12.1875, 2.75]]
    np.testing.assert_array_equal(document["output"], normalized())


def normalized() -> np.ndarray:
    return np.asarray(normcli.normalize(WHOLE, "batch").output)


def test_tables_have_them_beside_those_of_all(normcli: Run) -> None:
    lines = normcli("batch", *RANKS, "--dy", "ones").stdout.splitlines()
    assert ["1", "0", "4", "4.2500", "12.1875", "3.5000", "9.5833"] in [line.split() for line in lines]
    assert [line for line in lines if line.startswith(("output", "grad_input"))] == [
        f"{name} of rank {rank}" for name in ("output", "grad_input") for rank in (0, 1)
    ]


def test_lines_of_json_are_ranks(normcli: Run) -> None:
    done = normcli("batch", "-", "--ranks", "--only", "output", "--json", stdin=f"{A}\n{B}\n")
    np.testing.assert_array_equal(json.loads(done.stdout), normalized())


@pytest.mark.parametrize("only", ["output", "grad-input"])
def test_each_rank_has_a_file_of_its_own(only: str, normcli: Run, tmp_path: Path) -> None:
    for name, rows in (("a", A), ("b", B)):
        np.save(tmp_path / f"{name}.npy", np.array(rows, np.float32))
    done = normcli("batch", "a.npy", "b.npy", "--ranks", "--dy", "ones", "-o", "y{i}.npy", "--only", only)
    assert done.returncode == 0, done.stderr
    assert [np.load(tmp_path / f"y{rank}.npy").shape for rank in (0, 1)] == [(2, 2), (4, 2)]


def test_files_too_large_to_be_read_at_once_are_put_together(normcli: Run, tmp_path: Path) -> None:
    x = numbers(40, 6, 500)
    for rank, part in enumerate(split(x, 10, 30)):
        np.save(tmp_path / f"x{rank}.npy", part)
    done = normcli("batch", "x0.npy", "x1.npy", "--ranks", "-o", "y{i}.npy", "--only", "statistics")
    assert done.returncode == 0, done.stderr
    found = np.concatenate([np.load(tmp_path / f"y{rank}.npy") for rank in (0, 1)])
    np.testing.assert_array_equal(found, normcli_output(x))


def normcli_output(x: np.ndarray) -> np.ndarray:
    return np.asarray(normcli.normalize(x, "batch").output)


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        ((), "merged_var          sum(rank_n * (rank_var + (rank_mean - mean)^2)) / n"),
        (("--ddof", "1"), "merged_var_unbiased  sum(rank_n * (rank_var + (rank_mean - mean)^2)) / (n - 1)"),
    ],
)
def test_the_trace_merges_by_counts(options: tuple[str, ...], merged: str, normcli: Run) -> None:
    shown = normcli("batch", *RANKS, "--element", "3,0", "--only", "trace", *options).stdout
    squeezed = [" ".join(line.split()) for line in shown.splitlines()]
    assert any(line.startswith(" ".join(merged.split())) for line in squeezed)
    assert "merged_mean sum(rank_n * rank_mean) / n (2 * 2 + 4 * 4.2500) / 6 3.5000" in squeezed


def test_the_merged_lines_are_true_to_the_last_digit() -> None:
    x = numbers(9, 1) * 1e3 + 1e6
    found = normcli.trace(split(x, 2, 3, 4), "batch", (0, 0), ranks=True)
    one = next(step for step in found.steps if step.step == "merged_var")
    filled = parsed(one.substituted.replace("~", ""))
    assert float(worked_out(filled, FLOATS, None).hi) == pytest.approx(one.value, abs=5e-5)


# --- what goes wrong ------------------------------------------------------------------------------


def apart(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(normcli.normalize(part, "batch").output) for part in parts])


def merged(parts: list[np.ndarray], mean: Any, var: Any) -> np.ndarray:
    return (np.concatenate(parts) - mean) / np.sqrt(var + 1e-5)


def mean_of_means(parts: list[np.ndarray]) -> np.ndarray:
    return np.mean([part.mean(0) for part in parts], 0)


def mean_of_vars(parts: list[np.ndarray], weights: list[int] | None = None) -> np.ndarray:
    return np.average([part.var(0) for part in parts], 0, weights)


SLIPS: dict[str, tuple[Any, list[str]]] = {
    "each rank alone": (apart, ["ranks_apart"]),
    "variances": (lambda p: merged(p, np.concatenate(p).mean(0), mean_of_vars(p)), ["ranks_vars"]),
    "variances by counts": (
        lambda p: merged(p, np.concatenate(p).mean(0), mean_of_vars(p, [len(part) for part in p])),
        ["ranks_vars"],
    ),
    "unbiased": (lambda p: np.asarray(normcli.normalize(p, "batch", ranks=True, ddof=1).output), ["ddof1"]),
}
UNEQUAL = {
    "means": (
        lambda p: merged(p, mean_of_means(p), ((np.concatenate(p) - mean_of_means(p)) ** 2).mean(0)),
        ["ranks_means"],
    ),
    "both": (lambda p: merged(p, mean_of_means(p), mean_of_vars(p)), ["ranks_means", "ranks_vars"]),
}


@pytest.mark.parametrize(
    ("sizes", "answer", "keys"),
    [*(((3, 3), *one) for one in SLIPS.values()), *(((2, 4), *one) for one in (SLIPS | UNEQUAL).values())],
    ids=[*(f"{name}, equal" for name in SLIPS), *SLIPS, *UNEQUAL],
)
def test_the_slip_is_named(sizes: tuple[int, ...], answer: Any, keys: list[str], normcli: Run) -> None:
    parts = split(WHOLE, *sizes)
    expected = json.dumps(answer(parts).round(4).tolist())
    inputs = [json.dumps(part.astype(int).tolist()) for part in parts]
    done = normcli("batch", *inputs, "--ranks", "--expect", expected, "--json")
    assert done.returncode == 1
    assert [one["keys"] for one in json.loads(done.stdout)["check"]["diagnoses"]] == [keys]


def test_statistics_show_them_too() -> None:
    parts = split(WHOLE, 2, 4)
    answer = {"mean": mean_of_means(parts).round(4).tolist(), "var": mean_of_vars(parts).round(4).tolist()}
    found = normcli.check([A, B], "batch", answer, ranks=True)
    assert found.keys == [("ranks_means", "ranks_vars")]


def test_gradients_of_ranks_apart_are_named() -> None:
    flow = numbers(6, 2, seed=6).round(2)
    answers = [
        normcli.normalize(x, "batch", grad_output=g) for x, g in zip(split(WHOLE, 3, 3), split(flow, 3, 3), strict=True)
    ]
    wrong = np.concatenate([one.grad_input for one in answers]).round(4).tolist()
    parts = [part.tolist() for part in split(WHOLE, 3, 3)]
    found = normcli.check(parts, "batch", {"grad_input": wrong}, grad_output=flow, ranks=True)
    assert found.keys == [("ranks_apart",)]


def test_a_worked_example_has_the_sizes(normcli: Run, tmp_path: Path) -> None:
    example = {"kind": "batch", "input": A + B, "options": {"ranks": [2, 4]}, "expect": {"mean": [3.125, 2.75]}}
    (tmp_path / "example.json").write_text(json.dumps(example))
    assert "[ranks_means]" in normcli("check", "example.json").stdout
