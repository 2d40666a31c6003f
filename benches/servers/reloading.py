"""A server that knows for how long its loop stood still: `... reloading.py REGISTRY ADDRESS`.

It looks at the clock in every turn of the loop, and a turn follows on the other: what lies between two looks is what a message
would have waited for, at most. It may use every processor, so that what reads the registry does not take the loop's own.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benches.servers.tenants import SCOPE, tenancy_of
from mcpfast import MCPServer


class Turns:
    """Looks at the clock in every turn of the loop, and keeps the longest time between two looks."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last_s = time.perf_counter()

    def look(self) -> None:
        now_s = time.perf_counter()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s
        asyncio.get_running_loop().call_soon(self.look)

    def take(self) -> float:
        """The longest since this was asked last."""
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s


turns = Turns()


@asynccontextmanager
async def lifespan(server: MCPServer) -> AsyncIterator[None]:
    turns.look()
    yield


server = MCPServer("reloading", version="1.0", tenancy=tenancy_of(sys.argv[1]), lifespan=lifespan)


@server.tool(scopes={SCOPE})
async def even() -> str:
    """Not denied by the registry that holds now."""
    return "hello"


@server.tool(scopes={SCOPE})
async def odd() -> str:
    """The same: a registry denies the one or the other, so one sees which holds."""
    return "hello"


@server.tool(scopes={SCOPE})
async def longest_us() -> str:
    """The longest turn of the loop since this was asked last."""
    return f"{turns.take() * 1e6:.0f}"


@server.tool(scopes={SCOPE})
async def stand_still() -> str:
    """What a stall looks like, for whoever tests that one is seen."""
    time.sleep(0.05)  # noqa: ASYNC251  (that is the point)
    return "hello"


if __name__ == "__main__":
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    server.run(sys.argv[2])
