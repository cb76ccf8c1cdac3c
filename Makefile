# make train   set up, then train the default agent on this machine
# make test    set up, then lint, type-check and test
# make setup   only set up: a virtual environment in .venv from requirements.lock
# make lint    ruff, mypy, and the layers of imports (import-linter)
# make docs    the documentation as a site, in site/
# make xm      XManager in .venv-xm, to launch on Vertex AI (docs/cloud.md)
# make lock    bring all locks up to date with pyproject.toml (needs uv);
#              FLAGS=--upgrade takes new versions
#
# STACK=current  setup, train and test: the one-host layer alone, in .venv-current
#                from requirements-current.lock, with Python 3.11 to 3.13
# ACCELERATOR=cpu|cuda12|cuda13|tpu  what JAX is installed for; found by
#                nvidia-smi unless set
# PYTHON=/path/to/python  which Python to set up with

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup train test lint docs xm lock

STACK ?= distributed
VENV := $(if $(filter current,$(STACK)),.venv-current,.venv)
CONFIG ?= configs/first_run.py
WORKDIR ?= runs/cartpole
FLAGS ?=

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

setup:
	@bash setup.sh $(STACK)

xm:
	@bash setup.sh xm

train: setup
	$(VENV)/bin/python -m programs.train --config=$(CONFIG) --num_actors=1 --workdir=$(WORKDIR) $(FLAGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo --no-cache

# What the one-host layer must prove on its own: that all of it loads, acts,
# trains, resumes and is evaluated with these packages. What does not depend on
# them, the oracles of the core for example, the whole suite proves.
CURRENT_TESTS := tests/core/test_imports.py tests/core/test_vtrace.py \
  tests/environments/test_atari.py tests/environments/test_control.py \
  tests/environments/test_gymnasium.py tests/evaluation/test_statistics.py \
  tests/evaluation/test_figures.py tests/evaluation/test_run_plots.py \
  tests/networks/test_networks.py tests/programs/launch/test_colocated.py \
  tests/programs/launch/test_serial.py tests/programs/nodes/test_logs.py \
  tests/test_accelerator.py tests/test_checkpointing.py tests/test_layers.py \
  tests/training

ifeq ($(STACK),current)
test: setup
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(CURRENT_TESTS) $(FLAGS)
else
test: lint
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(FLAGS)
endif

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

lock:
	bash locks/make.sh $(FLAGS)
