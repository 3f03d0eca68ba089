"""The page of --html, in a real browser: what it shows, reaches, asks for and works out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from normcli.calculate import normalize
from normcli.showing import html
from normcli.showing.report import Detail, Report
from normcli.teaching.trace import trace

X = "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
Open = Callable[..., Any]


# --- the browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("there is no chromium to open pages with")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page; it fails the test if it asks for anything but itself, or if its script fails."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def show(text: str, *, at: str = "", **options: Any) -> Any:
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(text, encoding="utf-8")
        usual = {"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce"}
        context = chromium.new_context(**(usual | options))
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: None if request.url.startswith(file.as_uri()) else wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("dialog", lambda dialog: wrong.append("a dialog"))
        page.goto(file.as_uri() + at)
        return page

    yield show
    for context in contexts:
        context.close()
    assert not wrong


def made(kind: str, x: Any, *, precision: int = 4, element: Any = None, **options: Any) -> str:
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    result = normalize(x, kind, steps=True, **options)
    return html.page([Report(result=result, x=x)], Detail(precision=precision, element=element))


def seeded(*shape: int, dtype: str = "float64") -> Any:
    return (np.random.default_rng(7).normal(size=shape) * 3 + 1).round(3).astype(dtype)


def point_at(page: Any, number: int) -> None:
    """Move the pointer over an output cell; playwright's own hover waits for more than there is to wait for."""
    middle = page.evaluate(f"""() => {{
        const cell = document.querySelector(".output td[data-i='{number}']");
        cell.scrollIntoView({{ block: "nearest" }});
        const box = cell.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }}""")
    page.mouse.move(*middle)


PARTS = "[...document.querySelectorAll('.trace li')].map(li => [...li.children].map(part => part.textContent))"


def shown_trace(page: Any) -> list[list[str]]:
    """The trace as the page has it: the text of each step's parts."""
    found: list[list[str]] = page.evaluate(PARTS)
    return found


def traces_by_focus(page: Any) -> list[list[list[str]]]:
    """The same for each cell of the output, as the focus comes to it."""
    found: list[list[list[str]]] = (
        page.evaluate(f"""[...document.querySelectorAll(".output td[data-i]")].map((cell) => {{
        cell.tabIndex = -1;
        cell.focus();
        return {PARTS};
    }})""")
    )
    return found


CASES = {
    "batch": ("batch", seeded(3, 4), {}),
    "batch_gradient": (
        "batch", seeded(3, 2, 2),
        {"grad_output": seeded(3, 2, 2)[::-1], "weight": np.array([1.5, -2]), "bias": np.array([0.25, 0])},
    ),
    "eval": ("batch", seeded(3, 4), {"mode": "eval", "running_mean": np.arange(4.0), "running_var": np.full(4, 2.0)}),
    "unbiased": ("batch", seeded(3, 4), {"ddof": 1}),
    "instance_running": ("instance", seeded(2, 2, 3), {"track_running_stats": True}),
    "layer_gradient": ("layer", seeded(3, 4), {"grad_output": seeded(3, 4)[::-1], "weight": np.arange(1.0, 5)}),
    "group": ("group", seeded(2, 4, 1, 2), {"groups": 2}),
    "group_interleaved": ("group", seeded(1, 4, 2), {"groups": 2, "convention": "mlx", "channel_axis": 1}),
    "rms_half": ("rms", seeded(3, 4, dtype="float16"), {"weight": np.arange(1.0, 5).astype("float16")}),
    "cast_before": ("rms", seeded(2, 3, dtype="float16"), {"weight": seeded(3, dtype="float16"), "cast": "before"}),
    "weight_offset": ("layer", seeded(2, 3), {"weight": np.arange(3.0), "weight_offset": 1}),
    "weight_each": ("layer", seeded(2, 3), {"weight": np.arange(6.0).reshape(2, 3)}),
    "one_row": ("layer", seeded(5), {}),
    "constant": ("layer", [[0.1, 0.1, 0.1]], {"eps": 0}),
    "not_finite": ("layer", [[1, np.inf, 2], [np.nan, 1, 2], [4, 5, 7]], {}),
}  # fmt: skip
cases = pytest.mark.parametrize(("kind", "x", "options"), CASES.values(), ids=CASES)


