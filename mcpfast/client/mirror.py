"""What a modern request repeats of its body in HTTP headers: its method, its name, some arguments (sections 10, 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcpfast.errors import RegistrationError
from mcpfast.protocol.headers import NAME_MEMBERS, ParamHeaders, encode_value

if TYPE_CHECKING:
    from mcpfast.protocol.types import Tool

# The tasks extension (section 29) names its headers in the same way.
_NAMED = {**NAME_MEMBERS, **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId")}


def named_headers(method: str, params: dict[str, Any] | None) -> dict[str, str]:
    """Mcp-Method, and Mcp-Name where the method has one. Raises ValueError for a name that is no Unicode text."""
    headers = {"Mcp-Method": encode_value(method)}
    member = _NAMED.get(method)
    name = params.get(member) if params is not None and member is not None else None
    if isinstance(name, str):
        headers["Mcp-Name"] = encode_value(name)
    return headers


class Mirror:
    """Which arguments of which tools stand in headers, too: as far as tools have been listed."""

    def __init__(self) -> None:
        self._tools: dict[str, ParamHeaders] = {}

    def learn(self, tools: list[Tool]) -> list[Tool]:
        """Reads the annotations of `tools`. Those that are wrong make the tool unusable (X2): it is left out."""
        usable = []
        for tool in tools:
            try:
                params = ParamHeaders.of(tool.input_schema)
            except RegistrationError as error:
                import logging

                logging.getLogger("mcpfast.client").warning("The tool %r is left out: %s", tool.name, error)
                continue
            usable.append(tool)
            if params is None:
                self._tools.pop(tool.name, None)
            else:
                self._tools[tool.name] = params
        return usable

    def headers(self, method: str, params: dict[str, Any] | None) -> dict[str, str]:
        """The Mcp-Param-* headers of a call. Raises ValueError for an integer that no header can carry."""
        if method != "tools/call" or params is None:
            return {}
        known = self._tools.get(params["name"])
        return {} if known is None else known.render(params.get("arguments") or {})
