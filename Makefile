# make demo   set up, then turn "a teddy bear" into a textured mesh
# make app    set up, then serve the page on 127.0.0.1
# make test   set up, then run every check that needs no GPU
#
# All make their own virtual environment. PYTHON=... picks the interpreter, PROMPT=... and OUT=... are the demo's, APP=...
# holds options of `sds3d app`, WORKERS=... is the number of processes that run tests.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROMPT ?= a teddy bear
OUT ?= runs/demo
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# What an installed environment depends on; Python files are used in place and need no new install.
SOURCES := $(wildcard pyproject.toml constraints.txt CMakeLists.txt renderers/csrc/*.cpp renderers/csrc/*.h guidance/csrc/*.cpp)

# Tests share the machine: idle worker threads sleep there. A run on an idle machine is faster where they spin.
pytest test-slow: export OMP_WAIT_POLICY := passive

.PHONY: help demo app test lint pytest test-slow format constraints clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -6

demo: $(VENV)/.for-runs
	@if [ -f "$(OUT)/asset.glb" ]; then echo "Made before; for another: make demo OUT=runs/other PROMPT='a cat'"; \
	elif [ -f "$(OUT)/run.yaml" ]; then $(BIN)/sds3d resume "$(OUT)"; \
	else $(BIN)/sds3d generate "$(PROMPT)" --prior mini-3d --out "$(OUT)"; fi
	@echo "The asset: $(abspath $(OUT))/asset.glb"

app: $(VENV)/.for-app
	@$(BIN)/sds3d app --open $(APP)

test: lint pytest

lint: $(VENV)/.for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

pytest: $(VENV)/.for-tests
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

test-slow: $(VENV)/.for-tests
	$(BIN)/python -m pytest -q -m "slow and not cuda"

# Puts the sources in the shape that `make test` asks for.
format: $(VENV)/.for-tests
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

# Rewrites constraints.txt from a fresh environment.
constraints:
	PYTHON="$(PYTHON)" .ci/constraints

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "sds3d needs Python 3.10 or newer; none was found (set PYTHON=...)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit("sds3d needs Python 3.10 or newer, not " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.for-runs: $(SOURCES) | $(BIN)/python
	@echo "Installing sds3d into $(VENV) (the first time takes a minute or two)"
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.for-app: $(SOURCES) | $(BIN)/python
	@echo "Installing sds3d and its page into $(VENV) (the first time takes a minute or two)"
	$(PIP_INSTALL) -e ".[app]"
	@touch $(VENV)/.for-runs $@

$(VENV)/.for-tests: $(SOURCES) | $(BIN)/python
	@echo "Installing sds3d and its checks into $(VENV) (the first time takes a minute or two)"
	$(PIP_INSTALL) -e ".[dev,train,hub,app]"
	@touch $(VENV)/.for-runs $@
