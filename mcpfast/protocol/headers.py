"""The routing headers of 2026-07-28 over HTTP: a message's head repeats parts of its body, and is held to it.

    check_mirror                 MCP-Protocol-Version, Mcp-Method, Mcp-Name (protocol notes, section 10, N1 to N5)
    ParamHeaders                 Mcp-Param-*: arguments that a tool's schema marks with `x-mcp-header` (section 13)
    decode_value, encode_value   one value of Mcp-Name or Mcp-Param-* (appendix B)

The body is what counts. It is compared because somebody on the way may have routed, counted or allowed by the head.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from mcpfast.errors import HEADER_MISMATCH, MCPError, RegistrationError

# method -> the member of `params` that Mcp-Name repeats; no other method needs the header.
NAME_MEMBERS: Final[dict[str, str]] = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
ANNOTATION: Final = "x-mcp-header"
PARAM_PREFIX: Final = "Mcp-Param-"
INTEGER_MAX: Final = 2**53 - 1  # above it, readers that know only doubles see other numbers
SHOWN_CHARACTERS_MAX: Final = 80

_SENTINEL, _SENTINEL_END = "=?base64?", "?="
_OWS: Final = " \t"  # RFC 9110, 5.6.3
_LITERAL = re.compile(r"[\t\x20-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_INTEGER = re.compile(r"(-?)([0-9]+)(?:\.0+)?")

# Where JSON Schema (2020-12, and the drafts before it) has schemas inside a schema, besides `properties`. What holds values
# (`default`, `enum`, `const`, `examples`) is not looked into: there the annotation's name is a member like any other.
_INNER = frozenset({
    "additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "contentSchema", "else", "if", "items", "not",
    "oneOf", "prefixItems", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
_INNER_BY_NAME = frozenset({
    "$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties",
})  # fmt: skip


# ---------------------------------------------------------------- one value


def decode_value(raw: bytes, header: str = "The header") -> str:
    """What a value of Mcp-Name or Mcp-Param-* says: literal, or the UTF-8 inside `=?base64?...?=` (N2); OWS around it is trimmed.

    `header` is the name for the error. Raises MCPError (-32020) for other characters than visible ASCII, space and tab, for
    base64 that is not canonical, and for what is no UTF-8 inside of it.
    """
    text = _literal(raw, header)
    if not (
        text.startswith(_SENTINEL)
        and text.endswith(_SENTINEL_END)
        and len(text) >= len(_SENTINEL) + len(_SENTINEL_END)  # `=?base64?=` has not both
    ):
        return text
    payload = text[len(_SENTINEL) : -len(_SENTINEL_END)].encode()
    try:
        decoded = binascii.a2b_base64(payload, strict_mode=True)
    except binascii.Error:
        decoded = None
    # Bits that the decoder drops would let two values stand for one.
    if decoded is None or binascii.b2a_base64(decoded, newline=False) != payload:
        raise MCPError(HEADER_MISMATCH, f"{header} has no canonical base64 between =?base64? and ?=")
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise MCPError(HEADER_MISMATCH, f"{header} has base64 that is no UTF-8") from None


def encode_value(value: str | int | bool) -> str:
    """The value of a Mcp-Name or Mcp-Param-* header, for clients (X3): what `decode_value` reads as the same text.

    Raises ValueError for an integer beyond ±(2^53 - 1), and for text with a lone surrogate.
    """
    text = _rendered(value)
    if text is None:
        raise TypeError(f"a header carries a string, an integer or a boolean, not {type(value).__name__}")
    # What only resembles the sentinel is wrapped, too: not every reader asks for prefix and suffix apart.
    looks_wrapped = text.startswith(_SENTINEL) and text.endswith(_SENTINEL_END)
    if _LITERAL.fullmatch(text) and text == text.strip(_OWS) and not looks_wrapped:
        return text
    return _SENTINEL + binascii.b2a_base64(text.encode(), newline=False).decode() + _SENTINEL_END


def _literal(raw: bytes, header: str) -> str:
    text = raw.decode("latin-1").strip(_OWS)
    if not _LITERAL.fullmatch(text):
        raise MCPError(
            HEADER_MISMATCH, f"{header} has a character that is neither visible ASCII nor a space or tab"
        )
    return text


def _rendered(value: Any) -> str | None:
    """How a JSON value stands in a header, before any base64; None for what has no place there: arrays, objects.

    Raises ValueError for an integer beyond ±INTEGER_MAX, `42.0` being one, too.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not value.is_integer():
        return repr(value)
    if isinstance(value, int | float):
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise ValueError("a header carries integers up to ±(2^53 - 1) only")
        return str(int(value))
    return None


