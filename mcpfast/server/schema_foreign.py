"""Types that msgspec cannot read by itself, and the errors about them.

A `Foreign` type is one of our own that stands in an annotation for such a type; msgspec hands its values to us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, get_args, get_origin

import msgspec

from mcpfast.protocol import messages


class Unfit(Exception):
    """An annotation whose values cannot be read from JSON as it stands; the message says why and what to do."""


class Impossible(Unfit):
    """An annotation that nobody can read from JSON, pydantic neither."""


class _HoldsAnything(type):
    # msgspec checks what a custom type's hook gave with isinstance; here every value is one.
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Foreign(metaclass=_HoldsAnything):
    """A type that msgspec hands to us: `read` makes a value of JSON, raising ValueError, `schema` describes it."""

    read: ClassVar[Callable[[Any], Any]]
    schema: ClassVar[Callable[[Any], dict[str, Any]]]  # takes the schema.Writer


def read_custom(kind: Any, value: Any) -> Any:
    """msgspec's `dec_hook`: a value of a type that it does not know. Raises ValueError for one that does not fit."""
    if isinstance(kind, _HoldsAnything):
        return kind.read(value)  # type: ignore[attr-defined]
    if kind is object:  # to msgspec a class it does not know, to a handler any JSON
        return value
    if hasattr(kind, "model_validate"):
        from mcpfast.server.schema_pydantic import read_model

        return read_model(kind, value)
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    return kind(value)  # a path


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder for a fitted annotation. Raises Unfit where msgspec refuses it."""
    try:
        return messages.make_decoder(kind, read_custom)
    except NameError as error:
        raise Unfit(unknown_name(error)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise Unfit(str(error).split(" - type ")[0]) from None


def unknown_name(error: NameError) -> str:
    return (
        f"the name {error.name!r} in its annotations is not known at module level; define or import it there"
    )


def one_of(arms: list[Any]) -> type[Foreign]:
    """A type for a union that msgspec refuses: the first member that fits, for objects the one that knows most."""

    def read(value: Any) -> Any:
        best, most = None, -1
        for arm in arms:
            try:
                found = msgspec.convert(value, arm, dec_hook=read_custom)
            except msgspec.ValidationError:
                continue
            known = _members_known(found, value) if isinstance(value, dict) else 0
            if known > most:
                best, most = found, known
        if most < 0:
            raise ValueError(f"Expected one of {', '.join(name_of(arm) for arm in arms)}")
        return best

    def schema(writer: Any) -> dict[str, Any]:
        return {"anyOf": [writer.write(arm) for arm in arms]}

    return type("OneOf", (Foreign,), {"read": staticmethod(read), "schema": staticmethod(schema)})


def _members_known(found: Any, value: dict[str, Any]) -> int:
    if isinstance(found, dict):
        return len(found)
    if isinstance(found, msgspec.Struct):
        return len(value.keys() & set(found.__struct_encode_fields__))
    if hasattr(found, "__dataclass_fields__"):
        return len(value.keys() & found.__dataclass_fields__.keys())
    return len(getattr(found, "model_fields_set", ()))


def name_of(kind: Any) -> str:
    """How a message calls a type."""
    if get_origin(kind) is Annotated:
        return name_of(get_args(kind)[0])
    if kind is None or kind is type(None):
        return "`null`"
    return f"`{kind.__name__ if isinstance(kind, type) and not get_args(kind) else kind}`"
