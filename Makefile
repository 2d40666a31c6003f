# The words of this project: `make` alone teaches them, CONTRIBUTING.md says more.
#
# Every word sets itself up: a virtual environment in .venv, the locked packages it needs (requirements/<name>.txt), the
# compiled core. A file in .venv/stamps tells what is done; it is done again when what it was made from has changed.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
CORE := $(wildcard mcpfast/_*.pyx mcpfast/_*.pxd mcpfast/*.h mcpfast/bench/*.pyx mcpfast/bench/*.c mcpfast/bench/native/*)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
ARGS ?=
FUZZ_SECONDS ?= 10
SOAK_EXAMPLES ?= 1000
VERSIONS ?= 3.11 3.12 3.13
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help conformance demo test test-all check format coverage sanitize fuzz soak bench bench-report bench-pieces bench-gate peers profile build lock clean

# Named by the content of its sources: timestamps lie after a copy, and rooms that do not fit together crash.
COMPILED := $(STAMPS)/core-$(shell cat $(CORE) setup.py | cksum | cut -d ' ' -f 1)
READY := $(COMPILED) $(STAMPS)/package

# A Python that was asked for by name, and is not the one .venv was made with: make it anew.
ifneq ($(origin PYTHON),file)
ifneq ($(PYTHON),$(shell cat $(STAMPS)/python 2>/dev/null))
$(STAMPS)/python: renewed
.PHONY: renewed
renewed:
endif
endif

help: ## these words
	@echo "make WORD, where WORD is one of"; echo
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16
	@echo; echo "PYTHON=python3.12 chooses another Python, ARGS='-k name' goes to pytest, the benches and the profilers."

# ------------------------------------------------------------------------------------------------ words

demo: $(READY) $(STAMPS)/test ## see a real server answer a real client, over stdio, sockets, HTTP and WebSocket
	@$(BIN)/python examples/demo.py $(ARGS)

test: $(READY) $(STAMPS)/test ## the whole test suite
	$(BIN)/pytest $(ARGS)

test-all: ## the whole test suite on Python 3.11, 3.12 and 3.13 (VERSIONS); one that is not here is skipped with a word
	@$(PYTHON) workshop/preflight.py
	@$(PYTHON) workshop/interpreters.py $(VERSIONS) | while read -r version path; do \
	  if [ -z "$$path" ]; then echo "==> Python $$version: not on this machine, skipped"; continue; fi; \
	  echo "==> Python $$version: $$path"; \
	  case "$$($(BIN)/python -V 2>/dev/null)" in \
	    "Python $$version."*) $(MAKE) --no-print-directory test </dev/null ;; \
	    *) $(MAKE) --no-print-directory test VENV=.venvs/$$version PYTHON=$$path </dev/null ;; \
	  esac || exit 1; \
	done

conformance: $(READY) $(STAMPS)/test ## the official conformance suite against our fixture over HTTP (ARGS=--help)
	$(BIN)/python tests/conformance/run.py $(ARGS)

check: $(STAMPS)/lint ## style, types and floors: ruff, mypy --strict, cython-lint, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint mcpfast
	$(BIN)/lint-imports --cache-dir build/import-linter

format: $(STAMPS)/lint ## let ruff lay out the Python and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(READY) $(STAMPS)/test ## the suite on a trace build, .pyx counted; fails below the bars in pyproject.toml
	@rm -rf build/coverage && mkdir -p build/coverage
	tree=$$($(BIN)/python workshop/tree.py trace) && export MCPFAST_TREE=$$tree PYTHONPATH=$$tree PYTHONSAFEPATH=1 && \
	  $(BIN)/coverage run $(BIN)/pytest $(ARGS) && $(BIN)/coverage combine -q && $(BIN)/coverage report && \
	  $(BIN)/coverage html -q -d build/coverage/html && $(BIN)/coverage json -q -o build/coverage/report.json
	@$(BIN)/python workshop/coverage_gate.py build/coverage/report.json

sanitize: $(READY) $(STAMPS)/test ## the suite on a core with AddressSanitizer and UndefinedBehaviorSanitizer
	tree=$$($(BIN)/python workshop/tree.py sanitize) && \
	  MCPFAST_TREE=$$tree PYTHONPATH=$$tree PYTHONSAFEPATH=1 $(SANITIZED) $(BIN)/pytest $(ARGS)

fuzz: $(READY) $(STAMPS)/fuzz ## drive framing and decoding with libFuzzer for FUZZ_SECONDS (10)
	tree=$$($(BIN)/python workshop/tree.py fuzz) && \
	  MCPFAST_TREE=$$tree PYTHONPATH=$$tree $(SANITIZED) $(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS) $(ARGS)

soak: $(READY) $(STAMPS)/test ## drive tenants over every transport and look at whose bytes come, SOAK_EXAMPLES (1000) times
	MCPFAST_ISOLATION_EXAMPLES=$(SOAK_EXAMPLES) $(BIN)/pytest tests/isolation $(ARGS)

bench: $(READY) $(STAMPS)/test ## measure; fails below a bar of benches/budgets.toml
	$(BIN)/python benches/run.py $(ARGS)

bench-report: $(READY) $(STAMPS)/test ## draw the figures over the landed changes: build/bench-history.html
	@$(BIN)/python benches/report.py $(ARGS)

bench-pieces: $(READY) $(STAMPS)/test ## time the pieces of the hot path beside their last landed run (ARGS=--help)
	@$(BIN)/python benches/pieces.py $(ARGS)

bench-gate: $(READY) $(STAMPS)/test ## count instructions per call; fails when they rise
	@$(PYTHON) workshop/preflight.py valgrind
	$(BIN)/python benches/gate.py $(ARGS)

peers: $(READY) $(STAMPS)/test ## every SDK that can be built here, side by side with us: benches/peers/RESULTS.md (ARGS=--help)
	$(BIN)/python benches/peers/run.py $(ARGS)

profile: $(READY) $(STAMPS)/test $(STAMPS)/profile ## py-spy, scalene, callgrind and Cython's report, into profiling/results
	@$(PYTHON) workshop/preflight.py valgrind
	$(BIN)/python profiling/run.py $(ARGS)

build: $(READY) $(STAMPS)/test ## wheel and sdist into dist/, and the tests against the installed wheel
	@rm -rf dist && $(BIN)/python workshop/package.py make
	@$(MAKE) --no-print-directory VENV=.venvs/wheel .venvs/wheel/stamps/test
	@.venvs/wheel/bin/python workshop/package.py try $(ARGS)

lock: $(STAMPS)/lock ## renew requirements/*.txt from pyproject.toml (UPGRADE=1: newest of everything)
	$(BIN)/python workshop/lock.py

clean: ## remove everything that the other words made
	rm -rf .venv .venvs build dist mcpfast.egg-info .hypothesis .benchmarks mcpfast/*.so mcpfast/bench/*.so fuzz/found benches/_build benches/peers/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------ what they stand on

# gcc's runtimes come first; C++ libraries that are loaded later need libstdc++ to be known to them. Leaks are the leak
# test's work: Python itself holds memory until the very end.
SANITIZED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

$(STAMPS)/python:
	@command -v $(PYTHON) >/dev/null || { echo "mcpfast needs Python 3.11 or newer, and $(PYTHON) is not there. Install: apt-get install -y python3 python3-venv python3-dev" >&2; exit 2; }
	@$(PYTHON) workshop/preflight.py
	@echo "==> $(VENV): a virtual environment of $$($(PYTHON) -V)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && echo "$(PYTHON)" > $@

# requirements/test.txt holds all of run.txt, so one of the two is enough
$(STAMPS)/run $(STAMPS)/test $(STAMPS)/lint $(STAMPS)/fuzz $(STAMPS)/profile $(STAMPS)/lock: $(STAMPS)/%: requirements/%.txt $(STAMPS)/python
	@echo "==> $(VENV): the locked packages of $<"
	@$(PIP) install --require-hashes --only-binary :all: -r $<
	@touch $@

$(COMPILED): $(STAMPS)/run
	@echo "==> the compiled core"
	@mkdir -p build && MCPFAST_BUILD=release $(BIN)/python setup.py -q build_ext --inplace >build/core.log 2>&1 || { cat build/core.log; exit 1; }
	@rm -f $(STAMPS)/core-* && touch $@

# The name `mcpfast` in $(BIN), and the metadata; the work tree itself is what gets imported.
$(STAMPS)/package: pyproject.toml mcpfast/__init__.py $(STAMPS)/python | $(COMPILED)
	@$(PIP) install --no-build-isolation --no-deps --no-index -e .
	@touch $@
