"""MuJoCo Playground's DeepMind Control Suite, in JAX (MJX)."""

import functools
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import errors
from acme_stac.on_device import environment

try:
  from mujoco_playground import dm_control_suite
except ImportError as error:
  raise ImportError(
    f"MuJoCo Playground cannot be imported ({error}). With Python 3.11 or"
    " newer, pip install 'playground>=0.2' installs it."
  ) from error

Array = jax.Array


def names() -> list[str]:
  """Returns the names of the tasks, such as "CheetahRun"."""
  return list(dm_control_suite.ALL_ENVS)


def option_types(level: str) -> dict[str, Any]:
  """Returns the options of a task, by name, with their types.

  Raises:
    ValueError: for an unknown task, with near matches.
  """
  if level not in names():
    raise ValueError(
      checks.unknown("task of MuJoCo Playground", level, names())
    )
  return {"initial_states": int}


def make(level: str, initial_states: int = 64) -> "Playground":
  """Makes a task.

  Args:
    level: its name.
    initial_states: number of states in which episodes begin. They are samples
      of the task's distribution, the same whenever it is made.

  Raises:
    ValueError: for an unknown task, with near matches, and for one that does
      not work with the installed MuJoCo.
  """
  option_types(level)  # Checks the name.
  checks.check_integer("initial_states", initial_states, minimum=1)
  time_limit = dm_control_suite.get_default_config(level).episode_length
  return Playground(
    f"playground:{level}", _load(level), time_limit,
    _initial_states(level, initial_states),
  )


@functools.cache
def _load(level: str) -> Any:
  """Returns Playground's own environment, whose physics are those of MJX.

  Warp, its default, needs an NVIDIA GPU.
  """
  try:
    return dm_control_suite.load(level, config_overrides={"impl": "jax"})
  except Exception as error:  # Some tasks use what other MuJoCos have.
    raise ValueError(
      f"playground:{level} does not work with MuJoCo {mujoco.__version__}:"
      f" {errors.describe_error(error)}. Choose another task, or another"
      " version of MuJoCo."
    ) from error


@functools.cache
def _initial_states(level: str, number: int) -> Any:
  """Returns initial states of a task, leaves of [number, ...]."""
  keys = jax.random.split(jax.random.PRNGKey(0), number)
  return jax.device_get(jax.jit(jax.vmap(_load(level).reset))(keys))


class State(NamedTuple):
  """State of a task.

  Attributes:
    inner: Playground's own state.
    steps: actions taken in this episode.
  """

  inner: Any
  steps: Array


class Playground(environment.Environment):
  """A task of Playground with dm_env's semantics.

  A time limit cuts episodes off, with discount 1; they terminate where the
  physics diverge. Rewards are in [0, 1]. Playground's wrappers, which lose the
  last observation of an episode, are not used.

  A batch of environments computes a reset at each of its steps, and a reset of
  CheetahRun takes as long as 85 steps. Episodes therefore begin in one of a few
  states that were made before.
  """

  def __init__(
    self, name: str, inner: Any, time_limit: int, initial_states: Any
  ):
    """Adapts a task.

    Args:
      name: for messages.
      inner: Playground's environment.
      time_limit: number of actions after which an episode is cut off.
      initial_states: Playground's states in which episodes begin, leaves of
        [number, ...].
    """
    self.name = name
    self._inner = inner
    self._time_limit = time_limit
    self._initial = initial_states

  def reset(self, key: Array) -> tuple[State, dm_env.TimeStep]:
    number = len(jax.tree_util.tree_leaves(self._initial)[0])
    chosen = jax.random.randint(key, (), 0, number)
    inner = jax.tree_util.tree_map(
      lambda leaf: jnp.asarray(leaf)[chosen], self._initial
    )
    return (
      State(inner, jnp.int32(0)),
      environment.restart(_finite(inner.obs)),
    )

  def step(
    self, state: State, action: Array, key: Array
  ) -> tuple[State, dm_env.TimeStep]:
    del key  # Only the initial state is random.
    # As those of `reset`, which came through NumPy, results are not weakly
    # typed.
    inner = environment.strongly_typed(self._inner.step(state.inner, action))
    steps = state.steps + 1
    return State(inner, steps), environment.transition(
      _finite(inner.obs),
      _finite(inner.reward),
      terminated=inner.done > 0,
      truncated=steps >= self._time_limit,
    )

  def observation_spec(self) -> Any:
    return jax.tree_util.tree_map(
      lambda leaf: specs.Array(leaf.shape[1:], np.float32, name="observation"),
      self._initial.obs,
    )

  def action_spec(self) -> specs.BoundedArray:
    low, high = self._inner.mj_model.actuator_ctrlrange.T.astype(np.float32)
    return specs.BoundedArray(low.shape, np.float32, low, high, name="action")

  def reward_spec(self) -> specs.BoundedArray:
    return specs.BoundedArray((), np.float32, 0.0, 1.0, name="reward")

  def render(self, state: State) -> np.ndarray:
    return self._inner.render(jax.device_get(state.inner))


def _finite(nest: Any) -> Any:
  """Returns float32 arrays with 0 where the physics have diverged.

  An agent also learns from an episode's last step.
  """
  return jax.tree_util.tree_map(
    lambda leaf: jnp.where(
      jnp.isfinite(leaf), leaf, 0.0
    ).astype(jnp.float32),
    nest,
  )
