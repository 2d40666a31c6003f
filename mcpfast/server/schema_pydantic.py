"""pydantic's models, fields and types in signatures, for users who have pydantic.

mcpfast never imports pydantic. Where one of its objects stands in an annotation the user has imported it, so it is
found in `sys.modules`.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from mcpfast.server.schema_foreign import Foreign, Unfit
from mcpfast.server.schema_types import constraint_members


def read_model(model: Any, value: Any) -> Any:
    """A value of a model. Raises ValueError with one line: the path inside the model and what was expected."""
    try:
        if model.model_config.get("strict"):
            # In strict mode pydantic reads dates, UUIDs and the like from JSON only.
            return model.model_validate_json(msgspec.json.encode(value))
        return model.model_validate(value)
    except ValueError as error:
        raise ValueError(one_line(error)) from None


def by_pydantic(kind: Any) -> type[Foreign]:
    """A type whose values pydantic reads. Raises Unfit where pydantic refuses the annotation."""
    adapter = type_adapter(kind)
    schema_of(adapter, "validation")  # refused now, rather than when a list is asked for

    def read(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValueError as error:
            raise ValueError(one_line(error)) from None

    def schema(writer: Any) -> dict[str, Any]:
        return writer.adopt(schema_of(adapter, writer.mode))  # type: ignore[no-any-return]

    members = {"read": staticmethod(read), "schema": staticmethod(schema), "is_object": is_object(kind)}
    return type("ByPydantic", (Foreign,), members)


def type_adapter(kind: Any) -> Any:
    """pydantic's TypeAdapter of an annotation. Raises Unfit where it refuses it."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        raise Unfit("pydantic is not there to read it")
    try:
        return pydantic.TypeAdapter(kind)
    except Exception as error:
        raise Unfit(str(error).partition("\n")[0]) from None


def schema_of(adapter: Any, mode: str) -> dict[str, Any]:
    """pydantic's schema of a type, in its mode "validation" or "serialization". Raises Unfit where it has none."""
    try:
        return adapter.json_schema(mode=mode)  # type: ignore[no-any-return]
    except Exception as error:
        raise Unfit(str(error).partition("\n")[0]) from None


def one_line(error: ValueError) -> str:
    """pydantic's error in one line, without the value that was given."""
    if not hasattr(error, "errors"):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    more = error.error_count() - 1  # type: ignore[attr-defined]
    where = f" (in `{path.removeprefix('.')}`)" if path else ""
    return f"{first['msg']}{where}{f', and {more} more' if more else ''}"


def is_field(thing: Any) -> bool:
    """Whether this is what pydantic's `Field(...)` gives."""
    return type(thing).__name__ == "FieldInfo" and type(thing).__module__.startswith("pydantic")


def field_default(field: Any) -> Any:
    """What to put into defstruct for a Field's default: nothing, a default, or a factory."""
    if field.default_factory is not None:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.NODEFAULT if field.is_required() else field.default


def field_members(extra: Any) -> dict[str, Any]:
    """What a Field, or one of pydantic's constraints, says, as members of a msgspec.Meta.

    Raises Unfit for what only pydantic can do, say a validator.
    """
    if not is_field(extra):
        return _general_metadata(extra)
    if extra.discriminator is not None or extra.validate_default:
        raise Unfit("this Field needs pydantic itself")
    members: dict[str, Any] = {}
    for name in ("title", "description", "examples"):
        if getattr(extra, name) is not None:
            members[name] = getattr(extra, name)
    if isinstance(extra.json_schema_extra, dict):
        members["extra_json_schema"] = extra.json_schema_extra
    for constraint in extra.metadata:
        if type(constraint).__module__.startswith("annotated_types"):
            members |= constraint_members(constraint)
        else:
            members |= _general_metadata(constraint)
    return members


def _general_metadata(extra: Any) -> dict[str, Any]:
    members = getattr(extra, "__dict__", {})
    if members.keys() == {"pattern"} and isinstance(members["pattern"], str):
        return dict(members)
    raise Unfit(f"{type(extra).__name__} needs pydantic itself")


def is_object(kind: Any) -> bool:
    """Whether values of a pydantic type are JSON objects."""
    if getattr(kind, "__pydantic_root_model__", False):
        return False
    return hasattr(kind, "model_validate") or hasattr(kind, "__dataclass_fields__")
