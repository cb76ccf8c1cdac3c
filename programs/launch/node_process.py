"""The process of a node: how a launcher has it, and what it does itself."""

import contextlib
import dataclasses
import faulthandler
import functools
import os
import pathlib
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from programs.launch import ending
from programs.nodes.failures import EndedError, FailureLimit, HopelessError

# In a node's environment: its name, by which tools tell the processes apart.
NODE_NAME = "ACME_STAC_NODE"
# In a node's environment: a descriptor that takes why it is hopeless.
REASON_FILE = "ACME_STAC_REASON_FILE"
# Exit code of a node that a new process in its place could not help.
EXIT_HOPELESS = 69
# A node that dies more often than this within so many seconds ends the run.
_DEATHS = (5, 600.0)


@dataclasses.dataclass
class Node:
  """A node and its newest process, which may be started again and again.

  Attributes:
    name: of the node.
    command: its arguments.
    environment: variables beside those of this process.
    log: file of what it prints.
    files: descriptors that it inherits.
    process: the newest one, None before the first and in a pause after a death.
    start_at: when the next one starts.
    reason: a file in memory for why a new process could not help.
    deaths: limits how often it may die.
  """

  name: str
  command: list[str]
  environment: dict[str, str]
  log: pathlib.Path
  files: tuple[int, ...] = ()
  process: subprocess.Popen | None = None
  start_at: float = 0.0
  reason: TextIO | None = None
  deaths: FailureLimit = dataclasses.field(
    default_factory=lambda: FailureLimit(*_DEATHS)
  )

  @property
  def group(self) -> str:
    """The node's group in the program."""
    return self.name.split("/")[0]

  @property
  def running(self) -> bool:
    """Whether its process runs."""
    return self.process is not None and self.process.poll() is None

  @property
  def _heading(self) -> str:
    """The start of the line that begins the log of each of its processes."""
    return f"--- {self.name}, "

  def start(self):
    """Starts the process."""
    if self.reason is None:
      memory = os.memfd_create("reason", os.MFD_CLOEXEC)
      self.reason = open(memory, errors="replace")  # noqa: SIM115
    reason = self.reason.fileno()
    with self._open_log() as log, warnings.catch_warnings():
      # JAX warns of any fork; between this one and the new program nothing is
      # done but two system calls.
      warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
      self.process = subprocess.Popen(
        self.command,
        env={
          **os.environ, **self.environment, NODE_NAME: self.name,
          REASON_FILE: str(reason),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # Ctrl-C reaches the launcher alone, which then stops the nodes.
        start_new_session=True,
        preexec_fn=functools.partial(ending.die_with_parent, os.getpid()),
        pass_fds=(*self.files, reason),
      )

  def _open_log(self) -> TextIO:
    try:
      log = open(self.log, "a")  # noqa: SIM115
      log.write(f"{self._heading}{time.strftime('%Y-%m-%d %H:%M:%S')}\n")
      log.flush()
      return log
    except OSError:  # A full disk, for example: it runs without.
      return open(os.devnull, "w")

  def last_lines(self) -> str:
    """Returns the last lines that its newest process printed, indented."""
    reason = ""
    if self.reason is not None:
      self.reason.seek(0)
      reason = self.reason.read()
    try:
      text = self.log.read_text(errors="replace")
      # Earlier processes, and earlier runs, wrote to the same file.
      text = text[max(text.rfind(self._heading), 0) :]
    except OSError as error:
      text = str(error)
    if not text.rstrip().endswith(reason.rstrip()):
      text = f"{text}\n{reason}"
    return ending.tail(text)

  def kill(self):
    """Ends the process with whatever it started."""
    if self.process is None:
      return
    # Each node leads a session of its own, whose name stays taken while any
    # process is in it.
    ending.end_session(self.process.pid)
    self.process.wait()


def is_node_process() -> bool:
  """Returns whether this process was started for a single node."""
  return NODE_NAME in os.environ


def run(make: Callable[[], Any]):
  """Makes and runs the one node of this process."""
  # Its log may be on a full disk.
  ending.drop_lost_output()
  end = ending.QuickExit()
  ending.leave_no_children(ending.end_session)
  try:
    make().run()
    end.code = 0
  except EndedError:
    end.code = 0
  except HopelessError as error:
    ending.say(str(error))
    if REASON_FILE in os.environ:
      with contextlib.suppress(OSError):
        os.write(int(os.environ[REASON_FILE]), str(error).encode())
    # Nothing may fail from here on, or say more.
    os._exit(EXIT_HOPELESS)
  finally:
    # Launchpad's alarm would kill a process that takes a second to end.
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def end_if_stuck(seconds: float):
  """Ends this process, with its traceback, if no Python runs for so long.

  No Python thread notices an environment that hangs in foreign code without
  releasing Python's lock.
  """

  def put_off():
    while True:
      faulthandler.dump_traceback_later(seconds, exit=True)
      time.sleep(min(5.0, seconds / 3))

  threading.Thread(target=put_off, daemon=True, name="stuck").start()
