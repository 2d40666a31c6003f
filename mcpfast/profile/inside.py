"""Instruments that look from inside: a server of ours opens its door, and tells what it sees while we stay (mcpfast/live)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mcpfast.live.caller import NoDoor, Visit, catches, visit, why_not
from mcpfast.live.messages import Frame, Stack, Taken, Watching
from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.session import Session
from mcpfast.profile.target import Target

TAKE_EVERY_S = 0.5
START_S = 10.0  # a server that we started may not serve yet


def missing(target: Target) -> str | None:
    """A live process that has no door; whether what is started has one, shows when it runs."""
    if target.pid is not None and not any(catches(member) for member in processes.family(target.pid)):
        return why_not(target.pid)
    return None


@contextmanager
def inside(session: Session, pid: int) -> Iterator[Visit]:
    """Raises ProfileFailed where there is no looking in."""
    try:
        with visit(pid, patience_s=START_S if session.target.command else 0.0) as visitor:
            yield visitor
    except NoDoor as error:
        raise ProfileFailed(str(error)) from None


def watched(
    session: Session, visitor: Visit, begun: Watching, step: str, take: Callable[[Taken], None]
) -> float:
    """What is watched goes to `take` for `session.seconds`; gives how long it was by the server's own clock."""
    with session.progress.step(step, session.seconds):
        end_s = time.monotonic() + session.seconds
        while True:
            time.sleep(max(0.0, min(end_s - time.monotonic(), TAKE_EVERY_S)))
            taken = visitor.take()
            take(taken)
            if time.monotonic() >= end_s:
                return taken.at_s - begun.begin_s


def named(frame: Frame) -> str:
    """As flame graphs have it: `fetch (notes.py:42)`."""
    return f"{frame.function} ({frame.file}:{frame.line})"


def culprit(stack: Stack) -> Frame | None:
    """The innermost frame of the user's, or of anybody's."""
    return next((frame for frame in reversed(stack) if frame.own), stack[-1] if stack else None)


def milliseconds(seconds: float) -> str:
    """Three digits that count."""
    ms = seconds * 1000
    return (
        f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 0.1 else f"{ms:.3f}"
    )
