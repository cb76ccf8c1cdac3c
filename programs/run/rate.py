"""The rate of a total that grows: a mean over a moving window."""

import collections
import time
from collections.abc import Callable

_WINDOW_SECONDS = 30.0
# Samples that a window keeps, whatever their number.
_SAMPLES = 60


class MovingRate:
  """Measures how fast a total grows, over the last seconds alone.

  The first total only begins the measurement, so that what came before it, such
  as compilation, does not count.
  """

  def __init__(
    self,
    window_seconds: float = _WINDOW_SECONDS,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Makes a rate of nothing yet.

    Args:
      window_seconds: length of the window.
      clock: returns seconds.
    """
    self._window = window_seconds
    self._clock = clock
    self._samples: collections.deque[tuple[float, float]] = collections.deque()

  def add(self, total: float):
    """Adds a total; one below the last begins the measurement anew."""
    now, samples = self._clock(), self._samples
    if samples and total < samples[-1][1]:
      samples.clear()
    if len(samples) > 1 and now - samples[-2][0] < self._window / _SAMPLES:
      samples.pop()
    samples.append((now, total))
    while len(samples) > 2 and samples[1][0] <= now - self._window:
      samples.popleft()

  def per_second(self, ended: bool = False) -> float | None:
    """Returns the rate; None before there are two totals.

    It falls once no total has come for as long as the window, unless `ended`.
    """
    if len(self._samples) < 2:
      return None
    (begin, before), (end, total) = self._samples[0], self._samples[-1]
    now = self._clock()
    if not ended and now - end > self._window:
      end = now
    return (total - before) / (end - begin) if end > begin else None
