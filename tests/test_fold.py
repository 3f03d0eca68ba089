"""Folding a BatchNorm: what torch makes of the same layers, and what its rounding changes in their outputs."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Run
from typer.testing import CliRunner

from normcli.arithmetic.fold import Convolution, Folded, differences, fold, made_up
from normcli.arithmetic.result import State
from normcli.commands.cli import app
from normcli.errors import InputError
from normcli.layers import open_checkpoint
from normcli.planning.kinds import STATE_ARRAYS

torch = pytest.importorskip("torch", reason="folding is compared with torch's own")
nn = torch.nn

MODEL = str(ROOT / "examples" / "model.safetensors")
NAMES = ("--conv", "layer1.0.conv1", "--bn", "layer1.0.bn1")

LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "linear": (lambda: nn.Linear(6, 12), {}),
    "1d in groups": (lambda: nn.Conv1d(6, 12, 3, groups=2), {"groups": 2}),
    "2d": (lambda: nn.Conv2d(6, 12, (3, 2)), {}),
    "2d without bias": (lambda: nn.Conv2d(6, 12, 3, bias=False), {}),
    "2d depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), {"groups": 6}),
    "3d": (lambda: nn.Conv3d(2, 5, 2), {}),
    "2d transposed": (lambda: nn.ConvTranspose2d(6, 4, 3), {"transposed": True}),
    "1d transposed in groups": (lambda: nn.ConvTranspose1d(6, 4, 3, groups=2), {"transposed": True, "groups": 2}),
}


def made(case: str, dtype: torch.dtype) -> tuple[Any, Any, Convolution, State]:
    """The two modules of a case, and what they hold."""
    torch.manual_seed(5)
    build, options = LAYERS[case]
    conv = build().to(dtype)
    channels = conv.weight.shape[1] * options.get("groups", 1) if "transposed" in options else conv.weight.shape[0]
    norm = nn.BatchNorm2d(channels).eval()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3)
        norm.weight.normal_()
        norm.bias.normal_()
    bias = None if conv.bias is None else conv.bias.detach().numpy().copy()
    arrays = {name: getattr(norm, name).detach().numpy().copy() for name in STATE_ARRAYS}
    return conv, norm, Convolution(conv.weight.detach().numpy().copy(), bias, **options), State(**arrays)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("case", [case for case in LAYERS if case != "1d transposed in groups"])  # torch has not
def test_the_weight_is_that_of_torch_in_float64_rounded(case: str, dtype: torch.dtype) -> None:
    conv, norm, layer, state = made(case, dtype)
    statistics = norm.double()
    bias = None if conv.bias is None else conv.bias.detach().double()
    weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
        conv.weight.detach().double(), bias, statistics.running_mean, statistics.running_var, norm.eps,
        statistics.weight.detach(), statistics.bias.detach(), transpose=layer.transposed,
    )  # fmt: skip
    folded = fold(layer, state, 1e-5)
    np.testing.assert_array_equal(folded.layer.weight, weight.detach().to(dtype).numpy())
    np.testing.assert_array_equal(folded.layer.bias, bias.detach().to(dtype).numpy())


@pytest.mark.parametrize("case", LAYERS)
def test_the_differences_are_those_of_the_modules_in_float64(case: str) -> None:
    conv, _, layer, state = made(case, torch.float32)
    folded, x = fold(layer, state, 1e-5), made_up(layer, 3)
    found = differences(folded, x)
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var, weight, bias = (
        torch.tensor(np.asarray(v, np.float64)).reshape(shape)
        for v in (state.running_mean, state.running_var, state.weight, state.bias)
    )
    with torch.no_grad():
        data = torch.tensor(x, dtype=torch.float64)
        wanted = (conv.double()(data) - mean) / torch.sqrt(var + 1e-5) * weight + bias
        conv.weight.copy_(torch.tensor(folded.layer.weight))
        conv.bias = nn.Parameter(torch.tensor(np.asarray(folded.layer.bias, np.float64)))
        moved = (conv(data) - wanted).abs()
    if layer.transposed:
        for axis, size in enumerate(layer.kernel, start=2):
            moved = moved.narrow(axis, size - 1, moved.shape[axis] - 2 * (size - 1))
    assert found.outputs == moved.numel()
    each = moved.transpose(0, 1).reshape(layer.channels, -1).amax(1).numpy()
    np.testing.assert_allclose(found.absolute, each, rtol=1e-6)
    assert 0 < found.of_largest.max() < len(folded.lost[0].ravel())
    assert (found.ulp >= found.of_largest).all()


def test_it_is_exact_and_rounded_once() -> None:
    rng = np.random.default_rng(8)
    layer = Convolution(rng.normal(size=(3, 4)), rng.normal(size=3))
    state = State(
        weight=rng.normal(size=3), bias=rng.normal(size=3),
        running_mean=rng.normal(size=3), running_var=np.array([4.0, 0.25, 9.0]),
    )  # fmt: skip
    folded = fold(layer, state, 0.0)
    roots = [Fraction(2), Fraction(1, 2), Fraction(3)]
    for c, root in enumerate(roots):
        gamma, beta, mean, bias = (Fraction(v[c]) for v in (state.weight, state.bias, state.running_mean, layer.bias))
        assert folded.layer.weight[c].tolist() == [float(Fraction(w) * gamma / root) for w in layer.weight[c]]
        assert folded.layer.bias[c] == float((bias - mean) * gamma / root + beta)


@pytest.mark.parametrize("far", [1e-305, 1e304])
def test_numbers_far_out_are_rounded_once_too(far: float) -> None:
    layer = Convolution(np.random.default_rng(2).uniform(1, 9, (1, 300)) * far)
    state = State(running_mean=np.zeros(1), running_var=np.array([9.0]))
    wanted = [float(Fraction(w) / 3) for w in layer.weight[0].tolist()]
    assert fold(layer, state, 0.0).layer.weight[0].tolist() == wanted


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": (("--eps", "1"), "there is no layer to fold into; give a CHECKPOINT, or its --weight"),
    "no BatchNorm": (("--weight", "[[1]]"), "there is no BatchNorm to fold; give its file with --state"),
    "two weights": ((MODEL, "--weight", "[[1]]", "--conv", "a"), "--weight and --conv both say what to fold into"),
    "a bias alone": ((MODEL, "--bias", "[1]"), "--bias belongs to --weight"),
    "a checkpoint too much": ((MODEL, "--weight", "[[1]]", "--state", MODEL), "nothing is taken from"),
    "which convolution": ((MODEL, "--bn", NAMES[3]), "holds 2 convolution or linear layers; say which with --conv"),
    "which BatchNorm": ((MODEL, "--conv", NAMES[1]), "holds 4 normalization layers; say which with --bn"),
    "an unknown layer": ((MODEL, "--conv", "conv1", "--bn", NAMES[3]), "did you mean layer1.0.conv1?"),
    "a norm for a convolution": ((MODEL, "--conv", "norm", "--bn", NAMES[3]), "norm in model.safetensors is no convo"),
    "a LayerNorm": ((MODEL, "--conv", NAMES[1], "--bn", "norm"), "norm in model.safetensors holds no running_mean"),
    "other channels": ((MODEL, "--conv", "head", "--bn", NAMES[3]), "BatchNorm's weight has shape (6,); (2,) is"),
    "a negative variance": ((MODEL, "--conv", NAMES[1], "--bn", "layer1.0.bn2"), "running_var + eps is not above 0 in"),
    "data of another shape": ((MODEL, *NAMES, "--input", "[[1,2]]"), "(N, 3, 3 or more, 3 or more) is needed for"),
    "data that is too small": ((MODEL, *NAMES, "--input", str(np.ones((1, 3, 3, 2)).tolist())), "3 or more) is needed"),
    "groups": ((MODEL, *NAMES, "--groups", "4"), "the 6 channels of the weight (6, 3, 3, 3) cannot be split into 4"),
    "a seed": ((MODEL, *NAMES, "--seed", "-1"), "--seed is -1; it must be 0 or more"),
    "no number": ((MODEL, *NAMES, "--eps", "tiny"), "--eps is 'tiny'; it must be a number"),
    "a negative eps": ((MODEL, *NAMES, "--eps", "-1"), "eps is -1; it must be a finite number, 0 or more"),
    "a name without a format": ((MODEL, *NAMES, "-o", "folded.csv"), "cannot tell the format of 'folded.csv'"),
    "over the checkpoint": ((MODEL, *NAMES, "-o", MODEL), "which is read; give it another name"),
    "standard input twice": (("-", "--input", "-"), "standard input (-) is given twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_is_refused(case: str) -> None:
    arguments, message = REFUSED[case]
    done = CliRunner().invoke(app, ["fold", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr.replace(str(ROOT / "examples") + "/", "")


def test_a_weight_that_would_fit_transposed_is_said_to() -> None:
    state = State(running_mean=np.zeros(3), running_var=np.ones(3))
    with pytest.raises(InputError) as error:
        fold(Convolution(np.ones((2, 3, 5))), state, 0.0)
    assert error.value.hint == "with --transposed it would fit"


def test_data_that_is_not_finite_is_refused() -> None:
    folded = fold(Convolution(np.ones((1, 1))), State(running_mean=np.zeros(1), running_var=np.ones(1)), 0.0)
    with pytest.raises(InputError, match="the data holds NaN or infinite values"):
        differences(folded, np.array([[np.nan]]))


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "json"])
def test_the_folded_layer_is_written_under_its_name(normcli: Run, tmp_path: Path, suffix: str) -> None:
    done = normcli("fold", MODEL, *NAMES, "-o", f"folded.{suffix}", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    with open_checkpoint(MODEL) as file:
        read = lambda prefix, name: file.layers[prefix].arrays[name].read().array  # noqa: E731
        layer = Convolution(read("layer1.0.conv1", "weight"), read("layer1.0.conv1", "bias"))
        state = State(
            **{name: read("layer1.0.bn1", name) for name in ("weight", "bias", "running_mean", "running_var")}
        )
    wanted: Folded = fold(layer, state, 1e-5)
    with open_checkpoint(str(tmp_path / f"folded.{suffix}")) as file:
        found = {name: array.read().array for name, array in file.layers["layer1.0.conv1"].arrays.items()}
    np.testing.assert_array_equal(found["weight"], wanted.layer.weight)
    np.testing.assert_array_equal(found["bias"], wanted.layer.bias)
    document = json.loads(done.stdout)
    np.testing.assert_array_equal(document["channels"]["scale"], wanted.scale)
    assert document["largest"]["difference"] == max(document["channels"]["difference"])


def test_layers_come_from_files_too(normcli: Run, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    held = load_file(MODEL)
    for name in ("weight", "bias"):
        np.save(tmp_path / f"{name}.npy", held[f"layer1.0.conv1.{name}"])
    state = {name: held[f"layer1.0.bn1.{name}"].tolist() for name in ("weight", "bias", "running_mean", "running_var")}
    (tmp_path / "bn.json").write_text(json.dumps(state))
    done = normcli("fold", "--weight", "weight.npy", "--bias", "bias.npy", "--state", "bn.json", "--json")
    one, other = json.loads(done.stdout), json.loads(normcli("fold", MODEL, *NAMES, "--json").stdout)
    assert (one["conv"], other["conv"]) == (None, "layer1.0.conv1")
    assert one["channels"] == other["channels"]


def test_the_same_seed_is_the_same_data(normcli: Run) -> None:
    runs = [json.loads(normcli("fold", MODEL, *NAMES, "--seed", seed, "--json").stdout) for seed in ("4", "4", "5")]
    assert runs[0] == runs[1]
    assert runs[0]["channels"] != runs[2]["channels"]


def test_a_dangerous_channel_is_named(normcli: Run, tmp_path: Path) -> None:
    state = {"running_mean": [0, 0, 0], "running_var": [1, 1e-12, 2]}
    (tmp_path / "bn.json").write_text(json.dumps(state))
    arguments = ("fold", "--weight", "[[1,2],[3,4],[5,6]]", "--state", "bn.json")
    done = normcli(*arguments)
    assert (
        "dangerous: the scale is 100 or more in 1 channel: 1 (running_var 1e-12); whatever" in done.stdout + done.stderr
    )
    assert json.loads(normcli(*arguments, "--json").stdout)["huge"] == [1]


def test_what_overflows_is_counted(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.array([[300.0, 1.0]], np.float16))
    (tmp_path / "bn.json").write_text('{"running_mean": [0], "running_var": [0]}')
    done = normcli("fold", "--weight", "w.npy", "--state", "bn.json")
    assert done.returncode == 0
    assert "1 number of the folded layer overflow float16" in done.stdout


def test_many_channels_are_shown_by_their_worst(normcli: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.random.default_rng(1).normal(size=(40, 3)))
    (tmp_path / "bn.json").write_text(json.dumps({"running_mean": [0] * 40, "running_var": [2] * 40}))
    arguments = ("fold", "--weight", "w.npy", "--state", "bn.json", "--format", "csv")
    short, full = (normcli(*arguments, *more).stdout for more in ((), ("--full",)))
    assert [len([line for line in text.splitlines() if line[:1].isdigit()]) for text in (short, full)] == [12, 40]
