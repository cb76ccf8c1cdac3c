"""For the layouts of dm-acme 0.4.0: its builder interface, and its processes.

`STACBuilder` has the signatures of Acme's development head; 0.4.0 calls the
same methods with fewer arguments.
"""

import atexit
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import jax
import launchpad as lp
import reverb
from acme import core
from acme.agents.jax import builders
from acme.utils import counting, loggers
from launchpad.nodes.python.local_multi_processing import PythonProcess

from acme_stac.agent import acting, adders, compat, learning, queues
from acme_stac.agent.builder import STACBuilder
from acme_stac.networks import Policy, STACNetworks


class LayoutBuilder(
  builders.GenericActorLearnerBuilder[STACNetworks, Policy, queues.Sample]
):
  """A `STACBuilder` as the layouts of dm-acme 0.4.0 call it."""

  def __init__(
    self,
    builder: STACBuilder,
    environment_spec: Any,
    logger_fn: Callable[..., loggers.Logger] = loggers.make_default_logger,
  ):
    """Makes the adapter.

    Args:
      builder: makes everything.
      environment_spec: specs of one environment, which 0.4.0 gives to the
        replay tables alone.
      logger_fn: makes the learner's logger from the label "learner".
    """
    self._builder = builder
    self._environment_spec = environment_spec
    self._logger_fn = logger_fn

  @property
  def batch_size(self) -> int:
    """Trajectories that `LocalLayout` must see before an update.

    Its own batch size has to be this: with fewer or more, its one thread waits
    for itself.
    """
    config = self._builder.config
    return config.batch_size * config.batches_to_begin

  def make_replay_tables(self, environment_spec: Any) -> list[reverb.Table]:
    """Returns the trajectory queue."""
    return self._builder.make_replay_tables(environment_spec)

  def make_dataset_iterator(
    self, replay_client: reverb.Client
  ) -> queues.Batches:
    """Returns batches of trajectories."""
    return self._builder.make_dataset_iterator(replay_client)

  def make_adder(self, replay_client: reverb.Client) -> adders.TrajectoryAdder:
    """Returns the adder of one actor."""
    return self._builder.make_adder(replay_client, self._environment_spec)

  def make_actor(
    self,
    random_key: jax.Array,
    policy_network: Policy,
    adder: adders.TrajectoryAdder | None = None,
    variable_source: core.VariableSource | None = None,
  ) -> acting.STACActor:
    """Returns an actor; without an adder it only evaluates."""
    return self._builder.make_actor(
      random_key,
      policy_network,
      self._environment_spec,
      variable_source=variable_source,
      adder=adder,
    )

  def make_learner(
    self,
    random_key: jax.Array,
    networks: STACNetworks,
    dataset: Iterator[queues.Sample],
    replay_client: reverb.Client | None = None,
    counter: counting.Counter | None = None,
  ) -> learning.STACLearner:
    """Returns the learner."""
    return self._builder.make_learner(
      random_key,
      networks,
      dataset,
      logger_fn=self._logger_fn,
      environment_spec=self._environment_spec,
      replay_client=replay_client,
      counter=counter,
    )


def local_resources(program: lp.Program) -> dict[str, PythonProcess]:
  """Returns what `launchpad.launch` takes under that name, for processes.

  A node imports Acme while it is unpickled. dm-acme 0.4.0 then needs its names
  of JAX to be there already, so every node begins with those. Of all nodes the
  group "learner" alone sees an accelerator.

  Args:
    program: of a layout.
  """
  directory = tempfile.mkdtemp(prefix="acme_stac_")
  atexit.register(shutil.rmtree, directory, ignore_errors=True)
  init_file = pathlib.Path(directory, "init.pkl")
  # By its name: a process that unpickles it imports this package.
  init_file.write_bytes(cloudpickle.dumps(compat.apply))
  hidden = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
  return {
    label: PythonProcess(
      args={"init_file": str(init_file)},
      env={} if label == "learner" else hidden,
    )
    for label in program.groups
  }
