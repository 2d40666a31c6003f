"""The text of a TOML file with some of its tables changed. Comments, order and form of all else stay byte for byte.

Only the lines of the tables in question are given to tomlkit, which keeps their form: a large file takes it long, and tables of
one name that do not stand together are beyond it. What came out is held against what it must say, so a mistake here is
refused, never written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from mcpfast.tenancy.decoding import ConfigurationError

Place = tuple[str, str]  # ("tenants", "acme"): what ``[tenants.acme]`` and the tables below it describe
Table = dict[str, Any]
BY_HAND = (
    "this file is written in a way that cannot be changed without losing something of it: change it by hand"
)
_LINES = re.compile(r"[^\n]*\n|[^\n]+\Z")
_HEADER = re.compile(r"\s*\[[^\[\],=]+\]\s*(#.*)?$")


def edited(text: str, document: Table, tables: Mapping[Place, Table | None]) -> str:
    """The text with these tables put in, or taken out (None). `document` is what it says before.

    Raises ConfigurationError where it is written in a way that cannot be changed safely.
    """
    wanted = dict(document)
    for (section, id), table in tables.items():
        there = wanted.get(section, {})
        text = _with_table(text, (section, id), table, id in there)
        wanted[section] = {name: one for name, one in there.items() if name != id}
        if table is not None:
            wanted[section][id] = table
    try:
        says = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise ConfigurationError(BY_HAND) from None
    for section, _ in tables:
        wanted[section] = wanted.get(section) or None  # a section without a table may be left out
        says[section] = says.get(section) or None
    if says != wanted:
        raise ConfigurationError(BY_HAND)
    return text


def _with_table(text: str, place: Place, table: Table | None, is_there: bool) -> str:
    """The text with one of them changed where it stands, taken out, or written at the end."""
    lines = _LINES.findall(text)
    spans = _spans(lines, place)
    if bool(spans) != is_there:  # in a line of its own within [tenants], say
        raise ConfigurationError(BY_HAND)
    own = "".join(line for begin, end in spans for line in lines[begin:end])
    new = "" if table is None else _styled(own, place, table)
    if not spans:
        return f"{text.rstrip()}\n\n{new}" if text.strip() else text + new
    for begin, end in reversed(spans):
        del lines[begin:end]
    lines.insert(spans[0][0], new)
    return "".join(lines)


def _spans(lines: list[str], place: Place) -> list[tuple[int, int]]:
    """The lines of its tables, from header to header. A comment right above a header is part of what it heads.

    By looks: what looks like a header may stand in a text of several lines, and then the result says something else.
    """
    heads = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    begins = [_with_comment(lines, number) for number in heads] + [len(lines)]
    return [
        (begins[at], begins[at + 1])
        for at, number in enumerate(heads)
        if place[1] in lines[number] and _names_in(lines[number])[:2] == place
    ]


def _with_comment(lines: list[str], number: int) -> int:
    while number and lines[number - 1].lstrip().startswith("#"):
        number -= 1
    return number


def _names_in(header: str) -> tuple[str, ...]:
    """The names in ``[tenants."a.b".quota]``; none, where it is no header."""
    try:
        inner = tomllib.loads(header)
    except tomllib.TOMLDecodeError:
        return ()
    names = []
    while inner:
        name, inner = next(iter(inner.items()))
        names.append(name)
    return tuple(names)


def _styled(own: str, place: Place, table: Table) -> str:
    """Its own text, changed where it has to be."""
    try:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError
    except ImportError:
        raise ConfigurationError(
            "to change a TOML file takes tomlkit. Install: pip install tomlkit"
        ) from None
    section, id = place
    try:
        styled = tomlkit.parse(own)
        if not own:
            styled.append(section, tomlkit.table(is_super_table=True))
        _put(styled[section], id, table)
        return tomlkit.dumps(styled)
    except (TOMLKitError, ValueError):
        raise ConfigurationError(BY_HAND) from None


def _put(container: Any, name: str, value: Any, *, depth: int = 0) -> None:
    """Sets a member of a styled table so that what is not changed keeps its place, its form and its comments."""
    from tomlkit.items import InlineTable

    held = container.get(name)
    if held == value:
        return
    if isinstance(held, InlineTable) and isinstance(value, dict):
        container[name] = _item(value, inline=True)
    elif not isinstance(value, dict):
        container[name] = value
    elif held is None or _has_no_header_for(held, value):
        if held is not None:
            del container[name]
        inline = depth == 1 and not _has_tables(value)
        container.append(name, _item(value, inline=inline, has_header=depth == 0))
    else:
        for old in [old for old in held if old not in value]:
            del held[old]
        for member, new in value.items():
            _put(held, member, new, depth=depth + 1)


def _has_no_header_for(held: Any, value: Table) -> bool:
    """A table that is there only by the headers of those below it goes with the last of them."""
    return bool(held.is_super_table()) and not held.keys() & value.keys()


def _item(value: Table, *, inline: bool = False, has_header: bool = False) -> Any:
    """A new table: simple members first; quotas in one line, members of an organization as tables of their own. One that has
    nothing but tables gets no header of its own, unless it must."""
    import tomlkit

    of_tables = bool(value) and not has_header and all(isinstance(member, dict) for member in value.values())
    made = tomlkit.inline_table() if inline else tomlkit.table(is_super_table=of_tables)
    for name, member in sorted(value.items(), key=lambda one: isinstance(one[1], dict)):
        is_table = isinstance(member, dict)
        in_line = inline or (is_table and not of_tables and not _has_tables(member))
        made.append(name, _item(member, inline=in_line) if is_table else member)
    return made


def _has_tables(value: Table) -> bool:
    return any(isinstance(member, dict) for member in value.values())
