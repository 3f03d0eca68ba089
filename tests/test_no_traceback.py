"""No command line whatever ends in a traceback: every run ends in 0, 1, 2 or 3, and never in "a bug"."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from normcli.__main__ import protected
from normcli.cli import app
from normcli.options import CALCULATION, PRESENTATION, mark, switch
from normcli.plan import KINDS, flag

EXAMPLES = Path(__file__).parent.parent / "examples"
TENSORS = [
    "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]", "[1,2,3,4]", "[[[1,2],[3,5]],[[0,1],[7,2]]]", "[[1,2,4,1]]", "7", "-1", "[]",
    "[[]]", "[1,[2]]", "[NaN,1]", "[[Infinity,1],[2,3]]", "[1e308,-1e308]", "[1e-320,0]", "[1,2", "null", "{}",
    '{"data": [1,2]}', "tensor([1., 2.])", "array([[1., 2.], [3., 5.]], dtype=float16)", "missing.npy", "", " ", "-",
    "[true]", '["a"]', "1,2\n3,4", "/dev/null", ".", "[/x]", "\x00", "\ud800", "é", "[1e400]",
]  # fmt: skip
JUNK = ["0", "-1", "nan", "inf", "-inf", "1e400", "none", "x", "", "1_0", "0,1", "numpy::float32", "[1,2"]
GOOD = {
    "eps": ["0", "1e-5", "1"],
    "dtype": ["float16", "bfloat16", "float32", "float64"],
    "mode": ["eval", "train"],
    "momentum": ["0.1", "none", "1"],
    "decay": ["0.9"],
    "ddof": ["0", "1"],
    "running_ddof": ["0", "1"],
    "convention": ["torch", "keras", "flax", "onnx", "mlx", "d2l"],
    "groups": ["1", "2", "4"],
    "normalized_shape": ["4", "2", "3,4", "2,2"],
    "channel_axis": ["1", "-1", "0"],
    "weight": ["[1,2,4,1]", "[1,2]"],
    "bias": ["[1,2,4,1]", "[NaN,2]"],
    "running_mean": ["[1,2,4,1]"],
    "running_var": ["[1,2,0,-1]", "[1,2]"],
    "num_batches_tracked": ["3"],
    "element": ["0,0", "1,0", "0,0,1"],
    "format": ["table", "json", "markdown", "latex", "csv", "python"],
    "only": ["output", "statistics", "running", "trace"],
    "precision": ["0", "17", "2"],
    "backend": ["numpy"],
    "output": ["/dev/null"],
    "state": [f"{EXAMPLES}/state.json", f"{EXAMPLES}/model.safetensors"],
    "prefix": ["bn1", "layer1.0.bn1", "norm"],
}
WRITES = {"save_state", "svg"}  # would leave a file behind


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    kind = draw(st.sampled_from(list(KINDS)))
    rows = [row for row in CALCULATION if row.name in KINDS[kind].options]
    rows += [row for row in PRESENTATION if row.name not in WRITES]
    arguments = [kind, *draw(st.lists(st.sampled_from(TENSORS), min_size=1, max_size=2))]
    for row in draw(st.lists(st.sampled_from(rows), max_size=4, unique_by=lambda row: row.name)):
        arguments.append(flag(row.name))
        if row.read not in (mark, switch):
            arguments.append(draw(st.sampled_from([*GOOD.get(row.name, []) * 3, *JUNK])))
    return arguments


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(command_lines())
def test_every_command_line_ends_in_words(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, protected(arguments), input="[[1,2],[3,5]]")
    assert "a bug" not in done.stderr, done.stderr
    assert done.exit_code in (0, 1, 2, 3)
