"""Gymnasium's environments by id."""

import functools
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
from acme_stac.environments import base, batches, errors, nests

try:
  import gymnasium
  from gymnasium.vector import AutoresetMode
except ImportError as error:
  raise ImportError(
    "gymnasium is not installed; 'make setup' brings it, or pip install"
    " gymnasium."
  ) from error

spaces = gymnasium.spaces

# Ids whose vector implementation is the same environment, only faster: the
# tests compare both step by step.
EQUAL_VECTORS = ("CartPole-v0", "CartPole-v1")
# Gymnasium does not describe rewards; those of these ids lie in [-1, 1].
_UNIT_REWARDS = ("CartPole-v0", "CartPole-v1")
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
      need not be the same environment. None is the second for ids where both
      are known to be equal and for those that have no other, else the first.
    autoreset_mode: how a vector implementation that does not state it starts
      episodes: "NextStep", the only mode that is supported.
    **options: what the id's own constructor takes.

  Raises:
    ValueError: for an unknown id, with near matches, for spaces that have no
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
  if vectorization_mode is None:
    vector_only = gymnasium.spec(name).entry_point is None
    is_vector = vector_only or name in EQUAL_VECTORS
    vectorization_mode = _VECTOR if is_vector else _SYNC
  try:
    if vectorization_mode == _VECTOR:
      return _VectorEnvironment(
        level,
        gymnasium.make_vec(
          name, num_environments, vectorization_mode, **options
        ),
        seed,
        autoreset_mode,
      )
    # Gymnasium's checker says less than `check`, and says it in every process.
    options = {"disable_env_checker": True, **options}
    return batches.BatchOfEnvironments([
      _SingleEnvironment(gymnasium.make(name, **options), seed + member)
      for member in range(num_environments)
    ])
  except _UnsupportedError:
    raise
  except Exception as error:  # Each has constructors and errors of its own.
    advice = ""
    if isinstance(
      error, ImportError | gymnasium.error.DependencyNotInstalled
    ):
      advice = (
        " Install what is missing with pip. 'make setup' brings"
        " what Gymnasium's classic control, Box2D and MuJoCo tasks need."
      )
    raise ValueError(
      f"Gymnasium cannot make {level!r}: {errors.describe_error(error)}."
      f"{advice}"
    ) from error


class _UnsupportedError(ValueError):
  """An environment is made well, but cannot be used here."""


def _import(package: str, level: str):
  """Imports a package that registers ids."""
  try:
    importlib.import_module(package)
  except Exception as error:  # Whatever a user's module may raise.
    raise ValueError(
      f"The package {package!r} of 'gymnasium:{level}' cannot be imported"
      f" ({type(error).__name__}: {error}). It must be installed, or in a"
      " folder of PYTHONPATH."
    ) from error


def _unknown(name: str) -> str:
  """Returns what to say of an id that is not registered."""
  for prefix, package in _PACKAGES.items():
    if name.startswith(prefix) and package not in sys.modules:
      also = ""
      if prefix == "ALE/":
        game = name.removeprefix(prefix).partition("-")[0]
        also = (
          f" Or write atari:{game} for the game with the papers' preprocessing."
        )
      return (
        f"Gymnasium knows {name!r} once the package {package} is imported:"
        f" write gymnasium:{package}:{name}.{also}"
      )
  return (
    checks.unknown("Gymnasium id", name, list(gymnasium.registry))
    + " If a package registers it, write gymnasium:<package>:<id>."
  )


