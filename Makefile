# make report   train, compare and write report/index.html
# make test     run all tests
# Both set up .venv first; it needs Python 3.10 or newer and nothing else.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
CONFIG ?= quick
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup report test lint types clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo "  Another interpreter: make setup PYTHON=/path/to/python. More for pytest or the report: ARGS='...'"

setup: $(STAMP)  ## install the pinned packages into .venv, unless that is done

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "mmattn needs Python 3.10 or newer: $(PYTHON) was not found; name one with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "mmattn needs Python 3.10 or newer: $(PYTHON) is $$("$(PYTHON)" -V 2>&1); name another with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: install its venv package (python3-venv on Debian and Ubuntu)" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@echo "Installing the pinned packages into $(VENV) (a few minutes; PyTorch is large) ..."
	@$(PIP) -c $(CONSTRAINTS) pip hatchling
	@$(PIP) -c $(CONSTRAINTS) --no-build-isolation -e '.[dev]'
	@touch $@
	@echo "Ready: $(PY)"

report: $(STAMP)  ## train what is compared and write report/
	@$(PY) -m tasks.compare run --config $(CONFIG) --out report $(ARGS)

test: $(STAMP)  ## run all tests
	@$(PY) -m pytest $(ARGS)

lint: $(STAMP)  ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(STAMP)  ## mypy
	@$(PY) -m mypy

clean:  ## remove .venv, caches and what a build leaves; runs/ and report/ stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
