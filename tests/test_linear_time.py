"""What once took minutes: readers are linear in their input. (tests/benchmarks/linear.py measures it.)"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = ", ".join(f'"k{i}": 1' for i in range(50_000))
BLANKS = " " * 200_000
SLOW = {
    "digits and a cell": ("1" * 100_000 + ",2\n", "has 111111111111111111111... at [0], which does not fit in float64"),
    "blanks after a call that is cut off": (f"tensor([1,2]{BLANKS}", "is cut off: 1 bracket is not closed"),
    "blanks after an open bracket": (f"[1 2{BLANKS}", "is cut off: 1 bracket is not closed"),
    "one of 50,000 keys twice": (f'{{{KEYS}, "k49999": 2}}', "has the key 'k49999' twice"),
}


@pytest.mark.parametrize(("text", "message"), SLOW.values(), ids=SLOW)
def test_hostile_text_is_refused_within_seconds(
    environment: dict[str, str], tmp_path: Path, text: str, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "normcli", "layer", "-"],
        input=text,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: standard input {message}\n")


def test_a_state_of_many_arrays_is_opened_once(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive was gone through again for every array of it."""
    import zipfile

    import numpy as np

    from normcli.layers import summaries

    np.savez(tmp_path / "state.npz", **{f"bn{i}.weight": np.ones(2) for i in range(50)})
    opened = []
    start = zipfile.ZipFile.__init__

    def counting(self: zipfile.ZipFile, *arguments: object, **named: object) -> None:
        opened.append(arguments)
        start(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(zipfile.ZipFile, "__init__", counting)
    assert len(summaries(str(tmp_path / "state.npz"))[2]) == 50
    assert len(opened) == 1


def test_a_name_over_many_is_refused(tmp_path: Path) -> None:
    """Every name within holds it: 1 MB of JSON grew to gigabytes."""
    from normcli.errors import InputError
    from normcli.layers import summaries

    inner = {f"{i}.weight": [1] for i in range(20)}
    (tmp_path / "state.json").write_text(json.dumps({"a" * 100_000: inner}))
    with pytest.raises(InputError, match=r"state\.json has a name of more than 1000 characters: aaa"):
        summaries(str(tmp_path / "state.json"))
