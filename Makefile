# SPDX-License-Identifier: Apache-2.0
#
# Everything here sets itself up: on a Debian with Python 3.11 and nothing else, 'make demo' and 'make test' suffice.
# The virtual environment is made again only when pyproject.toml changes; guests are fetched once, into a cache.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help venv demo test check format bench fuzz clean distclean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

venv: $(STAMP)  ## make the virtual environment in .venv

# ensurepip is a package of its own on Debian; root may have it installed, others are told the one command.
$(STAMP): pyproject.toml tools/setup
	@tools/setup $(PYTHON) $(VENV)
	@touch $@

demo: $(STAMP)  ## run the guests and show what happened; the first time it downloads about 180 MB
	@$(BIN)/vhost-iommu demo

test: $(STAMP)  ## every test, those that boot guests included
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)  ## style, types, generated tables, and who imports whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m vhost_iommu.reference --check
	@$(BIN)/python -m pytest -q --no-header tests/unit/test_layers.py

format: $(STAMP)  ## let ruff rewrite the sources
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(STAMP)  ## ratios against the limits that we set ourselves; results in build/bench.json
	@$(BIN)/python -m tests.bench

fuzz: $(STAMP)  ## random machines and software for FUZZ_SECONDS (60); a failure names the case that shows it again
	@$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60)

clean:  ## remove what was built here; downloads stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .vi-runs
	find vhost_iommu tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## the virtual environment too
	rm -rf $(VENV)
