"""Acting as an Acme actor: parameters come in, experience goes out."""

from typing import Any

import dm_env
import jax
import numpy as np
from acme import core
from acme.jax import variable_utils

from acme_stac.agent import adders
from acme_stac.core.types import Array
from acme_stac.environments import precision
from acme_stac.networks import ActingState, Policy


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
    """Returns actions [N, ...] for observations [N, ...], or one for one.

    Raises:
      ValueError: if an observation of 64 bits does not fit in 32.
    """
    params, version, *condition = self._variables.params
    if self._single:
      # Batches come from guarded environments, which are narrow already.
      observation = precision.narrow(
        jax.tree_util.tree_map(lambda x: np.asarray(x)[None], observation)
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
