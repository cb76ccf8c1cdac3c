"""Ends processes: on a signal, and along with everything they started."""

import atexit
import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

# Seconds that nodes have to end by themselves after SIGTERM: enough for an
# update and a checkpoint.
STOP_SECONDS = 30
POLL_SECONDS = 0.2
# Signals within this time count as one, because a wrapper may pass on a Ctrl-C
# that the terminal has already sent.
_SAME_SECONDS = 0.5
_TAIL_LINES = 15


class NodeDiedError(Exception):
  """A node ended the run; the text names it and shows its last lines."""


class Interrupted(Exception):  # noqa: N818  Not an error.
  """The run was stopped by the signal in the argument."""


class StopRequest:
  """Catches SIGINT and SIGTERM inside a `with` block.

  Acknowledges the first signal on the terminal immediately. A later SIGINT ends
  this process immediately, whatever the main thread is doing.

  Attributes:
    number: the first signal received; None if there was none.
    has_work: whether there is anything to save; if not, the first signal ends
      this process immediately.
  """

  def __init__(
    self,
    message: str = "Stopping; what has been learned is being saved.",
    at_once: Callable[[], Any] = lambda: None,
  ):
    """Prepares to catch signals.

    Args:
      message: printed at the first signal.
      at_once: called, in another thread, before a second signal ends this
        process; should end its child processes.
    """
    self._message = message
    self._at_once = at_once
    self.number: int | None = None
    self.has_work = True

  def __enter__(self) -> "StopRequest":
    # Python runs handlers in the main thread between instructions, so during a
    # compilation they may wait for a minute. A byte in a pipe does not wait.
    reader, self._pipe = os.pipe()
    os.set_blocking(self._pipe, False)
    self._old_pipe = signal.set_wakeup_fd(self._pipe)
    self._old = {
      number: signal.signal(number, self._remember)
      for number in (signal.SIGINT, signal.SIGTERM)
    }
    threading.Thread(
      target=self._watch, args=(reader,), daemon=True, name="signals"
    ).start()
    return self

  def _remember(self, number: int, unused_frame: Any = None):
    self.number = self.number or number

  def _watch(self, reader: int):
    first: float | None = None
    while number := os.read(reader, 1):
      if number[0] not in (signal.SIGINT, signal.SIGTERM):
        continue
      now = time.monotonic()
      if not self.has_work:
        say("\nStopped. The same command goes on.")
        os._exit(128 + number[0])
      if first is None:
        first = now
        say(f"\n{self._message} Ctrl-C again stops at once.")
        self._remember(number[0])
      elif number[0] == signal.SIGINT and now - first > _SAME_SECONDS:
        self._at_once()
        say("Stopped at once.")
        os._exit(128 + signal.SIGINT)
    os.close(reader)

  def __exit__(self, *unused_args):
    for number, handler in self._old.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._old_pipe)
    os.close(self._pipe)

  def __bool__(self) -> bool:
    return self.number is not None


def say(text: str):
  """Prints a line to standard error, if possible.

  A closed terminal or a full disk must not change how a program ends.
  """
  try:
    print(text, file=sys.stderr, flush=True)
  except OSError:
    drop_lost_output()


class _Lossy(io.FileIO):
  """A file that drops data that it cannot write."""

  def write(self, data: Any) -> int:
    """Writes or drops bytes; returns their number."""
    try:
      return super().write(data)
    except OSError:
      return memoryview(data).nbytes


def drop_lost_output():
  """Silently drops output that cannot be written, libraries' included.

  A long run must not end because a terminal was closed or a disk is full.
  """
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    with contextlib.suppress(OSError):
      stream.flush()
    setattr(sys, name, io.TextIOWrapper(
      io.BufferedWriter(_Lossy(stream.fileno(), "w", closefd=False)),
      encoding=stream.encoding,
      # Names of files may contain bytes that are not valid text.
      errors="backslashreplace",
      line_buffering=stream.line_buffering,
    ))


def end_session(leader: int | None = None):
  """Kills the processes of a session, except this one.

  Args:
    leader: id of the process that leads the session. By default this process;
      if it leads no session, nothing is killed.
  """
  leader = os.getpid() if leader is None else leader
  if leader == os.getpid() != os.getsid(0):
    return
  for process in psutil.process_iter():
    with contextlib.suppress(ProcessLookupError, psutil.Error):
      if os.getsid(process.pid) == leader and process.pid != os.getpid():
        process.kill()


def end_children():
  """Kills the descendants of this process."""
  for process in psutil.Process().children(recursive=True):
    with contextlib.suppress(psutil.Error):
      process.kill()


def leave_no_children(end: Callable[[], None] = end_children):
  """Registers `end` to run at exit, after later-registered exit handlers."""
  # Imported first, so that its own exit handler, which waits for its children,
  # runs after `end`.
  import multiprocessing.util  # noqa: F401

  atexit.register(end)


class QuickExit:
  """Ends this process after its exit handlers, without Python's own teardown.

  The teardown takes seconds once TensorFlow has been loaded.

  Attributes:
    code: exit code; 1, as for an uncaught exception, until it is set.
  """

  def __init__(self):
    """Registers the exit; handlers that are registered later run before it."""
    self.code = 1
    atexit.register(self._end)

  def _end(self):
    try:
      sys.stdout.flush()
      sys.stderr.flush()
    except OSError:
      self.code = self.code or 1
    os._exit(self.code)


def wait(condition: Callable[[], bool], seconds: float) -> bool:
  """Waits until a condition holds; returns whether it does."""
  deadline = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > deadline:
      return False
    time.sleep(POLL_SECONDS)
  return True


def tail(text: str) -> str:
  """Returns the last lines of a text, indented."""
  return "\n".join(f"  | {line}" for line in text.splitlines()[-_TAIL_LINES:])
