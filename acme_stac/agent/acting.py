"""Acting: one fused inference call for a batch of environments."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import core
from acme.jax import variable_utils

from acme_stac.agent import adders
from acme_stac.config import STACConfig
from acme_stac.core import acting_output
from acme_stac.core.types import Array, CoreState
from acme_stac.networks import STACNetworks


class ActingState(NamedTuple):
  """What a policy remembers of N environments.

  Attributes:
    core: the networks' recurrent state, nest of [N, ...].
    head: which of the acting policies acts in the episode, [N] int32.
  """

  core: CoreState
  head: Array


@dataclasses.dataclass(frozen=True)
class Policy:
  """How to act, as pure functions.

  Attributes:
    select_action: (params, observation [N, ...], step_type [N], ActingState,
      key) -> (action [N, ...], log-probability [N], ActingState, key). If
      metaparameters are embedded, their values [P, K] are the last argument.
    initial_state: (N) -> ActingState.
    to_environment: from those actions to the environment's, in NumPy.
  """

  select_action: Callable[..., tuple[Array, Array, ActingState, Array]]
  initial_state: Callable[[int], ActingState]
  to_environment: Callable[[np.ndarray], np.ndarray]


def make_policy(
  networks: STACNetworks, config: STACConfig, greedy: bool = False
) -> Policy:
  """Returns the behaviour policy of an agent.

  Args:
    networks: the agent's networks.
    config: says which heads act.
    greedy: take the distribution's mode instead of a sample.
  """
  distribution = networks.distribution

  def select_action(params, observation, step_type, state, key, *condition):
    key, head_key, sample_key = jax.random.split(key, 3)
    output, core_state = networks.step(
      params, observation, state.core, step_type, *condition
    )
    policies = acting_output(output, config).policy
    head = state.head
    if policies.shape[-2] == 1:
      policy = policies[:, 0]
    else:
      # One policy for a whole episode.
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


class STACActor(core.Actor):
  """Acts in N environments at once, or in the one of an Acme environment loop.

  Time steps are batched, `step_type` [N], or single; actions have the same
  form.
  """

  def __init__(
    self,
    policy: Policy,
    random_key: Array,
    variable_client: variable_utils.VariableClient,
    adder: adders.TrajectoryAdder | None = None,
    update_period: int = 1,
  ):
    """Makes an actor.

    Args:
      policy: how to act.
      random_key: a key for sampling.
      variable_client: gives [params, version] and, if metaparameters are
        embedded, their values: the variables "policy", "version" and
        "conditioning" of a learner. Its device is that of inference.
      adder: where experience goes; None when evaluating.
      update_period: trajectories between fetches of parameters. Without an
        adder it is the client that counts.
    """
    self._select = jax.jit(policy.select_action)
    self._policy = policy
    self._device = variable_client.device
    self._key = jax.device_put(random_key, self._device)
    self._variables = variable_client
    self._adder = adder
    self._update_period = update_period
    self._next_update = update_period
    self._state: ActingState | None = None
    self._step_type = np.zeros([0], np.int32)
    self._single = False
    # The distribution's own action and what is known of it.
    self._action: np.ndarray | None = None
    self._extras: adders.Extras | None = None

  def observe_first(self, timestep: dm_env.TimeStep):
    """Takes the first time step of an episode, or of every episode."""
    self._single = np.ndim(timestep.step_type) == 0
    self._step_type = np.atleast_1d(np.asarray(timestep.step_type, np.int32))
    # The networks reset the core at every FIRST step, wherever it comes.
    # Committed to the device as its later values are: one compilation for all.
    self._state = jax.device_put(
      self._policy.initial_state(len(self._step_type)), self._device
    )
    if self._adder:
      self._adder.add_first(timestep)

  def select_action(self, observation: Any) -> np.ndarray:
    """Returns actions [N, ...] for observations [N, ...], or one for one."""
    params, version, *condition = self._variables.params
    if self._single:
      observation = jax.tree_util.tree_map(
        lambda x: np.asarray(x)[None], observation
      )
    before = self._state
    assert before is not None, "observe_first comes before select_action"
    # Where key, state and parameters are committed to.
    action, log_prob, self._state, self._key = self._select(
      params, observation, self._step_type, before, self._key, *condition
    )
    self._action = np.asarray(action)
    self._extras = adders.Extras(np.asarray(log_prob), before.core, version)
    action = self._policy.to_environment(self._action)
    return action[0] if self._single else action

  def observe(self, action: Any, next_timestep: dm_env.TimeStep):
    """Takes the action of `select_action` and the time step after it."""
    del action  # In the environment's form; the distribution's is learned from.
    self._step_type = np.atleast_1d(
      np.asarray(next_timestep.step_type, np.int32)
    )
    if self._adder:
      assert self._extras is not None, "observe comes after select_action"
      self._adder.add(self._action, next_timestep, self._extras)

  def forget(self):
    """Forgets what has not been written yet; `observe_first` comes next."""
    if self._adder:
      self._adder.reset()

  def fetch_variables(self) -> int:
    """Fetches parameters now and returns their version."""
    self._variables.update_and_wait()
    return int(self._variables.params[1])

  def update(self, wait: bool = False):
    """Asks for new parameters between trajectories, in the background.

    Args:
      wait: wait for them.
    """
    if self._adder:
      # A client that counts calls would fetch within a trajectory.
      if self._adder.num_items < self._next_update:
        return
      self._next_update = self._adder.num_items + self._update_period
    self._variables.update(wait)
