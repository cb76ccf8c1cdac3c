# make train   set up, then train the default agent on this machine
# make test    set up, then lint, type-check and test
# make setup   only set up: a virtual environment in .venv from requirements.lock
# make lint    ruff, mypy, and the layers of imports (import-linter)
# make docs    the documentation as a site, in site/
# make xm      XManager in .venv-xm, to launch on Vertex AI (docs/cloud.md)
# make lock    bring requirements.lock up to date with pyproject.toml, and remake
#              those of xm_launch/ (needs uv); FLAGS=--upgrade takes new versions
#
# PYTHON=/path/to/python3.10 says which Python to set up with.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup train test lint docs xm lock

VENV_PYTHON := .venv/bin/python
CONFIG ?= configs/first_run.py
WORKDIR ?= runs/cartpole
FLAGS ?=

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

setup: .venv/.complete

.venv/.complete: requirements.lock pyproject.toml setup.sh
	@bash setup.sh .venv
	@touch $@

xm: .venv-xm/.complete

.venv-xm/.complete: xm_launch/requirements.lock setup.sh
	@bash setup.sh .venv-xm xm_launch/requirements.lock
	@touch $@

train: setup
	$(VENV_PYTHON) -m programs.train --config=$(CONFIG) --num_actors=1 --workdir=$(WORKDIR) $(FLAGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy
	PYTHONPATH=. .venv/bin/lint-imports --no-logo --no-cache

test: lint
	$(VENV_PYTHON) -m pytest -n 2 --dist worksteal $(FLAGS)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict

COMPILE := uv pip compile --python-version 3.10 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url -q
# Those of xm_launch/ are not for pyproject.toml's overrides. What an accelerator
# adds to requirements.lock must be of its JAX.
define lock_apart
	{ echo '# $(2)'; echo "# Made by 'make lock'."; \
	  echo '$(3)' | $(COMPILE) --no-config \
	    --python-platform x86_64-manylinux_2_31 -; } > xm_launch/$(1).lock.tmp
	mv xm_launch/$(1).lock.tmp xm_launch/$(1).lock
endef

lock:
	$(COMPILE) pyproject.toml --all-extras $(FLAGS) \
	  --python-platform x86_64-manylinux_2_28 -o requirements.lock
	sed -i -e "1i # Exact versions and hashes of the whole environment (Linux x86-64, Python 3.10),\n# installed without dependency resolution. Made from pyproject.toml by 'make lock'." requirements.lock
	$(call lock_apart,requirements,XManager and what it needs: .venv-xm.,xmanager==0.8.5.post1)
	$(call lock_apart,cuda12,What NVIDIA GPUs add to requirements.lock.,jax-cuda12-plugin[with-cuda]==0.6.2)
	$(call lock_apart,tpu,What TPUs add to requirements.lock.,libtpu==0.0.17.*)
