"""Samples of stacks: from the words of an instrument to counts by stack, and from those to the hottest functions.

A stack is a tuple of frames, outermost first. A frame reads `function (file.py:7)`, `function (library.so)` or
`function [kernel]`: what stands behind the name tells its kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

Stack = tuple[str, ...]
Stacks = Counter[Stack]

NAMELESS = re.compile(
    r"^0x[0-9a-f]+(?= \()"
)  # the many addresses of a library without symbols are one unknown
LINE_NUMBER = re.compile(r":\d+\)$")
CYTHON = re.compile(r"__pyx_(?:f|pw|pf|gb)_(?=\d)")
SYMBOL = re.compile(r"\s*(?P<at>[0-9a-f]+) (?P<symbol>.*) \((?P<where>.*)\)$")
PERF_PYTHON = re.compile(r"py::(?P<function>.*?):(?P<file>.*)$")
INTERPRETER = "_PyEval_EvalFrameDefault ("
NOISE = frozenset({"py_trampoline_evaluator", "_Py_trampoline_func_start", "[unknown]"})


class Heat(NamedTuple):
    """A function, and in how many samples it was at the tip of the stack, and anywhere on it."""

    function: str
    own: int
    total: int


def read_folded(text: str) -> Stacks:
    """Lines of `outer;...;inner count`, as py-spy and others write them."""
    found: Stacks = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            found[tuple(NAMELESS.sub("?", frame) for frame in stack.split(";"))] += int(count)
    return found


def write_folded(stacks: Stacks) -> str:
    """The same lines, for other programs (speedscope, flamegraph.pl, a diff of two runs)."""
    return "".join(
        f"{';'.join(frame.replace(';', ',') for frame in stack)} {count}\n"
        for stack, count in sorted(stacks.items())
    )


def read_perf_script(text: str) -> Stacks:
    """What `perf script -F comm,pid,tid,event,ip,sym,dso` prints: a block a sample, innermost frame first."""
    found: Stacks = Counter()
    frames: list[str] = []
    command = ""
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if command:
                found[(command, *_without_interpreter(frames[::-1]))] += 1
            command, frames = "", []
        elif not line[0].isspace():
            command = line.split("  ")[0].split("/")[0].strip()
            command = re.sub(r"\s+\d+$", "", command)
        elif match := SYMBOL.match(line):
            frame = perf_frame(match["symbol"], match["where"])
            if frame:
                frames.append(frame)
    return found


def _without_interpreter(frames: list[str]) -> Iterator[str]:
    """The interpreter's loop at work for a Python frame is that frame."""
    before = ""
    for frame in frames:
        if not (frame.startswith(INTERPRETER) and (".py)" in before or before.endswith(">)"))):
            yield frame
            before = frame


def perf_frame(symbol: str, where: str) -> str:
    """A frame of perf in our words; empty for what only says how Python is traced."""
    name = re.sub(r"\+0x[0-9a-f]+$", "", symbol)
    if name in NOISE:
        return ""
    if python := PERF_PYTHON.match(name):
        return f"{python['function']} ({PurePath(python['file']).name})"
    if where.startswith("[kernel") or where.endswith(".ko"):
        return f"{name} [kernel]"
    library, extension, _ = PurePath(where).name.partition(".cpython-")
    if name.startswith("__pyx_"):
        return f"{plain(name)} ({library}.pyx)"
    return f"{name} ({library}{'.so' if extension else ''})"


def plain(symbol: str) -> str:
    """Cython's C name of a function as its author wrote it: __pyx_f_7mcpfast_5_core_6Outbox_flush is
    mcpfast._core.Outbox.flush."""
    match = CYTHON.match(symbol)
    if match is None:
        return symbol
    wrapper = match[0].startswith(
        "__pyx_p"
    )  # it numbers its last part: `3on_readable` is no length and three letters
    rest, parts = symbol[match.end() :], []
    while number := re.match(r"\d+", rest):
        end = number.end() + int(number[0])
        behind = rest[end:]
        if not behind.startswith("_") or (wrapper and not behind[1:2].isdigit()):
            break
        parts.append(rest[number.end() : end])
        rest = behind[1:]
    return ".".join([*parts, rest.lstrip("0123456789") if wrapper else rest])


def hottest(stacks: Stacks, count: int = 10) -> list[Heat]:
    """The functions in which most samples end, lines of one function together."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, samples in stacks.items():
        functions = [without_line(frame) for frame in stack]
        own[functions[-1]] += samples
        for function in set(functions):
            total[function] += samples
    return [Heat(function, samples, total[function]) for function, samples in own.most_common(count)]


def without_line(frame: str) -> str:
    return LINE_NUMBER.sub(")", frame)
