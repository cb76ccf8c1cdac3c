import subprocess
import sys


def run(code):
  return subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )


def test_aliases_are_what_acme_needs():
  """Acme's JAX agents import with them, and not without."""
  probe = "import acme.agents.jax.impala; print('imported')"
  assert "imported" not in run(probe).stdout
  result = run("import acme_stac.agent\n" + probe)
  assert result.stdout == "imported\n", result.stderr


def test_only_missing_names_are_set():
  result = run(
    """
import types
import jax, jax.numpy as jnp
from acme_stac.agent import compat  # Applies them.
assert jax.tree_map is jax.tree_util.tree_map
assert jax.xla.Device is jax.Device and jnp.DeviceArray is jax.Array
ours = jax.xla
compat.apply()
assert jax.xla is ours
# A JAX that has the names is left alone.
theirs = types.SimpleNamespace(Device=int)
jax.xla = theirs
jax.tree_map = len
compat.apply()
assert jax.xla is theirs and jax.tree_map is len
"""
  )
  assert result.returncode == 0, result.stderr
