"""Every limit of the house in one place, the unit last in the name.

A `Limits` is given to a server (`MCPServer(..., limits=Limits(frame_bytes_max=1 << 20))`) and is read-only once it serves.
Standard library only: every floor may read it.
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """What one server spends at most. Every field is a plain number; the defaults suit a public server."""

    # --- what may come in
    frame_bytes_max: int = 64 << 20  # one message; a longer one is refused and skipped, the connection lives
    depth_max: int = 256  # nesting of one message; above 1,000 it counts as 1,000
    batch_messages_max: int = 1_000  # messages of one JSON-RPC batch (2025-03-26)
    id_bytes_max: int = 1_024  # a request id as it stands on the wire
    head_bytes_max: int = 16 << 10  # the head of an HTTP request
    headers_max: int = 100  # headers in it
    # --- what may wait
    connection_calls_max: int = 4_096  # calls in flight on one connection; above it they are refused (4290)
    running_calls_max: int = (
        0  # calls of tenants at once in the process; above it they wait in fair order; 0: any number
    )
    waiting_calls_max: int = (
        1_000  # calls of all tenants that wait for a place; above it they are refused (5030)
    )
    waiting_s: float = 30.0  # so long at most; then it is refused, too
    connections_max: int = 10_000  # open sockets of one process
    http_sessions_max: int = (
        10_000  # legacy sessions of one HTTP address; a tenant's: as many as it leaves free for others
    )
    output_high_bytes: int = 1 << 20  # answers not yet taken by the client; above it reading pauses
    output_low_bytes: int = 1 << 16  # and below it reading goes on
    output_bytes_max: int = 256 << 20  # hard end: a client that takes nothing is disconnected
    replay_events_max: int = 10_000  # events that are kept for clients that come back
    replay_bytes_max: int = 64 << 20  # and their bytes
    session_replay_events_max: int = 1_000  # of these, one session's
    session_replay_bytes_max: int = 8 << 20
    threads_max: int = 32  # worker threads for `def` handlers
    questions_max: int = 64  # server requests of one connection that wait for the client
    subscriptions_max: int = 1_024  # subscribed URIs and listen streams of one connection
    output_cork_bytes: int = (
        4 << 10
    )  # answers of one batch are joined up to here, then written while the batch goes on
    # --- how long
    idle_s: float = 0.0  # a socket without a message and without a call in flight is closed; 0 never
    head_s: float = 20.0  # the head of an HTTP request that has begun to come is whole within
    identify_s: float = 10.0  # it is found out whose a request is, where that has to be waited for
    body_s: float = 300.0  # and all of it within
    stream_comment_s: float = (
        15.0  # an event stream without an event gets a comment, so that nobody on the way drops it
    )
    keep_alive_s: float = 75.0  # an HTTP connection without a request stays open
    retry_s: float = 1.0  # a client whose event stream was closed comes back after
    replay_s: float = 3_600.0  # events are kept that long for a client that comes back
    session_idle_s: float = 3_600.0  # a legacy HTTP session that nobody uses
    sealed_session_s: float = (
        86_400.0  # a session id that carries its session (session_mode="sealed") is good that long
    )
    eof_grace_s: float = 1.0  # after EOF on stdin what was received may still be answered
    drain_s: float = 5.0  # after SIGTERM or SIGINT calls in flight may still end
    question_s: float = 300.0  # an elicitation, sampling or roots request to the client
    sealed_state_s: float = 900.0  # a requestState may come back that long
    once_records_max: int = 10_000  # remembered results of `ctx.once`
    # --- what goes out
    page_items: int = 0  # items of one page of a list; 0 gives everything at once
    completion_values_max: int = 100  # fixed by the specification
    invalid_log_per_s: float = 5.0  # log lines a second about refused messages
