"""Runs the nodes of this host as processes, and starts them again.

Launchpad's own launchers do not notice the death of a node in every case, do
not say which one it was, and end themselves by a signal; so processes that it
describes are started and watched here.
"""

import ctypes
import dataclasses
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from typing import Any, TextIO

import launchpad as lp
from launchpad import address as lp_address
from launchpad.nodes.python.local_multi_processing import PythonProcess

from programs.launch import graph
from programs.launch.cluster import Cluster
from programs.launch.ending import (
  POLL_SECONDS,
  STOP_SECONDS,
  Interrupted,
  NodeDiedError,
  StopRequest,
  describe_late,
  describe_waiting,
  end_session,
  patience_at_end,
  say,
  tail,
  wait,
)
from programs.launch.progress import Progress
from programs.nodes import nodes
from programs.nodes.calls import SilentError
from programs.nodes.failures import FailureLimit
from programs.run.errors import UserError
from programs.run.experiment import Experiment, host_differences

# Which nodes are started again when they die: none; those of which the run
# loses nothing but unfinished trajectories; or the learner and its queue too.
_WORKERS = frozenset({"actor", "evaluator", "counter", "variables"})
RESTARTED: dict[str, frozenset[str]] = {
  "none": frozenset(),
  "workers": _WORKERS,
  "all": _WORKERS | {"replay", "learner"},
}
# A node that dies more often than that in so many seconds ends the run.
_DEATHS = (5, 600.0)
_LONGEST_PAUSE_SECONDS = 30.0
_SERVERS = ("replay", "counter", "variables")
# Without an update for this long, it is said.
_SILENCE_SECONDS = 60.0
# What a finished run still waits for is named this often.
_NOTE_SECONDS = 20.0
# The hosts that are waited for are listed after the first pause, then after
# longer ones.
_LIST_PAUSE_SECONDS = 10.0
_LONGEST_LIST_PAUSE_SECONDS = 600.0
# A host's launcher gives way to another that has been there for so long.
_RIVAL_SECONDS = 10.0
# Seconds that hosts of actors have to notice the end of the run.
_TELL_SECONDS = 15.0


class _FixedAddress(lp_address.AbstractAddressBuilder):
  """An address that is known before the program is launched."""

  def __init__(self, address: str):
    self._address = address

  def build(self) -> str:
    """Returns the address."""
    return self._address


@dataclasses.dataclass
class _Node:
  """A process, again and again.

  Attributes:
    name: of the node.
    command: its arguments.
    environment: variables beside those of this process.
    log: file of what it prints.
    files: descriptors that it inherits.
    process: the newest one, None while it pauses after a death.
    start_at: when the next one starts.
    reason: a file without a disk, for why a new process would be no better.
    deaths: how often it may die.
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
          graph.NODE_NAME: self.name,
          graph.REASON_FILE: str(reason),
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
    except OSError:  # A full disk, say: it runs without.
      return open(os.devnull, "w")

  def last_lines(self) -> str:
    """Returns what it said last, set off."""
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


def acting_environment(threads: int = 1) -> dict[str, str]:
  """Returns environment variables of a process that acts on the CPU.

  What an actor computes is small: handed to another thread it would wait for
  that one to be scheduled.

  Args:
    threads: how many XLA has.
  """
  given = os.environ.get("XLA_FLAGS", "")
  return {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "NPROC": str(threads),
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    "XLA_FLAGS": (
      f"--xla_cpu_enable_concurrency_optimized_scheduler=false {given}".strip()
    ),
  }


def learning_environment() -> dict[str, str]:
  """Returns environment variables of the learner's process.

  An update of a convolutional network on the CPU takes gigabytes that are given
  back and faulted in again every time: 500 pages to a fault, where the kernel
  offers that, make it up to a quarter faster.
  """
  tunables = os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
  return {"GLIBC_TUNABLES": tunables}


def run_processes(
  experiment: Experiment,
  progress: Progress,
  learner_environment: dict[str, str],
  threads_per_actor: int,
  restart: str = "workers",
  cluster: Cluster | None = None,
  terminal: str | None = None,
  learner_files: tuple[int, ...] = (),
):
  """Runs every node of this host as a process of its own.

  Args:
    experiment: the run.
    progress: where the state of the run is shown.
    learner_environment: environment variables of the learner alone; the others
      see no accelerator.
    threads_per_actor: threads that XLA has in each of the others.
    restart: which nodes are started again when they die, of `RESTARTED`.
    cluster: the hosts of the run, if there are several.
    terminal: a terminal of Launchpad's that shows every node, for example
      "tmux_session". Launchpad then runs the program as it is used to, without
      what this function does besides.
    learner_files: descriptors that the learner inherits.

  Raises:
    NodeDiedError: if a node ended before the run was done and was not to be
      started again, or did so too often; the others have been stopped.
    SilentError: if the learner or its host was silent for too long.
    UserError: if this host's run is not that of the learner's host.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  program, counter_handle = graph.make_program(
    experiment, cluster.actors if cluster else None
  )
  hidden = acting_environment(threads_per_actor)
  learner_environment = {**learning_environment(), **learner_environment}
  common = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
  resources = {
    label: PythonProcess(
      env={**common, **(learner_environment if label == "learner" else hidden)}
    )
    for label in program.groups
  }
  if terminal is not None:
    lp.launch(
      program,
      lp.LaunchType.LOCAL_MULTI_PROCESSING,
      local_resources=resources,
      terminal=terminal,
    ).wait()
    return

  running: list[_Node] = []
  with StopRequest(at_once=lambda: [node.kill() for node in running]) as stop:
    try:
      described = _describe(program, resources, experiment, cluster)
      for node in described:
        node.files = learner_files if node.group == "learner" else ()
      counter = graph.make_status_client(counter_handle)
      watch = _Watch(experiment, counter, progress, cluster, stop)
      if cluster is not None and not cluster.is_learner_host:
        watch.wait_for_learner_host()
      for node in described:
        if stop:
          break
        node.start()
        running.append(node)
      watch.until_the_end(running, RESTARTED[restart])
    finally:
      _stop(running)
    if stop:
      for node in running:
        if node.group != "learner" or node.process is None:
          continue
        # A learner that was killed by SIGTERM had not begun yet.
        if node.process.returncode not in (0, -signal.SIGTERM):
          # Its last checkpoint, for instance, could not be written.
          raise NodeDiedError(_tell_death(node, " when it was asked to stop"))
      raise Interrupted(stop.number)


