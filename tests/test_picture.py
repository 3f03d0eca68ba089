"""The picture of the axes: what is drawn, what is said below it, and where it is shown."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Run

from normcli.planning.plan import plan
from normcli.planning.same import same
from normcli.showing import beside
from normcli.showing.axes import LETTERS, grid, words
from normcli.showing.cube import svg
from normcli.showing.figure import Figure


def figure(kind: str, shape: tuple[int, ...], **options: Any) -> Figure:
    return Figure(plan(kind, shape, "float64", options))


def drawn(picture: Figure, width: int = 200) -> str:
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in grid(picture, width))


FOUR = {
    "batch": """\
      C 0  C 1  C 2  C 3
N 0   A A  B B  C C  D D
      A A  B B  C C  D D

N 1   A A  B B  C C  D D
      A A  B B  C C  D D
""",
    "layer": """\
      C 0  C 1  C 2  C 3
N 0   A A  A A  A A  A A
      A A  A A  A A  A A

N 1   B B  B B  B B  B B
      B B  B B  B B  B B
""",
    "instance": """\
      C 0  C 1  C 2  C 3
N 0   A A  B B  C C  D D
      A A  B B  C C  D D

N 1   E E  F F  G G  H H
      E E  F F  G G  H H
""",
    "group": """\
      C 0  C 1  C 2  C 3
N 0   A A  A A  B B  B B
      A A  A A  B B  B B

N 1   C C  C C  D D  D D
      C C  C C  D D  D D
""",
}
OPTIONS: dict[str, dict[str, Any]] = {"layer": {"normalized_shape": (4, 2, 2)}, "group": {"groups": 2}}


@pytest.mark.parametrize("kind", FOUR)
def test_the_four_norms_are_told_apart_by_letters(kind: str) -> None:
    assert drawn(figure(kind, (2, 4, 2, 2), **OPTIONS.get(kind, {}))) == FOUR[kind]


def test_interleaved_groups_are_drawn_interleaved() -> None:
    assert (
        drawn(figure("group", (1, 3, 6), groups=3, convention="mlx"))
        == """\
      C 0    C 1    C 2    C 3    C 4    C 5
N 0   A A A  B B B  C C C  A A A  B B B  C C C
"""
    )


def test_channels_last_are_the_columns() -> None:
    assert (
        drawn(figure("batch", (2, 3, 2), channel_axis=-1))
        == """\
      C 0    C 1
