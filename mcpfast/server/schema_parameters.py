"""One parameter of a handler as a member of the arguments object, beyond the plainest kinds.

Imported when the first handler with such a parameter is registered.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from mcpfast.errors import RegistrationError
from mcpfast.server.callables import MISSING, SCALARS
from mcpfast.server.schema_foreign import Impossible, Unfit, decoder, name_of
from mcpfast.server.schema_types import UNIONS, Fitter, may_be_pydantic

_DATA = (*SCALARS, bytes, list, tuple, dict, set)


def fit_parameter(name: str, annotation: Any, default: Any, function: str) -> tuple[Any, Any, Any, str]:
    """The annotation as msgspec reads it, the default as defstruct takes it and as a schema shows it (NODEFAULT for
    none), and the name on the wire.

    Raises RegistrationError, which says what to change, for what cannot be read from JSON.
    """
    annotation, default, wire_name = _without_field(name, annotation, default)
    try:
        kind = _fit(annotation)
    except Unfit as error:
        raise RegistrationError(f"{function}(): the parameter `{name}`: {error}") from None
    check_default(name, annotation, default, function)
    shown = msgspec.NODEFAULT if default is MISSING or hasattr(default, "default_factory") else default
    return kind, _default(default), shown, wire_name


def check_default(name: str, annotation: Any, default: Any, function: str) -> None:
    """Raises RegistrationError for a default that is none of the scalars or literals its annotation names.

    None and objects that are no data say "not given" for any annotation (`x: str = None`); constraints bind no default.
    """
    if isinstance(default, _DATA) and not _allows(annotation, default):
        raise RegistrationError(
            f"{function}(): the default {default!r} of the parameter `{name}` does not fit its annotation "
            f"{name_of(annotation)}; change one of the two"
        )


def _allows(annotation: Any, default: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _allows(get_args(annotation)[0], default)
    if origin in UNIONS:
        return any(_allows(arm, default) for arm in get_args(annotation))
    if origin is Literal:
        return default in get_args(annotation)
    if annotation is type(None):
        return False
    if type(annotation) is not type or annotation not in SCALARS:
        return True  # other classes take defaults of many kinds
    try:
        msgspec.convert(default, annotation)
    except msgspec.ValidationError:
        return isinstance(default, annotation) and type(default) is not bool  # of a subclass, an IntEnum say
    return True


def _fit(annotation: Any) -> Any:
    try:
        kind = Fitter().fit(annotation)
        decoder(kind)
    except Unfit as error:
        if isinstance(error, Impossible) or not may_be_pydantic(annotation):
            raise
        from mcpfast.server.schema_pydantic import by_pydantic

        try:
            return by_pydantic(annotation)
        except Unfit:
            pass
        raise  # what was said first is about the annotation
    return kind


def _without_field(name: str, annotation: Any, default: Any) -> tuple[Any, Any, str]:
    """Takes default and alias out of pydantic's `Field`, given as the default or inside Annotated."""
    if "pydantic" not in sys.modules:
        return annotation, default, name
    from mcpfast.server.schema_pydantic import field_default, is_field

    if is_field(default):
        annotation = Annotated[annotation, default]
        default = MISSING
    if get_origin(annotation) is not Annotated:
        return annotation, default, name
    for extra in get_args(annotation)[1:]:
        if is_field(extra):
            alias = extra.validation_alias if isinstance(extra.validation_alias, str) else extra.alias
            name = alias or name
            if default is MISSING and not extra.is_required():
                default = field_default(extra)
    return annotation, default, name


def _default(default: Any) -> Any:
    """A default as defstruct takes it: what can change is made anew for each call."""
    if default is MISSING:
        return msgspec.NODEFAULT
    if isinstance(default, list | dict | set | bytearray):
        return msgspec.field(default_factory=default.copy) if default else default
    if isinstance(default, msgspec.Struct) and not default.__struct_config__.frozen:
        from copy import copy

        return msgspec.field(default_factory=lambda: copy(default))
    return default
