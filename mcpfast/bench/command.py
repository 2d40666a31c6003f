"""`mcpfast bench`: the command line, from options to exit code."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mcpfast.arguments import Parser, Refusal, add_credentials, bearer_of, headers_of
from mcpfast.bench import view
from mcpfast.bench.drive import RunFailed, drive_target, result_of
from mcpfast.bench.messages import Speech
from mcpfast.bench.plan import Plan
from mcpfast.bench.probe import Meeting, meet
from mcpfast.bench.processes import listener_of
from mcpfast.bench.result import Result
from mcpfast.bench.scenario import Action, Scenario, ScenarioError, check, read_scenario, steps_of
from mcpfast.bench.target import Target, TargetError, target_of
from mcpfast.errors import AddressError
from mcpfast.protocol.revisions import BY_VERSION, LATEST

WRONG_ANSWERS, WRONG_USAGE, NO_SERVER = 1, 2, 3
OPEN_LOOP_CONNECTIONS, OPEN_LOOP_WINDOW = 64, 256  # so that the server is what limits, not we

DESCRIPTION = """Drive an MCP server as hard as it can go, or at a given rate, check every answer, and tell how it went."""
EPILOG = """\
examples:
  mcpfast bench notes.py --tool add --args '{"a": 1, "b": 2}' --expect 3
  mcpfast bench http://127.0.0.1:8000/mcp --tool echo --args '{"text": "hi"}' -c 32 --duration 10
  mcpfast bench http://127.0.0.1:8000/mcp --tool echo --rate 2000 --html report.html
  mcpfast bench tcp://127.0.0.1:9000 --tool echo --rate 1000,2000,4000,8000 --html rates.html
  mcpfast bench --scenario shop.toml http://127.0.0.1:8000/mcp --json run.json
  mcpfast bench --tool echo --window 64 -- npx -y some-server
  mcpfast bench --compare before.json --compare after.json --html both.html

A TARGET is a server file (FILE.py), an address (http://HOST:PORT/mcp, ws://HOST:PORT/mcp, tcp://HOST:PORT, unix:///PATH), or,
behind --, a command that serves over stdio. Without --tool its tool `echo` is called, if it has one.

Closed loop (the default): each connection keeps --window calls in flight and sends the next when an answer has come. It shows
how fast a server can be; its latencies say little, since a server that is slow is asked less.
Open loop (--rate): requests begin at random moments, so many a second, whatever comes back, and each latency counts from that
moment. This is what users see at that rate; give several rates, with commas between, to see where it bends.

A scenario file (TOML) mixes what is sent; what the command line says too has more weight:

  script = false              # true: each connection goes through the actions in their order
  connections = 32
  headers = { X-Tenant = "a" }
  bearer_env = "TOKEN"        # the environment variable that holds a bearer token
  [[action]]
  call = "search"             # or: list = "tools", read = "config://app", prompt = "plan", ping = true
  weight = 3
  arguments = { text = "tea", user = "user-{user:05d}" }   # {user}: 0 to users - 1
  expect = "..."              # the text of the first content block; or expect_json = { total = 3 }, expect_items = { rows = 10 }
  cancel_after_ms = 50        # cancelled when it was not answered by then
  [[action]]
  call = "echo"
  payload_bytes = 65536       # a `text` of so many letters, expected back

Scripts have also: open = true (initialize), close = true (ends the session), pause_ms = 50, reconnect = true.

Exit code 0: all answers were right. 1: some were wrong. 2: wrong options. 3: no server, or it stopped answering."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="mcpfast bench",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    made.add_argument("target", metavar="TARGET", nargs="?", help="FILE.py, an address, or -- COMMAND")
    what = made.add_argument_group("what is sent")
    what.add_argument("--tool", metavar="NAME", help="call this tool (echo)")
    what.add_argument("--args", metavar="JSON", help="with these arguments: a JSON object")
    what.add_argument("--expect", metavar="TEXT", help="what the first content block must say")
    what.add_argument(
        "--payload-bytes", type=int, metavar="N", help='instead of --args: {"text": N letters}, expected back'
    )
    what.add_argument("--scenario", type=Path, metavar="FILE", help="what is sent, from a file (below)")
    what.add_argument(
        "--era",
        default="auto",
        metavar="REVISION",
        help="2026-07-28, 2025-06-18, ... or legacy (the newest the server speaks)",
    )
    add_credentials(what)  # type: ignore[arg-type]
    how = made.add_argument_group("how much")
    how.add_argument(
        "-c", "--connections", type=int, metavar="N", help="connections at once (1; 64 with --rate)"
    )
    how.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="calls in flight on each connection (1; 256 with --rate; HTTP: always 1)",
    )
    how.add_argument("--rate", metavar="R[,R...]", help="open loop: requests a second, one run for each")
    how.add_argument(
        "--even", action="store_true", help="open loop: at even distances, not at random moments"
    )
    how.add_argument("--duration", type=float, metavar="S", help="measure for so long (10)")
    how.add_argument("--warmup", type=float, metavar="S", help="after so long (1)")
    how.add_argument("--ramp", type=float, metavar="S", help="and after the load has grown for so long (0)")
    how.add_argument("--calls", type=int, default=0, metavar="N", help="measure N calls instead")
    how.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="give up when nothing was answered for so long (10)",
    )
    how.add_argument("--seed", type=int, default=1, metavar="N", help="of the random moments (1)")
    how.add_argument(
        "--pid", type=int, metavar="PID", help="the server's process, where it is not found by its address"
    )
    how.add_argument(
        "--cpus", metavar="OWN,SERVER", help="keep the generator and a started server each on one processor"
    )
    told = made.add_argument_group("what is told")
    told.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON (- for stdout)")
    told.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")
    told.add_argument("--name", default="", help="of this run, in tables and plots")
    told.add_argument(
        "--compare",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="put this run of --json beside it",
    )
    told.add_argument("-q", "--quiet", action="store_true", help="no table, no live view")
    return made


