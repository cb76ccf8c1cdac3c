"""Warnings about a wait that may never end."""

import logging
import time

_WARN_SECONDS = 60.0
# How long a blocked call waits before it checks whether to stop.
POLL_SECONDS = 0.2


class WaitWarning:
  """Logs a warning once a minute during a long wait."""

  def __init__(self, what: str):
    """Starts the clock; `what` names the thing awaited."""
    self._what = what
    self._started = self._warned = time.monotonic()

  def check(self):
    """Logs the warning if it is due."""
    now = time.monotonic()
    if now - self._warned > _WARN_SECONDS:
      self._warned = now
      logging.warning(
        "Waiting for %s for %.0f s. A single-threaded program waits for itself:"
        " in Acme's LocalLayout, batch_size must be LayoutBuilder.batch_size.",
        self._what, now - self._started,
      )
