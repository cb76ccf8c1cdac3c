"""Gymnasium's environments by id."""

import importlib
import os
import sys
import warnings
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import base, batches, errors, nests, precision

try:
  import gymnasium
  from gymnasium.vector import AutoresetMode
except ImportError as error:
  raise ImportError(
    "gymnasium is not installed; 'make setup' installs it, or pip install"
    " gymnasium."
  ) from error

spaces = gymnasium.spaces

# Ids whose vector implementation is the same environment, only faster: the
# tests compare both step by step. Gymnasium does not describe rewards; those of
# these ids lie in [-1, 1].
EQUAL_VECTORS = ("CartPole-v0", "CartPole-v1")
_SYNC, _VECTOR = "sync", "vector_entry_point"
# Start of an id -> the package that registers it.
_PACKAGES = {
  "ALE/": "ale_py",
  "BabyAI-": "minigrid",
  "MiniGrid-": "minigrid",
  "bsuite/": "shimmy",
  "dm_control/": "shimmy",
  "highway-": "highway_env",
  "procgen": "procgen",
}
# What `info` has if a member is reset in the step that ends its episode.
_FINAL = {"final_obs", "final_observation"}


class _UnsupportedError(ValueError):
  """An environment can be made, but not be used here."""


def make(
  level: str,
  num_environments: int,
  seed: int,
  *,
  vectorization_mode: str | None = None,
  autoreset_mode: str | None = None,
  **options: Any,
) -> base.BatchedEnvironment:
  """Makes environments of an id.

  Args:
    level: a registered id; "package:Name-v0" imports the package first.
    num_environments: members of the batch.
    seed: members are seeded with seed, seed + 1, ...
    vectorization_mode: "sync" steps the id's own environments one after the
      other; "vector_entry_point" takes the id's vector implementation, which
      may be another environment. None takes the second for ids where both are
      known to be equal and for ids with nothing else, otherwise the first.
    autoreset_mode: when a vector implementation that does not state it starts
      episodes: "NextStep", the only mode that is supported.
    **options: of the id's own constructor.

  Raises:
    ValueError: for an unknown id, with near matches, for spaces without a
      dm_env spec, for a mode that is not supported, and for an environment that
      cannot be made or misses a dependency.
  """
  package, _, name = level.rpartition(":")
  if package:
    _import(package, level)
  if name not in gymnasium.registry:
    raise ValueError(_unknown(name))
  if vectorization_mode not in (None, _SYNC, _VECTOR):
    raise ValueError(
      f"vectorization_mode must be {_SYNC!r} or {_VECTOR!r}, got"
      f" {vectorization_mode!r}."
    )
  vector_only = gymnasium.spec(name).entry_point is None
  if vectorization_mode is None and (vector_only or name in EQUAL_VECTORS):
    vectorization_mode = _VECTOR
  try:
    if vectorization_mode == _VECTOR:
      vector = gymnasium.make_vec(name, num_environments, _VECTOR, **options)
      return _VectorEnvironment(level, vector, seed, autoreset_mode)
    # `check` says more than Gymnasium's checker, which would warn in every
    # process.
    options = {"disable_env_checker": True, **options}
    return batches.BatchOfEnvironments([
      _SingleEnvironment(gymnasium.make(name, **options), seed + member)
      for member in range(num_environments)
    ])
  except _UnsupportedError:
    raise
  except Exception as error:  # Each has constructors and errors of its own.
    advice = ""
    if isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
      advice = (
        " Install what is missing with pip. 'make setup' installs"
        " what Gymnasium's classic control, Box2D and MuJoCo tasks need."
      )
    raise ValueError(
      f"Gymnasium cannot make {level!r}: {errors.describe_error(error)}."
      f"{advice}"
    ) from error


def _import(package: str, level: str):
  """Imports a package that registers ids."""
  try:
    importlib.import_module(package)
  except Exception as error:  # A user's module may raise anything.
    raise ValueError(
      f"The package {package!r} of 'gymnasium:{level}' cannot be imported"
      f" ({type(error).__name__}: {error}). It must be installed, or in a"
      " folder of PYTHONPATH."
    ) from error


def _unknown(name: str) -> str:
  """Returns the message for an id that is not registered."""
  for prefix, package in _PACKAGES.items():
    if name.startswith(prefix) and package not in sys.modules:
      return (
        f"Gymnasium knows {name!r} once the package {package} is imported:"
        f" write gymnasium:{package}:{name}."
      )
  return (
    checks.unknown("Gymnasium id", name, list(gymnasium.registry))
    + " If a package registers it, write gymnasium:<package>:<id>."
  )


class _Spaces:
  """The specs of an environment's spaces."""

  def __init__(
    self, observation_space: gymnasium.Space, action_space: gymnasium.Space
  ):
    self._observation_spec = _observation_spec(observation_space)
    self._action_spec, self._first_action = _action_spec(action_space)

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self._action_spec


