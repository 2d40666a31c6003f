"""The fields of a form: what a `requestedSchema` may hold, which is little (section 26), made of any JSON Schema or refused.

A form is flat. Its fields are text, a number, a yes or no, a choice, or a choice of several.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

POSSIBLE: Final = (
    "a field is a str, int, float, bool, date or datetime, a choice (Literal, Enum) or a list of choices"
)
FORMATS: Final = ("email", "uri", "date", "date-time")  # those that a client knows
LIMITS: Final = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
    "boolean": (),
}
EXPECTED: Final = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list of texts",
}
MAIL = re.compile(r"[^@\s]+@[^@\s]+")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+")


class Misfit(Exception):
    """A schema that no form can show, or a value that does not fit its field."""


class Field:
    """One field. `required`: must be answered; `nullable`: absent stands for None; `several`: a list of choices."""

    __slots__ = (
        "_limits",
        "_names",
        "_options",
        "_pattern",
        "_titles",
        "_words",
        "kind",
        "name",
        "nullable",
        "required",
        "several",
    )

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind  # a JSON Schema type
        self.required = False
        self.nullable = False
        self.several = kind == "array"
        self._words: dict[str, Any] = {}  # title, description, default
        self._limits: dict[str, Any] = {}
        self._pattern: re.Pattern[str] | None = None
        # Of a choice: the texts a client sees, and for each the value it stands for (Literal[1, 2] is shown as "1" and "2").
        self._options: dict[str, Any] | None = None
        self._titles: dict[str, str] = {}
        self._names = False  # the titles came as `enumNames`, and go so

    @classmethod
    def of(cls, name: str, schema: dict[str, Any], *, required: bool) -> Field:
        """The field for a schema without references. Raises Misfit."""
        schema, nullable = _without_null(schema)
        options, titles = _options_of(schema)
        kind = "string" if options else schema.get("type")
        if kind == "array":
            options, titles = _options_of(schema.get("items") or {})
        if schema.get("format") == "password" or schema.get("writeOnly"):
            raise Misfit(
                "a secret must never be asked by a form; send the user to a page of yours with ctx.elicit_url"
            )
        if (
            not isinstance(kind, str)
            or kind not in LIMITS
            or "contentEncoding" in schema
            or (kind == "array" and not options)
        ):
            raise Misfit(f"{_describe(schema)} is not possible in a form: {POSSIBLE}")
        field = cls(name, kind)
        field.nullable = nullable and required  # where it is not required, the type has a default for it
        field.required = required and not nullable
        field._options = options
        field._titles = titles
        field._names = "enumNames" in schema
        field._words = {word: schema[word] for word in ("title", "description") if schema.get(word)}
        if not options or kind == "array":
            field._limits = {limit: schema[limit] for limit in LIMITS[kind] if limit in schema}
            field._narrow(schema)
        if (default := field._show(schema.get("default"))) is not None:
            field._words["default"] = default
        return field

    def _narrow(self, schema: dict[str, Any]) -> None:
        """What a client can be told of limits that it does not know."""
        if self.kind == "integer":
            for word, exclusive, step in (
                ("minimum", "exclusiveMinimum", 1),
                ("maximum", "exclusiveMaximum", -1),
            ):
                if exclusive in schema and word not in schema:
                    self._limits[word] = schema[exclusive] + step
        try:
            self._pattern = re.compile(self._limits["pattern"]) if "pattern" in self._limits else None
        except (re.error, TypeError):
            pass  # another dialect, which whoever converts the answer understands

    def _show(self, default: Any) -> Any:
        """The default as a client may see it; None for one that would not be taken as an answer, say "" for "not yet"."""
        try:
            if self._options is None:
                if self.kind == "number" and isinstance(default, str):
                    default = float(default)  # a Decimal's
                return self.read(default)
            back = {_json_key(value): text for text, value in self._options.items()}
            return [back[_json_key(one)] for one in default] if self.several else back[_json_key(default)]
        except (Misfit, KeyError, TypeError, ValueError):
            return None

    # ---------------------------------------------------------------- to the client

    def schema(self, *, early: bool) -> dict[str, Any]:
        """As a client sees it; `early` for 2025-06-18."""
        shown: dict[str, Any] = {"type": self.kind}
        if self.several:
            shown["items"] = self._choice("anyOf", {"type": "string"})
        elif self._options is not None:
            shown |= self._choice("enumNames" if early or self._names else "oneOf", {})
        for limit, value in self._limits.items():
            if not (limit == "format" and value not in FORMATS) and not (limit == "pattern" and early):
                shown[limit] = value
        for word, value in self._words.items():
            if word != "default" or not early or self.kind == "boolean":
                shown[word] = value
        return shown

    def _choice(self, titled: str, untitled: dict[str, Any]) -> dict[str, Any]:
        options = list(self._options or ())
        titles = [self._titles.get(option, option) for option in options]
        if not self._titles:
            return {**untitled, "enum": options}
        if titled == "enumNames":
            return {"enum": options, "enumNames": titles}
        return {
            titled: [{"const": option, "title": title} for option, title in zip(options, titles, strict=True)]
        }

    # ---------------------------------------------------------------- and back

    def read(self, value: Any) -> Any:
        """The value as the user's schema has it. Raises Misfit with a sentence."""
        if self.several:
            if not isinstance(value, list):
                raise Misfit(f"expected {EXPECTED['array']}")
            self._check_count(len(value), "Items", "choices")
            return [self._choose(one) for one in value]
        if self._options is not None:
            return self._choose(value)
        if self.kind == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)  # 3.0 is a JSON integer
        types: Any = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}[self.kind]
        if not isinstance(value, types) or (isinstance(value, bool) and self.kind != "boolean"):
            raise Misfit(f"expected {EXPECTED[self.kind]}")
        if isinstance(value, str):
            self._check_text(value)
        elif self.kind != "boolean":
            self._check_number(value)
        return value

    def _choose(self, value: Any) -> Any:
        options = self._options or {}
        if isinstance(value, str) and value in options:
            return options[value]
        if any(value == option and type(value) is type(option) for option in options.values()):
            return value  # 1 instead of "1"
        raise Misfit(f"expected one of {', '.join(options)}")

    def _check_count(self, count: int, of: str, what: str) -> None:
        least, most = self._limits.get(f"min{of}", 0), self._limits.get(f"max{of}", count)
        if count < least:
            raise Misfit(f"expected at least {least} {what}")
        if count > most:
            raise Misfit(f"expected at most {most} {what}")

    def _check_number(self, value: float) -> None:
        if not value >= self._limits.get("minimum", value):
            raise Misfit(f"expected at least {self._limits['minimum']}")
        if not value <= self._limits.get("maximum", value):
            raise Misfit(f"expected at most {self._limits['maximum']}")

    def _check_text(self, value: str) -> None:
        self._check_count(len(value), "Length", "characters")
        if self._pattern is not None and self._pattern.search(value) is None:
            raise Misfit(f"expected text that matches {self._pattern.pattern}")
        wanted = self._limits.get("format")
        if wanted in FORMATS and not _has_format(value, wanted):
            raise Misfit(f"expected {'an' if wanted == 'email' else 'a'} {wanted}")


