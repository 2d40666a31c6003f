"""Classes that msgspec reads member by member: Structs, dataclasses, attrs classes, TypedDicts and NamedTuples."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import msgspec

from mcpfast.server.schema_foreign import Unfit, unknown_name

# name on the wire, annotation, whether it must be there, default (NODEFAULT for none that can be told)
Member = tuple[str, Any, bool, Any]


def is_members_class(kind: type) -> bool:
    """Whether msgspec reads this class member by member."""
    return (
        issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__attrs_attrs__")
        or is_typed_dict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def is_typed_dict(kind: Any) -> bool:
    """Whether `kind` is a TypedDict class, of typing or typing_extensions."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def member_hints(kind: Any) -> dict[str, Any]:
    """The annotations of a class or parametrised generic class, resolved. Raises Unfit for an unknown name."""
    origin = get_origin(kind) or kind
    try:
        hints = typing.get_type_hints(origin, include_extras=True)
    except NameError as error:
        raise Unfit(unknown_name(error)) from None
    parameters = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=False))
    return {
        name: _substitute(_bare(hint), parameters)
        for name, hint in hints.items()
        if get_origin(hint) is not ClassVar and hint is not ClassVar
    }


def _bare(hint: Any) -> Any:
    """Without Required, NotRequired and ReadOnly."""
    while getattr(get_origin(hint), "_name", None) in ("Required", "NotRequired", "ReadOnly"):
        hint = get_args(hint)[0]
    return hint


def _substitute(hint: Any, parameters: dict[Any, Any]) -> Any:
    if not parameters:
        return hint
    if isinstance(hint, TypeVar):
        return parameters.get(hint, hint)
    free = getattr(hint, "__parameters__", ())
    return hint[tuple(parameters.get(one, one) for one in free)] if free else hint


def class_members(kind: Any, base: Any) -> list[Member]:
    """The members of such a class, in the order of their definition."""
    none = msgspec.NODEFAULT
    if issubclass(base, msgspec.Struct):
        members: list[Member] = [
            (field.encode_name, field.type, field.required, _shown(field.default, field.default_factory))
            for field in msgspec.structs.fields(kind)
        ]
        config = base.__struct_config__
        if config.tag_field is not None:
            members.insert(0, (config.tag_field, Literal[config.tag], True, none))
        return members
    hints = member_hints(kind)
    if is_typed_dict(base):
        required = _required_keys(base)
        return [(name, hint, name in required, none) for name, hint in hints.items()]
    if issubclass(base, tuple):
        defaults: dict[str, Any] = getattr(base, "_field_defaults", {})
        return [
            (name, hints.get(name, Any), name not in defaults, defaults.get(name, none))
            for name in getattr(base, "_fields", ())
        ]
    return [
        (name, hints[name], required, default)
        for name, required, default in _fields_of(base)
        if name in hints
    ]


def _fields_of(base: Any) -> Iterable[tuple[str, bool, Any]]:
    """Name, whether required, and default of the fields of a dataclass or attrs class."""
    if hasattr(base, "__dataclass_fields__"):
        from dataclasses import MISSING, fields

        for field in fields(base):
            has_default = field.default is not MISSING
            required = not has_default and field.default_factory is MISSING
            yield field.name, required, field.default if has_default else msgspec.NODEFAULT
        return
    for one in base.__attrs_attrs__:
        name = type(one.default).__name__
        required = name == "_Nothing" or getattr(one.default, "name", "") == "NOTHING"
        yield one.name, required, msgspec.NODEFAULT if required or name == "Factory" else one.default


def _required_keys(base: Any) -> set[str]:
    """The required keys of a TypedDict; under `from __future__ import annotations` the class itself may not know."""
    required = set(base.__required_keys__)
    for name, hint in typing.get_type_hints(base, include_extras=True).items():
        word = getattr(get_origin(hint), "_name", "")
        if word == "Required":
            required.add(name)
        elif word == "NotRequired":
            required.discard(name)
    return required


def _shown(default: Any, factory: Any) -> Any:
    """A Struct field's default as the schema tells it."""
    if default is msgspec.NODEFAULT:
        return factory() if factory in (list, dict, set) else msgspec.NODEFAULT
    return msgspec.NODEFAULT if default is msgspec.UNSET else default
