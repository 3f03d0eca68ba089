"""The torch backend: the same answers as the reference, or a refusal in words."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import Run

import normcli
from normcli.errors import InputError, UnavailableError
from normcli.floats import dtype_name

torch = pytest.importorskip("torch", reason="the torch backend needs torch")

# Largest difference to the reference for values of order 1: a few units of the dtype's last place.
TOLERANCE = {"float64": 1e-13, "float32": 1e-5, "float16": 8e-3, "bfloat16": 6e-2}

SHAPES = {
    "batch": [(5, 3), (4, 3, 6), (2, 3, 4, 5)],
    "instance": [(3, 7), (4, 3, 6), (2, 3, 4, 5)],
    "layer": [(7,), (5, 4), (2, 3, 5)],
    "group": [(5, 6), (2, 6, 4), (3, 6, 2, 4)],
    "rms": [(7,), (5, 4), (2, 3, 5)],
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "batch": [
        {},
        {"affine": True},
        {"mode": "eval", "running": True},
        {"mode": "eval", "track_running_stats": False},
        {"momentum": None, "num_batches_tracked": 3},
        {"momentum": 0.4, "eps": 1e-2, "affine": True},
        {"channel_axis": -1},
    ],
    "instance": [
        {},
        {"affine": True},
        {"track_running_stats": True, "momentum": 0.3},
        {"mode": "eval", "running": True},
    ],
    "layer": [{}, {"affine": True}, {"eps": 0.1}],
    "group": [
        {"groups": 3},
        {"groups": 2, "affine": True},
        {"groups": 1, "eps": 1e-3},
        {"groups": 2, "channel_axis": -1},
    ],
    "rms": [{}, {"affine": True}, {"eps": 1e-2}],
}
CASES = [
    (kind, shape, options, dtype)
    for kind, shapes in SHAPES.items()
    for shape, options, dtype in itertools.product(shapes, OPTIONS[kind], TOLERANCE)
    if not (options.get("channel_axis") == -1 and (kind == "group" and shape[-1] % 2))
]


def arguments(kind: str, shape: tuple[int, ...], options: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """A seeded tensor of mixed signs, and the options with weight, bias and statistics that are not 1 and 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.5, 2.0, size=shape)
    options = dict(options)
    axis = 0 if kind == "instance" and len(shape) == 2 else options.get("channel_axis", 1)
    parameters = shape[-1:] if kind in ("layer", "rms") else (shape[axis],)
    if options.pop("affine", False):
        options["weight"] = rng.uniform(-2, 2, parameters)
        options |= {"bias": rng.normal(size=parameters)} if kind != "rms" else {}
    if options.pop("running", False):
        options |= {"running_mean": rng.normal(size=parameters), "running_var": rng.uniform(0.5, 3, parameters)}
    return x, options


def test_there_are_200_cases() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=lambda value: str(value).replace(" ", ""))
def test_torch_agrees_with_the_reference(number: int, case: tuple[str, tuple[int, ...], dict[str, Any], str]) -> None:
    kind, shape, options, dtype = case
    x, given = arguments(kind, shape, options, number)
    ours, theirs = (normcli.normalize(x, kind, dtype=dtype, backend=name, **given) for name in ("numpy", "torch"))
    assert dtype_name(theirs.output) == dtype
    np.testing.assert_allclose(
        np.asarray(theirs.output, float), np.asarray(ours.output, float), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("name", ["mean", "var", "var_unbiased", "rstd", "running_mean", "running_var"])
def test_statistics_agree_with_the_reference(name: str) -> None:
    x, given = arguments("batch", (4, 3, 6), {"affine": True, "running": True}, 7)
    ours, theirs = (normcli.normalize(x, "batch", backend=backend, **given) for backend in ("numpy", "torch"))
    np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-13)


@pytest.mark.parametrize("name", ["centered", "normalized"])
def test_steps_agree_with_the_reference(name: str) -> None:
    x, given = arguments("instance", (4, 3, 6), {"affine": True}, 8)
    ours, theirs = (normcli.normalize(x, "instance", backend=b, steps=True, **given) for b in ("numpy", "torch"))
    np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("kind", "shape", "options", "message"),
    [
        ("batch", (3, 4), {"ddof": 1}, "torch normalizes with the biased variance only"),
        ("batch", (3, 4), {"running_ddof": 0}, "torch's running variance is the unbiased one"),
        ("group", (2, 4, 3), {"groups": 2, "convention": "mlx", "channel_axis": 1}, "torch has no interleaved groups"),
        (
            "instance",
            (2, 4, 3),
            {"track_running_stats": True, "momentum": None},
            "torch's InstanceNorm never moves its statistics",
        ),
        ("batch", (3, 4), {"eps": 0.0}, "torch refuses: batch_norm eps must be positive"),
        ("batch", (1, 4), {"convention": "keras", "running_ddof": 1, "mode": "eval", "track_running_stats": False},
         "torch refuses: Expected more than 1 value per channel"),
    ],
    ids=["ddof", "running_ddof", "interleaved", "instance momentum none", "eps 0", "one value"],
)  # fmt: skip
def test_what_torch_cannot_do_is_refused_by_name(
    kind: str, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        normcli.normalize(np.arange(np.prod(shape)).reshape(shape) ** 1.5, kind, backend="torch", **options)


def test_a_tensor_in_gives_tensors_out() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    result = normcli.normalize(x, "batch", backend="torch")
    expected = torch.nn.functional.batch_norm(x, None, None, training=True)
    assert torch.equal(result.output, expected)
    assert {type(result.mean), type(result.running_var)} == {torch.Tensor}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_tensor_is_read_by_the_reference_too(dtype: str) -> None:
    x = torch.tensor([[1.0, 2.5], [3.0, 7.0]], dtype=getattr(torch, dtype), requires_grad=True)
    result = normcli.normalize(x, "layer", eps=0)
    assert (dtype_name(result.output), result.output.astype(float).tolist()) == (dtype, [[-1.0, 1.0], [-1.0, 1.0]])


def test_out_receives_the_output() -> None:
    out = torch.empty(2, 2)
    normcli.normalize(torch.tensor([[1.0, 3.0], [2.0, 6.0]]), "layer", backend="torch", out=out)
    assert torch.allclose(out, torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]), atol=1e-4)


