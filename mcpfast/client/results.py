"""What a tool call gives to the user of the client."""

from __future__ import annotations

from typing import Any

from mcpfast.errors import ToolError
from mcpfast.protocol import types


class CallToolResult(types.CallToolResult):
    """What a tool answered: `content` for the model, `structured_content` for programs, `is_error` when the
    tool failed.
    """

    @property
    def data(self) -> Any:
        """The return value: `structured_content`, out of the `{"result": ...}` that wraps what is no object.

        None without any.
        """
        content = self.structured_content
        if isinstance(content, dict) and len(content) == 1 and "result" in content:
            return content["result"]
        return content

    @property
    def text(self) -> str:
        """The text blocks, one below the other."""
        return "\n".join(block.text for block in self.content if isinstance(block, types.TextContent))

    def raise_for_error(self) -> None:
        """Raises ToolError with the text of the result if the tool failed."""
        if self.is_error:
            raise ToolError(self.text or "The tool failed and gave no text")
