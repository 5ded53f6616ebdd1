# Two commands: `make run` trains and compares on the bundled data, `make test` runs the tests.
# Both share one virtual environment, made with nothing but Python's own venv and pip (`make setup` alone).
#   another Python:    make run PYTHON=python3.12
#   other settings:    make run ARGS="--dataset=toy --epochs=5"
#   a CPU-only torch:  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make run

PYTHON ?= python3
ARGS ?=
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Threads that wait without spinning, which holds up other programs on the same cores, and them the threads.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup run test lint format help
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup: $(STAMP)

# DiffMM, Pop, BPR, LightGCN and EASE on ml-100k. LightGCN's learning rate is the better one of 0.001 and 0.005 there by
# validation recall, and converges sooner.
run: $(STAMP)
	$(BIN)/recbole-diffmm compare $(or $(ARGS),--LightGCN.learning_rate=0.005)

# One thread each for two workers: on so small a data set, more threads cost more than they give.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# constraints.txt names every package with its exact version, so it is installed as it stands. RecBole and this
# package then come without their dependency lists: RecBole's asks for a ray that is never used here, and that
# Python 3.12 and newer cannot install.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 14) else \
	    "error: Python 3.10 to 3.13 is needed, $(PYTHON) is %d.%d; say which with make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r $(CONSTRAINTS)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation recbole==1.2.1 -e .
	@touch $@
