"""Watches the nodes of a host: shows the run, restarts and ends processes."""

import signal
import time
from collections.abc import Sequence
from typing import Any

from programs.launch import graph
from programs.launch.ending import (
  POLL_SECONDS,
  STOP_SECONDS,
  NodeDiedError,
  StopRequest,
  say,
  wait,
)
from programs.launch.hosts import OneHost, Status
from programs.launch.node_process import EXIT_HOPELESS, Node
from programs.launch.progress import LastNodes, Progress
from programs.nodes.environments import EXIT_HUNG
from programs.nodes.failures import SilentError
from programs.run.experiment import Experiment

_SERVERS = frozenset({"replay", "counter", "variables"})
_LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 1.0
# Seconds without an update before a notice is printed.
_QUIET_SECONDS = 60.0
# Seconds without an answer before a notice is printed, and between notices.
_UNANSWERED_SECONDS = 20.0
_UNANSWERED_NOTE_SECONDS = 10.0


class Supervisor:
  """Shows how the run is, and notices when it ends, stalls or loses a node."""

  def __init__(
    self,
    experiment: Experiment,
    counter: Any,
    progress: Progress,
    host: OneHost,
    stop: StopRequest,
  ):
    """Makes a supervisor; `counter` is a client of the run's counter."""
    self._experiment = experiment
    self._counter = counter
    self._progress = progress
    self._host = host
    self._stop = stop
    self._last_look = 0.0
    self._last_answer = self._last_note = time.monotonic()
    # A counter that was away may belong to another run now.
    self._away = True
    # Once a look has found the run finished.
    self._last_nodes: LastNodes | None = None

  def wait_for_counter(self):
    """Waits until the counter answers.

    Raises:
      UserError: if this host's run is another one.
      SilentError: if it does not answer in the time that it has.
    """
    while not self._stop and self.look() is None:
      self._check_silence()
      time.sleep(POLL_SECONDS)

  def _check_silence(self):
    now = time.monotonic()
    silent = now - self._last_answer
    patience = self._experiment.patience_seconds
    problem = f"No answer from {self._host.counter} for {silent:.0f} s"
    if silent > patience:
      raise SilentError(f"{problem}, so this gives up.")
    if (
      silent > _UNANSWERED_SECONDS
      and now - self._last_note > _UNANSWERED_NOTE_SECONDS
    ):
      self._last_note = now
      self._progress.note(f"{problem}; waiting up to {patience:.0f} s.")

  def look(self) -> Status | None:
    """Asks how the run is and shows it; returns None if nobody answered.

    Raises:
      SilentError: if there was no update for too long.
      UserError: if the learner's host has another run than this one, or another
        launcher is this host.
    """
    now = self._last_look = time.monotonic()
    if self._away:
      description = graph.ask(self._counter.describe)
      if description is None:
        return None
      self._host.check_run(description)
    status = graph.ask(self._counter.status, *self._host.identity)
    self._away = status is None
    if status is None:
      return None
    self._last_answer = now
    self._host.notice(status)
    self._progress.show(status)
    if not status["finished"]:
      self._check_updates(status["seconds_since_update"])
    elif self._last_nodes is None:
      self._last_nodes = LastNodes(self._progress)
    return status

  def _check_updates(self, seconds: float):
    logs = self._experiment.logs / "nodes"
    if seconds > self._experiment.patience_seconds:
      raise SilentError(
        f"There was no update for {seconds:.0f} s. {logs} has what each node"
        " said last."
      )
    now = time.monotonic()
    if seconds > _QUIET_SECONDS and now - self._last_note > _QUIET_SECONDS:
      self._last_note = now
      self._progress.note(
        f"No update for {seconds:.0f} s: the first one compiles; later ones may"
        f" wait for actors. {logs} has what each node said."
      )

  def run(self, nodes: Sequence[Node], restarted: frozenset[str]):
    """Returns when the run is done or is to stop.

    Args:
      nodes: of this host, which have been started.
      restarted: groups of nodes that are restarted when they die.

    Raises:
      NodeDiedError: if a node is lost for good.
      SilentError: if nothing happened for too long.
      UserError: if this host does not fit the others.
    """
    while not self._stop:
      if time.monotonic() - self._last_look > _LOOK_SECONDS:
        status = self.look()
        if status is None and self._last_nodes is None:
          self._check_silence()
      if self._last_nodes is None:
        for node in nodes:
          self._look_after(node, restarted)
      elif self._last_nodes.ended(
        [n.name for n in nodes if n.running and n.group not in _SERVERS]
      ):
        self._host.tell_end(lambda: None if self._stop else self.look())
        self.look()
        return
      time.sleep(POLL_SECONDS)

  def _look_after(self, node: Node, restarted: frozenset[str]):
    """Restarts a node that has died.

    Raises:
      NodeDiedError: if it is not to be restarted.
    """
    if node.running:
      return
    if node.process is None:
      if time.monotonic() >= node.start_at:
        node.start()
      return
    code = node.process.returncode
    if code == 0:
      # It may have heard of the end before this process did. The learner ends
      # for no other reason.
      self.look()
      if node.group == "learner" or self._last_nodes is not None:
        return
    within = node.deaths.add()
    number, limit = node.deaths.count, node.deaths.failures
    seconds = f"{node.deaths.seconds:.0f} s"
    if node.group not in restarted or code == EXIT_HOPELESS or not within:
      often = "" if within else f", its death number {number} within {seconds}"
      raise NodeDiedError(
        describe_death(node, f"{often}, so the run was stopped")
      )
    self._progress.note(
      f"Node {node.name} {_describe_exit(code)}; it is started again ({number}"
      f" of at most {limit} times in {seconds})."
      # If a signal killed it, its last words are not the reason.
      + (f" It had said:\n{node.last_lines()}" if code > 0 else "")
    )
    node.kill()
    node.process = None
    pause = min(2.0 ** (number - 1) - 1, _LONGEST_PAUSE_SECONDS)
    node.start_at = time.monotonic() + pause


def describe_death(node: Node, circumstances: str) -> str:
  """Returns which node died, of what, and its last lines."""
  assert node.process is not None
  return (
    f"Node {node.name} {_describe_exit(node.process.returncode)}"
    f"{circumstances}. Its last lines ({node.log}):\n{node.last_lines()}"
  )


def _describe_exit(code: int) -> str:
  if code >= 0:
    hung = " (its environment hung)" if code == EXIT_HUNG else ""
    return f"ended with exit code {code}{hung}"
  number = -code
  name = (
    signal.Signals(number).name
    if number in signal.valid_signals()
    else f"signal {number}"
  )
  note = " (by hand, or because memory ran out)" * (number == signal.SIGKILL)
  return f"was killed by {name}{note}"


def stop_nodes(nodes: Sequence[Node]):
  """Ends nodes: those that call others first, so that no call waits."""
  _terminate([node for node in nodes if node.group not in _SERVERS])
  _terminate([node for node in nodes if node.group in _SERVERS])
  for node in nodes:
    if node.running:
      say(f"\nNode {node.name} did not stop; killed.")
    # Children of an environment may outlive a node that ended well.
    node.kill()


def _terminate(nodes: Sequence[Node]):
  """Sends SIGTERM to nodes; waits until they end, at most `STOP_SECONDS`."""
  for node in nodes:
    if node.running and node.process is not None:
      node.process.terminate()
  wait(lambda: not any(node.running for node in nodes), STOP_SECONDS)
