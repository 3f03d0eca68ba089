"""normcli from Python: its names, what it gives back in words, and in a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from nbclient import NotebookClient

import normcli
from normcli.dtypes import FLOAT_DTYPES
from normcli.planning.further import EVERY
from normcli.planning.options import ConventionName, DtypeName, KindName, Options
from normcli.showing.conventions import names

X = [[1.0, 2, 4], [3, 5, 4]]

# --- names ----------------------------------------------------------------------------------------


def test_dir_shows_what_there_is() -> None:
    assert dir(normcli) == [
        "Pooled",
        "Result",
        "__version__",
        "axes",
        "check",
        "layers",
        "normalize",
        "stats",
        "testing",
        "trace",
        "versus",
    ]
    assert all(getattr(normcli, name) is not None for name in dir(normcli))


def test_looking_around_loads_nothing(environment: dict[str, str]) -> None:
    code = "import sys, normcli; dir(normcli); print({'numpy', 'normcli.words'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "set()\n"


# --- types ----------------------------------------------------------------------------------------


def test_the_types_have_every_kind_and_option() -> None:
    assert list(get_args(KindName)) == list(EVERY)
    known = {option for kind in EVERY.values() for option in kind.options}
    assert Options.__annotations__.keys() == known | {"gamma", "beta", "state", "prefix"}


def test_the_types_have_every_convention_and_dtype() -> None:
    assert [*get_args(ConventionName), *(kind for kind in EVERY if kind != "formula")] == names()
    assert set(get_args(DtypeName)) == set(FLOAT_DTYPES)


MISSPELT = {
    'normcli.normalize(x, "btach")': 'Argument 2 to "normalize" has incompatible type "Literal[\'btach\']"',
    'normcli.normalize(x, "layer", epps=3)': 'Unexpected keyword argument "epps" for "normalize"',
    'normcli.normalize(x, "batch", mode="test")': 'Argument "mode" to "normalize" has incompatible type',
    'normcli.normalize(x, "layer", backend="jax")': 'Argument "backend" to "normalize" has incompatible type',
    'normcli.normalize([x], "batch", ranks="all")': 'Argument "ranks" to "normalize" has incompatible type',
    'normcli.check(x, "layer", x, grops=2)': 'Unexpected keyword argument "grops" for "check"',
    'normcli.trace(x, "layer", (0, 1), convention="pytorch")': 'Argument "convention" to "trace" has incompatible type',
    'normcli.axes("al", (2, 3))': 'Argument 1 to "axes" has incompatible type',
    'normcli.axes("batch", (2, 3), eps=1e-3)': 'Unexpected keyword argument "eps" for "axes"',
    'normcli.testing.assert_normalized(x, x, "grp")': 'Argument 3 to "assert_normalized" has incompatible type',
    "normcli.normalise": 'Module has no attribute "normalise"',
}  # fmt: skip
RIGHT = """\
import numpy as np
import normcli

