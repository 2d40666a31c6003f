"""callgrind: instructions a call, function by function.

Two runs of different length are subtracted, function by function, so that only what calls cost is left: start and end of the
server cancel out.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from shutil import which

from mcpfast.profile import ProfileFailed
from mcpfast.profile.report import Report
from mcpfast.profile.session import Session
from mcpfast.profile.stacks import plain
from mcpfast.profile.target import Target

TOP = 10
SHORT = 0.25  # of the long run
RECURSION = re.compile(r"'\d+(?=  )")
LINE = re.compile(r"^ *([\d,]+) (?:\([ \d.]+%\))? *(\S.*)$")

READING = """
The first line says how many instructions of user space a call costs; the table, by function, its own without what it calls.
`functions-inclusive.txt` has the same with what it calls. A busy machine makes no difference to these numbers: with `--calls`
they repeat almost to the digit, which times never do, so compare before and after a change by them (`diff` two of the files).

- A function appears once for each file that it has code from: `pump  _scan.h` is the part of `pump` that was inlined from
  `_scan.h`. Add them up.
- What a call to a Python handler needs: `_PyEval_EvalFrameDefault` (the interpreter, for the lines of the handler), frame and
  generator functions (its coroutine), the decoder of the arguments, the encoder of the result, `memcpy`.
- What should not be there for a plain call: `PyErr_*` and `PyTraceBack_*` (an exception on the way of every call costs thousands),
  `type_call` and `PyType_GenericAlloc` in numbers, `PyImport_*` (an import inside a function), `regex` functions for text
  that could be split, anything of `asyncio` for calls that do not wait.
- A function with a fraction (0.02) runs once a batch or once in many calls: the collector, growing buffers, the loop.
- Names with dots (`mcpfast._spine.Channel.pump`) are functions of compiled Cython modules. Python functions have no names here:
  they are all `_PyEval_EvalFrameDefault`. Which of them is hot, py-spy says.

Instructions are not time: a cache miss or a system call costs nothing here. They are what code can change.
`callgrind.out` opens in KCachegrind with callers and callees; start and end of the server are in it, and weigh as much as
100,000 calls.
"""


def missing(target: Target) -> str | None:
    if target.command is None:
        return "callgrind cannot look into a live process: give it the server's file or command, or take perf"
    if which("valgrind") is None:
        return "callgrind is part of valgrind, which is not installed. Install: apt-get install -y valgrind"
    return None


def look(session: Session) -> Report:
    session.environment["PYTHONHASHSEED"] = "0"  # the layout of every dict is the same in both runs
    out, short_out = session.folder / "callgrind.out", session.private / "callgrind.short"
    command = list(session.target.command or ())
    session.warmup = 0  # its calls would be counted by callgrind, and by nobody else
    long_calls = session.calls
    session.progress.say("a short run first, which is subtracted from the long one")
    short = session.wrapped(
        wrap(command, short_out), seconds=session.seconds * SHORT, calls=round(long_calls * SHORT)
    )
    session.progress.say("the long run")
    long = session.wrapped(wrap(command, out), calls=long_calls)
    calls = long.calls - short.calls
    if calls <= 0:
        raise ProfileFailed(
            "the longer run had no more calls than the short one: look for longer (--duration)"
        )
    with session.progress.step("reading what callgrind counted"):
        total = (instructions(out) - instructions(short_out)) / calls
        own, inclusive = (
            by_function(costs(short_out, inclusive), costs(out, inclusive), calls)
            for inclusive in (False, True)
        )
    told = [f"{long.asked}: {total:,.0f} instructions a call (of {calls:,} calls)"]
    warnings = []
    if errors := short.errors + long.errors:
        warnings.append(f"{errors:,} answers were wrong; this may be the profile of a way of failing")
    files = [
        (write(session.folder / "functions.txt", own), "instructions a call by function"),
        (write(session.folder / "functions-inclusive.txt", inclusive), "the same with all that it calls"),
        (out, "for KCachegrind, and callgrind_annotate"),
    ]
    return Report(
        instrument="callgrind",
        title="Instructions a call, by function",
        columns=("own", "share", "function"),
        rows=[(f"{cost:,.1f}", f"{cost / total:.1%}", name) for cost, name in own[:TOP]],
        files=files,
        reading=READING,
        facts=told,
        warnings=warnings,
    )


def wrap(command: list[str], out: Path) -> list[str]:
    valgrind = ["valgrind", "--tool=callgrind", "--vgdb=no", f"--callgrind-out-file={out.absolute()}"]
    return [*valgrind, f"--log-file={out.absolute()}.log", *command]


def instructions(profile: Path) -> int:
    """All that a run executed."""
    found = re.search(r"^(?:summary|totals): (\d+)", profile.read_text(), re.M) if profile.exists() else None
    if found is None:
        log = Path(f"{profile}.log")
        raise ProfileFailed(f"callgrind wrote no total\n{log.read_text() if log.exists() else ''}".strip())
    return int(found[1])


def costs(profile: Path, inclusive: bool) -> Counter[str]:
    """Instructions by function of one run, as callgrind_annotate tells them."""
    options = ["--threshold=100", "--auto=no", f"--inclusive={'yes' if inclusive else 'no'}"]
    listing = subprocess.run(
        ["callgrind_annotate", *options, str(profile)], capture_output=True, text=True, check=True
    )
    found: Counter[str] = Counter()
    for line in listing.stdout.splitlines():
        if (match := LINE.match(line)) and "PROGRAM TOTALS" not in line:
            name = function(match[2])
            # The levels of a recursion are one function; what they call is already in what the first of them calls.
            name = name if inclusive else RECURSION.sub("", name)
            found[name] += int(match[1].replace(",", ""))
    return found


def function(told: str) -> str:
    """`path/file.c:name [library]` as `name  file.c`."""
    path, colon, rest = told.partition(":")
    if not colon:
        return told
    name = re.sub(r" \[[^\]]*\]$", "", rest)
    return f"{plain(name)}  {Path(path).name}"


def by_function(short: Counter[str], long: Counter[str], calls: int) -> list[tuple[float, str]]:
    """Instructions a call, most first, down to a tenth of one."""
    rows = [((count - short[name]) / calls, name) for name, count in long.items()]
    return sorted((row for row in rows if row[0] >= 0.1), reverse=True)


def write(path: Path, rows: list[tuple[float, str]]) -> Path:
    path.write_text("".join(f"{cost:12,.1f}  {name}\n" for cost, name in rows))
    return path
