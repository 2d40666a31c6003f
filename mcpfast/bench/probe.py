"""A first talk with a server, before it is driven: which era it speaks, and which tools it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mcpfast.bench.drive import Run, RunFailed, run
from mcpfast.bench.messages import Speech
from mcpfast.bench.plan import Plan, Step
from mcpfast.bench.target import Target, started
from mcpfast.protocol.revisions import BY_VERSION, LATEST, LATEST_LEGACY, LEGACY, Revision

SILENCE_S = 5.0  # an old server may not answer what it does not know


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a server said of itself."""

    revision: Revision
    tools: (
        dict[str, dict[str, Any]] | None
    )  # descriptors by their name; None where it lists none, or not all at once


class Link:
    """A server that can be asked now: over its pipe, or at its address."""

    def __init__(self, target: Target, pipe: tuple[int, int] | None, timeout_s: float) -> None:
        self.target, self.pipe, self.timeout_s = target, pipe, timeout_s

    def ask(self, steps: Sequence[Step], *, timeout_s: float | None = None) -> dict[str, Any]:
        """The answer to the last of `steps`, as an object with `result` or `error`. Raises RunFailed without one."""
        last = len(steps) - 1
        plan = Plan(
            self.target.wire,
            [replace(step, counted=True) if number == last else step for number, step in enumerate(steps)],
            body=[last],
            prologue=range(last),
            pipe=self.pipe,
            address=None if self.pipe else self.target.address,
            calls=1,
            intervals=0,
            timeout_s=timeout_s or self.timeout_s,
        )
        return answer(run(plan))


def answer(done: Run) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(done.last_answer, type=dict[str, Any]) if done.last_answer else {}
    except msgspec.DecodeError:
        said = {}
    if "result" in said or "error" in said:
        return said
    raise RunFailed(done.outcome["failure"] or done.outcome["first_error"] or "the server did not answer")


@contextmanager
def reached(target: Target, timeout_s: float) -> Iterator[Link]:
    if target.command:
        with started(target) as child:
            yield Link(target, child.pipe, timeout_s)
    else:
        yield Link(target, None, timeout_s)


def meet(target: Target, speech: Speech, era: str, *, timeout_s: float = 10.0) -> Meeting:
    """`era` is "auto", "legacy" or a revision.

    Raises RunFailed, which says why, when there is no server or none that speaks it.
    """
    if era == "auto":
        found = _discover(target, speech, timeout_s)
        if found is not None:
            return found
    modern = BY_VERSION.get(era) if era != "legacy" else None
    if modern is not None and modern.modern:
        return _modern(target, replace(speech, revision=modern), timeout_s)
    revision = LATEST_LEGACY if era in ("auto", "legacy") else BY_VERSION[era]
    return _initialize(target, replace(speech, revision=revision), timeout_s)


def _discover(target: Target, speech: Speech, timeout_s: float) -> Meeting | None:
    """None where the server does not speak 2026-07-28, or ends or falls silent when it is asked."""
    speech = replace(speech, revision=LATEST)
    try:
        with reached(target, timeout_s) as link:
            said = link.ask([*_upgrade(speech), speech.discover()], timeout_s=min(SILENCE_S, timeout_s))
    except RunFailed:
        return None
    versions = said.get("result", {}).get("supportedVersions", [])
    return _modern(target, speech, timeout_s) if LATEST.version in versions else None


def _modern(target: Target, speech: Speech, timeout_s: float) -> Meeting:
    steps = [*_upgrade(speech), speech.request("list tools", "tools/list")]
    with reached(target, timeout_s) as link:
        return Meeting(speech.revision, _tools(link.ask(steps)))


def _initialize(target: Target, speech: Speech, timeout_s: float) -> Meeting:
    first = [*_upgrade(speech), speech.initialize()]
    with reached(target, timeout_s) as link:
        said = link.ask(first)
        if "error" in said:
            raise RunFailed(f"the server refuses initialize: {said['error'].get('message', said['error'])}")
        version = said["result"].get("protocolVersion")
        revision = BY_VERSION.get(version)
        if revision not in LEGACY:
            raise RunFailed(
                f"the server answers initialize with revision {version!r}, which is not known here"
            )
        speech = replace(speech, revision=revision)
        asking = [speech.initialized(), speech.request("list tools", "tools/list")]
        if link.pipe is None:
            asking = [*_upgrade(speech), speech.initialize(), *asking]
        return Meeting(revision, _tools(link.ask(asking)))


def _upgrade(speech: Speech) -> list[Step]:
    return [speech.upgrade()] if speech.wire == "websocket" else []


def _tools(said: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    result = said.get("result")
    if not isinstance(result, dict) or result.get("nextCursor") or not isinstance(result.get("tools"), list):
        return None
    return {tool["name"]: tool for tool in result["tools"]}
