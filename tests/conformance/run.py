"""The official conformance suite against the fixture beside this file (`make conformance`), or against any server.

    python tests/conformance/run.py                                     everything, at three revisions
    python tests/conformance/run.py --asgi                              the fixture as an ASGI application under uvicorn
    python tests/conformance/run.py --session-mode sealed               another way to keep the sessions of older clients
    python tests/conformance/run.py --scenario server-stateless --verbose
    python tests/conformance/run.py --url http://localhost:3000/mcp     a server that runs already, whoever wrote it

The suite counts skipped checks as passed, prints warnings in green, and says nothing of a check that never came about. Here
all of these fail, and so does a traceback in the fixture's log. What was written stays in build/conformance/results: per
scenario a checks.json, per revision the suite's output, and the log.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PACKAGES = ("node@22", "@modelcontextprotocol/conformance@0.2.0-alpha.12")
BUILD = Path(__file__).resolve().parents[2] / "build" / "conformance"
NODE = BUILD / "node_modules" / "node" / "bin" / "node"
SUITE = BUILD / "node_modules" / "@modelcontextprotocol" / "conformance"
RESULTS = BUILD / "results"
FIXTURE = Path(__file__).with_name("server.py")

SCORED = {"2025-06-18": 27, "2025-11-25": 30, "2026-07-28": 37}  # scenarios that count, by revision
FROZEN = (
    "2025-11-25",
    "2026-07-28",
)  # those whose list the suite has frozen; the older one takes all that apply

# Scenarios of what we do not offer, and why. They run, and are shown, and do not count.
NOT_OFFERED = {"tasks-*": "the Tasks extension is not offered yet"}
# Checks that may be skipped: (scenario, check) and why.
EXPLAINED_SKIPS = {
    (
        "tasks-status-notifications",
        "tasks-status-notifications",
    ): "the suite has nowhere to look for these notifications since they moved to subscriptions/listen",
}
# What quietly becomes an INFO where a server does not do it: these must have succeeded.
MUST_SUCCEED = {
    "server-session-lifecycle": {"server-session-delete-accepted", "server-session-terminated-returns-404"},
    "server-sse-multiple-streams": {"server-accepts-multiple-post-streams"},
    "server-sse-polling": {
        "server-sse-priming-event",
        "server-sse-retry-field",
        "server-sse-disconnect-resume",
    },
}
WORDS = {"SUCCESS": "checks passed", "FAILURE": "failed", "WARNING": "warnings", "SKIPPED": "skipped"}
TRACEBACK = "Traceback (most recent call last)"
WIRE = "wire-schema-valid"  # the check of every message; by itself it shows nothing of a scenario

INSTALL_S = 300
START_S = 30
RUN_S = 600
STOP_S = 15


class Refusal(Exception):
    """Why nothing could be run, in one line."""


@dataclass
class Outcome:
    """One scenario at one revision: its checks, and what is wrong with it."""

    scenario: str
    scored: bool
    counts: bool  # whether it has to pass
    checks: list[dict[str, Any]] | None  # None: it left no result
    wrong: list[tuple[str, str, str]] = field(default_factory=list)  # check, status, message

    def __post_init__(self) -> None:
        self.tally = collections.Counter(check["status"] for check in self.checks or ())
        self.wrong += judge(self.scenario, self.checks)

    @property
    def passed(self) -> bool:
        return not self.wrong

    def cell(self) -> str:
        """`8` where everything passed, else `passed/failed/warning/skipped`; `(...)` where it need not pass."""
        if self.checks is None:
            return "✗ no result"
        words = [str(self.tally[status]) for status in WORDS]
        text = words[0] if words[1:] == ["0", "0", "0"] else "/".join(words)
        mark = "✓" if self.passed else "✗"
        return f"{mark} {text}" if self.counts else f"({mark} {text})"


def judge(scenario: str, checks: list[dict[str, Any]] | None) -> list[tuple[str, str, str]]:
    """What is wrong with these checks: (check, status, message)."""
    if checks is None:
        return [(scenario, "NO RESULT", "the suite wrote none; its output says why")]
    wrong = []
    for check in checks:
        status = check["status"]
        excused = status == "SKIPPED" and (scenario, check["id"]) in EXPLAINED_SKIPS
        if status not in ("SUCCESS", "INFO") and not excused:
            wrong.append((check["id"], status, message_of(check)))
    succeeded = {check["id"] for check in checks if check["status"] == "SUCCESS"}
    noted = {check["id"] for check in checks}
    for missing in sorted(MUST_SUCCEED.get(scenario, set()) - succeeded):
        if missing not in {name for name, _, _ in wrong}:
            status = "ONLY NOTED" if missing in noted else "NEVER MADE"
            wrong.append(
                (
                    missing,
                    status,
                    "; ".join(message_of(one) for one in checks if one["status"] == "INFO")[-400:],
                )
            )
    if not wrong and not succeeded - {WIRE} and "SKIPPED" not in {check["status"] for check in checks}:
        wrong.append((scenario, "NOTHING CHECKED", "no check of this scenario was made"))
    return wrong


def message_of(check: dict[str, Any]) -> str:
    details = check.get("details") or {}
    said = check.get("errorMessage") or details.get("message") or details.get("note")
    return str(said or check.get("description", ""))


# ---------------------------------------------------------------------------------------------- the suite


def install() -> None:
    """The pinned suite with a Node of its own, by npm; what is there already stays."""
    stamp = BUILD / "installed"
    wanted = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted and NODE.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise Refusal("npm is not on this machine: apt-get install -y nodejs npm")
    print(f"installing {' and '.join(PACKAGES)} into {shown(BUILD)}", flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "package.json").write_text('{"private": true}\n')  # else npm goes up and looks for one
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *PACKAGES]
    try:
        made = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise Refusal(f"npm did not install the suite within {INSTALL_S} s") from None
    if made.returncode != 0 or not NODE.exists():
        raise Refusal(f"npm could not install the suite:\n{(made.stderr or made.stdout).strip()[-2000:]}")
    stamp.write_text(wanted)


def suite(*words: str, log: Path | None = None) -> str:
    """Runs the suite; its output, which goes to `log`, too. Its exit code says less than its checks, and is not looked at."""
    command = [str(NODE), str(SUITE / "dist" / "index.js"), *words]
    try:
        ran = subprocess.run(
            command, cwd=BUILD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_S
        )
    except subprocess.TimeoutExpired:
        raise Refusal(f"the suite did not end within {RUN_S} s: {' '.join(words)}") from None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(ran.stdout)
    return ran.stdout


def scenarios_of(revision: str) -> dict[str, bool]:
    """The names of the scenarios that run at a revision, in the suite's order, and whether they are scored."""
    if revision in FROZEN:
        found = frozen_scenarios((SUITE / "requirements" / f"{revision}.yaml").read_text())
    else:
        listed = suite("list", "--server", "--spec-version", revision)
        found = dict.fromkeys(re.findall(r"^  - (\S+)", listed, re.M), True)
    scored = sum(found.values())
    if scored != SCORED[revision]:
        raise Refusal(
            f"the suite has {scored} scored scenarios for {revision}, and {SCORED[revision]} are known"
        )
    return found


