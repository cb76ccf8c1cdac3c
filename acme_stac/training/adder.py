"""Makes trajectories of time steps."""

import collections
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
import tree

from acme_stac.config import STACConfig
from acme_stac.core.types import Trajectory
from acme_stac.networks import make_action_space
from acme_stac.training.local_queue import Writer
from acme_stac.training.samples import Sample, not_finite


def stored_spec(environment_spec: Any, config: STACConfig) -> Any:
  """Returns specs whose actions are those stored: the distribution's own."""
  space = make_action_space(environment_spec.actions, config)
  return environment_spec._replace(actions=space.spec)


class Decision(NamedTuple):
  """What the policy did at a step.

  Attributes:
    action: the distribution's action, [N, ...].
    log_prob: log μ(a|x), [N].
    core_state: nest of [N, ...], the recurrent state before the step.
    params_version: learner step of the acting parameters.
  """

  # Arrays of NumPy or JAX.
  action: Any
  log_prob: Any
  core_state: Any
  params_version: Any


class NonFiniteError(ValueError):
  """Raised for a trajectory with NaN or infinite numbers."""


class TrajectoryAdder:
  """Makes trajectories of n+1 time steps of N environments for the queue.

  Consecutive items overlap by the configured number of transitions and always
  share the time step between them, so that no transition is lost. An item
  crosses episode ends: nothing is padded. Time steps are batched, [N, ...].

  Attributes:
    num_items: items written so far.
    seconds_blocked: time spent so far in writing them.
  """

  def __init__(
    self,
    writer: Writer,
    environment_spec: Any,
    config: STACConfig,
    should_stop: Callable[[], bool] = lambda: False,
  ):
    """Makes an adder.

    Args:
      writer: where the items go.
      environment_spec: specs of one environment.
      config: the agent's configuration.
      should_stop: checked while the queue is full; the item is then dropped.
    """
    self._writer = writer
    self._should_stop = should_stop
    self._spec = stored_spec(environment_spec, config)
    self._length = config.trajectory_length
    self._overlap = config.trajectory_overlap
    self._rows: Trajectory | None = None
    self._row = -1
    self._total_rows = 0
    self._starts: collections.deque[Decision] = collections.deque()
    self._last: Decision | None = None
    self.num_items = 0
    self.seconds_blocked = 0.0

  def reset(self):
    """Drops the rows that have not been written yet."""
    self._row = -1
    self._total_rows = 0
    self._starts.clear()

  def add_first(self, timestep: dm_env.TimeStep):
    """Adds the first step of a stream, or of the next episode of one."""
    if self._row >= 0:
      # Completes the row of the LAST step before, where nothing was done.
      if self._last is None:
        raise ValueError("add_first was called twice without add.")
      action = np.zeros((len(timestep.step_type), *self._spec.actions.shape))
      self._finish_row(self._last._replace(action=action))
    self._begin_row(timestep)

  def add(self, decision: Decision, next_timestep: dm_env.TimeStep):
    """Adds a decision and the time step that it led to.

    Raises:
      ValueError: if `add_first` has not been called.
      NonFiniteError: if this completes a trajectory with NaN or infinite
        numbers. It is not written; `reset` comes next.
    """
    if self._row < 0:
      raise ValueError("add_first must be called before add.")
    self._finish_row(decision)
    self._begin_row(next_timestep)

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
      # The next trajectory begins with the rows that it shares with this one,
      # the newest of which still waits for its action.
      for array in tree.flatten(rows):
        array[: self._overlap + 1] = array[self._length - self._overlap :]
      self._row = self._overlap

  def _finish_row(self, decision: Decision):
    assert self._rows is not None
    self._rows.action[self._row] = decision.action
    self._rows.behaviour_log_prob[self._row] = decision.log_prob
    if self._total_rows % (self._length - self._overlap) == 0:
      self._starts.append(decision)
    self._total_rows += 1
    self._last = decision

  def _write(self, rows: Trajectory):
    start = self._starts.popleft()
    if names := not_finite(rows):
      raise NonFiniteError(
        "The trajectory has NaN or infinite numbers in its"
        f" {', '.join(names)}."
      )
    sample = Sample(
      trajectory=rows._replace(
        core_state=tree.map_structure(np.asarray, start.core_state)
      ),
      params_version=np.full(
        rows.reward.shape[1], int(start.params_version), np.int32
      ),
    )
    started = time.monotonic()
    self._writer.put(sample, self._should_stop)
    self.seconds_blocked += time.monotonic() - started
    self.num_items += 1
