"""How a run ends: by request, or by the death of a node."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

# Seconds that nodes have to end by themselves after SIGTERM: an update and a
# checkpoint must fit.
STOP_SECONDS = 30
# Seconds after the last update that the evaluator has for its last evaluation,
# and that the other nodes have to end.
LAST_EVALUATION_SECONDS = 300
_LAST_SECONDS = 15
POLL_SECONDS = 0.2
_TAIL_LINES = 15


class NodeDiedError(Exception):
  """A node ended the run; the text names it and shows its last lines."""


class Interrupted(Exception):  # noqa: N818  No error.
  """The run was asked to stop by a signal, its argument, and has stopped."""


class StopRequest:
  """Remembers SIGINT and SIGTERM while it is entered.

  Attributes:
    number: of the signal, once there was one.
  """

  def __init__(self):
    self._event = threading.Event()
    self._old: dict[int, Any] = {}
    self.number: int | None = None

  def __enter__(self) -> "StopRequest":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._old[number] = signal.signal(number, self._remember)
    return self

  def _remember(self, number: int, unused_frame: Any):
    self.number = number
    self._event.set()

  def __exit__(self, *unused_args):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def __bool__(self) -> bool:
    return self._event.is_set()


def wait(condition: Callable[[], bool], seconds: float) -> bool:
  """Waits until a condition holds; returns whether it does."""
  deadline = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > deadline:
      return False
    time.sleep(POLL_SECONDS)
  return True


def patience_at_end(waiting: Sequence[str]) -> float:
  """Returns the seconds after the last update that these nodes have to end."""
  return LAST_EVALUATION_SECONDS if "evaluator" in waiting else _LAST_SECONDS


def describe_waiting(waiting: Sequence[str], seconds: float) -> str:
  """Returns what a finished run waits for, and for how much longer."""
  why = " (the last evaluation)" if "evaluator" in waiting else ""
  return (
    f"The last update is done; waiting up to {seconds:.0f} s more for"
    f" {', '.join(waiting)}{why}."
  )


def describe_late(waiting: Sequence[str], seconds: float) -> str:
  """Returns which nodes did not end in time after the last update."""
  lost = (
    "; the last evaluation is left out" if "evaluator" in waiting else ""
  )
  return (
    f"Still running {seconds:.0f} s after the last update, so stopped:"
    f" {', '.join(waiting)}{lost}."
  )


def tail(text: str) -> str:
  """Returns the last lines of what a node said, set off."""
  return "\n".join(f"  | {line}" for line in text.splitlines()[-_TAIL_LINES:])