def frozen_scenarios(text: str) -> dict[str, bool]:
    """From a list of requirements: what stands under `server:`, and the `leg: server` of `not_scored:`."""
    scored: list[str] = []
    others: list[str] = []
    section = last = ""
    for line in text.splitlines():
        if line and line[0] not in " #":
            section = line.partition(":")[0]
        elif section == "server" and line.startswith("  - "):
            scored.append(line[4:].strip())
        elif section == "not_scored" and line.startswith("  - scenario:"):
            last = line.partition(":")[2].strip()
        elif section == "not_scored" and line.split() == ["leg:", "server"]:
            others.append(last)
    return dict.fromkeys(scored, True) | dict.fromkeys(others, False)


def run_revision(url: str, revision: str, only: str | None, demand_all: bool, results: Path) -> list[Outcome]:
    """Runs a revision, or one scenario of it; with `demand_all` what is not scored must pass, too."""
    names = scenarios_of(revision)
    if only is not None:
        names = {name: scored for name, scored in names.items() if name == only}
        if not names:
            return []
    folder = results / revision
    shutil.rmtree(folder, ignore_errors=True)
    none_expected = BUILD / "none-expected.yml"  # without such a file a WARNING passes
    none_expected.write_text("client: []\nserver: []\n")
    if only is not None:
        chosen = ["--scenario", only, "--spec-version", revision, "--force"]
    elif revision in FROZEN:
        chosen = ["--requirements", revision]
    else:
        chosen = ["--suite", "all", "--spec-version", revision]
    where = ["--url", url, "--expected-failures", str(none_expected), "-o", str(folder)]
    suite("server", *where, *chosen, log=folder / "output.log")
    return [
        Outcome(
            name,
            scored,
            counts=(scored or demand_all) and not any(fnmatch.fnmatch(name, one) for one in NOT_OFFERED),
            checks=checks_of(folder, name),
        )
        for name, scored in names.items()
    ]


