"""Courier calls that are retried while the called node restarts."""

import logging
import time
from collections.abc import Callable
from typing import Any

# Courier's client must come first: it makes the other package importable.
from courier.python.client import StatusNotOk
from pybind11_abseil.status import StatusCode

from programs.nodes.failures import EndedError, NotReadyError, SilentError

_PAUSE_SECONDS = 0.2
_LOG_SECONDS = 10.0


def patiently(
  call: Callable[[], Any],
  name: str,
  should_stop: Callable[[], bool],
  patience_seconds: float,
) -> Any:
  """Calls another node until it answers.

  Args:
    call: makes the call.
    name: name of the node, for messages.
    should_stop: whether the program is ending.
    patience_seconds: how long to try.

  Returns:
    The answer.

  Raises:
    EndedError: if the program is ending.
    SilentError: if the node did not answer within `patience_seconds`.
    StatusNotOk: if the called method raised an exception.
  """
  started = logged = time.monotonic()
  while True:
    try:
      return call()
    except (StatusNotOk, NotReadyError) as error:
      if should_stop():
        raise EndedError(name) from error
      if _was_raised_by_the_method(error):
        raise
      now = time.monotonic()
      if now - started > patience_seconds:
        raise SilentError(
          f"{name} has not answered for {now - started:.0f} s: {error}"
        ) from error
      if now - logged > _LOG_SECONDS:
        logged = now
        logging.warning(
          "Waiting for %s for %.0f s: %s", name, now - started, error
        )
    time.sleep(_PAUSE_SECONDS)


def _was_raised_by_the_method(error: Exception) -> bool:
  """Returns whether the called method itself raised an error.

  Courier uses INVALID_ARGUMENT for nothing else; a node that cannot be reached
  gives UNAVAILABLE or DEADLINE_EXCEEDED.
  """
  return (
    isinstance(error, StatusNotOk) and error.code == StatusCode.INVALID_ARGUMENT
  )


class PatientClient:
  """A client of another node whose calls are made with `patiently`."""

  def __init__(
    self,
    client: Any,
    name: str,
    should_stop: Callable[[], bool],
    patience_seconds: float,
  ):
    """Wraps `client`; the other arguments are those of `patiently`."""
    self._client = client
    self._arguments = (name, should_stop, patience_seconds)

  def __getattr__(self, method: str) -> Callable[..., Any]:
    function = getattr(self._client, method)

    def call(*args: Any) -> Any:
      return patiently(lambda: function(*args), *self._arguments)

    return call
