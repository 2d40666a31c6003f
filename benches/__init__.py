"""The measuring house: `make bench` measures against budgets.toml, `make bench-gate` counts instructions.

ceiling.c, loadgen.c, native/   compiled: what a pipe can carry; what drives and checks servers
httpload.c, call.lua            the same over HTTP and WebSocket, where wrk cannot; what wrk sends
build.py                        compiles them
load.py, http_load.py           a run of a load generator, as Python sees it; servers while they are driven
http_messages.py                HTTP requests as bytes, and a look at their answers
rounds.py                       ours and a reference in turns, compared pair by pair
figures.py, figures_http.py     one function for each figure
counting.py                     instructions a call, under callgrind
history.py, history/            what every landed change did to the figures
report.py, series.py, charts.py the history drawn: `make bench-report`
pieces.py, test_pieces.py       the pieces of a call beside their last landed run: `make bench-pieces`
servers/                        what is measured besides examples/echo.py, and the peer
"""
