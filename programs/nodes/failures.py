"""Errors of nodes, and a limit for how often something may fail."""

import collections
import time
from collections.abc import Callable


class HopelessError(Exception):
  """A node cannot go on, and a new process in its place could not either."""


class EndedError(Exception):
  """The program is ending, so nobody answers any more."""


class NotReadyError(Exception):
  """A node answered that it does not have yet what it was asked for."""


class SilentError(Exception):
  """A node has not answered for longer than the run is to wait."""


class FailureLimit:
  """Counts failures within a moving window of time."""

  def __init__(
    self,
    failures: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Allows so many `failures` in so many `seconds`."""
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
    """Failures within the window that ended with the newest one."""
    return len(self._times)
