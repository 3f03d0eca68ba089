"""The house: rooms with one-way doors, one home for each fact, and a kind that is a few lines of text."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

import normcli
from normcli.commands.cli import make_app
from normcli.errors import InputError
from normcli.planning.conventions import CONVENTIONS
from normcli.planning.kinds import KINDS, Kind
from normcli.planning.layout import trailing

PACKAGE = ROOT / "normcli"


# --- the doors ------------------------------------------------------------------------------------


def linted(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """What import-linter says of the package in a folder."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package that may be spoilt."""
    shutil.copytree(PACKAGE, tmp_path / "normcli", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_doors_open_one_way(house: Path, environment: dict[str, str]) -> None:
    code, said = linted(house, environment)
    assert (code, "0 broken" in said) == (0, True), said


BREACHES = {
    "a room above": ("files/npy.py", "import normcli.showing.table"),
    "inside a function": ("planning/plan.py", "def late():\n    from normcli.commands import cli"),
    "for types alone": ("formula/tex.py", "if TYPE_CHECKING:\n    import normcli.files.npy"),
    "a circle in a room": ("formula/language.py", "def late():\n    import normcli.formula.spelled"),
    "a circle on the ground": ("words.py", "def late():\n    import normcli.errors"),
}  # fmt: skip


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found(house: Path, environment: dict[str, str], breach: str) -> None:
    path, line = BREACHES[breach]
    with (house / "normcli" / path).open("a") as file:
        file.write(f"\n\n{line}\n")
    code, said = linted(house, environment)
    assert (code, "BROKEN" in said) == (1, True)


def test_nothing_is_ignored() -> None:
    assert "ignore_imports" not in (ROOT / "pyproject.toml").read_text()


# --- one home for each fact -----------------------------------------------------------------------


def modules(*but: str) -> dict[str, str]:
    """The modules outside these rooms or files, by their path in the package."""
    found = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.glob("**/*.py")}
    return {path: text for path, text in found.items() if not path.startswith(but)}


