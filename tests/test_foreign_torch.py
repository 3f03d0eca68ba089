"""A torch that is not the one we know, or is broken, is an exit in words: exit code 3, never a bug of ours."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Run

FOREIGN = {
    "empty": {"torch/__init__.py": ""},
    "without nn.functional": {"torch/__init__.py": "", "torch/nn/__init__.py": ""},
    "without functions": {"torch/__init__.py": "", "torch/nn/__init__.py": "", "torch/nn/functional.py": ""},
    "an ImportError inside": {"torch/__init__.py": "import numpy.nothing_of_the_kind"},
    "a library that is missing": {"torch/__init__.py": "raise OSError('libtorch.so:\\nno such file')"},
    "of another time": {"torch/__init__.py": "print >> 1, 2 +"},
    "a module": {"torch.py": "raise RuntimeError"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(
    "arguments",
    [("--backend", "torch"), ("--versus", "torch"), ("--device", "cuda"), ("--state", "model.pt")],
    ids=["backend", "versus", "device", "state"],
)
def test_a_foreign_torch_is_named_in_words(
    files: dict[str, str], arguments: tuple[str, ...], normcli: Run, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
    done = normcli("batch", "[[1,2],[3,5]]", *arguments, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == 3, done
    assert re.fullmatch(r"error: [^\n]*torch is installed but cannot be used: [^\n]+\n(hint: [^\n]+\n)?", done.stderr)
    assert done.stdout == ""
