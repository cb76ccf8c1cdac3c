"""What a finished run waits for, and for how long."""

import time
from collections.abc import Sequence

from programs.launch.progress import Progress

# Seconds after the last update that the evaluator has for its last evaluation,
# and that the other nodes have to end.
_EVALUATION_SECONDS = 300
_OTHER_SECONDS = 15
# What is waited for is named this often.
_NOTE_SECONDS = 20.0


class LastNodes:
  """Limits the time that nodes have to end after the last update."""

  def __init__(self, progress: Progress):
    """Starts the clock; `progress` shows what is waited for."""
    self._progress = progress
    self._started = self._last_note = time.monotonic()

  def ended(self, running: Sequence[str]) -> bool:
    """Returns whether all nodes have ended or their time is over.

    Args:
      running: names of the nodes that still run.
    """
    if not running:
      return True
    now = time.monotonic()
    evaluates = "evaluator" in running
    limit = _EVALUATION_SECONDS if evaluates else _OTHER_SECONDS
    left = limit - (now - self._started)
    names = ", ".join(running)
    if left < 0:
      lost = "; the last evaluation is left out" if evaluates else ""
      self._progress.note(
        f"Still running {limit} s after the last update, so stopped:"
        f" {names}{lost}."
      )
      return True
    if now - self._last_note > _NOTE_SECONDS:
      self._last_note = now
      why = " (the last evaluation)" if evaluates else ""
      self._progress.note(
        f"The last update is done; waiting up to {left:.0f} s more for"
        f" {names}{why}."
      )
    return False
