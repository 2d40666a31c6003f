"""The measuring house: `make bench` measures against budgets.toml, `make bench-gate` counts instructions.

ceiling.c, loadgen.c, native/   compiled: what a pipe can carry; what drives and checks servers
build.py                        compiles them
load.py                         a run of the load generator, as Python sees it
rounds.py                       ours and a reference in turns, compared pair by pair
figures.py                      one function for each figure
counting.py                     instructions a call, under callgrind
servers/                        what is measured besides examples/echo.py, and the peer
"""
