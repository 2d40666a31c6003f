"""Values of handlers as JSON: msgspec writes what has a type, orjson what is a plain dict or list.

Beyond what the two know, these are written: pydantic models, paths, mappings and collections, numpy's numbers and
arrays, and objects of classes that annotate their attributes.
"""

from __future__ import annotations

from typing import Any

import msgspec

_NATIVE = (tuple, frozenset, list, dict, set)
_dumps: Any = None  # orjson's, found at first use


def encode(value: Any, *, anything: bool = False) -> bytes:
    """JSON of whatever a handler may return. Raises TypeError with a sentence for what JSON cannot carry.

    With `anything` an object that JSON has nothing for is a string, what `str` says of it.
    """
    try:
        if anything:
            return _encoder_of_anything.encode(value)
        if _is_plain(value):
            return _encode_plain(value)
        return _encoder.encode(value)
    except UnicodeEncodeError:
        raise TypeError("the result holds a lone surrogate, which JSON text cannot carry") from None
    except RecursionError:
        raise TypeError("the result contains itself or is nested too deeply to be written as JSON") from None


def _is_plain(value: Any) -> bool:
    """Whether orjson is the quicker. It asks back for each Struct of a list: 5.3 us for ten of them, msgspec 0.8."""
    if type(value) is list:
        return not value or not isinstance(value[0], msgspec.Struct)
    return type(value) is dict


def encode_text(value: Any, *, anything: bool = False) -> str:
    """What a model reads of a value: a str as it is, everything else as JSON. Raises TypeError as `encode` does."""
    if isinstance(value, str):
        return value
    try:
        return encode(value).decode()
    except TypeError:
        if not anything:
            raise
        return encode(value, anything=True).decode()


def builtins(value: Any) -> Any:
    """The value as dicts, lists, str, numbers, booleans and None. Raises TypeError as `encode` does."""
    return msgspec.to_builtins(value, enc_hook=plain)


def _encode_plain(value: Any) -> bytes:
    global _dumps
    if _dumps is None:
        try:
            from orjson import dumps  # 1 ms, and not there for every Python
        except ImportError:
            _dumps = _dumps_by_msgspec
        else:
            _dumps = dumps
    try:
        return _dumps(value, default=builtins)  # type: ignore[no-any-return]
    except TypeError:
        # Integers beyond 64 bits, keys that are no str, lone surrogates: msgspec knows the first two, and says
        # better what is wrong with the rest.
        return _encoder.encode(value)


def _dumps_by_msgspec(value: Any, default: Any) -> bytes:
    return _encoder.encode(value)


def plain(value: Any) -> Any:
    """What to write instead of `value`, which msgspec does not know (its `enc_hook`).

    Raises TypeError where there is nothing.
    """
    kind = type(value)
    if kind in _NATIVE:  # msgspec asks about one of these only when it is a key
        raise TypeError(f"a dict with keys of type {kind.__name__} cannot be written as JSON: use str keys")
    if hasattr(kind, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if hasattr(kind, "__fspath__"):
        return str(value)
    if hasattr(kind, "tolist"):  # numpy's scalars and arrays, array.array
        return value.tolist()
    if kind.__module__.startswith("pydantic"):  # its URLs, and its secrets (which stay masked)
        return str(value)
    from collections.abc import Collection, Mapping

    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection):
        return list(value)
    names = annotated_names(kind) if not kind.__module__.startswith("mcpfast.") else []
    if names and not isinstance(value, BaseException | type):
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    raise TypeError(
        f"a result of type {kind.__name__} cannot be written as JSON: return a str, a dict, a list, "
        "a dataclass, a msgspec.Struct or content blocks"
    )


def plain_or_str(value: Any) -> Any:
    """As `plain`; iterators are lists and other objects strings, as the official SDK has it.

    Our own classes are not: an Image inside a dict is a mistake, and its name no help to a model.
    """
    try:
        return plain(value)
    except TypeError:
        kind = type(value)
        if kind in _NATIVE or kind.__module__.startswith("mcpfast."):
            raise
        return list(value) if hasattr(kind, "__next__") else str(value)


def annotated_names(kind: type) -> list[str]:
    """The attributes that a plain class annotates, base classes first, without the private ones."""
    return [
        name
        for base in reversed(kind.__mro__)
        for name in getattr(base, "__annotations__", ())
        if not name.startswith("_")
    ]


_encoder = msgspec.json.Encoder(enc_hook=plain)
_encoder_of_anything = msgspec.json.Encoder(enc_hook=plain_or_str)
