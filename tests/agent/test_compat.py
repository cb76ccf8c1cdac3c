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
print(compat.missing_names())
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
  assert result.stdout == "[]\n", result.stderr


def test_missing_names_are_listed():
  result = run(
    """
import sys, types
fake = types.ModuleType("acme_stac.agent")
import acme_stac, os
fake.__path__ = [os.path.join(acme_stac.__path__[0], "agent")]
sys.modules["acme_stac.agent"] = fake
from acme_stac.agent import compat
print(len(compat.missing_names()))
"""
  )
  assert result.stdout == "4\n", result.stderr