def _shown(text: str) -> str:
    """Somebody's text for a message: quoted, on one line, cut."""
    quoted = repr(text[:SHOWN_CHARACTERS_MAX])
    return quoted if len(quoted) <= SHOWN_CHARACTERS_MAX else quoted[: SHOWN_CHARACTERS_MAX - 3] + "..."


# ---------------------------------------------------------------- the three headers of every request


def check_mirror(
    method: str,
    name: str | None,
    version: str,
    method_header: bytes | None,
    name_header: bytes | None,
    version_header: bytes | None,
) -> None:
    """Whether the head of a request says what its body says (N3, N5): `method`, `name`, `version` are the body's.

    The headers are raw values of Mcp-Method, Mcp-Name and MCP-Protocol-Version, None for absent; that none stands twice (N4) is
    the caller's to see. `name` is `params[NAME_MEMBERS[method]]`, None where it is no string: such a body is refused for that,
    later and with -32602. Raises MCPError (-32020) with one sentence about the first header that is not right.
    """
    _check_literal("MCP-Protocol-Version", version_header, version, "protocolVersion")
    _check_literal("Mcp-Method", method_header, method, "method")
    member = NAME_MEMBERS.get(method)
    if member is None or name is None:
        return
    if name_header is None:
        raise _missing("Mcp-Name", f"params.{member}")
    told = decode_value(name_header, "Mcp-Name")
    if told != name:
        raise _differs("Mcp-Name", told, f"params.{member}", name)


def _check_literal(header: str, raw: bytes | None, value: str, what: str) -> None:
    if raw is None:
        raise _missing(header, f"the message's {what}")
    told = _literal(raw, header)
    if told != value:
        raise _differs(header, told, f"the message's {what}", value)


def _missing(header: str, what: str) -> MCPError:
    return MCPError(HEADER_MISMATCH, f"The header {header} is missing; it must repeat {what}")


def _differs(header: str, told: str, what: str, value: str) -> MCPError:
    return MCPError(HEADER_MISMATCH, f"{header} is {_shown(told)}, but {what} is {_shown(value)}")


# ---------------------------------------------------------------- arguments in headers


class ParamHeader(NamedTuple):
    """One annotated property of an input schema."""

    header: str  # as clients write it
    key: str  # the same in lower case
    path: tuple[str, ...]  # from the arguments down
    is_integer: bool
    shown: str  # the path, for messages


