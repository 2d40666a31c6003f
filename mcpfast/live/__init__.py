"""Looking into a live server: what it does now, what stalls its loop, how long its collector pauses.

A server that mcpfast runs has a door. It costs nothing until somebody rings (SIGURG): none of this is loaded by a server before.

| module | owns |
|---|---|
| `doorway.py`, `messages.py` | what both ends agree on: where the door is, who may come, what is said |
| `door.py` | the server's end: opens when it rings, for one visitor, and not for long |
| `state.py`, `lag.py`, `places.py` | the server as plain data: sessions, calls, queues; its loop's lag; where code stands |
| `stalls.py`, `pauses.py` | watchers inside the server: stalls of its loop, pauses of its collector |
| `caller.py` | the visitor's end: rings, comes in, asks |
| `top.py`, `view.py` | `mcpfast top`: the command line, and what it shows |
"""
