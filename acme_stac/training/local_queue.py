"""The trajectory queue of one process, and the interfaces of any queue."""

import queue
from collections.abc import Callable, Iterator
from typing import Protocol

from acme_stac.training.samples import Sample
from acme_stac.training.waiting import POLL_SECONDS


class Writer(Protocol):
  """Receives an actor's items."""

  def put(
    self, sample: Sample, should_stop: Callable[[], bool] = lambda: False
  ):
    """Writes an item; blocks while the queue is full.

    Args:
      sample: the item; the caller must not change it afterwards.
      should_stop: checked while blocked; the item is dropped if True.
    """


class Queue(Protocol):
  """Supplies a learner's items."""

  def __iter__(self) -> Iterator[Sample]:
    """Iterates over the items, oldest first."""

  @property
  def fill(self) -> float:
    """The fraction of the queue that is in use; NaN if it does not answer."""

  @property
  def num_items(self) -> int | None:
    """Number of items in the queue; None if it does not answer."""


class LocalQueue:
  """A `Writer` and `Queue` for actors that are threads of the learner."""

  def __init__(
    self, max_size: int, should_stop: Callable[[], bool] = lambda: False
  ):
    """Makes a queue of at most `max_size` items.

    Args:
      max_size: capacity in items; `put` blocks while the queue is full.
      should_stop: checked while blocked; if True, iterators end.
    """
    self._queue: queue.Queue[Sample] = queue.Queue(max_size)
    self._should_stop = should_stop

  @property
  def fill(self) -> float:
    """The fraction of the queue that is in use."""
    return self._queue.qsize() / self._queue.maxsize

  @property
  def num_items(self) -> int:
    """Number of items in the queue."""
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
