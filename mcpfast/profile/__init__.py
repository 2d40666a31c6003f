"""Profiling sessions: a server, calls that keep it busy, an instrument that looks, and a page that says how to read what it saw.

`session.profile` is the way in. Nothing in here is loaded by a server.

| module | owns |
|---|---|
| `command.py`, `session.py` | the command line; one session from start to page |
| `target.py`, `processes.py`, `launch.py` | what is profiled: its command, its address, its processes |
| `load.py`, `driver.py` | the calls: the engine of `mcpfast bench` in a process of its own |
| `py_spy.py`, `perf.py`, `memray.py`, `scalene.py`, `callgrind.py` | one instrument each, with its page of words |
| `loop.py`, `gc.py`, `inside.py` | the same for those that a server of ours lets in (`mcpfast/live`) |
| `stacks.py`, `flamegraph.py`, `samples.py` | samples of stacks: read, counted, drawn, told |
| `timeline.py` | what happened over time, drawn |
| `report.py`, `progress.py` | what is told: at the end, and while one waits |
"""

from mcpfast.errors import McpFastError


class ProfileFailed(McpFastError):
    """There is no profile; the text says why, and what to do."""
