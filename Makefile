# Two commands matter: `make up` (run it) and `make test` (prove it). Both set up the environment first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := deploy/locks/dev.txt
STAMP := $(VENV)/.installed
TEST_WORKERS ?= 2

.PHONY: up setup test lint bench quality quality-entities quality-lineage quality-links lock clean
.DEFAULT_GOAL := up

up: setup ## start everything, ingest the sample, show working memory, stay up until Ctrl-C
	@exec $(BIN)/context-graph up

setup: $(STAMP) ## make .venv with the command line in it

# Dependencies come hashed from the lock; the project itself is installed editable, so a pull needs no reinstall.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 up"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (about a minute, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test: setup ## every test, against a real Redis per worker
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup

lint: setup ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## the benchmarks: JSON with ratios against floors measured in the same run
	$(BIN)/python -m tests.benchmarks

quality-entities: setup ## mentions on WNUT17 and hand-labelled events, resolution on labelled pairs
	$(BIN)/python -m tests.quality.entities

quality: setup ## retrieval quality on the development data, beside its baselines (ARGS=--ablate: what each channel adds; --consolidated: what each part of Stage 3 does)
	$(BIN)/python -m tests.quality $(ARGS)

quality-links: setup ## what the threshold of SIMILAR_TO lets through
	$(BIN)/python -m tests.quality.links

quality-lineage: setup ## every explicit cause of real transcripts found, nothing invented
	$(BIN)/python -m tests.quality.lineage

lock: ## resolve the locks anew (hashes, no index addresses)
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra embedded --extra models --extra dev pyproject.toml deploy/locks/build.in -o deploy/locks/dev.txt
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra models pyproject.toml deploy/locks/build.in -o deploy/locks/service.txt

clean: ## remove the environment and the local data
	rm -rf $(VENV) .context-graph .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