x = np.ones((2, 6, 3))
made: normcli.Result = normcli.normalize(x, "group", groups=3, weight=[1.0] * 6, eps=1e-6, dtype="float32")
words: str = str(normcli.check(x, "layer", "[[1.0]]", decimals=4))
rows = normcli.normalize([x, x[:1]], "batch", ranks=True).by_rank()
scaled = normcli.normalize(x, "zscore", convention="pandas")
steps = normcli.trace(x, "batch", (0, 1, 2), momentum=None).steps
causes = normcli.versus(x, "batch", "keras", running_ddof=0).causes
drawing: str = normcli.axes("all", (2, 6, 3), groups=3).svg()
normcli.testing.assert_normalized({"output": x}, x, "rms", ulp=2)
"""


def test_a_type_checker_finds_what_is_misspelt_and_nothing_else(tmp_path: Path, environment: dict[str, str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(RIGHT + "".join(f"{line}\n" for line in MISSPELT))
    # By the project's own settings, so that what mypy has found out about the package need not be found out again.
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program)]
    done = subprocess.run(command, cwd=ROOT, env=environment | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    first = len(RIGHT.splitlines()) + 1
    assert [int(line.split(":")[1]) for line in found] == [*range(first, first + len(MISSPELT))]
    assert [message for message, line in zip(MISSPELT.values(), found, strict=True) if message not in line] == []


# --- in words -------------------------------------------------------------------------------------


def test_a_result_is_short_and_prints_as_the_command_line_does() -> None:
    result = normcli.normalize(X, "layer")
    assert repr(result) == "<LayerNorm of (2, 3) float64: mean, var, var_unbiased, rstd, output>"
    assert str(result).startswith("LayerNorm  (2, 3) float64  mean over axis 1, n = 3")
    assert str(result).endswith("1  -1.2247   1.2247  0.0000")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_result_of_tensors_says_where_it_was_computed(dtype: torch.dtype) -> None:
    result = normcli.normalize(torch.tensor(X, dtype=dtype), "batch", backend="torch", grad_output="ones")
    name = str(dtype).removeprefix("torch.")
    assert repr(result).startswith(f"<BatchNorm, train, of (2, 3) {name} on cpu by torch: mean, var, rstd, ")
    assert "running_var, grad_input, grad_weight, grad_bias>" in repr(result)
    assert "torch on cpu" in str(result)


def test_a_check_prints_the_verdict_and_the_slip() -> None:
    found = normcli.check([[1, 2, 4]], "layer", [[-0.8729, -0.2182, 1.0911]])
    assert (found.ok, found.keys) == (False, [("ddof1",)])
    assert str(found).startswith("does not check: 3 of 3 cells differ, the largest by 0.2452 (allowed: 0.00005)\n")
    assert str(found).endswith("LayerNorm normalizes with the biased one, sum(centered^2) / n.   [ddof1]")


CHECKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "text as it was printed": ("tensor([[-1.0690, -0.2673,  1.3363]])", {}),
    "numbers with their digits": ([[-1.069, -0.2673, 1.3363]], {}),
    "an array": (np.float32([[-1.0690413, -0.26726034, 1.3363017]]), {}),
    "a torch tensor": (torch.nn.functional.layer_norm(torch.tensor([[1.0, 2, 4]]), (3,)), {}),
    "numbers of NumPy in a list": ([[np.float64(-1.069), np.float64(-0.2673), np.float64(1.3363)]], {}),
    "several quantities": ({"mean": [2.3333], "var": [1.5556]}, {}),
    "fewer decimals than are written": ([[-1.07, -0.27, 1.3401]], {"decimals": 2}),
    "a gradient": ({"dx": [[0.0, 0.0, 0.0]], "dbeta": [1.0, 1, 1]}, {"grad_output": "ones"}),
    "another gradient": ({"dbias": [1.0, 0.5, 2]}, {"grad_output": [[1.0, 0.5, 2]]}),
    "parameters": ([[-2.1381, 0.7327, 5.0089]], {"gamma": [2, 1, 3.0], "beta": [0, 1, 1]}),
}


@pytest.mark.parametrize(("answer", "options"), CHECKED.values(), ids=list(CHECKED))
def test_an_answer_is_given_in_any_way(answer: Any, options: dict[str, Any]) -> None:
    found = normcli.check([[1, 2, 4]], "layer", answer, **options)
    assert found.ok, str(found)


def test_an_answer_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'foo' names no quantity; use mean,"):
        normcli.check(X, "layer", {"foo": [1]})


def test_a_comparison_prints_the_differences_and_their_causes() -> None:
    compared = normcli.versus(X, "batch", "keras")
    assert [key for key, _ in compared.causes] == ["eps", "momentum", "running_ddof"]
    assert repr(compared).endswith(" at most [eps] [momentum] [running_ddof]>")
    assert "Biased against unbiased running variance" in " ".join(str(compared).split())


def test_a_trace_prints_its_steps() -> None:
    traced = normcli.trace(X, "layer", (1, 0), eps=0)
    assert repr(traced) == "<Trace of element (1, 0): mean, centered, var, rstd, normalized, output>"
    assert "mean        sum(x) / n                  (3 + 5 + 4) / 3" in str(traced)
    assert [step.step for step in normcli.trace(X, "batch", steps="kratzert").steps][:2] == ["mu", "xmu"]
    assert normcli.trace(torch.tensor(X), "layer", (0, 0), backend="torch").steps[0].value == np.float32(7 / 3)


def test_axes_are_drawn() -> None:
    assert "N 0  A A B B" in repr(normcli.axes("all", (2, 4, 3), groups=2))
    assert normcli.axes("batch", (2, 4))._repr_mimebundle_()["image/svg+xml"].startswith("<svg ")
    assert [one["kind"] for one in normcli.axes("group", (2, 4), groups=2).documents] == ["group"]
    with pytest.raises(ValueError, match="4 channels cannot be split into 3 groups"):
        normcli.axes("group", (2, 4), groups=3)


# --- in a notebook --------------------------------------------------------------------------------


def test_a_notebook_gets_words_a_page_and_formulas() -> None:
    bundle = normcli.normalize(X, "layer")._repr_mimebundle_()
    assert list(bundle) == ["text/plain", "text/html", "text/latex"]
    assert bundle["text/plain"] == "<LayerNorm of (2, 3) float64: mean, var, var_unbiased, rstd, output>"
    assert r"&= \frac{\sum x}{n} = \frac{1 + 2 + 4}{3} \approx 2.3333" in bundle["text/latex"]


def test_other_pages_that_ask_for_one_thing_get_it() -> None:
    result = normcli.normalize(X, "layer")
    assert result._repr_html_() == result._repr_mimebundle_()["text/html"]
    assert result._repr_latex_() == result._repr_mimebundle_()["text/latex"]
    assert normcli.normalize(np.ones((300, 300)), "layer")._repr_latex_() is None
    assert r"\mu" in normcli.trace(X, "layer")._repr_mimebundle_()["text/latex"]


def test_what_a_notebook_gets_needs_no_network_and_no_library() -> None:
    page = normcli.normalize(X, "layer")._repr_mimebundle_()["text/html"]
    assert "attachShadow" in page
    found = [
        word
        for word in ("http://", "https://", "require(", "import(", "window.", "globalThis", ' id="')
        if word in page
    ]
    assert found == []


def test_an_input_that_was_written_over_has_no_trace() -> None:
    x = np.array(X)
    result = normcli.normalize(x, "layer")
    assert "text/latex" in result._repr_mimebundle_()
    x[0, 0] = 7
    assert list(result._repr_mimebundle_()) == ["text/plain", "text/html"]
    into = np.array(X)
    assert "text/latex" not in normcli.normalize(into, "layer", out=into)._repr_mimebundle_()


def test_a_large_input_is_not_kept() -> None:
    result = normcli.normalize(np.ones((300, 300)), "layer")
    assert result.x is None
    assert list(result._repr_mimebundle_()) == ["text/plain", "text/html"]


def test_a_notebook_shows_a_result_as_its_grid_twice_on_one_page() -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(f"import normcli\nresult = normcli.normalize({X}, 'layer')\nresult"),
        nbformat.v4.new_code_cell("result"),
        nbformat.v4.new_code_cell("normcli.check([[1, 2, 4]], 'layer', [[-0.8729, -0.2182, 1.0911]])"),
        nbformat.v4.new_code_cell("normcli.axes('batch', (2, 3))"),
    ]
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    first, second, check, axes = (cell.outputs[0].data for cell in notebook.cells)
    assert sorted(first) == ["text/html", "text/latex", "text/plain"]
    assert first == second
    assert first["text/html"].count('class="normcli-fragment"') == 1
    assert check["text/plain"].startswith("does not check: 3 of 3 cells differ")
    assert sorted(axes) == ["image/svg+xml", "text/plain"]
