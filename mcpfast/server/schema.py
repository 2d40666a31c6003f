"""JSON Schema 2020-12 of fitted annotations: what a client is told of a tool's arguments and result (section 32).

Members stand in the user's order, titles only where the user gave one. Nested classes are kept in `$defs`; the root
is always written out. Imported when a list is asked for, not when a server starts.
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import uuid
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from mcpfast.server.encoding import builtins
from mcpfast.server.schema_foreign import Foreign, Unfit
from mcpfast.server.schema_members import Member, class_members
from mcpfast.server.schema_types import LIMITS, UNIONS, Fitter, meta_members

REF = "#/$defs/"
LEAVES: dict[Any, dict[str, Any]] = {
    Any: {},
    msgspec.Raw: {},
    object: {},
    None: {"type": "null"},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    bytearray: {"type": "string", "contentEncoding": "base64"},
    dt.datetime: {"type": "string", "format": "date-time"},
    dt.date: {"type": "string", "format": "date"},
    dt.time: {"type": "string", "format": "time"},
    dt.timedelta: {"type": "string", "format": "duration"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    decimal.Decimal: {"type": ["string", "number"], "format": "decimal"},
}
# For each JSON type, how it says the constraints of msgspec.Meta.
KEYWORDS: dict[str, dict[str, str]] = {
    "number": {
        "ge": "minimum",
        "gt": "exclusiveMinimum",
        "le": "maximum",
        "lt": "exclusiveMaximum",
        "multiple_of": "multipleOf",
    },
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
    "object": {"min_length": "minProperties", "max_length": "maxProperties"},
}
KEYWORDS["integer"] = KEYWORDS["number"]
JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Writer:
    """Writes the schemas of one tool side; classes met on the way gather in `definitions`."""

    def __init__(self, mode: str = "validation") -> None:
        self.mode = mode  # pydantic's word: "validation" for arguments, "serialization" for results
        self.definitions: dict[str, dict[str, Any]] = {}
        self._refs: dict[Any, str] = {}

    def root(self, schema: dict[str, Any]) -> dict[str, Any]:
        """`schema` as the whole document: its root written out, what it needs in `$defs`."""
        if "$ref" in schema:
            schema = {**self.definitions[schema["$ref"].removeprefix(REF)], **schema}
            del schema["$ref"]
        needed = self._needed(schema)
        return {**schema, "$defs": needed} if needed else schema

    def _needed(self, schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        waiting = list(_refs_in(schema))
        while waiting:
            name = waiting.pop(0).removeprefix(REF)
            if name not in found and name in self.definitions:
                found[name] = self.definitions[name]
                waiting += _refs_in(found[name])
        return found

    def members(self, members: Iterable[Member], *, closed: bool) -> dict[str, Any]:
        """An object with these members; a closed one refuses others."""
        properties: dict[str, Any] = {}
        required = []
        for name, kind, must, default in members:
            properties[name] = self.write(kind)
            if default is not msgspec.NODEFAULT:
                try:
                    properties[name]["default"] = builtins(default)
                except TypeError:
                    pass  # nothing that JSON can say
            if must:
                required.append(name)
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        if closed:
            schema["additionalProperties"] = False
        return schema

    def write(self, kind: Any) -> dict[str, Any]:
        """The schema of a fitted annotation, which the caller may change."""
        if not get_args(kind) and _hashable(kind) and kind in LEAVES:
            return dict(LEAVES[kind])
        origin = get_origin(kind)
        if origin is Annotated:
            return self._annotated(*get_args(kind))
        if origin in UNIONS:
            return {"anyOf": [self.write(arm) for arm in get_args(kind)]}
        if origin is Literal:
            return choice(get_args(kind))
        if isinstance(kind, type) and isinstance(kind, type(Foreign)):
            return kind.schema(self)
        base = origin or kind
        if isinstance(base, type) and base.__module__ in ("builtins", "collections.abc"):
            return self._container(base, get_args(kind))
        if hasattr(base, "model_json_schema"):
            return self._model(kind)
        if hasattr(base, "__fspath__"):
            return {"type": "string", "format": "path"}
        return self._named(kind, base)

    def _annotated(self, base: Any, *metas: Any) -> dict[str, Any]:
        schema = self.write(base)
        for meta in metas:
            members = meta_members(meta)
            for name in LIMITS & members.keys():
                self._limit(schema, name, members[name])
            for name in ("title", "description", "examples"):
                if name in members:
                    schema[name] = members[name]
            schema |= members.get("extra_json_schema", {})
        return schema

    @staticmethod
    def _limit(schema: dict[str, Any], name: str, value: Any) -> None:
        keyword = KEYWORDS.get(str(schema.get("type")), {}).get(name)
        if keyword is None:
            return
        if "contentEncoding" in schema:
            value = 4 * ((value + 2) // 3)  # bytes as base64
        schema[keyword] = value

    def _container(self, base: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if issubclass(base, tuple) and arguments and arguments[-1] is not ...:
            items = [self.write(argument) for argument in arguments]
            return {
                "type": "array",
                "prefixItems": items,
                "minItems": len(items),
                "maxItems": len(items),
                "items": False,
            }
        if base.__name__ in ("dict", "Mapping", "MutableMapping"):
            return self._mapping(*arguments)
        schema: dict[str, Any] = {"type": "array"}
        if arguments and (inner := self.write(arguments[0])):
            schema["items"] = inner
        if base.__name__ in ("set", "frozenset", "Set", "MutableSet"):
            schema["uniqueItems"] = True
        return schema

    def _mapping(self, keys: Any = Any, values: Any = Any) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object"}
        names = self.write(keys)
        if names.pop("type", None) == "string" and names:
            schema["propertyNames"] = names
        if inner := self.write(values):
            schema["additionalProperties"] = inner
        return schema

    # ------------------------------------------------------------- classes

    def _named(self, kind: Any, base: Any) -> dict[str, Any]:
        if kind not in self._refs:
            name = self._free_name(kind, base)
            self._refs[kind] = name
            self.definitions[name] = {}  # taken, should the class contain itself
            self.definitions[name].update(self._class(kind, base))
        return {"$ref": REF + self._refs[kind]}

    def _free_name(self, kind: Any, base: Any) -> str:
        arguments = ", ".join(getattr(argument, "__name__", str(argument)) for argument in get_args(kind))
        name = f"{base.__name__}[{arguments}]" if arguments else base.__name__
        for candidate in (name, f"{base.__module__}.{base.__qualname__}", f"{name}.{len(self.definitions)}"):
            tidy = re.sub(r"[^a-zA-Z0-9.\-_]", "_", candidate)
            if tidy not in self.definitions:
                return tidy
        raise Unfit(f"too many types are called {name}")

    def _class(self, kind: Any, base: Any) -> dict[str, Any]:
        doc = _own_doc(base)
        described = {"description": doc} if doc else {}
        if issubclass(base, Enum):
            return {**described, **choice([one.value for one in base])}
        members = [
            (name, Fitter(returned=self.mode == "serialization").fit(hint), must, default)
            for name, hint, must, default in class_members(kind, base)
        ]
        closed = issubclass(base, msgspec.Struct) and base.__struct_config__.forbid_unknown_fields
        if issubclass(base, tuple) or _is_array_like(base):
            return {**described, **self._array(members, closed=closed or issubclass(base, tuple))}
        return {**described, **self.members(members, closed=closed)}

    def _array(self, members: list[Member], *, closed: bool) -> dict[str, Any]:
        required = sum(must for _, _, must, _ in members)
        items = self.members(members, closed=False)["properties"]
        array = {"type": "array", "prefixItems": list(items.values()), "minItems": required}
        return {**array, "maxItems": len(members)} if closed else array

    # ------------------------------------------------------------- pydantic

    def _model(self, kind: Any) -> dict[str, Any]:
        if kind not in self._refs:
            schema = self.adopt(kind.model_json_schema(mode=self.mode), kind.__name__)
            if "$ref" in schema:  # a model that contains itself
                self._refs[kind] = schema["$ref"].removeprefix(REF)
            else:
                self._refs[kind] = self._claim(kind.__name__, schema)
        return {"$ref": REF + self._refs[kind]}

    def adopt(self, schema: dict[str, Any], name: str = "") -> dict[str, Any]:
        """A schema that pydantic made: its definitions join ours, the titles that it makes up are dropped."""
        definitions = schema.pop("$defs", {})
        renamed = {}
        for inner, definition in definitions.items():
            _drop_titles(definition, inner)
            renamed[REF + inner] = REF + self._claim(inner, definition)
        _drop_titles(schema, name)
        if any(old != new for old, new in renamed.items()):
            for definition in definitions.values():
                _rename_refs(definition, renamed)
            _rename_refs(schema, renamed)
        return schema

    def _claim(self, name: str, schema: dict[str, Any]) -> str:
        candidate, count = name, 1
        while candidate in self.definitions and self.definitions[candidate] != schema:
            count += 1
            candidate = f"{name}.{count}"
        self.definitions[candidate] = schema
        return candidate


def choice(values: Iterable[Any]) -> dict[str, Any]:
    """One of these values, in their order, with the type they have."""
    options = [builtins(value) for value in values]
    types = list(dict.fromkeys(JSON_TYPES[type(option)] for option in options if type(option) in JSON_TYPES))
    schema: dict[str, Any] = {"const": options[0]} if len(options) == 1 else {"enum": options}
    if types:
        schema["type"] = types[0] if len(types) == 1 else types
    return schema


def _is_array_like(base: Any) -> bool:
    return issubclass(base, msgspec.Struct) and base.__struct_config__.array_like


def _own_doc(base: Any) -> str:
    """A class's own docstring, without those that Python makes up."""
    from inspect import cleandoc

    doc = base.__dict__.get("__doc__") or ""
    if doc.startswith(f"{base.__name__}(") or doc == "An enumeration.":
        return ""
    return cleandoc(doc)


