"""Builds the matching parts of an agent on one host."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from acme_stac.config import STACConfig
from acme_stac.networks import Policy, STACNetworks, make_networks
from acme_stac.training.actor import Actor
from acme_stac.training.adder import TrajectoryAdder
from acme_stac.training.inference import Inference
from acme_stac.training.learner import Learner
from acme_stac.training.local_queue import LocalQueue, Queue, Writer
from acme_stac.training.samples import Batches, Sample
from acme_stac.training.variables import VariableClient, VariableSource


class AgentBuilder:
  """Makes the queue, adders, actors and learner of an agent."""

  def __init__(
    self,
    config: STACConfig,
    *,
    network_factory: Callable[[Any, STACConfig], STACNetworks] = make_networks,
    environments_per_actor: int = 1,
    num_queues: int = 1,
    log_every_seconds: float = 1.0,
    should_stop: Callable[[], bool] = lambda: False,
    learner_devices: Sequence[jax.Device] | None = None,
    inference_device: jax.Device | None = None,
  ):
    """Makes a builder.

    Args:
      config: the agent's configuration.
      network_factory: makes the networks from specs of one environment and the
        configuration.
      environments_per_actor: environments that each actor steps at once; their
        trajectories, or a batch of them, are one item of the queue. Must divide
        the batch size or be a multiple of it.
      num_queues: number of queues over which the trajectories are spread.
      log_every_seconds: minimum time between two rows of the learner's log.
      should_stop: checked wherever an actor or the learner waits for a queue.
      learner_devices: the learner's devices; all local ones by default.
      inference_device: the actors' device; the CPU by default.

    Raises:
      ValueError: if `environments_per_actor` does not fit the batch size.
    """
    if environments_per_actor < 1 or (
      config.batch_size % environments_per_actor
      and environments_per_actor % config.batch_size
    ):
      raise ValueError(
        f"environments_per_actor ({environments_per_actor}) must divide"
        f" batch_size ({config.batch_size}) or be a multiple of it: batches are"
        " made of whole items."
      )
    self._network_factory = network_factory
    self._environments_per_actor = environments_per_actor
    self._num_queues = num_queues
    self._log_every_seconds = log_every_seconds
    self._should_stop = should_stop
    self._learner_devices = learner_devices
    self._inference_device = inference_device
    self.config = config

  @property
  def trajectories_per_item(self) -> int:
    """Trajectories in an item of the queue."""
    return min(self._environments_per_actor, self.config.batch_size)

  @property
  def queue_size(self) -> int:
    """Capacity of each queue, in items."""
    config = self.config
    items_per_batch = config.batch_size // self.trajectories_per_item
    # Items that an actor writes at once, beside a batch that is held.
    items_at_once = self._environments_per_actor // self.trajectories_per_item
    # A single-threaded Acme program, which has one environment, updates once
    # the queue holds the batches of an update; by then the end of an episode
    # may have added one more item.
    alone = self._environments_per_actor == 1
    items = max(
      config.queue_batches * config.batches_per_update * items_per_batch,
      config.batches_to_begin * items_per_batch + alone,
      config.batches_to_begin * items_per_batch + items_at_once - 1,
    )
    return -(-items // self._num_queues)

  def make_networks(self, environment_spec: Any) -> STACNetworks:
    """Returns the agent's networks for specs of one environment."""
    return self._network_factory(environment_spec, self.config)

  def make_local_queue(self) -> LocalQueue:
    """Returns a queue for actors that are threads of the learner's process."""
    return LocalQueue(self.queue_size, self._should_stop)

  def make_batches(self, queue: Queue) -> Batches:
    """Returns batches [T+1, B, ...] of the queue's trajectories, in order."""
    return Batches(queue, self.config)

  def make_adder(
    self, writer: Writer, environment_spec: Any
  ) -> TrajectoryAdder:
    """Returns the adder of one actor."""
    return TrajectoryAdder(
      writer, environment_spec, self.config, self._should_stop
    )

  def make_actor(
    self,
    random_key: jax.Array,
    policy: Policy,
    variable_source: VariableSource,
    adder: TrajectoryAdder | None = None,
  ) -> Actor:
    """Returns an actor in a batch of environments.

    Args:
      random_key: the key for sampling actions.
      policy: selects the actions.
      variable_source: the learner, or a client of it.
      adder: receives the experience; None when evaluating.
    """
    inference = self.make_inference(policy)
    client = VariableClient(
      variable_source,
      inference.device,
      self.calls_per_fetch(adder is not None),
    )
    period = self.config.variable_update_period
    return Actor(inference, random_key, client, adder, period)

  def make_inference(self, policy: Policy) -> Inference:
    """Returns the compiled policy on the actors' device."""
    return Inference(
      policy, self._inference_device or jax.local_devices(backend="cpu")[0]
    )

  def calls_per_fetch(self, has_adder: bool) -> int:
    """Returns the number of an actor's calls of `update` between two fetches.

    An actor with an adder counts its trajectories itself. For one without, the
    client counts the steps that the same number of trajectories take.

    Args:
      has_adder: whether the actor has an adder.
    """
    if has_adder:
      return 1
    config = self.config
    fresh_steps = config.trajectory_length - config.trajectory_overlap
    return config.variable_update_period * fresh_steps

  def make_learner(
    self,
    random_key: jax.Array,
    networks: STACNetworks,
    batches: Iterator[Sample],
    **kwargs: Any,
  ) -> Learner:
    """Returns the learner; passes further arguments on to `Learner`."""
    return Learner(
      networks,
      self.config,
      random_key,
      batches,
      log_every_seconds=self._log_every_seconds,
      should_stop=self._should_stop,
      devices=self._learner_devices,
      **kwargs,
    )


def queue_metrics(queue: Queue, batches: Batches) -> dict[str, float]:
  """Returns the metrics of a queue and its batches for the learner's log."""
  return {
    "queue_fill": queue.fill,
    "dropped_trajectories": batches.num_dropped,
  }
