"""An adder with Acme's interface, for Acme's loops of one environment."""

from typing import Any

import dm_env
import jax
import numpy as np
from acme import adders

from acme_stac.environments import nests
from acme_stac.training import adder
from acme_stac.training.adder import Decision


class TrajectoryAdder(adders.Adder):
  """Passes the time steps of one environment to an adder of batches."""

  def __init__(self, batched: adder.TrajectoryAdder, observation_spec: Any):
    """Makes an adder.

    Args:
      batched: receives batches of one environment.
      observation_spec: nest of specs, whose structure is stored.
    """
    self._batched = batched
    self._observation_spec = observation_spec

  @property
  def num_items(self) -> int:
    """Items written so far."""
    return self._batched.num_items

  def reset(self):
    """Drops rows that have not been written yet."""
    self._batched.reset()

  def add_first(self, timestep: dm_env.TimeStep):
    """Adds the first time step of an episode."""
    self._batched.add_first(self._batch(timestep))

  def add(
    self, action: Any, next_timestep: dm_env.TimeStep, extras: Decision
  ):
    """Adds a decision and the time step after it.

    Args:
      action: the environment's action; that of `extras` is stored instead.
      next_timestep: the time step after it.
      extras: extras of the policy's `ActorCore`.
    """
    del action
    action, log_prob, core_state, version = extras
    decision = Decision(
      np.asarray(action)[None], np.asarray(log_prob)[None],
      _add_axis(core_state), version,
    )
    self._batched.add(decision, self._batch(next_timestep))

  def _batch(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    """Returns a time step with a batch axis, and numbers in place of None."""
    return dm_env.TimeStep(
      np.array([timestep.step_type], np.int32),
      np.array([timestep.reward or 0.0], np.float32),
      np.array(
        [1.0 if timestep.discount is None else timestep.discount], np.float32
      ),
      _add_axis(nests.select(self._observation_spec, timestep.observation)),
    )


def _add_axis(nest: Any) -> Any:
  return jax.tree_util.tree_map(lambda x: np.asarray(x)[None], nest)
