"""Sends the newest state of a node to others, beside the node's work."""

import threading
from collections.abc import Callable
from typing import Protocol

from programs.nodes.failures import EndedError


class Publisher(Protocol):
  """Publishes a state that changes."""

  @property
  def failed(self) -> bool:
    """Whether publishing has raised; `close` raises the same."""

  def notify(self):
    """Takes note of a new state."""

  def close(self):
    """Publishes the last state and ends."""


class DirectPublisher(Publisher):
  """Publishes every state in the thread that made it."""

  failed = False

  def __init__(self, publish: Callable[[], None]):
    """Takes the function that publishes the state at its call."""
    self._publish = publish

  def notify(self):
    """Publishes."""
    self._publish()

  def close(self):
    """Does nothing: every state has been published."""


class BackgroundPublisher(Publisher):
  """Publishes in a thread of its own, so that work goes on.

  States that come while it is busy are skipped, but for the newest.
  """

  def __init__(
    self, publish: Callable[[], None], every_seconds: float | None = None
  ):
    """Starts the thread.

    Args:
      publish: publishes the state at its call.
      every_seconds: publish again after this time without news, for receivers
        that have been restarted.
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
    """Whether publishing has raised; `close` raises the same."""
    return self._error is not None

  def notify(self):
    """Takes note of a new state."""
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
      except Exception as error:  # Any; the thread that works raises it.
        self._error = error
        return
      if ended:
        return

  def close(self):
    """Publishes the last state and ends.

    Raises:
      Exception: what publishing raised.
    """
    self._ended = True
    self._news.set()
    self._thread.join()
    if self._error is not None:
      raise self._error
