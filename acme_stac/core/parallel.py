"""Data parallelism: updates with batches that are split over devices."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from acme_stac.config import STACConfig
from acme_stac.core.types import Trajectory, Update


class DataParallel(NamedTuple):
  """An update whose batches are split over devices.

  Attributes:
    update: `Update.update`, jitted.
    state_sharding: sharding of the state, which is replicated.
    trajectory_sharding: sharding of a batch, which is split along B.
  """

  update: jax.stages.Wrapped
  state_sharding: NamedSharding
  trajectory_sharding: Trajectory

  def put(self, trajectory: Trajectory) -> Trajectory:
    """Splits a batch [T+1, B, ...] over the devices."""
    return Trajectory(*map(
      jax.device_put, trajectory, self.trajectory_sharding
    ))


def data_parallel(
  update: Update, config: STACConfig, devices: Sequence[jax.Device]
) -> DataParallel:
  """Compiles the update for several devices.

  Gradients and metagradients are those of the whole batch, however many devices
  share it.

  Args:
    update: made from `config`.
    config: the agent's configuration.
    devices: the devices to use.

  Raises:
    ValueError: if the batch cannot be split evenly over the devices.
  """
  if not devices or config.batch_size % len(devices):
    raise ValueError(
      f"batch_size ({config.batch_size}) must be a multiple of the number of"
      f" devices ({len(devices)})."
    )
  mesh = Mesh(np.array(devices), ("batch",))
  replicated = NamedSharding(mesh, PartitionSpec())
  time_major = NamedSharding(mesh, PartitionSpec(None, "batch"))
  trajectory = Trajectory(
    observation=time_major,
    action=time_major,
    reward=time_major,
    discount=time_major,
    step_type=time_major,
    behaviour_log_prob=time_major,
    core_state=NamedSharding(mesh, PartitionSpec("batch")),
  )
  # Nothing is donated. An update ends by selecting the old or the new state, so
  # donating the old one would save under 1% of the memory and no time, and
  # other threads still read its parameters. No output has a batch's shape.
  # A second batch serves the outer loss of agents that use one.
  batches = [trajectory] * config.batches_to_begin
  jitted = jax.jit(
    update.update,
    in_shardings=(replicated, *batches),
    out_shardings=replicated,
  )
  return DataParallel(jitted, replicated, trajectory)
