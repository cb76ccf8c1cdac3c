"""The queue between actors and learner: Reverb's, or one inside a process."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
import reverb
import tensorflow as tf
import tree

from acme_stac.config import STACConfig
from acme_stac.core.types import Trajectory

QUEUE = "trajectories"
# How long a blocked call waits before it looks whether to stop.
_POLL_SECONDS = 0.5
_SAY_SECONDS = 60.0


class Sample(NamedTuple):
  """What one item of the queue holds and, stacked, a learner's batch.

  Attributes:
    trajectory: [T+1, N, ...], of the N environments of one actor.
    params_version: learner step of the parameters that acted in the first row,
      [N] int32.
  """

  trajectory: Trajectory
  params_version: np.ndarray


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


class Impatience:
  """Says once a minute that something is waited for."""

  def __init__(self, what: str):
    """Starts the clock; `what` is waited for."""
    self._what = what
    self._started = self._said = time.monotonic()

  def say(self):
    """Says it, if it is time to."""
    now = time.monotonic()
    if now - self._said > _SAY_SECONDS:
      self._said = now
      logging.warning(
        "Waiting for %s since %.0f s. In a program of one thread that is for"
        " ever: a LocalLayout's batch_size must be LayoutBuilder.batch_size.",
        self._what, now - self._started,
      )


class Writer(Protocol):
  """Where an actor's items go."""

  def put(self, sample: Sample):
    """Takes an item, whose arrays may be overwritten afterwards."""


class ReverbWriter:
  """Writes items to the Reverb queue.

  A call blocks while the queue is full, so that nothing is overwritten. The
  writer reconnects by itself after the server has been away.
  """

  def __init__(
    self,
    client: reverb.Client,
    should_stop: Callable[[], bool] = lambda: False,
  ):
    """Makes a writer.

    Args:
      client: client of the server with the table `QUEUE`.
      should_stop: looked at while blocked; the item in hand is given up if
        True.
    """
    self._client = client
    self._should_stop = should_stop
    self._writer: reverb.TrajectoryWriter | None = None

  def put(self, sample: Sample):
    """Writes an item."""
    if self._writer is None:
      self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
    self._writer.append(sample)
    self._writer.create_item(
      QUEUE, 1.0, tree.map_structure(lambda column: column[-1],
                                     self._writer.history)
    )
    patience = Impatience("room in the queue")
    while not self._should_stop():
      try:
        # Not one item ahead of the queue: what waits grows stale.
        self._writer.flush(
          block_until_num_items=0, timeout_ms=int(1e3 * _POLL_SECONDS)
        )
        break
      except reverb.DeadlineExceededError:
        patience.say()


def reverb_items(client: reverb.Client) -> Iterator[Sample]:
  """Yields items of the Reverb queue, oldest first, without end.

  Args:
    client: client of the server with the table `QUEUE`.
  """
  signature = None
  while signature is None:
    try:
      signature = client.server_info()[QUEUE].signature
    except (reverb.errors.ReverbError, RuntimeError):
      # The server is being started anew.
      time.sleep(_POLL_SECONDS)
  dataset = reverb.TrajectoryDataset(
    server_address=client.server_address,
    table=QUEUE,
    dtypes=tree.map_structure(lambda spec: spec.dtype, signature),
    shapes=tree.map_structure(lambda spec: spec.shape, signature),
    max_in_flight_samples_per_worker=1,
    num_workers_per_iterator=1,
    # No time-out: what a sampler has under way when it times out is lost.
  )
  for item in dataset.as_numpy_iterator():
    # Reverb makes named tuples of its own.
    yield Sample(Trajectory(*item.data[0]), *item.data[1:])


class LocalQueue:
  """The queue of a program whose actors are threads of the learner's process.

  It is a writer, and an iterator of items that ends when the program does.
  """

  def __init__(
    self, max_size: int, should_stop: Callable[[], bool] = lambda: False
  ):
    """Makes a queue of at most `max_size` items; put blocks beyond that."""
    self._queue: queue.Queue[Sample] = queue.Queue(max_size)
    self._should_stop = should_stop

  @property
  def fill(self) -> float:
    """The share of the queue that is in use."""
    return self._queue.qsize() / self._queue.maxsize

  @property
  def num_items(self) -> int:
    """Items in the queue."""
    return self._queue.qsize()

  def put(self, sample: Sample):
    """Adds a copy of an item."""
    sample = tree.map_structure(np.array, sample)
    while not self._should_stop():
      try:
        self._queue.put(sample, timeout=_POLL_SECONDS)
        break
      except queue.Full:
        continue

  def __iter__(self) -> Iterator[Sample]:
    while not self._should_stop():
      try:
        yield self._queue.get(timeout=_POLL_SECONDS)
      except queue.Empty:
        continue


