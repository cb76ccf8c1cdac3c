"""Aliases in JAX for names that dm-acme 0.4.0 needs and newer JAX has removed.

dm-acme 0.4.0, the newest release, was written for JAX of 2022. An alias is set
only if the name is missing.

| name | stands for | needed by |
|---|---|---|
| `jax.tree_map` | `jax.tree_util.tree_map` | everything |
| `jax.xla.Device`, `.DeviceArray` | `jax.Device`, `jax.Array` | jax/utils |
| `jax.pxla.ShardedDeviceArray` | `jax.Array` | `get_from_first_device` |
| `jnp.DeviceArray` | `jax.Array` | savers, utils, adders |
"""

import contextlib
import importlib
import types

import jax
import jax.numpy as jnp

_ALIASES = (
  (jax, "tree_map", jax.tree_util.tree_map),
  (jax, "xla", types.SimpleNamespace(Device=jax.Device, DeviceArray=jax.Array)),
  (jax, "pxla", types.SimpleNamespace(ShardedDeviceArray=jax.Array)),
  (jnp, "DeviceArray", jax.Array),
)


def apply():
  """Prepares the process for importing Acme.

  Sets missing aliases, and suppresses the notice that gym, which Acme imports,
  prints to standard error.
  """
  for module, name, value in _ALIASES:
    if not _has(module, name):
      setattr(module, name, value)
  with contextlib.suppress(ModuleNotFoundError):
    notices = importlib.import_module("gym_notices.notices")
    notices.notices.clear()


def _has(module: types.ModuleType, name: str) -> bool:
  try:
    return hasattr(module, name)
  except Exception:  # For a removed name, JAX may raise any error.
    return False
