"""Batches of environments that step together."""

import abc
from typing import Any

import dm_env
import numpy as np

from acme_stac.environments import precision

NOT_DRAWN = "{} has no method render() that draws it."


class HasSpecs(abc.ABC):
  """The specs of an environment, or of one member of a batch."""

  @abc.abstractmethod
  def observation_spec(self) -> Any:
    """Returns the spec of an observation."""

  @abc.abstractmethod
  def action_spec(self) -> Any:
    """Returns the spec of an action."""

  def reward_spec(self) -> dm_env.specs.Array:
    """Returns the spec of a reward."""
    return dm_env.specs.Array((), np.float32, name="reward")

  def discount_spec(self) -> dm_env.specs.BoundedArray:
    """Returns the spec of a discount."""
    return dm_env.specs.BoundedArray((), np.float32, 0.0, 1.0, name="discount")


class BatchedEnvironment(HasSpecs):
  """N environments that step together, with dm_env's semantics for each.

  Time steps are `dm_env.TimeStep`s whose leaves have a leading axis [N]. A
  member that returned LAST ignores its next action, starts an episode and
  returns FIRST. `reward` and `discount` of a FIRST step are 0 and 1 and belong
  to no transition. The next step may overwrite the arrays of a time step: copy
  what you keep.

  Specs describe one member, without the batch axis.
  """

  num_environments: int
  # Environment steps (frames) per action.
  action_repeat: int = 1
  _sent: np.ndarray | None = None

  @abc.abstractmethod
  def reset(self) -> dm_env.TimeStep:
    """Starts a new episode in every member."""

  @abc.abstractmethod
  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    """Steps every member with its action of `actions`, [N, ...]."""

  def send(self, actions: np.ndarray):
    """Starts a step, whose result `receive` returns.

    Environments that step in other threads overlap with what the caller does
    in between; this default steps in `receive`.
    """
    self._sent = actions

  def receive(self) -> dm_env.TimeStep:
    """Waits for the step that `send` started, and returns its result."""
    actions, self._sent = self._sent, None
    assert actions is not None, "send comes before receive"
    return self.step(actions)

  def render(self) -> np.ndarray:
    """Draws the first member as it is at its newest time step.

    Returns:
      RGB, uint8 [height, width, 3]. The next call may overwrite it.

    Raises:
      NotImplementedError: if it cannot be drawn.
    """
    raise NotImplementedError(NOT_DRAWN.format(type(self).__name__))

  def close(self):  # noqa: B027  Most have nothing to free.
    """Frees the resources of the environments."""


def check_choices(actions: Any, num_choices: int, num_environments: int):
  """Raises ValueError unless actions are whole numbers [N] in their range."""
  actions = np.asarray(actions)
  if actions.shape != (num_environments,) or actions.dtype.kind not in "iu":
    raise ValueError(
      f"Actions must be {num_environments} whole numbers, got {actions.dtype}"
      f" of shape {actions.shape}."
    )
  if actions.min() < 0 or actions.max() >= num_choices:
    raise ValueError(
      f"Actions must be in [0, {num_choices}), got {actions.tolist()}."
    )


def time_step(
  observation: Any,
  reward: np.ndarray,
  first: np.ndarray,
  terminated: np.ndarray,
  truncated: np.ndarray,
) -> dm_env.TimeStep:
  """Returns a time step [N] from the results of a vector environment.

  Args:
    observation: nest of arrays [N, ...].
    reward: [N], ignored where `first`.
    first: bool [N], members that started an episode.
    terminated: bool [N], members whose episode ended in a terminal state.
    truncated: bool [N], members whose episode a limit cut off. Their discount
      is 1, so that values bootstrap there.
  """
  step_type = np.full(first.shape, dm_env.StepType.MID, np.int32)
  step_type[terminated | truncated] = dm_env.StepType.LAST
  step_type[first] = dm_env.StepType.FIRST
  discount = 1.0 - (terminated & ~first).astype(np.float32)
  reward = precision.cast("reward", np.where(first, 0.0, reward), np.float32)
  return dm_env.TimeStep(step_type, reward, discount, observation)


def first_time_step(
  observation: Any, num_environments: int
) -> dm_env.TimeStep:
  """Returns the time step at which every member starts an episode."""
  no = np.zeros(num_environments, bool)
  return time_step(observation, np.zeros(num_environments), ~no, no, no)
