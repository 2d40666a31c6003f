"""The record behind `ctx.once("key", fn)`: what must not happen twice happens once, also when a retry arrives twice.

A handler of 2026-07-28 runs again from the top for every answer (section 27). Results of `once` travel in the sealed state; this
record catches what the state cannot: two retries with one and the same state, at the same time or one after the other (MR6).
In memory, so for one process; a state backend takes its place later.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

Id = tuple[str, str]  # flow, key


class _Kept:
    """A result as JSON; or, where it was none, the sentence that says so: running `fn` again would be twice."""

    __slots__ = ("expires", "refusal", "value")

    def __init__(self, value: bytes, refusal: str | None, expires: float) -> None:
        self.value = value
        self.refusal = refusal
        self.expires = expires


class OnceRecords:
    """Results by flow and key: at most `max_records`, the least recently used go first. Safe to share between threads and loops.

    `now` gives seconds on a clock that never goes back.
    """

    __slots__ = ("_kept", "_lock", "_max", "_now", "_running")

    def __init__(self, max_records: int, now: Callable[[], float]) -> None:
        if max_records < 1:
            raise ValueError(f"max_records must be at least 1, not {max_records}")
        self._max = max_records
        self._now = now
        self._lock = threading.Lock()
        self._kept: OrderedDict[Id, _Kept] = OrderedDict()
        # Who waits for a run that is going on. Bounded by the calls in flight, and never evicted: that would be twice.
        self._running: dict[Id, list[tuple[AbstractEventLoop, Future[None]]]] = {}

    def __len__(self) -> int:
        """How many results are kept, expired ones that nobody asked for included."""
        return len(self._kept)

    async def run(self, flow_id: str, key: str, fn: Callable[[], Any], ttl_s: float) -> Any:
        """What `fn()` gave, as plain JSON values, the same for the first and for everyone who asks within `ttl_s` seconds.

        While the first one runs `fn`, others wait for it. Where it fails or is cancelled, its exception is its own, and the next
        one runs `fn`. Raises TypeError for a result that is not JSON, to everyone.
        """
        return msgspec.json.decode(await self.run_json(flow_id, key, fn, ttl_s))

    async def run_json(self, flow_id: str, key: str, fn: Callable[[], Any], ttl_s: float) -> bytes:
        """`run`, the result as JSON text."""
        record = (flow_id, key)
        while True:
            waiting = None
            with self._lock:
                kept = self._find(record)
                if kept is None:
                    waiting = self._wait_or_begin(record)
            if kept is None and waiting is None:
                kept = await self._run_first(record, fn, ttl_s)
            if kept is not None:
                if kept.refusal is not None:
                    raise TypeError(kept.refusal)
                return kept.value
            if waiting is not None:
                await waiting  # for the end of the run, whatever it was; then look again

    def _find(self, record: Id) -> _Kept | None:
        kept = self._kept.get(record)
        if kept is None:
            return None
        if self._now() >= kept.expires:
            del self._kept[record]
            return None
        self._kept.move_to_end(record)
        return kept

    def _wait_or_begin(self, record: Id) -> Future[None] | None:
        """A future for the end of the run that is going on; None where there is none, and the caller's begins."""
        waiters = self._running.get(record)
        if waiters is None:
            self._running[record] = []
            return None
        from asyncio import get_running_loop

        loop = get_running_loop()
        future: Future[None] = loop.create_future()
        waiters.append((loop, future))
        return future

    async def _run_first(self, record: Id, fn: Callable[[], Any], ttl_s: float) -> _Kept:
        kept = None
        try:
            result = fn()
            value = await result if isinstance(result, Awaitable) else result
            encoded, refusal = _encode(record[1], value)
            kept = _Kept(encoded, refusal, self._now() + ttl_s)
        finally:
            with self._lock:
                if kept is not None:
                    self._kept[record] = kept
                    while len(self._kept) > self._max:
                        self._kept.popitem(last=False)
                waiters = self._running.pop(record)
            for loop, future in waiters:
                try:
                    loop.call_soon_threadsafe(_wake, future)
                except RuntimeError:  # that loop is closed
                    pass
        return kept


def _wake(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _encode(key: str, value: Any) -> tuple[bytes, str | None]:
    try:
        return msgspec.json.encode(value, enc_hook=_plain), None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return b"", (
            f"ctx.once({key!r}): its result is kept as JSON, and a {type(value).__name__} cannot be written so: {error}; "
            "give back what JSON knows, an id for example"
        )


def _plain(value: Any) -> Any:
    """msgspec's `enc_hook`: pydantic models. Raises TypeError for the rest."""
    if hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no JSON")