# --- what it shows --------------------------------------------------------------------------------


@cases
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_pointer_and_keyboard_reach_the_trace_of_the_terminal(
    kind: str, x: Any, options: dict[str, Any], show: Open
) -> None:
    page, x = show(made(kind, x, **options)), np.asarray(x)
    result = normalize(x, kind, steps=True, **options)
    wide = x.astype(np.float64) if x.dtype.kind != "f" else x
    expected = [
        [[s.step, s.formula, s.substituted, html.grids.value(s.value, 4)] for s in trace(result, wide, place).steps]
        for place in np.ndindex(x.shape)
    ]
    assert traces_by_focus(page) == expected
    for number in (0, x.size // 2, x.size - 1):
        page.mouse.move(0, 0)
        point_at(page, number)
        assert shown_trace(page) == expected[number]
        place = np.unravel_index(number, x.shape)
        assert page.inner_text(".trace h2") == f"trace of element ({', '.join(map(str, place))})"


@cases
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_embedded_numbers_are_the_result_s(kind: str, x: Any, options: dict[str, Any]) -> None:
    text = made(kind, x, **options)
    data = json.loads(re.findall(r'<script type="application/json" class="data">(.*?)</script>', text)[0])
    result = normalize(np.asarray(x), kind, **options)
    np.testing.assert_array_equal(np.array(data["tensors"]["output"], float), np.ravel(result.output).astype(float))
    np.testing.assert_array_equal(np.array(data["tensors"]["x"], float), np.ravel(x).astype(float))


def test_page_s_numbers_are_those_of_json(normcli: Run, tmp_path: Path, show: Open) -> None:
    done = normcli("batch", X, "--json", "--html", "page.html")
    output = json.loads(done.stdout)["output"]
    page = show((tmp_path / "page.html").read_text())
    shown = page.eval_on_selector_all(".output td[data-i]", "cells => cells.map(cell => cell.textContent)")
    assert shown == [f"{value:.4f}" for row in output for value in row]
    data = json.loads(page.text_content(".data"))
    assert data["tensors"]["output"] == [value for row in output for value in row]


def test_the_group_lights_up_and_the_picture_with_it(show: Open) -> None:
    page = show(made("batch", json.loads(X)))
    page.hover(".output td[data-i='6']")
    lit = "items => items.map(item => Number(item.dataset.i))"
    assert page.eval_on_selector_all(".input td.lit", lit) == [2, 6, 10]
    assert set(page.eval_on_selector_all("polygon.lit", lit)) == {2, 6, 10}


@pytest.mark.parametrize(
    ("case", "step", "term", "cell"), [("batch", 0, 2, 8), ("layer_gradient", 2, 1, 1), ("layer_gradient", -2, 2, 8)]
)
def test_a_term_of_a_sum_marks_its_cell(case: str, step: int, term: int, cell: int, show: Open) -> None:
    kind, x, options = CASES[case]
    page = show(made(kind, x, **options))
    page.locator(".trace li").nth(step).locator(".term").nth(term).hover()
    assert page.eval_on_selector_all(".input .marked", "cells => cells.map(cell => Number(cell.dataset.i))") == [cell]


def test_terms_after_those_left_out_are_counted_from_the_end(show: Open) -> None:
    page = show(made("layer", np.arange(1002.0)))
    page.locator(".trace li").first.locator(".term").last.hover()
    assert page.eval_on_selector_all(".input .marked", "cells => cells.map(cell => cell.dataset.i)") == ["1001"]


def test_a_pinned_cell_is_in_the_address(show: Open) -> None:
    text = made("batch", json.loads(X))
    page = show(text)
    page.click(".output td[data-i='4']")
    assert page.url.endswith("#1,0")
    page.hover(".output td[data-i='0']")
    page.hover("h1")
    assert page.inner_text(".trace h2") == "trace of element (1, 0)"
    page.focus(".output td[data-i='4']")
    page.keyboard.press("Escape")
    assert "#" not in page.url
    assert show(text, at="#2,3").inner_text(".trace h2") == "trace of element (2, 3)"
    assert show(text, at="#7,3").inner_text(".trace h2") == "trace of element (0, 0)"


def test_the_grid_has_one_tab_stop_and_arrows(show: Open) -> None:
    page = show(made("batch", json.loads(X)))
    where = "document.activeElement.dataset.i"
    assert page.locator(".output [tabindex='0']").count() == 1
    page.focus(".output td[tabindex='0']")
    seen = []
    for key in (
        "ArrowRight",
        "ArrowDown",
        "ArrowLeft",
        "ArrowUp",
        "End",
        "Control+End",
        "Home",
        "Control+Home",
        "ArrowUp",
    ):
        page.keyboard.press(key)
        seen.append(page.evaluate(where))
    assert seen == ["1", "5", "4", "0", "3", "11", "8", "0", "0"]
    assert page.locator(".output [tabindex='0']").count() == 1


def test_large_tensors_are_shown_by_their_edges(show: Open) -> None:
    x = seeded(80, 90)
    page = show(made("layer", x, element=(7, 8)))
    assert page.locator(".output td[data-i]").count() == 7 * 7
    assert "6751" not in page.inner_text(".said") and "left out" in page.inner_text(".said")
    point_at(page, 79 * 90 + 89)
    result = normalize(x, "layer", steps=True)
    assert [row[2] for row in shown_trace(page)] == [s.substituted for s in trace(result, x, (79, 89)).steps]
    assert page.locator(".whatif").count() == 0


# --- what if --------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
    "eps": ({"eps": "0.5"}, "batch", {"eps": 0.5}),
    "divisor": ({"divide by": "n - 1"}, "batch", {"ddof": 1}),
    "mode": ({"mode": "eval"}, "batch", {"mode": "eval"}),
    "layer": ({"kind": "LayerNorm"}, "layer", {}),
    "layer_unbiased": ({"kind": "LayerNorm", "divide by": "n - 1"}, "layer", {"ddof": 1}),
    "instance": ({"kind": "InstanceNorm"}, "instance", {"channel_axis": 1}),
    "group": ({"kind": "GroupNorm, 2 groups"}, "group", {"groups": 2}),
    "rms": ({"kind": "RMSNorm"}, "rms", {}),
}  # fmt: skip


