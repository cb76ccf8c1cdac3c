"""STAC as an Acme agent: which parts it has and how they are made."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import reverb
from absl import flags
from acme import core
from acme.agents.jax import builders
from acme.jax import variable_utils
from acme.utils import counting, loggers

from acme_stac.agent import acting, adders, learning, queues
from acme_stac.config import STACConfig
from acme_stac.networks import (
  Policy,
  STACNetworks,
  make_networks,
  make_policy,
)


def _program_ends() -> bool:
  """Returns whether this thread is a node of a program that is ending."""
  # Nodes have it loaded; nobody else needs it.
  launchpad = sys.modules.get("launchpad")
  try:
    return launchpad is not None and launchpad.stop_event().is_set()
  except (RuntimeError, flags.Error):  # Neither a node nor in a program.
    return False


class STACBuilder(
  builders.GenericActorLearnerBuilder[
    STACNetworks, Policy, queues.Sample
  ]
):
  """Makes queue, adder, actors and learner of a STAC agent.

  The signatures are those of Acme's development head; `policy` is always an
  `Policy` of `make_policy`.
  """

  def __init__(
    self,
    config: STACConfig,
    *,
    network_factory: Callable[[Any, STACConfig], STACNetworks] = make_networks,
    environments_per_actor: int = 1,
    num_queues: int = 1,
    log_every_seconds: float = 1.0,
    should_stop: Callable[[], bool] | None = None,
    learner_devices: Sequence[jax.Device] | None = None,
    inference_device: jax.Device | None = None,
  ):
    """Makes a builder.

    Args:
      config: the agent's configuration.
      network_factory: makes the networks from specs of one environment and the
        configuration.
      environments_per_actor: environments that each actor steps at once; they
        come to the queue as one item. Must divide the batch size.
      num_queues: queues that share the trajectories; each is made by
        `make_replay_tables`, and the learner's client is a list of theirs.
      log_every_seconds: least time between two rows of the learner's log.
      should_stop: looked at wherever an actor or the learner waits for the
        queue, so that a program can end while they are blocked. By default,
        whether the Launchpad program of this thread ends, if there is one.
      learner_devices: the learner's devices; all local ones by default.
      inference_device: the actors' device; the CPU by default.

    Raises:
      ValueError: if the environments do not divide the batch.
    """
    if environments_per_actor < 1 or config.batch_size % environments_per_actor:
      raise ValueError(
        f"environments_per_actor ({environments_per_actor}) must divide"
        f" batch_size ({config.batch_size}): batches are made of whole items."
      )
    self._config = config
    self._network_factory = network_factory
    self._environments_per_actor = environments_per_actor
    self._items_per_batch = config.batch_size // environments_per_actor
    self._num_queues = num_queues
    self._log_every_seconds = log_every_seconds
    self._should_stop = should_stop or _program_ends
    self._learner_devices = learner_devices
    # Which device the default one is, the actor's process knows.
    self._inference_device = inference_device

  @property
  def config(self) -> STACConfig:
    """The agent's configuration."""
    return self._config

  @property
  def _queue_size(self) -> int:
    """Items that each queue has room for."""
    config = self._config
    # A program of one thread, and of one environment, updates when it sees the
    # batches of an update, and between two looks an episode's end may add two
    # items.
    alone = self._environments_per_actor == 1
    items = max(
      config.queue_batches * config.batches_per_update * self._items_per_batch,
      config.batches_to_begin * self._items_per_batch + alone,
    )
    return -(-items // self._num_queues)

  def make_local_queue(self) -> queues.LocalQueue:
    """Returns the queue of actors that are threads of the learner's process.

    It stands for the Reverb client in the other methods.
    """
    return queues.LocalQueue(self._queue_size, self._should_stop)

  def make_replay_tables(
    self, environment_spec: Any, policy: Policy | None = None
  ) -> list[reverb.Table]:
    """Returns the trajectory queue.

    Every trajectory is learned from once; writers block when it is full.
    """
    del policy
    return [
      reverb.Table.queue(
        queues.QUEUE,
        max_size=self._queue_size,
        signature=self._signature(environment_spec),
      )
    ]

  def make_networks(self, environment_spec: Any) -> STACNetworks:
    """Returns the agent's networks for specs of one environment."""
    return self._network_factory(environment_spec, self._config)

  def _signature(self, environment_spec: Any) -> queues.Sample:
    networks = self.make_networks(environment_spec)
    core_state = jax.eval_shape(lambda: networks.initial_state(1))
    return queues.make_signature(
      self._stored_spec(environment_spec), core_state, self._config
    )

  def _stored_spec(self, environment_spec: Any) -> Any:
    """Returns the specs of what is stored: actions are the distribution's."""
    networks = self.make_networks(environment_spec)
    return environment_spec._replace(actions=networks.action_space.spec)

  def make_dataset_iterator(
    self, replay_client: queues.Client
  ) -> queues.Batches:
    """Returns batches [T+1, B, ...] of trajectories in order of arrival."""
    return queues.Batches(queues.items_of(replay_client), self._config)

  def make_adder(
    self,
    replay_client: queues.Client,
    environment_spec: Any = None,
    policy: Policy | None = None,
  ) -> adders.TrajectoryAdder:
    """Returns the adder of one actor."""
    del policy
    return adders.TrajectoryAdder(
      queues.make_writer(replay_client, self._should_stop),
      self._stored_spec(environment_spec),
      self._config,
    )

  def make_actor(
    self,
    random_key: jax.Array,
    policy: Policy,
    environment_spec: Any = None,
    variable_source: core.VariableSource | None = None,
    adder: adders.TrajectoryAdder | None = None,
  ) -> acting.STACActor:
    """Returns an actor of one environment or of a batch of them."""
    del environment_spec
    fresh_steps = (
      self._config.trajectory_length - self._config.trajectory_overlap
    )
    period = self._config.variable_update_period
    client = variable_utils.VariableClient(
      variable_source,
      learning.variable_names(self._config),
      update_period=1 if adder else period * fresh_steps,
      device=self._inference_device or jax.local_devices(backend="cpu")[0],
    )
    return acting.STACActor(policy, random_key, client, adder, period)

  def make_learner(
    self,
    random_key: jax.Array,
    networks: STACNetworks,
    dataset: Iterator[queues.Sample],
    logger_fn: Callable[..., loggers.Logger] | None = None,
    environment_spec: Any = None,
    replay_client: queues.Client | None = None,
    counter: counting.Counter | None = None,
  ) -> learning.STACLearner:
    """Returns the learner."""
    del environment_spec

    def queue_metrics() -> dict[str, float]:
      metrics = {}
      if replay_client is not None:
        metrics["queue_fill"] = queues.fill_of(replay_client)
      if isinstance(dataset, queues.Batches):
        metrics["dropped_trajectories"] = dataset.num_dropped
      return metrics

    return learning.STACLearner(
      networks,
      self._config,
      random_key,
      dataset,
      logger=logger_fn("learner") if logger_fn else None,
      counter=counter,
      log_every_seconds=self._log_every_seconds,
      extra_metrics=queue_metrics,
      should_stop=self._should_stop,
      devices=self._learner_devices,
    )

  def make_policy(
    self,
    networks: STACNetworks,
    environment_spec: Any = None,
    evaluation: bool = False,
  ) -> Policy:
    """Returns how to act: by samples, or greedily in evaluation."""
    del environment_spec
    return make_policy(networks, self._config, greedy=evaluation)
