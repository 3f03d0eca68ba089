"""The faces of the rooms: modules that are imported when they are first asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest
from conftest import ROOT

ROOMS = ("files", "arithmetic", "teaching", "showing", "commands")
OFFERED = [(room, name) for room in ROOMS for name in import_module(f"normcli.{room}").__all__]


@pytest.mark.parametrize(("room", "name"), OFFERED, ids="-".join)
def test_a_room_has_every_module_that_it_offers(room: str, name: str) -> None:
    found = getattr(import_module(f"normcli.{room}"), name)
    assert isinstance(found, ModuleType)
    assert found.__name__ == f"normcli.{room}.{name}"


@pytest.mark.parametrize("room", ["", *(f".{room}" for room in ROOMS)])
def test_a_room_says_what_it_does_not_have(room: str) -> None:
    with pytest.raises(AttributeError, match=f"^module 'normcli{room}' has no attribute 'nothing'$"):
        _ = import_module(f"normcli{room}").nothing


def test_a_room_loads_nothing_by_itself(environment: dict[str, str]) -> None:
    code = "import sys, normcli\n" + "".join(f"import normcli.{room}\n" for room in ROOMS)
    code += "print(sorted(name for name in sys.modules if name.startswith('normcli.') or name in ('numpy', 'rich')))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"{sorted(f'normcli.{room}' for room in ROOMS)}\n"
