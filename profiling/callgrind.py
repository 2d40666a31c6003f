"""callgrind: instructions a call, function by function.

Two runs of different length are subtracted function by function, so that only what calls cost is left: start and end
of the server cancel out.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from target import RESULTS, Target, here

from benches.counting import FEW, MANY, counted, have_valgrind, repeatable
from benches.load import Shape, drive

TOP = 40
LINE = re.compile(r"^ *([\d,]+) (?:\([ \d.]+%\))? *(\S.*)$")


def callgrind(target: Target) -> None:
    if not have_valgrind():
        sys.exit("callgrind is part of valgrind. Install: apt-get install -y valgrind")
    shape = target.shape
    lockstep = Shape(
        shape.window, shape.connections, shape.era, shape.tool, shape.payload_bytes, lockstep=True
    )
    few, many = RESULTS / "callgrind.few", RESULTS / "callgrind.out"
    with repeatable():
        drive(lockstep, target.command, calls=FEW)  # writes .pyc files, so that neither run below does
        total = counted(lockstep, target.command, MANY, many) - counted(lockstep, target.command, FEW, few)
    calls = MANY - FEW
    print(f"{total / calls:,.0f} instructions a call")
    for title, inclusive in (("by function", False), ("with all that it calls", True)):
        text = table(costs(few, inclusive), costs(many, inclusive), calls)
        file = RESULTS / f"callgrind-{'inclusive' if inclusive else 'own'}.txt"
        file.write_text(text)
        if not inclusive:
            print(f"{title}:", *text.splitlines()[:TOP], sep="\n")
        print(here(file))
    few.unlink()
    print(f"{here(many)} (for KCachegrind; start and end of the server are in it)")


def costs(profile: Path, inclusive: bool) -> Counter[str]:
    """Instructions by function of one run, as callgrind_annotate tells them."""
    options = ["--threshold=100", "--auto=no", f"--inclusive={'yes' if inclusive else 'no'}"]
    listing = subprocess.run(
        ["callgrind_annotate", *options, str(profile)], capture_output=True, text=True, check=True
    )
    found: Counter[str] = Counter()
    for line in listing.stdout.splitlines():
        if (match := LINE.match(line)) and "PROGRAM TOTALS" not in line:
            path, _, rest = match[2].partition(":")
            found[f"{rest}  {Path(path).name}" if rest else path] += int(match[1].replace(",", ""))
    return found


def table(few: Counter[str], many: Counter[str], calls: int) -> str:
    """Instructions a call, most first, down to a tenth of one."""
    rows = [((count - few[name]) / calls, name) for name, count in many.items()]
    return "".join(f"{cost:10,.1f}  {name}\n" for cost, name in sorted(rows, reverse=True) if cost >= 0.1)