def change(page: Any, name: str, value: str) -> None:
    control = page.locator(".whatif label", has_text=name).locator("input, select")
    if control.evaluate("control => control.tagName") == "SELECT":
        control.select_option(value)
    else:
        control.fill(value)


def shown_numbers(page: Any, table: str) -> list[float]:
    return [
        float(text)
        for text in page.eval_on_selector_all(f".{table} td[data-i]", "cells => cells.map(cell => cell.textContent)")
    ]


@pytest.mark.parametrize(("changes", "kind", "options"), CHANGES.values(), ids=CHANGES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_if_is_what_normcli_would_say(
    changes: dict[str, str], kind: str, options: dict[str, Any], show: Open
) -> None:
    x, flow = seeded(3, 4, 2), seeded(3, 4, 2)[::-1]
    page = show(made("batch", x, precision=10, grad_output=flow))
    before = page.inner_text(".output"), shown_trace(page)
    for name, value in changes.items():
        change(page, name, value)
    expected = normalize(x, kind, steps=True, grad_output=flow, **({"eps": 1e-5} | options))
    np.testing.assert_allclose(shown_numbers(page, "output"), expected.output.ravel(), atol=2e-10)
    np.testing.assert_allclose(shown_numbers(page, "grad_input"), expected.grad_input.ravel(), atol=2e-10)
    page.hover(".input td[data-i='13']")
    steps = trace(expected, x, (1, 2, 1), 10).steps
    rows = shown_trace(page)
    assert [(row[0], row[1]) for row in rows] == [(step.step, step.formula) for step in steps]
    np.testing.assert_allclose([float(row[3]) for row in rows], [step.value for step in steps], atol=2e-10)
    assert "double precision" in page.inner_text(".whatif .note")
    page.click("text=back to the exact numbers")
    page.hover(".input td[data-i='0']")
    assert (page.inner_text(".output"), shown_trace(page)) == before
    assert page.inner_text(".whatif .note") == ""


FREE: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "lp": ("lp", (3, 4), {"p": 3.0}),
    "zscore": ("zscore", (3, 4), {"ddof": 1}),
    "minmax": ("minmax", (3, 4), {}),
    "softmax": ("softmax", (3, 4), {}),
    "logsoftmax": ("logsoftmax", (3, 4), {}),
    "pixel": ("pixel", (2, 3, 2), {}),
    "frn": ("frn", (2, 3, 4), {"weight": np.array([1.5, -2, 3]), "tau": np.array([0.5, -1, 0.25])}),
    "grn": ("grn", (2, 3, 4), {"weight": np.array([1.5, -2, 3]), "bias": np.array([1.0, 2, 3])}),
    "weight": ("weight", (3, 4), {"weight": np.array([2.0, -1, 3])}),
    "weight_std": ("weight-std", (3, 4), {}),
    "spectral": ("spectral", (3, 4), {"iterations": 2}),
    "renorm": ("batch", (3, 4), {"renorm": True, "running_mean": np.arange(4.0), "running_var": np.full(4, 2.0)}),
    "virtual": ("batch", (4, 3), {"virtual_batch": 2}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "shape", "options"), FREE.values(), ids=FREE)
