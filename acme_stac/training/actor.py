"""An actor in a batch of environments."""


import dm_env
import jax
import numpy as np

from acme_stac.core.types import Array
from acme_stac.networks import ActingState
from acme_stac.training.adder import Decision, TrajectoryAdder
from acme_stac.training.inference import Inference
from acme_stac.training.variables import VariableClient


class Actor:
  """Acts in N environments at once; time steps are batched, [N, ...]."""

  def __init__(
    self,
    inference: Inference,
    random_key: Array,
    variable_client: VariableClient,
    adder: TrajectoryAdder | None = None,
    update_period: int = 1,
  ):
    """Makes an actor.

    Args:
      inference: the compiled policy and its device.
      random_key: the key for sampling actions.
      variable_client: fetches `ActorVariables`.
      adder: receives the experience; None when evaluating.
      update_period: trajectories between fetches of parameters. Without an
        adder, the client counts calls instead.
    """
    self._inference = inference
    self._key = jax.device_put(random_key, inference.device)
    self._variables = variable_client
    self._adder = adder
    self._update_period = update_period
    self._next_update = update_period
    self._state: ActingState | None = None
    # The decision being computed, and the last one that was completed.
    self._pending: Decision | None = None
    self._decision: Decision | None = None

  def observe_first(self, timestep: dm_env.TimeStep):
    """Records the first time step of every environment."""
    # The networks reset the core at every FIRST step. The state is committed to
    # the device, like later ones, so that one compiled program serves them all.
    self._state = jax.device_put(
      self._inference.policy.initial_state(len(timestep.step_type)),
      self._inference.device,
    )
    if self._adder:
      self._adder.add_first(timestep)

  def start(self, timestep: dm_env.TimeStep):
    """Starts inference on a time step; its arrays must not change meanwhile."""
    variables = self._variables.params
    before = self._state
    assert before is not None, "observe_first comes before start"
    # Runs on the device that holds the key, the state and the parameters.
    action, log_prob, self._state, self._key = self._inference(
      variables.policy,
      timestep.observation,
      np.asarray(timestep.step_type, np.int32),
      before,
      self._key,
      variables.conditioning,
    )
    # Copies them to the host as soon as they are computed.
    action.copy_to_host_async()
    log_prob.copy_to_host_async()
    self._pending = Decision(action, log_prob, before.core, variables.version)

  @property
  def is_ready(self) -> bool:
    """Whether `finish` would return without waiting."""
    return self._pending is not None and self._pending.action.is_ready()

  def finish(self) -> np.ndarray:
    """Waits for inference; returns the environments' actions, [N, ...]."""
    assert self._pending is not None, "start comes before finish"
    action, log_prob, core_state, version = self._pending
    self._pending = None
    self._decision = Decision(
      np.asarray(action), np.asarray(log_prob), core_state, version
    )
    return self._inference.policy.to_environment(self._decision.action)

  def observe(self, next_timestep: dm_env.TimeStep):
    """Records the time step that followed the actions of `finish`."""
    if self._adder:
      assert self._decision is not None, "observe comes after finish"
      self._adder.add(self._decision, next_timestep)

  def forget(self):
    """Drops unwritten experience; call `observe_first` next."""
    if self._adder:
      self._adder.reset()

  def fetch_variables(self) -> int:
    """Fetches parameters now and returns their version."""
    self._variables.update_and_wait()
    return self._variables.params.version

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
