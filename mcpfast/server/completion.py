"""Completion of prompt and template arguments. Specification: Completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast.protocol import types

if TYPE_CHECKING:
    from mcpfast.protocol.messages import CompleteParams


async def run(completer: Callable[..., Any], asked: CompleteParams, values_max: int) -> dict[str, Any]:
    """Calls the user's `completer(ref, argument, context)`; a Completion, a list of strings or None is what it may give."""
    ref: Any
    if asked.ref.type == "ref/prompt":
        ref = types.PromptReference(name=asked.ref.name or "")
    else:
        ref = types.ResourceTemplateReference(uri=asked.ref.uri or "")
    argument = types.CompletionArgument(name=asked.argument.name, value=asked.argument.value)
    context = None
    if asked.context is not None:
        context = types.CompletionContext(arguments=asked.context.arguments)
    wanted = (ref, argument, context)[: len(inspect.signature(completer).parameters)]
    given = completer(*wanted)
    if inspect.isawaitable(given):
        given = await given
    if given is None:
        return {"values": []}
    found: dict[str, Any] = (
        msgspec.to_builtins(given) if isinstance(given, msgspec.Struct | dict) else {"values": list(given)}
    )
    values = found["values"]
    if len(values) > values_max:  # the specification's limit; the rest is announced
        found = {"total": len(values), **found, "values": values[:values_max], "hasMore": True}
    return found
