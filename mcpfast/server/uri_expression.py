"""The grammar of URI templates (RFC 6570): reading expressions, percent-encoding, expansion. Matching is in `uri_template`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcpfast.errors import RegistrationError

Value = str | list[str]

TEMPLATE_CHARS_MAX: Final = 8_192
NAME_CHARS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
)  # 2.3, and "-" as FastMCP has it
RESERVED: Final = ":/?#[]@!$&'()*+,;="
OPERATORS: Final = "+#./;?&"
LEAD: Final = {"": "", "+": "", "#": "#", ".": ".", "/": "/", ";": ";", "?": "?", "&": "&"}
SEPARATOR: Final = {"": ",", "+": ",", "#": ",", ".": ".", "/": "/", ";": ";", "?": "&", "&": "&"}
# What a value of each operator cannot hold unencoded.
STOPS: Final = {"": "/?#", "+": "?#", "#": "", ".": "./?#", "/": "/?#", ";": ";/?#", "?": "&#", "&": "&#"}


class Variable:
    """One variable of a template. `key` is its name in a query, `name` that of the parameter: "-" is "_" there."""

    __slots__ = ("explode", "key", "name", "operator", "several", "stops")

    def __init__(self, key: str, operator: str, explode: bool, several: bool) -> None:
        self.key = key
        self.name = key.replace("-", "_")
        self.operator = operator
        self.explode = explode
        wild = explode and operator == ""  # FastMCP's {path*}
        self.several = wild or operator in ("+", "#") or (explode and operator not in ("?", "&"))
        self.stops = (
            "?#" if wild else STOPS[operator] + ("," if several and operator in ("", "+", "#") else "")
        )

    def read(self, raw: str) -> Value | None:
        """The value that stands as `raw` in a URI, None for what this variable cannot be. Raises UnicodeDecodeError."""
        separator = SEPARATOR[self.operator]
        if not self.explode or not self.operator:
            if any(stop in raw for stop in self.stops) or (self.explode and not raw):
                return None
            if self.operator == ";":
                return decode(raw[1:]) if raw[:1] == "=" else None if raw else ""
            return decode(raw)
        if any(stop in raw for stop in self.stops if stop != separator) or (raw and raw[0] != separator):
            return None
        parts = raw.split(separator)[1:]
        if self.operator == ";":
            names = [part.partition("=")[0] for part in parts]
            if any(name != self.key for name in names):
                return None
            parts = [part.partition("=")[2] for part in parts]
        return [decode(part) for part in parts]


class Expression:
    """What stands between braces."""

    __slots__ = ("operator", "position", "variables")

    def __init__(self, operator: str, variables: list[Variable], position: int) -> None:
        self.operator = operator
        self.variables = variables
        self.position = position


# ---------------------------------------------------------------- reading a template


def refusal(text: str, position: int, reason: str) -> RegistrationError:
    return RegistrationError(f"URI template {text!r}, position {position}: {reason}")


def parse(text: str) -> list[str | Expression]:
    """Literals and expressions, in order."""
    if len(text) > TEMPLATE_CHARS_MAX:
        raise RegistrationError(
            f"a URI template has at most {TEMPLATE_CHARS_MAX} characters, this one {len(text)}"
        )
    parts: list[str | Expression] = []
    at = 0
    while at < len(text):
        opening, closing = text.find("{", at), text.find("}", at)
        if closing >= 0 and (opening < 0 or closing < opening):
            raise refusal(text, closing, "'}' without a '{' before it")
        if opening < 0:
            parts.append(text[at:])
            break
        if opening > at:
            parts.append(text[at:opening])
        if closing < 0 or "{" in text[opening + 1 : closing]:
            raise refusal(text, opening, "'{' without a '}' behind it")
        parts.append(_parse_expression(text, opening, text[opening + 1 : closing]))
        at = closing + 1
    return parts


def _parse_expression(text: str, position: int, body: str) -> Expression:
    operator = body[:1] if body[:1] and body[0] in OPERATORS else ""
    if body[:1] and body[0] in "=,!@|":
        raise refusal(
            text, position + 1, f"the operator {body[0]!r} is reserved by RFC 6570 and means nothing yet"
        )
    specs = body[len(operator) :].split(",")
    variables: list[Variable] = []
    at = position + 1 + len(operator)
    for spec in specs:
        key = spec.removesuffix("*")
        if ":" in key:
            raise refusal(
                text, at + key.index(":"), "a prefix like {x:3} cannot be matched; take {x} and check it"
            )
        wrong = next((i for i, char in enumerate(key) if char not in NAME_CHARS), None)
        if not key or wrong is not None or key[0] in ".-" or key[-1] in ".-" or ".." in key:
            raise refusal(text, at + (wrong or 0), f"{spec!r} is no variable name: letters, digits and '_'")
        variables.append(Variable(key, operator, spec != key, len(specs) > 1))
        at += len(spec) + 1
    return Expression(operator, variables, position)


# ---------------------------------------------------------------- percent-encoding, expansion


def decode(raw: str) -> str:
    """Percent-decoded, strictly: "+" is no space, and what is not UTF-8 raises UnicodeDecodeError."""
    if "%" not in raw:
        return raw
    from urllib.parse import unquote  # 2 ms at its first import

    return unquote(raw, errors="strict")


def encode(text: str, safe: str) -> str:
    """Percent-encoded but for unreserved characters and `safe`. Where those are RESERVED, triplets stay as they are."""
    if text.isalnum() and text.isascii():
        return text
    from urllib.parse import quote

    if not safe or "%" not in text:
        return quote(text, safe=safe, errors="surrogatepass")
    first, *rest = text.split("%")
    out = [quote(first, safe=safe, errors="surrogatepass")]
    for piece in rest:
        digits = piece[:2]
        triplet = len(digits) == 2 and all(char in "0123456789abcdefABCDEF" for char in digits)
        # one way to write a triplet: upper case (RFC 3986, 6.2.2.1)
        out.append("%" + digits.upper() if triplet else "%25")
        out.append(quote(piece[2:] if triplet else piece, safe=safe, errors="surrogatepass"))
    return "".join(out)


def expand(part: Expression, variables: Mapping[str, Any]) -> str:
    """One expression (RFC 6570, 3.2.1)."""
    safe = RESERVED if part.operator in ("+", "#") else ""
    separator = SEPARATOR[part.operator]
    shown: list[str] = []
    for variable in part.variables:
        value = variables.get(variable.name, variables.get(variable.key))
        if value is None:
            continue
        many = isinstance(value, list | tuple)
        if many and not value:
            continue  # an empty list is undefined (2.3)
        wild = variable.explode and not part.operator
        texts = [encode(_text(one, variable), "/" if wild else safe) for one in (value if many else [value])]
        if not variable.explode:
            texts = [",".join(texts)]
        for text in texts:
            if part.operator in (";", "?", "&"):
                text = variable.key + ("" if not text and part.operator == ";" else f"={text}")  # noqa: PLW2901
            shown.append(text)
    return LEAD[part.operator] + separator.join(shown) if shown else ""


def _text(value: Any, variable: Variable) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(
        f"the value of {variable.name!r} must be text, a number or a list of them, not {type(value).__name__}"
    )
