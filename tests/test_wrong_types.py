"""From Python anything may be given for an option: what does not fit is refused in one line that names the option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normcli
from normcli.errors import InputError

X = np.arange(24.0).reshape(2, 4, 3)
OTHERS: tuple[Any, ...] = (
    [], {}, {"a": 1}, b"2", "x", object(), 1 + 2j, np.array([1.0, 2.0]), np.array("a"), slice(1), np.datetime64("2020"),
    10**5000, "one\ntwo", ["torch"], int,
)  # fmt: skip
OPTIONS = {
    "eps": "batch", "weight": "layer", "bias": "layer", "affine": "batch", "ddof": "batch", "mode": "batch",
    "momentum": "batch", "decay": "batch", "track_running_stats": "batch", "running_mean": "batch",
    "running_var": "batch", "num_batches_tracked": "batch", "running_ddof": "batch", "channel_axis": "batch",
    "convention": "batch", "dtype": "batch", "groups": "group", "normalized_shape": "layer", "threads": "rms",
    "steps": "rms", "backend": "rms",
}  # fmt: skip


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_wrong_type_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"\A[^\n]*{option}[^\n]*\Z"):
        normcli.normalize(X, OPTIONS[option], **{option: value})


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_a_kind_of_a_wrong_type_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"\Akind [^\n]* is not known; use batch[^\n]*\Z"):
        normcli.normalize(X, value)


@pytest.mark.parametrize(("option", "value"), [("state", []), ("state", 3), ("prefix", ["bn1"])])
def test_a_file_and_its_layer_have_names(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{option} is "):
        normcli.normalize(X, "batch", **({"state": "state.json"} | {option: value}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("affine", np.True_), ("ddof", np.int64(0)), ("eps", np.float32(1e-5)), ("dtype", np.dtype("float32")),
        ("momentum", np.array(0.1)), ("channel_axis", np.int8(1)),
    ],
)  # fmt: skip
def test_numbers_of_numpy_are_numbers(option: str, value: Any) -> None:
    assert normcli.normalize(X, "batch", **{option: value}).output.shape == X.shape


@pytest.mark.parametrize("where", ["x", "weight"])
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda torch: torch.ones(3, 3).to_sparse(), r"is sparse \(torch.sparse_coo\); give its to_dense\(\)"),
        (lambda torch: torch.ones(3, 3, device="meta"), "cannot be read: "),
        (lambda torch: torch.ones(3, 3).to(torch.float8_e4m3fn), "cannot be read: "),
    ],
    ids=["sparse", "meta", "float8"],
)
def test_a_tensor_that_no_array_can_hold_is_refused(made: Any, message: str, where: str) -> None:
    tensor = made(pytest.importorskip("torch"))
    given = {"x": X, "weight": None} | {where: tensor}
    with pytest.raises(InputError, match=message):
        normcli.normalize(given["x"], "layer", weight=given["weight"])


@pytest.mark.parametrize(
    "device", [object(), ["cpu"], 10**5000, "", np.array([1, 2])], ids=lambda value: type(value).__name__
)
def test_a_device_of_a_wrong_type_is_refused(device: Any) -> None:
    pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"\Adevice [^\n]* is not known[^\n]*\Z"):
        normcli.normalize(X, "layer", device=device)
