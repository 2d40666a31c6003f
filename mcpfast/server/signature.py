"""What a tool, resource or prompt needs to know of its function: how arguments are read, what results promise.

`Signature` comes from type hints, `RawSignature` from a JSON Schema that the user wrote. Reading arguments is made
ready when the function is registered; schemas and docstrings are worked out when a list is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mcpfast.errors import RegistrationError
from mcpfast.protocol import messages
from mcpfast.server.callables import KEYWORD_ONLY, MISSING, SCALARS, Handled, Parameter
from mcpfast.server.schema_output import Output

_PLAIN_DEFAULTS = (str, int, float, bool, type(None))


class Described:
    """What both kinds of signature say about their function and its result.

    `name` and `is_async` are the function's, `summary` its docstring up to the list of arguments. `field_names` are
    the parameters to pass by position, `keyword_names` those to pass by name; `context_name` is the parameter for the
    Context or None, `context_index` its place among the positional ones (-1: none of them).

    `return_type` is the annotation (Any where there is none). A tool `is_structured` when it has an `output_schema`;
    then `encode_structured(value)` gives the JSON of structuredContent for a handler's value, and
    `check_structured(structured)` for what a handler has put together itself. Both raise TypeError for what does not
    conform. `wraps_output` says that the value stands under "result"; `returns_content` that the annotation names
    content blocks.
    """

    __slots__ = (
        "_doc",
        "_docs",
        "_output",
        "_output_schema",
        "context_index",
        "context_name",
        "field_names",
        "is_async",
        "keyword_names",
        "name",
        "return_type",
        "structured_output",
    )

    def __init__(self, handled: Handled, structured_output: bool | None) -> None:
        self.name = handled.name
        self.is_async = handled.is_async
        self.context_name = handled.context_name
        self.context_index = handled.context_index
        self.field_names = tuple(one.name for one in handled.parameters if one.kind != KEYWORD_ONLY)
        self.keyword_names = tuple(one.name for one in handled.parameters if one.kind == KEYWORD_ONLY)
        self.return_type = Any if handled.returns is MISSING else handled.returns
        self.structured_output = structured_output
        self._output = Output.of(handled.returns, structured_output, handled.name)
        self._output_schema: dict[str, Any] | None = None
        self._doc = handled.doc
        self._docs: tuple[str, dict[str, str]] | None = None

    @property
    def summary(self) -> str:
        """The docstring up to its list of arguments, "" where there is none."""
        return self._read_doc()[0]

    def _read_doc(self) -> tuple[str, dict[str, str]]:
        if self._docs is None:
            if self._doc:
                from mcpfast.server.docstrings import read_docstring

                self._docs = read_docstring(self._doc)
            else:
                self._docs = ("", {})
        return self._docs

    @property
    def is_structured(self) -> bool:
        return self._output.encode is not None

    @property
    def wraps_output(self) -> bool:
        return self._output.wraps

    @property
    def returns_content(self) -> bool:
        return self._output.is_content

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """JSON Schema 2020-12 of structuredContent, an object, or None."""
        if self._output_schema is None and self._output.write is not None:
            from mcpfast.server.schema import Writer

            writer = Writer("serialization")
            schema = self._output.write(writer)
            if self._output.wraps:
                schema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
            self._output_schema = writer.root(schema)
        return self._output_schema

    @property
    def encode_structured(self) -> Callable[[Any], bytes]:
        return self._output.encode or self._no_structured

    @property
    def check_structured(self) -> Callable[[Any], bytes]:
        return self._output.check or self._no_structured

    def explain(self, error: Exception) -> str:
        """What `decode` or `convert` raised, as the client is told."""
        return str(error)

    def _no_structured(self, value: Any) -> bytes:
        raise TypeError(f"{self.name}() has no output schema, and so no structured content to write")


class Signature(Described):
    """A function's signature, made with `Signature.of`.

    `decode(json)` reads the arguments object (bytes or any buffer) as an `arguments_type`, a Struct with one attribute
    for each parameter. Raises msgspec.ValidationError in one line with the path for arguments that do not fit, and
    msgspec.DecodeError (its base) for what is no JSON text.
    """

    __slots__ = ("_fields", "_input_schema", "_textual", "arguments_type", "decode")

    def __init__(self, handled: Handled, structured_output: bool | None) -> None:
        super().__init__(handled, structured_output)
        self._fields = [_Field.of(parameter, handled.name) for parameter in handled.parameters]
        self._input_schema: dict[str, Any] | None = None
        self.arguments_type = _arguments_type(self._fields, handled.name)
        if all(field.is_plain for field in self._fields):
            self.decode: Callable[[Any], Any] = messages.make_decoder(self.arguments_type).decode
        else:
            from mcpfast.server.schema_foreign import decoder

            self.decode = decoder(self.arguments_type).decode

    @classmethod
    def of(
        cls, fn: Callable[..., Any], *, context_type: type, structured_output: bool | None = None
    ) -> Signature:
        """The signature of `fn`: a function, method, partial, callable object or whatever wraps one of these.

        `context_type` is the class whose parameter is injected and hidden. `structured_output` False means never,
        True means that a result which cannot be structured is an error, None lets the annotation decide.
        Raises RegistrationError, which says what to change, for a function that cannot be served.
        """
        return cls(Handled(fn, context_type), structured_output)

    @staticmethod
    def raw(
        schema: dict[str, Any],
        fn: Callable[..., Any],
        *,
        context_type: type,
        structured_output: bool | None = None,
    ) -> RawSignature:
        """A signature whose arguments are described by `schema`; `fn` gets the validated arguments by name.

        Raises RegistrationError for a schema that is not valid, refers to what is not in it, or does not match `fn`.
        """
        return RawSignature(schema, Handled(fn, context_type, any_keyword=True), structured_output)

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the arguments: an object that refuses unknown members."""
        if self._input_schema is None:
            from mcpfast.server.schema import Writer

            writer = Writer()
            schema = writer.root(writer.members([field.member() for field in self._fields], closed=True))
            descriptions = self._read_doc()[1]
            for field in self._fields:
                if field.name in descriptions:
                    schema["properties"][field.wire_name].setdefault("description", descriptions[field.name])
            self._input_schema = schema
        return self._input_schema

    def explain(self, error: Exception) -> str:
        said = str(error)
        if said.startswith("Invalid enum value"):  # msgspec names the wrong value, but not the right ones
            from mcpfast.server.schema_choices import choices_at

            said += choices_at(self.input_schema, said)
        return said

    def convert(self, texts: dict[str, str]) -> dict[str, Any]:
        """Arguments that are strings on the wire (prompts, resource templates), by parameter name.

        A string is read as what its parameter wants: "3" as an int, "true" as a bool, JSON text as a list or object.
        Raises msgspec.ValidationError as `decode` does.
        """
        try:
            read = self._convert(texts)
        except msgspec.ValidationError:
            opened = {
                name: _json_inside(text) if text[:1] in ("[", "{") and name not in self._texts() else text
                for name, text in texts.items()
            }
            if opened == texts:
                raise
            read = self._convert(opened)
        return {field.name: getattr(read, field.name) for field in self._fields}

    def _convert(self, values: dict[str, Any]) -> Any:
        if all(field.is_plain for field in self._fields):
            return msgspec.convert(values, self.arguments_type, strict=False)
        from mcpfast.server.schema_foreign import read_custom

        return msgspec.convert(values, self.arguments_type, strict=False, dec_hook=read_custom)

    def _texts(self) -> set[str]:
        return {field.wire_name for field in self._fields if field.kind is str}


