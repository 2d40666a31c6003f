"""`make peers`: the same small server in every SDK, side by side on one machine; writes benches/peers/RESULTS.md."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.load import processors
from benches.peers.catalog import OURS, CannotBuild, Peer, peers, toolchains
from benches.peers.contests import CONTESTS, Contest, Contestant
from benches.peers.report import FILE, report
from benches.peers.results import RAW, Look, Looks, Results, Row, told
from benches.peers.workloads import WORKLOADS, NoShop, Workload, behind_the_shop, shop_lacks
from benches.table import busy_share, commit, progress
from mcpfast.bench.drive import RunFailed
from mcpfast.bench.result import machine

ROWS: list[Contest | Workload] = [*CONTESTS, *WORKLOADS]
BUSY_MAX = 0.15
TAIL_BYTES = 800
EPILOG = """\
Each row is measured in rounds: every server is started and looked at for a second, then all of them again, in the other order. So
a busy moment of the machine is everybody's, and only looks of one round are compared. Servers have one processor, the load and
what it needs (Redis, the HTTP service) have another. Close what else is running.

  make peers                          build all, measure all: about 35 minutes
  make peers ARGS="--list"            who is here and built, who is not and why, and the rows
  make peers ARGS="--only rmcp"       us and one peer (may be given several times)
  make peers ARGS="--row shop"        rows whose names begin so (may be given several times)
  make peers ARGS="--rounds 1"        a first idea

RESULTS.md and results.json beside it are written by a run of everything; what is less than that (--only, --row, --rounds below 3,
--no-write) is printed, and leaves them as they are. The figures in README.md come from results.json: benches/readme.py.

What is built goes to benches/peers/_build. A peer whose toolchain is not here is left out, with a word: Python peers need nothing
more, the others cargo, go, or node and npm; the workloads need redis-server and go. What a server says on stderr is in
benches/peers/_build/PEER/stderr.log, of its last look.

