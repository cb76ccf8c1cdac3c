"""Wrappers of single dm_env environments."""

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_stac import checks

_MAX_REPEATS = 1000
_MAX_STACK = 100


class Wrapper(dm_env.Environment):
  """Passes everything on to the environment inside.

  So do attributes that are not dm_env's, such as dm-control's `physics`.
  """

  def __init__(self, environment: dm_env.Environment):
    self._environment = environment

  def __getattr__(self, name: str) -> Any:
    if name.startswith("_"):
      raise AttributeError(name)
    return getattr(self._environment, name)

  def reset(self) -> dm_env.TimeStep:
    return self._environment.reset()

  def step(self, action: Any) -> dm_env.TimeStep:
    return self._environment.step(action)

  def observation_spec(self) -> Any:
    return self._environment.observation_spec()

  def action_spec(self) -> Any:
    return self._environment.action_spec()

  def reward_spec(self) -> Any:
    return self._environment.reward_spec()

  def discount_spec(self) -> Any:
    return self._environment.discount_spec()

  def close(self):
    self._environment.close()


class ActionRepeat(Wrapper):
  """Applies every action several times; rewards add up.

  The environment's own discount counts in the sum, as it would for the single
  steps. An episode that ends in the middle ends there.
  """

  def __init__(self, environment: dm_env.Environment, repeats: int):
    super().__init__(environment)
    checks.check_integer("action_repeat", repeats, 1, _MAX_REPEATS)
    self._repeats = repeats

  def step(self, action: Any) -> dm_env.TimeStep:
    reward, discount = 0.0, 1.0
    for _ in range(self._repeats):
      timestep = self._environment.step(action)
      if timestep.first():
        return timestep
      reward += discount * timestep.reward
      discount *= timestep.discount
      if timestep.last():
        break
    return timestep._replace(reward=reward, discount=discount)


class FlatObservation(Wrapper):
  """Concatenates a dict of features, in its order, to one float32 vector."""

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    self._size = sum(
      int(np.prod(spec.shape))
      for spec in environment.observation_spec().values()
    )

  def _flatten(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    return timestep._replace(
      observation=np.concatenate(
        [np.ravel(value) for value in timestep.observation.values()],
        dtype=np.float32,
        casting="same_kind",
      )
    )

  def reset(self) -> dm_env.TimeStep:
    return self._flatten(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    return self._flatten(self._environment.step(action))

  def observation_spec(self) -> specs.Array:
    return specs.Array((self._size,), np.float32, name="features")


class FrameStack(Wrapper):
  """Stacks the last images [H, W, C] along the channels, oldest first.

  An episode starts with copies of its first image.
  """

  def __init__(self, environment: dm_env.Environment, number: int):
    super().__init__(environment)
    checks.check_integer("frame_stack", number, 1, _MAX_STACK)
    self._number = number
    self._frames: list[np.ndarray] = []

  def _stack(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    if timestep.first():
      self._frames = [timestep.observation] * self._number
    else:
      self._frames = [*self._frames[1:], timestep.observation]
    return timestep._replace(observation=np.concatenate(self._frames, axis=-1))

  def reset(self) -> dm_env.TimeStep:
    return self._stack(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    return self._stack(self._environment.step(action))

  def observation_spec(self) -> specs.BoundedArray:
    spec = self._environment.observation_spec()
    height, width, channels = spec.shape
    return specs.BoundedArray(
      (height, width, channels * self._number),
      spec.dtype,
      spec.minimum,
      spec.maximum,
      name=spec.name,
    )