def _describe(
  program: lp.Program,
  resources: dict[str, Any],
  experiment: Experiment,
  cluster: Cluster | None,
) -> list[_Node]:
  """Returns this host's nodes as Launchpad's local launcher would run them."""
  # These are the steps that every launcher of Launchpad takes.
  for label, group in program.groups.items():
    for node in group:
      node._initialize_context(
        lp.LaunchType.LOCAL_MULTI_PROCESSING, launch_config=resources[label]
      )
  for label, group in program.groups.items():
    for node in group:
      for handle in node.input_handles:
        handle.connect(node, label)
      node.bind_addresses()
      if cluster is not None:
        for address in node.addresses:
          place = cluster.address(label, group.index(node))
          address.bind(_FixedAddress(place))
  logs = experiment.logs / "nodes"
  logs.mkdir(parents=True, exist_ok=True)
  # Launchpad pickles the nodes into temporary directories of this user's, which
  # nobody is to tidy away while a node may be started again.
  pickles = experiment.workdir / ".nodes"
  shutil.rmtree(pickles, ignore_errors=True)
  pickles.mkdir(mode=0o700)
  tempfile.tempdir = str(pickles)
  described = []
  for label, group in program.groups.items():
    if cluster is not None and label not in cluster.groups:
      continue
    commands = group[0].to_executables(group, label, group[0].launch_context)
    for number, command in enumerate(commands):
      name = label if len(group) == 1 else f"{label}/{number}"
      if label == "actor" and cluster is not None:
        name = f"actor/{cluster.actors[number]}"
      arguments = [
        argument
        for argument in command.command_as_list
        if argument != "--pdb_post_mortem"
      ]
      arguments.append(f"--lp_termination_notice_secs={STOP_SECONDS}")
      log = logs / f"{name.replace('/', '_')}.log"
      described.append(_Node(name, arguments, command.env_overrides, log))
  tempfile.tempdir = None
  return described


# Loaded here, as little may be done between fork and exec.
_LIBC = ctypes.CDLL(None)


def die_with_parent(parent: int):
  """Has the kernel send SIGTERM to this process when its parent dies."""
  set_parent_death_signal = 1
  _LIBC.prctl(set_parent_death_signal, signal.SIGTERM)
  if os.getppid() != parent:
    os._exit(1)  # It was dead already.


