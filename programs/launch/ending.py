"""How a run ends: by request, or by the death of a node."""

import atexit
import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import psutil

# Seconds that nodes have to end by themselves after SIGTERM: an update and a
# checkpoint must fit.
STOP_SECONDS = 30
# Seconds after the last update that the evaluator has for its last evaluation,
# and that the other nodes have to end.
LAST_EVALUATION_SECONDS = 300
_LAST_SECONDS = 15
POLL_SECONDS = 0.2
# Signals within this time are one.
_SAME_SECONDS = 0.5
_TAIL_LINES = 15


class NodeDiedError(Exception):
  """A node ended the run; the text names it and shows its last lines."""


class Interrupted(Exception):  # noqa: N818  No error.
  """The run was asked to stop by a signal, its argument, and has stopped."""


class StopRequest:
  """Remembers SIGINT and SIGTERM while it is entered.

  The first one is answered on the terminal at once, and SIGINT after it ends
  this process at once, whatever the main thread does meanwhile.

  Attributes:
    number: of the signal, once there was one.
  """

  def __init__(
    self,
    message: str = "Stopping; the checkpoint is being saved.",
    at_once: Callable[[], Any] = lambda: None,
  ):
    """Makes a request that nobody has made yet.

    Args:
      message: what is said at the first signal.
      at_once: called in another thread before this process is ended at once;
        ends other processes.
    """
    self._message = message
    self._at_once = at_once
    self._event = threading.Event()
    self._old: dict[int, Any] = {}
    self._old_wakeup = self._pipe = -1
    self.number: int | None = None

  def __enter__(self) -> "StopRequest":
    # Python runs handlers in the main thread, between its instructions: a
    # compilation may take a minute. A byte in a pipe comes at once.
    reader, self._pipe = os.pipe()
    os.set_blocking(self._pipe, False)
    self._old_wakeup = signal.set_wakeup_fd(self._pipe)
    threading.Thread(
      target=self._watch, args=(reader,), daemon=True, name="signals"
    ).start()
    for number in (signal.SIGINT, signal.SIGTERM):
      self._old[number] = signal.signal(number, self._remember)
    return self

  def _remember(self, number: int, unused_frame: Any = None):
    if self.number is None:
      self.number = number
    self._event.set()

  def _watch(self, reader: int):
    first: float | None = None
    while number := os.read(reader, 1):
      if number[0] not in self._old:
        continue
      now = time.monotonic()
      if first is None:
        first = now
        say(f"\n{self._message} Ctrl-C again stops at once.")
        self._remember(number[0])
      # A wrapper may pass on what the terminal has sent already.
      elif number[0] == signal.SIGINT and now - first > _SAME_SECONDS:
        self._at_once()
        say("Stopped at once.")
        os._exit(128 + signal.SIGINT)
    os.close(reader)

  def __exit__(self, *unused_args):
    for number, handler in self._old.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._old_wakeup)
    os.close(self._pipe)

  def __bool__(self) -> bool:
    return self._event.is_set()


def say(text: str, stream: TextIO | None = None):
  """Prints a line to standard error, or nothing if that is impossible.

  A terminal that is gone or a full disk must not change how a program ends.
  """
  stream = stream or sys.stderr
  try:
    print(text, file=stream, flush=True)
  except (OSError, ValueError):
    give_up_output()


class _Lossy(io.FileIO):
  """A file that drops what cannot be written to it."""

  def write(self, data: Any) -> int:
    """Writes bytes, or nothing, and returns how many are done with."""
    try:
      return super().write(data)
    except OSError:
      return memoryview(data).nbytes


def drop_lost_output():
  """Has prints that fail do nothing from now on, those of libraries included.

  A long run must not end because a terminal is gone or a disk is full.
  """
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    stream.flush()
    setattr(sys, name, io.TextIOWrapper(
      io.BufferedWriter(_Lossy(stream.fileno(), "w", closefd=False)),
      encoding=stream.encoding,
      # Names of files may be of bytes that are no text.
      errors="backslashreplace",
      line_buffering=stream.line_buffering,
    ))


def give_up_output():
  """Flushes what was printed; what cannot be is lost and not tried again."""
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except (OSError, ValueError):
      with contextlib.suppress(OSError, ValueError):
        # Python would fail again at exit, with an exit code of its own.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def end_session(leader: int | None = None):
  """Kills the processes of a session, but not this one.

  Args:
    leader: its leader, by which it is named; this process by default, and
      nothing is done unless it leads one.
  """
  leader = os.getpid() if leader is None else leader
  if leader == os.getpid() != os.getsid(0):
    return
  for process in psutil.process_iter():
    with contextlib.suppress(ProcessLookupError, psutil.Error):
      if os.getsid(process.pid) == leader and process.pid != os.getpid():
        process.kill()


def end_children():
  """Kills what this process started and what that started."""
  for process in psutil.Process().children(recursive=True):
    with contextlib.suppress(psutil.Error):
      process.kill()


def leave_no_children(end: Callable[[], None] = end_children):
  """Has `end` called at exit, after what is imported from now on has ended."""
  # It waits at exit for the children that it knows, which are ended before.
  import multiprocessing.util  # noqa: F401

  atexit.register(end)


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
