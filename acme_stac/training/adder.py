"""Builds trajectories from time steps."""

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
from acme_stac.training.samples import Sample, not_finite, trajectory_shapes


def stored_spec(environment_spec: Any, config: STACConfig) -> Any:
  """Returns the specs of stored steps: actions are the distribution's own."""
  space = make_action_space(environment_spec.actions, config)
  return environment_spec._replace(actions=space.spec)


class Decision(NamedTuple):
  """The policy's decision at a step.

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
  """A trajectory contains NaN or infinite numbers."""


class _Item(NamedTuple):
  """An item under construction.

  Attributes:
    members: slice of the N environments that the item covers.
    trajectory: its rows.
    observation: the leaves of the trajectory's observations.
  """

  members: slice
  trajectory: Trajectory
  observation: list[np.ndarray]


class TrajectoryAdder:
  """Builds trajectories of n+1 time steps of N environments for the queue.

  Consecutive items overlap by the configured number of transitions and always
  share the time step between them, so that no transition is lost. Items cross
  episode boundaries, so nothing is padded. Time steps are batched, [N, ...]. An
  item holds the trajectories of all N environments, or of `batch_size` of them
  if N is a multiple of it. Each step is written straight into its row.

  Attributes:
    num_items: number of times that all environments' trajectories were written.
    seconds_blocked: seconds spent writing them so far.
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
      writer: receives the items.
      environment_spec: specs of one environment.
      config: the agent's configuration.
      should_stop: checked while the queue is full; the item is then dropped.
    """
    self._writer = writer
    self._should_stop = should_stop
    self._spec = stored_spec(environment_spec, config)
    self._length = config.trajectory_length
    self._overlap = config.trajectory_overlap
    self._batch_size = config.batch_size
    self._items: list[_Item] = []
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

  @property
  def steps_to_write(self) -> int:
    """Steps until the next items are written."""
    return self._length - max(self._row, 0)

  def add_first(self, timestep: dm_env.TimeStep):
    """Adds the first step of a stream or of its next episode."""
    if self._row >= 0:
      # Completes the previous LAST step's row, which has no action.
      if self._last is None:
        raise ValueError("add_first was called twice without add.")
      action = np.zeros((len(timestep.step_type), *self._spec.actions.shape))
      self._finish_row(self._last._replace(action=action))
    if not self._items:
      self._items = self._allocate(len(timestep.step_type))
    self._begin_row(timestep)

  def add(self, decision: Decision, next_timestep: dm_env.TimeStep):
    """Adds a decision and the time step that it led to.

    Raises:
      ValueError: if `add_first` has not been called.
      NonFiniteError: if this completes a trajectory with NaN or infinite
        numbers. It is not written; call `reset` next.
    """
    if self._row < 0:
      raise ValueError("add_first must be called before add.")
    self._finish_row(decision)
    self._begin_row(next_timestep)

  def _allocate(self, num_environments: int) -> list[_Item]:
    size = min(num_environments, self._batch_size)
    shapes = trajectory_shapes(self._spec, self._length, size)

    def item(first: int) -> _Item:
      # Every row is filled before the item is written.
      observation = jax.tree_util.tree_map(
        lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes.observation
      )
      # The last row's action and log-probability are not.
      trajectory = jax.tree_util.tree_map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        shapes._replace(observation=()),
      )._replace(observation=observation)
      members = slice(first, first + size)
      return _Item(members, trajectory, tree.flatten(observation))

    return [item(first) for first in range(0, num_environments, size)]

  def _begin_row(self, timestep: dm_env.TimeStep):
    self._row += 1
    row = self._row
    leaves = tree.flatten(timestep.observation)
    for members, rows, observation in self._items:
      for to, value in zip(observation, leaves, strict=True):
        to[row] = value[members]
      rows.reward[row] = timestep.reward[members]
      rows.discount[row] = timestep.discount[members]
      rows.step_type[row] = timestep.step_type[members]
    if row == self._length:
      self._write()

  def _finish_row(self, decision: Decision):
    for members, rows, _ in self._items:
      rows.action[self._row] = decision.action[members]
      rows.behaviour_log_prob[self._row] = decision.log_prob[members]
    if self._total_rows % (self._length - self._overlap) == 0:
      self._starts.append(decision)
    self._total_rows += 1
    self._last = decision

  def _write(self):
    """Writes the items and begins the next ones with the shared rows."""
    written, start = self._items, self._starts.popleft()
    for item in written:
      if names := not_finite(item.trajectory):
        raise NonFiniteError(
          "The trajectory has NaN or infinite numbers in its"
          f" {', '.join(names)}."
        )
    self._items = self._allocate(written[-1].members.stop)
    for old, new in zip(written, self._items, strict=True):
      for source, to in zip(
        tree.flatten(old.trajectory), tree.flatten(new.trajectory), strict=True
      ):
        to[: self._overlap + 1] = source[self._length - self._overlap :]
    # The newest of the shared rows still waits for its action.
    self._row = self._overlap
    core_state = tree.map_structure(np.asarray, start.core_state)
    started = time.monotonic()
    for members, trajectory, _ in written:
      sample = Sample(
        trajectory=trajectory._replace(
          core_state=tree.map_structure(
            lambda leaf, members=members: leaf[members], core_state
          )
        ),
        params_version=np.full(
          trajectory.reward.shape[1], int(start.params_version), np.int32
        ),
      )
      self._writer.put(sample, self._should_stop)
    self.seconds_blocked += time.monotonic() - started
    self.num_items += 1