def test_what_if_works_out_every_kind_by_its_own_lines(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], show: Open
) -> None:
    x = seeded(*shape)
    page = show(made(kind, x, precision=10, **options))
    before = shown_trace(page)
    assert page.locator(".lit, .term").count() > 0
    change(page, "x (0, 0", "7.25")
    x.flat[0] = 7.25
    expected = normalize(x, kind, steps=True, **options)
    np.testing.assert_allclose(shown_numbers(page, "output"), expected.output.ravel(), atol=2e-10)
    steps = trace(expected, x, (0,) * x.ndim, 10).steps
    rows = shown_trace(page)
    assert [(row[0], row[1]) for row in rows] == [(step.step, step.formula) for step in steps]
    np.testing.assert_allclose([float(row[3]) for row in rows], [float(step.value) for step in steps], atol=2e-10)
    page.click("text=back to the exact numbers")
    assert shown_trace(page) == before


@pytest.mark.parametrize("case", ["lp", "softmax", "frn", "grn", "renorm"])
def test_what_if_fills_in_the_numbers_as_the_trace_does(case: str, show: Open) -> None:
    kind, shape, options = FREE[case]
    page = show(made(kind, seeded(*shape), **options))
    exact = [re.sub(r"~?[\d.]+", "#", row[2]) for row in shown_trace(page)]
    change(page, "x (0, 0", str(seeded(*shape).flat[0]))
    assert [re.sub(r"~?[\d.]+", "#", row[2]) for row in shown_trace(page)] == exact


@pytest.mark.parametrize(("kind", "fields"), [("softmax", ["x (0, 0)"]), ("lp", ["x (0, 0)", "eps"])])
def test_what_if_asks_only_for_what_a_kind_has(kind: str, fields: list[str], show: Open) -> None:
    page = show(made(kind, seeded(3, 4)))
    labels = page.eval_on_selector_all(
        ".whatif label:not([hidden]) span", "labels => labels.map(label => label.textContent)"
    )
    assert labels == fields


