# The two commands: `make demo` and `make test`. Everything they need is installed into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
# the newest interpreter that is new enough; `make PYTHON=/path/to/python3.12 demo` names another
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# tests run on so many processes at once, one for each core that is usable here; `make test WORKERS=0` runs them in one
WORKERS ?= $(shell $(BIN)/python -c 'import os; print(len(os.sched_getaffinity(0)))' 2>/dev/null)
# `make test SEED=3` runs files, and the tests within each, in another order: the one that this seed gives
ORDER = $(if $(SEED),--random-order-bucket=module --random-order-seed=$(SEED) --no-loadscope-reorder)
PYTEST = $(BIN)/python -m pytest $(if $(WORKERS),-n $(WORKERS) --dist loadfile) $(ORDER)

# `make test ISA=avx2` (or any other target) holds our kernels to an instruction set, and PyTorch with what it computes by
# (oneDNN, MKL) too: ours alone would leave PyTorch on the widest.
ifdef ISA
COMMA := ,
LEVEL := $(firstword $(subst $(COMMA), ,$(ISA)))
ifeq ($(LEVEL),baseline)
export ATEN_CPU_CAPABILITY := default
export ONEDNN_MAX_CPU_ISA := SSE41
export MKL_ENABLE_INSTRUCTIONS := SSE4_2
else ifeq ($(LEVEL),avx2)
export ATEN_CPU_CAPABILITY := avx2
export ONEDNN_MAX_CPU_ISA := AVX2
export MKL_ENABLE_INSTRUCTIONS := AVX2
else ifeq ($(LEVEL),avx512)
export ATEN_CPU_CAPABILITY := avx512
export ONEDNN_MAX_CPU_ISA := AVX512_CORE
export MKL_ENABLE_INSTRUCTIONS := AVX512
else ifneq ($(LEVEL),neon)
$(error ISA=$(ISA): should begin with baseline, avx2, avx512 or neon, e.g. ISA=avx2 or ISA=avx512,-vnni)
endif
export DGC_NATIVE_ISA := $(ISA)
endif

.PHONY: demo test install install-dev format faults graphs sanitize bench bench-dashboard screenshots bursts distributed slow floors matrix fuzz dist docs rehearsal cluster clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       install, train the small demo on the CPU (no network), evaluate it, print the verdict"
	@echo "make test       install, then format, lint, types, import rules and tests: all that CI runs"
	@echo "                ISA=avx2 (baseline, avx512, neon) holds kernels and PyTorch to an instruction set"
	@echo "make slow       the full form of every heavy suite; one by one: faults distributed bursts graphs sanitize"
	@echo "make bench      the benchmarks; results go to benchmarks/results/"
	@echo "make matrix     the tests for each instruction set, load and order; make floors: on the lowest dependencies"
	@echo "make docs       the documentation as pages, into build/site"
	@echo "make format     put the sources into form"

# --- installing -----------------------------------------------------------------------------------------------------

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed and none was found (python3 is $$(python3 -V 2>&1)): install one, or name it with make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), and Python 3.11 or newer is needed: name one with make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment: install its venv package (Debian, Ubuntu: python3-venv)" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(wildcard dgc/kernels/cpu/src/* dgc/kernels/cpu/src/*/*) | $(VENV)/bin/python
	@echo "installing into $(VENV) (once; torch is large) ..." >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install torch torchvision </dev/null
	$(PIP) install -e . </dev/null
	@$(BIN)/python -c 'from dgc.kernels.cpu import describe; why = describe()["why_not"]; why and print("note:", why)' >&2
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(PIP) install -e '.[dev]' </dev/null
	touch $@

# --- the two commands -----------------------------------------------------------------------------------------------

demo: install
	@$(BIN)/dgcctl train recipes/demo.yaml > /dev/null
	@echo
	@$(BIN)/dgcctl eval --run latest
	@echo
	@$(BIN)/dgcctl runs show latest

test: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow" </dev/null

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# --- heavy suites ---------------------------------------------------------------------------------------------------

slow: install-dev
	$(PYTEST) -m slow </dev/null

faults: install-dev
	DGCCTL_FAULT_TABLE=docs/faults.md $(PYTEST) tests/faults </dev/null

distributed: install-dev
	$(PYTEST) tests/distributed </dev/null

bursts: install-dev
	$(BIN)/python -m pytest -m slow tests/tui -s </dev/null

# the lowest versions that pyproject.toml promises, in an environment of their own
FLOORS = .venv-floors
floors: install-dev
	$(PIP) install uv </dev/null
	$(PYTHON) -m venv $(FLOORS)
	$(BIN)/uv pip compile -q --resolution lowest-direct --extra dev --python $(FLOORS)/bin/python \
		pyproject.toml -o $(FLOORS)/requirements.txt
	$(BIN)/uv pip install -q --python $(FLOORS)/bin/python -r $(FLOORS)/requirements.txt
	$(FLOORS)/bin/python -m pip install -q --no-deps -e . </dev/null
	PATH="$(CURDIR)/$(FLOORS)/bin:$$PATH" $(subst $(BIN)/python,$(FLOORS)/bin/python,$(PYTEST)) -m "not slow" </dev/null

# the suite for each instruction set, under each load, in several orders; it goes on where it was stopped
matrix: install-dev
	$(BIN)/python -m tests.matrix $(MATRIX)

# sweeps and searches on a real Slurm, two nodes on this machine (root; installs Debian's packages of Slurm if they are absent)
cluster: install-dev
	command -v slurmctld >/dev/null || { apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge; }
	$(PIP) install -q 'optuna>=4.0' </dev/null
	$(BIN)/python -u -m tests.cluster

# two machines as network namespaces: a cable is cut, a machine killed in mid-epoch (root; iproute2)
rehearsal: install-dev
	command -v ip >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends iproute2; }
	$(BIN)/python -u -m tests.rehearsal

screenshots: install-dev
	$(BIN)/python -m tests.tui.screenshots

bench-dashboard: install-dev
	$(PIP) install -e '.[bench-dashboard]' </dev/null
	$(BIN)/python -m benchmarks.dashboard

graphs: install-dev
	$(BIN)/python -m tests.graph_check

# plan files from strangers, made up under sanitizers; FUZZ_SECONDS=600 goes on longer (needs clang++ to be guided)
fuzz: install-dev
	$(BIN)/python -m tests.native.fuzz --seconds $(or $(FUZZ_SECONDS),60)

sanitize: install-dev
	$(PYTEST) -m slow -k sanitize </dev/null

# an sdist and wheels, checked, into dist/ (release/README.md)
dist: install-dev
	$(BIN)/python -m release.dist

# the documentation as pages, into build/site: no broken link, nothing from a network
docs: install-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo build/site/index.html

bench: install
	$(PIP) install -e '.[bench]' </dev/null
	$(BIN)/python -m dgc.bench
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf .venv-floors build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
