"""What users register: a tool, a resource or template, a prompt; each with its handler made callable and its description.

`def` handlers may block, so they run in a worker thread; `async def` ones on the loop; `inline=True` runs a `def` on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from typing import TYPE_CHECKING, Any, cast, get_origin

import msgspec

from mcpfast._core import json_string
from mcpfast._entry import ALONE, ENCODE, TEXT, Entry
from mcpfast.errors import INVALID_PARAMS, MCPError, RegistrationError
from mcpfast.protocol import messages
from mcpfast.server.context import Context
from mcpfast.server.signature import RawSignature, Signature

if TYPE_CHECKING:
    from types import EllipsisType

    from mcpfast._spine import Request, Wire
    from mcpfast.protocol.headers import ParamHeaders
    from mcpfast.server.answers import Answers
    from mcpfast.server.dispatch import Dispatcher
    from mcpfast.server.uri_template import UriTemplate
    from mcpfast.tenancy.identity import Kind
    from mcpfast.tenancy.views import Requirement

SCALARS = frozenset({str, int, float, bool})
MIRRORED = "x-mcp-header"
PLAIN_SCALARS = frozenset({str, int, bool})  # what the hot way reads by itself


class ArgumentsRefused(Exception):
    """Arguments that do not fit; the cause says how."""


def plain(thing: Any) -> Any:
    """Icons, annotations and the like, given as Structs or dicts, as they stand on the wire."""
    return msgspec.to_builtins(thing)


def describe(**members: Any) -> dict[str, Any]:
    """A description without the members that are None; names as on the wire."""
    return {name: plain(value) for name, value in members.items() if value is not None}


class Use:
    """What it takes to use an offer, where tenants are served: all `scopes`, one of `kinds` of tenants, and its `cost` in units
    of the budgets. Raises RegistrationError."""

    __slots__ = ("cost", "requirement")

    def __init__(self, scopes: Collection[str] = (), kinds: Collection[str] = (), cost: float = 1.0) -> None:
        if isinstance(scopes, str) or isinstance(kinds, str):
            raise RegistrationError('scopes and kinds are sets of names: scopes={"orders:write"}')
        if not 0 <= cost < inf:
            raise RegistrationError(f"cost is in units of the budgets, 0 or more, not {cost!r}")
        self.cost = float(cost)
        self.requirement: Requirement | None = None
        if scopes or kinds:
            from mcpfast.tenancy.views import Requirement  # nobody without tenants needs it

            if not set(kinds) <= {"organization", "personal"}:
                raise RegistrationError(f'kinds are "organization" and "personal", not {sorted(kinds)}')
            self.requirement = Requirement(frozenset(scopes), frozenset(cast("Collection[Kind]", kinds)))


ASKS_NOTHING = Use()


class Handler:
    """A function of the user, callable from the loop."""

    __slots__ = ("call", "context_at", "fields", "inline", "keywords", "signature")

    def __init__(
        self,
        fn: Callable[..., Any],
        signature: Signature | RawSignature,
        server: Any,
        *,
        inline: bool = False,
    ) -> None:
        self.signature = signature
        if inline and signature.is_async:
            raise RegistrationError(
                f"{signature.name}: inline=True is for `def`; an `async def` runs on the loop anyway"
            )
        self.inline = inline
        self.call = fn if signature.is_async or inline else server.threaded(fn)
        self.fields = signature.field_names + signature.keyword_names
        self.keywords = signature.keyword_names
        self.context_at = signature.context_index
        if signature.context_name is not None and self.context_at < 0:  # a keyword-only Context comes last
            self.context_at = len(self.fields)
            self.keywords += (signature.context_name,)

    def convert(self, texts: dict[str, str]) -> dict[str, Any]:
        """Arguments that are strings on the wire as what the parameters want. Raises msgspec.ValidationError."""
        return dict(texts) if isinstance(self.signature, RawSignature) else self.signature.convert(texts)

    async def __call__(self, values: dict[str, Any], context: Context[Any] | None) -> Any:
        """Calls the function with values by name; with a raw schema some may be missing, and keep their defaults."""
        named = dict(values)
        if self.signature.context_name is not None:
            named[self.signature.context_name] = context
        positional: list[Any] = []
        if not isinstance(self.signature, RawSignature):
            order = list(self.signature.field_names)
            if self.signature.context_index >= 0:
                order.insert(self.signature.context_index, self.signature.context_name or "")
            positional = [named.pop(name) for name in order]
        value = self.call(*positional, **named)
        return value if self.inline else await value


class Tool:
    """A registered tool. `entry` is what the hot way sees of it."""

    __slots__ = (
        "_answers",
        "_members",
        "_mirrored",
        "_promised",
        "entry",
        "handler",
        "name",
        "signature",
        "use",
    )

    def __init__(
        self,
        handler: Handler,
        answers: Callable[[], Answers],
        members: dict[str, Any],
        *,
        name: str,
        fast: bool,
        own_task: bool,
        use: Use = ASKS_NOTHING,
    ) -> None:
        self.name = name
        self.use = use
        self.handler = handler
        self.signature = handler.signature
        self._answers = answers
        self._members = members
        self._mirrored: ParamHeaders | EllipsisType | None = ...
        if _is_marked(self.signature):
            self.mirrored()
        arguments_type = None if isinstance(self.signature, RawSignature) else self.signature.arguments_type
        # A value of exactly the type that the annotation promises needs no look into `content`: its JSON is its text, too.
        self._promised = _plain_type(self.signature) if self.signature.is_structured else None
        kind = TEXT if self._promised is str else ENCODE
        if not self.signature.is_structured:
            kind = ALONE  # a str; 6 us less than by way of `content`
        self.entry = Entry(
            name,
            self,
            handler.call,
            self.signature.decode,
            handler.fields,
            handler.keywords,
            handler.context_at,
            kind,
            self.encode,
            fast=fast and arguments_type is not None,
            own_task=own_task,
            inline=handler.inline,
            scalars=arguments_type is not None
            and SCALARS.issuperset(arguments_type.__annotations__.values()),
            decoded_type=arguments_type,
            members=None if arguments_type is None else _scalar_members(arguments_type, handler.fields),
        )

    def mirrored(self) -> ParamHeaders | None:
        """The arguments that HTTP headers mirror (section 13), compiled once: at registration where a parameter is marked.

        Raises RegistrationError for one that no header can carry (X2).
        """
        if self._mirrored is ...:
            from mcpfast.protocol.headers import ParamHeaders  # over HTTP alone, and few tools have such

            self._mirrored = ParamHeaders.of(self.signature.input_schema, self.name)
        return self._mirrored

    def describe(self) -> dict[str, Any]:
        """The tool as `tools/list` shows it, newest revision."""
        members = self._members
        return describe(
            name=self.name,
            title=members["title"],
            description=members["description"] or self.signature.summary or None,
            inputSchema=self.signature.input_schema,
            outputSchema=self.signature.output_schema,
            annotations=members["annotations"],
            icons=members["icons"],
            _meta=members["meta"],
        )

    async def invoke(self, dispatcher: Dispatcher, request: Request, arguments: bytes) -> Any:
        """One call on the slow way: the same decoder, the same handler, the same value as on the hot one."""
        try:
            decoded = self.signature.decode(arguments)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ArgumentsRefused from error
        if isinstance(decoded, dict):
            values = decoded
        else:
            values = {name: getattr(decoded, name) for name in self.handler.fields}
        context = dispatcher.make_context(request) if self.handler.context_at >= 0 else None
        return await self.handler(values, context)

    def encode(self, value: Any, wire: Wire) -> bytes:
        """A handler's value as the result's JSON (section 12.3)."""
        answers = self._answers()
        if type(value) is self._promised and value is not None:
            # 2 us instead of 9 us by way of `content`
            structured = self.signature.encode_structured(value)
            text = structured[10:-1] if self.signature.wraps_output else structured  # within {"result":...}
            shown = value if isinstance(value, str) else text.decode()
            members = b'"content":[{"type":"text","text":%b}]' % json_string(shown)
            if wire.structured:
                members += b',"structuredContent":' + structured
            return answers.complete(members, wire)
        from mcpfast.server.content import (
            to_call_result,  # most results need it, but not the first answer of a process
        )

        return answers.call(msgspec.to_builtins(to_call_result(value, self.signature)), wire)


def _plain_type(signature: Signature | RawSignature) -> type | None:
    """The class that an annotation names, where it is one of plain data; dict for `dict[str, T]`."""
    kind = get_origin(signature.return_type) or signature.return_type
    plain = (
        isinstance(kind, type) and not signature.returns_content and kind not in (list, tuple, set, frozenset)
    )
    return kind if plain else None


def _is_marked(signature: Signature | RawSignature) -> bool:
    """Whether a parameter is marked for HTTP headers to mirror: told without a schema, which is made when it is first asked for."""
    if isinstance(signature, RawSignature):
        return MIRRORED.encode() in messages.encode(signature.input_schema)
    return any(
        MIRRORED in (getattr(extra, "extra_json_schema", None) or ())
        for kind in signature.arguments_type.__annotations__.values()
        for extra in getattr(kind, "__metadata__", ())
    )


def _scalar_members(
    arguments_type: type[msgspec.Struct], fields: tuple[str, ...]
) -> tuple[tuple[bytes, type] | tuple[bytes, type, object], ...] | None:
    """What the hot way reads without msgspec: `(name as raw JSON, type)` or `(name, type, default)` for each parameter.

    None where one of them is not a plain scalar, or has a default that is made anew for each call.
    """
    members: dict[str, tuple[bytes, type] | tuple[bytes, type, object]] = {}
    for field in msgspec.structs.fields(arguments_type):
        if field.type not in PLAIN_SCALARS or field.default_factory is not msgspec.NODEFAULT:
            return None
        name = json_string(field.encode_name)
        members[field.name] = (
            (name, field.type) if field.default is msgspec.NODEFAULT else (name, field.type, field.default)
        )
    return tuple(members[field] for field in fields)


class Resource:
    """A registered resource or template. `template` is None for a fixed URI."""

    __slots__ = ("_members", "handler", "mime_type", "template", "uri", "use")

    def __init__(
        self,
        uri: str,
        template: UriTemplate | None,
        handler: Handler,
        mime_type: str | None,
        members: dict[str, Any],
        use: Use = ASKS_NOTHING,
    ) -> None:
        self.use = use
        self.uri = uri
        self.template = template
        self.handler = handler
        self.mime_type = mime_type
        self._members = members
        self._check_names()

    def _check_names(self) -> None:
        wanted = set(self.handler.fields)
        offered = set(self.template.names) if self.template is not None else set()
        if wanted != offered:
            raise RegistrationError(
                f"resource {self.uri!r}: the URI has {sorted(offered) or 'no variables'}, the function has the parameters "
                f"{sorted(wanted) or 'none'}; they must be the same (a Context parameter does not count)"
            )
        optional = self.template.optional_names if self.template is not None else ()
        bare = (
            sorted(set(self.handler.signature.input_schema.get("required", ())).intersection(optional))
            if optional
            else []
        )
        if bare:
            raise RegistrationError(
                f"resource {self.uri!r}: a client may leave out the query variables {bare}; give these parameters defaults"
            )

    def describe(self) -> dict[str, Any]:
        members = self._members
        return describe(
            **{"uri" if self.template is None else "uriTemplate": self.uri},
            name=members["name"],
            title=members["title"],
            description=members["description"] or self.handler.signature.summary or None,
            mimeType=self.mime_type,
            size=members.get("size"),
            annotations=members["annotations"],
            icons=members["icons"],
            _meta=members["meta"],
        )

    async def read(self, variables: dict[str, str], context: Context[Any], uri: str) -> list[dict[str, Any]]:
        """The contents, as they stand on the wire. Raises MCPError -32602 where a variable does not fit its type."""
        values: dict[str, Any] = variables
        if self.handler.fields:  # none of them may be in the URI: query variables have defaults
            try:
                values = self.handler.convert(variables)
            except msgspec.ValidationError as error:
                said = messages.sentence(self.handler.signature.explain(error))
                raise MCPError(INVALID_PARAMS, f"Invalid resource URI: {said}", {"uri": uri}) from None
        value = await self.handler(values, context)
        from mcpfast.server.content import to_resource_contents

        contents: list[dict[str, Any]] = msgspec.to_builtins(to_resource_contents(value, uri, self.mime_type))
        return contents


class Prompt:
    """A registered prompt. Its arguments are strings on the wire; a parameter of another type is read from the string."""

    __slots__ = ("_members", "handler", "name", "use")

    def __init__(self, name: str, handler: Handler, members: dict[str, Any], use: Use = ASKS_NOTHING) -> None:
        self.name = name
        self.use = use
        self.handler = handler
        self._members = members

    def describe(self) -> dict[str, Any]:
        members = self._members
        schema = self.handler.signature.input_schema
        required = schema.get("required", ())
        arguments = [
            describe(
                name=name,
                title=member.get("title"),
                description=member.get("description"),
                required=True if name in required else None,
            )
            for name, member in schema.get("properties", {}).items()
        ]
        return describe(
            name=self.name,
            title=members["title"],
            description=members["description"] or self.handler.signature.summary or None,
            arguments=arguments or None,
            icons=members["icons"],
            _meta=members["meta"],
        )

    async def get(self, arguments: dict[str, str], context: Context[Any]) -> dict[str, Any]:
        """A GetPromptResult as it stands on the wire. Raises MCPError -32602 for arguments that are missing or do not fit."""
        try:
            values = self.handler.convert(arguments)
        except msgspec.ValidationError as error:
            text = f"Invalid arguments for prompt {self.name}: {messages.sentence(self.handler.signature.explain(error))}"
            raise MCPError(INVALID_PARAMS, text) from None
        value = await self.handler(values, context)
        from mcpfast.server.content import to_prompt_result

        result: dict[str, Any] = msgspec.to_builtins(to_prompt_result(value))
        description = self._members["description"] or self.handler.signature.summary
        if description and not result.get("description"):
            result["description"] = description
        return result
