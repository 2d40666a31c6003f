"""The values that may stand where an argument was refused. Imported when the first wrong choice is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

_PATH = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.{3})\]")


def choices_at(schema: dict[str, Any], said: str) -> str:
    """`; allowed: "a", "b"` for the place that msgspec's message names at its end, "" where `schema` lists nothing there."""
    path = _PATH.search(said)
    if path is None:
        return ""
    found = [schema]
    for name, index in _STEP.findall(path[1]):
        found = [inner for one in found for inner in _arms(_within(one, name, index), schema)]
    values = [value for one in found for value in one.get("enum", [one["const"]] if "const" in one else [])]
    if not values:
        return ""
    return "; allowed: " + ", ".join(msgspec.json.encode(value).decode() for value in values)


def _within(schema: dict[str, Any], name: str, index: str) -> Any:
    """The schema of one member or item; `[...]` is how msgspec names any value of a mapping or item of a set."""
    if name:
        return schema.get("properties", {}).get(name)
    first = schema.get("prefixItems", ())
    if index.isdigit() and int(index) < len(first):
        return first[int(index)]
    return schema.get("items") or schema.get("additionalProperties")


def _arms(schema: Any, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a schema is: behind a reference, and each arm of a union."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield from _arms(root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2]), root)
    for arm in schema.get("anyOf", ()):
        yield from _arms(arm, root)
    yield schema
