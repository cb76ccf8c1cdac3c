"""The trajectory queue on Reverb servers."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import reverb
import tensorflow as tf
import tree

from acme_stac.core.types import Trajectory
from acme_stac.training.adder import stored_spec
from acme_stac.training.builder import AgentBuilder
from acme_stac.training.samples import Sample
from acme_stac.training.waiting import POLL_SECONDS, WaitWarning

QUEUE = "trajectories"
_SERVER_TIMEOUT_SECONDS = 1


def make_table(
  agent: AgentBuilder, environment_spec: Any
) -> reverb.Table:
  """Returns the table of one queue: first in, first out, each item once."""
  networks = agent.make_networks(environment_spec)
  core_state = jax.eval_shape(lambda: networks.initial_state(1))
  return reverb.Table.queue(
    QUEUE,
    max_size=agent.queue_size,
    signature=_signature(
      stored_spec(environment_spec, agent.config),
      core_state,
      agent.config.trajectory_length + 1,
    ),
  )


def _signature(spec: Any, core_state: Any, length: int) -> Sample:
  """Returns the `tf.TensorSpec`s of items of `length` rows, for any N."""

  def rows(shape, dtype) -> tf.TensorSpec:
    return tf.TensorSpec((length, None, *shape), dtype)

  return Sample(
    trajectory=Trajectory(
      observation=jax.tree_util.tree_map(
        lambda leaf: rows(leaf.shape, leaf.dtype), spec.observations
      ),
      action=rows(spec.actions.shape, spec.actions.dtype),
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


class ReverbQueue:
  """A `Writer` and `Queue` on one Reverb server.

  Writers reconnect by themselves after the server has been restarted.
  """

  def __init__(self, client: reverb.Client):
    """Connects to the table `QUEUE` on the server of `client`."""
    self._client = client
    self._writer: reverb.TrajectoryWriter | None = None

  def put(
    self, sample: Sample, should_stop: Callable[[], bool] = lambda: False
  ):
    """Writes an item, see `Writer.put`."""
    if self._writer is None:
      self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
    self._writer.append(sample)
    self._writer.create_item(
      QUEUE, 1.0, tree.map_structure(lambda column: column[-1],
                                     self._writer.history)
    )
    warning = WaitWarning("room in the queue")
    while not should_stop():
      try:
        # No item is buffered here, where it would grow stale.
        self._writer.flush(
          block_until_num_items=0, timeout_ms=int(1e3 * POLL_SECONDS)
        )
        break
      except reverb.DeadlineExceededError:
        warning.check()

  def __iter__(self) -> Iterator[Sample]:
    """Iterates over items, oldest first, without end."""
    while (info := self._table_info()) is None:
      time.sleep(POLL_SECONDS)  # The server is being restarted.
    dataset = reverb.TrajectoryDataset(
      server_address=self._client.server_address,
      table=QUEUE,
      dtypes=tree.map_structure(lambda spec: spec.dtype, info.signature),
      shapes=tree.map_structure(lambda spec: spec.shape, info.signature),
      max_in_flight_samples_per_worker=1,
      num_workers_per_iterator=1,
      # No timeout: a sampler that times out loses items in flight.
    )
    for item in dataset.as_numpy_iterator():
      # Reverb returns named tuples of its own types.
      yield Sample(Trajectory(*item.data[0]), *item.data[1:])

  def _table_info(self) -> Any:
    try:
      return self._client.server_info(timeout=_SERVER_TIMEOUT_SECONDS)[QUEUE]
    except (reverb.errors.ReverbError, RuntimeError):  # The socket was closed.
      return None

  @property
  def fill(self) -> float:
    """The share of the queue in use; NaN if the server does not answer."""
    info = self._table_info()
    return float("nan") if info is None else info.current_size / info.max_size

  @property
  def num_items(self) -> int | None:
    """Items in the queue; None if the server does not answer."""
    info = self._table_info()
    return None if info is None else info.current_size


class ReverbQueues:
  """A `Queue` on several Reverb servers, which yields items as they arrive."""

  def __init__(self, clients: Sequence[reverb.Client]):
    """Connects to the servers of `clients`."""
    self._queues = [ReverbQueue(client) for client in clients]

  @property
  def fill(self) -> float:
    """The share of the queues in use; NaN if one does not answer."""
    return float(np.mean([one.fill for one in self._queues]))

  @property
  def num_items(self) -> int | None:
    """Items in the queues; None if one does not answer."""
    numbers = [one.num_items for one in self._queues]
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None

  def __iter__(self) -> Iterator[Sample]:
    """Iterates over items; a thread reads each queue."""
    if len(self._queues) == 1:
      yield from self._queues[0]
    elements: queue.Queue[Sample | BaseException] = queue.Queue(1)

    def pump(source: ReverbQueue):
      try:
        for item in source:
          elements.put(item)
      except BaseException as error:  # Any error; re-raised in the reader.
        elements.put(error)

    for source in self._queues:
      threading.Thread(target=pump, args=(source,), daemon=True).start()
    while True:
      element = elements.get()
      if isinstance(element, BaseException):
        raise element
      yield element
