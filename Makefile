# make train   set up, then train the default agent on this machine
# make test    set up, then lint, type-check and test
# make setup   only set up: make a virtual environment, .venv, from requirements.lock
# make lint    run ruff, mypy, and import-linter (layers of imports)
# make docs    build the documentation as a site, in site/
# make xm      install XManager in .venv-xm, to launch on Vertex AI (docs/cloud.md)
# make lock    bring all locks up to date with pyproject.toml (needs uv);
#              FLAGS=--upgrade takes new versions
#
# STACK=current  set up, train and test only the one-host layer, in .venv-current
#                from requirements-current.lock, with Python 3.11 to 3.13
# ACCELERATOR=cpu|cuda12|cuda13|tpu  the device that JAX is installed for; by
#                default chosen according to nvidia-smi
# PYTHON=/path/to/python  the Python to set up with

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

# Tests of the one-host layer: that all of it loads, acts, trains, resumes and is
# evaluated with these packages. The whole suite covers what does not depend on
# the packages, such as the oracles of the core.
CURRENT_TESTS := tests/core/test_imports.py tests/core/test_vtrace.py \
  tests/environments/test_atari.py tests/environments/test_control.py \
  tests/environments/test_gymnasium.py tests/evaluation \
  tests/networks/test_networks.py tests/on_device \
  tests/programs/launch/test_colocated.py \
  tests/programs/launch/test_on_device.py \
  tests/programs/launch/test_serial.py tests/programs/nodes/test_logs.py \
  tests/programs/test_report.py tests/test_accelerator.py \
  tests/test_checkpointing.py tests/test_layers.py \
  tests/training/test_actor.py tests/training/test_adder.py \
  tests/training/test_imports.py tests/training/test_local_queue.py

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
