"""The names that dm-acme 0.4.0 needs and newer JAX and Reverb no longer have.

dm-acme 0.4.0 is the newest release; it was written for JAX of 2022. Each alias
is set only where the name is missing, so that a JAX, Reverb or Acme that has it
is left alone.

| name | stands for | needed by |
|---|---|---|
| `jax.tree_map` | `jax.tree_util.tree_map` | everything |
| `jax.xla.Device`, `.DeviceArray` | `jax.Device`, `jax.Array` | jax/utils |
| `jax.pxla.ShardedDeviceArray` | `jax.Array` | `get_from_first_device` |
| `jnp.DeviceArray` | `jax.Array` | savers, utils, adders |

`acme.adders.reverb` also passes `get_signature_timeout_ms` to
`reverb.Client.trajectory_writer`, which dropped it; this project's adder opens
its writers itself and needs no alias for that.
"""

import contextlib
import importlib
import types

import jax
import jax.numpy as jnp


def missing_names() -> list[str]:
  """Returns which of the names JAX does not have, in the table's order."""
  return [name for name in _aliases() if not _has(name)]


def apply():
  """Prepares the process for Acme; a second call changes nothing.

  Sets the aliases that are missing, and drops the notice that gym, which Acme
  imports, prints to standard error at import.
  """
  for name, value in _aliases().items():
    if not _has(name):
      module, attribute = _split(name)
      setattr(module, attribute, value)
  # Its readers can do nothing about the gym that Acme needs.
  with contextlib.suppress(ModuleNotFoundError):
    notices = importlib.import_module("gym_notices.notices")
    notices.notices.clear()


def _aliases() -> dict[str, object]:
  return {
    "jax.tree_map": jax.tree_util.tree_map,
    "jax.xla": types.SimpleNamespace(
      Device=jax.Device, DeviceArray=jax.Array
    ),
    "jax.pxla": types.SimpleNamespace(ShardedDeviceArray=jax.Array),
    "jax.numpy.DeviceArray": jax.Array,
  }


def _split(name: str) -> tuple[types.ModuleType, str]:
  module, attribute = name.rsplit(".", 1)
  return {"jax": jax, "jax.numpy": jnp}[module], attribute


def _has(name: str) -> bool:
  module, attribute = _split(name)
  try:
    return hasattr(module, attribute)
  except Exception:  # A removed name may raise something of JAX's own.
    return False
