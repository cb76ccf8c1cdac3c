"""How a process ends: asked by a signal, and with everything it started."""

import atexit
import contextlib
import ctypes
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

# Seconds that nodes have to end by themselves after SIGTERM: an update and a
# checkpoint must fit.
STOP_SECONDS = 30
POLL_SECONDS = 0.2
# A wrapper may pass on a Ctrl-C that the terminal has sent already, so signals
# within this time are one.
_SAME_SECONDS = 0.5
_TAIL_LINES = 15


class NodeDiedError(Exception):
  """A node ended the run; the text names it and shows its last lines."""


class Interrupted(Exception):  # noqa: N818  Not an error.
  """The run was stopped by a signal, which is the argument."""


class StopRequest:
  """Remembers SIGINT and SIGTERM while it is entered.

  Answers the first one on the terminal at once. A SIGINT after it ends this
  process at once, whatever the main thread does meanwhile.

  Attributes:
    number: the first signal; None before.
  """

  def __init__(
    self,
    message: str = "Stopping; the checkpoint is being saved.",
    at_once: Callable[[], Any] = lambda: None,
  ):
    """Makes a request that nobody has made yet.

    Args:
      message: answer to the first signal.
      at_once: called in another thread before this process ends at once; ends
        other processes.
    """
    self._message = message
    self._at_once = at_once
    self.number: int | None = None

  def __enter__(self) -> "StopRequest":
    # Python runs handlers in the main thread, between its instructions, and a
    # compilation may take a minute. A byte in a pipe arrives at once.
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
  """Prints a line to standard error, or nothing if that is impossible.

  A terminal that is gone or a full disk must not change how a program ends.
  """
  try:
    print(text, file=sys.stderr, flush=True)
  except OSError:
    drop_lost_output()


class _Lossy(io.FileIO):
  """A file that drops what cannot be written to it."""

  def write(self, data: Any) -> int:
    """Writes bytes, or drops them; returns their number."""
    try:
      return super().write(data)
    except OSError:
      return memoryview(data).nbytes


def drop_lost_output():
  """Makes prints that fail do nothing from now on, also those of libraries.

  A long run must not end because a terminal is gone or a disk is full.
  """
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    with contextlib.suppress(OSError):
      stream.flush()
    setattr(sys, name, io.TextIOWrapper(
      io.BufferedWriter(_Lossy(stream.fileno(), "w", closefd=False)),
      encoding=stream.encoding,
      # Names of files may be bytes that are not text.
      errors="backslashreplace",
      line_buffering=stream.line_buffering,
    ))


def end_session(leader: int | None = None):
  """Kills the processes of a session, but not this one.

  Args:
    leader: the process that leads the session; this one by default, and
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
  """Kills the descendants of this process."""
  for process in psutil.Process().children(recursive=True):
    with contextlib.suppress(psutil.Error):
      process.kill()


def leave_no_children(end: Callable[[], None] = end_children):
  """Has `end` called at exit, after what is imported from now on has ended."""
  # Loaded first, so that its own exit handler runs after `end`: it waits for
  # the children that it knows.
  import multiprocessing.util  # noqa: F401

  atexit.register(end)


class QuickExit:
  """Ends this process after its exit handlers, without Python's own teardown.

  The teardown takes seconds once TensorFlow has been loaded.

  Attributes:
    code: exit code; that of an uncaught exception until it is set.
  """

  def __init__(self):
    """Registers the end; handlers that are registered later come before it."""
    self.code = 1
    atexit.register(self._end)

  def _end(self):
    try:
      sys.stdout.flush()
      sys.stderr.flush()
    except OSError:
      self.code = self.code or 1
    os._exit(self.code)


# Loaded here, as little may be done between fork and exec.
_LIBC = ctypes.CDLL(None)


def die_with_parent(parent: int):
  """Has the kernel send SIGTERM to this process when its parent dies."""
  set_parent_death_signal = 1
  _LIBC.prctl(set_parent_death_signal, signal.SIGTERM)
  if os.getppid() != parent:
    os._exit(1)  # It was dead already.


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
