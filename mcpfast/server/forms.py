"""Forms: from what users give to `ctx.elicit(message, schema)` to a flat `requestedSchema`, and from the answer back (section 26).

    a type, a list of choices, a JSON Schema
        --> JSON Schema of it         (the same that tools get)
        --> `Field`s                  (flat: text, number, boolean, choice, several choices; anything else is refused here)
        --> requestedSchema           (as the client's revision knows it)
    content of the answer --> checked against the Fields --> the user's type

Imported by the first call that asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec

from mcpfast.errors import McpFastError, RegistrationError, ToolError
from mcpfast.server.form_fields import Field, Misfit, read_fields
from mcpfast.server.schema_foreign import Unfit, read_custom

T = TypeVar("T")
VALUE: Final = "value"  # the one field of a form for a single value, as FastMCP calls it
FORMS_KEPT_MAX: Final = 1_024


class FormError(McpFastError, ValueError):
    """An answer that does not fit its form. `field` is the name of the first field that does not, "" for the whole answer."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"field `{field}`: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class AcceptedElicitation(msgspec.Struct, Generic[T], frozen=True):
    """The user filled in the form: `data` is what was asked for, in the type that was asked with."""

    action: ClassVar[Literal["accept"]] = "accept"
    data: T


class DeclinedElicitation(msgspec.Struct, frozen=True):
    """The user said no."""

    action: ClassVar[Literal["decline"]] = "decline"


class CancelledElicitation(msgspec.Struct, frozen=True):
    """The user went away without a choice."""

    action: ClassVar[Literal["cancel"]] = "cancel"


ElicitationResult: TypeAlias = Union[AcceptedElicitation[T], DeclinedElicitation, CancelledElicitation]  # noqa: UP007


