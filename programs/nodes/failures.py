"""How often something may fail before it is no accident."""

import collections
import time
from collections.abc import Callable


class FailureLimit:
  """Says when something has failed too often in too short a time."""

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
    """Failures that count at the time of the newest."""
    return len(self._times)
