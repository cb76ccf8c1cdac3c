"""Importing prints nothing and changes nothing in the process."""

import subprocess
import sys

import pytest


def run(code):
  return subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=200
  )


@pytest.mark.parametrize("code", [
  "import acme_stac; acme_stac.STACBuilder; import acme.agents.jax.impala",
  "from programs.run import machine; machine.check(); "
  "import programs.launch.graph",
  "from programs import evaluate, report, sweep, export",
])
def test_importing_prints_nothing(code):
  result = run(code)
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_importing_the_package_changes_nothing():
  result = run("""
import logging, os, signal, sys, types, warnings
import jax, jax.numpy, numpy  # Of which some set filters themselves.

def names(module):  # Submodules appear as they are imported.
  return {
    name for name, value in vars(module).items()
    if not isinstance(value, types.ModuleType)
  }

def process():
  return {
    "jax": names(jax),
    "jax.numpy": names(jax.numpy),
    "jax.config": dict(jax.config.values),
    "warnings": list(warnings.filters),
    "environment": dict(os.environ),
    "signals": [signal.getsignal(s) for s in signal.valid_signals()],
    "handlers": list(logging.getLogger().handlers),
    "levels": logging.getLogger().level,
    "path": list(sys.path),
  }

before = process()
import acme_stac
acme_stac.environments, acme_stac.load_policy, acme_stac.make_networks
import acme_stac.training
for name, value in process().items():
  if value != before[name]:
    print(name, "changed")
for module in ("acme", "launchpad", "reverb", "tensorflow", "matplotlib",
               "gym", "gymnasium", "dm_control"):
  if module in sys.modules:
    print(module, "imported")
""")
  assert (result.stdout, result.stderr) == ("", "")
