"""Adapts the agent to the layouts of dm-acme 0.4.0 and their processes."""

import atexit
import os
import pathlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import jax
import launchpad as lp
import reverb
from acme import core
from acme.agents.jax import actor_core, builders
from acme.utils import counting, loggers
from launchpad.nodes.python.local_multi_processing import PythonProcess

from acme_stac.agent import compat
from acme_stac.agent.acting import ActorState, STACActor
from acme_stac.agent.adders import TrajectoryAdder
from acme_stac.agent.builder import STACBuilder
from acme_stac.agent.learning import STACLearner
from acme_stac.networks import STACNetworks
from acme_stac.training.adder import Decision
from acme_stac.training.samples import Batches, Sample

# Launchpad kills the whole program 10 seconds after it has asked nodes to end.
_SECONDS_TO_END = 5


class LayoutBuilder(
  builders.GenericActorLearnerBuilder[
    STACNetworks, actor_core.ActorCore[ActorState, Decision], Sample
  ]
):
  """Gives a `STACBuilder` the signatures of dm-acme 0.4.0."""

  def __init__(
    self,
    builder: STACBuilder,
    environment_spec: Any,
    logger_fn: Callable[..., loggers.Logger] = loggers.make_default_logger,
  ):
    """Makes the adapter.

    Args:
      builder: the adapted builder.
      environment_spec: specs of one environment, which dm-acme 0.4.0 passes to
        `make_replay_tables` only.
      logger_fn: makes the learner's logger from the label "learner".
    """
    self._builder = builder
    self._environment_spec = environment_spec
    self._logger_fn = logger_fn

  @property
  def batch_size(self) -> int:
    """The `batch_size` to give to `LocalLayout`.

    It is the number of trajectories that the first update needs. With any other
    number, the layout's only thread would wait for itself.
    """
    config = self._builder.config
    return config.batch_size * config.batches_to_begin

  def make_replay_tables(self, environment_spec: Any) -> list[reverb.Table]:
    """Returns the trajectory queue."""
    return self._builder.make_replay_tables(environment_spec)

  def make_dataset_iterator(self, replay_client: reverb.Client) -> Batches:
    """Returns batches of trajectories."""
    return self._builder.make_dataset_iterator(replay_client)

  def make_adder(self, replay_client: reverb.Client) -> TrajectoryAdder:
    """Returns the adder of one actor."""
    return self._builder.make_adder(replay_client, self._environment_spec)

  def make_actor(
    self,
    random_key: jax.Array,
    policy_network: actor_core.ActorCore[ActorState, Decision],
    adder: TrajectoryAdder | None = None,
    variable_source: core.VariableSource | None = None,
  ) -> STACActor:
    """Returns an actor; without an adder it evaluates."""
    assert variable_source is not None, "An actor needs the learner's variables"
    return self._builder.make_actor(
      random_key, policy_network, self._environment_spec, variable_source, adder
    )

  def make_learner(
    self,
    random_key: jax.Array,
    networks: STACNetworks,
    dataset: Iterator[Sample],
    replay_client: reverb.Client | None = None,
    counter: counting.Counter | None = None,
  ) -> STACLearner:
    """Returns the learner."""
    return self._builder.make_learner(
      random_key, networks, dataset, self._logger_fn, self._environment_spec,
      replay_client, counter,
    )

  def make_policy(
    self, networks: STACNetworks, evaluation: bool = False
  ) -> actor_core.ActorCore[ActorState, Decision]:
    """Returns the policy, which samples, or is greedy in evaluation."""
    return self._builder.make_policy(
      networks, self._environment_spec, evaluation
    )


def local_resources(program: lp.Program) -> dict[str, PythonProcess]:
  """Returns the `local_resources` of `launchpad.launch`, for processes.

  Every node sets the aliases for dm-acme 0.4.0 before it is unpickled, because
  unpickling imports Acme. Only the group "learner" sees accelerators. Actors
  and evaluators, which have nothing to save, end within seconds of SIGTERM.

  Args:
    program: program that a layout made.
  """
  directory = tempfile.mkdtemp(prefix="acme_stac_")
  atexit.register(shutil.rmtree, directory, ignore_errors=True)

  def resource(begin: Callable[[], None], hidden: bool) -> PythonProcess:
    init_file = pathlib.Path(directory, f"{begin.__name__}.pkl")
    # Pickled by reference, so that unpickling it imports this package.
    init_file.write_bytes(cloudpickle.dumps(begin))
    environment = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return PythonProcess(
      args={"init_file": str(init_file)}, env=environment if hidden else {}
    )

  expendable = ("actor", "evaluator")
  return {
    label: resource(
      end_soon_after_sigterm if label in expendable else compat.apply,
      hidden=label != "learner",
    )
    for label in program.groups
  }


def end_soon_after_sigterm():
  """Makes this process exit 5 seconds after SIGTERM at the latest.

  A call to a node that has ended waits for it in C++, where Python's signal
  handlers do not run. The signal still writes to Python's wakeup descriptor,
  which a thread reads here.
  """
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  # Forked children, such as an environment's processes, keep their signals.
  os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

  def wait():
    while os.read(reading, 1)[0] != signal.SIGTERM:
      pass
    time.sleep(_SECONDS_TO_END)
    os._exit(0)

  threading.Thread(target=wait, daemon=True).start()
