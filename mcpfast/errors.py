"""Every error mcpfast raises, and the one table of JSON-RPC codes.

McpFastError
+-- MCPError                        becomes a JSON-RPC error; the model never sees it
|   +-- ResourceNotFound            -32602 from 2026-07-28 on, -32002 before
|   +-- UrlElicitationRequiredError -32042, 2025-11-25 only
|   +-- ConnectionClosed            the peer went away before it answered
|   +-- HttpError                   (client) an HTTP status that is no answer; `status` and, for a 401, `challenge`
|   +-- RequestTimeout              (client) a deadline passed; a TimeoutError, too
+-- ToolError                       becomes a result with `isError`; the model reads it and may try again
+-- RegistrationError               what cannot be served as written; raised where it is registered; a ValueError, too
+-- AddressError                    an address that cannot be used; one line on the command line; a ValueError, too
+-- KeyRingError, SealError         (server.sealed) keys that cannot be used; a state that is not to be believed
+-- FormError, BadAnswer            (server.forms, server.asking) what the user or the client answered does not fit
+-- ReplayMismatch                  (server.asking) a handler that ran again asked something else than before
"""

from __future__ import annotations

from typing import Any, Final

# JSON-RPC 2.0, section 5.1
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
# MCP, all revisions before 2026-07-28
RESOURCE_NOT_FOUND: Final = -32002
URL_ELICITATION_REQUIRED: Final = -32042
# MCP 2026-07-28
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
# Our own, outside the range that JSON-RPC reserves (specification 2026-07-28, error codes)
TOO_MANY_CALLS: Final = 4290
QUOTA_EXCEEDED: Final = 4291  # a tenant's, a principal's or a tool's (tenancy.refusals)
OVERLOADED: Final = 5030  # the process is full


class McpFastError(Exception):
    """Root of all errors that mcpfast raises on purpose."""


class MCPError(McpFastError):
    """A protocol error: raised in a handler it is answered as a JSON-RPC error, in a client it is one received.

    `code` is the JSON-RPC code, `message` one short sentence, `data` any JSON value or None for absent.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    @property
    def error(self) -> MCPError:
        """The official SDK keeps code, message and data one step further in; here they are the same object's."""
        return self

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ResourceNotFound(MCPError):
    """No resource has this URI. The code on the wire depends on the revision (specification, Resources)."""

    def __init__(self, uri: str, message: str | None = None) -> None:
        super().__init__(INVALID_PARAMS, message or f"Resource not found: {uri}", {"uri": uri})
        self.uri = uri


class UrlElicitationRequiredError(MCPError):
    """Raised by a handler that cannot go on before the user has visited some pages (2025-11-25, URL elicitation).

    `elicitations` are ElicitRequestURLParams. `ctx.elicit_url` asks in the middle of a call, and in either era.
    """

    def __init__(self, elicitations: list[Any], message: str | None = None) -> None:
        text = message or f"URL elicitation{'s' if len(elicitations) > 1 else ''} required"
        super().__init__(URL_ELICITATION_REQUIRED, text, {"elicitations": elicitations})
        self.elicitations = elicitations


class ConnectionClosed(MCPError):
    """The connection ended before the answer came."""

    def __init__(self, message: str = "Connection closed") -> None:
        super().__init__(INTERNAL_ERROR, message)

    def __str__(self) -> str:  # no code: the peer sent none
        return self.message


class ToolError(McpFastError):
    """Raised by a tool to tell the model what went wrong: answered as a result with `isError: true`."""


class RegistrationError(McpFastError, ValueError):
    """A tool, resource or prompt that cannot be served as written; the message says what to change."""


class AddressError(McpFastError, ValueError):
    """An address or target that cannot be used; the message names it and the forms that can."""