class Form:
    """What is asked: made by `Form.of`, cached."""

    __slots__ = ("_convert", "_fields", "_schemas", "_single")

    def __init__(
        self, fields: list[Field], convert: Callable[[dict[str, Any]], Any], *, single: bool
    ) -> None:
        self._fields = fields
        self._convert = convert  # raises msgspec.ValidationError
        self._single = single
        self._schemas: dict[bool, dict[str, Any]] = {}

    @classmethod
    def of(cls, schema: Any) -> Form:
        """The form for `schema`, which is one of

        - a msgspec Struct, dataclass, TypedDict or pydantic model of simple members,
        - a single type: str, int, float, bool, a date, a Literal, an Enum, `list` of a Literal or Enum, also Annotated,
        - choices: `["a", "b"]`, `{"a": {"title": "First"}}`; several of them: `[["a", "b"]]`, `[{"a": {"title": "First"}}]`,
        - a JSON Schema (a dict with type object and properties),
        - None: nothing but yes or no.

        Raises RegistrationError that names the member and says what is possible.
        """
        key: Any = schema
        if isinstance(schema, dict | list):
            try:
                key = msgspec.json.encode(schema)
            except (TypeError, ValueError):
                raise RegistrationError(f"a form cannot be made of {schema!r}: it is no JSON") from None
        try:
            known = _forms.get(key)
        except TypeError:  # unhashable: pydantic's Field inside Annotated
            return cls._make(schema)
        if known is None:
            if len(_forms) >= FORMS_KEPT_MAX:  # types made anew for each call would fill it for ever
                _forms.clear()
            known = _forms[key] = cls._make(schema)
        return known

    @classmethod
    def _make(cls, schema: Any) -> Form:
        try:
            if schema is None:
                return cls([], lambda content: {}, single=False)
            if isinstance(schema, dict) and (isinstance(schema.get("type"), str) or "properties" in schema):
                return cls._of_raw(schema)
            if isinstance(schema, dict | list):
                return cls([Field.of(VALUE, _choices_schema(schema), required=True)], _plain, single=True)
            return cls._of_type(schema)
        except Misfit as error:
            raise RegistrationError(f"form {_name_of(schema)}: {error}") from None

    @classmethod
    def _of_raw(cls, schema: dict[str, Any]) -> Form:
        if schema.get("type") != "object":
            raise Misfit('a JSON Schema must say "type": "object" and name its fields in "properties"')
        from mcpfast.server.schema_raw import validator

        fields = read_fields(schema)
        validate = validator(schema, "ctx.elicit")

        def convert(content: dict[str, Any]) -> dict[str, Any]:
            validate(content)  # what the fields do not know: multipleOf, dependentRequired, ...
            return content

        return cls(fields, convert, single=False)

    @classmethod
    def _of_type(cls, kind: Any) -> Form:
        from mcpfast.server.schema import Writer
        from mcpfast.server.schema_types import Fitter

        try:
            fitted = Fitter().fit(kind)
            writer = Writer()
            written = writer.root(writer.write(fitted))
        except Unfit as error:
            raise Misfit(str(error)) from None

        def convert(value: Any) -> Any:
            return msgspec.convert(value, fitted, dec_hook=read_custom)

        if written.get("type") == "object" and "properties" in written:
            return cls(read_fields(written), convert, single=False)
        whole = {
            "type": "object",
            "properties": {VALUE: written},
            "required": [VALUE],
            "$defs": written.get("$defs", {}),
        }
        return cls(read_fields(whole), convert, single=True)

    def requested_schema(self, revision: str) -> dict[str, Any]:
        """`requestedSchema` for a client of this revision; not to be changed.

        2025-06-18 knows no defaults but of booleans, no patterns, and shows titles of choices by `enumNames`. Raises ToolError
        where it has nothing for a field: the choice of several.
        """
        early = revision < "2025-11-25"
        schema = self._schemas.get(early)
        if schema is None:
            schema = self._schemas[early] = self._make_schema(early)
        return schema

    def _make_schema(self, early: bool) -> dict[str, Any]:
        if early and (several := [field.name for field in self._fields if field.several]):
            raise ToolError(
                f"This client cannot be asked: the field `{several[0]}` lets several be chosen, which the protocol has since "
                "2025-11-25 only"
            )
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {field.name: field.schema(early=early) for field in self._fields},
        }
        if required := [field.name for field in self._fields if field.required]:
            schema["required"] = required
        return schema

    def parse(self, content: dict[str, Any]) -> Any:
        """The answer in the type that was asked with; for a JSON Schema and for None a dict. Members not asked for are ignored.

        Raises FormError for what does not fit.
        """
        values: dict[str, Any] = {}
        for field in self._fields:
            given = content.get(field.name)
            try:
                if given is not None:
                    values[field.name] = field.read(given)
                elif field.required:
                    raise Misfit("is missing")
                elif field.nullable:
                    values[field.name] = None
            except Misfit as error:
                raise FormError(field.name, str(error)) from None
        try:
            whole: Any = values.get(VALUE) if self._single else values
            return self._convert(whole)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            raise FormError(VALUE if self._single else path.rstrip("`").lstrip("."), reason) from None


_forms: dict[Any, Form] = {}


def _plain(value: Any) -> Any:
    return value


def _choices_schema(choices: Any) -> dict[str, Any]:
    """FastMCP's short forms of a choice, as a JSON Schema."""
    several = isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict | list)
    options: Any = choices[0] if several else choices
    one: dict[str, Any] = {"type": "string"}
    if (
        isinstance(options, dict)
        and options
        and all(isinstance(option, dict | str) for option in options.values())
    ):
        one["oneOf"] = [
            {"const": value, "title": option if isinstance(option, str) else option.get("title", value)}
            for value, option in options.items()
        ]
    elif isinstance(options, list) and options and all(isinstance(option, str) for option in options):
        one["enum"] = list(options)
    else:
        raise Misfit(
            'choices are given as ["a", "b"] or {"a": {"title": "First"}}, several of them as [["a", "b"]]'
        )
    return {"type": "array", "items": one} if several else one


def _name_of(schema: Any) -> str:
    if isinstance(schema, type) and get_origin(schema) is None:
        return f"`{schema.__name__}`"
    if get_args(schema):
        return f"`{schema}`"
    text = repr(schema)
    return text if len(text) <= 80 else f"{text[:77]}..."
