"""HTTP in all its forms on one endpoint: Streamable HTTP of both eras, WebSocket, the transport of 2024, plain routes, ASGI."""
