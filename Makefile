# Every target does its own set-up: Python ≥ 3.11 and make are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The demo needs little: an environment of its own, unless the large one is there.
DEMO_VENV := $(if $(wildcard $(VENV)/.installed),$(VENV),.venv-demo)

.PHONY: help test quick demo lint format clean

help:
	@echo "make demo    watch a small trained model in its made-up world, without PyTorch; results in demo-out/"
	@echo "make test    everything CI tests, full-size ImageBind included (about 15 minutes on two cores)"
	@echo "make quick   the tests without the slow ones"
	@echo "make lint    ruff, mypy and the import rules"

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

test: $(STAMP)
	$(BIN)/python -m pytest

quick: $(STAMP)
	$(BIN)/python -m pytest -m 'not slow'

.venv-demo/.installed: pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-demo
	PYTHONWARNINGS=ignore .venv-demo/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
	@touch $@

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/ovavel demo --out demo-out

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-demo build dist demo-out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
