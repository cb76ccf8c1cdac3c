"""The process of a node, which may be started again and again."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import time
import warnings
from typing import TextIO

from programs.launch import node_process
from programs.launch.ending import die_with_parent, end_session, tail
from programs.nodes.failures import FailureLimit

# A node that dies more often than this within so many seconds ends the run.
_DEATHS = (5, 600.0)


@dataclasses.dataclass
class Node:
  """A node and its newest process.

  Attributes:
    name: of the node.
    command: its arguments.
    environment: variables beside those of this process.
    log: file of what it prints.
    files: descriptors that it inherits.
    process: the newest one, None before the first and in a pause after a death.
    start_at: when the next one starts.
    reason: a file in memory for why a new process would not do better.
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
          **os.environ,
          **self.environment,
          node_process.NODE_NAME: self.name,
          node_process.REASON_FILE: str(reason),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # Ctrl-C reaches the launcher alone, which then stops the nodes.
        start_new_session=True,
        preexec_fn=functools.partial(die_with_parent, os.getpid()),
        pass_fds=(*self.files, reason),
      )

  def _open_log(self) -> TextIO:
    try:
      log = open(self.log, "a")  # noqa: SIM115
      log.write(f"--- {self.name}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
      log.flush()
      return log
    except OSError:  # A full disk, for example: it runs without.
      return open(os.devnull, "w")

  def last_lines(self) -> str:
    """Returns the last lines that it printed, indented."""
    reason = ""
    if self.reason is not None:
      self.reason.seek(0)
      reason = self.reason.read()
    try:
      text = self.log.read_text(errors="replace")
    except OSError as error:
      text = str(error)
    if not text.rstrip().endswith(reason.rstrip()):
      text = f"{text}\n{reason}"
    return tail(text)

  def kill(self):
    """Ends the process with whatever it started."""
    if self.process is None:
      return
    # Each node leads a session of its own, whose name stays taken while any
    # process is in it.
    end_session(self.process.pid)
    self.process.wait()
