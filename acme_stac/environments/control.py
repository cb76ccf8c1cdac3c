"""The DeepMind Control Suite from features: control:<domain>/<task>."""

import warnings
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_stac import config
from acme_stac.environments import base

try:
  with warnings.catch_warnings():
    # Features need no screen; without one, the first renderer tried complains.
    warnings.filterwarnings("ignore", message=".*DISPLAY")
    from dm_control import suite
except ImportError as error:
  raise ImportError(
    "dm-control is not installed; 'make setup' brings it, or pip install"
    " dm-control."
  ) from error


class Control(base.BatchOfEnvironments):
  """A task of the suite, its members stepped one after the other.

  Observations are the task's features in its own order, flattened to one
  float32 vector. A task ends by its time limit alone, or in a terminal state
  that its discount of 0 marks: values bootstrap at a limit.
  """

  def __init__(self, level: str, num_environments: int, seed: int):
    """Makes the environments.

    Args:
      level: "<domain>/<task>", for example "cartpole/swingup".
      num_environments: members of the batch.
      seed: members are seeded with seed, seed + 1, ...

    Raises:
      ValueError: for an unknown level, with near matches.
    """
    known = ["/".join(task) for task in suite.ALL_TASKS]
    if level not in known:
      raise ValueError(config.unknown("control task", level, known))
    domain, task = level.split("/")
    super().__init__([
      FlatObservation(
        suite.load(domain, task, task_kwargs={"random": seed + member})
      )
      for member in range(num_environments)
    ])


class FlatObservation(dm_env.Environment):
  """Concatenates a dict of features to one float32 vector."""

  def __init__(self, environment: dm_env.Environment):
    self._environment = environment
    self._size = sum(
      int(np.prod(spec.shape))
      for spec in environment.observation_spec().values()
    )

  def _flatten(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    features: Mapping[str, Any] = timestep.observation
    return timestep._replace(
      observation=np.concatenate(
        [np.ravel(value) for value in features.values()]
      ).astype(np.float32)
    )

  def reset(self) -> dm_env.TimeStep:
    return self._flatten(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    return self._flatten(self._environment.step(action))

  def observation_spec(self) -> specs.Array:
    return specs.Array((self._size,), np.float32, name="features")

  def action_spec(self) -> Any:
    return self._environment.action_spec()

  def close(self):
    self._environment.close()