class _SingleEnvironment(dm_env.Environment):
  """An environment of Gymnasium as one of dm_env.

  `info` is not looked at. Choices that are numbered from another start than 0
  are numbered from 0 as actions. Parts of an observation that are text are left
  out.
  """

  def __init__(self, environment: gymnasium.Env, seed: int):
    """Takes ownership of `environment`; the first reset seeds it."""
    self.environment = environment
    self._seed: int | None = seed
    self._observation_spec = _observation_spec(environment.observation_space)
    self._action_spec, self._first_action = _action_spec(
      environment.action_space
    )

  def reset(self) -> dm_env.TimeStep:
    result = self.environment.reset(seed=self._seed)
    # A later reset must not repeat the first one's episode.
    self._seed = None
    if not isinstance(result, tuple) or len(result) != 2:
      raise ValueError(
        "reset() must return observation and info, got a"
        f" {type(result).__name__}. {_OLD}"
      )
    return dm_env.restart(_cast(self._observation_spec, result[0]))

  def step(self, action: Any) -> dm_env.TimeStep:
    space = self.environment.action_space
    if isinstance(space, spaces.Discrete):
      action = space.dtype.type(self._first_action + int(action))
    try:
      result = self.environment.step(action)
    except ValueError:
      self._check_api(action)
      raise
    if not isinstance(result, tuple) or len(result) != 5:
      raise ValueError(_NOT_FIVE)
    observation, reward, terminated, truncated, _ = result
    observation = _cast(self._observation_spec, observation)
    reward = _number(reward)
    if terminated:
      return dm_env.termination(reward, observation)
    if truncated:
      return dm_env.truncation(reward, observation)
    return dm_env.transition(reward, observation)

  def _check_api(self, action: Any):
    """Raises ValueError if wrappers failed on an environment of the old API."""
    result: Any = self.environment.unwrapped.step(action)
    if not isinstance(result, tuple) or len(result) != 5:
      raise ValueError(_NOT_FIVE)

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self._action_spec

  def render(self) -> np.ndarray:
    """Draws the environment if it has the option render_mode="rgb_array"."""
    _prepare_drawing(self.environment.render_mode)
    picture: Any = self.environment.render()
    return np.asarray(picture)

  def close(self):
    self.environment.close()


class _VectorEnvironment(base.BatchedEnvironment):
  """A vector environment of Gymnasium that resets members in the next step."""

  def __init__(
    self,
    level: str,
    vector: gymnasium.vector.VectorEnv,
    seed: int,
    autoreset_mode: str | None,
  ):
    """Takes ownership of `vector`; arguments are those of `make`."""
    self._level = level
    self._vector = vector
    _check_mode(level, vector, autoreset_mode)
    self.num_environments = vector.num_envs
    self._seed = seed
    self._observation_spec = _observation_spec(vector.single_observation_space)
    self._action_spec, self._first_action = _action_spec(
      vector.single_action_space
    )
    self._ended = np.zeros(self.num_environments, bool)

  def reset(self) -> dm_env.TimeStep:
    observation, _ = self._vector.reset(seed=self._seed)
    # A later reset must not repeat the first one's episodes.
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
        "the vector environment gave the last observation of an episode apart,"
        " as those do that reset members in the same step. Take the id's single"
        f" environments with vectorization_mode={_SYNC!r}"
      )
    return base.time_step(
      _cast(self._observation_spec, observation),
      np.asarray(reward),
      first,
      terminated,
      truncated & ~terminated,
    )

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self._action_spec

  def reward_spec(self) -> specs.Array:
    """Returns a spec that has bounds where they are known."""
    if self._level not in _UNIT_REWARDS:
      return super().reward_spec()
    return specs.BoundedArray((), np.float32, -1.0, 1.0, name="reward")

  def render(self) -> np.ndarray:
    """See the base class; needs the option render_mode="rgb_array"."""
    _prepare_drawing(self._vector.render_mode)
    pictures: Any = self._vector.render()
    return np.asarray(pictures[0])

  def close(self):
    self._vector.close()


# What `info` has where members are reset in the step that ends their episode.
_FINAL = {"final_obs", "final_observation"}
_OLD = (
  "Environments with the interface of gym before 0.26 must be ported to"
  " Gymnasium's: reset(seed, options) returns (observation, info) and"
  " step(action) returns (observation, reward, terminated, truncated, info)"
)
_NOT_FIVE = f"step() must return five values. {_OLD}"


def _check_mode(
  level: str, vector: gymnasium.vector.VectorEnv, given: str | None
):
  """Raises ValueError unless members are reset in the step after the end."""
  modes = {_plain(mode.value): mode for mode in AutoresetMode}
  stated = vector.metadata.get("autoreset_mode")
  if stated is None and given is None:
    raise _UnsupportedError(
      f"{level!r} is made by {type(vector).__name__}, which does not state when"
      " it resets a member whose episode ended (metadata['autoreset_mode']). If"
      " that is in the next step, whose action it ignores, say so with the"
      " option autoreset_mode=NextStep. Else take the id's single environments"
      f" with vectorization_mode={_SYNC}, if it has some."
    )
  mode = given if stated is None else stated
  text = mode.value if isinstance(mode, AutoresetMode) else str(mode)
  if _plain(text) not in modes:
    raise _UnsupportedError(
      checks.unknown("autoreset_mode", text, [m.value for m in AutoresetMode])
    )
  if modes[_plain(text)] != AutoresetMode.NEXT_STEP:
    raise _UnsupportedError(
      f"{level!r} is made by {type(vector).__name__} with autoreset mode"
      f" {text}. Only NextStep is supported, as others leave no step between"
      " two episodes. If its constructor can be told the mode, do so; else take"
      f" the id's single environments with vectorization_mode={_SYNC}."
    )


