"""The policy: one fused inference call for a batch of environments."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from acme_stac.config import STACConfig
from acme_stac.core import acting_output
from acme_stac.core.types import Array, CoreState
from acme_stac.networks.factory import STACNetworks


class ActingState(NamedTuple):
  """A policy's state in N environments.

  Attributes:
    core: the networks' recurrent state, nest of [N, ...].
    head: index of the policy that acts in the current episode, [N] int32.
  """

  core: CoreState
  head: Array


@dataclasses.dataclass(frozen=True)
class Policy:
  """A policy as pure functions.

  Attributes:
    select_action: (params, observation [N, ...], step_type [N], ActingState,
      key, conditioning [P, K]) -> (action [N, ...], log-probability [N],
      ActingState, key).
    initial_state: (N) -> ActingState.
    to_environment: maps those actions to the environment's.
  """

  select_action: Callable[..., tuple[Array, Array, ActingState, Array]]
  initial_state: Callable[[int], ActingState]
  to_environment: Callable[[Any], Any]


def make_policy(
  networks: STACNetworks, config: STACConfig, greedy: bool = False
) -> Policy:
  """Returns the behaviour policy of an agent.

  Args:
    networks: the agent's networks.
    config: sets which heads act.
    greedy: take the distribution's mode instead of a sample.
  """
  distribution = networks.distribution

  def select_action(params, observation, step_type, state, key, conditioning):
    key, head_key, sample_key = jax.random.split(key, 3)
    output, core_state = networks.step(
      params, observation, state.core, step_type, conditioning
    )
    policies = acting_output(output, config).policy
    head = state.head
    if policies.shape[-2] == 1:
      policy = policies[:, 0]
    else:
      # One policy acts for a whole episode.
      first = step_type == int(dm_env.StepType.FIRST)
      drawn = jax.random.randint(head_key, first.shape, 0, policies.shape[-2])
      head = jnp.where(first, drawn, head)
      policy = jnp.take_along_axis(
        policies, head[:, None, None], axis=-2
      )[:, 0]
    if greedy:
      action = distribution.mode(policy)
    else:
      action = distribution.sample(sample_key, policy)
    log_prob = distribution.log_prob(policy, action)
    return action, log_prob, ActingState(core_state, head), key

  def initial_state(num_environments: int) -> ActingState:
    return ActingState(
      networks.initial_state(num_environments),
      jnp.zeros([num_environments], jnp.int32),
    )

  return Policy(
    select_action, initial_state, networks.action_space.to_environment
  )
