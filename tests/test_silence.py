"""Importing prints nothing: neither to the terminal nor to the logs."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("code", [
  "import acme_stac; acme_stac.STACBuilder",
  "import acme_stac; acme_stac.environments; acme_stac.load_policy",
  "import acme_stac.agent; import acme.agents.jax.impala",
  "from programs.run import machine; machine.check(); "
  "import programs.launch.graph",
  "from programs import evaluate, report, sweep, export",
])
def test_importing_prints_nothing(code):
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=200
  )
  assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
