"""Builds the parts of the Acme agent."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import launchpad as lp
import reverb
from absl import flags
from acme import core
from acme.agents.jax import actor_core, builders
from acme.jax import variable_utils
from acme.utils import counting, loggers

from acme_stac.agent.acting import ActorState, STACActor, make_actor_core
from acme_stac.agent.adders import TrajectoryAdder
from acme_stac.agent.learning import STACLearner
from acme_stac.agent.queues import ReverbQueue, make_table
from acme_stac.config import STACConfig
from acme_stac.networks import STACNetworks, make_networks
from acme_stac.training.adder import Decision
from acme_stac.training.builder import AgentBuilder
from acme_stac.training.samples import Batches, Sample
from acme_stac.training.variables import ACTOR_VARIABLES


def _program_ends() -> bool:
  """Returns whether this thread's Launchpad program is ending."""
  try:
    return lp.stop_event().is_set()
  except (RuntimeError, flags.Error):  # This thread is not a node.
    return False


class STACBuilder(
  builders.GenericActorLearnerBuilder[
    STACNetworks, actor_core.ActorCore[ActorState, Decision], Sample
  ]
):
  """Makes the queue, adders, actors and learner of a STAC agent.

  Methods have the signatures of Acme's development head; `LayoutBuilder` adapts
  them to dm-acme 0.4.0.
  """

  def __init__(
    self,
    config: STACConfig,
    *,
    network_factory: Callable[[Any, STACConfig], STACNetworks] = make_networks,
    log_every_seconds: float = 1.0,
    should_stop: Callable[[], bool] = _program_ends,
    learner_devices: Sequence[jax.Device] | None = None,
  ):
    """Makes a builder.

    Args:
      config: the agent's configuration.
      network_factory: makes the networks from specs of one environment and the
        configuration.
      log_every_seconds: least time between two rows of the learner's log.
      should_stop: checked while an actor or the learner waits for the queue; by
        default, whether the Launchpad program of this thread is ending.
      learner_devices: the learner's devices; all local ones by default.
    """
    self._parts = AgentBuilder(
      config, network_factory=network_factory, should_stop=should_stop
    )
    self._log_every_seconds = log_every_seconds
    self._should_stop = should_stop
    self._learner_devices = learner_devices

  @property
  def config(self) -> STACConfig:
    """The agent's configuration."""
    return self._parts.config

  def make_networks(self, environment_spec: Any) -> STACNetworks:
    """Returns the agent's networks for specs of one environment."""
    return self._parts.make_networks(environment_spec)

  def make_replay_tables(
    self, environment_spec: Any, policy: Any = None
  ) -> list[reverb.Table]:
    """Returns the trajectory queue, whose writers block while it is full."""
    del policy
    return [make_table(self._parts, environment_spec)]

  def make_dataset_iterator(self, replay_client: reverb.Client) -> Batches:
    """Returns batches [T+1, B, ...] of trajectories in order of arrival."""
    return self._parts.make_batches(ReverbQueue(replay_client))

  def make_adder(
    self,
    replay_client: reverb.Client,
    environment_spec: Any,
    policy: Any = None,
  ) -> TrajectoryAdder:
    """Returns the adder of one actor."""
    del policy
    return TrajectoryAdder(
      self._parts.make_adder(ReverbQueue(replay_client), environment_spec),
      environment_spec.observations,
    )

  def make_actor(
    self,
    random_key: jax.Array,
    policy: actor_core.ActorCore[ActorState, Decision],
    environment_spec: Any,
    variable_source: core.VariableSource,
    adder: TrajectoryAdder | None = None,
  ) -> STACActor:
    """Returns an actor of one environment; without an adder it evaluates."""
    client = variable_utils.VariableClient(
      variable_source,
      ACTOR_VARIABLES,
      update_period=self._parts.calls_per_fetch(adder is not None),
      device="cpu",
    )
    return STACActor(
      policy, random_key, client, environment_spec, self.config, adder
    )

  def make_learner(
    self,
    random_key: jax.Array,
    networks: STACNetworks,
    dataset: Iterator[Sample],
    logger_fn: Callable[..., loggers.Logger],
    environment_spec: Any,
    replay_client: reverb.Client | None = None,
    counter: counting.Counter | None = None,
  ) -> STACLearner:
    """Returns the learner."""

    def queue_metrics() -> dict[str, float]:
      if replay_client is None:
        return {}
      return {"queue_fill": ReverbQueue(replay_client).fill}

    return STACLearner(
      networks,
      self.config,
      random_key,
      dataset,
      write_row=logger_fn("learner").write,
      log_every_seconds=self._log_every_seconds,
      extra_metrics=queue_metrics,
      should_stop=self._should_stop,
      devices=self._learner_devices,
      environment_spec=environment_spec,
      counter=counter,
    )

  def make_policy(
    self,
    networks: STACNetworks,
    environment_spec: Any,
    evaluation: bool = False,
  ) -> actor_core.ActorCore[ActorState, Decision]:
    """Returns the policy, which samples, or is greedy in evaluation."""
    del environment_spec
    return make_actor_core(networks, self.config, greedy=evaluation)
