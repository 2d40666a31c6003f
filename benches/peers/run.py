"""`make peers`: the same small server in every SDK, side by side on one machine; writes benches/peers/RESULTS.md."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.load import RunFailed
from benches.peers.catalog import OURS, CannotBuild, Peer, peers
from benches.peers.contests import CONTESTS, Contest, Contestant
from benches.peers.results import FILE, write_results
from benches.peers.workloads import WORKLOADS, NoShop, Workload, behind_the_shop
from benches.table import machine, progress

EPILOG = """\
Each row is measured in turns: every server for a second, then all of them again, so that a busy moment of the machine is
everybody's. Servers have one processor, the load and what they need (Redis, the HTTP service) have another. What is built goes
to benches/peers/_build; a peer whose toolchain is not here is left out, with a word.

  make peers                          build all, measure all: about a quarter of an hour
  make peers ARGS="--only rmcp"       us and one peer (may be given several times); RESULTS.md stays as it is
  make peers ARGS="--rounds 1 --no-write"

What a peer's server is: benches/peers/README.md. What the shop is: benches/shop/README.md.
Exit code 0: all was measured. 1: a server failed; what it said is in the table.
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make peers",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [peer.name for peer in peers() if peer.name != OURS]
    parser.add_argument(
        "--only", action="append", choices=names, metavar="PEER", help=f"one of {', '.join(names)}"
    )
    parser.add_argument("--row", action="append", metavar="NAME", help="this row only: the begin of its name")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="looks at each server for each row (5)"
    )
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of a look (1)")
    parser.add_argument("--no-write", action="store_true", help="print, and leave RESULTS.md as it is")
    return parser.parse_args()


def built(chosen: list[str] | None, tell: Callable[[str, bool], None]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that could be built, and why the others could not."""
    found, missing = [], {}
    for peer in peers():
        if chosen and peer.name not in (OURS, *chosen):
            continue
        tell(f"building {peer.title}", False)
        try:
            peer.build()
            found.append(peer)
        except CannotBuild as why:
            missing[peer.title] = str(why)
            print(f"{peer.title} is left out: {why}", file=sys.stderr)
    return found, missing


def in_turns(
    contest: Contest,
    contestants: list[Contestant],
    given: argparse.Namespace,
    tell: Callable[[str, bool], None],
) -> dict[str, Any]:
    """The looks of each contestant at one row; a text where it failed."""
    looks: dict[str, Any] = {one.label: [] for one in contestants}
    for turn in range(given.rounds):
        for one in contestants:
            if isinstance(looks[one.label], str):
                continue
            tell(f"{contest.name}: {one.label}, {turn + 1} of {given.rounds}", False)
            try:
                looks[one.label].append(contest.look(one, given.seconds))
            except RunFailed as why:
                looks[one.label] = str(why).splitlines()[0]
    return looks


def wanted(name: str, given: argparse.Namespace) -> bool:
    return not given.row or any(name.startswith(row) for row in given.row)


def main() -> int:
    given = options()
    contests = [contest for contest in CONTESTS if wanted(contest.name, given)]
    workloads = [workload for workload in WORKLOADS if wanted(workload.name, given)]
    rows: dict[str, dict[str, Any]] = {}
    with progress(len(contests) + len(workloads)) as tell:
        found, missing = built(given.only, tell)
        for contest in contests:
            rows[contest.name] = in_turns(contest, contest.contestants(found), given, tell)
            tell(contest.name, True)
        for workload in workloads:
            rows[workload.name] = at_work(workload, found, given, tell)
            tell(workload.name, True)
    partial = bool(given.only or given.row or given.no_write)
    text = write_results(found, missing, rows, machine(), keep=not partial)
    print(text)
    if not partial:
        print(
            f"\n{FILE.relative_to(Path.cwd()) if FILE.is_relative_to(Path.cwd()) else FILE}", file=sys.stderr
        )
    return int(any(isinstance(looks, str) for row in rows.values() for looks in row.values()))


def at_work(
    workload: Workload, found: list[Peer], given: argparse.Namespace, tell: Callable[[str, bool], None]
) -> dict[str, Any]:
    looks: dict[str, Any] = {}
    try:
        with behind_the_shop() as shop:
            for one in workload.contestants(found):
                tell(f"{workload.name}: {one.label}", False)
                try:
                    looks[one.label] = [workload.look(one, shop, 10 * given.seconds)]
                except RunFailed as why:
                    looks[one.label] = str(why).splitlines()[0]
    except NoShop as why:
        print(f"{workload.name} is left out: {why}", file=sys.stderr)
    return looks


if __name__ == "__main__":
    sys.exit(main())
