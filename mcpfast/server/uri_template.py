"""URI templates (RFC 6570): which URIs a resource template stands for, with which variables (section 14, R3).

The RFC says how a template expands; how a URI is matched against one is ours, and the official SDK's where it decided. All of
levels 1 to 3 and the explode modifier are here, and `{path*}` as FastMCP knows it:

| in the template         | matches                                                       | value       |
|-------------------------|---------------------------------------------------------------|-------------|
| `{x}`                   | anything without `/`, `?`, `#`, also nothing                  | str         |
| `{+x}`, `{#x}`          | also `/`; `{#x}` is behind a `#`, and matches anything there  | str         |
| `{path*}`               | as `{+path}`, but not nothing                                 | str         |
| `{/x}`, `{.x}`, `{;x}`  | `/value`, `.value`, `;x=value` (or `;x`)                      | str         |
| `{/x*}`, `{.x*}`, `{;x*}` | any number of these                                         | list of str |
| `{?a,b}`, `{&c}`        | at the end: parameters, in any order, each may be missing; others are ignored | str |
| `{?a*}`                 | a parameter that may come several times                       | list of str |

Values come percent-decoded. Where several divisions of a URI would fit, an earlier variable takes what it can, so `{a}-{b}`
reads `x-y-z` as `x-y` and `z`; before a variable that may hold `/` it takes as little as it can. Matching takes time in
proportion to the length of the URI and the number of variables: it goes from both ends towards the one variable that may hold
`/`, by `str.find`, and never back. (A regular expression would be shorter to write, and would take minutes for some URIs of
64 KB.)

Values that may lead out of a directory do not match, see `is_unsafe`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from mcpfast.errors import RegistrationError
from mcpfast.server.uri_expression import (
    LEAD,
    RESERVED,
    SEPARATOR,
    Expression,
    Value,
    Variable,
    decode,
    encode,
    expand,
    parse,
    refusal,
)

T = TypeVar("T")

URI_CHARS_MAX: Final = 65_536
VARIABLES_MAX: Final = 256


class UriTemplate:
    """One template, ready to match and expand.

    `names` are the parameters, in order; `optional_names` those that a match may leave out: their parameters need defaults.
    `prefix` is the text before the first variable. `unguarded` names parameters whose values `is_unsafe` is not asked about.
    """

    __slots__ = (
        "_encoded",
        "_literals",
        "_parts",
        "_query",
        "_slots",
        "_unguarded",
        "_wide",
        "names",
        "optional_names",
        "prefix",
        "text",
    )

    def __init__(self, text: str, *, unguarded: Collection[str] = ()) -> None:
        """Raises RegistrationError, with the position, for what is no template or has no definite way to be matched."""
        self.text = text
        self._parts = parse(text)
        variables = [one for part in self._parts if isinstance(part, Expression) for one in part.variables]
        self.names = tuple(one.name for one in variables)
        _check_names(text, self.names, unguarded)
        self._unguarded = frozenset(unguarded)
        path, query = _split_query(self._parts)
        self._query = {one.key: one for one in query}
        self.optional_names = frozenset(one.name for one in query)
        self._literals, self._slots = _flatten(text, path)
        self._wide = _find_wide(text, self._slots)  # the one variable that may hold "/", or -1
        self.prefix = self._literals[0]
        # Literals are kept as RFC 3986 writes them. Only where that differs from the template must a URI be written so, too.
        self._encoded = any(isinstance(part, str) and encode(part, RESERVED) != part for part in self._parts)

    def match(self, uri: str) -> dict[str, Value] | None:
        """The variables by name, decoded; None for a URI that this template does not stand for, or with an unsafe value."""
        found = self.read(uri)
        return None if found is None or self.refuses(found) else found

    def read(self, uri: str) -> dict[str, Value] | None:
        """`match` without the guard."""
        if len(uri) > URI_CHARS_MAX:
            return None
        if self._encoded:
            uri = encode(uri, RESERVED)
        query = ""
        if self._query:
            uri, _, query = uri.partition("#")[0].partition("?")
        raw = self._divide(uri)
        if raw is None:
            return None
        found: dict[str, Value] = {}
        try:
            for slot, text in zip(self._slots, raw, strict=True):
                value = slot.read(text)
                if value is None:
                    return None
                found[slot.name] = value
            if query:
                self._read_query(query, found)
        except UnicodeDecodeError:  # escapes that are no UTF-8
            return None
        return found

    def refuses(self, found: Mapping[str, Value]) -> bool:
        """Whether one of the values must not reach a handler."""
        for slot in (*self._slots, *self._query.values()):
            value = found.get(slot.name)
            if value is None or slot.name in self._unguarded:
                continue
            within_segment = not slot.several or isinstance(value, list)
            for one in (value,) if isinstance(value, str) else value:
                if is_unsafe(one, slashes=slot.operator in ("?", "&") or not within_segment):
                    return True
        return False

    def expand(self, variables: Mapping[str, Any]) -> str:
        """The URI for these values: str, int, float, or lists of them; a missing or None one is left out, as RFC 6570 says.

        Raises TypeError for a value of another kind.
        """
        return "".join(
            encode(part, RESERVED) if isinstance(part, str) else expand(part, variables)
            for part in self._parts
        )

    def __repr__(self) -> str:
        return f"UriTemplate({self.text!r})"

    def specificity(self) -> tuple[int, bool, int, int]:
        """Orders templates, the most specific first."""
        return -len(self.prefix), self._wide >= 0, -sum(map(len, self._literals)), len(self._slots)

    # ---------------------------------------------------------------- matching

    def _divide(self, uri: str) -> list[str] | None:
        """The part of the URI behind each variable, not yet looked into: head and tail are cut off, the wide one has the rest."""
        literals, slots, wide = self._literals, self._slots, self._wide
        raw = [""] * len(slots)
        start, end = len(literals[0]), len(uri) - len(literals[-1])
        if not slots:
            return raw if uri == literals[0] else None
        if start > end or not uri.startswith(literals[0]) or not uri.endswith(literals[-1]):
            return None
        for i in range(len(slots) - 1, max(wide, 0), -1):  # the tail, from the right
            at = uri.rfind(literals[i], start, end)
            if at < 0:
                return None
            raw[i] = uri[at + len(literals[i]) : end]
            end = at
        for i in range(wide):  # the head, from the left
            literal = literals[i + 1]
            at = uri.find(literal or LEAD[slots[wide].operator], start, end)
            if at < 0:
                if literal:
                    return None
                at = end  # `{a}{/b*}` and no b
            raw[i] = uri[start:at]
            start = at + len(literal)
        raw[max(wide, 0)] = uri[start:end]
        return raw

    def _read_query(self, query: str, found: dict[str, Value]) -> None:
        for pair in query.split("&"):
            key, _, text = pair.partition("=")  # keys are never encoded by expansion, so never decoded
            variable = self._query.get(key)
            if variable is None:
                continue
            if variable.explode:
                kept = found.setdefault(variable.name, [])
                assert isinstance(kept, list)
                kept.append(decode(text))
            else:
                found.setdefault(variable.name, decode(text))  # the first one counts


class TemplateTable(Generic[T]):
    """Templates and what they stand for; finds the most specific one for a URI.

    That is the one with the longest text before its first variable; then those without a variable for several segments, with
    more text in all, with fewer variables, first given.
    """

    __slots__ = ("_by_prefix", "_encoded", "_lengths")

    def __init__(self, pairs: Iterable[tuple[UriTemplate, T]]) -> None:
        self._by_prefix: dict[str, list[tuple[UriTemplate, T]]] = {}
        for template, owner in sorted(pairs, key=lambda pair: pair[0].specificity()):
            self._by_prefix.setdefault(template.prefix, []).append((template, owner))
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix}, reverse=True)
        self._encoded = any(one._encoded for pairs in self._by_prefix.values() for one, _ in pairs)

    def find(self, uri: str) -> tuple[T, dict[str, Value]] | None:
        """The owner of the template and the variables; None where no template matches.

        Where the values are unsafe for the most specific template, no other one is tried: it might be a laxer one.
        """
        if len(uri) > URI_CHARS_MAX:
            return None
        if self._encoded:
            uri = encode(uri, RESERVED)
        for length in self._lengths:
            for template, owner in self._by_prefix.get(uri[:length], ()):
                found = template.read(uri)
                if found is not None:
                    return None if template.refuses(found) else (owner, found)
        return None


def is_unsafe(value: str, *, slashes: bool) -> bool:
    """Whether a decoded value could lead a handler that takes it for a path somewhere else.

    NUL, a `..` between separators, and an absolute path (`/etc`, `C:`) always; any `/` or `\\` where `slashes` is false: it
    can only have come encoded.
    """
    path = value.replace("\\", "/")
    if "\0" in path or path[:1] == "/" or (path[1:2] == ":" and path[0].isascii() and path[0].isalpha()):
        return True
    return ("/" in path and not slashes) or (".." in path and ".." in path.split("/"))


# ---------------------------------------------------------------- reading a template


def _check_names(text: str, names: tuple[str, ...], unguarded: Collection[str]) -> None:
    if len(names) > VARIABLES_MAX:
        raise RegistrationError(
            f"a URI template has at most {VARIABLES_MAX} variables, this one {len(names)}"
        )
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise refusal(text, text.rfind(twice), f"the variable {twice!r} is there twice")
    unknown = [name for name in unguarded if name not in names]
    if unknown:
        raise RegistrationError(
            f"URI template {text!r} has no variable {unknown[0]!r} that could be left unguarded"
        )


def _split_query(parts: list[str | Expression]) -> tuple[list[str | Expression], list[Variable]]:
    """What is matched from left to right, and the parameters of a query at the end, which are matched by name.

    A template that writes a "?" itself, or has more behind its query, is matched as it stands.
    """
    for i, part in enumerate(parts):
        if isinstance(part, str):
            if "?" in part or "#" in part:
                break
        elif part.operator in ("#", "&"):
            break
        elif part.operator == "?":
            tail = [one for one in parts[i:] if isinstance(one, Expression) and one.operator in ("?", "&")]
            if len(tail) != len(parts) - i:
                break
            return parts[:i], [variable for one in tail for variable in one.variables]
    return parts, []


def _flatten(text: str, parts: list[str | Expression]) -> tuple[list[str], list[Variable]]:
    """Variables, and the literal text before, between and behind them: always one literal more."""
    literals: list[str] = [""]
    slots: list[Variable] = []
    for part in parts:
        if isinstance(part, str):
            literals[-1] += encode(part, RESERVED)
            continue
        for i, variable in enumerate(part.variables):
            lead = SEPARATOR[part.operator] if i else LEAD[part.operator]
            in_query = part.operator in ("?", "&")
            if in_query and variable.explode:
                raise refusal(
                    text, part.position, "a repeated parameter can be matched only at the end of a template"
                )
            if in_query or (part.operator == ";" and not variable.explode):
                literals[-1] += f"{lead}{variable.key}" + ("=" if in_query else "")
            elif not (
                variable.explode and part.operator
            ):  # an exploded one has its separators in its own part
                literals[-1] += lead
            if slots and not literals[-1] and not _divides(slots[-1], variable):
                names = f"{slots[-1].name!r} and {variable.name!r}"
                raise refusal(
                    text, part.position, f"nothing tells where {names} divide; put text between them"
                )
            slots.append(variable)
            literals.append("")
    return literals, slots


def _divides(before: Variable, after: Variable) -> bool:
    """Whether two variables without text between them can be told apart: `{a}{/b*}`, as a holds no "/"."""
    lead = LEAD[after.operator]
    return not before.several and after.several and after.explode and bool(lead) and lead in before.stops


def _find_wide(text: str, slots: list[Variable]) -> int:
    wide = [i for i, slot in enumerate(slots) if slot.several]
    if len(wide) > 1:
        first, second = slots[wide[0]].name, slots[wide[1]].name
        raise RegistrationError(
            f"URI template {text!r}: both {first!r} and {second!r} may take several segments, so nothing tells where they "
            "divide; let only one of them"
        )
    return wide[0] if wide else -1
