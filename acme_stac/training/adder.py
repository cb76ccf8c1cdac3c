"""From time steps to trajectories."""

import collections
import time
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
import tree
from acme import adders

from acme_stac.agent import queues
from acme_stac.config import STACConfig
from acme_stac.core.types import Trajectory


class Extras(NamedTuple):
  """What the actor knows of a step beyond its action.

  Attributes:
    log_prob: log μ(a|x), [N].
    core_state: nest of [N, ...], the recurrent state before the step.
    params_version: learner step of the acting parameters.
  """

  log_prob: np.ndarray
  core_state: Any
  params_version: Any


class NonFiniteError(ValueError):
  """A trajectory has numbers that nothing can be learned from."""


class TrajectoryAdder(adders.Adder):
  """Makes trajectories of n+1 time steps of N environments for the queue.

  Consecutive items overlap by the configured number of transitions and always
  share the time step between them, so that no transition is lost. An item
  crosses episode ends: nothing is padded. Time steps are batched [N, ...], or
  single ones of an Acme environment loop, which count as N = 1.

  Attributes:
    num_items: items so far.
    seconds_blocked: time so far in which the writer had an item.
  """

  def __init__(
    self,
    writer: queues.Writer,
    environment_spec: Any,
    config: STACConfig,
  ):
    """Makes an adder.

    Args:
      writer: where the items go.
      environment_spec: specs of one unbatched environment, with the actions
        that are stored.
      config: the agent's configuration.
    """
    self._writer = writer
    self._spec = environment_spec
    self._length = config.trajectory_length
    self._overlap = config.trajectory_overlap
    self._rows: Trajectory | None = None
    self._row = -1
    self._total_rows = 0
    self._starts: collections.deque[Extras] = collections.deque()
    self._last_extras: Extras | None = None
    self.num_items = 0
    self.seconds_blocked = 0.0

  def reset(self):
    """Forgets the rows that have not been written yet."""
    self._row = -1
    self._total_rows = 0
    self._starts.clear()

  def add_first(self, timestep: dm_env.TimeStep):
    """Adds the first step of a stream, or of the next episode of one."""
    timestep = _batched(timestep)
    if self._row >= 0:
      # The row of the LAST step before: nothing was done there.
      if self._last_extras is None:
        raise ValueError("add_first was called twice without add.")
      action = np.zeros((len(timestep.step_type), *self._spec.actions.shape))
      self._finish_row(action, self._last_extras)
    self._begin_row(timestep)

  def add(self, action: Any, next_timestep: dm_env.TimeStep, extras: Extras):
    """Adds an action and the time step that it led to.

    Args:
      action: [N, ...].
      next_timestep: the time step after it.
      extras: of the same step as `action`.

    Raises:
      ValueError: if `add_first` has not been called.
      NonFiniteError: if a trajectory was complete and not all of its numbers
        are finite. It is not written; `reset` comes next.
    """
    if self._row < 0:
      raise ValueError("add_first must be called before add.")
    self._finish_row(action, extras)
    self._begin_row(_batched(next_timestep))

  def _allocate(self, num_environments: int) -> Trajectory:
    def rows(shape, dtype) -> np.ndarray:
      return np.zeros((self._length + 1, num_environments, *shape), dtype)

    return Trajectory(
      observation=jax.tree_util.tree_map(
        lambda spec: rows(spec.shape, spec.dtype), self._spec.observations
      ),
      action=rows(self._spec.actions.shape, self._spec.actions.dtype),
      reward=rows((), np.float32),
      discount=rows((), np.float32),
      step_type=rows((), np.int32),
      behaviour_log_prob=rows((), np.float32),
    )

  def _begin_row(self, timestep: dm_env.TimeStep):
    if self._rows is None:
      self._rows = self._allocate(len(timestep.step_type))
    self._row += 1
    rows, row = self._rows, self._row
    tree.map_structure(
      lambda to, value: np.copyto(to[row], value),
      rows.observation,
      timestep.observation,
    )
    rows.reward[row] = timestep.reward
    rows.discount[row] = timestep.discount
    rows.step_type[row] = timestep.step_type
    if row == self._length:
      self._write(rows)
      # The next trajectory begins with the rows that it shares with this one;
      # its newest row still waits for its action.
      for array in tree.flatten(rows):
        array[: self._overlap + 1] = array[self._length - self._overlap :]
      self._row = self._overlap

  def _finish_row(self, action: Any, extras: Extras):
    assert self._rows is not None
    self._rows.action[self._row] = action
    self._rows.behaviour_log_prob[self._row] = extras.log_prob
    if self._total_rows % (self._length - self._overlap) == 0:
      self._starts.append(extras)
    self._total_rows += 1
    self._last_extras = extras

  def _write(self, rows: Trajectory):
    start = self._starts.popleft()
    if names := queues.not_finite(rows):
      raise NonFiniteError(
        f"The trajectory's {', '.join(names)} had numbers that are not finite."
      )
    sample = queues.Sample(
      trajectory=rows._replace(
        core_state=tree.map_structure(np.asarray, start.core_state)
      ),
      params_version=np.full(
        rows.reward.shape[1], int(start.params_version), np.int32
      ),
    )
    started = time.monotonic()
    self._writer.put(sample)
    self.seconds_blocked += time.monotonic() - started
    self.num_items += 1


def _batched(timestep: dm_env.TimeStep) -> dm_env.TimeStep:
  """Returns a time step with a batch axis and numbers for None."""
  if np.ndim(timestep.step_type) > 0:
    return timestep
  return dm_env.TimeStep(
    np.array([timestep.step_type], np.int32),
    np.array([timestep.reward or 0.0], np.float32),
    np.array(
      [1.0 if timestep.discount is None else timestep.discount], np.float32
    ),
    jax.tree_util.tree_map(
      lambda x: np.asarray(x)[None], timestep.observation
    ),
  )