def _has_format(value: str, wanted: str) -> bool:
    if wanted == "email":
        return MAIL.fullmatch(value) is not None
    if wanted == "uri":
        return URI.fullmatch(value) is not None
    import datetime as dt

    try:
        msgspec.convert(value, dt.date if wanted == "date" else dt.datetime)
    except msgspec.ValidationError:
        return False
    return True


# ---------------------------------------------------------------- reading JSON Schemas


def read_fields(schema: dict[str, Any]) -> list[Field]:
    """The fields of a schema of type object, in order. Raises Misfit that names the field."""
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict):
        raise Misfit("it names no fields, which a form needs")
    fields = []
    for name, member in properties.items():
        try:
            if not isinstance(member, dict):
                raise Misfit(f"its schema is no object: {POSSIBLE}")
            fields.append(Field.of(name, _resolve(member, definitions), required=name in required))
        except Misfit as error:
            raise Misfit(f"field `{name}`: {error}") from None
    return fields


def _resolve(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Without `$ref`, and without `allOf` around a single schema; what stands beside them goes first."""
    if depth > 8:
        raise Misfit(f"its schema refers to itself: {POSSIBLE}")
    inner = schema.get("allOf")
    if isinstance(schema.get("$ref"), str):
        target = definitions.get(schema["$ref"].rpartition("/")[2])
        if not isinstance(target, dict):
            raise Misfit(f"its schema refers to {schema['$ref']}, which is not there")
        schema = {**target, **{word: value for word, value in schema.items() if word != "$ref"}}
        return _resolve(schema, definitions, depth + 1)
    if isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], dict):
        schema = {**inner[0], **{word: value for word, value in schema.items() if word != "allOf"}}
        return _resolve(schema, definitions, depth + 1)
    resolved = dict(schema)
    if isinstance(schema.get("items"), dict):
        resolved["items"] = _resolve(schema["items"], definitions, depth + 1)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            resolved[word] = [
                _resolve(arm, definitions, depth + 1) if isinstance(arm, dict) else {} for arm in schema[word]
            ]
    return resolved


def _without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema without `null`, and whether it was there; a union of number kinds is a number."""
    schema, nullable = dict(schema), False
    for word in ("anyOf", "oneOf"):
        arms = schema.get(word)
        if not isinstance(arms, list):
            continue
        others = [arm for arm in arms if arm.get("type") != "null"]
        nullable = nullable or len(others) < len(arms)
        if _are_numbers(others):
            others = [arm for arm in others if arm["type"] == "number"]
        if len(others) == 1 and "const" not in others[0]:
            del schema[word]
            schema = {**others[0], **schema}
        else:
            schema[word] = others
    kinds = schema.get("type")
    if isinstance(kinds, list):
        nullable = nullable or "null" in kinds
        kinds = [kind for kind in kinds if kind != "null"]
        if schema.get("format") == "decimal":
            kinds = ["number"]
            del schema["format"]
        schema["type"] = kinds[0] if len(kinds) == 1 else kinds
    if isinstance(schema.get("enum"), list) and None in schema["enum"]:
        nullable = True
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    return schema, nullable


def _are_numbers(arms: list[dict[str, Any]]) -> bool:
    """Whether a union is `int | float`."""
    return {arm.get("type") for arm in arms} == {"integer", "number"} and not any(
        "enum" in arm for arm in arms
    )


def _options_of(schema: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The choices of a schema by the text a client sees, with the titles of those that have one. None for no choice."""
    values, titles = None, {}
    if isinstance(schema.get("enum"), list):
        values = schema["enum"]
        names = schema.get("enumNames")
        if isinstance(names, list) and len(names) == len(values):
            titles = {_option_text(value): str(name) for value, name in zip(values, names, strict=True)}
    elif "const" in schema:
        values = [schema["const"]]
    else:
        for word in ("oneOf", "anyOf"):
            arms = schema.get(word)
            if isinstance(arms, list) and arms and all("const" in arm for arm in arms):
                values = [arm["const"] for arm in arms]
                titles = {_option_text(arm["const"]): str(arm["title"]) for arm in arms if arm.get("title")}
    if not values:
        return None, {}
    if any(isinstance(value, dict | list) for value in values):
        raise Misfit(f"a choice between objects or lists is not possible in a form: {POSSIBLE}")
    options = {_option_text(value): value for value in values}
    if len(options) < len(values):
        raise Misfit("two of its choices look the same")
    return options, titles


def _option_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _json_key(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _describe(schema: dict[str, Any]) -> str:
    if schema.get("type") == "object" or "properties" in schema:
        return "an object"
    if schema.get("type") == "array":
        return "a list of anything but choices"
    if "contentEncoding" in schema:
        return "binary content"
    if schema.get("anyOf") or schema.get("oneOf") or isinstance(schema.get("type"), list):
        return "a union"
    return "this"
