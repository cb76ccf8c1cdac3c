"""The progress line in the launching terminal."""

import os
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, TextIO

_TERMINAL_SECONDS = 1.0
_FILE_SECONDS = 10.0
_LONGEST_FILE_SECONDS = 300.0
# Lines of a file come at most this share of the time so far apart.
_FILE_SHARE = 0.05
_COLUMNS = 80
_SEPARATOR = " | "


class Progress:
  """Shows how far something is.

  On a terminal, one line that is rewritten every second and fits its width,
  whatever that is at the time. In a file or pipe, a whole line every ten
  seconds at first and every five minutes in the end.
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
      width = display_width(line)
      # Erases what is left of a longer line.
      padding = min(self._width, columns) - width
      self._stream.write("\r" + line + " " * padding)
      self._width = width
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


def display_width(text: str) -> int:
  """Returns how many columns of a terminal a text takes."""
  return sum(map(_character_width, text))


def _character_width(character: str) -> int:
  if unicodedata.combining(character):
    return 0
  return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(parts: Sequence[str], columns: int) -> str:
  """Returns as many parts as fit in so many columns, from the first on.

  The first one is cut if it does not fit by itself.
  """
  parts = list(parts)
  while len(parts) > 1 and display_width(_SEPARATOR.join(parts)) > columns:
    parts.pop()
  line = _SEPARATOR.join(parts)
  while display_width(line) > columns:
    line = line[:-1]
  return line


def format_status(status: dict[str, Any]) -> list[str]:
  """Returns the parts of the line for a status of `RunCounter`."""
  steps, budget, rate = status["steps"], status["budget"], status["rate"]
  if status["finished"]:
    left = "done"
  elif rate:
    left = f"{duration((budget - steps) / rate)} left"
  else:
    left = "starting" if rate is None else "waiting"
  parts = [f"{steps:,}/{budget:,} steps ({steps / budget:.0%})", left]
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