def test_every_kind_s_terms_mark_their_cells(show: Open) -> None:
    page = show(made("softmax", seeded(3, 4)))
    page.locator(".trace li").first.locator(".term").nth(2).hover()
    assert page.eval_on_selector_all(".input .marked", "cells => cells.map(cell => Number(cell.dataset.i))") == [2]


@pytest.mark.parametrize("case", ["weight_offset", "weight_each"])
def test_what_if_keeps_the_weight(case: str, show: Open) -> None:
    kind, x, options = CASES[case]
    page = show(made(kind, x, precision=10, **options))
    change(page, "eps", "0.5")
    np.testing.assert_allclose(
        shown_numbers(page, "output"), normalize(x, kind, eps=0.5, **options).output.ravel(), atol=2e-10
    )


def test_what_cannot_be_worked_out_is_not_asked(show: Open) -> None:
    kind, x, options = CASES["cast_before"]
    assert show(made(kind, x, **options)).locator(".whatif").count() == 0


def test_a_changed_number_moves_its_group(show: Open) -> None:
    page = show(made("batch", json.loads(X)))
    page.click(".input td[data-i='4']")
    change(page, "x (1, 0)", "9")
    changed = np.array(json.loads(X), float)
    changed[1, 0] = 9
    np.testing.assert_allclose(shown_numbers(page, "output"), normalize(changed, "batch").output.ravel(), atol=1e-4)
    assert shown_trace(page)[0][2] == "(1 + 9 + 2) / 3"
    assert page.inner_text(".input .changed") == "9"
    assert shown_trace(page)[6] == ["running_mean", "(1 - m) * old + m * mean", "0.9 * 0 + 0.1 * 4", "0.4000"]


def test_what_if_knows_that_a_constant_group_gives_zero(show: Open) -> None:
    page = show(made("layer", [[0.25, 0.25, 0.25], [1, 2, 4]]))
    change(page, "eps", "0")
    assert shown_numbers(page, "output")[:3] == [0, 0, 0]


# --- checks, comparisons, gradients ---------------------------------------------------------------


WRONG = "[[-0.7559,-1.0000,0.0000,-0.5773],[1.1339,0.0000,-1.0000,1.1547],[-0.3780,1.0000,1.0000,-0.5773]]"


