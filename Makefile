# The whole developer interface. `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo dev test e2e check gate bench pictures clean help

help:            ## what there is
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 demo") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)   ## synthetic slides through everything, a summary, a query
	$(BIN)/pathassets demo --home demo

dev: $(READY)    ## Dagster on http://127.0.0.1:3000 and the dashboard on http://127.0.0.1:8050, for the study in HOME_DIR (default: demo)
	$(BIN)/pathassets dev --home $(or $(HOME_DIR),demo)

test: $(READY)   ## the tests, without the slow tier
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile   # a thread for each of the two: more wait for each other

e2e: $(READY)    ## the slow tier: the daemon, killed processes, full disks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m e2e -n 2 --dist loadfile --no-loadscope-reorder   # else files of one long test come last

check: $(READY)  ## lint, format, types, import rules, size budget
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q assets_tests/test_house.py

gate: $(READY)   ## accuracy of the shipped weights and of the tissue mask against synthetic truth
	$(BIN)/python -m benchmarks.gate_demo_vlm
	$(BIN)/python -m benchmarks.tissue_iou

bench: $(READY) .bench/peers/.ready   ## the README's table of performance, peers beside us; about 20 minutes
	$(BIN)/python -m benchmarks.speed .bench .bench/peers/bin/python

.bench/peers/.ready: benchmarks/speed/peers.txt
	$(PYTHON) -m venv .bench/peers
	.bench/peers/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/speed/peers.txt
	.bench/peers/bin/pip install --quiet --disable-pip-version-check --no-deps tiatoolbox==2.1.3
	touch $@

pictures: demo   ## the README's pictures, from the demo's slides
	$(BIN)/python -m benchmarks.pictures demo docs/images

clean:           ## everything that make has made
	rm -rf $(VENV) .bench demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