N 0   A A A  B B B
N 1   A A A  B B B
"""
    )


def test_a_large_tensor_is_drawn_by_its_edges_and_its_sizes_are_said() -> None:
    large = figure("group", (20, 64, 10, 10), groups=32)
    assert len(drawn(large).splitlines()) == 20
    assert "Only the edges are drawn: 3 of 20 along N, 8 of 64 along C, 4 of 10 along H, 4 of 10 along W." in words(
        large
    )


def test_an_enormous_shape_costs_nothing() -> None:
    assert "A A . A A" in drawn(figure("layer", (10**6, 10**6, 10**6)))


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = drawn(figure("instance", (2, 12, 4, 4)), width).splitlines()
    assert max(map(len, lines)) <= width


def test_groups_of_many_channels_are_drawn_at_their_borders() -> None:
    large = figure("group", (1, 512, 1), groups=32)
    head, letters = drawn(large).splitlines()
    places = [part.strip() for part in head.split("  ") if part.strip()]
    assert places == ["C 0", "C 1", "...", "C 15", "C 16", "...", "C 495", "C 496", "...", "C 510", "C 511"]
    assert letters.split()[2:] == ["A", "A", ".", "A", "B", ".", "C", "D", ".", "D", "D"]
    assert "Only the edges are drawn: 8 of 512 along C at the borders of groups." in words(large)


# kind, shape, options: every layout once, all axis lengths different
PLANS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "batch": ("batch", (2, 6, 3, 4), {}),
    "batch of channels first of all": ("batch", (3, 4), {"channel_axis": 0}),
    "batch, channels last": ("batch", (2, 3, 4), {"channel_axis": -1}),
    "instance": ("instance", (2, 6, 3, 4), {}),
    "instance, unbatched": ("instance", (3, 4), {}),
    "instance, channels in the middle": ("instance", (2, 3, 4, 5), {"channel_axis": 2}),
    "layer": ("layer", (2, 3, 4), {"normalized_shape": (3, 4)}),
    "layer of one axis": ("layer", (5,), {}),
    "rms": ("rms", (2, 3, 4), {}),
    "group": ("group", (2, 6, 3), {"groups": 3}),
    "group, interleaved": ("group", (2, 3, 6), {"groups": 3, "convention": "mlx"}),
    "group of six axes": ("group", (1, 4, 2, 1, 2, 2), {"groups": 2}),
}


@pytest.mark.parametrize("case", PLANS.values(), ids=list(PLANS))
def test_each_element_belongs_to_the_group_whose_mean_the_calculation_subtracts(case: Any) -> None:
    kind, shape, options = case
    picture = figure(kind, shape, **options)
    layout = picture.plan.layout
    numbers = np.arange(np.prod(layout.stats_shape)).reshape(layout.stats_view)
    expected = np.broadcast_to(numbers, layout.view).reshape(shape)
    found = [picture.group(index) for index in product(*map(range, shape))]
    assert found == expected.ravel().tolist()


@pytest.mark.parametrize("case", PLANS.values(), ids=list(PLANS))
def test_the_kinds_called_the_same_have_the_same_groups(case: Any) -> None:
    kind, shape, options = case
    picture = figure(kind, shape, **options)
    convention = {"convention": options["convention"]} if "convention" in options else {}
    partitions = [partition(figure(other.kind, shape, **other.options, **convention)) for other in same(picture.plan)]
    assert all(other == partition(picture) for other in partitions)


def partition(picture: Figure) -> set[frozenset[tuple[int, ...]]]:
    groups: dict[int, set[tuple[int, ...]]] = {}
    for index in product(*map(range, picture.plan.shape)):
        groups.setdefault(picture.group(index), set()).add(index)
    return {frozenset(group) for group in groups.values()}


SAID: dict[str, tuple[Figure, str]] = {
    "group of one is layer": (
        figure("group", (2, 6, 4, 4), groups=1),
        "The same before weight and bias: layer --normalized-shape 6,4,4 (weight of shape (6, 4, 4)).",
    ),
    "group of each channel is instance": (
        figure("group", (2, 6, 4, 4), groups=6),
        "The same here, weight and all: instance.",
    ),
    "instance is group of each channel": (
        figure("instance", (2, 6, 4, 4)),
        "The same here, weight and all: group --groups 6.",
    ),
    "one sample": (
        figure("batch", (1, 6, 4, 4)),
        "The same here, weight and all: instance or group --groups 6.",
    ),
    "rms": (
        figure("rms", (2, 6)),
        "Over the same elements, but subtracts a mean: group --groups 1 or layer --normalized-shape 6.",
    ),
    "batch": (figure("batch", (2, 6, 4, 4)), "No other kind computes the same here."),
    "channels where another kind does not look": (
        figure("batch", (4, 3)),
        "The same here, weight and all: instance --channel-axis 1.",
    ),
    "means": (
        figure("group", (2, 6, 4, 4), groups=3),
        "6 means, one for each sample and group of channels, over 32 elements each (2 of C x H x W).",
    ),
    "weight of layer": (
        figure("layer", (2, 6, 4, 4), normalized_shape=(4, 4)),
        "Weight and bias have shape (4, 4), along axes H, W.",
    ),
    "weight of rms": (figure("rms", (2, 6)), "Weight (there is no bias) has shape (6,), along axis 1."),
    "more groups than letters": (
        figure("instance", (4, 12, 3)),
        "48 means, one for each channel of each sample, over 3 elements each (L).",
    ),
}


@pytest.mark.parametrize(("picture", "sentence"), SAID.values(), ids=list(SAID))
def test_below_the_picture_it_is_said_in_words(picture: Figure, sentence: str) -> None:
    assert sentence in words(picture)


def test_letters_that_repeat_are_owned_up_to() -> None:
    repeated = figure("layer", (4, 12, 3, 5))
    assert len(repeated.order) > len(LETTERS)
    assert "144 groups of statistics are drawn; the letters repeat after 62." in words(repeated)


def test_json_holds_the_partition(normcli: Run) -> None:
    document = json.loads(normcli("axes", "group", "--shape", "2,6,4,4", "--groups", "1", "--json").stdout)
    assert document["means"] == 2
    assert document["count"] == 96
    assert document["weight"] == {"shape": [6], "axes": [1], "affine": True}
    assert [other["kind"] for other in document["same"]] == ["layer", "rms"]


REFUSED = {
    "a kind that is none": (("foo", "--shape", "2,3"), "kind 'foo' is not known; use batch, instance, layer,"),
    "no shape": (("batch",), "missing option '--shape'"),
    "empty shape": (("batch", "--shape", ""), "--shape is empty; give the sizes of the tensor"),
    "a size of zero": (("batch", "--shape", "0,3"), "--shape holds 0; every size must be 1 or more"),
    "another kind's option": (("batch", "--shape", "2,3", "--groups", "3"), "batch has no option groups"),
    "no groups": (("group", "--shape", "2,6"), "group needs the number of groups; give --groups N"),
    "more than a tensor holds": (("layer", "--shape", "9" * 30), "more than any tensor has"),
    "too many axes": (("layer", "--shape", "1,1,1,1,1,1,1,1,1"), "--shape has 9 axes; 8 can be drawn"),
    "groups that do not divide an enormous axis": (
        ("group", "--shape", "1,1000000000000,2", "--groups", "3"),
        "1000000000000 channels cannot be split into 3 groups",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_drawn_is_refused_in_words(normcli: Run, arguments: tuple[str, ...], message: str) -> None:
    done = normcli("axes", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_the_picture_is_plain_text_in_a_pipe(normcli: Run) -> None:
    text = normcli("axes", "instance", "--shape", "2,6,4,4", env={"PYTHONIOENCODING": "ascii"}).stdout
    assert "\x1b" not in text
    assert text.isascii()


# --- the drawing ----------------------------------------------------------------------------------

SPACE = "{http://www.w3.org/2000/svg}"


def faces(drawing: str) -> int:
    return len(ElementTree.fromstring(drawing).findall(f"{SPACE}g/{SPACE}polygon"))


def dark(drawing: str) -> int:
    """How many faces belong to the first mean, in the three shades of its colour."""
    polygons = ElementTree.fromstring(drawing).findall(f"{SPACE}g/{SPACE}polygon")
    return sum(polygon.get("fill") in ("#0b5cad", "#0a56a3", "#094f95") for polygon in polygons)


# (2, 6, 4, 4) shows 2 x 6 faces on top, 6 x 16 on the right (channels), 2 x 16 on the left (samples)
DARK = {
    "batch": (2 + 16 + 32, {}),
    "layer": (6 + 96 + 16, {"normalized_shape": (6, 4, 4)}),
    "instance": (1 + 16 + 16, {}),
    "group": (2 + 32 + 16, {"groups": 3}),
}


@pytest.mark.parametrize("kind", DARK)
def test_the_first_mean_is_dark_in_the_drawing(kind: str) -> None:
    expected, options = DARK[kind]
    drawing = svg(figure(kind, (2, 6, 4, 4), **options))
    assert (dark(drawing), faces(drawing)) == (expected, 12 + 96 + 32)


def test_the_drawing_asks_the_network_for_nothing(normcli: Run, tmp_path: Path) -> None:
    normcli("axes", "batch", "--shape", "2,6,4,4", "--svg", "axes.svg")
    text = (tmp_path / "axes.svg").read_text()
    assert text.count("://") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1


def test_a_drawing_of_large_tensors_stays_small() -> None:
    assert len(svg(figure("layer", (10**6, 10**6, 10**6)))) < 100_000


def test_a_drawing_that_cannot_be_written_is_refused(normcli: Run) -> None:
    done = normcli("axes", "batch", "--shape", "2,3", "--svg", "nowhere/axes.svg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot write nowhere/axes.svg: No such file or directory\n"


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".PNG", ".svgz", ""])
@pytest.mark.parametrize("command", [["axes", "batch", "--shape", "2,3"], ["layer", "[1,2]"]], ids=lambda c: c[0])
def test_a_file_holds_what_its_suffix_says(command: list[str], suffix: str, normcli: Run, tmp_path: Path) -> None:
    done = normcli(*command, "--svg", f"x{suffix}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: cannot tell the format of 'x{suffix}' by its suffix; use .svg\n"
    assert [*tmp_path.iterdir()] == []


# --- side by side ---------------------------------------------------------------------------------


def test_all_norms_are_drawn_side_by_side(normcli: Run) -> None:
    done = normcli("axes", "all", "--shape", "2,6,4,4", "--groups", "3", "--normalized-shape", "6,4,4")
    assert (
        done.stdout
        == """\