@pytest.fixture(scope="session")
def checked(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a wrong answer."""
    file = tmp_path_factory.mktemp("checked") / "p.html"
    options = ("--mode", "eval", "--no-track-running-stats", "--expect", WRONG, "--html", str(file))
    subprocess.run([sys.executable, "-m", "normcli", "batch", X, *options], env=environment, capture_output=True)
    return file.read_text()


def test_a_check_hatches_the_wrong_cells_and_fills_both_lines(checked: str, show: Open) -> None:
    page = show(checked)
    assert page.locator(".output td.wrong").count() == 10
    assert page.inner_text(".output td[data-i='4']").split() == ["1.3887", "yours", "1.1339"]
    assert page.inner_text(".pair .slip dd").splitlines() == [
        "sum(centered^2) / (n - 1)", "= ((-2)^2 + 3^2 + (-1)^2) / (3 - 1)", "= 7.0000",
    ]  # fmt: skip
    assert page.inner_text(".pair .exact dd").splitlines()[1:] == ["= ((-2)^2 + 3^2 + (-1)^2) / 3", "= 4.6667"]
    page.hover(".output td[data-i='4']")
    assert page.inner_text(".cell-check") == "output: yours 1.1339, exact 1.388729"


def test_check_makes_one_page_of_all_files(normcli: Run, tmp_path: Path, show: Open) -> None:
    example = {
        "title": "<script>alert(1)</script> ]]> \"'&amp;",
        "kind": "layer",
        "input": [[1, 2, 4, 1]],
        "expect": {"mean": [2]},
    }
    name = "<b>'a\" ]]>.json"
    (tmp_path / name).write_text(json.dumps(example))
    (tmp_path / "none.json").write_text(json.dumps(example | {"title": "", "expect": {"mean": [3]}}))
    done = normcli("check", name, "none.json", "missing.json", "--html", "p.html")
    assert done.returncode == 2
    page = show((tmp_path / "p.html").read_text())
    assert page.eval_on_selector_all("h1", "heads => heads.map(head => head.textContent)") == [
        example["title"],
        "none.json",
        "missing.json",
    ]
    assert page.title() == f"{example['title']} - normcli"
    page.locator(".output").nth(1).locator("td[data-i='2']").click()
    assert page.url.endswith("#2:0,2")


def test_a_gradient_has_its_tab(show: Open) -> None:
    kind, x, options = CASES["layer_gradient"]
    page = show(made(kind, x, **options))
    assert not page.locator(".grad_input").is_visible()
    page.click("role=tab[name=backward]")
    assert page.locator(".grad_input").is_visible() and not page.locator(".output").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".output").is_visible()


def test_a_comparison_is_shown(normcli: Run, tmp_path: Path, show: Open) -> None:
    normcli("batch", X, "--versus", "keras", "--html", "p.html")
    page = show((tmp_path / "p.html").read_text())
    assert "eps is 1e-05 here, 0.001 in keras" in page.inner_text(".tables")


# --- what it is -----------------------------------------------------------------------------------


def test_a_small_page_is_small_and_asks_for_nothing() -> None:
    text = made("batch", json.loads(X), grad_output=json.loads(X))
    assert len(text.encode()) < 60_000
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|\bsrc=|@import|url\(", text)


def test_the_policy_lets_nothing_out(show: Open, chromium: Any) -> None:
    page = chromium.new_page()
    page.set_content(made("batch", json.loads(X)))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    blocked = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')")
    page.close()
    assert (blocked, asked) == ("blocked", [])


def test_without_scripts_everything_is_there(checked: str, show: Open) -> None:
    kind, x, options = CASES["layer_gradient"]
    page = show(made(kind, x, element=(1, 2), **options), java_script_enabled=False)
    for table in ("input", "output", "grad_output", "grad_input"):
        assert page.locator(f".{table}").is_visible()
    result = normalize(x, kind, steps=True, **options)
    rows = [row.inner_text().split() for row in page.locator(".trace li").all()]
    assert [row[0] for row in rows] == [step.step for step in trace(result, x, (1, 2)).steps]
    assert page.locator(".input td.lit").count() == 4
    assert not page.locator(".whatif").is_visible()


def test_a_tensor_of_4096_elements_opens_within_a_second(show: Open) -> None:
    page = show(made("batch", np.random.default_rng(0).normal(size=(64, 64))))
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    spent = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert spent["ProcessTime"] < 1  # of the processor's, whatever else it is doing


def test_fragments_live_side_by_side_and_leave_nothing_behind(show: Open) -> None:
    x = np.array(json.loads(X), float)
    one = html.fragment(Report(result=normalize(x, "batch"), x=x))
    two = html.fragment(Report(result=normalize(x, "layer"), x=x))
    page = show(f"<!doctype html><p class=other>mine</p>{one}{one}{two}")
    plain = show("<!doctype html><p class=other>mine</p>")
    names = "Object.getOwnPropertyNames(window)"
    assert set(page.evaluate(names)) == set(plain.evaluate(names))
    style = "getComputedStyle(document.querySelector('.other')).font + getComputedStyle(document.body).margin"
    assert page.evaluate(style) == plain.evaluate(style)
    assert page.locator(".output").count() == 3  # locators see through shadow roots
    page.locator(".output").nth(1).locator("td[data-i='5']").click()
    heads = [head.inner_text() for head in page.locator(".trace h2").all()]
    assert heads == ["trace of element (0, 0)", "trace of element (1, 1)", "trace of element (0, 0)"]
    assert "#" not in page.url


def test_a_fragment_without_its_input_shows_the_output(show: Open) -> None:
    page = show(html.fragment(Report(result=normalize([[1.0, 2, 4]], "layer"))))
    assert page.locator(".output td[data-i]").count() == 3
    assert page.locator(".input, .trace, .whatif").count() == 0


# --- for everybody --------------------------------------------------------------------------------

# The least contrast of each kind of text with what is behind it, by the formula of WCAG 2.2; hatching counts as both.
CONTRASTS = """() => {
  const parse = (text) => [...text.matchAll(/rgba?\\(([^)]*)\\)/g)].map((m) => m[1].split(/[ ,/]+/).map(Number));
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  function contrast(one, two) {
    const [dark, bright] = [light(one), light(two)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  }
  function papers(element) {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at), colours = parse(style.backgroundImage + style.backgroundColor);
      const behind = colours.filter((c) => c.length < 4 || c[3] > 0);
      if (behind.length) return behind;
    }
    return [[255, 255, 255]];
  }
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const says = own || element.matches("input, select");
    if (!says || element.matches("script, style, option") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color)[0];
    const least = Math.min(...papers(element).map((paper) => contrast(ink, paper)));
    const classes = [element, element.parentElement].map((one) => one.getAttribute("class"));
    const name = `${element.tagName} ${classes.join(" in ")}`;
    found[name] = Math.min(found[name] ?? 99, least);
  }
  return found;
}"""
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "narrow": {"viewport": {"width": 400, "height": 800}}}
looks = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


def stirred(page: Any) -> Any:
    """The page with a pinned cell, a marked one, and a changed one."""
    page.click(".input td[data-i='0']")
    page.locator(".trace .term").first.hover()
    change(page, "x (0, 0)", "3")
    page.locator(".trace .term").first.hover()
    return page


@looks
@pytest.mark.parametrize("medium", ["screen", "print"])
def test_every_text_stands_out(look: dict[str, Any], medium: str, checked: str, show: Open) -> None:
    for page in (show(checked, **look), stirred(show(checked, **look))):
        page.emulate_media(media=medium, reduced_motion="reduce")
        found = page.evaluate(CONTRASTS)
        assert len(found) > 20
        assert {name: value for name, value in found.items() if value < 4.5} == {}


def test_the_picture_s_letters_and_marks_stand_out(show: Open) -> None:
    for scheme in ("light", "dark"):
        page = show(made("batch", json.loads(X)), color_scheme=scheme)
        fills = page.evaluate("""() => [".lit", ":not(.lit)"].map((kind) =>
            getComputedStyle(document.querySelector(`polygon${kind}`)).fill)""")
        assert fills[0] != fills[1]


AUDITS = {"light": ("layer_gradient", {}), "dark": ("batch", LOOKS["dark"]), "narrow": ("unbiased", LOOKS["narrow"])}


def audited(page: Any) -> list[Any]:
    """What axe-core finds fault with."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core audits the page")
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:120], one["nodes"][0]["failureSummary"]) for one in found]


