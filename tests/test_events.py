"""The event store: a client that comes back gets what it missed of its own stream, whole or not at all, within the bounds."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from mcpfast.server.events import EVENT_ID_CHARACTERS_MAX, Event, EventStore, MemoryEventStore, Replay


class Clock:
    def __init__(self) -> None:
        self.s = 50.0

    def __call__(self) -> float:
        return self.s


def do(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a method that promises never to suspend."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it suspended")


def stream_with(store: MemoryEventStore, session: str, *data: bytes) -> tuple[str, list[str]]:
    stream = do(store.open(session))
    return stream, [do(store.append(session, stream, each)) for each in data]


def missed(store: MemoryEventStore, session: str, event_id: str) -> list[bytes] | None:
    replay = do(store.replay(session, event_id))
    return None if replay is None else [event.data for event in replay.events]


# ---------------------------------------------------------------- what a client gets


def test_a_client_gets_what_it_missed_of_its_stream_and_nothing_else() -> None:
    store = MemoryEventStore()
    other, _ = stream_with(store, "s", b"other 1")
    stream, ids = stream_with(store, "s", b"", b"one", b"two")
    do(store.append("s", other, b"other 2"))
    assert do(store.replay("s", ids[0])) == Replay(stream, [Event(ids[1], b"one"), Event(ids[2], b"two")])
    assert do(store.replay("s", ids[1])) == Replay(stream, [Event(ids[2], b"two")])
    assert do(store.replay("s", ids[2])) == Replay(stream, [])  # known, and nothing missed
    later = do(store.append("s", stream, b"three"))  # the stream goes on where it was
    assert do(store.replay("s", ids[2])) == Replay(stream, [Event(later, b"three")])
    assert do(store.replay("s", ids[0])) == do(store.replay("s", ids[0]))  # as often as asked


def test_ids_are_unique_tell_their_stream_and_fit_into_a_header() -> None:
    store = MemoryEventStore()
    ids = []
    for session in ("a", "b"):
        for _ in range(3):
            stream, more = stream_with(store, session, b"", b"x", b"x")
            assert all(id_.startswith(stream) for id_ in more)
            ids += more
    assert len(set(ids)) == len(ids) == 18
    assert all(0x21 <= ord(character) <= 0x7E for id_ in ids for character in id_)
    assert max(map(len, ids)) <= EVENT_ID_CHARACTERS_MAX


def test_two_processes_give_different_ids_to_one_session() -> None:
    here, there = (
        MemoryEventStore(),
        MemoryEventStore(),
    )  # the same session at two workers, or before and after a restart
    _, ours = stream_with(here, "s", b"ours")
    stream_with(there, "s", b"theirs")
    assert do(there.replay("s", ours[0])) is None


def test_unknown_ids_are_none() -> None:
    store = MemoryEventStore()
    stream, ids = stream_with(store, "s", b"one", b"two")
    assert ids[0] == f"{stream}-1"
    for id_ in (
        "", "-", "1", "-1", stream, f"{stream}-", f"{stream}-0", f"{stream}-3", f"{stream}--1", f"{stream}-01", f"{stream}-+1",
        f"{stream}-1 ", f" {stream}-1", f"{stream}-1_0", f"{stream}-1.0", f"{stream}-x", f"{stream}-١", f"{stream}-²",
        f"{stream}-{'1' * 10_000}", f"{stream.upper()}x-1", "\x00", "é-1", f"{stream}-1-1",
    ):  # fmt: skip
        assert do(store.replay("s", id_)) is None, id_
    assert do(store.replay("another", ids[0])) is None
    assert do(store.replay("", ids[0])) is None
    assert missed(store, "s", ids[0]) == [b"two"]


def test_the_end_of_a_session_is_the_end_of_its_streams() -> None:
    store = MemoryEventStore()
    stream, ids = stream_with(store, "s", b"one", b"two")
    _, others = stream_with(store, "t", b"one", b"two")
    do(store.end("s"))
    assert do(store.replay("s", ids[0])) is None
    assert missed(store, "t", others[0]) == [b"two"]
    assert len(store) == 2 and store.kept_bytes == 6
    do(store.end("s"))  # again, and one that never was
    do(store.end("u"))
    late = do(store.append("s", stream, b"late"))  # a handler that has not heard of it
    assert late not in ids
    assert do(store.replay("s", ids[1])) is None


# ---------------------------------------------------------------- bounds


def test_the_oldest_events_go_first() -> None:
    store = MemoryEventStore(events_max=4)
    _, first = stream_with(store, "s", b"1", b"2")
    _, second = stream_with(store, "t", b"3", b"4", b"5")
    assert len(store) == 4
    assert missed(store, "s", first[0]) == [b"2"]  # it is gone itself, but all that came after is here
    stream_with(store, "u", b"6")
    assert missed(store, "s", first[0]) is None
    assert missed(store, "t", second[0]) == [b"4", b"5"]


def test_what_would_have_a_gap_is_not_replayed() -> None:
    store = MemoryEventStore(events_max=2)
    _, ids = stream_with(store, "s", b"1", b"2", b"3", b"4")
    assert [missed(store, "s", id_) for id_ in ids] == [None, [b"3", b"4"], [b"4"], []]


def test_a_bound_of_bytes() -> None:
    store = MemoryEventStore(bytes_max=10)
    _, ids = stream_with(store, "s", b"12345", b"12345", b"", b"")
    assert (len(store), store.kept_bytes) == (4, 10)  # full, and not over
    _, more = stream_with(store, "s", b"1")
    assert (len(store), store.kept_bytes) == (4, 6)
    assert missed(store, "s", ids[0]) == [b"12345", b"", b""]
    _, large = stream_with(store, "s", b"12345678901")  # more than there is room for at all
    assert (len(store), store.kept_bytes) == (0, 0)
    assert missed(store, "s", more[0]) is None and missed(store, "s", large[0]) is None


def test_a_loud_session_spends_its_own_share() -> None:
    store = MemoryEventStore(events_max=100, bytes_max=1_000, session_events_max=5, session_bytes_max=50)
    _, quiet = stream_with(store, "quiet", b"", b"answer")
    _, loud = stream_with(store, "loud", *[b"x"] * 500)
    assert len(store) == 7
    assert missed(store, "loud", loud[-6]) == [b"x"] * 5 and missed(store, "loud", loud[-7]) is None
    stream_with(store, "large", *[b"x" * 30] * 500)
    assert (len(store), store.kept_bytes) == (8, 6 + 5 + 30)
    assert missed(store, "quiet", quiet[0]) == [b"answer"]


def test_a_share_holds_for_all_streams_of_a_session() -> None:
    store = MemoryEventStore(session_events_max=3)
    _, first = stream_with(store, "s", b"1", b"2")
    _, second = stream_with(store, "s", b"3", b"4")
    assert missed(store, "s", first[0]) == [b"2"]
    stream_with(store, "s", b"5")
    assert missed(store, "s", first[0]) is None
    assert missed(store, "s", second[0]) == [b"4"]


def test_events_grow_old() -> None:
    clock = Clock()
    store = MemoryEventStore(age_s=10, now=clock)
    stream, ids = stream_with(store, "s", b"1")
    clock.s += 6
    ids += [do(store.append("s", stream, b"2"))]
    clock.s += 3.9
    assert missed(store, "s", ids[0]) == [b"2"] and len(store) == 2
    clock.s += 0.1
    assert missed(store, "s", ids[0]) == [b"2"] and len(store) == 1
    clock.s += 6
    assert missed(store, "s", ids[1]) is None and len(store) == 0
    stream_with(store, "s", b"3")
    clock.s += 10
    assert len(store) == 1
    store.expire()  # without any traffic
    assert (len(store), store.kept_bytes) == (0, 0)


def test_an_id_is_not_given_again_when_all_of_a_stream_was_forgotten() -> None:
    clock = Clock()
    store = MemoryEventStore(age_s=10, now=clock)
    stream, ids = stream_with(store, "s", b"1", b"2", b"3")
    for _ in range(3):
        clock.s += 10
        ids.append(do(store.append("s", stream, b"a quiet stream, and alive")))
    assert len(set(ids)) == len(ids)
    assert missed(store, "s", ids[-1]) == []
    assert all(missed(store, "s", id_) is None for id_ in ids[:-1])


@pytest.mark.parametrize(
    "bounds",
    [
        {"events_max": 0},
        {"bytes_max": 0},
        {"session_events_max": 0},
        {"session_bytes_max": -1},
        {"age_s": 0},
        {"age_s": float("nan")},
    ],
)
def test_bounds_that_keep_nothing_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MemoryEventStore(**bounds)


# ---------------------------------------------------------------- memory and time


@pytest.mark.plain_build
@pytest.mark.parametrize("ending", ["end", "age"])
def test_memory_is_given_back(ending: str) -> None:
    clock = Clock()
    store = MemoryEventStore(age_s=10, now=clock)

    def fill() -> None:
        for session in range(100):
            for _ in range(10):
                stream_with(store, f"session {session}", b"", bytes(500), bytes(500))

    fill()  # once, for what is made only once
    clock.s += 10
    store.expire()
    gc.collect()
    gc.disable()  # what is let go is gone at once, with no cycle behind it
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fill()
        full, _ = tracemalloc.get_traced_memory()
        assert full - before > 1_000_000
        if ending == "end":
            for session in range(100):
                do(store.end(f"session {session}"))
        else:
            clock.s += 10
            store.expire()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(store) == 0
    assert after - before < 20_000


@pytest.mark.plain_build
def test_a_store_that_is_full_does_not_grow() -> None:
    store = MemoryEventStore(events_max=200, session_events_max=50)

    def churn(count: int) -> None:
        for number in range(count):
            stream_with(store, f"session {number % 1_000}", b"", bytes(100))  # and none of them ever ends

    churn(500)
    tracemalloc.start()
    try:
        churn(500)
        before, _ = tracemalloc.get_traced_memory()
        churn(5_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == 200
    assert after - before < 20_000


def quickest_us(act: Callable[[], object]) -> float:
    times = []
    for _ in range(50):
        began = time.perf_counter_ns()
        act()
        times.append(time.perf_counter_ns() - began)
    return min(times) / 1_000


@pytest.mark.plain_build
def test_no_act_costs_more_in_a_full_store() -> None:
    def costs(events: int) -> list[float]:
        store = MemoryEventStore(events_max=events + 10, session_events_max=events + 10)
        stream, ids = stream_with(store, "s", *[b"x"] * events)
        stream_with(store, "t", b"x")

        def come_and_go() -> None:
            stream_with(store, "u", b"x")
            do(store.end("u"))

        return [
            quickest_us(lambda: do(store.append("s", stream, b"x"))),  # fills it, and then pushes others out
            quickest_us(lambda: do(store.replay("s", ids[-2]))),
            quickest_us(
                lambda: do(store.replay("s", ids[0]))
            ),  # gone by now, or the whole of it where it is small
            quickest_us(come_and_go),
        ]

    small, large = costs(50), costs(50_000)
    assert all(much < 30 * little + 30 for little, much in zip(small, large, strict=True)), (small, large)


# ---------------------------------------------------------------- against a plain model


class Kept:
    def __init__(self, session: str, stream: str, id: str, data: bytes, at_s: float) -> None:
        self.session, self.stream, self.id, self.data, self.at_s = session, stream, id, data, at_s


EVENTS_MAX, BYTES_MAX, SHARE_EVENTS_MAX, SHARE_BYTES_MAX, AGE_S = 8, 60, 5, 40, 10


class AgainstAList(RuleBasedStateMachine):
    """One list of all that is kept, cut by the rules as they are written; and all that was ever sent on each stream."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryEventStore(
            EVENTS_MAX,
            BYTES_MAX,
            AGE_S,
            session_events_max=SHARE_EVENTS_MAX,
            session_bytes_max=SHARE_BYTES_MAX,
            now=self.clock,
        )
        self.kept: list[Kept] = []
        self.sent: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
        self.forgotten: dict[tuple[str, str], int] = {}  # that many of them when the store last knew none

    def kept_of(self, where: tuple[str, str]) -> list[tuple[str, bytes]]:
        return [(event.id, event.data) for event in self.kept if (event.session, event.stream) == where]

    def keep(self, those: list[Kept]) -> None:
        self.kept = those
        for where, sent in self.sent.items():
            if not self.kept_of(where):
                self.forgotten[where] = len(sent)

    def drop_old(self) -> None:
        self.keep([event for event in self.kept if self.clock.s - event.at_s < AGE_S])

    def drop_while(self, over: Callable[[list[Kept]], bool], mine: Callable[[Kept], bool]) -> None:
        while over(found := [event for event in self.kept if mine(event)]):
            self.keep([event for event in self.kept if event is not found[0]])

    @rule(target=streams, session=st.sampled_from("abc"))
    def open(self, session: str) -> tuple[str, str]:
        stream = do(self.store.open(session))
        assert (session, stream) not in self.sent
        self.sent[session, stream], self.forgotten[session, stream] = [], 0
        return session, stream

    @rule(where=streams, data=st.integers(0, 30).map(bytes) | st.just(b""), times=st.integers(1, 3))
    def append(self, where: tuple[str, str], data: bytes, times: int) -> None:
        session, stream = where
        for _ in range(times):
            id_ = do(self.store.append(session, stream, data))
            assert id_ not in {id for sent in self.sent.values() for id, _ in sent}
            self.drop_old()
            self.sent[where].append((id_, data))
            self.kept.append(Kept(session, stream, id_, data, self.clock.s))
            self.drop_while(
                lambda found: (
                    len(found) > SHARE_EVENTS_MAX or sum(len(e.data) for e in found) > SHARE_BYTES_MAX
                ),
                lambda event: event.session == session,
            )
            self.drop_while(
                lambda found: len(found) > EVENTS_MAX or sum(len(e.data) for e in found) > BYTES_MAX,
                lambda event: True,
            )

    @precondition(lambda self: any(self.sent.values()))
    @rule(data=st.data(), session=st.sampled_from("abc"))
    def replay(self, data: st.DataObject, session: str) -> None:
        where, number = data.draw(
            st.sampled_from(
                [(where, number) for where, sent in self.sent.items() for number in range(len(sent))]
            )
        )
        self.drop_old()
        sent = self.sent[where]
        replay = do(self.store.replay(session, sent[number][0]))
        later, kept = sent[number + 1 :], self.kept_of(where)
        # Known, and whole: an id that went only just before the oldest that is kept is still good.
        if (
            session == where[0]
            and number >= self.forgotten[where]
            and later == kept[len(kept) - len(later) :]
        ):
            assert replay == Replay(where[1], [Event(*each) for each in later])
        else:
            assert replay is None

    @rule(session=st.sampled_from("abcd"))
    def end(self, session: str) -> None:
        do(self.store.end(session))
        self.keep([event for event in self.kept if event.session != session])

    @rule(passed_s=st.integers(0, 12))
    def wait(self, passed_s: int) -> None:
        self.clock.s += passed_s

    @rule()
    def expire(self) -> None:
        self.store.expire()
        self.drop_old()

    @invariant()
    def keeps_as_much(self) -> None:
        assert len(self.store) == len(self.kept)
        assert self.store.kept_bytes == sum(len(event.data) for event in self.kept)


AgainstAList.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAgainstAList = AgainstAList.TestCase


def test_the_store_is_an_event_store() -> None:
    store: EventStore = MemoryEventStore()
    promised = {
        name for name, value in vars(EventStore).items() if callable(value) and not name.startswith("_")
    }
    assert promised == {"open", "append", "replay", "end"}
    assert all(callable(getattr(store, name)) for name in promised)