def main(arguments: Sequence[str], command: Sequence[str] = ()) -> int:
    """The exit code. `command` is what stood behind --."""
    given = parser().parse_args(arguments)
    try:
        return bench(given, command)
    except (Refusal, ScenarioError, AddressError) as error:
        print(f"mcpfast bench: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (RunFailed, TargetError) as error:
        print(f"mcpfast bench: {error}", file=sys.stderr)
        return NO_SERVER


def bench(given: Any, command: Sequence[str]) -> int:
    earlier = [read_result(file) for file in given.compare]
    if given.target is None and not command and earlier:
        view.print_table(earlier)
        write_report(given.html, earlier)
        return 0
    if given.target is not None and command:
        raise Refusal("either a TARGET or a command behind --, not both")
    if not sys.platform.startswith("linux"):
        raise Refusal("the load generator is built on epoll, and runs on Linux")
    lift_descriptor_limit()
    work = prepare(given, target_of(given.target, command))
    results = [one_run(work, rate) for rate in rates_of(given, work.scenario)]
    last = results[-1]
    if len(results) > 1:
        last.sweep = [result.plain() for result in results]
    tell(given, earlier, results)
    return WRONG_ANSWERS if any(result.errors for result in results) else 0


def tell(given: Any, earlier: list[dict[str, Any]], results: list[Result]) -> None:
    plain = [result.plain() for result in results]
    on_stdout = given.json is not None and str(given.json) == "-"
    if not given.quiet and not on_stdout:
        if len(results) == 1:
            view.print_result(results[0])
        if len(results) > 1 or earlier:
            view.print_table([*earlier, *plain])
    if on_stdout:
        print(json.dumps(plain[-1]))
    elif given.json is not None:
        given.json.write_text(json.dumps(plain[-1], indent=1) + "\n")
    write_report(given.html, [*earlier, plain[-1]])


def read_result(file: Path) -> dict[str, Any]:
    try:
        return msgspec.to_builtins(msgspec.json.decode(file.read_bytes(), type=Result))  # type: ignore[no-any-return]
    except (OSError, msgspec.DecodeError) as error:
        raise Refusal(f"--compare {file}: {error}") from None


def write_report(file: Path | None, results: list[dict[str, Any]]) -> None:
    if file is not None:
        from mcpfast.bench.report import write_report as write

        write(results, file)
        print(f"{file}: the report", file=sys.stderr)


# ---- from options to a plan ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """All that a run needs, but its rate."""

    target: Target
    scenario: Scenario
    meeting: Meeting
    plan: Plan
    pid: int | None
    name: str
    server_processor: int | None
    watched: bool


def prepare(given: Any, target: Target) -> Work:
    scenario = read_scenario(given.scenario) if given.scenario is not None else None
    if scenario is not None and (given.tool or given.args or given.payload_bytes or given.expect):
        raise Refusal(
            "--scenario says what is sent: no --tool, --args, --payload-bytes or --expect beside it"
        )
    if given.era not in ("auto", "legacy", *BY_VERSION):
        raise Refusal(f"--era {given.era}: one of auto, legacy, {', '.join(BY_VERSION)}")
    headers = all_headers(given, scenario)
    speech = Speech(target.wire, LATEST, target.authority, target.path, headers)
    meeting = meet(target, speech, given.era, timeout_s=given.timeout)
    if scenario is None:
        scenario = simple(given, meeting)
    check_tools(scenario, meeting)
    steps = steps_of(scenario, replace(speech, revision=meeting.revision))
    own, server = processors(given.cpus)
    plan = Plan(
        target.wire,
        steps.steps,
        steps.body,
        steps.prologue,
        address=target.address,
        connections=1 if target.command else first_of(given.connections, scenario.connections, 1),
        window=1 if scenario.script or target.wire == "http" else first_of(given.window, scenario.window, 1),
        scripted=scenario.script,
        stride=steps.stride,
        even=given.even,
        seed=given.seed,
        ramp_s=first_of(given.ramp, scenario.ramp_s, 0.0),
        warmup_s=first_of(given.warmup, scenario.warmup_s, 1.0),
        duration_s=first_of(given.duration, scenario.duration_s, 10.0),
        timeout_s=given.timeout,
        calls=given.calls,
        connection_calls=0 if target.command else scenario.requests_per_connection,
        processor=own,
    )
    check_numbers(given, plan, target)
    pid = given.pid
    if pid is None and target.address is not None:
        pid = listener_of(target.address)
    return Work(target, scenario, meeting, plan, pid, given.name or scenario.name, server, not given.quiet)


def first_of(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def check_numbers(given: Any, plan: Plan, target: Target) -> None:
    if plan.connections < 1 or plan.window < 1:
        raise Refusal("--connections and --window are at least 1")
    if plan.duration_s <= 0 or plan.warmup_s < 0 or plan.timeout_s <= 0:
        raise Refusal("--duration and --timeout are more than 0, --warmup is not less")
    if target.command and (given.connections or 1) > 1:
        raise Refusal("a command has one stdin: no --connections; use --window for several calls at once")
    if plan.window > 1 << 16 or plan.connections > 1 << 16:
        raise Refusal("--connections and --window are at most 65,536")


def all_headers(given: Any, scenario: Scenario | None) -> dict[str, str]:
    headers = {**(scenario.headers if scenario else {}), **headers_of(given)}
    bearer = bearer_of(given.bearer_env or (scenario.bearer_env if scenario else None))
    if bearer is not None:
        headers["Authorization"] = bearer
    for name, value in headers.items():
        if not (name + value).isascii() or any(letter in name + value for letter in "\r\n\0"):
            raise Refusal(f"the header {name!r} cannot be sent: ASCII without line ends is wanted")
    return headers


def simple(given: Any, meeting: Meeting) -> Scenario:
    """The scenario of --tool and its companions; without them, of a tool `echo` if there is one."""
    tool, arguments, expect = given.tool, {}, given.expect
    if tool is None:
        if meeting.tools is not None and "echo" not in meeting.tools:
            offered = ", ".join(sorted(meeting.tools)) or "none"
            raise Refusal(f"which --tool? This server has no `echo`; it offers: {offered}")
        tool = "echo"
    if given.args is not None:
        try:
            arguments = msgspec.json.decode(given.args, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Refusal(f"--args must be a JSON object, as in '{{\"a\": 1}}': {error}") from None
    elif tool == "echo" and not given.payload_bytes:
        arguments, expect = {"text": "hello"}, "hello" if expect is None else expect
    action = Action(call=tool, arguments=arguments, expect=expect, payload_bytes=given.payload_bytes or 0)
    scenario = Scenario(action=[action])
    check(scenario)
    return scenario


def check_tools(scenario: Scenario, meeting: Meeting) -> None:
    if meeting.tools is None:
        return
    for action in scenario.action:
        if action.call is not None and action.call not in meeting.tools:
            offered = ", ".join(sorted(meeting.tools)) or "none"
            raise Refusal(f"there is no tool {action.call!r}; the server offers: {offered}")


def rates_of(given: Any, scenario: Scenario) -> list[float]:
    """0 is a closed loop."""
    if given.rate is None:
        return [scenario.rate or 0.0]
    try:
        rates = [
            float(one.replace("_", "").removesuffix("k")) * (1000 if one.endswith("k") else 1)
            for one in given.rate.split(",")
        ]
    except ValueError:
        raise Refusal(
            f"--rate {given.rate}: a number, or several with commas between, as 500,1k,2k"
        ) from None
    if min(rates) <= 0:
        raise Refusal("--rate is more than 0")
    if scenario.script:
        raise Refusal(
            "a script goes as fast as it is answered: no --rate; its pauses say how often it comes around"
        )
    return rates


def processors(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return -1, None
    try:
        own, server = (int(part) for part in text.split(","))
    except ValueError:
        raise Refusal(f"--cpus {text}: two numbers, as 0,1") from None
    return own, server


def lift_descriptor_limit() -> None:
    """Thousands of connections need thousands of descriptors: take what the machine gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- a run -----------------------------------------------------------------------------------------------


def one_run(work: Work, rate: float) -> Result:
    plan, name = work.plan, work.name
    if rate:
        wide = plan.connections if plan.connections > 1 or work.target.command else OPEN_LOOP_CONNECTIONS
        deep = plan.window if plan.window > 1 or plan.wire == "http" else OPEN_LOOP_WINDOW
        plan = replace(plan, rate=rate, connections=wide, window=deep)
    with view.live(plan) if work.watched else nullcontext() as watch:
        done = drive_target(work.target, plan, pid=work.pid, processor=work.server_processor, watch=watch)
    return result_of(done, plan, target=work.target.text, era=work.meeting.revision.version, name=name)
