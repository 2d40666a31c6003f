"""Commands that look after a server's settings and tenants: `mcpfast config`, `mcpfast tenant`."""
