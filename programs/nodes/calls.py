"""Calls between nodes that outlast the loss of the node that is called."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

_PAUSE_SECONDS = 0.2
_LOG_SECONDS = 10.0


class EndedError(Exception):
  """The program is ending, so there is nobody to wait for any more."""


class NotReadyError(Exception):
  """A node answered that it does not have yet what it was asked for."""


class SilentError(Exception):
  """A node has not answered for longer than the run is to wait."""


def patiently(
  call: Callable[[], Any],
  name: str,
  should_stop: Callable[[], bool],
  patience_seconds: float,
) -> Any:
  """Calls another node until it answers, for it may be starting anew.

  Args:
    call: what to call.
    name: of the node, for messages.
    should_stop: whether the program is ending.
    patience_seconds: how long to try.

  Raises:
    EndedError: if the program is ending.
    SilentError: if the node was silent for too long.
    Exception: what the node itself raised.
  """
  started = logged = time.monotonic()
  while True:
    try:
      return call()
    except Exception as error:
      if should_stop():
        raise EndedError(name) from error
      if _is_an_answer(error):
        raise
      now = time.monotonic()
      if now - started > patience_seconds:
        raise SilentError(
          f"{name} has not answered for {now - started:.0f} s: {error}"
        ) from error
      if now - logged > _LOG_SECONDS:
        logged = now
        logging.warning(
          "Waiting for %s since %.0f s: %s", name, now - started, error
        )
    time.sleep(_PAUSE_SECONDS)


def _is_an_answer(error: Exception) -> bool:
  """Returns whether a node was there and raised this itself."""
  return "Python exception was raised on the server" in str(error)


class Patient:
  """A client of another node whose calls are made `patiently`."""

  def __init__(
    self,
    client: Any,
    name: str,
    should_stop: Callable[[], bool],
    patience_seconds: float,
  ):
    self._client = client
    self._arguments = (name, should_stop, patience_seconds)

  def __getattr__(self, method: str) -> Callable[..., Any]:
    function = getattr(self._client, method)

    def call(*args: Any) -> Any:
      return patiently(lambda: function(*args), *self._arguments)

    return call


class Publisher:
  """Tells others of the newest state, in a thread, so that work goes on.

  What is new while it talks is told in one go afterwards.
  """

  def __init__(
    self, publish: Callable[[], None], every_seconds: float | None = None
  ):
    """Makes a publisher.

    Args:
      publish: tells of the state at its call.
      every_seconds: tell again after this time, for those who have forgotten.
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
    """Whether `publish` has raised; `close` raises the same."""
    return self._error is not None

  def notify(self):
    """Says that there is a new state."""
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
      except Exception as error:
        self._error = error
        return
      if ended:
        return

  def close(self):
    """Tells of the last state and ends.

    Raises:
      Exception: what `publish` raised.
    """
    self._ended = True
    self._news.set()
    self._thread.join()
    if self._error is not None:
      raise self._error