class _SingleEnvironment(_Spaces, dm_env.Environment):
  """An environment of Gymnasium as one of dm_env.

  Ignores `info`. Actions count from 0 whatever the first choice is. Drops parts
  of an observation that are text.
  """

  def __init__(self, environment: gymnasium.Env, seed: int):
    """Takes ownership of `environment`; the first reset seeds it."""
    super().__init__(environment.observation_space, environment.action_space)
    self.environment = environment
    self._seed: int | None = seed

  def reset(self) -> dm_env.TimeStep:
    observation, _ = self.environment.reset(seed=self._seed)
    # A later reset must not repeat the first episode.
    self._seed = None
    return dm_env.restart(_cast(self._observation_spec, observation))

  def step(self, action: Any) -> dm_env.TimeStep:
    space = self.environment.action_space
    if isinstance(space, spaces.Discrete):
      action = space.dtype.type(self._first_action + int(action))
    observation, reward, terminated, truncated, _ = self.environment.step(
      action
    )
    observation = _cast(self._observation_spec, observation)
    value = np.asarray(reward)
    if value.size != 1 or value.dtype.kind not in "biuf":
      raise ValueError(f"the reward must be one number, got {reward!r}")
    end = dm_env.transition
    if terminated:
      end = dm_env.termination
    elif truncated:
      end = dm_env.truncation
    return end(float(value.item()), observation)

  def render(self) -> np.ndarray:
    """Draws the environment if it has the option render_mode="rgb_array"."""
    _prepare_drawing(self.environment.render_mode)
    picture: Any = self.environment.render()
    return np.asarray(picture)

  def close(self):
    self.environment.close()


class _VectorEnvironment(_Spaces, base.BatchedEnvironment):
  """A vector environment of Gymnasium that resets members in the next step."""

  def __init__(
    self,
    level: str,
    vector: gymnasium.vector.VectorEnv,
    seed: int,
    autoreset_mode: str | None,
  ):
    """Takes ownership of `vector`; see `make` for the other arguments."""
    super().__init__(
      vector.single_observation_space, vector.single_action_space
    )
    _check_mode(level, vector, autoreset_mode)
    self._level = level
    self._vector = vector
    self.num_environments = vector.num_envs
    self._seed = seed
    self._ended = np.zeros(self.num_environments, bool)

  def reset(self) -> dm_env.TimeStep:
    observation, _ = self._vector.reset(seed=self._seed)
    # A later reset must not repeat the first episodes.
    self._seed += self.num_environments
    self._ended = np.zeros(self.num_environments, bool)
    return base.first_time_step(
      _cast(self._observation_spec, observation), self.num_environments
    )

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    first = self._ended
    if self._first_action:
      actions = actions + self._first_action
    observation, reward, terminated, truncated, info = self._vector.step(
      actions
    )
    terminated, truncated = np.asarray(terminated), np.asarray(truncated)
    self._ended = terminated | truncated
    if _FINAL & info.keys():
      raise ValueError(
        "the vector environment returned the last observation of an episode"
        " apart, as those do that reset members in the same step. Take the id's"
        f" single environments with vectorization_mode={_SYNC!r}"
      )
    return base.time_step(
      _cast(self._observation_spec, observation),
      np.asarray(reward),
      first,
      terminated,
      truncated,
    )

  def reward_spec(self) -> specs.Array:
    """Returns a spec that has bounds where they are known."""
    if self._level not in EQUAL_VECTORS:
      return super().reward_spec()
    return specs.BoundedArray((), np.float32, -1.0, 1.0, name="reward")

  def render(self) -> np.ndarray:
    """See the base class; needs the option render_mode="rgb_array"."""
    _prepare_drawing(self._vector.render_mode)
    pictures: Any = self._vector.render()
    return np.asarray(pictures[0])

  def close(self):
    self._vector.close()


def _check_mode(
  level: str, vector: gymnasium.vector.VectorEnv, given: str | None
):
  """Raises ValueError unless members are reset in the step after the end."""
  made = f"{level!r} is made by {type(vector).__name__}"
  mode = vector.metadata.get("autoreset_mode") or given
  if mode is None:
    raise _UnsupportedError(
      f"{made}, which does not state when it resets a member whose episode"
      " ended (metadata['autoreset_mode']). If it does in the next step, whose"
      " action it ignores, set the option autoreset_mode=NextStep. Otherwise"
      " take the id's single environments, if it has some, with"
      f" vectorization_mode={_SYNC}."
    )
  modes = [known.value for known in AutoresetMode]
  text = mode.value if isinstance(mode, AutoresetMode) else str(mode)
  if text not in modes:
    raise _UnsupportedError(checks.unknown("autoreset_mode", text, modes))
  if text != AutoresetMode.NEXT_STEP.value:
    raise _UnsupportedError(
      f"{made} with autoreset mode {text}. Only NextStep is supported: others"
      " leave no step between two episodes. Choose it in the constructor if you"
      " can; otherwise take the id's single environments with"
      f" vectorization_mode={_SYNC}."
    )


