"""The same as the compiled framing and scan, written so plainly that it can be believed: the oracle of fuzzing and of tests.

Standard library only; slow, and that does not matter.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

ENVELOPE = ("jsonrpc", "id", "method", "params", "result", "error")
PARAMS = ("name", "arguments")
META = {
    "progressToken": "progress_token",
    "io.modelcontextprotocol/protocolVersion": "version",
    "io.modelcontextprotocol/clientCapabilities": "capabilities",
    "io.modelcontextprotocol/logLevel": "log_level",
}


def lines(data: bytes, frame_bytes_max: int) -> list[bytes | None]:
    """The whole lines of `data`, newline included; None for each that is longer than `frame_bytes_max` without it.

    An unfinished line at the end counts only where it is already too long.
    """
    *whole, rest = data.split(b"\n")
    found: list[bytes | None] = [line + b"\n" if len(line) <= frame_bytes_max else None for line in whole]
    return [*found, None] if len(rest) > frame_bytes_max else found


class Members(list[tuple[str, Any]]):
    """A JSON object as its members stand there, repeated names and all."""


class Number(str):
    """A JSON number as it stands there, however long."""


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(
    object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=refuse
)


def decode(line: bytes) -> Any:
    """RFC 8259 by the letter, and neither raw nor escaped lone surrogates. Raises ValueError, RecursionError."""
    value = DECODER.decode(line.decode())
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Members):
            pending += [part for pair in item for part in pair]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            item.encode()  # a lone surrogate has no UTF-8
    return value


def depth(value: Any) -> int:
    """How many objects and arrays are around the innermost value."""
    deepest, pending = 0, [(value, 0)]
    while pending:
        item, level = pending.pop()
        if isinstance(item, list):
            deepest = max(deepest, level + 1)
            inner = [pair[1] for pair in item] if isinstance(item, Members) else item
            pending += [(part, level + 1) for part in inner]
    return deepest


def scan(line: bytes, depth_max: int) -> tuple[str, dict[str, Any]]:
    """What `mcpfast._core.scan` says of a line without newline; members are decoded here, and raw there.

    A line that is both too deep and no JSON is "bad" here and may be either there.
    """
    if not line.strip(b" \t\r"):
        return "blank", {}
    try:
        value = decode(line)
    except RecursionError:
        return "deep", {}
    except ValueError:
        return "bad", {}
    if depth(value) > depth_max:
        return "deep", {}
    if isinstance(value, Members):
        return "message", members(value)
    return ("array" if isinstance(value, list) else "scalar"), {}


def members(message: Members) -> dict[str, Any]:
    """The members that routing needs."""
    found = {name: value for name, value in message if name in ENVELOPE}
    params = found.get("params")
    if isinstance(params, Members):
        found |= {name: value for name, value in params if name in PARAMS}
        for name, meta in params:
            if name == "_meta" and isinstance(meta, Members):
                found |= {META[key]: value for key, value in meta if key in META}
    return found
