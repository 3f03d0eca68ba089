"""Every JSON document that the tests print, held against the schema that normcli prints.

The schema leaves room for further keys; here it does not, so that a key that is added is added there too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from normcli import showing

SCHEMA = Path(showing.__path__[0], "schema.json")


def closed(part: Any) -> Any:
    """The schema without room for further keys.

    >>> closed({"properties": {"a": {"properties": {}, "additionalProperties": {}}}})["additionalProperties"]
    False
    """
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    more = {"additionalProperties": False} if isinstance(part.get("properties"), dict) else {}
    return more | {name: closed(value) for name, value in part.items()}


@cache
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(closed(schema))


def is_asked_for(arguments: Sequence[object]) -> bool:
    words = [str(word) for word in arguments]
    return "--json" in words or "--format=json" in words or ("--format", "json") in pairwise(words)


def check(arguments: Sequence[object], printed: str) -> None:
    """Hold each line that a command line with --json has printed against the schema."""
    if is_asked_for(arguments) and "--help" not in arguments:
        for line in printed.splitlines():
            assert validator().is_valid(json.loads(line)), f"the schema has no such document: {line[:2000]}"