# How a builder gets at the queue: a server or several, or in this process.
Client: TypeAlias = reverb.Client | Sequence[reverb.Client] | LocalQueue


def make_writer(
  client: Client, should_stop: Callable[[], bool] = lambda: False
) -> Writer:
  """Returns what writes to a queue; `should_stop` is of `ReverbWriter`."""
  if isinstance(client, LocalQueue):
    return client
  if isinstance(client, Sequence):
    raise ValueError("An actor writes to one queue, not to several.")
  return ReverbWriter(client, should_stop)


def items_of(client: Client) -> Iterator[Sample]:
  """Yields the items of a queue, oldest first; of several as they come."""
  if isinstance(client, LocalQueue):
    return iter(client)
  if isinstance(client, Sequence):
    return _merged([reverb_items(one) for one in client])
  return reverb_items(client)


def _merged(sources: Sequence[Iterator[Sample]]) -> Iterator[Sample]:
  """Yields what any of the sources has; each is read in a thread."""
  if len(sources) == 1:
    yield from sources[0]
  elements: queue.Queue[Sample | BaseException] = queue.Queue(1)

  def pump(source: Iterator[Sample]):
    try:
      for item in source:
        elements.put(item)
    except BaseException as error:  # Raised again in the reader.
      elements.put(error)

  for source in sources:
    threading.Thread(target=pump, args=(source,), daemon=True).start()
  while True:
    element = elements.get()
    if isinstance(element, BaseException):
      raise element
    yield element


def fill_of(client: Client) -> float:
  """Returns the share of a queue that is in use, NaN if it cannot be asked."""
  if isinstance(client, LocalQueue):
    return client.fill
  if isinstance(client, Sequence):
    return float(np.mean([fill_of(one) for one in client]))
  try:
    info = client.server_info(timeout=1)[QUEUE]
  except (reverb.errors.ReverbError, RuntimeError):  # Its socket was closed.
    return float("nan")
  return info.current_size / info.max_size


def num_items_in(client: Client) -> int | None:
  """Returns the number of items in a queue, None if it cannot be asked."""
  if isinstance(client, LocalQueue):
    return client.num_items
  if isinstance(client, Sequence):
    numbers = [num_items_in(one) for one in client]
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
  try:
    return client.server_info(timeout=1)[QUEUE].current_size
  except (reverb.errors.ReverbError, RuntimeError):  # Its socket was closed.
    return None


def not_finite(trajectory: Trajectory) -> list[str]:
  """Returns the fields that have numbers which are not finite."""
  return [
    name
    for name, field in trajectory._asdict().items()
    if not all(
      np.isfinite(leaf).all()
      for leaf in tree.flatten(field)
      if np.asarray(leaf).dtype.kind == "f"
    )
  ]


class Batches(Iterator[Sample]):
  """Batches of `batch_size` trajectories, in the order of their items.

  They are samples of numpy arrays, time-major [T+1, B, ...]. Items with numbers
  that are not finite are left out. Threads may share it.

  Attributes:
    num_taken: trajectories that were taken, without those left out.
    num_dropped: trajectories that were left out.
    waiting: whether an item is being waited for.
  """

  def __init__(self, items: Iterable[Sample], config: STACConfig):
    """Makes batches.

    Args:
      items: each has the trajectories of one actor.
      config: the agent's configuration.
    """
    self._items = iter(items)
    self._batch_size = config.batch_size
    self._lock = threading.Lock()
    self.num_taken = 0
    self.num_dropped = 0
    self.waiting = False

  def __next__(self) -> Sample:
    """Returns the next batch.

    Raises:
      ValueError: if the actors' numbers of environments do not add up to the
        batch size.
    """
    with self._lock:
      return self._take()

  def _take(self) -> Sample:
    batch: list[Sample] = []
    size = 0
    while size < self._batch_size:
      self.waiting = True
      try:
        item = next(self._items)
      finally:
        self.waiting = False
      if names := not_finite(item.trajectory):
        self.num_dropped += len(item.params_version)
        logging.warning(
          "%d trajectories were dropped: their %s had numbers that are not"
          " finite.", len(item.params_version), ", ".join(names),
        )
        continue
      batch.append(item)
      self.num_taken += len(item.params_version)
      size += len(item.params_version)
    if size > self._batch_size:
      raise ValueError(
        f"Items of {[len(x.params_version) for x in batch]} trajectories do"
        f" not make a batch of {self._batch_size}. The number of"
        " environments per actor must divide the batch size."
      )
    return _concatenate(batch)


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
