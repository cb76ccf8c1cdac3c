"""A compiled learner update, measured alone with random data."""

import time
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
from dm_env import specs

import acme_stac
from acme_stac import core
from acme_stac.core.update import MAX_UNROLLED

_IMAGE = specs.BoundedArray((84, 84, 4), np.uint8, 0, 255)
_FEATURES = specs.Array((17,), np.float32)
_CONTINUOUS = specs.BoundedArray((6,), np.float32, -1.0, 1.0)
# Name -> observation spec, action spec and fields of the configuration.
NETWORKS: dict[str, tuple[specs.Array, specs.Array, dict[str, Any]]] = {
  "mlp": (
    _FEATURES,
    specs.DiscreteArray(6),
    {"torso": "mlp", "torso_sizes": (256, 256)},
  ),
  "mlp_lstm": (
    _FEATURES,
    _CONTINUOUS,
    {"torso": "mlp", "torso_sizes": (256, 256), "lstm_size": 256},
  ),
  "shallow": (_IMAGE, specs.DiscreteArray(6), {"torso": "shallow"}),
  "deep": (_IMAGE, specs.DiscreteArray(6), {"torso": "deep"}),
}


class Specs(NamedTuple):
  """The part of an environment's specs that networks need."""

  observations: specs.Array
  actions: specs.Array


def random_trajectory(
  networks: acme_stac.STACNetworks,
  observation: specs.Array,
  config: acme_stac.STACConfig,
  seed: int = 0,
) -> core.Trajectory:
  """Returns a trajectory [T+1, B] of random numbers."""
  rng = np.random.default_rng(seed)
  shape = (config.trajectory_length + 1, config.batch_size)
  space = networks.action_space.spec
  if isinstance(space, specs.DiscreteArray):
    action = rng.integers(0, space.num_values, shape).astype(np.int32)
  else:
    action = rng.uniform(-0.9, 0.9, (*shape, *space.shape)).astype(np.float32)
  if observation.dtype == np.uint8:
    observations = rng.integers(0, 255, (*shape, *observation.shape), np.uint8)
  else:
    observations = rng.normal(size=(*shape, *observation.shape)).astype("f")
  return core.Trajectory(
    observation=observations,
    action=action,
    reward=rng.normal(size=shape).astype(np.float32),
    discount=np.ones(shape, np.float32),
    step_type=np.full(shape, dm_env.StepType.MID, np.int32),
    behaviour_log_prob=np.full(shape, -1.8, np.float32),
    core_state=networks.initial_state(config.batch_size),
  )


def _count_flops(update: core.Update, *arguments: Any) -> float | None:
  """Returns the FLOPs of an unoptimised update, on all devices together.

  In an optimised program, XLA does not count operations that a library
  performs, such as cuDNN's convolutions. It counts an unoptimised program only
  for the CPU.

  Args:
    update: the update.
    *arguments: arguments of `Update.update`.

  Returns:
    The FLOPs; None if JAX_PLATFORMS leaves JAX without a CPU.
  """
  try:
    (cpu, *_) = jax.local_devices(backend="cpu")
  except RuntimeError:
    return None
  shapes = jax.tree_util.tree_map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments
  )
  with jax.default_device(cpu):
    costs: Any = jax.jit(update.update).lower(*shapes).cost_analysis()
  return float(costs["flops"])


class MeasuredUpdate:
  """A compiled update with its state and random data on the devices.

  Attributes:
    flops: FLOPs of an update on all devices together; None if unknown, and with
      an LSTM or many steps to a target, loops that XLA counts once.
    memory_bytes: memory on each device.
  """

  def __init__(self, spec: Any, config: acme_stac.STACConfig, devices: int = 1):
    """Compiles the update.

    Args:
      spec: specs of an environment, or a `Specs`.
      config: the agent's configuration.
      devices: number of devices that share the batch.
    """
    self.config = config
    networks = acme_stac.make_networks(spec, config)
    update = core.make_update(networks, config)
    parallel = core.data_parallel(update, config, jax.devices()[:devices])
    self._state = jax.device_put(
      # One program: a GPU would compile each operation by itself.
      jax.jit(update.init)(jax.random.PRNGKey(0)), parallel.state_sharding
    )
    self._data = [
      parallel.put(
        random_trajectory(networks, spec.observations, config, seed)
      )
      for seed in range(config.batches_to_begin)
    ]
    self.flops = (
      _count_flops(update, self._state, *self._data)
      if config.lstm_size is None
      and config.bootstrap_steps - 1 <= MAX_UNROLLED else None
    )
    self._update = parallel.update.lower(self._state, *self._data).compile()
    memory: Any = self._update.memory_analysis()
    self.memory_bytes = (
      memory.temp_size_in_bytes
      + memory.argument_size_in_bytes
      + memory.output_size_in_bytes
    )

  def time(self, updates: int) -> float:
    """Returns the mean seconds of an update over `updates` updates."""
    started = time.perf_counter()
    for _ in range(updates):
      self._state, metrics = self._update(self._state, *self._data)
    jax.block_until_ready((self._state, metrics))
    return (time.perf_counter() - started) / updates


def make_config(
  agent: str,
  network: str,
  batch: int,
  length: int,
  heads: int | None = None,
  **fields: Any,
) -> acme_stac.STACConfig:
  """Returns an agent's configuration with given networks and batches.

  Args:
    agent: name of the preset.
    network: a name in `NETWORKS`.
    batch: trajectories in a batch.
    length: transitions in a trajectory.
    heads: number of heads, for presets that have several; by default the
      preset's number.
    **fields: further fields of the configuration.
  """
  if heads is not None and acme_stac.AGENTS[agent]["num_heads"] > 1:
    fields["num_heads"] = heads
  return acme_stac.make_config(
    agent,
    "atari",
    **{
      "torso_sizes": (16, 32, 32),
      "head_sizes": (256,),
      **NETWORKS[network][2],
      **fields,
      "batch_size": batch,
      "trajectory_length": length,
      "trajectory_overlap": 0,
    },
  )
