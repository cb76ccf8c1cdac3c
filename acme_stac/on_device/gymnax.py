"""gymnax's environments by id: MinAtar, classic control, bsuite and others."""

import dataclasses
import inspect
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import errors
from acme_stac.on_device import environment

try:
  import gymnax
  from gymnax.environments import spaces
  from gymnax.environments.minatar import (
    asterix,
    breakout,
    freeway,
    seaquest,
    space_invaders,
  )
except ImportError as error:
  raise ImportError(
    f"gymnax cannot be imported ({error}). 'make setup' installs it, or pip"
    " install 'gymnax>=1.0'."
  ) from error

Array = jax.Array

_MINATAR = (
  asterix.MinAsterix,
  breakout.MinBreakout,
  freeway.MinFreeway,
  seaquest.MinSeaquest,
  space_invaders.MinSpaceInvaders,
)
_TIME_LIMIT = "max_steps_in_episode"
_OPTION_TYPES = (bool, int, float, str)
# Side of a drawn cell, in pixels.
_CELL = 24
# One for each channel of a MinAtar board, of which later ones cover others.
_COLOURS = np.array(
  [
    (80, 160, 240),
    (240, 90, 70),
    (150, 110, 70),
    (240, 190, 60),
    (110, 200, 110),
    (190, 120, 230),
    (90, 210, 210),
    (230, 140, 180),
    (140, 150, 170),
    (240, 240, 240),
  ],
  np.uint8,
)
_BACKGROUND = (24, 24, 32)


def names() -> list[str]:
  """Returns the ids that gymnax knows."""
  return sorted(gymnax.registered_envs)


def option_types(level: str) -> dict[str, Any]:
  """Returns the options of an id, by name, with their types.

  They are the parameters of its constructor and the numbers and words among
  its gymnax parameters.

  Args:
    level: an id.

  Raises:
    ValueError: for an unknown id, with near matches, and for one that cannot
      be made.
  """
  game, params = _make(level)
  return _parameter_types(params) | _constructor_types(game)


def make(level: str, **options: Any) -> environment.Environment:
  """Makes an environment.

  Args:
    level: an id, for example "Breakout-MinAtar".
    **options: see `option_types`; `max_steps_in_episode` is the time limit.

  Raises:
    ValueError: for an unknown id, with near matches, for options that do not
      fit, and for an environment that cannot be made.
  """
  if _TIME_LIMIT in options:
    checks.check_number(_TIME_LIMIT, options[_TIME_LIMIT], minimum=1)
  arguments = {
    name: options[name]
    for name in _constructor_types(_make(level)[0])
    if name in options
  }
  game, params = _make(level, **arguments)
  others = {k: v for k, v in options.items() if k not in arguments}
  adapter = MinAtar if isinstance(game, _MINATAR) else Gymnax
  try:
    return adapter(f"gymnax:{level}", game, params.replace(**others))
  except Exception as error:  # Each has parameters of its own.
    raise _cannot_make(level, error) from error


def _make(level: str, **arguments: Any) -> tuple[Any, Any]:
  """Returns gymnax's own environment and its parameters."""
  if level not in gymnax.registered_envs:
    raise ValueError(checks.unknown("gymnax id", level, names()))
  try:
    return gymnax.make(level, **arguments)
  except Exception as error:  # Each has a constructor of its own.
    raise _cannot_make(level, error) from error


def _cannot_make(level: str, error: Exception) -> ValueError:
  return ValueError(
    f"gymnax cannot make {level!r}: {errors.describe_error(error)}."
  )


def _constructor_types(game: Any) -> dict[str, Any]:
  return {
    name: checks.plain_type(parameter.annotation)
    for name, parameter in inspect.signature(type(game)).parameters.items()
  }


def _parameter_types(params: Any) -> dict[str, Any]:
  return {
    field.name: type(value)
    for field in dataclasses.fields(params)
    if isinstance(value := getattr(params, field.name), _OPTION_TYPES)
  }


class Gymnax(environment.Environment):
  """An environment of gymnax with dm_env's semantics.

  Does without gymnax's `step`, which hides the last observation of an episode.
  """

  def __init__(self, name: str, game: Any, params: Any):
    """Adapts an environment.

    Args:
      name: for messages.
      game: gymnax's environment.
      params: its parameters.

    Raises:
      ValueError: if a space has no spec.
    """
    self.name = name
    self._game, self._params = game, params
    shapes = jax.eval_shape(self.reset, jax.random.PRNGKey(0))[1].observation
    self._observation_spec = _spec(game.observation_space(params), shapes)
    action_space = game.action_space(params)
    self._action_spec = _spec(action_space, action_space)

  def observe(self, observation: Any) -> Any:
    """Converts an observation of gymnax's to that of this environment."""
    return environment.strongly_typed(observation)

  def reset(self, key: Array) -> tuple[Any, dm_env.TimeStep]:
    observation, state = self._game.reset_env(key, self._params)
    return (
      environment.strongly_typed(state),
      environment.restart(self.observe(observation)),
    )

  def step(
    self, state: Any, action: Array, key: Array
  ) -> tuple[Any, dm_env.TimeStep]:
    observation, state, reward, terminated, _ = self._game.step_env(
      key, state, action, self._params
    )
    truncated = self._game.is_truncated(state, self._params)
    return (
      environment.strongly_typed(state),
      environment.transition(
        self.observe(observation), reward, terminated, truncated
      ),
    )

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self._action_spec


class MinAtar(Gymnax):
  """A game of MinAtar; observes booleans, bool [10, 10, channels]."""

  def observe(self, observation: Array) -> Array:
    return observation.astype(bool)

  def render(self, state: Any) -> np.ndarray:
    board = np.asarray(self._game.get_obs(state, self._params), bool)
    picture = np.full((*board.shape[:2], 3), _BACKGROUND, np.uint8)
    for channel in range(board.shape[2]):
      picture[board[..., channel]] = _COLOURS[channel]
    return picture.repeat(_CELL, axis=0).repeat(_CELL, axis=1)


def _spec(space: Any, shapes: Any) -> Any:
  """Returns the spec of a space.

  Args:
    space: of gymnax.
    shapes: nest with the shapes and types of its elements, which can differ
      from those that the space states.
  """
  if isinstance(space, spaces.Dict):
    return {key: _spec(part, shapes[key]) for key, part in space.spaces.items()}
  if isinstance(space, spaces.Tuple):
    return tuple(map(_spec, space.spaces, shapes))
  dtype = np.dtype(shapes.dtype)
  if isinstance(space, spaces.Discrete):
    return specs.DiscreteArray(space.n, dtype)
  if isinstance(space, spaces.Box):
    low, high = np.asarray(space.low), np.asarray(space.high)
    return specs.BoundedArray(shapes.shape, dtype, low, high)
  raise ValueError(
    f"a space must be a Box, Discrete, Dict or Tuple, got {space!r}"
  )
