# Everything a user or a build machine runs. GNU make 3.81 or newer.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
SCENE ?= default
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# The first interpreter that runs and is one the lock file has wheels for. A name on PATH is not
# enough: version managers put names there that only print an error.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.14 python3.11 python; do \
	if $$name -c '$(SUITABLE)' >/dev/null 2>&1; then echo $$name; break; fi; done)

.PHONY: help setup report test test-all synth lint bench docs lock clean tools node dot
.DEFAULT_GOAL := help

help:
	@echo "make setup     .venv from requirements.lock, splatforge in it, editable"
	@echo "make report    setup, then the main job on the default scene -> build/report/index.html"
	@echo "make test      setup, then unit, property, block and one-frame tests"
	@echo "make test-all  the same and the whole matrix of frames, scenes and stalls"
	@echo "make synth     small units in standard cells, and what has changed since the baseline"
	@echo "make lint      ruff, and pyright on the installed package"
	@echo "make bench     the renderer beside its naive twin, as a ratio"
	@echo "make docs      the documentation, warnings as errors -> build/docs/index.html"
	@echo "make lock      requirements.lock anew from pyproject.toml"
	@echo "make clean     remove build/"

setup: $(STAMP)

# An environment whose interpreter has gone (moved folder, upgraded Python) is made again.
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell $(BIN)/python -c 'import splatforge' 2>/dev/null || echo broken),)
.PHONY: $(STAMP)
endif
endif

$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "splatforge needs Python 3.11 to 3.14 with venv; none found" \
			"(Debian, Ubuntu: apt install python3 python3-venv; else: make PYTHON=/path/to/python)" >&2; \
		exit 2; fi
	@$(PYTHON) -c '$(SUITABLE)' 2>/dev/null || { \
		echo "splatforge needs Python 3.11 to 3.14 with venv, and $(PYTHON) is not one" \
			"(Debian, Ubuntu: apt install python3 python3-venv)" >&2; exit 2; }
	@echo "$(PYTHON) is $$($(PYTHON) --version); installing into $(VENV)"
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .
	@touch $@

# Verilator writes C++ and needs a compiler. It is started without its launcher, which is in Perl,
# and without the makefiles of cocotb: nothing else is needed.
tools:
	@command -v "$${CXX:-g++}" >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 || { \
		echo "splatforge needs a C++ compiler to build the simulation" \
			"(Debian, Ubuntu: apt install g++)" >&2; exit 2; }

node:
	@command -v node >/dev/null 2>&1 || { \
		echo "make lint needs Node.js for pyright (Debian, Ubuntu: apt install nodejs)" >&2; exit 2; }

report: tools $(STAMP)
	@mkdir -p build/report
	$(BIN)/splatforge report --scene $(SCENE) -o build/report/index.html \
		--json build/report/report.json

test: tools $(STAMP)
	$(PYTEST) -m "not matrix"

test-all: tools $(STAMP)
	$(PYTEST)

# The units that Yosys maps in a minute; the array and GSCore's sorters take a quarter of an hour and are
# for `splatforge synth` by hand. After a change that is meant: the same with --json in --against's
# place.
synth: $(STAMP)
	@if [ -e /usr/share/qflow/tech/osu018/osu018_stdcells.lib ]; then \
		$(BIN)/splatforge synth raster --library osu018 --unit fetch --unit registers \
			--unit resolve --unit shell --against synth/baseline_raster.json && \
		$(BIN)/splatforge synth gscore --library osu018 --unit lists --unit qsu \
			--unit registers --unit shell --against synth/baseline_gscore.json && \
		$(BIN)/splatforge synth lumina --library osu018 --unit radiance --unit registers \
			--unit shell --unit tilelists --against synth/baseline_lumina.json && \
		$(BIN)/splatforge synth streaminggs --library osu018 --unit registers --unit shell \
			--unit vsort --against synth/baseline_streaminggs.json && \
		$(BIN)/splatforge synth voyager --preset 16-lane --library osu018 --unit falloff \
			--against synth/baseline_voyager.json; \
	else echo "make synth needs a cell library (Debian: apt install qflow-tech-osu018)"; fi

# pyright cannot follow the import hook of an editable install: it reads an installed copy.
lint: node $(STAMP)
	$(BIN)/ruff check .
	@rm -rf build/check build/lib build/bdist.* && mkdir -p build/check
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --target build/check .
	@echo '{"include": ["splatforge"], "extraPaths": ["."], "pythonVersion": "3.11",' \
		'"typeCheckingMode": "standard", "reportWildcardImportFromLibrary": false}' \
		> build/check/pyrightconfig.json
	$(BIN)/pyright --project build/check --pythonpath $(BIN)/python

# A diagram is laid out by Graphviz; everything else that the pages need is in the environment.
dot:
	@command -v dot >/dev/null 2>&1 || { \
		echo "make docs needs Graphviz (Debian, Ubuntu: apt install graphviz)" >&2; exit 2; }

docs: dot $(STAMP)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	$(BIN)/python docs/offline.py build/docs

bench: $(STAMP)
	$(BIN)/python bench/render.py

# One file for every Python and platform; the versions alone, since where they come from is the
# business of whoever installs. `uv` is in the environment.
lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --upgrade \
		--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
		pyproject.toml -o requirements.lock

clean:
	rm -rf build
