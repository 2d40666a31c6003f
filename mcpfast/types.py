"""The protocol's types, for users: `from mcpfast.types import TextContent`."""

from mcpfast.protocol.types import *  # noqa: F403 - the same names, at the place where the official SDK has them
from mcpfast.protocol.types import __all__ as __all__
