"""mcpfast: a production MCP server framework whose hot path is compiled.

    from mcpfast import MCPServer, Context

Names are imported when first used, so that a stdio server starts in an instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "MCPServer": "mcpfast.server.app",
    "Context": "mcpfast.server.context",
    "CacheHint": "mcpfast.server.answers",
    "KeyRing": "mcpfast.server.sealed",
    "Client": "mcpfast.client",
    "Limits": "mcpfast.limits",
    "McpFastError": "mcpfast.errors",
    "MCPError": "mcpfast.errors",
    "ToolError": "mcpfast.errors",
    "ResourceNotFound": "mcpfast.errors",
    "RegistrationError": "mcpfast.errors",
    "Image": "mcpfast.server.content",
    "Audio": "mcpfast.server.content",
    "ToolResult": "mcpfast.server.content",
    "Message": "mcpfast.server.content",
    "UserMessage": "mcpfast.server.content",
    "AssistantMessage": "mcpfast.server.content",
    "AcceptedElicitation": "mcpfast.server.forms",
    "DeclinedElicitation": "mcpfast.server.forms",
    "CancelledElicitation": "mcpfast.server.forms",
    "ElicitationResult": "mcpfast.server.forms",
    "UrlElicitationRequiredError": "mcpfast.errors",
    "Icon": "mcpfast.protocol.blocks",
    "TextResource": "mcpfast.server.resources",
    "BinaryResource": "mcpfast.server.resources",
    "FileResource": "mcpfast.server.resources",
    "FunctionResource": "mcpfast.server.resources",
    "HttpRequest": "mcpfast.server.routes",
    "HttpResponse": "mcpfast.server.routes",
    "Tenancy": "mcpfast.tenancy.service",
}

_ELSEWHERE = ("FastMCP", "FastMCPServer", "Server")  # what others call it

if TYPE_CHECKING:
    from mcpfast import types
    from mcpfast.client import Client
    from mcpfast.errors import (
        MCPError,
        McpFastError,
        RegistrationError,
        ResourceNotFound,
        ToolError,
        UrlElicitationRequiredError,
    )
    from mcpfast.limits import Limits
    from mcpfast.protocol.blocks import Icon
    from mcpfast.server.answers import CacheHint
    from mcpfast.server.app import MCPServer
    from mcpfast.server.content import AssistantMessage, Audio, Image, Message, ToolResult, UserMessage
    from mcpfast.server.context import Context
    from mcpfast.server.forms import (
        AcceptedElicitation,
        CancelledElicitation,
        DeclinedElicitation,
        ElicitationResult,
    )
    from mcpfast.server.resources import BinaryResource, FileResource, FunctionResource, TextResource
    from mcpfast.server.routes import HttpRequest, HttpResponse
    from mcpfast.server.sealed import KeyRing
    from mcpfast.tenancy.service import Tenancy

__all__ = [
    "AcceptedElicitation",
    "AssistantMessage",
    "Audio",
    "BinaryResource",
    "CacheHint",
    "CancelledElicitation",
    "Client",
    "Context",
    "DeclinedElicitation",
    "ElicitationResult",
    "FileResource",
    "FunctionResource",
    "HttpRequest",
    "HttpResponse",
    "Icon",
    "Image",
    "KeyRing",
    "Limits",
    "MCPError",
    "MCPServer",
    "McpFastError",
    "Message",
    "RegistrationError",
    "ResourceNotFound",
    "Tenancy",
    "TextResource",
    "ToolError",
    "ToolResult",
    "UrlElicitationRequiredError",
    "UserMessage",
    "types",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "types":
        return import_module("mcpfast.types")
    home = _HOME.get(name)
    if home is None:
        raise _unknown(name)
    value = globals()[name] = getattr(import_module(home), name)  # found once
    return value


def _unknown(name: str) -> Exception:
    if name not in _ELSEWHERE:
        return AttributeError(f"module 'mcpfast' has no attribute {name!r}")
    import sys

    hint = f"mcpfast has no {name}; its class is MCPServer: from mcpfast import MCPServer"
    # `from mcpfast import FastMCP` would replace the text of an AttributeError by its own.
    importing = sys._getframe(2).f_code.co_name == "_handle_fromlist"
    return ImportError(hint, name="mcpfast") if importing else AttributeError(hint)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "types"})
