"""What a client may ask, decoded: one Struct for the params of each kind of request, and the lines a server writes.

Only what the server reads is named; other members are ignored, as the specification wants (section 3, J10). The types that
users and clients see stand in `types.py`, which the server imports when it needs it.
"""

from __future__ import annotations

from _thread import allocate_lock  # a lock, and nothing that starts threads or waits for the clock
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mcpfast.errors import INVALID_PARAMS, MCPError

META_PREFIX = "io.modelcontextprotocol/"
EMPTY_OBJECT = b"{}"
SENTENCE_CHARS_MAX = 300


class Params(Struct):
    """Params of which only `_meta` matters here."""

    meta: Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


class NoParams(Params):
    """Nothing but perhaps `_meta`."""


class ListParams(Params):
    cursor: str | UnsetType = UNSET


class Retry(Params, rename="camel"):
    """What a client adds when it answers `input_required` (2026-07-28)."""

    input_responses: Raw | UnsetType = UNSET
    request_state: Raw | UnsetType = UNSET


class Target(Struct):
    """What a call names, whichever method it is."""

    name: str | None = None
    uri: str | None = None
    arguments: Raw | UnsetType = UNSET


class CallParams(Retry, rename="camel", kw_only=True):
    name: str
    arguments: Raw | UnsetType = UNSET


class ReadParams(Retry, rename="camel", kw_only=True):
    uri: str


class PromptParams(Retry, rename="camel", kw_only=True):
    name: str
    arguments: dict[str, str] | None = None


class SubscribeParams(Params, kw_only=True):
    uri: str


class SetLevelParams(Params, kw_only=True):
    level: str


class Argument(Struct):
    name: str
    value: str


class CompletionContext(Struct):
    arguments: dict[str, str] | None = None


class Reference(Struct):
    type: str
    name: str | None = None
    uri: str | None = None


class CompleteParams(Params, kw_only=True):
    ref: Reference
    argument: Argument
    context: CompletionContext | None = None


class CancelledParams(Struct, rename="camel"):
    request_id: int | str | None = None
    reason: Any = None


class InitializeParams(Struct, rename="camel"):
    protocol_version: str
    capabilities: dict[str, Any]
    client_info: dict[str, Any]


class ListenFilter(Struct, rename="camel"):
    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: list[str] = []


class ListenParams(Params, kw_only=True):
    notifications: ListenFilter


class Envelope(Struct):
    """`params._meta` of 2026-07-28 (section 6, M1). Everything optional here: modern.py says what is missing."""

    version: Any = msgspec.field(name=META_PREFIX + "protocolVersion", default=UNSET)
    capabilities: Any = msgspec.field(name=META_PREFIX + "clientCapabilities", default=UNSET)
    client_info: Any = msgspec.field(name=META_PREFIX + "clientInfo", default=UNSET)
    log_level: Any = msgspec.field(name=META_PREFIX + "logLevel", default=UNSET)
    progress_token: Any = msgspec.field(name="progressToken", default=UNSET)


class Outer(Struct):
    """Any params, for their `_meta` alone."""

    meta: Envelope | UnsetType | None = msgspec.field(name="_meta", default=UNSET)


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_making = allocate_lock()


def make_decoder(kind: Any, dec_hook: Any = None) -> msgspec.json.Decoder[Any]:
    """A decoder of a type, one thread at a time: msgspec 0.22 crashes where two meet a Struct for the first time together."""
    with _making:
        return msgspec.json.Decoder(kind, dec_hook=dec_hook)


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of one of our own types, made once."""
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = make_decoder(kind)
    return found


def decode(kind: type[Any], raw: bytes | None) -> Any:
    """The params `raw` (a JSON object, None for absent) as a `kind`. Raises MCPError -32602 that names the member."""
    try:
        return decoder(kind).decode(raw or EMPTY_OBJECT)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MCPError(INVALID_PARAMS, f"Invalid params: {sentence(error)}") from None


def sentence(said: object) -> str:
    """What an error says as one short line (section 3, J6): it may quote what the client wrote."""
    text = " ".join(writable(str(said)).split())
    return text if len(text) <= SENTENCE_CHARS_MAX else f"{text[:SENTENCE_CHARS_MAX]}..."


def writable(text: str) -> str:
    """`text` as JSON can hold it: lone surrogates (names of files that are no UTF-8, say) as they look in Python."""
    return text.encode(errors="backslashreplace").decode()


encode = msgspec.json.encode


def result_tail(body: bytes) -> bytes:
    """What stands behind the id of an answer that has a result."""
    return b',"result":%b}\n' % body


def error_tail(error: MCPError) -> bytes:
    """What stands behind the id of an answer that is an error."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return b',"error":%b}\n' % encode(body)


def error_line(error: MCPError, *, id_null: bool) -> bytes:
    """An error that belongs to no request: `"id": null` before 2025-11-25, no id from then on (section 3, J7)."""
    return b'{"jsonrpc":"2.0"' + (b',"id":null' if id_null else b"") + error_tail(error)


def error_answer(error: MCPError, id_: bytes) -> bytes:
    """The error of a request; `id_` is its raw JSON."""
    return b'{"jsonrpc":"2.0","id":' + id_ + error_tail(error)


def request_line(id_: str, method: str, params: Any) -> bytes:
    """A request of the server (legacy era only)."""
    return encode({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}) + b"\n"


def notification_line(method: str, params: Any = None) -> bytes:
    """A notification of the server."""
    body = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        body["params"] = params
    return encode(body) + b"\n"
