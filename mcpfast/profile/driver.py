"""The process that calls a server for a session: `mcpfast bench`, but for two things that matter under an instrument.

A command is met as the user wrote it (which era, which tools), and started only once as it is wrapped: an instrument that is
started for a first talk would write over its own results. And it gets the time that it needs to end: the instrument writes then.

    python -m mcpfast.profile.driver '{"report": FILE, "options": [...], "address": ..., "command": [...], "launched": [...]}'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from mcpfast.arguments import Refusal
from mcpfast.bench import command as bench
from mcpfast.bench.drive import RunFailed, result_of, run
from mcpfast.bench.result import Result
from mcpfast.bench.scenario import ScenarioError
from mcpfast.bench.target import TargetError, target_of
from mcpfast.errors import AddressError

END_S = 60.0  # for a server whose input has ended, and for what is wrapped around it


def main() -> int:
    told = json.loads(sys.argv[1])
    given = bench.parser().parse_args(told["options"])
    try:
        bench.lift_descriptor_limit()
        work = bench.prepare(given, target_of(told["address"], told["command"]))
        rate = bench.rates_of(given, work.scenario)[0]
        result = by_stdio(work, rate, told["launched"]) if told["launched"] else bench.one_run(work, rate)
    except (Refusal, ScenarioError, AddressError, RunFailed, TargetError) as error:
        sys.stderr.write(f"{error}\n")
        return bench.NO_SERVER
    Path(told["report"]).write_text(json.dumps(result.plain()))
    return bench.WRONG_ANSWERS if result.errors else 0


def by_stdio(work: bench.Work, rate: float, launched: list[str]) -> Result:
    """The run, over the stdin and stdout of a server that is started for it."""
    with subprocess.Popen(launched, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        pipe = server.stdout.fileno(), server.stdin.fileno()
        for end in pipe:
            os.set_blocking(end, False)
        window = work.plan.window if work.plan.window > 1 or not rate else bench.OPEN_LOOP_WINDOW
        plan = replace(work.plan, rate=rate, window=window, pipe=pipe, address=None)
        done = run(plan, pid=server.pid)
        server.stdin.close()
        try:
            status = server.wait(END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            raise RunFailed(f"the server was still there {END_S:g} s after its input had ended") from None
        if done.outcome["failure"]:
            done.outcome["failure"] += f" (it ended with status {status})"
    return result_of(done, plan, target=work.target.text, era=work.meeting.revision.version)


if __name__ == "__main__":
    sys.exit(main())
