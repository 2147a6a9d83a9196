# `make demo` runs the main job, `make test` passes the tests; both set everything up first.
PYTHON ?= python3
CT_HOME ?= $(CURDIR)/.ct
EXAMPLE ?= flight_delay
DAYS ?=
KILLS ?= 100
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export CT_HOME

.PHONY: help install lock demo test test-faults lint format dev bench clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Install everything into .venv

# The stamp's date tells whether the lock is newer, so a second run costs nothing and an edited lock installs again.
$(STAMP): requirements.lock pyproject.toml .ci/quiet
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python .ci/quiet
	@touch $(STAMP)

lock:  ## Compile requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header --python-version 3.11 --output-file requirements.lock

demo: install  ## A year of flights through the whole loop (DAYS=60 for a short one, EXAMPLE=name for another)
	@$(BIN)/ct demo --example $(EXAMPLE) $(if $(DAYS),--days $(DAYS))

test: install  ## Run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-faults: install  ## Kill the real daemon's processes 100 times (KILLS=20 for fewer), and change runners
	CT_KILLS=$(KILLS) $(BIN)/python -m pytest -s tests/faults/test_daemon_kills.py tests/faults/test_other_runner.py

lint: install  ## Format check, lint, types, import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dev: install  ## Dagster UI, daemon, feeder and server on the demo's state
	@$(BIN)/ct dev

bench: install  ## Run every benchmark
	@$(BIN)/python -m benchmarks

clean:  ## Remove what was installed and what was computed
	rm -rf $(VENV) .ct