def checks_of(folder: Path, scenario: str) -> list[dict[str, Any]] | None:
    """What the suite wrote about one scenario: its folder has the scenario's name and a time stamp."""
    named = re.compile(rf"server-{re.escape(scenario)}-\d{{4}}-\d\d-\d\dT[\dZ-]+")
    written = [path / "checks.json" for path in folder.iterdir() if named.fullmatch(path.name)]
    found = [path for path in written if path.exists()]
    if len(found) > 1:
        raise Refusal(f"{shown(folder)} has {len(found)} results of {scenario}")
    return json.loads(found[0].read_text()) if found else None


# ---------------------------------------------------------------------------------------------- the server


@contextlib.contextmanager
def fixture(words: list[str], log: Path) -> Iterator[str]:
    """Our fixture on a free port; gives its URL. What it writes to stdout and stderr goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        command = [sys.executable, str(FIXTURE), "--listen", f"http://127.0.0.1:{port}", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_S
        while not answers("127.0.0.1", port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Refusal(
                    f"the fixture did not start:\n{log.read_text(errors='replace').strip()[-2000:]}"
                )
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
        if process.poll() is not None:
            raise Refusal(f"the fixture ended with {process.returncode} on the way; see {shown(log)}")
    finally:
        stop(process)


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"the fixture did not end within {STOP_S} s of SIGTERM, and was killed", file=sys.stderr)


@contextlib.contextmanager
def running(url: str) -> Iterator[str]:
    """A server of somebody else."""
    where = urlsplit(url)
    if where.scheme not in ("http", "https") or where.hostname is None:
        raise Refusal(f"--url {url}: write http://HOST:PORT/PATH, as in http://localhost:3000/mcp")
    port = where.port or (443 if where.scheme == "https" else 80)
    if not answers(where.hostname, port):
        raise Refusal(f"nobody listens at {where.hostname}:{port}")
    yield url


# ---------------------------------------------------------------------------------------------- what is shown


def show_table(runs: dict[str, list[Outcome]]) -> None:
    cells: dict[str, dict[str, str]] = {}
    for revision, outcomes in runs.items():
        for outcome in outcomes:
            cells.setdefault(outcome.scenario, {})[revision] = outcome.cell()
    width = max(map(len, cells)) + 2
    print("\nChecks that passed, or passed/failed/warning/skipped; in brackets what need not pass.\n")
    print(f"{'scenario':<{width}}" + "".join(f"{revision:<16}" for revision in runs).rstrip())
    for scenario, by_revision in cells.items():
        row = "".join(f"{by_revision.get(revision, ''):<16}" for revision in runs)
        print(f"{scenario:<{width}}{row.rstrip()}")


def show_wrong(runs: dict[str, list[Outcome]], everything: bool) -> None:
    """Each check that is wrong and counts, or is asked for, with what the suite says about it."""
    for revision, outcomes in runs.items():
        for outcome in outcomes:
            if outcome.wrong and (outcome.counts or everything):
                print(f"\n{revision}  {outcome.scenario}")
            for check, status, message in outcome.wrong if outcome.counts or everything else ():
                print(f"  {status}  {check}")
                if message:
                    print(textwrap.indent(textwrap.fill(message, 120), "      "))


def show_checks(runs: dict[str, list[Outcome]]) -> None:
    """Every check in full, as the suite wrote it."""
    for revision, outcomes in runs.items():
        for outcome in outcomes:
            print(f"\n{revision}  {outcome.scenario}")
            for check in outcome.checks or ():
                print(f"  {check['status']:<8} {check['id']}: {check['description']}")
                for name in ("errorMessage", "details"):
                    if check.get(name):
                        text = (
                            check[name] if isinstance(check[name], str) else json.dumps(check[name], indent=1)
                        )
                        print(textwrap.indent(text, "           "))


def show_sums(runs: dict[str, list[Outcome]]) -> None:
    print()
    for revision, outcomes in runs.items():
        scored = [outcome for outcome in outcomes if outcome.scored]
        others = [outcome for outcome in outcomes if not outcome.scored and outcome.counts]
        sums = []
        if scored:
            sums.append(f"{sum(one.passed for one in scored)} of {len(scored)} scored scenarios")
        if others:
            sums.append(f"{sum(one.passed for one in others)} of {len(others)} that are not scored")
        tally = sum((one.tally for one in outcomes if one.counts), collections.Counter[str]())
        counted = [f"{tally[status]} {word}" for status, word in WORDS.items()]
        print(f"{revision}  {', '.join(sums) or 'nothing that counts'}: {', '.join(counted)}")
    ran = {outcome.scenario for outcomes in runs.values() for outcome in outcomes}
    for pattern, reason in NOT_OFFERED.items():
        if left := fnmatch.filter(ran, pattern):
            print(f"            {len(left)} scenarios {pattern} need not pass: {reason}")


def show_tracebacks(log: Path) -> bool:
    """Whether there is one in the log, which the suite cannot see; and the last of them."""
    text = log.read_text(errors="replace") if log.exists() else ""
    count = text.count(TRACEBACK)
    if count:
        print(f"\nTracebacks in the fixture's log, {shown(log)}: {count}; the last one:")
        print(textwrap.indent(text[text.rindex(TRACEBACK) :][:3000].rstrip(), "  "))
    return count > 0


def shown(path: Path) -> str:
    return os.path.relpath(path)


# ---------------------------------------------------------------------------------------------- the command


def parse() -> argparse.Namespace:
    title, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=title,
        epilog=more
        + "\nExit code 0: everything that counts has passed. 1: it has not. 2: nothing could be run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="the endpoint of a server that runs already, instead of the fixture")
    parser.add_argument(
        "--asgi", action="store_true", help="the fixture as an ASGI application, under uvicorn"
    )
    parser.add_argument(
        "--session-mode",
        metavar="MODE",
        help="passed on to the fixture: stateful (its default), sealed, off. In the last two only scored scenarios must pass",
    )
    parser.add_argument(
        "--revision",
        action="append",
        choices=tuple(SCORED),
        help="only this one; may be given several times",
    )
    parser.add_argument("--scenario", metavar="NAME", help="only this one, at each revision that has it")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="every check of --scenario in full; else also what need not pass",
    )
    options = parser.parse_args()
    if options.url and (options.asgi or options.session_mode):
        parser.error("--asgi and --session-mode are for the fixture; --url names a server that runs already")
    return options


def main() -> int:
    options = parse()
    words = ["--asgi"] * options.asgi
    if options.session_mode:
        words += ["--session-mode", options.session_mode]
    demand_all = options.session_mode in (None, "stateful")
    results = RESULTS / ("url" if options.url else "-".join(["fixture", *words]).replace("--", ""))
    log = results / "server.log"
    try:
        install()
        runs: dict[str, list[Outcome]] = {}
        with running(options.url) if options.url else fixture(words, log) as url:
            for revision in options.revision or SCORED:
                print(f"{revision} against {url}", flush=True)
                outcomes = run_revision(url, revision, options.scenario, demand_all, results)
                if outcomes:
                    runs[revision] = outcomes
        if not runs:
            raise Refusal(f"no scenario {options.scenario} at {', '.join(options.revision or SCORED)}")
    except Refusal as refusal:
        print(f"conformance: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    show_table(runs)
    if options.scenario and options.verbose:
        show_checks(runs)
    else:
        show_wrong(runs, options.verbose)
    show_sums(runs)
    failed = any(outcome.counts and not outcome.passed for outcomes in runs.values() for outcome in outcomes)
    failed |= show_tracebacks(log)
    if failed:
        print(f"\nNot conforming. Results: {shown(results)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
