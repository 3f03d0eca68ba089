"""The formats of one result side by side, and that each can be used for what it is there for."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Run
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import normcli as package
from normcli.formula import tex
from normcli.formula.language import Call, Number
from normcli.formula.spelled import TERMS, Text
from normcli.showing.formats import pieces
from normcli.showing.report import Detail, Report, Rows
from normcli.showing.sections import sections

BN1D = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
PAIR = "[[1, 3], [2, 6]]"

FORMATS = {
    "markdown": r"""
LayerNorm; (2, 2) float64; mean over axis 1, n = 2; eps 0; torch convention; numpy on cpu

**statistics (of the input)**

| row | mean | var | var\_unbiased | rstd |
| --: | --: | --: | --: | --: |
| 0 | 2.0000 | 1.0000 | 2.0000 | 1.0000 |
| 1 | 4.0000 | 4.0000 | 8.0000 | 0.5000 |

**output**

|  | 0 | 1 |
| --: | --: | --: |
| 0 | -1.0000 | 1.0000 |
| 1 | -1.0000 | 1.0000 |
""",
    "latex": r"""
% needs \usepackage{amsmath}
\noindent LayerNorm; (2, 2) float64; mean over axis 1, n = 2; eps 0; torch convention; numpy on cpu\par\medskip
\noindent statistics (of the input)\par\nobreak\smallskip
{\noindent
\begin{tabular}{rrrrr}
  row & mean & var & var\_unbiased & rstd \\
  \hline\rule{0pt}{2.6ex}%
  $0$ & $2.0000$ & $1.0000$ & $2.0000$ & $1.0000$ \\
  $1$ & $4.0000$ & $4.0000$ & $8.0000$ & $0.5000$ \\
\end{tabular}\par}\medskip
\noindent output
\[
\left[\begin{array}{rr}
  -1.0000 & 1.0000 \\
  -1.0000 & 1.0000
\end{array}\right]
\]
""",
    "csv": """
quantity,i0,i1,value
mean,0,,2.0
mean,1,,4.0
var,0,,1.0
var,1,,4.0
var_unbiased,0,,2.0
var_unbiased,1,,8.0
rstd,0,,1.0
rstd,1,,0.5
output,0,0,-1.0
output,0,1,1.0
output,1,0,-1.0
output,1,1,1.0
""",
    "python": """
# LayerNorm; (2, 2) float64; mean over axis 1, n = 2; eps 0; torch convention; numpy on cpu
import numpy as np

x = np.array([[1.0, 3.0], [2.0, 6.0]])
eps = 0.0

mean = x.mean(axis=(1,), keepdims=True)
centered = x - mean
var = (centered**2).mean(axis=(1,), keepdims=True)
rstd = np.divide(1, root := np.sqrt(var + eps), out=np.zeros_like(root), where=root != 0)
normalized = centered * rstd
output = normalized
print(output)
""",
}
CALCULATIONS = {
    "batch": ["batch", BN1D, "--weight", "[1,2,3,4]", "--bias", "[0,-1,1,0.5]"],
    "batch eval": ["batch", BN1D, "--mode", "eval", "--running-mean", "[1,2,3,4]", "--running-var", "[1,2,3,4]"],
    "batch ddof": ["batch", BN1D, "--ddof", "1", "--running-ddof", "0"],
    "instance": ["instance", "[[[1,2,4],[3,-4,1]],[[5,1,0],[1,1,2]]]", "--track-running-stats", "--momentum", "none"],
    "layer": ["layer", BN1D],
    "layer axes": ["layer", "[[[1,2],[4,1]],[[6,3],[2,4]]]", "--normalized-shape", "2,2"],
    "group": ["group", BN1D, "--groups", "2"],
    "group channels last": ["group", "[[[1,2,4,1],[6,3,2,4]]]", "--groups", "2", "--channel-axis", "-1"],
    "rms": ["rms", "[[1e-5,-3,400000]]"],
}
ELEMENT = {"batch": "1,0", "batch eval": "2,3", "batch ddof": "0,1", "instance": "0,1,2", "layer": "0,3",
           "layer axes": "0,1,1", "group": "2,2", "group channels last": "0,1,3", "rms": "0,1"}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_one_result_in_every_format(normcli: Run, name: str) -> None:
    done = normcli("layer", PAIR, "--eps", "0", "--format", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == FORMATS[name].removeprefix("\n")


def test_the_trace_as_markdown(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--element", "1,0", "--only", "trace", "--format", "markdown")
    assert done.stdout.startswith(
        "**trace of element (1, 0)**\n\n"
        "| step | formula | with the numbers | value |\n"
        "| :-- | :-- | :-- | --: |\n"
        "| mean | `sum(x) / n` | `(1 + 6 + 2) / 3` | 3.0000 |\n"
    )


def test_the_trace_as_csv(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--element", "1,0", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["step"] for row in rows][:3] == ["mean", "centered", "var"]
    assert rows[2] == {
        "step": "var",
        "formula": "sum(centered^2) / n",
        "substituted": "((-2)^2 + 3^2 + (-1)^2) / 3",
        "value": "4.666666666666667",
    }


def test_the_trace_as_latex(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--element", "1,0", "--only", "trace", "--format", "latex")
    assert (
        r"""
