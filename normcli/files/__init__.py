"""Files: whatever holds a tensor, read and written; nothing is unpickled or evaluated.

A name below is imported from its module when it is first used.

>>> from normcli import files
>>> files.read_tensor("[1, 2]").array.tolist()
[1.0, 2.0]
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "read": ("open_arrays", "read_document", "read_tensor", "read_tensors"),
    "npy": ("created", "opened"),
    "write": ("OUTPUTS", "check_suffix", "is_replaceable", "whole_file", "write_tensor_to", "write_text"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"normcli.files.{module}"), name)
    raise AttributeError(f"module 'normcli.files' has no attribute {name!r}")
