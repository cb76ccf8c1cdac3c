"""Wrappers of single dm_env environments."""

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_stac import checks


class Wrapper(dm_env.Environment):
  """Passes every call on to an environment.

  Also passes on attributes outside dm_env's interface, such as dm-control's
  `physics`.
  """

  def __init__(self, environment: Any):
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


class ObservationWrapper(Wrapper):
  """Replaces the observation of every time step."""

  def observe(self, timestep: dm_env.TimeStep) -> Any:
    """Returns the new observation of a time step."""
    raise NotImplementedError

  def reset(self) -> dm_env.TimeStep:
    timestep = self._environment.reset()
    return timestep._replace(observation=self.observe(timestep))

  def step(self, action: Any) -> dm_env.TimeStep:
    timestep = self._environment.step(action)
    return timestep._replace(observation=self.observe(timestep))


class ActionRepeat(Wrapper):
  """Applies every action several times and adds up the rewards.

  Discounts the sum as the environment discounts the single steps. Stops at the
  end of an episode.
  """

  def __init__(self, environment: dm_env.Environment, repeats: int):
    super().__init__(environment)
    checks.check_integer("action_repeat", repeats, minimum=1)
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


class FlatObservation(ObservationWrapper):
  """Concatenates a dict of features, in its order, to one float32 vector."""

  def observe(self, timestep: dm_env.TimeStep) -> np.ndarray:
    return np.concatenate(
      [np.ravel(value) for value in timestep.observation.values()],
      dtype=np.float32,
      casting="same_kind",
    )

  def observation_spec(self) -> specs.Array:
    parts = self._environment.observation_spec().values()
    size = sum(int(np.prod(spec.shape)) for spec in parts)
    return specs.Array((size,), np.float32, name="features")


class FrameStack(ObservationWrapper):
  """Stacks the last images [H, W, C] along the channels, oldest first.

  An episode starts with copies of its first image.
  """

  def __init__(self, environment: dm_env.Environment, number: int):
    super().__init__(environment)
    checks.check_integer("frame_stack", number, minimum=1)
    self._number = number
    self._frames: list[np.ndarray] = []

  def observe(self, timestep: dm_env.TimeStep) -> np.ndarray:
    if timestep.first():
      self._frames = [timestep.observation] * self._number
    else:
      self._frames = [*self._frames[1:], timestep.observation]
    return np.concatenate(self._frames, axis=-1)

  def observation_spec(self) -> specs.BoundedArray:
    spec = self._environment.observation_spec()
    *size, channels = spec.shape
    return spec.replace(shape=(*size, channels * self._number))
