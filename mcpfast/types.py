"""The protocol's types and error codes, for users: `from mcpfast.types import TextContent, INVALID_PARAMS`."""

from mcpfast.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    URL_ELICITATION_REQUIRED,
)
from mcpfast.protocol.revisions import LATEST
from mcpfast.protocol.types import *  # noqa: F403 - the same names, at the place where the official SDK has them
from mcpfast.protocol.types import __all__ as _types

LATEST_PROTOCOL_VERSION = LATEST.version

__all__ = [  # noqa: PLE0604
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "LATEST_PROTOCOL_VERSION",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "URL_ELICITATION_REQUIRED",
    *_types,
]
