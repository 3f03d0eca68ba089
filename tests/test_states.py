"""Model states: what a layer's file gives is what torch's own module gives from the same file."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import normcli
from normcli import layers
from normcli.commands.cli import app
from normcli.errors import InputError, UnavailableError
from normcli.planning.kinds import KINDS
from normcli.showing import state

torch = pytest.importorskip("torch", reason="states are compared with torch's own modules")
save_file = pytest.importorskip("safetensors.torch", reason="it needs torch").save_file
nn = torch.nn

FORMATS = ("safetensors", "pt", "npz", "json")
LAYERS = {  # prefix: command
    "layer1.0.bn1": ("batch", "--mode", "eval"),
    "layer1.0.inorm": ("instance", "--mode", "eval"),
    "layer1.0.gn": ("group", "--groups", "3"),
    "norm": ("layer",),
    "norm2d": ("layer",),
    "rms": ("rms",),
}


def model(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    """A small network whose every number is its own."""
    torch.manual_seed(7)
    block = nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 6, 3),
            "bn1": nn.BatchNorm2d(6),
            "inorm": nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
            "plain": nn.BatchNorm2d(6, affine=False, track_running_stats=False),
            "gn": nn.GroupNorm(3, 6),
        }
    )
    whole = {"layer1": nn.Sequential(block), "norm": nn.LayerNorm(5), "norm2d": nn.LayerNorm((4, 5))}
    network = nn.ModuleDict(whole | {"rms": nn.RMSNorm(5), "fc": nn.Linear(5, 5), "prelu": nn.PReLU()})
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(12)
        elif name.endswith("running_var"):
            tensor.uniform_(0.1, 3)
        else:
            tensor.normal_()
    return network.to(dtype).eval()


def save(network: nn.Module, path: Path) -> Path:
    """The network's state_dict in the format of the suffix."""
    tensors = network.state_dict()
    arrays = {
        name: tensor.float().numpy() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    else:
        path.write_text(json.dumps({name: array.tolist() for name, array in arrays.items()}))
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in every format, and an input: x.npy, shape (2, 6, 4, 5)."""
    folder = tmp_path_factory.mktemp("states")
    found = {suffix: save(model(), folder / f"model.{suffix}") for suffix in FORMATS}
    x = (torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(1)) * 2 + 1).numpy()
    np.save(folder / "x.npy", x)
    return found | {"x": folder / "x.npy"}


def invoke(*arguments: Any, stdin: bytes | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    return done.exit_code, done.stdout, done.stderr


def document(*arguments: Any) -> dict[str, Any]:
    code, out, err = invoke(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def refusal(*arguments: Any) -> str:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    return err


# --- the layer of a model -------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", LAYERS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_layer_of_a_file_gives_what_torch_gives(suffix: str, prefix: str, files: dict[str, Path]) -> None:
    kind, *options = LAYERS[prefix]
    found = document(kind, files["x"], "--state", files[suffix], "--prefix", prefix, *options)
    with torch.no_grad():
        expected = model().get_submodule(prefix)(torch.from_numpy(np.load(files["x"]))).numpy()
    output = np.array(found["output"], np.float32)
    np.testing.assert_allclose(output, expected, rtol=3e-7, atol=5e-7)
    assert not np.array_equal(output, np.load(files["x"]))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_bfloat16_states_give_what_torch_gives(suffix: str, tmp_path: Path, files: dict[str, Path]) -> None:
    network = model(torch.bfloat16)
    path = save(network, tmp_path / f"half.{suffix}")
    found = document("batch", files["x"], "--mode", "eval", "--state", path, "--prefix", "layer1.0.bn1")
    with torch.no_grad():
        expected = network.float().get_submodule("layer1.0.bn1")(torch.from_numpy(np.load(files["x"]))).numpy()
    np.testing.assert_allclose(np.array(found["output"]), expected, rtol=3e-7, atol=5e-7)


def test_a_layer_of_a_file_gives_the_exact_result_rounded_once(files: dict[str, Path]) -> None:
    found = document(
        "batch", files["x"], "--mode", "eval", "--state", files["safetensors"], "--prefix", "layer1.0.bn1", "--eps", "0"
    )
    layer = model().get_submodule("layer1.0.bn1").state_dict()
    weight, bias, mean, var = (
        Fraction(float(layer[name][2])) for name in ("weight", "bias", "running_mean", "running_var")
    )
    x = Fraction(float(np.load(files["x"])[1, 2, 3, 4]))
    y = found["output"][1][2][3][4]
    # y is right to half a unit if the exact (y - bias)^2 * var lies between its neighbours'.
    below, above = (
        Fraction(float(np.nextafter(np.float32(y), np.float32(end)))) / 2 + Fraction(y) / 2 for end in (-np.inf, np.inf)
    )
    sign = 1 if (x - mean) * weight > 0 else -1
    low, high = sorted([sign * (below - bias), sign * (above - bias)])
    assert max(low, 0) ** 2 * var <= ((x - mean) * weight) ** 2 <= high**2 * var


def test_a_state_keeps_counting_batches(files: dict[str, Path]) -> None:
    network = model().get_submodule("layer1.0.bn1").train()
    network(torch.from_numpy(np.load(files["x"])))
    running = document("batch", files["x"], "--state", files["safetensors"], "--prefix", "layer1.0.bn1")["running"]
    assert running["num_batches_tracked"] == 13
    np.testing.assert_allclose(running["mean"], network.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(running["var"], network.running_var.numpy(), rtol=1e-5)


def test_the_layer_norm_takes_its_shape_from_the_weight(files: dict[str, Path]) -> None:
    found = document("layer", files["x"], "--state", files["npz"], "--prefix", "norm2d")
    assert found["options"]["normalized_shape"] == [4, 5]


def test_running_statistics_imply_that_instance_keeps_them(files: dict[str, Path]) -> None:
    found = document("instance", files["x"], "--state", files["pt"], "--prefix", "layer1.0.inorm")
    assert (found["options"]["track_running_stats"], found["options"]["affine"]) == (True, True)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_may_wrap_the_state_dict(wrapper: str, tmp_path: Path) -> None:
    path = tmp_path / "epoch3.pt"
    torch.save({"epoch": 3, wrapper: model().state_dict(), "optimizer": {"state": {0: {"step": 5}}}}, path)
    assert document("state", path)["layers"][0]["prefix"] == "layer1.0.bn1"


@pytest.mark.parametrize(
    "names",
    [
        ("bn.gamma", "bn.beta", "bn.moving_mean", "bn.moving_variance"),
        ("bn/gamma:0", "bn/beta:0", "bn/moving_mean:0", "bn/moving_variance:0"),
        ("params/bn/scale", "params/bn/bias", "batch_stats/bn/mean", "batch_stats/bn/var"),
    ],
    ids=["keras", "keras with slashes", "flax"],
)
def test_names_of_other_frameworks(names: tuple[str, ...], tmp_path: Path) -> None:
    values = [[2.0, 3.0], [0.5, -1.0], [1.0, 2.0], [4.0, 9.0]]
    path = tmp_path / "weights.npz"
    np.savez(path, **dict(zip(names, map(np.array, values), strict=True)))
    found = document("batch", "[[1,2],[3,5]]", "--state", path, "--prefix", "bn", "--mode", "eval", "--eps", "0")
    assert found["output"] == [[0.5, -1.0], [2.5, 2.0]]


FLAT = {"weight": [2, 3], "bias": [0.5, -1], "running_mean": [1, 2], "running_var": [4, 9], "num_batches_tracked": 3}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    path = tmp_path / "flat.json"
    path.write_text(json.dumps(FLAT))
    return path


@pytest.mark.parametrize(
    "text",
    [json.dumps({"bn": FLAT}), json.dumps({f"bn.{name}": value for name, value in FLAT.items()}), json.dumps(FLAT)],
    ids=["nested", "dotted", "flat"],
)
def test_the_only_layer_needs_no_prefix(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(text)
    found = document("batch", "[[1,2],[3,5]]", "--state", tmp_path / "one.json", "--mode", "eval", "--eps", "0")
    assert found["output"] == [[0.5, -1.0], [2.5, 2.0]]


@pytest.mark.parametrize("prefix", ["layer1.0.bn1.", " layer1.0.bn1", "layer1/0/bn1"])
def test_a_prefix_may_be_written_loosely(prefix: str, files: dict[str, Path]) -> None:
    found = document("batch", files["x"], "--state", files["safetensors"], "--prefix", prefix)
    assert found["running"]["num_batches_tracked"] == 13


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_state_comes_through_a_pipe_too(suffix: str, files: dict[str, Path]) -> None:
    code, out, _ = invoke("state", "-", "--json", stdin=files[suffix].read_bytes())
    assert (code, len(json.loads(out)["layers"])) == (0, 6)


# --- what wins, what is implied -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [[0.5, -1.0], [2.5, 2.0]]),
        (("--weight", "[1,1]"), [[0.5, -1.0], [1.5, 0.0]]),
        (("--bias", "[0,0]"), [[0.0, 0.0], [2.0, 3.0]]),
        (("--no-affine",), [[0.0, 0.0], [1.0, 1.0]]),
        (("--running-var", "[16,1]"), [[0.5, -1.0], [1.5, 8.0]]),
        (("--no-track-running-stats",), [[-1.5, -4.0], [2.5, 2.0]]),
    ],
    ids=["none", "weight", "bias", "no affine", "running_var", "no tracking"],
)
def test_options_given_explicitly_win(options: tuple[str, ...], expected: list[Any], flat: Path) -> None:
    found = document("batch", "[[1,2],[3,5]]", "--state", flat, "--mode", "eval", "--eps", "0", *options)
    assert found["output"] == expected


def test_a_batch_norm_without_running_statistics_keeps_none(files: dict[str, Path], tmp_path: Path) -> None:
    """As torch's BatchNorm with track_running_stats=False, whose state_dict holds just these."""
    layer = nn.BatchNorm2d(6, track_running_stats=False).eval()
    layer.weight.data.normal_()
    path = save(layer, tmp_path / "bn.npz")
    code, out, err = invoke("batch", files["x"], "--state", path, "--mode", "eval", "--json")
    assert (code, err) == (
        0,
        f"warning: {path} holds no running statistics, so none are kept, and eval takes those of the batch; "
        "--track-running-stats starts them at 0 and 1\n",
    )
    with torch.no_grad():
        expected = layer(torch.from_numpy(np.load(files["x"]))).numpy()
    np.testing.assert_allclose(np.array(json.loads(out)["output"]), expected, rtol=3e-7, atol=5e-7)


def test_a_layer_without_weight_and_bias_is_not_affine(tmp_path: Path) -> None:
    path = save(nn.BatchNorm1d(2, affine=False), tmp_path / "bn.safetensors")
    found = document("batch", "[[1,2],[3,5]]", "--state", path)
    assert found["options"]["affine"] is False


@pytest.mark.parametrize(("answer", "code"), [("[[-1.0, 0.33333]]", 0), ("[[-1.0, 0.34333]]", 1)])
def test_decimals_of_a_text_state_widen_the_tolerance(answer: str, code: int, tmp_path: Path) -> None:
    """0.33 may be 0.33333 printed to two decimals."""
    (tmp_path / "s.json").write_text('{"weight": [1.00, 0.33], "bias": [0.00, 0.00]}')
    assert invoke("layer", "[[1,3]]", "--eps", "0", "--state", tmp_path / "s.json", "--expect", answer)[0] == code


def test_numbers_of_a_binary_state_are_exact(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", weight=np.array([1, 0.33]), bias=np.zeros(2))
    arguments = ("layer", "[[1,3]]", "--eps", "0", "--state", tmp_path / "s.npz", "--expect")
    assert invoke(*arguments, "[[-1.0, 0.33333]]")[0] == 1


def test_what_float64_cannot_hold_of_a_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"weight": [1e-400, 1], "bias": [9007199254740993, 0]}')
    assert invoke("layer", "[[1,3]]", "--state", tmp_path / "s.json")[2] == (
        "warning: 1e-400 rounds to 0\nwarning: 9007199254740993 is rounded to float64\n"
    )


# --- what is refused ------------------------------------------------------------------------------


def test_several_layers_need_a_prefix(files: dict[str, Path]) -> None:
    name = files["safetensors"]
    assert refusal("layer", files["x"], "--state", name) == (
        f"error: {name} holds 6 normalization layers; say which with --prefix layer1.0.gn, norm, norm2d and 3 more\n"
        f"hint: normcli state {name} shows them all\n"
    )


@pytest.mark.parametrize(
    ("prefix", "hint"),
    [
        ("bn1", "did you mean layer1.0.bn1?"),
        ("layer1.0.bn2", "did you mean layer1.0.bn1?"),
        ("layer1", "did you mean layer1.0.bn1, layer1.0.gn or layer1.0.inorm?"),
        ("zzz", "it holds layer1.0.bn1, layer1.0.gn, layer1.0.inorm, norm, norm2d and 1 more"),
    ],
)
def test_an_unknown_prefix_gets_a_suggestion(prefix: str, hint: str, files: dict[str, Path]) -> None:
    name = files["safetensors"]
    said = refusal("batch", files["x"], "--state", name, "--prefix", prefix)
    assert said == f"error: {name} holds no layer '{prefix}'\nhint: {hint}\n"


@pytest.mark.parametrize(
    ("kind", "prefix", "message"),
    [
        ("rms", "norm", "norm in {} holds bias, which RMSNorm does not have; use batch, instance, layer or group"),
        ("layer", "layer1.0.bn1", "layer1.0.bn1 in {} holds running_mean, which LayerNorm does not have; use batch or"),
        ("batch", "layer1.0.conv1", "weight has shape (6, 3, 3, 3); (6,) is needed, the number of channels of this"),
        ("batch", "norm", "weight has shape (5,); (6,) is needed, the number of channels of this tensor"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(kind: str, prefix: str, message: str, files: dict[str, Path]) -> None:
    name = files["safetensors"]
    said = invoke(kind, files["x"], "--state", name, "--prefix", prefix)[2]
    assert message.format(name) in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prefix", "bn1"), "error: --prefix names a layer of a file; give the file with --state\n"),
        (("--state", "nowhere.npz"), "error: no file nowhere.npz\n"),
        (("--state", ""), "error: the name of a file is empty\n"),
        (
            ("--save-state", "s.pt"),
            "error: cannot tell the format of 's.pt' by its suffix; use .json, .npz or .safetensors\n",
        ),
        (
            ("--save-state", "s.npz", "--no-affine", "--no-track-running-stats"),
            "error: there is no state to save: neither running statistics nor weight and bias\n"
            "hint: --track-running-stats keeps running statistics, --affine weight and bias\n",
        ),
    ],
    ids=["prefix without state", "no file", "no name", "unknown suffix", "nothing to save"],
)
def test_options_that_make_no_sense_are_refused(arguments: tuple[str, ...], message: str) -> None:
    assert refusal("batch", "[[1,2],[3,5]]", *arguments) == message


def test_an_unknown_suffix_is_refused_before_anything_is_read() -> None:
    assert "cannot tell the format" in refusal("batch", "missing.npy", "--save-state", "s.txt")


def test_save_state_belongs_to_the_kinds_with_running_statistics() -> None:
    said = refusal("layer", "[1,2]", "--save-state", "s.json")
    assert said.startswith("error: layer has no option --save-state; it belongs to batch or instance\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is not a state: a JSON object with the keys weight, bias, running_mean, ..."),
        ('{"weight": [1', "is not valid JSON: Expecting ',' delimiter"),
        ('{"weight": [1,1], "weight": [1,1]}', "has the key 'weight' twice"),
        ('{"bn.weight": [1,1], "bn": {"weight": [1,1]}}', "holds two arrays named bn.weight"),
        ('{"weight": [[1],[1,2]]}', "weight is ragged: row 1 has 2 values, row 0 has 1"),
        ('{"weight": ["x", 1]}', "weight has text at [0], not a number: 'x'"),
        ('{"weight": [1e400, 1]}', "weight has 1e400 at [0], which does not fit in float64"),
        ('{"running_mean": [1, 2]}', "holds running_mean but no running_var"),
        ('{"running_var": [1, 2]}', "holds running_var but no running_mean"),
        ('{"weight": [1, 1], "num_batches_tracked": 1.5}', "has a num_batches_tracked that is no whole number from 0"),
        ('{"weight": [1, 1], "num_batches_tracked": -1}', "has a num_batches_tracked that is no whole number from 0"),
        ('{"kernel": [1, 1]}', "holds no normalization layer"),
        ('{"weight_map": {"bn.weight": "model-1.safetensors"}}', "is an index of the files model-1.safetensors; give"),
        ('{"weight": "auto", "bias": true, "scale": null}', "holds no normalization layer"),
        ("", "is empty"),
        ("weight,bias\n1,2\n", "is not valid JSON: Expecting value at line 1, position 1"),
        ('{"a": ' * 100_000, "is cut off: 100000 brackets are not closed"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_state_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    said = refusal("batch", "[[1,2],[3,5]]", "--state", path)
    assert (said.count("\n"), message in said) == (1, True)


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "s.npz", weight=npy(np.array([{}, {}], dtype=object)))
    said = refusal("batch", "[[1,2],[3,5]]", "--state", path)
    assert "contains Python objects (O); only real numbers can be normalized" in said


def test_a_bare_npy_is_refused(files: dict[str, Path]) -> None:
    assert "holds one array without a name" in refusal("state", files["x"])


# --- pickles --------------------------------------------------------------------------------------


class Touch:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def as_torch_zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def as_bare_pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def as_legacy_torch(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [as_torch_zip, as_bare_pickle, as_legacy_torch])
def test_a_pickle_that_would_run_code_does_not(write: Any, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "model.pt"
    write(OrderedDict(weight=torch.ones(2), bias=Touch(proof)), path)
    said = refusal("state", path)
    assert said.startswith(f"error: {path} ")
    assert not proof.exists()


def test_the_pickle_of_that_test_does_run_code_when_loaded(tmp_path: Path) -> None:
    as_torch_zip({"bias": Touch(tmp_path / "proof")}, tmp_path / "model.pt")
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "proof").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.BatchNorm1d(2), tmp_path / "model.pt")
    assert "hint: save the state_dict alone, from Python:" in refusal("state", tmp_path / "model.pt")


def test_packed_members_are_refused_before_torch_sees_them(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is a PyTorch file with packed members, which torch.save never writes" in refusal("state", tmp_path / "b.pt")


def test_a_checkpoint_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"weight": torch.ones(2), "bias": torch.zeros(2)}
    loop["again"] = loop
    torch.save(loop, tmp_path / "loop.pt")
    assert [layer["prefix"] for layer in document("state", tmp_path / "loop.pt")["layers"]] == [""]


def test_without_torch_a_checkpoint_is_unavailable(
    files: dict[str, Path], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    done = subprocess.run(
        [sys.executable, "-m", "normcli", "state", str(files["pt"])],
        capture_output=True, text=True, check=False,
        env=environment | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (
        3,
        "",
        f"error: {files['pt']} is a PyTorch checkpoint, a pickle, which only torch may read, and it is not installed\n"
        "hint: from Python: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')\n",
    )


@pytest.mark.parametrize("version", ["2.5.1+cu121", "2.9.1", "1.13"])
def test_a_torch_with_known_holes_is_not_used(
    version: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UnavailableError, match=r"2\.10 or later reads it safely"):
        layers.summaries(str(files["pt"]))


# --- save and load --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "npz", "safetensors"])
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_a_saved_state_goes_on_bit_for_bit(suffix: str, kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Two runs, the state between them in a file, give what one run over both batches gives."""
    first, second, saved = files["x"], tmp_path / "second.npy", tmp_path / f"s.{suffix}"
    np.save(second, np.load(first) * 3 - 1)
    start = ("--state", files["safetensors"], "--prefix", "layer1.0.bn1")
    code, out, err = invoke(kind, first, second, *start, "--json")
    assert (code, err) == (0, "")
    assert invoke(kind, first, *start, "--save-state", saved)[0] == 0
    assert document(kind, second, "--state", saved) == json.loads(out.splitlines()[1])


def test_a_saved_state_is_what_torch_loads(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    assert invoke("batch", "[[1,2],[3,5]]", "--weight", "[2,3]", "--save-state", path)[0] == 0
    layer = nn.BatchNorm1d(2)
    from safetensors.torch import load_file

    layer.load_state_dict(load_file(path), strict=True)
    found = {name: tensor.tolist() for name, tensor in layer.state_dict().items()}
    assert found["weight"] == [2.0, 3.0]
    assert found["bias"] == [0.0, 0.0]
    assert found["num_batches_tracked"] == 1
    np.testing.assert_allclose(found["running_var"], [1.1, 1.35], rtol=1e-7)


def test_a_saved_state_as_json(normcli: Run, tmp_path: Path) -> None:
    assert normcli("batch", "[[1,2],[3,5]]", "[[0,1],[4,1]]", "--save-state", "s.json").returncode == 0
    assert (tmp_path / "s.json").read_text() == (
        '{"weight": [1.0, 1.0], "bias": [0.0, 0.0], "running_mean": [0.38, 0.41500000000000004], '
        '"running_var": [1.79, 1.215], "num_batches_tracked": 2}\n'
    )


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--no-affine",), ["running_mean", "running_var", "num_batches_tracked"]),
        (("--no-track-running-stats",), ["weight", "bias"]),
    ],
)
def test_only_what_the_layer_has_is_saved(options: tuple[str, ...], names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    assert invoke("batch", "[[1,2],[3,5]]", *options, "--save-state", path)[0] == 0
    with np.load(path) as saved:
        assert list(saved) == names


def test_numbers_of_a_saved_state_have_their_dtypes(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    arguments = ("batch", files["x"], "--state", files["safetensors"], "--prefix", "layer1.0.bn1", "--save-state", path)
    assert invoke(*arguments)[0] == 0
    with np.load(path) as saved:
        assert {name: str(array.dtype) for name, array in saved.items()} == {
            "weight": "float32",
            "bias": "float32",
            "running_mean": "float64",
            "running_var": "float64",
            "num_batches_tracked": "int64",
        }


def test_a_failed_run_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("{}")
    refusal("batch", "[[1,2],[3,5]]", "[[1,2,3]]", "--save-state", path)
    assert path.read_text() == "{}"


def test_a_state_may_be_saved_over_itself(flat: Path) -> None:
    assert invoke("batch", "[[1,2],[3,5]]", "--state", flat, "--save-state", flat)[0] == 0
    assert json.loads(flat.read_text())["num_batches_tracked"] == 4


# --- what a file holds ----------------------------------------------------------------------------


def test_state_lists_the_layers_of_a_checkpoint(normcli: Run, tmp_path: Path) -> None:
    network = model()
    network.get_submodule("layer1.0.bn1").running_var.copy_(torch.tensor([0.5, -1, 2, torch.inf, 1, 1.5]))
    network.get_submodule("layer1.0.bn1").running_mean.copy_(torch.tensor([0.5, -1, 2, 0.25, 1, 1.5]))
    network.get_submodule("layer1.0.inorm").running_mean.fill_(0.5)
    network.get_submodule("layer1.0.inorm").running_var.fill_(2)
    network.rms.weight.data[1] = torch.nan
    save(network, tmp_path / "model.pt")
    assert (
        normcli("state", "model.pt").stdout
        == """\
normalization layers of model.pt
layer           arrays                                   shape and dtype  can be
───────────────────────────────────────────────────────────────────────────────────────────────────────
layer1.0.bn1    weight, bias, running_mean, running_var  (6) float32      batch, instance
layer1.0.inorm  weight, bias, running_mean, running_var  (6) float32      batch, instance
layer1.0.gn     weight, bias                             (6) float32      layer, group, instance, batch
norm            weight, bias                             (5) float32      layer, group, instance, batch
norm2d          weight, bias                             (4, 5) float32   layer
rms             weight                                   (5) float32      rms, layer

running statistics
layer           batches  running_mean  running_var
──────────────────────────────────────────────────
layer1.0.bn1    12       -1 to 2       -1 to 2
layer1.0.inorm  12       0.5           2

remarks
layer         remark
────────────────────────────────────────────────────────────────────────────────────────────
layer1.0.bn1  running_var holds 1 negative value
layer1.0.bn1  running_var holds 1 NaN or infinite value
layer1.0.gn   this layer may add 1 (--weight-offset 1): its weights lie about 0, not about 1
rms           weight holds 1 NaN or infinite value
"""
    )


def test_state_as_json(flat: Path) -> None:
    assert document("state", flat) == {
        "schema": 1,
        "file": str(flat),
        "layers": [
            {
                "prefix": "",
                "kinds": ["batch", "instance"],
                "arrays": {
                    "weight": {"name": "weight", "shape": [2], "dtype": "float64"},
                    "bias": {"name": "bias", "shape": [2], "dtype": "float64"},
                    "running_mean": {"name": "running_mean", "shape": [2], "dtype": "float64", "min": 1.0, "max": 2.0},
                    "running_var": {"name": "running_var", "shape": [2], "dtype": "float64", "min": 4.0, "max": 9.0},
                    "num_batches_tracked": {"name": "num_batches_tracked", "shape": [], "dtype": "float64"},
                },
                "num_batches_tracked": 3,
                "remarks": [],
            }
        ],
        "others": 0,
    }


def test_state_of_a_model_without_norms(tmp_path: Path) -> None:
    path = save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Embedding(5, 4), nn.PReLU()), tmp_path / "m.pt")
    assert invoke("state", path) == (0, f"{path} holds no normalization layer\n", "")


def test_a_layer_whose_dtype_cannot_be_read_is_still_listed(tmp_path: Path) -> None:
    header = {
        name: {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [2 * at, 2 * at + 2]}
        for at, name in enumerate(("bn.running_mean", "bn.running_var"))
    }
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    layer = document("state", path)["layers"][0]
    assert layer["remarks"] == [
        f"{path}::bn.{name} is of dtype F8_E4M3, which cannot be read; save it as F32 or BF16"
        for name in ("running_mean", "running_var")
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_list_holds_every_word_at_any_width(width: int, files: dict[str, Path]) -> None:
    from normcli.showing import table

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    _, _, found = layers.summaries(str(files["npz"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("NO_COLOR", "1")
        stream.writelines(table.tables("", state.sections("model.npz", found), stream))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "..." not in stream.getvalue()


# --- damage ---------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_read_or_refused_in_words(suffix: str, files: dict[str, Path], data: st.DataObject) -> None:
    content = bytearray(files[suffix].read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    damaged = files[suffix].with_name(f"damaged.{suffix}")
    damaged.write_bytes(content)
    code, _, err = invoke("state", damaged)
    assert (code in (0, 2, 3), "a bug" in err) == (True, False), err
    try:
        layers.with_state(KINDS["batch"], {}, str(damaged), "layer1.0.bn1")
    except (InputError, UnavailableError) as error:
        assert "\n" not in str(error)


def test_from_python_a_state_is_an_option_like_any_other() -> None:
    x = np.arange(24.0).reshape(2, 6, 2)
    found = normcli.normalize(x, "batch", mode="eval", state=ROOT / "examples/model.safetensors", prefix="layer1.0.bn1")
    assert found.before.num_batches_tracked == 4
    assert found.before.weight is not None
    with pytest.raises(InputError, match="give the file as state"):
        normcli.normalize(x, "batch", prefix="layer1.0.bn1")