What a peer's server is: benches/peers/README.md. What the workloads are: benches/shop/README.md.
Exit code 0: all was measured that can be had here. 1: a server failed; what it said is in the table. 2: wrong options.
"""

Tell = Callable[[str, bool], None]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make peers",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [peer.name for peer in peers() if peer.name != OURS]
    only = f"us and this peer: one of {', '.join(names)}"
    parser.add_argument("--list", action="store_true", help="tell of peers and rows, and stop")
    parser.add_argument("--only", action="append", choices=names, metavar="PEER", help=only)
    parser.add_argument("--row", action="append", metavar="NAME", help="these rows: the begin of their names")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="looks at each server in each row (5)"
    )
    seconds = "length of a look (1); of a workload's, how many times its own"
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help=seconds)
    parser.add_argument("--no-write", action="store_true", help="print, and leave RESULTS.md as it is")
    given = parser.parse_args()
    rows = [row.name for row in ROWS]
    if given.row and not any(wanted(name, given) for name in rows):
        parser.error(f"--row: no name begins so. They are: {', '.join(rows)}")
    return given


def wanted(name: str, given: argparse.Namespace) -> bool:
    return not given.row or any(name.startswith(row) for row in given.row)


def is_partial(given: argparse.Namespace) -> bool:
    return bool(given.only or given.row or given.no_write or given.rounds < 3)


# ---- before minutes are spent ----------------------------------------------------------------------------


def preflight() -> None:
    """What this machine lacks, with where to get it; and what would spoil the figures."""
    for peer in peers():
        if peer.lacks:
            print(f"{peer.label} will be left out: {peer.lacks}", file=sys.stderr)
    if lacks := shop_lacks():
        print(f"the workloads will be left out: {lacks}", file=sys.stderr)
    if processors() is None:
        print("There is one processor: server and load share it, and ratios say little.", file=sys.stderr)
    if (busy := busy_share()) > BUSY_MAX:
        print(f"Others take {busy:.0%} of this machine: figures mean less.", file=sys.stderr)


def list_all() -> None:
    for peer in peers():
        state = peer.lacks or ("built" if peer.is_built else "can be built")
        print(f"{peer.name:12}{peer.label:24}{state}")
    print(f"{'':12}{'Redis and a service':24}{shop_lacks() or 'here'}\n")
    for row in ROWS:
        print(f"{row.name:22}{row.says}")


def built(chosen: list[str] | None, tell: Tell) -> tuple[list[Peer], dict[str, str]]:
    """The peers that could be built, and why the others could not."""
    found, missing = [], {}
    for peer in peers():
        if chosen and peer.name not in (OURS, *chosen):
            continue
        tell(f"building {peer.label}", False)
        try:
            peer.build()
            found.append(peer)
        except CannotBuild as why:
            missing[peer.label] = str(why)
            print(f"{peer.label} is left out: {why}", file=sys.stderr)
    return found, missing


# ---- measuring -------------------------------------------------------------------------------------------


def in_turns(
    name: str, contestants: list[Contestant], look: Callable[[Contestant], Look], rounds: int, tell: Tell
) -> Row:
    """Looks at each once a round, in alternating order, so that a drift favours nobody. Who fails once is out, with the reason."""
    kept: dict[str, list[Look]] = {one.label: [] for one in contestants}
    failed: dict[str, str] = {}
    for turn in range(rounds):
        for one in reversed(contestants) if turn % 2 else contestants:
            if one.label in failed:
                continue
            tell(f"{name}: {one.label}, round {turn + 1} of {rounds}", False)
            try:
                kept[one.label].append(look(one))
            except (RunFailed, OSError) as why:
                failed[one.label] = str(why).splitlines()[0]
                print(f"{name}: {one.label} failed: {why}{tail(one.peer.log)}", file=sys.stderr)
    tell(name, True)
    return {one.label: failed.get(one.label, kept[one.label]) for one in contestants}


def tail(log: Path) -> str:
    """The end of what a server said."""
    said = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""
    return f"\nThe end of {log}:\n{said}" if said else ""


def measure(results: Results, found: list[Peer], given: argparse.Namespace, tell: Tell) -> None:
    """Fills in the rows."""
    for contest in CONTESTS:
        if wanted(contest.name, given):
            look = partial(contest.look, seconds=given.seconds)
            results.rows[contest.name] = in_turns(
                contest.name, contest.contestants(found), look, given.rounds, tell
            )
    workloads = [workload for workload in WORKLOADS if wanted(workload.name, given)]
    if workloads:
        try:
            measure_workloads(workloads, results, found, given, tell)
        except NoShop as why:
            results.left_out["the workloads"] = str(why)


def measure_workloads(
    workloads: list[Workload], results: Results, found: list[Peer], given: argparse.Namespace, tell: Tell
) -> None:
    with behind_the_shop() as shop:
        for workload in workloads:
            look = partial(workload.look, shop=shop, seconds=given.seconds)
            results.rows[workload.name] = in_turns(
                workload.name, workload.contestants(found), look, given.rounds, tell
            )


def main() -> int:
    given = options()
    if given.list:
        list_all()
        return 0
    preflight()
    with progress(sum(wanted(row.name, given) for row in ROWS)) as tell:
        found, missing = built(given.only, tell)
        results = Results(
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            commit=commit(),
            machine=machine(),
            toolchains=toolchains(found),
            rounds=given.rounds,
            seconds=given.seconds,
            peers={peer.label: told(peer) for peer in peers()},
            missing=missing,
        )
        measure(results, found, given, tell)
    print(report(results))
    if not is_partial(given):
        write(results)
    every: list[Looks] = [looks for row in results.rows.values() for looks in row.values()]
    return int(any(isinstance(looks, str) for looks in every))


def write(results: Results, file: Path = FILE, raw: Path = RAW) -> None:
    file.write_text(report(results))
    raw.write_text(json.dumps(asdict(results), indent=1) + "\n")
    print(f"\nwritten: {file}, {raw}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
