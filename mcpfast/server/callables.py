"""What a user's function is: its parameters, annotations, docstring, and whether it is a coroutine function.

A plain function or method is read from its code object, in a few microseconds and without `inspect`; partials,
wrapped functions and callable objects take the general way.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType, MethodType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from mcpfast.errors import RegistrationError

# code.co_flags
VARARGS, VARKEYWORDS, GENERATOR, COROUTINE, ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200
# The numbers of inspect.Parameter.kind
POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)

SCALARS = frozenset({str, int, float, bool})


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()  # no default, no annotation


class Parameter:
    """One parameter; `default` and `annotation` are MISSING where there is none."""

    __slots__ = ("annotation", "default", "kind", "name")

    def __init__(self, name: str, kind: int, default: Any, annotation: Any = MISSING) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.annotation = annotation


class Handled:
    """A function of the user, taken apart. The context parameter stands apart from the others.

    `context_index` is the place of the context among the positional parameters, -1 when it is none of them.
    Raises RegistrationError for what cannot be a handler.
    """

    __slots__ = (
        "context_index",
        "context_name",
        "doc",
        "is_async",
        "name",
        "parameters",
        "returns",
        "takes_any",
    )

    def __init__(self, fn: Callable[..., Any], context_type: type, *, any_keyword: bool = False) -> None:
        if not callable(fn):
            raise RegistrationError(
                f"{fn!r} is not callable; put the decorator below @staticmethod or @classmethod"
            )
        base = _base(fn)
        self.name = _name(fn, base)
        self.doc: str | None = base.__doc__
        flags = getattr(getattr(base, "__code__", None), "co_flags", 0)
        if flags & (GENERATOR | ASYNC_GENERATOR):
            raise RegistrationError(
                f"{self.name}(): a handler returns its result, it cannot yield; return a list"
            )
        self.is_async = _gives_coroutine(base) or _gives_coroutine(fn)
        parameters = _parameters(fn)
        self.takes_any = any(parameter.kind == VAR_KEYWORD for parameter in parameters)
        if parameters and parameters[0].name in ("self", "cls") and parameters[0].annotation is MISSING:
            raise RegistrationError(
                f"{self.name}(): it is a method without its object; register the bound one: "
                f"server.add_tool(thing.{self.name})"
            )
        for parameter in parameters:
            if parameter.kind == VAR_POSITIONAL or (parameter.kind == VAR_KEYWORD and not any_keyword):
                raise RegistrationError(
                    f"{self.name}(): `{'*' if parameter.kind == VAR_POSITIONAL else '**'}{parameter.name}` cannot be "
                    "described to a client; name each parameter"
                )
        parameters = [parameter for parameter in parameters if parameter.kind != VAR_KEYWORD]
        hints = _hints(base, self.name, context_type) if _is_annotated(base) else {}
        self.returns: Any = hints.get("return", MISSING)
        self.context_name: str | None = None
        self.context_index = -1
        self.parameters = self._without_context(parameters, hints, context_type)

    def _without_context(
        self, parameters: list[Parameter], hints: dict[str, Any], context_type: type
    ) -> list[Parameter]:
        kept = []
        for index, parameter in enumerate(parameters):
            annotation = hints.get(parameter.name, parameter.annotation)
            parameter.annotation = annotation
            scalar = type(annotation) is type and annotation in SCALARS
            if scalar or not is_context(annotation, context_type):
                kept.append(parameter)
                continue
            if self.context_name is not None:
                raise RegistrationError(
                    f"{self.name}(): `{self.context_name}` and `{parameter.name}` are both the context; keep one"
                )
            self.context_name = parameter.name
            self.context_index = -1 if parameter.kind == KEYWORD_ONLY else index
        return kept


def is_context(annotation: Any, context_type: type) -> bool:
    """Whether this annotation asks for the context: the type, a subclass, `Context[...]`, or one of them or None."""
    if annotation is context_type:
        return True
    origin = get_origin(annotation)
    if origin is None:
        return isinstance(annotation, type) and issubclass(annotation, context_type)
    if origin is Annotated:
        return is_context(get_args(annotation)[0], context_type)
    if origin is Union or origin is UnionType:
        arms = [arm for arm in get_args(annotation) if arm is not type(None)]
        return len(arms) == 1 and is_context(arms[0], context_type)
    return is_context(origin, context_type)


def _base(fn: Any) -> Any:
    """The function whose code runs: behind partials, methods and callable objects."""
    while isinstance(fn, partial):
        fn = fn.func
    if isinstance(fn, MethodType):
        fn = fn.__func__
    if isinstance(fn, type):
        return vars(fn).get("__init__", fn)
    if not hasattr(fn, "__code__") and not hasattr(fn, "__wrapped__"):
        return next((vars(kind)["__call__"] for kind in type(fn).__mro__ if "__call__" in vars(kind)), fn)
    return fn


def _name(fn: Any, base: Any) -> str:
    """The name a handler has when the user gives none."""
    if isinstance(fn, type):
        return fn.__name__
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return str(name)


def _gives_coroutine(fn: Any) -> bool:
    """Whether a call gives a coroutine: of an `async def`, of a plain wrapper around one, or of what is marked so."""
    while fn is not None:
        flags = getattr(getattr(fn, "__code__", None), "co_flags", 0)
        marks = (getattr(fn, "_is_coroutine_mark", None), getattr(fn, "_is_coroutine", None))
        if flags & COROUTINE or any(type(mark) is object for mark in marks):
            return True
        fn = getattr(fn, "__wrapped__", None)
    return False


def _is_annotated(base: Any) -> bool:
    return bool(getattr(base, "__annotations__", None))


def _parameters(fn: Any) -> list[Parameter]:
    function = fn.__func__ if type(fn) is MethodType else fn
    if type(function) is FunctionType and not {"__wrapped__", "__signature__"} & function.__dict__.keys():
        return _from_code(function, bound=function is not fn)
    import inspect  # 10 ms where nothing else has imported it

    try:
        found = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError) as error:
        raise RegistrationError(f"{fn!r}: its parameters cannot be read: {error}") from None
    empty = inspect.Parameter.empty
    return [
        Parameter(
            one.name,
            int(one.kind),
            MISSING if one.default is empty else one.default,
            MISSING if one.annotation is empty or isinstance(one.annotation, str) else one.annotation,
        )
        for one in found
    ]


def _from_code(fn: FunctionType, *, bound: bool) -> list[Parameter]:
    code = fn.__code__
    positional, keyword_only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = fn.__defaults__ or ()
    first_default = positional - len(defaults)
    found = [
        Parameter(
            names[i],
            POSITIONAL_ONLY if i < code.co_posonlyargcount else POSITIONAL,
            defaults[i - first_default] if i >= first_default else MISSING,
        )
        for i in range(bound, positional)
    ]
    at = positional + keyword_only
    if code.co_flags & VARARGS:
        found.append(Parameter(names[at], VAR_POSITIONAL, MISSING))
        at += 1
    keyword_defaults = fn.__kwdefaults__ or {}
    found += [
        Parameter(name, KEYWORD_ONLY, keyword_defaults.get(name, MISSING))
        for name in names[positional : positional + keyword_only]
    ]
    if code.co_flags & VARKEYWORDS:
        found.append(Parameter(names[at], VAR_KEYWORD, MISSING))
    return found


def _hints(base: Any, name: str, context_type: type) -> dict[str, Any]:
    """The annotations, with strings resolved. Raises RegistrationError for a name that is not known here."""
    try:
        return typing.get_type_hints(base, include_extras=True)
    except NameError:
        pass
    except Exception as error:
        raise RegistrationError(f"{name}(): its annotations cannot be read: {error}") from None
    # A type defined inside a function, or the context imported only for type checkers.
    known = {context_type.__name__: context_type, **_names_around(base)}
    try:
        return typing.get_type_hints(base, localns=known, include_extras=True)
    except NameError as error:
        raise RegistrationError(
            f"{name}(): the annotation `{error.name}` is not known where the handler is registered; import it at run "
            "time (not only under TYPE_CHECKING), or define it at module level"
        ) from None
    except Exception as error:
        raise RegistrationError(f"{name}(): its annotations cannot be read: {error}") from None


def _names_around(fn: Any) -> dict[str, Any]:
    """The names that the code around a function's `def` knows: its closure, and the functions still running there."""
    while hasattr(fn, "__wrapped__"):
        fn = fn.__wrapped__
    code = getattr(fn, "__code__", None)
    names: dict[str, Any] = {}
    around: list[dict[str, Any]] = []
    frame = sys._getframe(1)
    while code is not None and frame is not None:
        if any(constant is code for constant in frame.f_code.co_consts):
            around.append(frame.f_locals)
            code = frame.f_code
        frame = frame.f_back  # type: ignore[assignment]
    for local_names in reversed(around):
        names.update(local_names)
    names.update(_closure(fn))
    return names


def _closure(fn: Any) -> Iterable[tuple[str, Any]]:
    cells = getattr(fn, "__closure__", None) or ()
    for name, cell in zip(getattr(fn, "__code__", fn).co_freevars if cells else (), cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet assigned
            continue
