"""Environments written in JAX, with dm_env's semantics."""

import abc
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_stac.environments import base

Array = jax.Array
# A nest of arrays.
State = Any


class Environment(base.HasSpecs):
  """An environment as pure functions of its state, the action and a key.

  `reset` and `step` describe one environment and are traced by JAX: they must
  have no side effects, and the shapes and types of their results must not
  depend on values. Whoever steps an environment starts the next episode by
  `reset` after a LAST step; neither function does so by itself.

  Attributes:
    name: names the environment in messages.
    action_repeat: environment steps (frames) per action.
  """

  name: str
  action_repeat: int = 1

  @abc.abstractmethod
  def reset(self, key: Array) -> tuple[State, dm_env.TimeStep]:
    """Starts an episode; returns its state and FIRST step, see `restart`."""

  @abc.abstractmethod
  def step(
    self, state: State, action: Array, key: Array
  ) -> tuple[State, dm_env.TimeStep]:
    """Takes an action; returns the new state and time step.

    The step is LAST at the end of an episode, with discount 0 if it has
    terminated and 1 if a time limit cut it off; its observation is the
    episode's last one. See `transition`.
    """

  def render(self, state: State) -> np.ndarray:
    """Draws a state; RGB, uint8 [height, width, 3].

    Raises:
      NotImplementedError: if it cannot be drawn.
    """
    raise NotImplementedError(f"{self.name} cannot be drawn.")


def strongly_typed(nest: Any) -> Any:
  """Returns a nest of arrays none of which is weakly typed.

  States that begin with Python numbers are, and would change in a step.
  """
  return jax.tree_util.tree_map(
    lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), nest
  )


def restart(observation: Any) -> dm_env.TimeStep:
  """Returns the FIRST step of an episode; its reward is 0, its discount 1."""
  return dm_env.TimeStep(
    step_type=jnp.int32(dm_env.StepType.FIRST),
    reward=jnp.float32(0.0),
    discount=jnp.float32(1.0),
    observation=observation,
  )


def transition(
  observation: Any, reward: Any, terminated: Any, truncated: Any = False
) -> dm_env.TimeStep:
  """Returns a MID step, or the LAST one of an episode.

  Args:
    observation: the observation that the action led to.
    reward: of the action, a scalar.
    terminated: whether the episode ended in a terminal state, whose value is 0.
    truncated: whether a time limit cut it off, so that values bootstrap.
  """
  ended = jnp.logical_or(terminated, truncated)
  step_type = jnp.where(
    ended, int(dm_env.StepType.LAST), int(dm_env.StepType.MID)
  )
  return dm_env.TimeStep(
    step_type=step_type.astype(jnp.int32),
    reward=jnp.asarray(reward, jnp.float32),
    discount=1.0 - jnp.asarray(terminated, jnp.float32),
    observation=observation,
  )