@pytest.mark.parametrize(("case", "look"), AUDITS.values(), ids=AUDITS)
def test_an_audit_finds_nothing(case: str, look: dict[str, Any], show: Open) -> None:
    kind, x, options = CASES[case]
    assert audited(show(made(kind, x, **options), **look)) == []


def test_an_audit_finds_nothing_in_a_check_that_was_changed(checked: str, show: Open) -> None:
    assert audited(stirred(show(checked))) == []


def test_an_audit_would_find_something(show: Open) -> None:
    text = made("batch", json.loads(X)).replace("<title>", "<title hidden>").replace('<html lang="en">', "<html>")
    assert "html-has-lang" in {name for name, _, _ in audited(show(text))}


SPLIT = """[...document.querySelectorAll("code, p, h2, td")].flatMap((text) => {
    const walk = document.createTreeWalker(text, NodeFilter.SHOW_TEXT), found = [];
    while (walk.nextNode()) for (const number of walk.currentNode.data.matchAll(/[\\w.]+-\\d+/g)) {
        const range = document.createRange();
        range.setStart(walk.currentNode, number.index);
        range.setEnd(walk.currentNode, number.index + number[0].length);
        found.push([number[0], new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size]);
    }
    return found;
})"""


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
@pytest.mark.parametrize("width", range(360, 480, 20))
def test_no_number_is_broken_after_its_hyphen(scripts: bool, width: int, show: Open) -> None:
    text = made("batch", seeded(3, 4) * 1e-5, virtual_batch=3)
    page = show(text if scripts else text.replace("<script>", "<noscript>"), viewport={"width": width, "height": 800})
    found = page.evaluate(SPLIT)
    assert len(found) > 10 and {number for number, lines in found if lines > 1} == set()


