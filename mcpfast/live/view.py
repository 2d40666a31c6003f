"""What `mcpfast top` shows: a look at a server in words, as plain text or as a page of the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mcpfast.live.messages import Greeting, Snapshot, Transport
from mcpfast.live.vitals import Vitals

if TYPE_CHECKING:
    from rich.console import RenderableType

NOISE_S = 0.002  # of the timer that measures lag


class Seen(NamedTuple):
    """One look, and the one before, where there was one."""

    greeting: Greeting
    vitals: Vitals | None
    now: Snapshot
    before: Snapshot | None


class Table(NamedTuple):
    """`right` are the columns of numbers; the last column is the widest."""

    title: str
    columns: Sequence[str]
    right: frozenset[int]
    rows: Sequence[Sequence[str]]
    below: str = ""


# ---- words ------------------------------------------------------------------------------------------------


def title(seen: Seen) -> str:
    now = seen.now
    return f"{now.name} {now.version}".strip() + (", draining" if now.draining else "")


def subtitle(seen: Seen) -> str:
    up = f"process {seen.vitals.pid}, up {long(seen.vitals.uptime_s)}, " if seen.vitals is not None else ""
    return f"{up}Python {seen.greeting.python}, {seen.now.loop}, mcpfast {seen.greeting.mcpfast}"


def facts(seen: Seen) -> list[tuple[str, str]]:
    now, before, vitals = seen.now, seen.before, seen.vitals
    said = [("serves", ", ".join(now.addresses))]
    if vitals is not None:
        share = f"{vitals.processor:.0%}" if vitals.processor is not None else "?"
        memory = f"{vitals.rss_mb:,.1f} MB resident"
        said.append(
            (
                "processor",
                f"{share}; {memory}; {count(vitals.descriptors, 'descriptor')}, {count(vitals.threads, 'thread')}",
            )
        )
    lag = now.lag
    late = [
        f"{name} {short(value)}"
        for name, value in (("p50", lag.p50_s), ("p99", lag.p99_s), ("max", lag.max_s))
    ]
    said.append(("loop lag", ", ".join(late) if lag.count else "measured from now on"))
    rate = ""
    if before is not None and now.at_s > before.at_s:
        rate = f"{(now.answered - before.answered) / (now.at_s - before.at_s):,.0f} a second; "
    said.append(("requests", f"{rate}{now.answered:,} answered since the start"))
    pool, unsent = now.threads, now.unsent
    said.append(
        (
            "threads",
            f"{pool.busy} of {pool.most} busy, {pool.alive} started; {count(pool.queued, 'call')} in the queue",
        )
    )
    said.append(("warm tasks", f"{now.warm_parked:,} parked of {now.warm_made:,} made"))
    waits = "nothing"
    if unsent.total_bytes:
        most = f"{size(unsent.most_bytes)} of it for {unsent.most_of}"
        waits = f"{size(unsent.total_bytes)} in {count(unsent.sessions, 'session')}, {most}"
    said.append(("unsent", waits))
    return said


def tables(seen: Seen) -> list[Table]:
    now = seen.now
    hidden = now.calls - len(now.oldest)
    calls = Table(
        f"Calls in flight: {now.calls:,}",
        ("age", "call", "id", "client", "peer", "waits at"),
        frozenset({0}),
        [
            (
                short(call.age_s),
                call.what + (" (cancelled)" if call.cancelled else ""),
                call.id,
                call.client,
                call.peer,
                ("in a thread: " if call.threaded else "") + call.point,
            )
            for call in now.oldest
        ],
        f"and {hidden:,} younger ones (--limit)" if hidden > 0 else "",
    )
    by_transport = Table(
        f"Sessions: {now.sessions:,}",
        ("sessions", "in a call", "calls", "listen streams", "last heard", "transport"),
        frozenset(range(5)),
        [transport_row(transport) for transport in now.transports],
    )
    unseen = now.sessions - len(now.visitors)
    visitors = Table(
        "Heard from last",
        ("silent", "calls", "unsent", "revision", "peer", "client"),
        frozenset({0, 1, 2}),
        [
            (
                ("> " if one.idle_at_least else "") + short(one.idle_s),
                f"{one.calls:,}",
                size(one.unsent_bytes) if one.unsent_bytes else "",
                one.revision,
                one.peer,
                one.client,
            )
            for one in now.visitors
        ],
        f"and {unseen:,} that have been silent for longer (--limit)" if unseen > 0 and now.visitors else "",
    )
    return [calls, by_transport, visitors]


def transport_row(one: Transport) -> tuple[str, ...]:
    last = short(one.last_s) if one.last_s is not None else ""
    return f"{one.sessions:,}", f"{one.busy:,}", f"{one.calls:,}", f"{one.listens:,}", last, one.name


def short(seconds: float) -> str:
    """A time as one reads it at a glance."""
    if seconds < NOISE_S:
        return f"under {NOISE_S * 1000:g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else long(seconds)


def long(seconds: float) -> str:
    """The two largest units."""
    whole = int(seconds)
    for big, big_name, small, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= big:
            return f"{whole // big} {big_name} {whole % big // small} {small_name}"
    return f"{whole} s"


def size(count: int) -> str:
    for unit, least in (("MB", 1_000_000), ("KB", 1_000)):
        if count >= least:
            return f"{count / least:,.1f} {unit}"
    return f"{count} bytes"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


# ---- as text, and on a terminal ---------------------------------------------------------------------------


def text(seen: Seen) -> str:
    lines = [title(seen), subtitle(seen), ""]
    lines += [f"  {name:10}  {said}" for name, said in facts(seen)]
    for table in tables(seen):
        lines += ["", table.title]
        if table.rows:
            lines += ["", *laid_out(table)]
        if table.below:
            lines.append(f"  {table.below}")
    return "\n".join(lines) + "\n"


def laid_out(table: Table) -> list[str]:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.columns))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if at in table.right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def page(seen: Seen) -> RenderableType:
    """The same for rich. Text objects, no markup: what stands in them was written by others."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    for name, said in facts(seen):
        grid.add_row(name, Text(said))
    parts: list[Any] = [
        Text(title(seen), style="bold reverse"),
        Text(subtitle(seen), style="dim"),
        Text(),
        grid,
    ]
    for table in tables(seen):
        parts += [Text(), Text(table.title, style="bold")]
        if not table.rows:
            continue
        shown = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        for at, column in enumerate(table.columns):
            is_last = at == len(table.columns) - 1
            shown.add_column(
                column,
                justify="right" if at in table.right else "left",
                no_wrap=True,
                ratio=1 if is_last else None,
            )
        for row in table.rows:
            shown.add_row(*map(Text, row))
        parts.append(shown)
        if table.below:
            parts.append(Text(table.below, style="dim"))
    return Group(*parts)
