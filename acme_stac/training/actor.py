"""Acts in a batch of environments: parameters come in, experience goes out."""

from typing import Any

import dm_env
import jax
import numpy as np

from acme_stac.core.types import Array
from acme_stac.networks import ActingState, Policy
from acme_stac.training.adder import Decision, TrajectoryAdder
from acme_stac.training.variables import VariableClient


class Actor:
  """Acts in N environments at once; time steps are batched, [N, ...]."""

  def __init__(
    self,
    policy: Policy,
    random_key: Array,
    variable_client: VariableClient,
    adder: TrajectoryAdder | None = None,
    update_period: int = 1,
  ):
    """Makes an actor.

    Args:
      policy: how to act.
      random_key: a key for sampling.
      variable_client: has the variables `ACTOR_VARIABLES`. Its device is that
        of inference.
      adder: where experience goes; None when evaluating.
      update_period: trajectories between fetches of parameters. Without an
        adder, the client counts calls instead.
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
    self._decision: Decision | None = None

  def observe_first(self, timestep: dm_env.TimeStep):
    """Takes the first time step of every environment."""
    self._step_type = np.asarray(timestep.step_type, np.int32)
    # Networks reset the core at every FIRST step, wherever it comes. The state
    # is committed to the device, as later ones are: one compilation for all.
    self._state = jax.device_put(
      self._policy.initial_state(len(self._step_type)), self._device
    )
    if self._adder:
      self._adder.add_first(timestep)

  def select_action(self, observation: Any) -> np.ndarray:
    """Returns the environments' actions [N, ...] for observations [N, ...]."""
    params, version, conditioning = self._variables.params
    before = self._state
    assert before is not None, "observe_first comes before select_action"
    # Runs where key, state and parameters are committed to.
    action, log_prob, self._state, self._key = self._select(
      params, observation, self._step_type, before, self._key, conditioning
    )
    self._decision = Decision(
      np.asarray(action), np.asarray(log_prob), before.core, version
    )
    return self._policy.to_environment(self._decision.action)

  def observe(self, action: Any, next_timestep: dm_env.TimeStep):
    """Takes the time step after the action of `select_action`."""
    del action  # In the environment's form; the distribution's is stored.
    self._step_type = np.asarray(next_timestep.step_type, np.int32)
    if self._adder:
      assert self._decision is not None, "observe comes after select_action"
      self._adder.add(self._decision, next_timestep)

  def forget(self):
    """Drops what has not been written yet; `observe_first` comes next."""
    if self._adder:
      self._adder.reset()

  def fetch_variables(self) -> int:
    """Fetches parameters now and returns their version."""
    self._variables.update_and_wait()
    return int(self._variables.params[1])

  def update(self, wait: bool = False):
    """Requests new parameters between trajectories, in the background.

    Args:
      wait: wait for them.
    """
    if self._adder:
      # A client that counts calls would fetch within a trajectory.
      if self._adder.num_items < self._next_update:
        return
      self._next_update = self._adder.num_items + self._update_period
    self._variables.update(wait)
