"""What all tests share: a command line run as a user runs it, its JSON held against the schema."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest
import typer.testing

ROOT = Path(__file__).parent.parent

Run = Callable[..., subprocess.CompletedProcess[str]]

# What a developer's own terminal or a CI service sets must not change what is tested.
_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "GITHUB_ACTIONS", "PY_COLORS", "NORMCLI_DEBUG")


os.environ.pop("COLUMNS", None)  # those who share the work of a machine are told a width that is nobody's


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def normcli(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run ``normcli ARGUMENTS`` as a process of its own, in an empty folder."""

    def run(
        *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None, cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "normcli", *arguments],
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
