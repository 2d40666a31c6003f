"""What a local server's processes use, as /proc tells it: CPU time is the engine's to read, at the very moments it measures."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """A look at some processes together; counters count from their start."""

    rss_mb: float  # MB of 1,000,000 bytes
    descriptors: int
    threads: int
    voluntary_switches: int
    involuntary_switches: int


def family(pid: int) -> list[int]:
    """A process and all that descend from it: a launcher (npx, a shell) is seldom the server itself."""
    found = [pid]
    for parent in found:  # grows as it goes
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
    return found


def usage(pids: list[int]) -> Usage | None:
    """None where nothing can be seen: they have ended, or are somebody else's."""
    seen, rss, descriptors, threads, voluntary, involuntary = 0, 0, 0, 0, 0, 0
    page = os.sysconf("SC_PAGESIZE")
    for pid in pids:
        try:
            rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            for task in tasks:
                fields = dict(
                    line.split(":", 1) for line in (task / "status").read_text().splitlines() if ":" in line
                )
                voluntary += int(fields["voluntary_ctxt_switches"])
                involuntary += int(fields["nonvoluntary_ctxt_switches"])
            threads += len(tasks)
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            seen += 1
        except (OSError, KeyError, ValueError):
            continue
    if not seen:
        return None
    return Usage(rss / 1e6, descriptors, threads, voluntary, involuntary)


def listener_of(address: str | tuple[str, int]) -> int | None:
    """The process that listens on a local address; None where that is not to be seen (another machine, another user)."""
    if isinstance(address, str):
        return _unix_listener(address)
    inode = _listening_inode(*address)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(entry) == wanted for entry in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue
    return None


def _unix_listener(path: str) -> int | None:
    """Who called listen(2): SO_PEERCRED of a connection says it."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", raw)[0]
    return pid or None


def _listening_inode(host: str, port: int) -> str | None:
    listening = "0A"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local_host, _, local_port = fields[1].partition(":")
            if fields[3] == listening and int(local_port, 16) == port and _is_local(host, local_host):
                return fields[9]
    return None


def _is_local(host: str, listening_on: str) -> bool:
    """Is `host` one of ours, and does the listener take it? Addresses of the table are hexadecimal words, as they lie in memory."""
    if not (host.startswith("127.") or host == "::1"):
        return False
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4)).hex().upper()
    return set(listening_on) == {"0"} or listening_on.endswith(words)
