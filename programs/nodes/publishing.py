"""Sends a node's newest state to other nodes while the node works."""

import threading
from collections.abc import Callable
from typing import Protocol

from programs.nodes.failures import EndedError


class Publisher(Protocol):
  """Publishes a changing state."""

  @property
  def failed(self) -> bool:
    """Whether publishing has raised an error; `close` raises it again."""

  def notify(self):
    """Announces a new state."""

  def close(self):
    """Publishes the last state and ends."""


class DirectPublisher(Publisher):
  """Publishes every state at once, in the thread that announces it."""

  failed = False

  def __init__(self, publish: Callable[[], None]):
    """Makes a publisher that calls `publish` for every state."""
    self._publish = publish

  def notify(self):
    """Publishes the new state."""
    self._publish()

  def close(self):
    """Does nothing, since every state has been published."""


class BackgroundPublisher(Publisher):
  """Publishes in a thread of its own, so that the node's work goes on.

  While the thread is busy, all new states but the newest are skipped.
  """

  def __init__(
    self, publish: Callable[[], None], every_seconds: float | None = None
  ):
    """Starts the thread.

    Args:
      publish: publishes the state of the moment.
      every_seconds: publish again after this time without a new state, for
        receivers that have been restarted.
    """
    self._publish = publish
    self._every_seconds = every_seconds
    self._news = threading.Event()
    self._ended = False
    self._error: Exception | None = None
    self._thread = threading.Thread(
      target=self._run, daemon=True, name="publisher"
    )
    self._thread.start()

  @property
  def failed(self) -> bool:
    """Whether publishing has raised an error; `close` raises it again."""
    return self._error is not None

  def notify(self):
    """Announces a new state."""
    self._news.set()

  def _run(self):
    while True:
      self._news.wait(self._every_seconds)
      self._news.clear()
      ended = self._ended
      try:
        self._publish()
      except EndedError:
        return
      except Exception as error:  # Any error; `close` raises it again.
        self._error = error
        return
      if ended:
        return

  def close(self):
    """Publishes the last state and ends.

    Raises:
      Exception: the error that publishing raised, if any.
    """
    self._ended = True
    self._news.set()
    self._thread.join()
    if self._error is not None:
      raise self._error
