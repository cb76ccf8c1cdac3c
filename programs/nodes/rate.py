"""Measures the rate of a growing total over a moving window."""

import collections
import time
from collections.abc import Callable

_WINDOW_SECONDS = 30.0
# Least time between two samples.
_SAMPLE_SECONDS = 0.5


class MovingRate:
  """Measures how fast a total grows, over the last half minute.

  The first total starts the measurement, so that time before it, such as
  compilation, does not count.
  """

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    """Makes a rate without samples; `clock` returns seconds."""
    self._clock = clock
    self._samples: collections.deque[tuple[float, float]] = collections.deque()

  def add(self, total: float):
    """Adds a total; one below the last restarts the measurement."""
    now, samples = self._clock(), self._samples
    if samples and total < samples[-1][1]:
      samples.clear()
    if len(samples) > 1 and now - samples[-2][0] < _SAMPLE_SECONDS:
      samples.pop()
    samples.append((now, total))
    while len(samples) > 2 and samples[1][0] <= now - _WINDOW_SECONDS:
      samples.popleft()

  def per_second(self, ended: bool = False) -> float | None:
    """Returns the rate per second; None before there are two totals.

    Unless `ended`, it falls once there was no total for a whole window.
    """
    if len(self._samples) < 2:
      return None
    (begin, before), (end, total) = self._samples[0], self._samples[-1]
    now = self._clock()
    if not ended and now - end > _WINDOW_SECONDS:
      end = now
    return (total - before) / (end - begin) if end > begin else None