class _Watch:
  """Shows how the run is, and notices when it ends, stalls or loses a node."""

  def __init__(
    self,
    experiment: Experiment,
    counter: Any,
    progress: Progress,
    cluster: Cluster | None,
    stop: StopRequest,
  ):
    self._experiment = experiment
    self._counter = counter
    self._progress = progress
    self._cluster = cluster
    self._stop = stop
    self._host: str | None = None
    self._launcher = uuid.uuid4().hex
    self._rival_since: float | None = None
    self._expected: set[str] = set()
    if cluster is not None:
      if cluster.is_learner_host:
        self._expected = set(cluster.actor_hosts)
      else:
        self._host = cluster.host
    self._last_look = 0.0
    self._last_answer = self._last_note = time.monotonic()
    self._silent: set[str] = set()
    self._next_list = time.monotonic() + _LIST_PAUSE_SECONDS
    self._list_pause = _LIST_PAUSE_SECONDS
    # Whether the counter did not answer at the last look.
    self._away = False

  def wait_for_learner_host(self):
    """Waits for the counter, and compares what it says of the run.

    Raises:
      UserError: if this host's run is another one.
      SilentError: if it does not answer in the time that it has.
    """
    assert self._cluster is not None
    address = self._cluster.address("counter")
    while not self._stop:
      try:
        theirs = self._counter.describe()
        break
      except Exception:
        self._check_silence(f"No answer from the learner's host, {address},")
      time.sleep(POLL_SECONDS)
    else:
      return
    self._compare(theirs)

  def _compare(self, theirs: dict[str, Any]):
    """Raises UserError if the learner's host has another run than this one."""
    assert self._cluster is not None
    address = self._cluster.address("counter")
    ours = self._experiment.to_json()
    if differences := host_differences(theirs, ours):
      raise UserError(
        f"The learner's host ({address}) has another run than this one. There"
        " -> here:\n  " + "\n  ".join(differences)
        + "\nGive both the same --config and flags."
      )

  def _check_silence(self, problem: str):
    now = time.monotonic()
    silent = now - self._last_answer
    patience = self._experiment.patience_seconds
    if silent > patience:
      raise SilentError(f"{problem} for {silent:.0f} s, so this gives up.")
    if silent > 20 and now - self._last_note > 10:
      self._last_note = now
      self._progress.note(
        f"{problem} for {silent:.0f} s; waiting up to {patience:.0f} s."
      )

  def look(self) -> dict[str, Any] | None:
    """Asks how the run is and shows it; None if nobody answered.

    Raises:
      SilentError: if there was no update for too long.
      UserError: if the learner's host came back with another run, or another
        launcher is this host.
    """
    now = time.monotonic()
    self._last_look = now
    try:
      # Who was away may come back as another run.
      run = self._counter.describe() if self._host and self._away else None
      status = self._counter.status(self._host, self._launcher)
    except Exception:  # Not there yet, or no longer: the caller watches that.
      self._away = True
      return None
    self._away = False
    self._last_answer = now
    if run is not None:
      self._compare(run)
    self._check_rival(status["rival"])
    self._progress.show(status)
    self._look_at_hosts(status)
    quiet = status["seconds_since_update"]
    if not status["finished"] and quiet > _SILENCE_SECONDS:
      if quiet > self._experiment.patience_seconds:
        raise SilentError(
          f"There was no update for {quiet:.0f} s. {self._experiment.logs} has"
          " what each node said last, in nodes/."
        )
      if now - self._last_note > _SILENCE_SECONDS:
        self._last_note = now
        self._progress.note(
          f"No update for {quiet:.0f} s: the first one compiles; later ones may"
          f" wait for actors. {self._experiment.logs}/nodes has what each said."
        )
    return status

  def _check_rival(self, rival: bool):
    """Raises UserError if this host was started twice."""
    now = time.monotonic()
    if not rival:
      self._rival_since = None
    elif self._rival_since is None:
      # It may have been started again, before it was noticed to be gone.
      self._rival_since = now
    elif now - self._rival_since > _RIVAL_SECONDS:
      raise UserError(
        f"Host {self._host} has been started already, and both would be the"
        " same actors. Stop the other one, or say with --host which host this"
        " is."
      )

  def _look_at_hosts(self, status: dict[str, Any]):
    heard = {
      host
      for host, seconds in status["hosts"].items()
      if seconds < _SILENCE_SECONDS
    }
    for host in sorted(heard & self._silent):
      self._progress.note(f"Host {host} is back.")
    for host in sorted((status["hosts"].keys() - heard) - self._silent):
      self._progress.note(
        f"Host {host} has not been heard of for {_SILENCE_SECONDS:.0f} s."
      )
    self._silent = status["hosts"].keys() - heard
    self._expected -= status["hosts"].keys()
    if self._expected and time.monotonic() > self._next_list:
      # Whoever is late is asked for less and less often.
      self._next_list = time.monotonic() + self._list_pause
      self._list_pause = min(2 * self._list_pause, _LONGEST_LIST_PAUSE_SECONDS)
      waiting = ", ".join(sorted(self._expected))
      self._progress.note(f"Waiting for actors of: {waiting}")

  def until_the_end(self, running: list[_Node], restarted: frozenset[str]):
    """Returns when the run is done or is to stop.

    Raises:
      NodeDiedError: if a node is lost for good.
      SilentError: if nothing happened for too long.
      UserError: if the learner's host came back with another run.
    """
    done: float | None = None
    while not self._stop:
      now = time.monotonic()
      if now - self._last_look > 1.0:
        status = self.look()
        if status is not None and status["finished"]:
          done = done or now
        if status is None and done is None:
          self._check_silence("No answer from the counter")
      for node in running:
        self._look_at(node, done is not None, restarted)
      waiting = [
        n.name for n in running if n.running and n.group not in _SERVERS
      ]
      if done is not None and (
        not waiting or self._is_late(now - done, waiting)
      ):
        self._tell_hosts()
        self.look()
        return
      time.sleep(POLL_SECONDS)

  def _is_late(self, seconds: float, waiting: list[str]) -> bool:
    """Returns whether nodes have had long enough to end after the run."""
    limit = patience_at_end(waiting)
    if seconds <= limit:
      now = time.monotonic()
      if seconds > _NOTE_SECONDS and now - self._last_note > _NOTE_SECONDS:
        self._last_note = now
        self._progress.note(describe_waiting(waiting, limit - seconds))
      return False
    self._progress.note(describe_late(waiting, limit))
    return True

  def _tell_hosts(self):
    """Gives hosts of actors the time to hear that the run is done."""
    if self._cluster is None or not self._cluster.is_learner_host:
      return
    wait(
      lambda: not ((self.look() or {}).get("hosts_to_tell") or self._stop),
      _TELL_SECONDS,
    )

  def _look_at(self, node: _Node, done: bool, restarted: frozenset[str]):
    if done or node.running:
      return
    now = time.monotonic()
    if node.process is None:
      if now >= node.start_at:
        node.start()
      return
    code = node.process.returncode
    if code == 0:
      # It may have heard of the end before this process did. Of the learner
      # that is enough, as it ends for no other reason.
      status = self.look()
      if node.group == "learner" or (status is not None and status["finished"]):
        return
    cause = _describe_death(code)
    if (
      node.group not in restarted
      or code == graph.EXIT_HOPELESS
      or not node.deaths.add()
    ):
      often = ""
      if node.deaths.count > node.deaths.failures:
        often = (
          f", its death number {node.deaths.count} within"
          f" {node.deaths.seconds:.0f} s"
        )
      raise NodeDiedError(_tell_death(node, f"{often}, so the run was stopped"))
    pause = min(2.0 ** (node.deaths.count - 1) - 1, _LONGEST_PAUSE_SECONDS)
    self._progress.note(
      f"Node {node.name} {cause}; it is started again"
      f" ({node.deaths.count} of at most {node.deaths.failures} times in"
      f" {node.deaths.seconds:.0f} s)."
      # What it said is the cause of that only if nobody else killed it.
      + (f" It had said:\n{node.last_lines()}" if code > 0 else "")
    )
    # Whatever it had started goes too.
    node.kill()
    node.process = None
    node.start_at = now + pause


