"""Conventions: another framework's defaults, and where two of them differ."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import Run

import normcli
from normcli.errors import InputError
from normcli.planning.conventions import CONVENTIONS, TORCH
from normcli.planning.further import FURTHER
from normcli.showing.conventions import concerning, points
from normcli.showing.profiles import chosen

BN1D = [[1, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]]
TORCH_VAR = [1.6, 1.0, 1.3, 1.2]
BIASED_VAR = [1.366667, 0.966667, 1.166667, 1.1]


@pytest.mark.parametrize(
    ("convention", "options", "mean", "var"),
    [
        ("torch", {}, [0.3, 0.3, 0.4, 0.2], TORCH_VAR),
        ("mlx", {}, [0.3, 0.3, 0.4, 0.2], TORCH_VAR),
        ("onnx", {}, [0.3, 0.3, 0.4, 0.2], BIASED_VAR),
        ("d2l", {}, [0.3, 0.3, 0.4, 0.2], BIASED_VAR),
        ("keras", {"decay": 0.9, "eps": 1e-5}, [0.3, 0.3, 0.4, 0.2], BIASED_VAR),
        ("keras", {}, [0.03, 0.03, 0.04, 0.02], [1.036667, 0.996667, 1.016667, 1.01]),
        ("flax", {}, [0.03, 0.03, 0.04, 0.02], [1.036667, 0.996667, 1.016667, 1.01]),
    ],
    ids=["torch", "mlx", "onnx", "d2l", "keras as torch", "keras", "flax"],
)
def test_running_statistics(convention: str, options: dict[str, Any], mean: list[float], var: list[float]) -> None:
    result = normcli.normalize(BN1D, "batch", convention=convention, **options)
    np.testing.assert_allclose(result.running_mean, mean, atol=1e-12)
    np.testing.assert_allclose(result.running_var, var, atol=5e-7)


def test_mlx_interleaves_groups() -> None:
    output = normcli.normalize([[[0, 1, 2, 3], [4, 5, 6, 7]]], "group", groups=2, convention="mlx").output
    np.testing.assert_allclose(output[0, 0], [-1.34164, -1.34164, -0.447213, -0.447213], atol=1e-5)


def test_explicit_options_win() -> None:
    assert normcli.normalize(BN1D, "batch", convention="keras", eps=0.5).plan.eps == 0.5


def test_the_convention_is_in_the_header_and_the_document(normcli: Run) -> None:
    assert "eps 0.001" in normcli("layer", "[1,2]", "--convention", "keras").stdout.splitlines()[0]
    assert json.loads(normcli("layer", "[1,2]", "--convention", "keras", "--json").stdout)["convention"] == "keras"


@pytest.mark.parametrize(
    "names", [[], ["torch"], ["torch", "keras"], ["mlx", "d2l", "onnx"]], ids=lambda n: "-".join(n)
)
def test_table_has_a_text_for_each_convention(names: list[str]) -> None:
    assert {len(texts) for texts in points(names).values()} == {len(names) or len(CONVENTIONS)}


def test_two_names_show_only_what_differs() -> None:
    assert "running variance" not in points(["torch", "mlx"])
    assert points(["torch", "mlx"])["groups of channels"] == ["consecutive", "interleaved"]


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(InputError, match="convention 'caffe' is not known"):
        points(["caffe"])


def test_command_prints_every_convention(normcli: Run) -> None:
    head = normcli("conventions").stdout.splitlines()[1]
    assert head.split() == list(CONVENTIONS)


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ((), {name: set(kind.profiles) for name, kind in FURTHER.items()}),
        (("lrn",), {"lrn": {"torch", "onnx", "tensorflow", "caffe"}}),
        (("lrn", "softmax", "torch"), {"lrn": {"torch"}, "softmax": {"torch"}}),
        (("scikit-learn",), {"zscore": {"sklearn"}, "minmax": {"sklearn"}}),
        (("torch", "keras"), {"lp": {"torch", "keras"}}),  # whose spectral normalization is the same
    ],
    ids=["all", "a kind", "kinds of one", "a library", "two libraries"],
)
def test_kinds_beyond_the_family_have_theirs(names: tuple[str, ...], kinds: dict[str, set[str]], normcli: Run) -> None:
    said = json.loads(normcli("conventions", *names, "--json").stdout)
    assert {kind: set(profiles) for kind, profiles in said["kinds"].items()} == kinds
    rows = [line.split()[:2] for line in normcli("conventions", *names).stdout.splitlines()]
    assert [one for kind, named in kinds.items() for one in named if [kind, one] not in rows] == []


def test_a_profile_says_what_is_computed() -> None:
    found = chosen([], [])
    assert found["zscore"]["pandas"]["numbers"] == {"ddof": 1}
    assert found["lp"]["flax"]["lines"] == {"size": "sqrt(sum(x^2) + eps)", "output": "x / size"}
    assert (found["lp"]["flax"]["axes"], found["lrn"]["tensorflow"]["channel_axis"]) == ([-1], -1)
    assert [name for name, one in found["lrn"].items() if one["even_size"] == "one more after"] == ["onnx"]


@pytest.mark.parametrize(
    ("names", "message"),
    [(("nix",), "convention 'nix' is not known"), (("lrn", "keras"), "lrn has no convention keras; it has torch")],
)
def test_a_name_that_nothing_has_is_refused(names: tuple[str, ...], message: str, normcli: Run) -> None:
    done = normcli("conventions", *names)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_command_prints_json(normcli: Run) -> None:
    said = json.loads(normcli("conventions", "torch", "keras", "--json").stdout)
    assert said["keras"]["eps of batch"] == "0.001"


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
def test_each_profile_names_its_source(convention: Any) -> None:
    assert "/" in convention.source or "." in convention.source


def test_of_a_kind_of_the_family_only_its_own_points_are_shown(normcli: Run) -> None:
    lines = normcli("conventions", "group", "torch", "d2l").stdout.splitlines()
    assert lines[0] == "where torch and d2l differ in group"
    assert [line.split("  ")[0] for line in lines[3:6]] == ["eps of group", "affine of group", "groups of channels"]
    document = json.loads(normcli("conventions", "layer", "--json").stdout)
    assert [key for key in document["keras"] if " of " in key] == ["eps of layer", "affine of layer"]


def test_each_point_concerns_a_kind() -> None:
    assert set().union(*map(concerning, TORCH.eps)) == set(points(["torch"]))