def code_of(text: str) -> str:
    """A module without its docstrings and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
    return ast.unparse(tree)


HOMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "the formula": (
        r"sqrt\([^()]*\+[^()]*eps|sqrt\(.*\)\s*\+\s*eps|\beps\)\.sqrt|rstd = 1 /",
        (
            "formula/family.py", "formula/further_lines.py", "teaching/slips.py", "teaching/free_slips.py",
            "arithmetic/torch.py", "commands/help.py",
        ),
    ),
    "JSON": (r"json\.loads|JSONDecoder|raw_decode", ("files/",)),
    "a kind's name": (r"kind\.name\s*(==|!=|in \(|not in \()", ("planning/", "arithmetic/torch.py")),
    "a backend's name": (r"backend\w*\s*[!=]=\s*['\"](numpy|torch)['\"]", ("arithmetic/run.py",)),
    "the bits of a dtype": (r"2\.0 \*\* \(?-(24|53|11|8)\b|\(24, -149\)", ("dtypes.py",)),
}  # fmt: skip


@pytest.mark.parametrize("fact", HOMES)
def test_a_fact_has_one_home(fact: str) -> None:
    pattern, homes = HOMES[fact]
    found = {path: re.findall(pattern, code_of(text)) for path, text in modules(*homes).items()}
    assert {path: hits for path, hits in found.items() if hits} == {}


@pytest.mark.parametrize("fact", HOMES)
def test_the_search_for_a_fact_can_find_it(fact: str) -> None:
    samples = {
        "the formula": "rstd = 1 / np.sqrt(var + eps)",
        "JSON": "json.loads(text)",
        "a kind's name": "plan.kind.name == 'batch'",
        "a backend's name": "backend == 'numpy'",
        "the bits of a dtype": "UNIT = 2.0 ** -24",
    }
    assert re.search(HOMES[fact][0], code_of(samples[fact]))


def test_arithmetic_reads_the_layout_alone() -> None:
    found = {
        path: re.findall(r"plan\.groups|\.convention\b", code_of(text))
        for path, text in modules().items()
        if path.startswith("arithmetic/") and path != "arithmetic/torch.py"
    }
    assert found
    assert {path: hits for path, hits in found.items() if hits} == {}


def hidden(tree: ast.AST, inside: bool = False) -> Iterator[ast.AST]:
    """The imports of the project inside functions."""
    for node in ast.iter_child_nodes(tree):
        if inside and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("normcli"):
            yield node
        yield from hidden(node, inside or isinstance(node, ast.FunctionDef | ast.Lambda))


def test_hardly_an_import_is_inside_a_function() -> None:
    found = [
        path for path, text in modules().items() if not path.endswith("__init__.py") for _ in hidden(ast.parse(text))
    ]
    assert len(found) <= 10, found


def test_no_file_is_long_but_the_catalogue_of_slips() -> None:
    long = {path: lines for path, text in modules("teaching/slips.py").items() if (lines := text.count("\n")) > 400}
    assert long == {}


def test_the_top_folder_shows_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


# --- a kind is a few lines ------------------------------------------------------------------------

TOY = Kind(
    name="toy",
    title="ToyNorm",
    summary="ToyNorm: by the mean absolute deviation.",
    options=("eps", "weight", "bias", "affine", "convention", "dtype", "normalized_shape"),
    text="""
        mean = sum(x) / n
        centered = x - mean
        spread = sum(abs(centered)) / n
        normalized = centered / (spread + eps)
        output = normalized * weight + bias
    """,
    layout=trailing,
    examples=("normcli toy '[1,2,4,1]'",),
)
X = "[[1,2,4,1],[6,3,2,5]]"
OUTPUT = [[-1.0, 0.0, 2.0, -1.0], [4 / 3, -2 / 3, -4 / 3, 2 / 3]]  # with eps 0: means 2 and 4, spreads 1 and 1.5
Toy = Callable[..., Any]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The command of a kind that is a row, and an eps in a convention: two places."""
    monkeypatch.setitem(KINDS, "toy", TOY)
    monkeypatch.setitem(CONVENTIONS["torch"].eps, "toy", 1e-5)
    monkeypatch.setenv("COLUMNS", "120")
    application = make_app(["toy", "axes"])
    return lambda *arguments: CliRunner().invoke(application, [*arguments], prog_name="normcli")


def test_a_toy_kind_is_computed(toy: Toy) -> None:
    result = normcli.normalize(np.array([[1.0, 2, 4, 1], [6, 3, 2, 5]]), "toy", eps=0)
    np.testing.assert_allclose(result.output, OUTPUT, rtol=1e-15)
    assert result.spread.tolist() == [1.0, 1.5]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_toy_kind_is_computed_where_it_is_large(toy: Toy, dtype: str) -> None:
    """No compiled loop knows these lines, so they are interpreted block by block."""
    x = np.random.default_rng(1).normal(size=(3, 40_000)).astype(dtype)
    found = normcli.normalize(x, "toy").output
    wide = x.astype(np.longdouble)
    centered = wide - wide.mean(axis=1, keepdims=True)
    exact = centered / (np.abs(centered).mean(axis=1, keepdims=True) + np.longdouble(1e-5))
    np.testing.assert_allclose(found.astype(np.float64), exact.astype(np.float64), rtol=float(np.finfo(dtype).eps))


def test_a_toy_kind_has_a_trace(toy: Toy) -> None:
    done = toy("toy", X, "--trace", "--element", "0,2")
    assert "spread      sum(abs(centered)) / n" in done.stdout
    assert "(abs(-1) + abs(0) + abs(2) + abs(-1)) / 4" in done.stdout
    assert "2 / (1 + 1e-05)" in done.stdout


