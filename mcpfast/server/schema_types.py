"""Annotations as msgspec can read them, and what reads those that it cannot.

msgspec decodes most annotations by itself. `Fitter` rewrites the rest once, when a handler is registered:

- constraints and descriptions of others (annotated-types, pydantic's `Field`, a bare string) become `msgspec.Meta`,
- a union that msgspec refuses becomes a type of our own that tries its members (`one_of`),
- what only pydantic understands is read by pydantic, if the user has it (`schema_pydantic`).

Imported when the first handler with an annotation beyond the plainest is registered.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import uuid
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set,
)
from enum import Enum
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin

import msgspec

from mcpfast.server.schema_foreign import Impossible, Unfit, decoder, name_of, one_of
from mcpfast.server.schema_members import is_members_class, member_hints

LEAVES = frozenset(
    {
        *(None, type(None), bool, int, float, str, bytes, bytearray, Any, object),
        *(list, dict, set, frozenset, tuple),
        *(dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal),
        msgspec.Raw,  # any JSON, left as it came
    }
)
UNIONS = (Union, UnionType)
NUMBER_LIMITS = frozenset({"ge", "gt", "le", "lt", "multiple_of"})
LENGTH_LIMITS = frozenset({"min_length", "max_length"})
LIMITS = NUMBER_LIMITS | LENGTH_LIMITS | {"pattern", "tz"}
NUMBERS = (int, float)
SIZED = (str, bytes, bytearray, list, dict, set, frozenset, tuple)
BUILT_IN = tuple(leaf for leaf in LEAVES if isinstance(leaf, type) and leaf is not object)
# Classes of collections.abc that msgspec reads as a list, a set or a dict.
ABSTRACT = frozenset(
    {Collection, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence, Set}
)


class Fitter:
    """Rewrites one annotation. `native` stays true while msgspec would have enforced it unchanged."""

    def __init__(self, *, returned: bool = False) -> None:
        self.returned = (
            returned  # a handler's result: objects of plain classes are written by their attributes
        )
        self.native = True
        self.pydantic = False  # a pydantic model or constraint was met
        self._open: list[Any] = []  # what is being looked at, against annotations that contain themselves

    def fit(self, kind: Any) -> Any:
        """`kind` as msgspec reads it. Raises Unfit."""
        if kind is Any or kind is None or (type(kind) is type and kind in LEAVES):
            return kind
        origin = get_origin(kind)
        if origin is Annotated:
            return self._annotated(kind)
        if origin in UNIONS:
            return self._union([self.fit(arm) for arm in get_args(kind)])
        if origin is Literal:
            return kind
        if origin is not None:
            return self._generic(kind, origin)
        if isinstance(kind, NewType):
            return self.fit(kind.__supertype__)
        if hasattr(kind, "__value__"):  # a `type X = ...` statement (3.12 and later)
            return self._inside(kind, lambda: self.fit(kind.__value__))
        if isinstance(kind, TypeVar):
            return self.fit(kind.__bound__) if kind.__bound__ is not None else Any
        if isinstance(kind, type):
            return self._class(kind)
        raise Impossible(f"{name_of(kind)} is nothing that JSON has a value for")

    def _inside(self, kind: Any, look: Callable[[], Any]) -> Any:
        if any(kind is seen for seen in self._open):
            raise Unfit(
                f"the type {name_of(kind)} contains itself; write it as a dataclass or msgspec.Struct"
            )
        self._open.append(kind)
        try:
            return look()
        finally:
            self._open.pop()

    def _annotated(self, kind: Any) -> Any:
        base, *extras = get_args(kind)
        fitted = self.fit(base)
        limits: dict[str, Any] = {}
        words: dict[str, Any] = {}
        for extra in extras:
            known = meta_members(extra) if isinstance(extra, msgspec.Meta) else foreign_members(extra, self)
            for name, value in known.items():
                (limits if name in LIMITS else words)[name] = value
        if limits:
            fitted = self._limit(fitted, limits)
        return Annotated[fitted, msgspec.Meta(**words)] if words else fitted

    def _limit(self, fitted: Any, limits: dict[str, Any]) -> Any:
        """Puts constraints where msgspec wants them: on each member of a union that they suit."""
        if get_origin(fitted) in UNIONS:
            arms = [self._limit_arm(arm, limits) for arm in get_args(fitted)]
            if all(arm is old for arm, old in zip(arms, get_args(fitted), strict=True)):
                raise Unfit(f"{', '.join(limits)} suits no member of {name_of(fitted)}")
            self.native = False
            return union_of(arms)
        try:
            limited = Annotated[fitted, msgspec.Meta(**limits)]
        except (TypeError, ValueError) as error:
            raise Unfit(str(error)) from None
        decoder(limited)  # raises Unfit where the constraint does not suit
        return limited

    def _limit_arm(self, arm: Any, limits: dict[str, Any]) -> Any:
        bare = get_origin(arm) or arm
        suited = {
            name: value
            for name, value in limits.items()
            if (name in NUMBER_LIMITS and bare in NUMBERS)
            or (name in LENGTH_LIMITS and bare in SIZED)
            or (name == "pattern" and bare is str)
            or (name == "tz" and bare in (dt.datetime, dt.time))
        }
        return Annotated[arm, msgspec.Meta(**suited)] if suited else arm

    def _union(self, arms: list[Any]) -> Any:
        union = union_of(arms)
        if len(arms) > 1:
            if _hides_floats(arms):
                return one_of(arms)
            try:
                decoder(union)
            except Unfit:
                self.native = False
                return one_of(arms)
        return union

    def _generic(self, kind: Any, origin: Any) -> Any:
        if not isinstance(origin, type) or origin in (Callable, type):
            raise Impossible(f"{name_of(kind)} is nothing that JSON has a value for")
        if is_pydantic(origin):
            return self._pydantic(kind)
        if is_members_class(origin):
            self._look_into(kind)
            return kind
        if origin.__module__ not in ("builtins", "collections.abc"):
            raise Unfit(f"{name_of(kind)} cannot be read from JSON; use list, dict, set or tuple")
        arguments = get_args(kind)
        if not arguments:  # typing.List and its kin without a member type
            return list if origin is Iterable else kind
        fitted = tuple(argument if argument is ... else self.fit(argument) for argument in arguments)
        if origin is Iterable:
            origin = list
        elif all(new is old for new, old in zip(fitted, arguments, strict=True)):
            return kind
        return GenericAlias(origin, fitted)

    def _class(self, kind: Any) -> Any:
        if kind in LEAVES or kind in ABSTRACT or issubclass(kind, Enum):
            return kind
        if is_pydantic(kind):
            return self._pydantic(kind)
        if is_members_class(kind):
            self._look_into(kind)
            return kind
        if hasattr(kind, "__fspath__"):
            return kind
        if issubclass(kind, BUILT_IN):
            raise Unfit(f"{kind.__name__} is a subclass of a built-in type; annotate with that type itself")
        if self.returned:
            return self._inside(kind, lambda: plain_struct(kind, self))
        raise Unfit(
            f"{kind.__name__} cannot be read from JSON; make it a dataclass, a TypedDict or a msgspec.Struct"
        )

    def _pydantic(self, kind: Any) -> Any:
        self.pydantic = True
        if hasattr(kind, "model_validate"):
            return kind
        from mcpfast.server.schema_pydantic import by_pydantic

        self.native = False
        return by_pydantic(kind)

    def _look_into(self, kind: Any) -> None:
        """Refuses a class with a member that could not be read, or whose constraints msgspec would not see."""
        if kind in _looked_into:
            return
        _looked_into.add(kind)
        try:
            decoder(kind)
            inner = Fitter(returned=self.returned)
            for name, hint in member_hints(kind).items():
                try:
                    inner.fit(hint)
                except Unfit as error:
                    raise Unfit(f"its member `{name}`: {error}") from None
                if not inner.native:
                    raise Unfit(
                        f"its member `{name}` of {name_of(kind)} is annotated with what msgspec does not enforce; "
                        "use msgspec.Meta, or a pydantic model instead of the class"
                    )
            self.pydantic = self.pydantic or inner.pydantic
        except BaseException:
            _looked_into.discard(kind)
            raise
        if inner.pydantic:
            _looked_into.discard(kind)  # so that the next one learns of it too


_looked_into: set[Any] = set()


def _hides_floats(arms: list[Any]) -> bool:
    """Whether msgspec would take every whole number for a wrong choice: `Literal[1, 2] | float` refuses 3."""
    bare = [get_args(arm)[0] if get_origin(arm) is Annotated else arm for arm in arms]
    return (
        float in bare
        and int not in bare
        and any(type(value) is int for arm in bare for value in _choices(arm))
    )


def _choices(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [one.value for one in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def union_of(arms: list[Any]) -> Any:
    """The union of some annotations."""
    return Union[tuple(arms)]  # noqa: UP007 (they are known at run time only)


def plain_struct(kind: type, fitter: Fitter) -> type[msgspec.Struct]:
    """A Struct with the attributes that a plain class annotates. Raises Unfit for a class that annotates none."""
    hints = {name: hint for name, hint in member_hints(kind).items() if not name.startswith("_")}
    if not hints:
        raise Unfit(f"{kind.__name__} annotates no attributes")
    fields: list[Any] = []
    for name, hint in hints.items():
        fitted = fitter.fit(hint)
        fields.append((name, fitted, msgspec.UNSET) if hasattr(kind, name) else (name, fitted))
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, namespace={"__doc__": kind.__doc__})


def is_pydantic(kind: Any) -> bool:
    """Whether pydantic reads this class: a model, a pydantic dataclass, or one of its own types."""
    if "pydantic" not in sys.modules:
        return False
    return hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__get_pydantic_core_schema__")


def may_be_pydantic(kind: Any) -> bool:
    """Whether pydantic may read what msgspec cannot: it is there, and would not overlook a msgspec.Meta."""
    return "pydantic" in sys.modules and not _has_meta(kind)


def _has_meta(kind: Any) -> bool:
    return any(isinstance(part, msgspec.Meta) or _has_meta(part) for part in get_args(kind))


def meta_members(meta: msgspec.Meta) -> dict[str, Any]:
    """What a msgspec.Meta says, by name."""
    names = (*LIMITS, "title", "description", "examples", "extra_json_schema", "extra")
    return {name: value for name in names if (value := getattr(meta, name)) is not None}


def foreign_members(extra: Any, fitter: Fitter) -> dict[str, Any]:
    """What an extra of Annotated says that is not msgspec's, as members of a Meta. Raises Unfit for what none can say."""
    if isinstance(extra, str):
        return {"description": extra}
    home = type(extra).__module__.partition(".")[0]
    if home == "annotated_types":
        fitter.native = False
        return constraint_members(extra)
    if home in ("pydantic", "pydantic_core"):
        from mcpfast.server.schema_pydantic import field_members

        fitter.pydantic = True
        members = field_members(extra)
        if members.keys() & LIMITS:
            fitter.native = False
        return members
    if hasattr(extra, "documentation"):  # typing_extensions.Doc
        return {"description": extra.documentation}
    return {}


def constraint_members(extra: Any) -> dict[str, Any]:
    """A constraint of annotated-types, or a group of them."""
    if hasattr(extra, "__iter__"):
        return {name: value for one in extra for name, value in constraint_members(one).items()}
    members = {name: value for name in LIMITS if (value := getattr(extra, name, None)) is not None}
    if not members:
        raise Unfit(f"the constraint {type(extra).__name__} is not understood")
    return members
