"""The compiled program that trains runs side by side on the local devices."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_stac import on_device
from acme_stac.core.types import Array, TrainingState
from acme_stac.on_device.loop import Ended, replace_hyperparameters
from acme_stac.on_device.sharding import sharding_along
from programs.nodes.randomness import Part, random_key
from programs.run.experiment import Experiment


class Chunk(NamedTuple):
  """The result of some updates of every run; the runs are the first axis.

  Attributes:
    state: the runs' new states.
    metrics: of the newest update, by name.
    ended: sums over the episodes that ended, by name.
  """

  state: on_device.LoopState
  metrics: dict[str, Array]
  ended: dict[str, Array]


class DeviceProgram:
  """Training and evaluation of M runs that differ in seed and hyperparameters.

  Several runs are spread over the devices, as evenly as their number allows; of
  a single run, the environments are.

  Attributes:
    devices: the devices that are used.
    state_shapes: shapes and dtypes of one run's training state.
  """

  def __init__(
    self, experiments: Sequence[Experiment], devices: Sequence[jax.Device]
  ):
    """Prepares the program; `start` compiles it.

    Args:
      experiments: the runs.
      devices: the devices to use.
    """
    self._experiments = experiments
    first = experiments[0]
    self._environment = on_device.make(
      first.environment, **first.environment_options
    )
    self._networks = first.network_factory(first.environment_spec, first.config)
    self._trainer = on_device.make_trainer(
      self._environment, self._networks, first.config,
      first.environments_per_actor,
    )
    self._hyperparameters = {
      name: np.array(values, np.float32)
      for name, values in _varied(experiments).items()
    }
    one_run = jax.eval_shape(
      self._trainer.init,
      jax.ShapeDtypeStruct((2,), np.uint32),
      {name: values[0] for name, values in self._hyperparameters.items()},
    )
    self.state_shapes: TrainingState = one_run.training
    by_run = len(experiments) > 1
    shared = len(experiments) if by_run else first.environments_per_actor
    number = max(n for n in range(1, len(devices) + 1) if shared % n == 0)
    self.devices = list(devices[:number])
    self._sharding = sharding_along(0 if by_run else None, self.devices)
    # The first axis is the runs, the second the environments.
    self._environment_sharding = sharding_along(
      0 if by_run else 1, self.devices
    )
    self._advance: Any = None
    self._evaluate = jax.jit(
      jax.vmap(self._evaluate_one), out_shardings=self._sharding
    )

  def start(
    self, step: int, states: Sequence[TrainingState]
  ) -> on_device.LoopState:
    """Returns the runs' states in fresh episodes; compiles the program.

    Args:
      step: updates that every run has done.
      states: the runs' training states if `step` is not 0.
    """
    keys = self._keys(step, Part.LEARNER)
    arguments: tuple[Any, ...] = (keys, self._hyperparameters)
    begin = self._trainer.init
    if step:
      training = jax.tree_util.tree_map(lambda *x: np.stack(x), *states)
      arguments = (training, *arguments)
      begin = self._trainer.resume
    shapes = jax.eval_shape(jax.vmap(begin), *arguments)
    shardings = jax.tree_util.tree_map(lambda _: self._sharding, shapes)
    shardings = shardings._replace(environments=jax.tree_util.tree_map(
      lambda _: self._environment_sharding, shapes.environments
    ))
    state = jax.jit(jax.vmap(begin), out_shardings=shardings)(*arguments)
    self._advance = jax.jit(
      self._advance_all,
      out_shardings=(shardings, self._sharding, self._sharding),
    ).lower(state, np.int32(1)).compile()
    return state

  def advance(self, state: on_device.LoopState, updates: int) -> Chunk:
    """Starts so many updates of every run; does not wait for them."""
    return Chunk(*self._advance(state, np.int32(updates)))

  def evaluate(
    self, state: on_device.LoopState, step: int
  ) -> on_device.Evaluation:
    """Plays the episodes of an evaluation of every run.

    Args:
      state: the runs' states.
      step: updates that they have done.

    Returns:
      The episodes, as NumPy arrays [M, E].
    """
    return jax.device_get(self._evaluate(
      state.training, self._keys(step, Part.EVALUATOR), self._hyperparameters
    ))

  def _keys(self, step: int, part: Part) -> np.ndarray:
    return np.stack([
      random_key(experiment, step, part) for experiment in self._experiments
    ])

  def _advance_all(
    self, state: on_device.LoopState, updates: Array
  ) -> tuple[on_device.LoopState, dict[str, Array], dict[str, Array]]:
    # One program for any number of updates: the number is no constant of it.
    def update(state: on_device.LoopState) -> Chunk:
      state, metrics = on_device.map_runs(
        lambda one: self._trainer.train(one, 1), len(self.devices)
      )(state)
      newest = {name: value[:, 0] for name, value in metrics.items()}
      ended = {name: newest.pop(name) for name in Ended._fields}
      return Chunk(state, newest, ended)

    def add(_: Array, chunk: Chunk) -> Chunk:
      following = update(chunk.state)
      return following._replace(
        ended=jax.tree_util.tree_map(jnp.add, chunk.ended, following.ended)
      )

    shapes = jax.eval_shape(update, state)
    zeros = jax.tree_util.tree_map(
      lambda x: jnp.zeros(x.shape, x.dtype), (shapes.metrics, shapes.ended)
    )
    return tuple(jax.lax.fori_loop(0, updates, add, Chunk(state, *zeros)))

  def _evaluate_one(
    self,
    state: TrainingState,
    key: Array,
    hyperparameters: dict[str, Array],
  ) -> on_device.Evaluation:
    experiment = self._experiments[0]
    return on_device.make_evaluator(
      self._environment,
      self._networks,
      replace_hyperparameters(experiment.config, hyperparameters),
      experiment.evaluation_episodes,
      experiment.evaluation_max_episode_steps,
      experiment.evaluation_greedy,
    )(state, key)


def _varied(experiments: Sequence[Experiment]) -> dict[str, list[float]]:
  """Returns the values of every hyperparameter in which runs differ."""
  values = {
    name: [getattr(experiment.config, name) for experiment in experiments]
    for name in on_device.HYPERPARAMETERS
  }
  return {name: of for name, of in values.items() if len(set(of)) > 1}
