"""What was compiled at installation, and what is said where it was not."""

from __future__ import annotations

import importlib.util
import runpy
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import setuptools
from conftest import ROOT
from typer.testing import CliRunner

from normcli.arithmetic import loops
from normcli.commands.cli import app

STABLE = {"bdist_wheel": {"py_limited_api": "cp311"}}


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library is looked for anew, and anew again afterwards."""
    loops._found.cache_clear()
    yield
    loops._found.cache_clear()


def version() -> str:
    return CliRunner().invoke(app, ["--version"]).stdout


@pytest.mark.skipif(loops.compiled() is None, reason="installed without a C compiler")
def test_the_version_says_that_there_are_compiled_loops() -> None:
    assert version() == "normcli 0.2.0 (compiled loops)\n"


@pytest.mark.usefixtures("fresh")
def test_the_version_says_that_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert version() == "normcli 0.2.0 (no compiled loops: not compiled when normcli was installed)\n"


@pytest.mark.usefixtures("fresh")
def test_a_library_that_cannot_be_loaded_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_loops.so").write_bytes(b"no library")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "_loops.so")))
    assert version().startswith("normcli 0.2.0 (no compiled loops: they cannot be loaded: ")


@pytest.mark.usefixtures("fresh")
@pytest.mark.skipif(loops.compiled() is None, reason="installed without a C compiler")
def test_a_library_with_another_struct_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_SLAB", [size + 8 * (place > 20) for place, size in enumerate(loops._SLAB)])
    assert loops.compiled() is None
    assert version() == "normcli 0.2.0 (no compiled loops: they were compiled from another version of normcli)\n"


@pytest.mark.parametrize(
    ("dtype", "columns", "said"),
    [("float64", 40_000, 1), ("float32", 40_000, 0), ("float32", 400_000, 1), ("float16", 400_000, 1)],
)
def test_slow_tensors_are_hinted_at_once(
    dtype: str, columns: int, said: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loops, "_found", lambda: (None, "not compiled when normcli was installed"))
    np.save(tmp_path / "x.npy", np.ones((2, columns), dtype))
    done = CliRunner().invoke(app, ["batch", *[str(tmp_path / "x.npy")] * 2, "--only", "statistics"])
    assert done.stderr.count(f"hint: {dtype} tensors of this size are slow without the compiled loops") == said
    assert (done.exit_code, done.stderr.count("\n")) == (0, said)


@pytest.mark.parametrize(
    ("free_threaded", "stable", "options"),
    [(1, False, {}), (0, True, STABLE), (None, True, STABLE)],
)
def test_python_without_its_lock_has_no_stable_interface(
    free_threaded: Any, stable: bool, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: called.update(given))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: free_threaded if name == "Py_GIL_DISABLED" else None)
    runpy.run_path(str(ROOT / "setup.py"))
    (extension,) = called["ext_modules"]
    assert (extension.py_limited_api, bool(extension.define_macros)) == (stable, stable)
    assert called["options"] == options
