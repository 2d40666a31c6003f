"""Who changed what, and who was refused: one line of JSON each, appended to a file that is never rewritten or rotated by us."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from mcpfast.tenancy.decoding import ConfigurationError

TEXT_MAX = 512  # letters of one text: what a stranger sent must not fill the disk
SECRET = frozenset({"sha256", "key", "secret", "token", "password", "authorization"})


class Actor(NamedTuple):
    """Who did it: `user` an account of this machine or a principal, `via` the way in ("cli", "admin", "reload", a transport)."""

    user: str
    via: str


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
        record = {
            "at_s": round(self._clock(), 3),
            "kind": kind,
            "user": actor.user,
            "via": actor.via,
            "action": action,
            "target": target,
            **more,
        }
        self.open()
        try:
            os.write(self._descriptor, msgspec.json.encode(without_secrets(record)) + b"\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"{self.file}: {error.strerror}; every change leaves a record there")


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
