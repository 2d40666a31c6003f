"""The echo server with tenants, and the same one without: `... tenants.py REGISTRY|none TOOLS [ADDRESS]`.

Where there is a registry, scopes are asked for and quotas hold. TOOLS more tools are on offer; with tenants, a tenth of so many
besides, for a scope that nobody has: both servers list the same.
"""

import gc
import os
import sys

from mcpfast import MCPServer
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.service import Tenancy

TENANT, SCOPE = "acme", "echo"
ISSUER, AUDIENCE, SECRET = (
    "https://issuer.bench",
    "https://server.bench/mcp",
    b"32 bytes that are no secret at all",
)
LOOK_S = 0.05  # a figure need not wait for what takes a second elsewhere


def tenancy_of(registry: str) -> Tenancy | None:
    """Tenants of a file of TOML, by API key, JWT, or over stdio as the environment says; None for "none"."""
    if registry == "none":
        return None
    issuer = Issuer(
        issuer=ISSUER, audiences=(AUDIENCE,), secret=SECRET, tenant_claim="tenant", tenants=("*",)
    )
    return Tenancy(registry, issuers=[issuer], scopes={SCOPE}, look_s=LOOK_S)


def made(registry: str, tools: int) -> MCPServer:
    """The server, not yet serving."""
    server = MCPServer("echo", version="1.0", tenancy=tenancy_of(registry))
    asked, nobodys = ({SCOPE}, {"nobody"}) if server.tenancy else ((), ())

    @server.tool(scopes=asked, cost=2)
    async def echo(text: str) -> str:
        return text

    @server.tool(scopes=asked)
    async def rest() -> str:
        """Lets go of what nobody holds any more, before memory is looked at."""
        gc.collect()
        return "hello"

    hidden = tools // 10 if server.tenancy else 0
    for number in range(tools + hidden):

        @server.tool(name=f"tool_{number}", scopes=asked if number < tools else nobodys)
        async def one_more(text: str) -> str:
            """Says what it is told."""
            return text

    return server


if __name__ == "__main__":
    if sys.argv[1] != "none":
        os.environ.setdefault("MCPFAST_TENANT", TENANT)
    made(sys.argv[1], int(sys.argv[2])).run(sys.argv[3] if len(sys.argv) > 3 else "stdio")
