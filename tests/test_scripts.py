"""A script of a framework gives the numbers of the calculation; what the framework has not is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripts
from conftest import Run

from normcli.errors import InputError
from normcli.showing.formats import SCRIPTS

FRAMEWORKS = [name for name in SCRIPTS if name != "python"]


@pytest.mark.parametrize("gradients", [False, True], ids=["output", "gradients"])
@pytest.mark.parametrize("case", scripts.CASES)
def test_torch_gives_the_same_numbers(case: str, gradients: bool) -> None:
    scripts.check("torch", case, gradients=gradients)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["batch", "batch eval", "instance", "layer", "group", "rms"])
def test_torch_gives_the_same_numbers_in_other_dtypes(case: str, dtype: str) -> None:
    scripts.check("torch", case, dtype=dtype, gradients=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_in_a_file_is_loaded(normcli: Run, tmp_path: Path, name: str) -> None:
    for file, seed in (("x.npy", 1), ("w.npy", 2)):
        np.save(tmp_path / file, np.random.default_rng(seed).normal(size=(2, 3000) if seed == 1 else 3000))
    arguments = ("layer", "x.npy", "--gamma", "w.npy", "--dtype", "float32", "--dy", "ones", "--format", name)
    script = normcli(*arguments).stdout
    loads = [
        "np.load('x.npy').astype('float32').astype(float)",
        "np.load('w.npy').astype(float)",
        "np.full((2, 3000), 1.0)",
    ]
    assert [load for load in loads if load not in script] == []
    assert len(script) < 3000


@pytest.mark.parametrize("name", ["python", "torch"])
def test_a_script_that_loads_gives_the_same_numbers(normcli: Run, tmp_path: Path, name: str) -> None:
    x = np.random.default_rng(3).normal(size=(2, 3000))
    np.save(tmp_path / "x.npy", x)
    script = normcli("layer", "x.npy", "--dtype", "float32", "--format", name).stdout
    (tmp_path / "script.py").write_text(script + "np.save('y.npy', np.asarray(output))\n")
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True)
    ours = scripts.normcli.normalize(x, "layer", dtype="float32").output
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), ours, rtol=0, atol=2e-6)


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "ddof": ("torch", "layer", {"ddof": 1}, "PyTorch normalizes with the biased variance only; leave out --ddof 1"),
    "torch's running variance": ("torch", "batch", {"running_ddof": 0}, "PyTorch divides its running variance by n -"),
    "Flax's running variance": ("jax", "batch", {}, "Flax divides its running variance by n; give --running-ddof 0"),
    "Keras's running variance": ("keras", "batch", {}, "Keras divides its running variance by n; give"),
    "eps 0": ("torch", "batch", {"eps": 0}, "PyTorch refuses eps 0 with the statistics of a batch; give --eps"),
    "one value": ("torch", "group", {"groups": 4, "convention": "keras"}, "PyTorch refuses one value per mean"),
    "interleaved groups": ("keras", "group", {"groups": 2, "convention": "mlx"}, "Keras has no interleaved groups"),
    "statistics of instances": (
        "jax", "instance", {"track_running_stats": True, "running_ddof": 0},
        "Flax's InstanceNorm keeps no running statistics; give --no-track-running-stats",
    ),
    "statistics that stay": (
        "torch", "instance", {"track_running_stats": True, "momentum": None},
        "PyTorch's InstanceNorm never moves its statistics with momentum none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_framework_has_not_is_refused(case: str) -> None:
    name, kind, options, message = REFUSED[case]
    x = np.array([[1.0, 2, 4, 1]]) if case == "one value" else np.array([[1.0, 2, 4, 1], [6, 3, 2, 4]])
    with pytest.raises(InputError, match=message):
        scripts.written(name, x, kind, **options)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_kind_that_a_framework_has_not_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from normcli.showing import script

    refused = script.refuse
    monkeypatch.setattr(script, "refuse", lambda plan, library, layers: refused(plan, library, ()))
    with pytest.raises(InputError, match=r"has no LayerNorm; --format python has"):
        scripts.written(name, [[1.0, 2]], "layer")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_what_is_no_number_is_named(name: str) -> None:
    text, _ = scripts.written(name, [[1.0, np.nan, -np.inf]], "layer")
    module = {"torch": "torch", "jax": "jnp", "keras": "np"}[name]
    assert f"[[1.0, {module}.nan, -{module}.inf]]" in text
