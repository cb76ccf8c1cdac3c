"""Catch that goes wrong or slowly; environments of what the tests start."""

import os
import pathlib
import time

import dm_env
import numpy as np

from acme_stac.environments import catch


class Faulty(catch.Catch):
  """Goes wrong once, in its step number `after` since its reset.

  With a `marker`, which several processes share, `fault` is a list such as
  "hang,crash,raise": the first instance to go wrong takes the first, and so on;
  the last one again and again.
  """

  def __init__(
    self,
    num_environments: int,
    seed: int,
    fault: str = "raise",
    after: int = 200,
    marker: str = "",
  ):
    self._left = -1
    super().__init__(num_environments, seed)
    self._faults = fault.split(",")
    self._after = after
    self._marker = pathlib.Path(marker) if marker else None

  def reset(self) -> dm_env.TimeStep:
    self._left = -1
    timestep = super().reset()
    self._left = self._after
    return timestep

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    timestep = super().step(actions)
    self._left -= 1
    if self._left != 0:
      return timestep
    number = 0
    if self._marker is not None:
      with self._marker.open("a") as file:
        number = file.tell()
        file.write(".")
    fault = self._faults[min(number, len(self._faults) - 1)]
    if fault == "raise":
      raise RuntimeError("the simulator is gone")
    if fault == "crash":
      os.abort()
    if fault == "hang":
      time.sleep(1e6)
    if fault == "nan":
      observation = np.full_like(timestep.observation, np.nan)
      return timestep._replace(observation=observation)
    if fault == "shape":
      return timestep._replace(observation=timestep.observation[:, :-1])
    raise ValueError(fault)


class Paced(catch.Catch):
  """Catch in which a step takes a while, for runs that are only watched.

  They leave the processors to others, such as the processes they wait for.
  """

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    time.sleep(0.004)
    return super().step(actions)


class Endless(catch.Catch):
  """Catch whose ball begins again at the top, in an episode without end."""

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    timestep = super().step(actions)
    last = self._ended.copy()
    self._ball_row[last] = -1
    self._ended[:] = False
    return timestep._replace(
      step_type=np.where(last, dm_env.StepType.MID, timestep.step_type),
      discount=np.where(last, 1.0, timestep.discount).astype(np.float32),
    )