\sigma^2
  &= \frac{\sum d^{2}}{n} = \frac{(-2)^{2} + 3^{2} + (-1)^{2}}{3} \approx 4.6667 \\[1ex]
"""
        in done.stdout
    )


def test_a_list_of_numbers_is_a_side_of_its_own_in_latex(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--only", "trace", "--format", "latex")
    assert (
        r"""
d
  &= x - \mu \\
  &= 1 - 3,\; 6 - 3,\; 2 - 3 \\
  &= -2.0000,\; 3.0000,\; -1.0000 \\[1ex]
"""
        in done.stdout
    )


def test_output_alone_as_csv_is_a_matrix_that_is_read_back(normcli: Run) -> None:
    matrix = normcli("layer", BN1D, "--only", "output", "--format", "csv").stdout
    again = json.loads(normcli("rms", "-", "--json", stdin=matrix).stdout)
    first = json.loads(normcli("layer", BN1D, "--json").stdout)
    direct = json.loads(normcli("rms", json.dumps(first["output"]), "--json").stdout)
    assert again["output"] == direct["output"]


def test_statistics_alone_as_csv_have_a_row_for_each_group(normcli: Run) -> None:
    done = normcli("instance", "[[[1,3],[2,6]]]", "--eps", "0", "--only", "statistics", "--format", "csv")
    assert done.stdout == "i0,i1,mean,var,var_unbiased,rstd\n0,0,2.0,1.0,2.0,1.0\n0,1,4.0,4.0,8.0,0.5\n"


def test_csv_writes_what_is_no_number_as_json_does(normcli: Run) -> None:
    done = normcli("layer", "[[1, NaN], [1, 2]]", "--only", "output", "--format", "csv")
    assert done.stdout.splitlines()[0] == "NaN,NaN"


def test_a_checked_answer_in_markdown(normcli: Run) -> None:
    done = normcli("layer", PAIR, "--expect", "[[-1, 1], [-0.5, 1]]", "--eps", "0", "--format", "markdown")
    assert done.returncode == 1
    assert done.stdout.startswith("LayerNorm; (2, 2) float64")
    assert "does not check: 1 of 4 cells differ" in done.stdout
    assert "| output (1, 0) | -0.5 | -1.000 |" in done.stdout


@pytest.mark.parametrize("case", CALCULATIONS)
def test_the_script_gives_the_same_numbers(normcli: Run, case: str, tmp_path: Path) -> None:
    arguments = CALCULATIONS[case]
    script = normcli(*arguments, "--format", "python").stdout
    expected = json.loads(normcli(*arguments, "--json").stdout)
    found: dict[str, Any] = {}
    state = "new_running" if "new_running" in script else "running"
    (tmp_path / "script.py").write_text(script + "import json\nprint(json.dumps([output.tolist(), *(v.tolist() for "
        f"n, v in sorted(globals().items()) if n.startswith('{state}'))]))\n")  # fmt: skip
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found[0], expected["output"], rtol=1e-9, atol=1e-12)
    if len(found) > 1:
        np.testing.assert_allclose(found[1:], [expected["running"]["mean"], expected["running"]["var"]], rtol=1e-12)


@pytest.mark.parametrize("options", [["--expect", PAIR], ["--versus", "torch"], ["--only", "statistics"]])
def test_a_script_is_the_calculation_alone(normcli: Run, options: list[str]) -> None:
    done = normcli("layer", PAIR, *options, "--format", "python")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --format python writes the calculation alone\n")


def test_a_script_of_a_constant_group_divides_by_nothing(normcli: Run) -> None:
    script = normcli("layer", "[[1, 1], [1, 2]]", "--eps", "0", "--format", "python").stdout
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[ 0.  0.]\n [-1.  1.]]\n"


def test_several_inputs_make_one_table_of_csv(normcli: Run) -> None:
    done = normcli("batch", "[[1],[3]]", "[[3],[7]]", "--eps", "0", "--only", "output", "--format", "csv")
    assert (
        done.stdout
        == """\
