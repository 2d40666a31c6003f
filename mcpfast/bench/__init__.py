"""`mcpfast bench`: drives any MCP server as a scenario says, checks every answer, and tells how fast and how well it went."""