def _prepare_drawing(render_mode: str | None):
  if render_mode != "rgb_array":
    raise NotImplementedError(
      "An environment of Gymnasium can be drawn if it is made with the option"
      " render_mode='rgb_array'."
    )
  # Otherwise pygame, which draws many of them, looks for a screen.
  os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _cast(spec: Any, observation: Any) -> Any:
  """Returns the parts of an observation that a spec names, in its types.

  Raises:
    ValueError: if a part is missing, or a number does not fit its type.
  """
  if isinstance(spec, specs.Array):
    return precision.cast("observation", observation, spec.dtype)
  try:
    selected = nests.select(spec, observation)
  except (LookupError, TypeError) as error:
    _, problems = nests.observation_parts(spec, observation)
    raise ValueError(" ".join(problems)) from error

  def cast(path: Any, leaf: specs.Array, value: Any) -> np.ndarray:
    name = f"observation{jax.tree_util.keystr(path)}"
    return precision.cast(name, value, leaf.dtype)

  return jax.tree_util.tree_map_with_path(cast, spec, selected)


def _action_spec(space: gymnasium.Space) -> tuple[Any, int]:
  """Returns the spec of actions, and the number of the first choice."""
  if isinstance(space, spaces.Discrete):
    # Gymnasium's own type is twice as wide as needed here.
    return specs.DiscreteArray(int(space.n), np.int32), int(space.start)
  if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
    raise _UnsupportedError(
      f"Several discrete choices at once, {space}, are not supported: number"
      " the combinations in a wrapper and offer them as one Discrete."
    )
  if isinstance(space, spaces.Box):
    return _box_spec(space), 0
  raise _UnsupportedError(
    f"Actions must be one Box or one Discrete, got {space}. A wrapper of the"
    " environment can offer one of them (gymnasium.ActionWrapper)."
  )


def _box_spec(space: spaces.Box) -> specs.BoundedArray:
  return specs.BoundedArray(space.shape, space.dtype, space.low, space.high)


def _observation_spec(space: gymnasium.Space) -> Any:
  """Returns the spec of observations; warns of parts that are left out.

  Raises:
    ValueError: for a space without a spec.
  """
  left_out: list[str] = []
  spec = _to_spec(space, "observation", left_out)
  if spec is None or not jax.tree_util.tree_leaves(spec):
    raise _UnsupportedError(f"Nothing of the observation is a number: {space}.")
  if left_out:
    warnings.warn(
      f"{', '.join(left_out)}: text, which networks here do not read, is left"
      " out of the observation.",
      stacklevel=2,
    )
  return spec


def _to_spec(space: gymnasium.Space, name: str, left_out: list[str]) -> Any:
  """Returns the spec of a part of an observation, or None for text.

  Args:
    space: of the part.
    name: of the part, in messages.
    left_out: the names of parts that are text are added to it.
  """
  if isinstance(space, spaces.Discrete):
    count, start = int(space.n), int(space.start)
    if not start:
      # Gymnasium's own type is twice as wide as needed here.
      return specs.DiscreteArray(count, np.int32)
    return _whole_numbers((), start, start + count - 1)
  if isinstance(space, spaces.MultiDiscrete):
    return _whole_numbers(
      space.shape, space.start, space.start + space.nvec - 1
    )
  if isinstance(space, spaces.MultiBinary):
    return specs.BoundedArray(space.shape, np.int8, 0, 1)
  if isinstance(space, spaces.Box):
    return _box_spec(space)
  if space.dtype is not None and space.dtype.kind == "U":
    # Also spaces of other packages, such as Minigrid's missions.
    left_out.append(name)
    return None
  if isinstance(space, spaces.Dict):
    parts = {
      key: _to_spec(part, f"{name}[{key!r}]", left_out)
      for key, part in space.spaces.items()
    }
    return {key: part for key, part in parts.items() if part is not None}
  if isinstance(space, spaces.Tuple):
    elements = tuple(
      _to_spec(part, f"{name}[{number}]", left_out)
      for number, part in enumerate(space.spaces)
    )
    if None in elements:
      raise _UnsupportedError(
        f"{name} has text among its elements, {space}: offer a Dict in a"
        " wrapper, or the numbers alone."
      )
    return elements
  raise _UnsupportedError(
    f"{name} is a {type(space).__name__}, whose size or kind varies from step"
    " to step. Networks here take Box, Discrete, MultiDiscrete, MultiBinary,"
    " and Dict and Tuple of them. Leave the part out with"
    " gymnasium.wrappers.FilterObservation, or turn it into numbers with"
    " gymnasium.wrappers.TransformObservation."
  )


def _whole_numbers(shape: Any, low: Any, high: Any) -> specs.BoundedArray:
  """Returns the spec of bounded whole numbers, in 32 bits if they fit."""
  narrow = np.iinfo(np.int32)
  fits = np.min(low) >= narrow.min and np.max(high) <= narrow.max
  return specs.BoundedArray(shape, np.int32 if fits else np.int64, low, high)
