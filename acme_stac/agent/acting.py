"""The policy as Acme's `ActorCore`, and an Acme actor that runs it."""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import adders
from acme.agents.jax import actor_core, actors
from acme.jax import variable_utils

from acme_stac.config import STACConfig
from acme_stac.core.types import Array
from acme_stac.environments import nests, precision
from acme_stac.networks import (
  ActingState,
  STACNetworks,
  make_action_space,
  make_policy,
)
from acme_stac.training.adder import Decision


class ActorState(NamedTuple):
  """The policy's state in one environment.

  Attributes:
    key: random key of the next samples.
    acting: recurrent state and acting head.
    begins: whether the next observation is the first of an episode.
    decision: the action at the last observation, and what is stored with it.
  """

  key: Array
  acting: ActingState
  begins: Array
  decision: Decision


def add_batch_axis(nest: Any) -> Any:
  """Returns a nest of arrays with a leading axis of size 1."""
  return jax.tree_util.tree_map(lambda x: x[None], nest)


def _first(nest: Any) -> Any:
  return jax.tree_util.tree_map(lambda x: x[0], nest)


def make_actor_core(
  networks: STACNetworks, config: STACConfig, greedy: bool = False
) -> actor_core.ActorCore[ActorState, Decision]:
  """Returns the policy of one environment for Acme's actors and servers.

  Its parameters are the learner's variables `ACTOR_VARIABLES`; its extras are
  those that `TrajectoryAdder` stores.

  Args:
    networks: the agent's networks.
    config: the agent's configuration.
    greedy: act by the distribution's mode instead of a sample.
  """
  policy = make_policy(networks, config, greedy)
  action_spec = networks.action_space.spec

  def init(key: Array) -> ActorState:
    acting = _first(policy.initial_state(1))
    decision = Decision(
      jnp.zeros(action_spec.shape, action_spec.dtype),
      jnp.zeros((), jnp.float32),
      acting.core,
      jnp.zeros((), jnp.int32),
    )
    return ActorState(key, acting, jnp.array(True), decision)

  def select_action(
    variables: Any, observation: Any, state: ActorState
  ) -> tuple[Array, ActorState]:
    params, version, conditioning = variables
    first, mid = int(dm_env.StepType.FIRST), int(dm_env.StepType.MID)
    action, log_prob, acting, key = policy.select_action(
      params,
      add_batch_axis(jax.tree_util.tree_map(jnp.asarray, observation)),
      jnp.where(state.begins, first, mid)[None],
      add_batch_axis(state.acting),
      state.key,
      conditioning,
    )
    decision = Decision(
      action[0], log_prob[0], state.acting.core, jnp.asarray(version)
    )
    return policy.to_environment(action)[0], ActorState(
      key, _first(acting), jnp.array(False), decision
    )

  return actor_core.ActorCore(
    init, select_action, lambda state: state.decision
  )


class STACActor(actors.GenericActor):
  """An Acme actor that conforms to the environment's specs.

  It converts observations of 64 bits to the networks' 32, gives actions the
  environment's own dtype and bounds, and fetches parameters between
  trajectories only.
  """

  def __init__(
    self,
    core: actor_core.ActorCore[ActorState, Decision],
    random_key: Array,
    variable_client: variable_utils.VariableClient,
    environment_spec: Any,
    config: STACConfig,
    adder: adders.Adder | None = None,
  ):
    """Makes an actor.

    Args:
      core: made by `make_actor_core`.
      random_key: a key for sampling.
      variable_client: fetches `ACTOR_VARIABLES`.
      environment_spec: specs of the environment.
      config: the agent's configuration.
      adder: where experience goes; None when evaluating.
    """
    super().__init__(core, random_key, variable_client, adder)
    self._observation_spec = environment_spec.observations
    self._action_space = make_action_space(environment_spec.actions, config)
    self._update_period = config.variable_update_period
    self._next_update = self._update_period

  def select_action(self, observation: Any) -> np.ndarray:
    """Returns the environment's action.

    Raises:
      ValueError: if an observation of 64 bits does not fit in 32.
    """
    observation = nests.select(self._observation_spec, observation)
    super().select_action(
      precision.narrow(jax.tree_util.tree_map(np.asarray, observation))
    )
    action = np.asarray(self._get_extras(self._state).action)
    return self._action_space.to_environment(action[None])[0]

  def update(self, wait: bool = False):
    """Requests new parameters between trajectories, in the background."""
    if self._adder:
      # A client that counts calls would fetch within a trajectory.
      if self._adder.num_items < self._next_update:
        return
      self._next_update = self._adder.num_items + self._update_period
    super().update(wait)
