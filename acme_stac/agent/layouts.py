"""For the layouts of dm-acme 0.4.0: its builder interface, and its processes.

`STACBuilder` has the signatures of Acme's development head; 0.4.0 calls the
same methods with fewer arguments.
"""

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


class _Restored(core.Saveable):
  """Takes what Acme's checkpointer restores, without a learner."""

  state: Any = None

  def save(self) -> Any:
    return self.state

  def restore(self, state: Any):
    self.state = state


def restore_state(directory: str | os.PathLike) -> Any:
  """Returns the learner's state from a checkpoint of Acme's own checkpointer.

  `acme_stac.save_policy` writes it to a file for `acme_stac.load_policy`. Acme
  pickles the state: read checkpoints of your own runs only.

  Args:
    directory: what the layout or experiment was given, with add_uid=False:
      what has `checkpoints/learner`.

  Raises:
    ValueError: if it has no checkpoint of a learner.
  """
  from acme.tf import savers  # Brings TensorFlow.

  path = pathlib.Path(directory).expanduser().absolute()
  restored = _Restored()
  if (path / "checkpoints" / "learner" / "checkpoint").is_file():
    savers.Checkpointer(
      {"learner": restored}, directory=str(path), subdirectory="learner",
      add_uid=False,
    )
  if restored.state is None:
    raise ValueError(
      f"{path} has no checkpoint of a learner in checkpoints/learner. Acme adds"
      " a folder named by a number unless it is given add_uid=False: include it"
      " in the path."
    )
  return restored.state


# Half of what Launchpad gives a node before it kills the whole program.
_SECONDS_TO_END = 5


def local_resources(program: lp.Program) -> dict[str, PythonProcess]:
  """Returns what `launchpad.launch` takes under that name, for processes.

  A node imports Acme while it is unpickled. dm-acme 0.4.0 then needs its names
  of JAX to be there already, so every node begins with those. Of all nodes the
  group "learner" alone sees an accelerator. Actors and evaluators, which have
  nothing to save, end within seconds of being told to.

  Args:
    program: of a layout.
  """
  directory = tempfile.mkdtemp(prefix="acme_stac_")
  atexit.register(shutil.rmtree, directory, ignore_errors=True)

  def resource(begin: Callable[[], None], hidden: bool) -> PythonProcess:
    init_file = pathlib.Path(directory, f"{begin.__name__}.pkl")
    # By its name: a process that unpickles it imports this package.
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
  """Has this process end by itself within 5 seconds of SIGTERM.

  A call to a node that has ended already waits in C++ for it to come back.
  Python's handlers of signals do not run there, but the signal itself writes to
  Python's wakeup descriptor, on which a thread waits.
  """
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  # A child's signals are its own: of an environment's processes, say.
  os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

  def wait():
    while os.read(reading, 1)[0] != signal.SIGTERM:
      pass
    time.sleep(_SECONDS_TO_END)
    os._exit(0)

  threading.Thread(target=wait, daemon=True).start()