@pytest.mark.parametrize("answer", [None, "[[1,2,4,1],[6,3,2,4],[2,4,6,1]]"], ids=["alone", "beside a wrong answer"])
def test_four_columns_fit_on_a_telephone(answer: str | None, normcli: Run, show: Open, tmp_path: Path) -> None:
    asked = ("--expect", answer) if answer else ()
    normcli("batch", X, *asked, "--html", str(tmp_path / "page.html"))
    page = show((tmp_path / "page.html").read_text(encoding="utf-8"), **LOOKS["narrow"])
    wide = """[...document.querySelectorAll(":is(.above, .tables) .scroll")]
        .filter((pane) => pane.scrollWidth > pane.clientWidth)
        .map((pane) => pane.querySelector("table").className)"""
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_page_of_ranks_shows_every_trace(normcli: Run, show: Open, tmp_path: Path) -> None:
    normcli("batch", "[[1,2],[3,4]]", "[[6,1],[2,5],[0,3],[9,1]]", "--ranks", "--html", str(tmp_path / "page.html"))
    page = show((tmp_path / "page.html").read_text(encoding="utf-8"))
    step = ["rank_mean", "sum(x, rank) / rank_n", "(2 + 4) / 2, (1 + 5 + 3 + 1) / 4", "3, 2.5000"]
    assert traces_by_focus(page)[11][1] == step


def test_a_small_number_is_short_in_what_if(show: Open) -> None:
    page = show(made("layer", [[1.823902130126953e-05, 2]]))
    fields = page.eval_on_selector_all(".whatif input:not([hidden])", "all => all.map((one) => one.value)")
    assert fields[:2] == ["1.823902130126953e-05", "1e-05"]


def test_nothing_moves_for_those_who_ask(show: Open) -> None:
    lasts = "getComputedStyle(document.querySelector('.input td.lit')).transitionDuration"
    assert show(made("batch", json.loads(X))).evaluate(lasts) == "0s"
    assert show(made("batch", json.loads(X)), reduced_motion="no-preference").evaluate(lasts) != "0s"


def test_what_changes_is_said_to_a_screen_reader(show: Open) -> None:
    page = show(made("batch", json.loads(X)))
    assert page.get_attribute(".trace", "aria-live") == "polite"
    assert page.locator("role=grid[name=output]").count() == 1


def test_a_page_prints_whole(checked: str, show: Open) -> None:
    kind, x, options = CASES["layer_gradient"]
    page = show(made(kind, x, **options))
    page.emulate_media(media="print")
    assert page.locator(".grad_input").is_visible() and page.locator(".output").is_visible()
    assert not page.locator(".whatif").is_visible() and not page.locator(".tabs").is_visible()


def test_a_page_that_cannot_be_written_is_refused(normcli: Run) -> None:
    done = normcli("batch", X, "--html", "page.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--html" not in done.stderr and "use .html or .htm" in done.stderr
    assert normcli("check", "x.json", "--html", "page.txt").returncode == 2


def test_nothing_of_it_is_imported_unless_asked_for(normcli: Run) -> None:
    done = normcli("batch", X, "--json", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "normcli.showing.html" not in done.stderr and "normcli.calculate" in done.stderr
    assert os.environ.get("PYTHONPROFILEIMPORTTIME") is None
