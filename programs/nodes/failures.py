"""Errors of nodes, and a limit on the number of failures."""

import collections
import time
from collections.abc import Callable


class HopelessError(Exception):
  """A node cannot go on, and restarting it would not help."""


class EndedError(Exception):
  """The program is ending, so the called node no longer answers."""


class NotReadyError(Exception):
  """A node answered that it does not have the requested data yet."""


class SilentError(Exception):
  """A node has not answered within the time allowed."""


class FailureLimit:
  """Counts failures within a moving window of time."""

  def __init__(
    self,
    failures: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Allows at most `failures` failures within `seconds` seconds."""
    self.failures = failures
    self.seconds = seconds
    self._clock = clock
    self._times: collections.deque[float] = collections.deque()

  def add(self) -> bool:
    """Counts a failure; returns whether it is within the limit."""
    now = self._clock()
    self._times.append(now)
    while self._times[0] < now - self.seconds:
      self._times.popleft()
    return len(self._times) <= self.failures

  @property
  def count(self) -> int:
    """Number of failures in the window that ends with the newest one."""
    return len(self._times)
