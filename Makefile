# `make study`, `make test`, `make lab`: each sets up .venv first and works on a fresh clone with Python 3.11 or newer.
# pip, not uv: torch's CPU build is found by pip's own configuration. Elsewhere, for a CPU build:
#   make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup study test lint lab quick bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements/constraints.txt frontend/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c requirements/constraints.txt $(PIP_ARGS) torch
	$(BIN)/python -m pip install -q -c requirements/constraints.txt $(PIP_ARGS) -e '.[dev]'
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 >/dev/null
	@if command -v npm >/dev/null; then npm ci --silent --prefix frontend; else echo "No npm: the tests of the browser side will be skipped"; fi
	touch $(STAMP)

study: setup
	$(BIN)/workbench study recipes/laptop/trap.yaml recipes/laptop/four-stages.yaml

quick: setup
	$(BIN)/workbench study --quick

test: setup
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadscope

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lab: setup
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

bench: setup
	for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b; done

clean:
	rm -rf runs data/glyphworld .cache