class ParamHeaders:
    """The `x-mcp-header` annotations of one tool's input schema, found and judged once, at registration (X7).

    `names` are the lower-case names of the headers; other Mcp-Param-* headers mean nothing to this tool (X5).
    """

    __slots__ = ("_params", "names")

    def __init__(self, params: tuple[ParamHeader, ...]) -> None:
        self._params = params
        self.names = frozenset(param.key for param in params)

    @classmethod
    def of(cls, schema: dict[str, Any], where: str = "") -> ParamHeaders | None:
        """The annotations in `schema`; None where there are none. `where` names the tool in the error.

        Raises RegistrationError, one line that names the property, where X2 is not met. A client drops such a tool from its list.
        """
        found: dict[str, ParamHeader] = {}
        try:
            for place, path, inner in _positions(schema):
                if ANNOTATION in inner:
                    param = _param(place, path, inner)
                    other = found.setdefault(param.key, param)
                    if other is not param:
                        raise RegistrationError(
                            f"property {param.shown}: {ANNOTATION} {_shown(param.header[len(PARAM_PREFIX) :])} "
                            f"is taken by property {other.shown}; names must differ in more than case"
                        )
        except RegistrationError as error:
            if not where:
                raise
            raise RegistrationError(f"{where}(): {error}") from None
        return cls(tuple(found.values())) if found else None

    def check(self, arguments: dict[str, Any], values: Mapping[str, bytes]) -> None:
        """Whether the headers say what the arguments say (X4). `values` are raw header values by lower-case name, each header
        of `names` at most once: duplicates are the caller's to refuse.

        Arguments come as the body has them, before they are validated: a value of another type than the schema's is compared
        as it would be written, and refused for its type by those who come after. Raises MCPError (-32020).
        """
        for param in self._params:
            value, raw = _at(arguments, param.path), values.get(param.key)
            try:
                text = _rendered(value)
            except ValueError:
                raise MCPError(
                    HEADER_MISMATCH,
                    f"The argument {param.shown} is beyond ±(2^53 - 1), which {param.header} cannot carry",
                ) from None
            if text is None:  # absent, null, or nothing that a header can say
                if raw is not None:
                    what = "is absent" if value is None else "cannot stand in a header"
                    raise MCPError(
                        HEADER_MISMATCH,
                        f"The header {param.header} is there, but the argument {param.shown} {what}",
                    )
                continue
            if raw is None:
                raise _missing(param.header, f"the argument {param.shown}")
            told = decode_value(raw, param.header)
            # Values stay out of the message: arguments may be personal, and errors are logged.
            if told != text and not (param.is_integer and _same_integer(told, text)):
                raise MCPError(
                    HEADER_MISMATCH, f"The header {param.header} differs from the argument {param.shown}"
                )

    def render(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The headers that a client sends with these arguments (X3); absent and null ones have none.

        An array or object where the schema wants a plain value has none either, and is the server's to refuse. Raises ValueError
        for an integer beyond ±(2^53 - 1).
        """
        headers = {}
        for param in self._params:
            try:
                text = _rendered(_at(arguments, param.path))
                if text is not None:
                    headers[param.header] = encode_value(text)
            except ValueError as error:
                raise ValueError(f"the argument {param.shown} cannot be sent: {error}") from None
        return headers


def _positions(schema: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...] | None, dict[str, Any]]]:
    """Every schema inside of `schema`, itself first: where it stands, and its path where that is made of `properties` alone."""
    queue: list[tuple[str, tuple[str, ...] | None, Any]] = [("#", (), schema)]
    for place, path, inner in queue:  # grows meanwhile
        if not isinstance(inner, dict):
            continue
        yield place, path, inner
        for keyword, below in inner.items():
            at = f"{place}/{keyword}"
            if keyword in _INNER_BY_NAME:
                if isinstance(below, dict):
                    way = path if keyword == "properties" else None
                    queue += [
                        (f"{at}/{name}", None if way is None else (*way, name), each)
                        for name, each in below.items()
                    ]
            elif keyword in _INNER:
                queue += [(at, None, each) for each in (below if isinstance(below, list) else (below,))]


def _param(place: str, path: tuple[str, ...] | None, schema: dict[str, Any]) -> ParamHeader:
    """The annotation of one property. Raises RegistrationError."""
    if not path:
        raise RegistrationError(
            f"property {_shown(place)}: {ANNOTATION} may stand only on a property that is reached from the root "
            'through "properties" alone'
        )
    shown = _shown(".".join(path))
    name, kind = schema[ANNOTATION], schema.get("type")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        told = _shown(name) if isinstance(name, str) else type(name).__name__
        raise RegistrationError(
            f"property {shown}: {ANNOTATION} must be a header token, letters, digits and !#$%&'*+-.^_`|~, not {told}"
        )
    if kind not in ("string", "integer", "boolean"):
        told = _shown(kind) if isinstance(kind, str) else "several types" if kind else "none"
        raise RegistrationError(
            f'property {shown}: {ANNOTATION} needs a "type" that is "string", "integer" or "boolean", not {told}; '
            "for a value that may be absent, give a default of its own type instead of null"
        )
    header = PARAM_PREFIX + name
    return ParamHeader(header, header.lower(), path, kind == "integer", shown)


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    """The value at `path`, None where there is none."""
    for step in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(step)
    return arguments


def _same_integer(told: str, text: str) -> bool:
    """Whether a decimal number from a header is the integer `text`. By digits: a number of 10,000 digits costs nothing."""
    number = _INTEGER.fullmatch(told)
    if number is None:
        return False
    digits = number[2].lstrip("0") or "0"
    return text == ("-" + digits if number[1] and digits != "0" else digits)
