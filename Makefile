# Every target makes the environment first; `make reproduce` and `make test` work as the first command after a clone.
VENV := .venv
BIN := $(VENV)/bin
# the first Python 3.10 to 3.12 with venv; override with make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
TORCH := $(shell grep '^torch==' constraints.txt)
JOBS ?= 2

# real data: a mirror folder beside the checkout is used where there is one
ifneq ($(wildcard ../shared/data),)
export PAPER_DIGEST_DATA ?= $(abspath ../shared/data)
endif

.PHONY: setup reproduce test docs lab bench check clean hooks
.DEFAULT_GOAL := help

help:
	@echo "make reproduce   tables of the headline recipes, published beside measured"
	@echo "make test        all tests"
	@echo "make lab         JupyterLab on the tour"
	@echo "make docs        the site, in _site/"
	@echo "make bench       benchmarks against peers"
	@echo "make check       notebooks and package in step, notebooks clean"
	@echo "make hooks       notebook hooks for contributors (git and Jupyter)"
	@echo "make clean       remove what can be built again (keeps runs/ and .venv/)"

setup: $(VENV)/.ready

# The CPU build of torch is taken wherever pip can see one; the default build for Linux brings several GB of CUDA libraries.
$(VENV)/.ready: settings.ini setup.py pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10 to 3.12 with venv found; install one or run make PYTHON=/path/to/python"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setup: Python packages into $(VENV) (minutes, once)"
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt '$(TORCH)+cpu' 2>/dev/null \
	  || { echo "setup: pip sees no CPU build of torch, taking the default build (several GB on Linux; to avoid it add PyTorch's CPU index to pip's configuration)"; \
	       $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt '$(TORCH)'; }
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt 'setuptools<81' wheel
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@git rev-parse --git-dir >/dev/null 2>&1 && git config --local include.path ../.gitconfig || true
	@touch $@

# without data and network the recipes end as skipped, with the reason, and that is no failure
reproduce: setup
	@$(BIN)/paper-digest data pull || true
	@$(BIN)/paper-digest reproduce --jobs $(JOBS)

test: setup
	@$(BIN)/python -m pytest tests

docs: setup
	@$(BIN)/paper-digest reproduce --all --jobs $(JOBS) > /dev/null
	@$(BIN)/python docs/build.py

lab: setup
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/index.ipynb $(LAB_ARGS)

bench: setup
	@for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

check: setup
	@$(BIN)/python -m pytest tests/test_sync.py tests/test_layers.py tests/test_form.py

hooks: setup
	@$(BIN)/nbdev_install_hooks

clean:
	@rm -rf _proc _site artifacts build dist .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
