"""Acting: one fused inference call for a batch of environments."""

import dataclasses
from collections.abc import Callable
from typing import Any

import dm_env
import jax
import numpy as np
from acme import core
from acme.jax import variable_utils

from acme_stac.agent import adders
from acme_stac.core.types import Array, CoreState, Params
from acme_stac.networks import STACNetworks


@dataclasses.dataclass(frozen=True)
class Policy:
  """How to act, as pure functions.

  Attributes:
    select_action: (params, observation [N, ...], step_type [N], core_state
      [N, ...], key) -> (action [N, ...], log-probability [N], core_state, key).
    initial_state: (N) -> core state.
  """

  select_action: Callable[
    [Params, Any, Array, CoreState, Array],
    tuple[Array, Array, CoreState, Array],
  ]
  initial_state: Callable[[int], CoreState]


def make_policy(networks: STACNetworks, greedy: bool = False) -> Policy:
  """Returns the policy of head 0.

  Args:
    networks: the agent's networks.
    greedy: take the most probable action instead of a sample.
  """
  distribution = networks.distribution

  def select_action(params, observation, step_type, core_state, key):
    key, sample_key = jax.random.split(key)
    output, core_state = networks.step(
      params, observation, core_state, step_type
    )
    policy = output.policy[..., 0, :]
    if greedy:
      action = distribution.mode(policy)
    else:
      action = distribution.sample(sample_key, policy)
    return action, distribution.log_prob(policy, action), core_state, key

  return Policy(select_action, networks.initial_state)


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
  ):
    """Makes an actor.

    Args:
      policy: how to act.
      random_key: a key for sampling.
      variable_client: gives [params, version], the variables "policy" and
        "version" of a learner.
      adder: where experience goes; None when evaluating.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    self._select = jax.jit(policy.select_action)
    self._initial_state = policy.initial_state
    self._key = jax.device_put(random_key, cpu)
    self._device = cpu
    self._variables = variable_client
    self._adder = adder
    self._core_state: CoreState = None
    self._step_type = np.zeros([0], np.int32)
    self._single = False
    self._extras: adders.Extras | None = None

  def observe_first(self, timestep: dm_env.TimeStep):
    """Takes the first time step of an episode, or of every episode."""
    self._single = np.ndim(timestep.step_type) == 0
    self._step_type = np.atleast_1d(np.asarray(timestep.step_type, np.int32))
    # The networks reset the core at every FIRST step, wherever it comes.
    with jax.default_device(self._device):
      self._core_state = self._initial_state(len(self._step_type))
    if self._adder:
      self._adder.add_first(timestep)

  def select_action(self, observation: Any) -> np.ndarray:
    """Returns actions [N, ...] for observations [N, ...], or one for one."""
    params, version = self._variables.params
    if self._single:
      observation = jax.tree_util.tree_map(
        lambda x: np.asarray(x)[None], observation
      )
    before = self._core_state
    with jax.default_device(self._device):
      action, log_prob, self._core_state, self._key = self._select(
        params, observation, self._step_type, before, self._key
      )
    action = np.asarray(action)
    self._extras = adders.Extras(np.asarray(log_prob), before, version)
    return action[0] if self._single else action

  def observe(self, action: Any, next_timestep: dm_env.TimeStep):
    """Takes an action of `select_action` and the time step after it."""
    self._step_type = np.atleast_1d(
      np.asarray(next_timestep.step_type, np.int32)
    )
    if self._adder:
      assert self._extras is not None, "observe comes after select_action"
      self._adder.add(action, next_timestep, self._extras)

  def fetch_variables(self) -> int:
    """Fetches parameters now and returns their version."""
    self._variables.update_and_wait()
    return int(self._variables.params[1])

  def update(self, wait: bool = False):
    """Asks for new parameters every few trajectories, in the background."""
    self._variables.update(wait)
