"""The process of a node, as seen by its launcher and from the inside."""

import contextlib
import dataclasses
import faulthandler
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from programs.launch import child, ending
from programs.nodes.failures import EndedError, FailureLimit, HopelessError

# Environment variable of a node process: the node's name, for tools that list
# processes.
NODE_NAME = "ACME_STAC_NODE"
# Environment variable of a node process: descriptor of a file in which it says
# why it cannot go on.
REASON_FILE = "ACME_STAC_REASON_FILE"
# Exit code of a node that a restart would not help.
EXIT_HOPELESS = 69
# (deaths, seconds): a node that dies more often in this time ends the run.
_DEATHS = (5, 600.0)


@dataclasses.dataclass
class Node:
  """A node with its newest process, which may be restarted.

  Attributes:
    name: name of the node.
    command: command line of the process.
    environment: environment variables, in addition to those of this process.
    log: file for the output.
    files: descriptors that the process inherits.
    process: the newest process; None before the first and in the pause after a
      death.
    start_at: when the next process starts.
    reason: a file in memory in which the process says why a restart would not
      help.
    deaths: limits the number of deaths.
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
    with self._open_log() as log:
      self.process = subprocess.Popen(
        child.command(self.command),
        env={
          **os.environ, **self.environment, NODE_NAME: self.name,
          REASON_FILE: str(reason),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # Ctrl-C then reaches only the launcher, which stops the nodes.
        start_new_session=True,
        pass_fds=(*self.files, reason),
      )

  def _open_log(self) -> TextIO:
    try:
      log = open(self.log, "a")  # noqa: SIM115
      log.write(f"{self._heading}{time.strftime('%Y-%m-%d %H:%M:%S')}\n")
      log.flush()
      return log
    except OSError:  # A full disk, for example: the node runs without a log.
      return open(os.devnull, "w")

  def last_lines(self) -> str:
    """Returns the last lines of the node's newest process, indented."""
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
    """Kills the process and all processes that it started."""
    if self.process is None:
      return
    # Each node leads a session of its own, whose id cannot be reused while any
    # process is in it.
    ending.end_session(self.process.pid)
    self.process.wait()


def run(make: Callable[[], Any]):
  """Makes and runs the one node of this process."""
  # The log may be on a full disk.
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
    # Exit handlers are skipped: they might fail or print more.
    os._exit(EXIT_HOPELESS)
  finally:
    # Launchpad's alarm would kill a process that takes over a second to end.
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def end_if_stuck(seconds: float):
  """Ends this process, with its traceback, if no Python runs for `seconds`.

  An environment that hangs in foreign code without releasing Python's lock
  blocks all Python threads, so none of them could notice.
  """

  def put_off():
    while True:
      faulthandler.dump_traceback_later(seconds, exit=True)
      time.sleep(min(5.0, seconds / 3))

  threading.Thread(target=put_off, daemon=True, name="stuck").start()
