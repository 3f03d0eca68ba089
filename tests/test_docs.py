"""Every ``$ normcli ...`` line in the README and in the guides is run, and its output compared; Python is run too.

The pictures that the lines draw into pictures/ are compared as well. As a command, this file writes pages and
pictures as they are today.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from conftest import Started

from normcli.commands.cli import COMMANDS, make_app

ROOT = Path(__file__).parent.parent
LIBRARIES = {"datasets.md": ("zarr", "PIL", "distributed")}  # which come with extras
PICTURES = ROOT / "examples" / "pictures"
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


def prepare(place: Path, command: Path, run: Sequence[str] = (sys.executable, "-m", "normcli")) -> None:
    """Copy examples/ to ``place`` and make a ``normcli`` command that runs so."""
    shutil.copytree(ROOT / "examples", place, dirs_exist_ok=True)
    for picture in (place / "pictures").iterdir():
        picture.unlink()
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec {shlex.join(run)} "$@"\n')
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
def folder(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], started: Started
) -> tuple[Path, dict[str, str]]:
    """A copy of examples/ to run in, with a ``normcli`` command on the path."""
    place, command = tmp_path_factory.mktemp("docs"), tmp_path_factory.mktemp("bin") / "normcli"
    prepare(place, command, started(torch=False))
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


# --- what the pages hold ----------------------------------------------------------------------------

GUIDES = "".join(page.read_text() for page in PAGES)


def drawn(text: str) -> list[str]:
    """The pictures that commands of a page draw."""
    return re.findall(r"--svg pictures/(\S+\.svg)", text)


@pytest.mark.parametrize("page", [page for page in PAGES if drawn(page.read_text())], ids=lambda page: page.name)
def test_pictures_are_what_the_commands_draw(page: Path, folder: tuple[Path, dict[str, str]]) -> None:
    place, env = folder
    for name in drawn(page.read_text()):
        (place / "pictures" / name).unlink(missing_ok=True)
    as_run(page, place, env)
    for name in drawn(page.read_text()):
        assert (place / "pictures" / name).read_text() == (PICTURES / name).read_text()


def test_every_picture_is_drawn_by_a_page_and_shown_on_one() -> None:
    kept = {picture.name for picture in PICTURES.iterdir()}
    assert kept == set(drawn(GUIDES)) == set(re.findall(r"!\[.*\]\((?:examples/)?pictures/(.*)\)", GUIDES))


@pytest.mark.parametrize("picture", sorted(PICTURES.iterdir()), ids=lambda picture: picture.name)
def test_pictures_fetch_nothing(picture: Path) -> None:
    text = picture.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert re.findall(r"//|url\((?!#)|@import|@font-face|href|<script|<image", text) == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_guide_is_in_the_index() -> None:
    index = (ROOT / "examples" / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if page.name != "README.md" and f"]({page.name})" not in index] == []


def test_the_guides_show_every_command() -> None:
    assert [name for name in COMMANDS if not re.search(rf"normcli {name}\b|`{name}`", GUIDES)] == []


def test_the_guides_tell_of_every_option() -> None:
    command = typer.main.get_command(make_app())
    assert isinstance(command, typer.core.TyperGroup)
    options = {name for one in command.commands.values() for parameter in one.params for name in parameter.opts}
    told = {name for name in options if re.search(rf"(?<![\w-]){name}(?![\w-])", GUIDES)}
    assert sorted(name for name in options - told if name.startswith("--")) == []


def test_the_manual_page_is_what_the_help_says() -> None:
    made = runpy.run_path(str(ROOT / "man" / "make.py"))  # which also writes it, as a command
    assert made["PAGE"].read_text() == made["page"]()


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
            for name in drawn(written.read_text()):
                (PICTURES / name).write_text((examples_copy / "pictures" / name).read_text())