input,quantity,i0,i1,value
0,output,0,0,-1.0
0,output,1,0,1.0
1,output,0,0,-1.0
1,output,1,0,1.0
"""
    )


def test_a_checked_answer_as_csv_has_every_cell(normcli: Run) -> None:
    done = normcli("layer", PAIR, "--expect", "[[-1, 1], [-0.5, 1]]", "--eps", "0", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    cells = [(row["index"], row["yours"], row["exact"], row["difference"], row["ok"]) for row in rows]
    assert cells == [
        ("0 0", "-1.0", "-1.0", "0.0", "true"),
        ("0 1", "1.0", "1.0", "0.0", "true"),
        ("1 0", "-0.5", "-1.0", "0.5", "false"),
        ("1 1", "1.0", "1.0", "0.0", "true"),
    ]


def test_a_comparison_as_csv_has_a_row_for_each_quantity(normcli: Run) -> None:
    done = normcli("batch", BN1D, "--versus", "keras", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["quantity"] for row in rows] == ["output", "running_mean", "running_var"]
    assert (rows[2]["versus"], rows[2]["at"], rows[2]["reference"]) == ("keras", "0", "1.6")


def test_full_writes_out_every_term_of_a_trace(normcli: Run) -> None:
    x = "[[1,2,3,4,5,6,7,8,9,10]]"
    assert "1 + 2 + 3 + ... + 8 + 9 + 10" in normcli("layer", x, "--trace", "--format", "csv").stdout
    assert (
        "1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10" in normcli("layer", x, "--trace", "--full", "--format", "csv").stdout
    )


def test_a_near_miss_of_a_format_is_named(normcli: Run) -> None:
    done = normcli("layer", PAIR, "--format", "markdwon")
    assert done.stderr.splitlines()[1] == "hint: did you mean markdown?"


def test_a_long_tensor_is_no_script(normcli: Run) -> None:
    done = normcli("layer", "-", "--format", "python", stdin=json.dumps([[1.5] * 2001]))
    assert done.returncode == 2
    assert done.stderr.startswith("error: a script spells every number out, and the 2001 of x are too many")


def test_an_unknown_format_is_refused(normcli: Run) -> None:
    done = normcli("layer", PAIR, "--format", "html")
    assert done.returncode == 2
    assert (
        done.stderr == "error: --format is 'html'; use table, json, markdown, latex, csv, python, torch, jax or keras\n"
    )


@pytest.mark.parametrize("name", ["table", "markdown", "latex"])
def test_full_shows_every_element(normcli: Run, name: str) -> None:
    x = json.dumps((np.arange(1100.0) ** 1.5).reshape(11, 100).tolist())
    edges, full = (normcli("layer", "-", "--only", "output", "--format", name, *more, stdin=x).stdout
                   for more in ([], ["--full"]))  # fmt: skip
    assert "edges of 11 x 100 shown, 1064 of 1100 elements left out (see -" in edges
    assert "edges" not in full
    number = r"-?[0-9]+[.][0-9]{4}\b"
    assert len(re.findall(number, edges)) == 36
    assert len(re.findall(number, full)) == 1100


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_latex_snippet_compiles(normcli: Run, tmp_path: Path) -> None:
    snippets = [normcli(*arguments, *more, "--format", "latex").stdout
                for case, arguments in CALCULATIONS.items()
                for more in ([], ["--trace"], ["--element", ELEMENT[case]])]  # fmt: skip
    long = json.dumps([[i * 1.37 - 20 for i in range(300)], [1e9, float("nan")] * 150])
    more = [[], ["--trace"], ["--full"], ["--element", "0,299"], ["--precision", "17"]]
    snippets += [normcli("layer", "-", *options, "--format", "latex", stdin=long).stdout for options in more]
    snippets.append(normcli("layer", PAIR, "--expect", "[[1, 1], [0, 2]]", "--format", "latex").stdout)
    snippets.append(normcli("batch", BN1D, "--versus", "keras", "--format", "latex").stdout)
    head = "\\documentclass{article}\\usepackage{amsmath}\\begin{document}\n"
    (tmp_path / "page.tex").write_text(head + "\n\\newpage\n".join(snippets) + "\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"], cwd=tmp_path, capture_output=True
    )
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull" not in log


@pytest.mark.parametrize("case", CALCULATIONS)
def test_latex_is_balanced(normcli: Run, case: str) -> None:
    text = normcli(*CALCULATIONS[case], "--element", ELEMENT[case], "--format", "latex").stdout
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.isascii()


def test_a_long_sum_is_written_once(normcli: Run) -> None:
    """A sum that needs the long form and still fits one line stood there twice."""
    done = normcli("layer", "[[5.1,3.5,1.4,0.2]]", "--element", "0,2", "--format", "latex")
    assert r"= \tfrac{1}{4} \bigl( 2.5500^{2} + 0.9500^{2} + (-1.1500)^{2} + (-2.3500)^{2} \bigr) \\" in done.stdout
    assert done.stdout.count("0.9500^{2}") == 1


@pytest.mark.parametrize("count", range(3, 40))
def test_no_term_of_a_sum_is_lost_or_doubled(count: int) -> None:
    terms = [f"{i}.25" for i in range(count)]
    total = Call(TERMS, tuple(map(Text, terms)))
    written = " ".join(tex.lines(Call("/", (total, Number(count)))))
    assert [word for word in written.replace("{", " ").replace("}", " ").split() if ".25" in word] == terms


def test_large_tables_are_written_row_by_row() -> None:
    result = package.normalize(np.arange(60_000.0).reshape(300, 200), "layer")
    _, output = sections(Report(result=result), Detail(full=True))
    assert isinstance(output.rows, Rows)
    lines = "".join(pieces("markdown", Report(sections=(output,)), Detail())).splitlines()
    assert len(lines) == 300 + len(["title", "", "heads", "rule"])
    assert all(line.count("|") == 202 for line in lines[2:])


@given(arrays.arrays(np.float64, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e300, 1e300)))
def test_csv_loses_no_digit(x: np.ndarray[Any, Any]) -> None:
    result = package.normalize(x, "layer")
    text = "".join(pieces("csv", Report(result=result), Detail(only="output")))
    found = np.array([[float(cell) for cell in row] for row in csv.reader(io.StringIO(text))])
    np.testing.assert_array_equal(found, result.output)


def test_a_script_names_what_is_no_number() -> None:
    x = [[1.0, np.nan, -np.inf]]
    script = pieces("python", Report(result=package.normalize(x, "layer"), x=x), Detail())
    assert "x = np.array([[1.0, np.nan, -np.inf]])" in "".join(script)


@pytest.mark.parametrize("name", ["markdown", "latex", "csv", "python"])
def test_formats_need_no_rich(environment: dict[str, str], name: str) -> None:
    code = (
        f"import sys\nsys.argv = ['normcli', 'batch', '{BN1D}', '--format', '{name}', '--trace']\n"
        "import atexit\natexit.register(lambda: print('rich' in sys.modules, file=sys.stderr))\n"
        "from normcli.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "False\n"
