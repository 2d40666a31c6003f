"""Tables of a file, a store or the environment as Structs; each mistake is told with its path and the nearest right name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from mcpfast.errors import McpFastError

T = TypeVar("T")
NAMES_MAX = 20  # listed where no right name looks like the wrong one


class ConfigurationError(McpFastError):
    """What a file, a store or the environment says and cannot mean; the text names the place and what to write. `path` is that
    place, where it is one within a table."""

    path: str = ""


def mistake(path: str, text: str) -> ConfigurationError:
    """The error that says what is wrong at a path."""
    error = ConfigurationError(f"{path}: {text}" if path else text)
    error.path = path
    return error


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file and what it holds. Raises ConfigurationError, which names the file and the line."""
    try:
        text = path.read_bytes().decode()  # its ends of lines as they are
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


def line_of(text: str, path: str) -> int:
    """The line of TOML where something of this path is set, or the one of the table it is in; 0 where it is not seen. By looks,
    for messages: nothing depends on it."""
    table, found, longest = "", 0, -1
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        key = None if header else _KEY.match(line)
        if header:
            table = _SPACES.sub("", header[1])
        place = f"{table}.{key[1]}" if key and table else key[1] if key else table
        if (header or key) and (path == place or path.startswith(f"{place}.")) and len(place) > longest:
            found, longest = number, len(place)
    return found


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]")
_KEY = re.compile(r"""\s*([\w."'-]+)\s*=""")
_SPACES = re.compile(r"\s+")


def decode(value: Any, kind: type[T], where: str = "", *, strict: bool = True) -> T:
    """`value` as `kind`; `strict` False takes texts for numbers and truth values, as the environment has them.

    Raises ConfigurationError, which begins with the path of what is wrong: `where`, and the names below it.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise mistake(*_blamed(value, kind, where, str(error), strict)) from None


def nearest(name: str, names: Iterable[str]) -> str:
    """Ends a sentence about a wrong name: the right one that looks like it, or those there are."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(known) - NAMES_MAX:,} more" if len(known) > NAMES_MAX else ""
    return f"there is {', '.join(map(repr, known[:NAMES_MAX]))}{more}" if known else "there is none"


def below(path: str, name: str) -> str:
    """The path of a member, its name quoted where TOML would quote it."""
    bare = name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else f'"{name}"'
    return f"{path}.{bare}" if path else bare


def _blamed(value: Any, kind: Any, path: str, message: str, strict: bool) -> tuple[str, str]:
    """Where it is wrong, and what: the innermost place, since msgspec does not say which key of a dict it was."""
    for name, member, member_kind in _members(value, kind):
        if member_kind is None:
            return below(path, name), f"there is no such name; {nearest(name, fields_of(kind) or ())}"
        try:
            msgspec.convert(member, member_kind, strict=strict)
        except msgspec.ValidationError as error:
            return _blamed(member, member_kind, below(path, name), str(error), strict)
    message = message.partition(" - at `")[0]
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    if choices and isinstance(value, str):
        message = f"{value!r} is none of its values; {nearest(value, choices)}"
    return path, message


def _members(value: Any, kind: Any) -> list[tuple[str, Any, Any]]:
    """Name, value and type of what stands in a table; the type is None where the name means nothing."""
    if not isinstance(value, dict):
        return []
    fields = fields_of(kind)
    if fields is not None:
        return [(str(name), member, fields.get(name)) for name, member in value.items()]
    for choice in _choices(kind):
        if get_origin(choice) is dict:
            return [(str(name), member, get_args(choice)[1]) for name, member in value.items()]
    return []


def fields_of(kind: Any) -> dict[str, Any] | None:
    """Names and types of a Struct's fields; of `Quota | None`, those of Quota; None where there is no Struct."""
    for choice in _choices(kind):
        if isinstance(choice, type) and issubclass(choice, msgspec.Struct):
            hints = get_type_hints(choice)
            return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(choice)}
    return None


def _choices(kind: Any) -> tuple[Any, ...]:
    """The types that a union is made of; a type that is none by itself."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
