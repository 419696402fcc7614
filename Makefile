# SPDX-License-Identifier: Apache-2.0
#
# Everything here sets itself up: on a Debian with Python 3.11 and nothing else, 'make demo' and 'make test' suffice.
# The virtual environment is made again only when pyproject.toml changes, the compiled core when its sources do; guests
# are fetched once, into a cache.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
READY := $(VENV)/.core
WRITER := $(VENV)/.docs
LIBVIRT := $(VENV)/.libvirt
CORE := vhost_iommu/_core
IN_C := $(MAKE) --no-print-directory -f tests/core/Makefile

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help venv core libvirt demo test check manual man format bench fuzz mutants clean distclean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

venv: $(READY)  ## make the virtual environment in .venv

core: $(READY)  ## compile the core again if its sources changed

$(STAMP): pyproject.toml tools/setup
	@tools/setup $(PYTHON) $(VENV)
	@touch $@

# By the same hook as pip's builds, which says why if it cannot; then the next make tries again.
$(READY): $(STAMP) hatch_build.py $(wildcard $(CORE)/*.[ch] $(CORE)/*.pyx $(CORE)/*.pxd)
	@$(BIN)/python -m hatchling build --target wheel:editable --hooks-only
	@if compgen -G '$(CORE)/door.*.so' >/dev/null; then touch $@; fi

# What makes the manual, which who runs guests does without.
$(WRITER): $(STAMP)
	@tools/setup $(PYTHON) $(VENV) docs
	@touch $@

# libvirt's daemon too, where that is ours to install; its Python module is compiled against the headers.
$(LIBVIRT): $(STAMP)
	@tools/setup $(PYTHON) $(VENV) libvirt
	@touch $@

libvirt: $(READY) $(LIBVIRT)  ## install what 'vhost-iommu run --launcher libvirt' takes

demo: $(READY)  ## run the guests and show what happened; the first time it downloads about 210 MB
	@$(BIN)/vhost-iommu demo

test: $(READY)  ## every test, the quick ones first; the first time it downloads about 340 MB more than the demo
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(READY) $(WRITER)  ## style, types, generated tables, the manual, who imports whom, and the C core under sanitizers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m vhost_iommu.reference --check
	@$(BIN)/python -m vhost_iommu.header --check
	@$(BIN)/python -m pytest -q --no-header tests/unit/test_layers.py
	@$(MAKE) --no-print-directory manual
	@$(IN_C) check

manual: $(READY) $(WRITER)  ## the manual, in build/manual; a link that leads nowhere is an error
	@$(BIN)/sphinx-build -q -a -n -W --keep-going -d build/manual.cache docs build/manual

man: $(READY)  ## man pages and completion for shells, below build/share as below a prefix's share
	@$(BIN)/python -m tools.man build

format: $(STAMP)  ## let ruff rewrite the sources
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(READY)  ## ratios against the limits that we set ourselves; results in build/bench.json; ROWS="TLB hit; DMA copy": those whose names begin so
	@$(BIN)/python -m tests.bench "$(ROWS)"

fuzz: $(READY)  ## random machines and software for FUZZ_SECONDS (60), then the C core alone; a failure names its case
	@$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60)
	@$(IN_C) fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60)

mutants: $(READY)  ## whether each of some 150 mistakes put into the C core is found; about ten minutes
	@$(BIN)/python -m tests.core.mutants

clean:  ## remove what was built here; downloads stay
	rm -rf build dist $(READY) $(CORE)/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .vi-runs
	find vhost_iommu tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## the virtual environment too
	rm -rf $(VENV)
