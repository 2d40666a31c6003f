"""Who changed what, and who was refused: one line of JSON each, appended to a file that is never rewritten or rotated by us.

{"at_s": ..., "kind": "change", "user": "root", "via": "cli", "action": "tenant.suspend", "target": "acme",
 "before": {...}, "after": {...}}
{"at_s": ..., "kind": "denial", "user": "ci", "via": "http", "tenant": "acme", "action": "tools/call", "target": "refund",
 "reason": "This needs the scope orders:write"}
{"at_s": ..., "kind": "denials", "of": "quota", "count": 4980, "tenants": [{"tenant": "acme", "count": 4980}]}
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, get_args

import msgspec

from mcpfast.tenancy.decoding import ConfigurationError

TEXT_MAX = 512  # letters of one text: what a stranger sent must not fill the disk
SECRET = frozenset({"sha256", "key", "api_key", "secret", "token", "password", "authorization"})
DENIALS_PER_S = 20  # of each kind are written; above it they are counted, and the count is written
WINDOW_S = 1.0
COUNTED_TENANTS_MAX = 20  # named in one count; those of further ones are counted under no name
DenialOf = Literal["identity", "permission", "quota"]
logger = logging.getLogger("mcpfast.tenancy")


class Actor(NamedTuple):
    """Who did it: `user` an account of this machine or a principal of `tenant`, `via` the way in ("cli", "admin", "reload", a
    transport)."""

    user: str
    via: str
    tenant: str = ""


class AuditLog:
    """Appends to a file, each record in one write, so that records of several processes never mix.

    `clock` gives seconds since the epoch. Values under names in SECRET are left out, however deep they stand.
    """

    def __init__(self, file: str | os.PathLike[str], *, clock: Callable[[], float]) -> None:
        self.file = os.fspath(file)
        self._clock = clock
        self._descriptor = -1

    def open(self) -> None:
        """Before a change, so that none happens which cannot be written down. Raises ConfigurationError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self.file, flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None

    def changed(
        self,
        actor: Actor,
        action: str,
        target: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """A change that happened ("tenant.suspend"); None for what was not there before, or is not there any more. On the disk
        when this returns. Raises ConfigurationError where it cannot be written."""
        self._append("change", actor, action, target, {"before": before, "after": after})
        os.fsync(self._descriptor)

    def denied(self, actor: Actor, action: str, target: str, reason: str) -> None:
        """A call that was refused. Written, but not waited for: who floods us with bad calls must not keep the disk busy."""
        self._append("denial", actor, action, target, {"reason": reason})

    def denied_more(self, of: DenialOf, counts: Mapping[str, int]) -> None:
        """How many denials of a kind were not written one by one, by tenant."""
        counted = [{"tenant": tenant, "count": count} for tenant, count in counts.items()]
        self._write({"kind": "denials", "of": of, "count": sum(counts.values()), "tenants": counted})

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(
        self,
        kind: Literal["change", "denial"],
        actor: Actor,
        action: str,
        target: str,
        more: Mapping[str, Any],
    ) -> None:
        who = {"user": actor.user, "via": actor.via, **({"tenant": actor.tenant} if actor.tenant else {})}
        self._write({"kind": kind, **who, "action": action, "target": target, **more})

    def _write(self, told: Mapping[str, Any]) -> None:
        record = {"at_s": round(self._clock(), 3), **told}
        self.open()
        try:
            os.write(self._descriptor, msgspec.json.encode(without_secrets(record)) + b"\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"{self.file}: {error.strerror}; every change leaves a record there")


class Timer(Protocol):
    """As `loop.call_later` gives it."""

    def cancel(self) -> object: ...


class _Window:
    """About a second of one kind of denials: how many were written, and how many more there were, by tenant."""

    __slots__ = ("more", "since_s", "timer", "written")

    def __init__(self) -> None:
        self.since_s, self.written = float("-inf"), 0
        self.more: dict[str, int] = {}
        self.timer: Timer | None = None


class Denials:
    """Denials on their way into an audit log: of each kind a few a second, and one line a second that counts the rest.

    Each kind has a second of its own, so that nobody hides what he tries by running against his quota. A call that is refused is
    refused, whether that can be written or not. `clock` runs evenly, `later` is `loop.call_later`.
    """

    def __init__(
        self,
        log: AuditLog,
        *,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._log = log
        self._clock = clock
        self._later = later
        self._windows: dict[DenialOf, _Window] = {of: _Window() for of in get_args(DenialOf)}
        self._problem = ""

    def write(self, of: DenialOf, actor: Actor, action: str, target: str, reason: str) -> None:
        """One call that was refused: written, or counted."""
        window, now_s = self._windows[of], self._clock()
        if window.timer is None and now_s - window.since_s >= WINDOW_S:
            window.since_s, window.written = now_s, 0
        if window.written < DENIALS_PER_S:
            window.written += 1
            self._try(lambda: self._log.denied(actor, action, target, reason))
            return
        if window.timer is None:  # the count is written even if this is the last one
            left_s = window.since_s + WINDOW_S - now_s
            window.timer = self._later(left_s, lambda: self._sum_up(of))
        known = actor.tenant in window.more or len(window.more) < COUNTED_TENANTS_MAX
        tenant = actor.tenant if known else ""
        window.more[tenant] = window.more.get(tenant, 0) + 1

    def close(self) -> None:
        """Writes what was counted."""
        for of, window in self._windows.items():
            if window.timer is not None:
                window.timer.cancel()
                self._sum_up(of)

    def _sum_up(self, of: DenialOf) -> None:
        window = self._windows[of]
        counts, window.more = window.more, {}
        window.timer, window.since_s, window.written = None, self._clock(), 0
        self._try(lambda: self._log.denied_more(of, counts))

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._problem = ""
        except ConfigurationError as error:
            if self._problem != str(error):
                logger.error("denials are not written down: %s", error)
            self._problem = str(error)


def audit_log_of(registry: str) -> str:
    """The audit log of a registry, where nobody says another: beside it."""
    return f"{registry.removeprefix('sqlite:///')}.audit.jsonl"


def without_secrets(value: Any) -> Any:
    """A copy without what must not be written down, its texts cut at TEXT_MAX."""
    if isinstance(value, Mapping):
        return {
            name: without_secrets(member) for name, member in value.items() if str(name).lower() not in SECRET
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [without_secrets(member) for member in value]
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()  # half a surrogate pair is no JSON
        return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."
    return value