def test_a_toy_kind_has_a_document(toy: Toy) -> None:
    document = json.loads(toy("toy", X, "--eps", "0", "--json", "--trace").stdout)
    assert document["statistics"] == {"source": "batch", "mean": [2.0, 4.0], "spread": [1.0, 1.5]}
    assert document["output"] == OUTPUT
    assert [step["step"] for step in document["trace"]] == ["mean", "centered", "spread", "normalized", "output"]


def test_a_toy_kind_has_gradients(toy: Toy) -> None:
    """Held against differences, which know of no lines."""
    rng = np.random.default_rng(1)
    x, g, way = (rng.normal(size=(3, 5)) for _ in range(3))
    after, before = (normcli.normalize(x + step * way, "toy").output for step in (1e-6, -1e-6))
    found = normcli.normalize(x, "toy", grad_output=g)
    assert (found.grad_input * way).sum() == pytest.approx(((after - before) * g).sum() / 2e-6, rel=1e-7)
    np.testing.assert_allclose(found.grad_weight, (g * found.output).sum(axis=0), rtol=1e-14)


def test_a_toy_kind_has_a_backward_trace(toy: Toy) -> None:
    done = toy("toy", X, "--element", "0,2", "--dy", "[[1,2,0,1],[0,3,2,5]]", "--eps", "0", "--json")
    steps = {step["step"]: (step["formula"], step["substituted"]) for step in json.loads(done.stdout)["trace"]}
    assert steps["grad_centered"] == (
        "grad_normalized / (spread + eps) + grad_spread * sign(centered) / n",
        "0 / (1 + 0) + 2 * sign(2) / 4",
    )


def test_a_toy_kind_has_markdown_and_latex(toy: Toy) -> None:
    assert "| spread | `sum(abs(centered)) / n` |" in toy("toy", X, "--trace", "--format", "markdown").stdout
    assert r"\frac{\sum \lvert d \rvert}{n}" in toy("toy", X, "--trace", "--format", "latex").stdout


def test_a_toy_kind_has_csv(toy: Toy) -> None:
    rows = list(csv.reader(io.StringIO(toy("toy", X, "--format", "csv").stdout)))
    assert ["spread", "0", "", "1.0"] in rows


def test_a_toy_kind_has_axes(toy: Toy) -> None:
    assert "2 means, one for each place along axis 0" in toy("axes", "toy", "--shape", "2,4").stdout


def test_a_toy_kind_is_checked(toy: Toy) -> None:
    right, wrong = "[[-1,0,2,-1],[1.3333,-0.6667,-1.3333,0.6667]]", "[[-1,0,2,-1],[1.3333,-0.6667,-1.3333,0.7]]"
    assert toy("toy", X, "--eps", "0", "--expect", right).exit_code == 0
    assert toy("toy", X, "--eps", "0", "--expect", "spread=[1,1.5]").exit_code == 0
    done = toy("toy", X, "--eps", "0", "--expect", wrong)
    assert (done.exit_code, "does not check: 1 of 8 cells" in done.stdout) == (1, True)


def test_a_toy_kind_is_a_script(toy: Toy) -> None:
    found: dict[str, Any] = {}
    script = toy("toy", X, "--eps", "0", "--format", "python").stdout
    assert "torch.nn" not in script
    exec(compile(script.replace("print(output)", ""), "script", "exec"), found)
    np.testing.assert_allclose(found["output"], OUTPUT, rtol=1e-15)


def test_torch_refuses_a_toy_kind_by_name(toy: Toy) -> None:
    with pytest.raises(InputError, match=r"^torch has no ToyNorm; that needs the numpy backend$"):
        normcli.normalize(np.ones((2, 3)), "toy", backend="torch")


def test_a_toy_kind_has_help(toy: Toy) -> None:
    help_ = toy("toy", "--help").stdout
    assert "ToyNorm: by the mean absolute deviation." in help_
    assert "normcli toy '[1,2,4,1]'" in help_
