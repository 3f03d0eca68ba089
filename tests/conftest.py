"""What all tests share: a command line run as a user runs it, its JSON held against the schema."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import documents
import pytest
import typer.testing

import normcli as normcli_package

ROOT = Path(__file__).parent.parent

WARM = Path(__file__).parent / "warm.py"
COLD = [sys.executable, "-m", "normcli"]  # with an environment of its own, which Python reads when it starts

Run = Callable[..., subprocess.CompletedProcess[str]]

# What a developer's own terminal or a CI service sets must not change what is tested.
_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "GITHUB_ACTIONS", "PY_COLORS", "NORMCLI_DEBUG")


os.environ.pop("COLUMNS", None)  # those who share the work of a machine are told a width that is nobody's


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {"PYTHONPATH": str(ROOT)}


Started = Callable[..., list[str]]


@pytest.fixture(scope="session")
def started(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The beginning of a command that runs normcli in a process of its own, forked from one that has imported it.

    With torch imported as well, if that is asked for.
    """
    servers: list[subprocess.Popen[str]] = []
    place = tmp_path_factory.mktemp("warm")

    @cache
    def started(*, torch: bool) -> list[str]:
        address = str(place / ("torch" if torch else "numpy"))
        modules = [one.name for one in walk_packages(normcli_package.__path__, "normcli.") if "torch" not in one.name]
        modules += ["torch", "normcli.arithmetic.torch"] if torch else []
        server = subprocess.Popen(
            [sys.executable, str(WARM), "serve", address, *modules],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what a test sends to its own group is not for this one
        )
        servers.append(server)
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        return [sys.executable, "-ISs", str(WARM), address]

    yield started
    for server in servers:
        server.kill()
        server.communicate()


@pytest.fixture
def normcli(environment: dict[str, str], started: Started, tmp_path: Path) -> Run:
    """Run ``normcli ARGUMENTS`` as a process of its own, in an empty folder."""

    def run(
        *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None, cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        usual = started(torch=any("torch" in one for one in arguments)) if env is None else COLD
        done = subprocess.run(
            [*usual, *arguments],
            input=data,
            capture_output=True,
            env=environment | (env or {}),
            cwd=cwd,
            timeout=120,
            check=False,
        )
        documents.check(arguments, done.stdout.decode())
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(autouse=True)
def _documents_are_as_the_schema_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a command line that a test runs in its own process."""
    invoke = typer.testing.CliRunner.invoke

    def run(self: Any, app: Any, args: Any = None, **more: Any) -> Any:
        done = invoke(self, app, args, **more)
        documents.check([] if args is None or isinstance(args, str) else args, done.stdout)
        return done

    monkeypatch.setattr(typer.testing.CliRunner, "invoke", run)
