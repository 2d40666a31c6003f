"""The measuring house: `make bench` measures against budgets.toml, `make bench-gate` counts instructions and holds ratios.

ceiling.c, native/, build.py    what a pipe can carry; compiled when first needed
nginx.py                        the same for HTTP
load.py                         the engine of `mcpfast bench`, as the benches use it; servers while they are driven
http_messages.py                HTTP requests as bytes, and a look at their answers
rounds.py                       ours and a reference in turns, compared pair by pair
run.py, budgets.py, table.py    the word, what must hold, what is told
figures.py, figures_http.py     one function for each figure
figures_latency.py              p50 and p99 for every transport and era; what a full server does
gate.py, counting.py            what CI holds: ratios, and instructions a call under callgrind
peers/, shop/                   the same server in every SDK; the published workloads
readme.py                       the figures of README.md, from what was recorded
history.py, history/            what every landed change did to the figures
report.py, series.py, charts.py the history drawn: `make bench-report`
pieces.py, test_pieces.py       the pieces of a call beside their last landed run: `make bench-pieces`
servers/                        what is measured besides examples/echo.py, and the peer
"""