@pytest.mark.parametrize(
    ("device", "error"), [("cuda:99", UnavailableError), ("gpu", InputError)], ids=["missing", "unknown"]
)
def test_a_device_that_is_not_there(device: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"cpu"):
        normcli.normalize([[1.0, 2.0]], "layer", device=device)


def test_missing_device_exits_3_in_one_line(normcli: Run) -> None:
    done = normcli("layer", "[1,2]", "--device", "cuda:99")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (3, 1, "")


BLOCKER = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Missing())
sys.argv = ["normcli", "layer", "[1,2]", "--backend", BACKEND]
from normcli.__main__ import main
main()
"""


@pytest.mark.parametrize(("backend", "code"), [("torch", 3), ("numpy", 0)])
def test_without_torch(environment: dict[str, str], backend: str, code: int) -> None:
    script = BLOCKER.replace("BACKEND", repr(backend))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("pip install 'normcli[torch]'" in done.stderr) == (backend == "torch")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("kind", ["batch", "instance", "layer", "rms"])
def test_cuda_agrees_with_the_reference(kind: str) -> None:
    x, given = arguments(kind, (2, 3, 4), {"affine": True}, 3)
    ours = normcli.normalize(x, kind, dtype="float32", **given)
    theirs = normcli.normalize(x, kind, dtype="float32", device="cuda", **given)
    np.testing.assert_allclose(theirs.output, ours.output, rtol=1e-5, atol=1e-5)
    assert theirs.device.startswith("cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_cuda_tensors_stay_on_their_device() -> None:
    assert normcli.normalize(torch.ones(2, 3, device="cuda"), "layer", backend="torch").output.is_cuda


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda x: x[:1].expand(2, 2), "out overlaps itself"),
        (lambda x: np.zeros((2, 2), np.float32), "out is a ndarray; the output is a torch tensor"),
        (lambda x: x.clone().requires_grad_(), "out takes part in gradients"),
    ],
    ids=["expanded", "array", "gradients"],
)
def test_an_out_that_cannot_be_written_is_refused(out: Any, message: str) -> None:
    x = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    with pytest.raises(InputError, match=message):
        normcli.normalize(x, "layer", backend="torch", out=out(x))
    assert x.tolist() == [[1.0, 3.0], [2.0, 6.0]]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_an_array_has_no_tensor_for_its_output(backend: str) -> None:
    with pytest.raises(InputError, match="out is a Tensor; the output is a NumPy array"):
        normcli.normalize(np.ones((2, 2), np.float32), "layer", backend=backend, out=torch.zeros(2, 2))


def test_out_may_be_the_input() -> None:
    x = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    expected = normcli.normalize(x, "layer", backend="torch").output
    assert torch.equal(normcli.normalize(x, "layer", backend="torch", out=x).output, expected)


# --- what models do with the weight ---------------------------------------------------------------

OF_MODELS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "offset": ("layer", (5,), {"weight_offset": 1}),
    "cast": ("rms", (5,), {"cast": "before"}),
    "offset and cast": ("layer", (5,), {"weight_offset": 1, "cast": "before"}),
    "rows": ("layer", (3, 5), {"weight_offset": 1}),
    "rows of channels": ("group", (3, 4), {"groups": 2}),
    "rows of instances": ("instance", (3, 4), {}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kind", "shape", "options"), OF_MODELS.values(), ids=OF_MODELS)
def test_weights_of_models_agree(kind: str, shape: tuple[int, ...], options: dict[str, Any], dtype: str) -> None:
    rng = np.random.default_rng(8)
    x, flow = rng.normal(size=(2, 3, 4, 5))
    given = options | {"weight": rng.normal(size=shape), "dtype": dtype, "eps": 1e-5, "grad_output": flow}
    given |= {} if kind == "rms" else {"bias": rng.normal(size=shape)}
    here, there = (normcli.normalize(x, kind, backend=backend, **given) for backend in ("numpy", "torch"))
    for name in ("output", "grad_input", "grad_weight"):
        one, other = (np.asarray(getattr(result, name), np.float64) for result in (here, there))
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=4 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize(("cast", "offset"), [("after", 1), ("before", 0)], ids=["Gemma", "Llama"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_models_own_way_in_bfloat16(backend: str, cast: str, offset: int) -> None:
    """Gemma adds 1 and multiplies in float32, Llama multiplies what is rounded already (their modeling files)."""
    torch.manual_seed(4)
    x, weight = torch.randn(64, 48).bfloat16(), (0.3 * torch.randn(48)).bfloat16()
    wide = x.float()
    normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
    right = (normalized * (1 + weight.float())).bfloat16() if offset else weight * normalized.bfloat16()
    options = {"weight": weight, "eps": 1e-6, "weight_offset": offset, "cast": cast}
    found = normcli.normalize(x, "rms", backend=backend, **options).output
    found = torch.from_numpy(np.float32(found)) if backend == "numpy" else found.float()
    assert (found != right.float()).sum() <= 2  # float32 rounds a few to the other side
