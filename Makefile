# `make test` runs what CI runs, `make quick` a minute of it, `make demo` shows the main job on real photographs.
# Each makes its own virtual environment in .venv; nothing but Python 3.11, 3.12 or 3.13 is needed.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

# A name on the PATH is not enough: version managers leave launchers there that refuse to run.
IS_USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.12 python3.13 python3.11 python3 python; do \
	if $$name -c '$(IS_USABLE)' >/dev/null 2>&1; then echo $$name; break; fi; done)

.PHONY: help test quick demo lint format clean

help:
	@echo 'make test     format check, lint, types, import rules, tests: what CI runs'
	@echo 'make quick    some tests of each package, in a minute: before each commit'
	@echo 'make demo     noisy photographs in, a model trained, exported and applied, before/after picture out'
	@echo 'make lint     the checks of `make test` without the tests'
	@echo 'make format   formats the code and mends what can be mended'
	@echo 'make clean    removes the environment, caches and build products'

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Which tests: tests/quick.txt. Two workers, since more would spend the minute on importing TensorFlow.
quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal @tests/quick.txt

demo: $(VENV)/.installed-demo
	$(BIN)/python -m examples.demo

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamp is written last, so that an interrupted installation is done again.
$(VENV)/.installed-%: setup.cfg pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		if [ -z "$(PYTHON)" ]; then \
			echo 'Python 3.11, 3.12 or 3.13 with its venv module is needed (on Debian: apt install python3-venv).' >&2; \
			exit 2; \
		fi; \
		echo "Making $(VENV) with $(PYTHON)"; \
		"$(PYTHON)" -m venv --clear $(VENV); \
	fi
	@echo 'Installing bsdenoise[$*]; the first time takes some minutes'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