class RawSignature(Described):
    """The signature of a tool whose input schema the user wrote, made with `Signature.raw`.

    `decode(json)` gives the arguments as a dict; it raises msgspec.ValidationError with the path of what does not
    conform. `takes_any` says that the function has `**arguments`.
    """

    __slots__ = ("_validate", "input_schema", "takes_any")

    def __init__(
        self, schema: dict[str, Any], handled: Handled, structured_output: bool | None = None
    ) -> None:
        super().__init__(handled, structured_output)
        from mcpfast.server.schema_raw import validator

        self.input_schema = schema
        self.takes_any = handled.takes_any
        self._validate = validator(schema, handled.name)
        self._check_parameters(handled.parameters)

    def _check_parameters(self, parameters: list[Parameter]) -> None:
        known = self.input_schema.get("properties", {})
        required = self.input_schema.get("required", ())
        for parameter in parameters:
            if parameter.default is MISSING and parameter.name not in known:
                raise RegistrationError(
                    f"{self.name}(): the parameter `{parameter.name}` is not among the properties of its input "
                    "schema; give it a default, or take everything as **arguments"
                )
            if parameter.default is MISSING and parameter.name not in required:
                raise RegistrationError(
                    f"{self.name}(): the parameter `{parameter.name}` has no default, but its input schema does not "
                    'list it under "required"; do one of the two'
                )
        if not self.takes_any:
            missing = known.keys() - {parameter.name for parameter in parameters}
            if missing:
                raise RegistrationError(
                    f"{self.name}(): its input schema has {_listed(missing)}, the function does not; "
                    "add the parameters or **arguments"
                )

    def decode(self, raw: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = _decode_object(raw)
        self._validate(arguments)
        if not self.takes_any:
            wanted = {*self.field_names, *self.keyword_names}
            arguments = {name: value for name, value in arguments.items() if name in wanted}
        return arguments


class _Field:
    """A parameter as a member of the arguments object.

    `kind` is its annotation as msgspec reads it, `default` what defstruct takes and `shown` what the schema tells;
    NODEFAULT for a parameter that must be there.
    """

    __slots__ = ("default", "is_plain", "kind", "name", "shown", "wire_name")

    def __init__(
        self, name: str, kind: Any, default: Any, shown: Any, wire_name: str, *, is_plain: bool = False
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.shown = shown
        self.wire_name = wire_name
        self.is_plain = is_plain

    @classmethod
    def of(cls, parameter: Parameter, function: str) -> _Field:
        """Raises RegistrationError for an annotation that cannot be read from JSON, or that its default does not fit."""
        annotation, default = parameter.annotation, parameter.default
        if annotation is MISSING:
            annotation = Any
        plain = annotation is Any or (type(annotation) is type and annotation in SCALARS)
        if plain and (default is MISSING or type(default) in _PLAIN_DEFAULTS):
            if not (
                default is MISSING or default is None or annotation is Any or type(default) is annotation
            ):
                from mcpfast.server.schema_parameters import check_default

                check_default(parameter.name, annotation, default, function)
            default = msgspec.NODEFAULT if default is MISSING else default
            return cls(parameter.name, annotation, default, default, parameter.name, is_plain=True)
        from mcpfast.server.schema_parameters import fit_parameter

        return cls(parameter.name, *fit_parameter(parameter.name, annotation, default, function))

    def member(self) -> tuple[str, Any, bool, Any]:
        """As schema.Writer wants it."""
        return self.wire_name, self.kind, self.default is msgspec.NODEFAULT, self.shown


def _arguments_type(fields: list[_Field], function: str) -> type[msgspec.Struct]:
    members: list[Any] = [
        (field.name, field.kind)
        if field.default is msgspec.NODEFAULT
        else (field.name, field.kind, field.default)
        for field in fields
    ]
    renamed = {field.name: field.wire_name for field in fields if field.wire_name != field.name}
    try:
        return msgspec.defstruct(
            "Arguments",
            members,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
            rename=renamed or None,
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise RegistrationError(
            f"{function}(): its parameters cannot be read as one object: {error}"
        ) from None


def _json_inside(text: str) -> Any:
    """The JSON value that a string holds, or the string itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _listed(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
