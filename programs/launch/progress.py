"""What the launching terminal shows: how far a run is, and its last nodes."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

_TERMINAL_SECONDS = 1.0
_FILE_SECONDS = 10.0
_LONGEST_FILE_SECONDS = 300.0
# Lines of a file come at most this share of the time so far apart.
_FILE_SHARE = 0.05
_COLUMNS = 80
_SEPARATOR = " | "
# Seconds after the last update that the evaluator has for its last evaluation,
# and that the other nodes have to end.
_EVALUATION_SECONDS = 300
_OTHER_SECONDS = 15
# The nodes that a finished run waits for are named this often.
_NOTE_SECONDS = 20.0


class Progress:
  """Shows the progress of something.

  On a terminal, rewrites one line every second, cut to the current width. In a
  file or pipe, writes a line every ten seconds at first and every five minutes
  in the end.
  """

  def __init__(
    self,
    stream: TextIO | None = None,
    describe: Callable[[Any], Sequence[str]] | None = None,
  ):
    """Makes a line.

    Args:
      stream: where it is shown; standard output unless given.
      describe: returns the parts of the line for a status, the most important
        ones first: what does not fit a terminal is left out from the end.
        `format_status` unless given.
    """
    self._describe = describe or format_status
    self._stream = stream or sys.stdout
    self._terminal = self._stream.isatty()
    self._started = time.monotonic()
    self._last = float("-inf")
    self._width = 0
    self.status: Any = None

  def show(self, status: Any):
    """Shows a status, unless one was shown just before."""
    self.status = status
    now = time.monotonic()
    pause = _TERMINAL_SECONDS
    if not self._terminal:
      pause = _FILE_SHARE * (now - self._started)
      pause = min(max(pause, _FILE_SECONDS), _LONGEST_FILE_SECONDS)
    if now - self._last < pause:
      return
    self._last = now
    self._print(self._describe(status))

  def _print(self, parts: Sequence[str]):
    if self._terminal:
      columns = self._columns()
      line = fit(parts, columns)
      # Erases what is left of a longer line.
      self._stream.write("\r" + line.ljust(min(self._width, columns)))
      self._width = len(line)
    else:
      self._stream.write(_SEPARATOR.join(parts) + "\n")
    self._stream.flush()

  def _columns(self) -> int:
    """Returns how wide a line may be; the last column would begin a new one."""
    try:
      columns = os.get_terminal_size(self._stream.fileno()).columns
    except (OSError, ValueError):
      columns = 0
    return (columns or _COLUMNS) - 1

  def note(self, text: str):
    """Prints a line of its own between two statuses."""
    if self._terminal and self._width:
      self._stream.write("\n")
      self._width = 0
    self._stream.write(text + "\n")
    self._stream.flush()

  def close(self):
    """Shows the last status once more and ends the line."""
    if self.status is not None:
      self._print(self._describe(self.status))
    if self._terminal and self._width:
      self._stream.write("\n")
      self._width = 0


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


def fit(parts: Sequence[str], columns: int) -> str:
  """Returns as many parts as fit in so many columns, from the first on.

  The first one is cut if it does not fit by itself.
  """
  parts = list(parts)
  while len(parts) > 1 and len(_SEPARATOR.join(parts)) > columns:
    parts.pop()
  return _SEPARATOR.join(parts)[:columns]


def format_status(status: dict[str, Any]) -> list[str]:
  """Returns the parts of the line for a status of `RunCounter`.

  Of several runs side by side, "runs" is their number, "rate" that of all, and
  "return" and "evaluation" are their means.
  """
  steps, budget, rate = status["steps"], status["budget"], status["rate"]
  runs = status.get("runs", 1)
  if status["finished"]:
    left = "done"
  elif rate:
    left = f"{duration(runs * (budget - steps) / rate)} left"
  else:
    left = "starting" if rate is None else "waiting"
  times = f"{runs} × " if runs > 1 else ""
  parts = [f"{times}{steps:,}/{budget:,} steps ({steps / budget:.0%})", left]
  if status["return"] is not None:
    parts.append(f"return {status['return']:.1f}")
  if status["evaluation"] is not None:
    cut_off, episodes = status["evaluation_cut_off"]
    note = f" ({cut_off} of {episodes} cut off)" if cut_off else ""
    parts.append(f"eval {status['evaluation']:.1f}{note}")
  if rate:
    parts.append(f"{rate:,.0f}/s")
  return parts


def duration(seconds: float) -> str:
  """Returns "1:02:03" for 3,723 seconds."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}"
