"""Sampling and roots: what the server sends for them, and what comes back. Specification: Sampling, Roots."""

from __future__ import annotations

from typing import Any

import msgspec

from mcpfast.protocol.types import CreateMessageResult, Root
from mcpfast.server.asking import BadAnswer


def params(messages: str | list[Any], *, max_tokens: int, **options: Any) -> dict[str, Any]:
    """The params of `sampling/createMessage`; options that are None are left out."""
    listed = [messages] if isinstance(messages, str) or not isinstance(messages, list | tuple) else messages
    made: dict[str, Any] = {"messages": [_message(message) for message in listed], "maxTokens": max_tokens}
    preferences = options.pop("model_preferences", None)
    if isinstance(preferences, str):
        preferences = {"hints": [{"name": preferences}]}
    elif isinstance(preferences, list):
        preferences = {"hints": [{"name": name} for name in preferences]}
    if preferences is not None:
        made["modelPreferences"] = msgspec.to_builtins(preferences)
    for name, value in options.items():
        if value is not None:
            head, *rest = name.split("_")
            made[head + "".join(word.capitalize() for word in rest)] = msgspec.to_builtins(value)
    return made


def _message(message: Any) -> Any:
    if isinstance(message, str):
        return {"role": "user", "content": {"type": "text", "text": message}}
    return msgspec.to_builtins(message)


def parse(answer: dict[str, Any]) -> CreateMessageResult:
    try:
        return msgspec.convert(answer, CreateMessageResult)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"the client's sampling result is malformed: {error}") from None


def parse_roots(answer: dict[str, Any]) -> list[Root]:
    try:
        return msgspec.convert(answer.get("roots"), list[Root])
    except msgspec.ValidationError as error:
        raise BadAnswer(f"the client's roots are malformed: {error}") from None