BatchNorm, LayerNorm, InstanceNorm, GroupNorm, RMSNorm of (2, 6, 4, 4): in each, equal letters share one mean (RMSNorm:
one mean square)

BatchNorm           LayerNorm, RMSNorm   InstanceNorm        GroupNorm
     0 1 2 3 4 5         0 1 2 3 4 5          0 1 2 3 4 5         0 1 2 3 4 5
N 0  A B C D E F    N 0  A A A A A A     N 0  A B C D E F    N 0  A A B B C C
N 1  A B C D E F    N 1  B B B B B B     N 1  G H I J K L    N 1  D D E E F F

Rows are samples, columns channels, a letter stands for all of H x W.
BatchNorm: 6 means, one for each channel, over 32 elements each (N x H x W).
LayerNorm --normalized-shape 6,4,4: 2 means, one for each place along N, over 96 elements each (C x H x W).
InstanceNorm: 12 means, one for each channel of each sample, over 16 elements each (H x W).
GroupNorm --groups 3: 6 means, one for each sample and group of channels, over 32 elements each (2 of C x H x W).
RMSNorm --normalized-shape 6,4,4: 2 mean squares, one for each place along N, over 96 elements each (C x H x W).
"""
    )


@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 6, 3), (2, 6, 4, 4), (8, 128, 512), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_pictures_beside_each_other_fit_a_terminal(shape: tuple[int, ...], width: int) -> None:
    lines = beside.lines(beside.figures(shape, {}), width)
    assert max(len("".join(text for text, _ in line).rstrip()) for line in lines) <= width


def test_an_axis_along_which_a_norm_changes_keeps_its_letters() -> None:
    layer = next(one for one in beside.figures((2, 6, 4, 4), {}) if one.plan.kind.name == "layer")
    assert layer.flat == {3}  # of H each row has a mean of its own


@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (15, 3), (7, 7), (1, 1)])
def test_without_a_number_of_groups_the_least_is_taken(channels: int, groups: int) -> None:
    drawn = beside.figures((2, channels, 3), {})
    assert [figure.plan.groups for figure in drawn if figure.plan.kind.name == "group"] == [groups]


def test_a_tensor_of_two_axes_is_no_sample_of_instance_norm() -> None:
    assert [figure.plan.kind.name for figure in beside.figures((4, 6), {})] == ["batch", "layer", "group", "rms"]


def test_all_gives_programs_an_object_for_each(normcli: Run) -> None:
    lines = normcli("axes", "all", "--shape", "2,6,4", "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["batch", "layer", "instance", "group", "rms"]


def test_the_options_of_all_are_refused_where_none_has_a_use_for_them(normcli: Run) -> None:
    done = normcli("axes", "all", "--shape", "2,6,4", "--groups", "4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: 6 channels cannot be split into 4 groups; use 1, 2, 3 or 6\n"


def test_all_are_drawn_on_one_page() -> None:
    root = ElementTree.fromstring(svg(*beside.figures((2, 6, 4, 4), {})))
    assert root.get("width") == "1440"
    assert len(root.findall(f"{SPACE}g")) == 5


def test_norms_that_look_the_same_are_drawn_once(normcli: Run, tmp_path: Path) -> None:
    normcli("axes", "all", "--shape", "2,6,4,4", "--svg", "all.svg")
    titles = re.findall('font-weight="bold">(\\w+)', (tmp_path / "all.svg").read_text())
    assert titles == ["BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm"]


def test_a_heavy_line_runs_between_groups_and_nowhere_else() -> None:
    assert borders(svg(figure("batch", (1, 2, 2)))) == 3  # across the top and down the right side
    assert borders(svg(figure("layer", (1, 2, 3), normalized_shape=(2, 3)))) == 0


def borders(drawing: str) -> int:
    path = ElementTree.fromstring(drawing).find(f"{SPACE}g/{SPACE}path")
    assert path is not None
    return path.get("d", "").count("M")
