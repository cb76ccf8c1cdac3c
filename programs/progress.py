"""The progress line in the launching terminal."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

_TERMINAL_SECONDS = 1.0
_FILE_SECONDS = 10.0


class Progress:
  """Shows how far something is.

  One line that is rewritten on a terminal; a new line every ten seconds in a
  file or pipe.
  """

  def __init__(
    self,
    stream: TextIO | None = None,
    describe: Callable[[dict[str, Any]], str] | None = None,
  ):
    """Makes a line.

    Args:
      stream: where it is shown; standard output unless it is given.
      describe: returns the text of a status; unless it is given a status is
        one of `RunCounter`, shown as steps, percent, rate, return and time
        left.
    """
    self._describe = describe or format_status
    self._stream = stream or sys.stdout
    self._terminal = self._stream.isatty()
    self._last = float("-inf")
    self._width = 0
    self.status: dict[str, Any] | None = None

  def show(self, status: dict[str, Any]):
    """Shows a status, unless one was shown just before."""
    self.status = status
    now = time.monotonic()
    pause = _TERMINAL_SECONDS if self._terminal else _FILE_SECONDS
    if now - self._last < pause:
      return
    self._last = now
    self._print(self._describe(status))

  def _print(self, line: str):
    if self._terminal:
      self._stream.write("\r" + line.ljust(self._width))
      self._width = len(line)
    else:
      self._stream.write(line + "\n")
    self._stream.flush()

  def note(self, text: str):
    """Says something between two statuses."""
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


def format_status(status: dict[str, Any]) -> str:
  """Returns one line for a status of `RunCounter`."""
  steps, budget, rate = status["steps"], status["budget"], status["rate"]
  parts = [f"{steps:,}/{budget:,} steps ({steps / budget:.0%})"]
  if rate:
    parts.append(f"{rate:,.0f} steps/s")
  if status["return"] is not None:
    parts.append(f"return {status['return']:.1f}")
  if status["evaluation"] is not None:
    parts.append(f"evaluation {status['evaluation']:.1f}")
    cut_off, episodes = status["evaluation_cut_off"]
    if cut_off:
      parts[-1] += f" ({cut_off} of {episodes} episodes cut off)"
  if status["finished"]:
    parts.append("done")
  elif rate:
    parts.append(f"{duration((budget - steps) / rate)} left")
  else:
    parts.append("starting")
  return " | ".join(parts)


def duration(seconds: float) -> str:
  """Returns "1:02:03" for 3,723 seconds."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}"
