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
    """Calls the user's `completer(ref, argument, context)`; a Completion, strings, one string or None is what it may give.

    Raises TypeError where it gives something else.
    """
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
    found = _completion(given)
    values = found["values"]
    if len(values) > values_max:  # the specification's limit; the rest is announced
        found = {"total": len(values), **found, "values": values[:values_max], "hasMore": True}
    return found


def _completion(given: Any) -> dict[str, Any]:
    """The Completion that a completer gave, as it stands on the wire. Raises TypeError."""
    try:
        if isinstance(given, str):
            given = [given]
        found: dict[str, Any] = (
            msgspec.to_builtins(given)
            if isinstance(given, msgspec.Struct | dict)
            else {"values": list(given)}
        )
        msgspec.convert(found, types.Completion)
        return found
    except (TypeError, msgspec.ValidationError) as error:
        raise TypeError(
            f"a completer returns a list of str, a Completion or None, not {type(given).__name__}: {error}"
        ) from None
