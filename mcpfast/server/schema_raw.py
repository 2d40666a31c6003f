"""JSON Schemas that users write themselves, validated by jsonschema-rs. Imported when the first one is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mcpfast.errors import RegistrationError

MESSAGE_CHARACTERS_MAX = 300


def validator(schema: Any, where: str) -> Callable[[Any], None]:
    """A function that raises msgspec.ValidationError, with path and keyword, for what does not conform to `schema`.

    The dialect is 2020-12 unless `$schema` names another that is known. Raises RegistrationError for a schema that
    is not valid, whose root is not `type: object`, or that refers to another document: nothing is ever fetched
    (specification 2026-07-28, JSON Schema usage).
    """
    import jsonschema_rs  # 10 ms, needed by few servers

    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise RegistrationError(f'{where}(): the root of an input schema must say "type": "object"')
    try:
        compiled = jsonschema_rs.validator_for(schema, mask="the value", offline=True)
    except jsonschema_rs.ValidationError as error:
        raise RegistrationError(f"{where}(): its input schema cannot be used: {_one_line(error)}") from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise RegistrationError(f"{where}(): its input schema cannot be used: {error}") from None

    def validate(value: Any) -> None:
        try:
            compiled.validate(value)
        except jsonschema_rs.ValidationError as error:
            raise msgspec.ValidationError(_one_line(error)) from None

    return validate


def _one_line(error: Any) -> str:
    """What is wrong and where, as msgspec says it; the value itself is masked."""
    path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    message = error.message.replace("\n", " ")
    message = message[:1].upper() + message[1:]
    if len(message) > MESSAGE_CHARACTERS_MAX:
        message = message[:MESSAGE_CHARACTERS_MAX] + "..."
    return f"{message} - at `{path}`" if path != "$" else message
