# Anyone can run these: demo, lab, test, lint, types, bench, clean. All of them make their own .venv first.
.PHONY: demo lab test lint types bench clean ready front screenshots soak lock
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
FRONT := kafka_jupyter/notebook/static/widget.js
SOURCES := $(shell find labextension/src labextension/style labextension/schema -type f 2>/dev/null) labextension/package.json labextension/package-lock.json

ready: $(READY) $(FRONT)

# The editable install builds the front end (npm ci and all) through the hatch hook.
$(READY): pyproject.toml constraints.txt labextension/package.json labextension/package-lock.json
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev --editable ".[worker,local,lab]"
	touch $@

$(FRONT): $(READY) $(SOURCES)
	test -d labextension/node_modules || npm --prefix labextension ci --ignore-scripts --no-audit --no-fund
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix labextension run --silent build:prod
	touch $@

demo: ready
	$(BIN)/python scripts/demo.py

lab: ready
	$(BIN)/kafka-jupyter up --lab --notebook notebooks/01_quickstart.ipynb

lint: ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	npm --prefix labextension run --silent lint
	npm --prefix labextension run --silent check

types: ready
	$(BIN)/mypy

front: ready
	npm --prefix labextension test --silent

# Everything: lint, types and import contracts, the front end's unit tests, then all tests with real brokers and a real browser, in JOBS
# processes: most of them wait most of the time.
test: ready
	$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint types front
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder

# Those whom we compare with come only here.
$(PEERS): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt "kafka_jupyter[bench]"
	touch $@

bench: ready $(PEERS)
	$(BIN)/python -m benchmarks

# The proof of the fold at length (all histories of up to nine records that count, and HISTORIES long ones by chance), then faults on three
# real brokers and real workers for as long as SOAK_MINUTES says, and a table of what was measured. SEED plays one again, ONLY=R1,R5 a part
# of the table and no proof, OUT names a file for the table.
soak: ready
ifndef ONLY
	$(BIN)/python -m tests.support.exhaustive --records 9
	$(BIN)/python -m tests.support.simulator --histories $(or $(HISTORIES),1000000) --processes $(JOBS)
	KAFKA_JUPYTER_TEST_FUZZED=100000 $(BIN)/python -m pytest tests/unit/test_trust_forgeries.py tests/unit/test_hostile_names.py --numprocesses $(JOBS)
endif
	$(BIN)/python -m tests.faults --minutes $(or $(SOAK_MINUTES),30) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

screenshots: ready
	KAFKA_JUPYTER_PICTURES=1 $(BIN)/python -m pytest tests/browser/test_pictures.py

# The versions that `make test` is known to pass with.
lock: ready
	$(BIN)/pip freeze --exclude-editable | grep -v -i -e '^kafka' > constraints.txt

clean:
	-$(BIN)/kafka-jupyter down
	rm -rf $(VENV) build dist labextension/node_modules labextension/lib labextension/*.tsbuildinfo kafka_jupyter/labextension kafka_jupyter/notebook/static
