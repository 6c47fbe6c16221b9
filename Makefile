# What a person, and CI, asks of this checkout. Every target starts from a bare one: it needs make
# and a Python of at least 3.11, and makes .venv with the versions that constraints.txt pins.

PYTHON ?= python3
PIP_FLAGS ?=
NAME ?= simulate
WITH ?=
KEY ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

# Stamps: nothing is installed again while what they depend on has not changed.
MADE := $(VENV)/.made
FOR_RUNS := $(VENV)/.installed-for-runs
FOR_WORK := $(VENV)/.installed-for-work

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-deploy test-long check bench verifier wheel wheelhouse clean

help:
	@echo "make install   the environment in $(VENV), with all that developing needs"
	@echo "make demo      a whole federation on this machine; installs only what a run needs"
	@echo "make test      format, lint, types, rooms, tests"
	@echo "make test-deploy coordinators behind nginx and hospitals as real processes, and faults"
	@echo "make test-long what takes minutes beside: the guide word by word, a wheelhouse, the bench"
	@echo "make check     exactly what CI runs"
	@echo "make bench     a comparison: make bench NAME=methods WITH='data=digits'"
	@echo "make verifier  dist/fedkd-verify.pyz, which checks logs and needs cryptography and rfc8785"
	@echo "make wheel     dist/*.whl and dist/*.tar.gz"
	@echo "make wheelhouse dist/wheelhouse, to install a site without internet: make wheelhouse KEY=my.key"
	@echo "make clean     takes away what the above left, runs/ excepted"
	@echo
	@echo "PYTHON=python3.12 picks another Python, PIP_FLAGS goes to pip install."

install: $(FOR_WORK)

# Where an environment for work is there already, the demo uses that one.
demo: $(if $(wildcard $(FOR_WORK)),$(FOR_WORK),$(FOR_RUNS))
	$(BIN)/fedkd simulate

test: $(FOR_WORK)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not deploy and not long"

# By themselves: each starts a dozen processes that import torch, and waits for them; two wait at once.
test-deploy: $(FOR_WORK)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m deploy -rs tests/stories tests/deploy

# The guide, an update, proxies, who is called, Flower's own SuperNodes, a wheelhouse, the bench.
test-long: $(FOR_WORK)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long -rs tests/stories tests/deploy

check:
	bash .ci/run

bench: $(FOR_WORK)
	$(BIN)/fedkd bench $(NAME) $(WITH)

# Nothing is installed for it: what packs the verifier needs Python alone.
verifier:
	$(PYTHON) -I fedkd/cli/verifier.py dist/fedkd-verify.pyz

wheel: $(FOR_WORK)
	$(BIN)/python -m build

# Every wheel for a site like this machine, with hashes; the folder is brought there by hand.
wheelhouse: $(FOR_WORK)
	rm -rf dist/wheelhouse
	$(BIN)/python -m fedkd.cli.wheelhouse make dist/wheelhouse $(if $(KEY),--key $(KEY)) -- $(PIP_FLAGS)

clean:
	rm -rf $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*

$(MADE):
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "error: found no $(PYTHON), expected Python 3.11 or newer; install it, or say which: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: found $$($(PYTHON) --version 2>&1), expected Python 3.11 or newer; say which: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: $(PYTHON) cannot make an environment; on Debian and Ubuntu install python3-venv" >&2; exit 2; }
	@touch $@

$(FOR_RUNS): $(MADE) pyproject.toml constraints.txt
	@echo "installing what a run needs into $(VENV); the first time this takes minutes" >&2
	$(INSTALL) -e .
	@touch $@

$(FOR_WORK): $(MADE) pyproject.toml constraints.txt
	@echo "installing what developing needs into $(VENV); the first time this takes minutes" >&2
	$(INSTALL) -e '.[dev]'
	@touch $@ $(FOR_RUNS)
