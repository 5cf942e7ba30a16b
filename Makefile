# Every target does its own set-up: Python ≥ 3.11 and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Tests start hundreds of processes, and each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

# The demo needs little: an environment of its own, unless the large one is there.
DEMO_VENV := $(if $(wildcard $(VENV)/.installed),$(VENV),.venv-demo)

.PHONY: help test quick proof other-pythons oldest demo watch docs linkcheck lint format clean

help:
	@echo "make demo    watch a small trained model in its made-up world, without PyTorch; results in demo-out/"
	@echo "make watch   watch three cameras of that world on a page, http://127.0.0.1:8470/; Ctrl-C ends it"
	@echo "make test    everything CI tests, full-size ImageBind included (about half an hour on two cores)"
	@echo "make quick   the tests without the slow ones"
	@echo "make proof   the tests three times under load, in reverse, and without the programs that CI installs"
	@echo "make other-pythons   the tests that need no PyTorch, on each newer Python that is found here"
	@echo "make oldest  all but the full-size tests with the oldest versions that pyproject.toml allows"
	@echo "make lint    ruff, mypy, the import rules, and biome for CSS and JavaScript"
	@echo "make docs    the documentation site in build/docs: open build/docs/index.html"
	@echo "make linkcheck   whether the documentation's links to other sites still work; needs the network"

CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "ovavel needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }

# The stamp holds what was installed from, so that a changed project file installs again.
STAMP := $(VENV)/.installed
$(STAMP): pyproject.toml constraints.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# torch first and alone, so that pip takes the build named in constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@# setuptools warns of every editable install
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	@touch $@

# Side by side, a file in one process; the largest first. One more than there are cores, for some tests listen and wait.
PYTEST := $(BIN)/python -m pytest -n $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
ALONE := $(BIN)/python -m pytest

test: $(STAMP)
	$(PYTEST) --durations=25 -m 'not alone and not proof'
	$(ALONE) -m 'alone and not proof'

quick: $(STAMP)
	$(PYTEST) --durations=25 -m 'not alone and not slow and not proof'
	$(ALONE) -m 'alone and not slow and not proof'

# What no machine may change.
proof: $(STAMP)
	for time in 1 2 3; do .ci/busy $(PYTEST) -m 'not alone and not proof' && .ci/busy $(ALONE) -m 'alone and not proof' || exit 1; done
	$(PYTEST) -m 'not alone' --reverse --hypothesis-profile=proof
	$(ALONE) -m 'alone and proof'
	CI= .ci/without $(PYTEST) -m 'not alone and not full_size and not proof'

other-pythons:
	.ci/other-pythons

oldest:
	PYTHON=$(PYTHON) .ci/oldest

.venv-demo/.installed: pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-demo
	PYTHONWARNINGS=ignore .venv-demo/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
	@touch $@

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/ovavel demo --out demo-out

# Into the large environment: the pages of the API are made by importing what they document.
DOCS_STAMP := $(VENV)/.docs-installed
$(DOCS_STAMP): $(STAMP)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev,docs]'
	@touch $@

# Warnings are errors, so each time all is built. Sphinx checks the links of the pages; the test checks those of README.md and CONTRIBUTING.md, too.
.venv-demo/.serve-installed: .venv-demo/.installed
	PYTHONWARNINGS=ignore .venv-demo/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,serve]'
	@touch $@

PORT ?= 8470
watch: $(if $(wildcard $(VENV)/.installed),$(STAMP),.venv-demo/.serve-installed)
	$(DEMO_VENV)/bin/ovavel demo-site --port $(PORT) --out watch-out

docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx --builder html --fresh-env --write-all --fail-on-warning --keep-going --quiet docs build/docs
	$(BIN)/python -m pytest -q tests/docs/test_links.py
	@echo "open build/docs/index.html"

linkcheck: $(DOCS_STAMP)
	$(BIN)/python -m sphinx --builder linkcheck docs build/linkcheck

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python docs/layers.py
	@# Package indexes have biome for Linux on x86-64 alone
	@if [ -x $(BIN)/biome ]; then $(BIN)/biome ci; else echo "biome is not installed: CSS and JavaScript were not linted"; fi

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if [ -x $(BIN)/biome ]; then $(BIN)/biome check --write; fi

clean:
	rm -rf $(VENV) .venv-* build dist demo-out watch-out *.egg-info namespace/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
