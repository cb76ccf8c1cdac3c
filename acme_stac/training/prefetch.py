"""Prefetches the learner's batches in a thread."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from acme_stac.training.waiting import POLL_SECONDS, WaitWarning


class Source(Protocol):
  """Supplies a learner's batches."""

  @property
  def ready(self) -> bool:
    """Whether the next element, or the end, can be taken without waiting."""

  def __next__(self) -> Any:
    """Returns the next element."""


class Prefetch(Iterator[Any]):
  """Takes and transforms elements in a thread, at most one ahead.

  Waiting elements grow stale, so the next one is taken from the iterator only
  after the current one is consumed.

  An error of the iterator or of `transform` is raised where the element would
  have been returned. Iteration ends early if `should_stop` returns True while
  waiting.
  """

  def __init__(
    self,
    iterator: Iterator[Any],
    transform: Callable[[Any], Any],
    should_stop: Callable[[], bool] = lambda: False,
  ):
    """Starts the thread."""
    self._source = iterator
    self._transform = transform
    self._should_stop = should_stop
    self._elements: queue.Queue = queue.Queue()
    self._room = threading.Semaphore()
    threading.Thread(target=self._run, daemon=True, name="prefetch").start()

  def _run(self):
    try:
      self._room.acquire()
      for element in self._source:
        self._elements.put((self._transform(element), None))
        self._room.acquire()
      self._elements.put((None, StopIteration()))
    except BaseException as error:  # Any error; raised again in the consumer.
      self._elements.put((None, error))

  @property
  def ready(self) -> bool:
    """Whether the next element, or the end, can be taken without waiting."""
    return not self._elements.empty()

  def __next__(self) -> Any:
    warning = WaitWarning("data")
    while True:
      try:
        element, error = self._elements.get(timeout=POLL_SECONDS)
        break
      except queue.Empty:
        if self._should_stop():
          raise StopIteration from None
        warning.check()
    if error is not None:
      self._elements.put((None, error))
      raise error
    self._room.release()
    return element