def _tell_death(node: _Node, circumstances: str) -> str:
  """Returns who died, of what, and its last words."""
  assert node.process is not None
  cause = _describe_death(node.process.returncode)
  return (
    f"Node {node.name} {cause}{circumstances}. Its last lines ({node.log}):"
    f"\n{node.last_lines()}"
  )


def _describe_death(code: int) -> str:
  if code >= 0:
    return f"ended with exit code {code}" + (
      " (its environment hung)" if code == nodes.EXIT_HUNG else ""
    )
  try:
    cause = f"was killed by {signal.Signals(-code).name}"
  except ValueError:
    cause = f"was killed by signal {-code}"
  if code == -signal.SIGKILL:
    cause += " (by hand, or because memory ran out)"
  return cause


def _all_ended(group: list[_Node]) -> bool:
  return not any(node.running for node in group)


def _stop(running: list[_Node]):
  """Ends all nodes."""
  # Those that call others first, so that no call waits for a node that is gone.
  for group in (
    [node for node in running if node.group not in _SERVERS],
    [node for node in running if node.group in _SERVERS],
  ):
    for node in group:
      if node.running and node.process is not None:
        node.process.terminate()
    wait(functools.partial(_all_ended, group), STOP_SECONDS)
  for node in running:
    if node.running:
      say(f"\nNode {node.name} did not stop; killed.")
    # Children of an environment may outlive a node that ended well.
    node.kill()