def _plain(mode: str) -> str:
  """Returns "nextstep" for NextStep, NEXT_STEP and next-step."""
  return mode.lower().replace("_", "").replace("-", "")


def _prepare_drawing(render_mode: str | None):
  if render_mode != "rgb_array":
    raise NotImplementedError(
      "An environment of Gymnasium draws itself if it is made with the option"
      " render_mode='rgb_array', and can do so then."
    )
  # pygame, which draws many of them, looks for a screen otherwise.
  os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _number(reward: Any) -> float:
  """Returns a reward; raises ValueError if it is not one number."""
  value = np.asarray(reward)
  if value.size != 1 or value.dtype.kind not in "biuf":
    raise ValueError(f"the reward must be one number, got {reward!r}")
  return float(value.item())


def _cast(spec: Any, observation: Any) -> Any:
  """Returns the parts of an observation that a spec names, in its types.

  Raises:
    ValueError: if a part is missing, or its numbers cannot be of its type.
  """

  def cast(path: Any, leaf: specs.Array, value: Any) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype == leaf.dtype:
      return value
    with np.errstate(over="ignore"):
      converted = value.astype(leaf.dtype)
    if leaf.dtype.kind in "biu":
      fits = np.array_equal(converted, value)
    else:
      fits = not np.any(np.isinf(converted) & np.isfinite(value))
    if not fits:
      raise ValueError(
        f"observation{jax.tree_util.keystr(path)} must be {leaf.dtype}, got"
        f" numbers of type {value.dtype} that are not."
      )
    return converted

  if isinstance(spec, specs.Array):
    return cast((), spec, observation)
  try:
    selected = nests.select(spec, observation)
  except (LookupError, TypeError) as error:
    _, problems = nests.observation_parts(spec, observation)
    raise ValueError(" ".join(problems)) from error
  return jax.tree_util.tree_map_with_path(cast, spec, selected)


def _action_spec(space: gymnasium.Space) -> tuple[Any, int]:
  """Returns the spec of actions, and the number of the first choice."""
  if isinstance(space, spaces.Discrete):
    # Gymnasium's own are twice as wide as anything here needs.
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
    ValueError: for a space that has none.
  """
  left_out: list[str] = []
  spec = _to_spec(space, "observation", left_out)
  if spec is None or not jax.tree_util.tree_leaves(spec):
    raise _UnsupportedError(f"Nothing of the observation is a number: {space}.")
  if left_out:
    _say_left_out(", ".join(left_out))
  return spec


@functools.cache
def _say_left_out(names: str):
  """Warns of parts once in a process, however many members there are."""
  warnings.warn(
    f"{names}: text, which networks here do not read, is left out of the"
    " observation.",
    stacklevel=2,
  )


def _to_spec(space: gymnasium.Space, name: str, left_out: list[str]) -> Any:
  """Returns the spec of a part of an observation, or None for text.

  Args:
    space: of the part.
    name: of the part, in messages.
    left_out: names of parts that are text are added to it.
  """
  if isinstance(space, spaces.Discrete):
    count, start = int(space.n), int(space.start)
    if not start:
      # Gymnasium's own are twice as wide as anything here needs.
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
    # Also spaces of other packages, such as Minigrid's of missions.
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
    " gymnasium.wrappers.FilterObservation, or make numbers of it with"
    " gymnasium.wrappers.TransformObservation."
  )


def _whole_numbers(shape: Any, low: Any, high: Any) -> specs.BoundedArray:
  """Returns the spec of bounded whole numbers in the least of two widths."""
  narrow = np.iinfo(np.int32)
  fits = np.min(low) >= narrow.min and np.max(high) <= narrow.max
  return specs.BoundedArray(shape, np.int32 if fits else np.int64, low, high)