def _hashable(kind: Any) -> bool:
    try:
        hash(kind)
    except TypeError:
        return False
    return True


def _refs_in(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [ref for item in schema for ref in _refs_in(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    mapped = list(schema["discriminator"]["mapping"].values()) if "mapping" in _discriminator(schema) else []
    return own + mapped + [ref for value in schema.values() for ref in _refs_in(value)]


def _discriminator(schema: dict[str, Any]) -> dict[str, Any]:
    found = schema.get("discriminator")
    return found if isinstance(found, dict) else {}


def _rename_refs(schema: Any, renamed: dict[str, str]) -> None:
    if isinstance(schema, list):
        for item in schema:
            _rename_refs(item, renamed)
    elif isinstance(schema, dict):
        for name, value in schema.items():
            if isinstance(value, str) and value in renamed and name != "const":
                schema[name] = renamed[value]
            else:
                _rename_refs(value, renamed)


def _drop_titles(schema: Any, name: str) -> None:
    """Removes the titles that pydantic derives from the names of models and fields."""
    if isinstance(schema, list):
        for item in schema:
            _drop_titles(item, "")
        return
    if not isinstance(schema, dict):
        return
    if schema.get("title") in (name, name.title().replace("_", " ").strip()):
        del schema["title"]
    for keyword, value in schema.items():
        if keyword in ("properties", "patternProperties") and isinstance(value, dict):
            for member, inner in value.items():
                _drop_titles(inner, member)
        elif keyword in ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "prefixItems"):
            _drop_titles(value, "")
