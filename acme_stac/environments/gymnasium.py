"""Gymnasium's environments by id, through its own vectorisation."""

import os
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac import config
from acme_stac.environments import base

try:
  import gymnasium
  from gymnasium.vector import AutoresetMode
except ImportError as error:
  raise ImportError(
    "gymnasium is not installed; 'make setup' brings it, or pip install"
    " gymnasium."
  ) from error


class GymnasiumEnvironment(base.BatchedEnvironment):
  """A vector environment of Gymnasium.

  Ids that bring a vector implementation of their own (CartPole-v1) use it; the
  others are stepped one after the other.
  """

  def __init__(
    self, level: str, num_environments: int, seed: int, **options: Any
  ):
    """Makes environments.

    Args:
      level: a registered id; "package:Name-v0" imports the package first.
      num_environments: members of the batch.
      seed: members are seeded with seed, seed + 1, ...
      **options: what the id's own constructor takes.

    Raises:
      ValueError: for an unknown id, with near matches, for spaces that have no
        dm_env spec, and for one that misses a dependency.
    """
    known = list(gymnasium.registry)
    # "package:Name-v0" imports the package, which registers its ids.
    if level not in known and ":" not in level:
      raise ValueError(config.unknown("Gymnasium id", level, known))
    try:
      self._vector = gymnasium.make_vec(
        level, num_envs=num_environments, **options
      )
    except Exception as error:  # Each has constructors and errors of its own.
      raise ValueError(
        f"Gymnasium cannot make {level!r}: {type(error).__name__}: {error}"
      ) from error
    mode = self._vector.metadata.get("autoreset_mode")
    if mode is not None and mode != AutoresetMode.NEXT_STEP:
      raise ValueError(
        f"{level!r} resets its members by {mode}, only next-step"
        " autoreset is supported."
      )
    self.num_environments = num_environments
    self._seed = seed
    self._observation_spec = _to_spec(self._vector.single_observation_space)
    self._action_spec = _to_spec(self._vector.single_action_space)
    self._ended = np.zeros(num_environments, bool)

  def reset(self) -> dm_env.TimeStep:
    observation, _ = self._vector.reset(seed=self._seed)
    # A later reset must not repeat the first one's episodes.
    self._seed += self.num_environments
    self._ended = np.zeros(self.num_environments, bool)
    return base.first_time_step(
      self._cast(observation), self.num_environments
    )

  def _cast(self, observation: Any) -> Any:
    return jax.tree_util.tree_map(
      lambda spec, x: np.asarray(x, spec.dtype),
      self._observation_spec,
      observation,
    )

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    first = self._ended
    observation, reward, terminated, truncated, _ = self._vector.step(actions)
    self._ended = terminated | truncated
    return base.time_step(
      self._cast(observation),
      reward,
      first,
      terminated,
      truncated & ~terminated,
    )

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self._action_spec

  def render(self) -> np.ndarray:
    """See the base class; needs the option render_mode="rgb_array"."""
    if self._vector.render_mode != "rgb_array":
      raise NotImplementedError(
        "An environment of Gymnasium draws itself if it is made with the option"
        " render_mode='rgb_array', and can do so then."
      )
    # pygame, which draws many of them, looks for a screen otherwise.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    pictures: Any = self._vector.render()
    return np.asarray(pictures[0])

  def close(self):
    self._vector.close()


def _to_spec(space: gymnasium.Space) -> Any:
  """Returns the dm_env spec of a space; raises ValueError if there is none."""
  if isinstance(space, gymnasium.spaces.Discrete):
    if space.start:
      raise ValueError(f"Discrete spaces must start at 0, got {space}.")
    # Gymnasium's own are twice as wide as anything here needs.
    return specs.DiscreteArray(int(space.n), np.int32)
  if isinstance(space, gymnasium.spaces.Box):
    return specs.BoundedArray(space.shape, space.dtype, space.low, space.high)
  if isinstance(space, gymnasium.spaces.Dict):
    return {name: _to_spec(part) for name, part in space.spaces.items()}
  if isinstance(space, gymnasium.spaces.Tuple):
    return tuple(_to_spec(part) for part in space.spaces)
  if isinstance(space, gymnasium.spaces.MultiDiscrete):
    raise ValueError(
      f"Several discrete choices at once, {space}, are not supported: number"
      " the combinations in a wrapper and offer them as one Discrete."
    )
  raise ValueError(
    f"Spaces of type {type(space).__name__} are not supported; Box, Discrete,"
    " Dict and Tuple are."
  )
