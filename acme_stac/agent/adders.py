"""From time steps to trajectories in the Reverb queue."""

import collections
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
import reverb
import tensorflow as tf
import tree
from acme import adders

from acme_stac.config import STACConfig
from acme_stac.core.types import Trajectory

QUEUE = "trajectories"
# How long a blocked call waits before it looks whether to stop.
_POLL_MILLISECONDS = 500


class Sample(NamedTuple):
  """What one item of the queue holds and, stacked, a learner's batch.

  Attributes:
    trajectory: [T+1, N, ...], of the N environments of one actor.
    params_version: learner step of the parameters that acted in the first row,
      [N] int32.
  """

  trajectory: Trajectory
  params_version: np.ndarray


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


def make_signature(
  environment_spec: Any, core_state: Any, config: STACConfig
) -> Sample:
  """Returns the `tf.TensorSpec`s of the queue's items, for any number N.

  Args:
    environment_spec: specs of one unbatched environment, with the actions that
      are stored.
    core_state: a core state of any batch size, [B, ...].
    config: the agent's configuration.
  """

  def rows(shape, dtype) -> tf.TensorSpec:
    return tf.TensorSpec((config.trajectory_length + 1, None, *shape), dtype)

  return Sample(
    trajectory=Trajectory(
      observation=jax.tree_util.tree_map(
        lambda spec: rows(spec.shape, spec.dtype),
        environment_spec.observations,
      ),
      action=rows(
        environment_spec.actions.shape, environment_spec.actions.dtype
      ),
      reward=rows((), np.float32),
      discount=rows((), np.float32),
      step_type=rows((), np.int32),
      behaviour_log_prob=rows((), np.float32),
      core_state=jax.tree_util.tree_map(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), core_state
      ),
    ),
    params_version=tf.TensorSpec((None,), np.int32),
  )


class TrajectoryAdder(adders.Adder):
  """Writes trajectories of n+1 time steps of N environments to the queue.

  Consecutive items overlap by the configured number of transitions and always
  share the time step between them, so that no transition is lost. An item
  crosses episode ends: nothing is padded. Time steps are batched [N, ...], or
  single ones of an Acme environment loop, which count as N = 1.

  A call blocks while the queue is full, so that nothing is overwritten. The
  writer reconnects by itself after the server has been away.
  """

  def __init__(
    self,
    client: reverb.Client,
    environment_spec: Any,
    config: STACConfig,
    should_stop: Callable[[], bool] = lambda: False,
  ):
    """Makes an adder.

    Args:
      client: client of the server with the table `QUEUE`.
      environment_spec: specs of one unbatched environment, with the actions
        that are stored.
      config: the agent's configuration.
      should_stop: looked at while blocked; the item in hand is given up if
        True.
    """
    self._client = client
    self._spec = environment_spec
    self._length = config.trajectory_length
    self._overlap = config.trajectory_overlap
    self._should_stop = should_stop
    self._writer: reverb.TrajectoryWriter | None = None
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
    sample = Sample(
      trajectory=rows._replace(
        core_state=tree.map_structure(np.asarray, start.core_state)
      ),
      params_version=np.full(
        rows.reward.shape[1], int(start.params_version), np.int32
      ),
    )
    if self._writer is None:
      self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
    self._writer.append(sample)
    self._writer.create_item(
      QUEUE, 1.0, tree.map_structure(lambda column: column[-1],
                                     self._writer.history)
    )
    started = time.monotonic()
    while not self._should_stop():
      try:
        # Not one item ahead of the queue: what waits grows stale.
        self._writer.flush(
          block_until_num_items=0, timeout_ms=_POLL_MILLISECONDS
        )
        break
      except reverb.DeadlineExceededError:
        continue
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


def read_batches(
  client: reverb.Client, signature: Sample, config: STACConfig
) -> Iterator[Sample]:
  """Yields batches of `batch_size` trajectories, oldest first, without end.

  Args:
    client: client of the server with the table `QUEUE`.
    signature: of the table's items, from `make_signature`.
    config: the agent's configuration.

  Yields:
    Samples of numpy arrays, time-major [T+1, B, ...].

  Raises:
    ValueError: if the actors' numbers of environments do not add up to the
      batch size.
  """
  dataset = reverb.TrajectoryDataset(
    server_address=client.server_address,
    table=QUEUE,
    dtypes=tree.map_structure(lambda spec: spec.dtype, signature),
    shapes=tree.map_structure(lambda spec: spec.shape, signature),
    max_in_flight_samples_per_worker=1,
    num_workers_per_iterator=1,
    # No time-out: what a sampler has under way when it times out is lost.
  )
  items: list[Sample] = []
  size = 0
  for item in dataset.as_numpy_iterator():
    # Reverb makes named tuples of its own.
    items.append(Sample(Trajectory(*item.data[0]), *item.data[1:]))
    size += len(item.data.params_version)
    if size == config.batch_size:
      yield _concatenate(items)
      items, size = [], 0
    elif size > config.batch_size:
      raise ValueError(
        f"Items of {[len(x.params_version) for x in items]} trajectories do"
        f" not make a batch of {config.batch_size}. The number of"
        " environments per actor must divide the batch size."
      )


def _concatenate(items: list[Sample]) -> Sample:
  if len(items) == 1:
    return items[0]
  trajectories = [item.trajectory for item in items]
  rows = tree.map_structure(
    lambda *leaves: np.concatenate(leaves, axis=1),
    *[t._replace(core_state=()) for t in trajectories],
  )
  core_state = tree.map_structure(
    lambda *leaves: np.concatenate(leaves, axis=0),
    *[t.core_state for t in trajectories],
  )
  return Sample(
    rows._replace(core_state=core_state),
    np.concatenate([item.params_version for item in items]),
  )
