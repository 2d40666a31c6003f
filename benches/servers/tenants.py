"""The echo server with tenants: scopes, quotas and budgets that hold, the tenant of the environment. `... tenants.py [ADDRESS]`."""

import os
import sys

from mcpfast import MCPServer
from mcpfast.tenancy.identity import Quota, TenantRecord
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore

os.environ.setdefault("MCPFAST_TENANT", "acme")
QUOTA = Quota(
    calls_per_s=1e9,
    bytes_per_s=1e12,
    concurrent_calls_max=1_000,
    request_bytes_max=1 << 20,
    response_bytes_max=1 << 20,
    daily_units_max=1e12,
)
acme = TenantRecord("acme", scopes=frozenset({"echo"}), quota=QUOTA, principal_quota=QUOTA)
server = MCPServer("echo", version="1.0", tenancy=Tenancy(MemoryStore([acme]), scopes={"echo"}))


@server.tool(scopes={"echo"}, cost=2)
async def echo(text: str) -> str:
    return text


if __name__ == "__main__":
    server.run(sys.argv[1] if len(sys.argv) > 1 else "stdio")
