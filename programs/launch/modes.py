"""The ways to launch a run, by the name that --launch gives them."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, NamedTuple

from programs.run import machine

if TYPE_CHECKING:
  # The table of modes is read before JAX may be loaded.
  from programs.launch.cluster import Cluster
  from programs.launch.progress import Progress
  from programs.run.experiment import Experiment


class Mode(NamedTuple):
  """A way to launch a run.

  Attributes:
    module: has a function `run` that takes a `Launch`.
    is_distributed: whether it needs Launchpad, Reverb and Acme.
    has_processes: whether nodes are processes of their own, so that the
      launching one needs no accelerator.
    has_hosts: whether the run spans several hosts.
    is_on_device: whether environments step inside the compiled program, which
      may train several runs side by side.
  """

  module: str
  is_distributed: bool
  has_processes: bool = False
  has_hosts: bool = False
  is_on_device: bool = False


MODES = {
  "serial": Mode("programs.launch.serial", False),
  "local_mt": Mode("programs.launch.threads", True),
  "local_mp": Mode("programs.launch.processes", True, has_processes=True),
  "colocated": Mode("programs.launch.colocated", False),
  "hosts": Mode(
    "programs.launch.processes", True, has_processes=True, has_hosts=True
  ),
  "on_device": Mode("programs.launch.on_device", False, is_on_device=True),
}
# The first that the installed packages allow.
DEFAULT = "local_mp" if machine.has_distributed_layer() else "colocated"

# Groups of nodes that are restarted when they die, by the value of --restart:
# none; those without which the run loses nothing but unfinished trajectories;
# the learner and its queue too.
_WORKERS = frozenset({"actor", "evaluator", "counter", "variables"})
RESTARTED: dict[str, frozenset[str]] = {
  "none": frozenset(),
  "workers": _WORKERS,
  "all": _WORKERS | {"replay", "learner"},
}


@dataclasses.dataclass(frozen=True)
class Launch:
  """What is launched, and how; every mode takes from it what it needs.

  Attributes:
    experiments: the run, or those that go side by side.
    progress: where the state of the run is shown.
    cluster: the hosts of the run, if there are several.
    restart: key of `RESTARTED`.
    threads_per_actor: XLA's threads in each process that acts.
    learner_environment: environment variables of the learner's process alone.
    learner_files: descriptors that the learner's process inherits.
  """

  experiments: tuple[Experiment, ...]
  progress: Progress
  cluster: Cluster | None = None
  restart: str = "workers"
  threads_per_actor: int = 1
  learner_environment: dict[str, str] = dataclasses.field(default_factory=dict)
  learner_files: tuple[int, ...] = ()

  @property
  def experiment(self) -> Experiment:
    """The run, or the first of several."""
    return self.experiments[0]


def run(name: str, launch: Launch):
  """Runs a run to its end in the mode of this name.

  Raises:
    Interrupted: if it was stopped by a signal.
    NodeDiedError: if a node died for good.
    HopelessError: if it cannot go on.
    SilentError: if a node was silent for too long.
    UserError: if this host does not fit the others.
  """
  # Loads what this mode needs: only some need Launchpad.
  importlib.import_module(MODES[name].module).run(launch)
