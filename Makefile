# Sets up, shows and checks segbench; needs Python 3.11 with pip, and make. Each target does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= segbench-results
# pre-built environments and prepared data are kept here between runs
export SEGBENCH_CACHE ?= $(HOME)/.cache/segbench

.DEFAULT_GOAL := help
.PHONY: help setup environments browser demo test test-quick check docs format lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.done  ## make the engine's virtual environment

$(VENV)/.done: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segbench needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m segbench.engine.metrics.beforehand
	touch $@

environments: setup  ## build the methods' environments, once a lock file
	$(BIN)/segbench methods install --cpu

demo: setup  ## train, score and rank three methods on synthetic data, and make the dashboard
	$(BIN)/segbench data prepare synthetic --layout tissuenet --name demo --scale 0.4
	$(BIN)/segbench grid launch --grid examples/demo.yaml --cpu --out $(OUT)
	$(BIN)/segbench report --out $(OUT)
	$(BIN)/segbench sql "select task, place, method, accuracy, map, ap50, ap75, train_s from leaderboard" --out $(OUT)
	@echo "the dashboard: $(abspath $(OUT))/report.html"

check: setup  ## lint, format, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: setup  ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-quick: setup  ## the tests that need no method's environment, no Ray and no browser
	$(BIN)/pytest -n 2 -m "not heavy and not browser and not slow" $(ARGS)

test: setup environments browser  ## every test
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

docs: setup  ## build the documentation's site in site/; a broken link, anchor or name is an error
	$(BIN)/zensical build --clean --strict

browser:
	@./tests/install_browser.sh

lock: setup  ## resolve pyproject.toml into requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --python-version 3.11 --quiet -o requirements.lock
	$(BIN)/python scripts/hash_locks.py requirements.lock

clean:  ## remove the virtual environment, the site and the demo's results
	rm -rf $(VENV) segbench-results site .cache
