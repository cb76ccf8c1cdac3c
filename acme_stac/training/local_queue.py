"""The trajectory queue inside one process, and what any queue offers."""

import queue
from collections.abc import Callable, Iterator
from typing import Protocol

from acme_stac.training.samples import Sample
from acme_stac.training.waiting import POLL_SECONDS


class Writer(Protocol):
  """Where an actor's items go."""

  def put(
    self, sample: Sample, should_stop: Callable[[], bool] = lambda: False
  ):
    """Writes an item; blocks while the queue is full.

    Args:
      sample: the item, which belongs to the queue from now on.
      should_stop: checked while blocked; the item is dropped if True.
    """


class Queue(Protocol):
  """Where a learner's items come from."""

  def __iter__(self) -> Iterator[Sample]:
    """Iterates over the items, oldest first."""

  @property
  def fill(self) -> float:
    """The share of the queue that is in use; NaN if it does not answer."""

  @property
  def num_items(self) -> int | None:
    """Items in the queue; None if it does not answer."""


class LocalQueue:
  """A `Writer` and `Queue` for actors that are threads of the learner."""

  def __init__(
    self, max_size: int, should_stop: Callable[[], bool] = lambda: False
  ):
    """Makes a queue of at most `max_size` items.

    Args:
      max_size: `put` blocks beyond that many.
      should_stop: checked while blocked; iterators then end.
    """
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

  def put(
    self, sample: Sample, should_stop: Callable[[], bool] = lambda: False
  ):
    """Adds an item, as `Writer.put` describes."""
    while not (self._should_stop() or should_stop()):
      try:
        self._queue.put(sample, timeout=POLL_SECONDS)
        break
      except queue.Full:
        continue

  def __iter__(self) -> Iterator[Sample]:
    while not self._should_stop():
      try:
        yield self._queue.get(timeout=POLL_SECONDS)
      except queue.Empty:
        continue
