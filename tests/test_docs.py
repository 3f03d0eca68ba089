"""Every ``$ normcli ...`` line in the README and in examples/ is run, and its output compared; Python is run too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = {"datasets.md": ("zarr", "PIL", "distributed")}  # which come with extras
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md"))]


@dataclass(frozen=True)
class Example:
    command: str
    output: str


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page that are run, each with its language, in order."""
    return re.findall(r"```(console|python)\n(.*?)```", page.read_text(), re.DOTALL)


def examples(block: str) -> list[Example]:
    """The commands of a ``console`` block, each with the output that follows it."""
    found = []
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None
        found.append(Example(command.group().strip(), part[command.end() :]))
    return found


def prepare(place: Path, command: Path) -> None:
    """Copy examples/ to ``place`` and make a ``normcli`` command."""
    shutil.copytree(ROOT / "examples", place, dirs_exist_ok=True)
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m normcli "$@"\n')
    command.chmod(0o755)


def as_run(page: Path, place: Path, env: dict[str, str]) -> str:
    """The page with what its commands print today; its Python, one session, must run to the end."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(command, cwd=place, env=env, **streams, text=True, timeout=120, check=False)

    text, session = page.read_text(), ""
    for language, block in blocks(page):
        if language == "python":
            session += block
            done = run(sys.executable, "-c", session)
            assert done.returncode == 0, f"{session}\n{done.stdout}"
            continue
        for example in examples(block):
            done = run("bash", "-c", example.command)
            text = text.replace(f"$ {example.command}\n{example.output}", f"$ {example.command}\n{done.stdout}", 1)
    return text


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """A copy of examples/ to run in, with a ``normcli`` command on the path."""
    place, command = tmp_path_factory.mktemp("docs"), tmp_path_factory.mktemp("bin") / "normcli"
    prepare(place, command)
    return place, environment | {"PATH": f"{command.parent}:{environment['PATH']}"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_output_is_what_the_commands_print(page: Path, folder: tuple[Path, dict[str, str]]) -> None:
    for library in LIBRARIES.get(page.name, ()):
        pytest.importorskip(library)
    assert as_run(page, *folder) == page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_there_are_examples_to_run(page: Path) -> None:
    assert any(examples(block) for language, block in blocks(page) if language == "console")


def test_python_that_is_wrong_fails(tmp_path: Path, folder: tuple[Path, dict[str, str]]) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n```console\n$ echo 1\n1\n```\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError, match="assert x == 2"):
        as_run(page, *folder)


def test_readme_shows_every_command() -> None:
    from normcli.commands.cli import make_app

    text = (ROOT / "README.md").read_text()
    names = [command.name for command in make_app().registered_commands]
    assert [name for name in names if f"normcli {name}" not in text] == []


if __name__ == "__main__":
    import os
    import tempfile

    for written in PAGES:
        with tempfile.TemporaryDirectory() as folder_name:
            copy = Path(folder_name)
            command_file, examples_copy = copy / "bin" / "normcli", copy / "examples"
            prepare(examples_copy, command_file)
            path = f"{command_file.parent}:{os.environ['PATH']}"
            # Read the difference before it is committed.
            written.write_text(as_run(written, examples_copy, os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}))
