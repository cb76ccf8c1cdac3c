# make train   set up, then train the default agent on this machine
# make test    set up, then lint, type-check and test
# make setup   only set up: a virtual environment in .venv from requirements.lock
# make lint    ruff and mypy
# make lock    remake requirements.lock from pyproject.toml (needs uv)
#
# PYTHON=/path/to/python3.10 says which Python to set up with.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup train test lint lock

VENV_PYTHON := .venv/bin/python
CONFIG ?= configs/small.py:gymnasium:CartPole-v1
WORKDIR ?= runs/cartpole
FLAGS ?=

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

setup: .venv/.complete

.venv/.complete: requirements.lock pyproject.toml setup.sh
	@bash setup.sh .venv
	@touch $@

train: setup
	$(VENV_PYTHON) -m programs.train --config=$(CONFIG) --num_actors=1 --workdir=$(WORKDIR) $(FLAGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

test: lint
	$(VENV_PYTHON) -m pytest $(FLAGS)

lock:
	{ echo '# Exact versions and hashes of the whole environment (Linux x86-64, Python 3.10),'; \
	  echo "# installed without dependency resolution. Made from pyproject.toml by 'make lock'."; \
	  uv pip compile pyproject.toml --all-extras --python-version 3.10 \
	    --python-platform x86_64-manylinux_2_28 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url -q; } > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock
