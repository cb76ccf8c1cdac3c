"""Coordinates the launchers of a run on several hosts."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from programs.launch.cluster import Cluster
from programs.launch.ending import wait
from programs.launch.progress import Progress
from programs.run.errors import UserError
from programs.run.experiment import Experiment, host_differences

# A host that has been silent for this long is reported.
_SILENCE_SECONDS = 60.0
# Missing hosts are listed after the first pause, then after longer and longer
# ones.
_LIST_PAUSE_SECONDS = 10.0
_LONGEST_LIST_PAUSE_SECONDS = 600.0
# Time after which a launcher yields to an older one of the same host. It waits
# because the older one may have just ended unnoticed.
_RIVAL_SECONDS = 10.0
# Maximum wait for hosts of actors to notice the end of the run.
_TELL_SECONDS = 15.0

Status = dict[str, Any]


class OneHost:
  """The only host of a run.

  Attributes:
    identity: arguments of `RunCounter.status` that identify this host.
    counter: name of the counter, for messages.
  """

  identity: tuple[str, ...] = ()
  counter = "the counter"

  def check_run(self, description: dict[str, Any]):
    """Raises UserError if the learner's host has a different run."""

  def notice(self, status: Status):
    """Reacts to the newest status of the run.

    Raises:
      UserError: if this host must not go on.
    """

  def tell_end(self, ask: Callable[[], Status | None]):
    """Waits until other hosts know that the run is done.

    Args:
      ask: returns the newest status; None if the counter does not answer.
    """


class LearnerHost(OneHost):
  """The learner's host, which reports late and silent hosts of actors."""

  def __init__(self, cluster: Cluster, progress: Progress):
    self._progress = progress
    self._expected = set(cluster.actor_hosts)
    self._silent: set[str] = set()
    self._list_pause = _LIST_PAUSE_SECONDS
    self._next_list = time.monotonic() + self._list_pause

  def notice(self, status: Status):
    """Reports hosts that are late, silent or back."""
    silent = {
      host
      for host, seconds in status["hosts"].items()
      if seconds >= _SILENCE_SECONDS
    }
    for host in sorted(self._silent - silent):
      self._progress.note(f"Host {host} is back.")
    for host in sorted(silent - self._silent):
      self._progress.note(
        f"Host {host} has not been heard of for {_SILENCE_SECONDS:.0f} s."
      )
    self._silent = silent
    self._expected -= status["hosts"].keys()
    if self._expected and time.monotonic() > self._next_list:
      self._next_list = time.monotonic() + self._list_pause
      self._list_pause = min(2 * self._list_pause, _LONGEST_LIST_PAUSE_SECONDS)
      waiting = ", ".join(sorted(self._expected))
      self._progress.note(f"Waiting for actors of: {waiting}")

  def tell_end(self, ask: Callable[[], Status | None]):
    """Waits until all hosts of actors know, at most `_TELL_SECONDS`."""
    wait(lambda: not (ask() or {}).get("hosts_to_tell"), _TELL_SECONDS)


class ActorHost(OneHost):
  """A host of actors, which follows the learner's host and must be unique."""

  def __init__(self, cluster: Cluster, experiment: Experiment):
    self._experiment = experiment
    self._host = cluster.host
    self._learner_host = cluster.learner_host
    self.counter = f"the counter on {cluster.address('counter')}"
    self.identity = (cluster.host, uuid.uuid4().hex)
    self._rival_since: float | None = None

  def check_run(self, description: dict[str, Any]):
    """Raises UserError if the learner's host has a different run."""
    ours = self._experiment.to_json()
    if differences := host_differences(description, ours):
      raise UserError(
        f"The learner's host ({self._learner_host}) has another run than this"
        " one. There -> here:\n  " + "\n  ".join(differences)
        + "\nGive both the same --config and flags."
      )

  def notice(self, status: Status):
    """Raises UserError if this host was started twice."""
    now = time.monotonic()
    if not status["rival"]:
      self._rival_since = None
    elif self._rival_since is None:
      self._rival_since = now
    elif now - self._rival_since > _RIVAL_SECONDS:
      raise UserError(
        f"Host {self._host} has been started already, and both would be the"
        " same actors. Stop the other one, or name this host with --host."
      )


def make(
  cluster: Cluster | None, experiment: Experiment, progress: Progress
) -> OneHost:
  """Returns this host's role; `cluster` is None for a single host."""
  if cluster is None:
    return OneHost()
  if cluster.is_learner_host:
    return LearnerHost(cluster, progress)
  return ActorHost(cluster, experiment)
