"""The scripts of ``--format jax`` and ``--format keras``, run where those libraries are installed."""

from __future__ import annotations

import os

import pytest
import scripts

os.environ["KERAS_BACKEND"] = "jax"

LIBRARIES = [("jax", "flax"), ("keras", "keras")]


@pytest.mark.parametrize("gradients", [False, True], ids=["output", "gradients"])
@pytest.mark.parametrize("case", scripts.CASES)
@pytest.mark.parametrize(("name", "library"), LIBRARIES, ids=["jax", "keras"])
def test_a_script_gives_the_same_numbers(name: str, library: str, case: str, gradients: bool) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    scripts.check(name, case, gradients=gradients, **scripts.BIASED)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["batch", "batch eval", "instance", "layer", "group", "rms"])
@pytest.mark.parametrize(("name", "library"), LIBRARIES, ids=["jax", "keras"])
def test_a_script_gives_the_same_numbers_in_other_dtypes(name: str, library: str, case: str, dtype: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    scripts.check(name, case, dtype=dtype, gradients=True, **scripts.BIASED)
