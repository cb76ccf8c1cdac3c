"""Spreads the loop over several devices: its seeds, or one run's batch."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from acme_stac.core.types import Trajectory
from acme_stac.on_device.loop import LoopState

_AXIS = "devices"


def shard_runs(state: Any, devices: Sequence[jax.Device]) -> Any:
  """Spreads runs over devices: every leaf [runs, ...] along its first axis.

  Functions jitted over `jax.vmap` of a trainer's then run on all of them. Runs
  do not communicate.

  Args:
    state: nest of arrays, such as a vmapped `LoopState`.
    devices: the devices; their number must divide that of the runs.

  Raises:
    ValueError: if the runs cannot be spread evenly.
  """
  _check_even(len(jax.tree_util.tree_leaves(state)[0]), "runs", devices)
  return jax.device_put(state, sharding_along(0, devices))


def shard_batch(state: LoopState, devices: Sequence[jax.Device]) -> LoopState:
  """Spreads the environments of one run over devices.

  The parameters are replicated; gradients and metagradients are those of the
  whole batch.

  Args:
    state: state of a run that is not vmapped.
    devices: the devices; their number must divide that of the environments.

  Raises:
    ValueError: if the environments cannot be spread evenly.
  """
  _check_even(len(state.environments.length), "environments", devices)
  replicated = sharding_along(None, devices)
  members = sharding_along(0, devices)
  rows = sharding_along(1, devices)
  put = jax.device_put
  ahead = state.ahead
  if isinstance(ahead, Trajectory):
    ahead = put(ahead._replace(core_state=()), rows)._replace(
      core_state=put(ahead.core_state, members)
    )
  return LoopState(
    training=put(state.training, replicated),
    environments=put(state.environments, members),
    acting=put(state.acting, members),
    key=put(state.key, replicated),
    hyperparameters=put(state.hyperparameters, replicated),
    overlap=put(state.overlap, rows),
    ahead=ahead,
  )


def sharding_along(
  axis: int | None, devices: Sequence[jax.Device]
) -> NamedSharding:
  """Returns how arrays are spread along an axis, or replicated for None."""
  spec = PartitionSpec() if axis is None else PartitionSpec(
    *[None] * axis, _AXIS
  )
  return NamedSharding(Mesh(np.array(devices), (_AXIS,)), spec)


def _check_even(number: int, what: str, devices: Sequence[jax.Device]):
  if number % len(devices):
    raise ValueError(
      f"{number} {what} cannot be spread evenly over {len(devices)} devices:"
      " the number of devices must divide it."
    )
