"""An environment in JAX with a start, terminations and a time limit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from acme_stac import checks, on_device


class CountingState(NamedTuple):
  count: jax.Array
  start: jax.Array


class Counting(on_device.Environment):
  """Observes how many steps were taken and where the episode started.

  Action 1 ends an episode in a terminal state; `limit` steps cut it off. The
  reward is the count. Episodes start with a random number in [0, 1000).
  """

  name = "counting"
  action_repeat = 2

  def __init__(self, limit: int = 5):
    checks.check_integer("limit", limit, 1)
    self.limit = limit

  def reset(self, key):
    start = jax.random.randint(key, (), 0, 1000, jnp.int32)
    state = CountingState(jnp.int32(0), start)
    return state, on_device.restart(self._observe(state))

  def step(self, state, action, key):
    state = state._replace(count=state.count + 1)
    return state, on_device.transition(
      self._observe(state),
      state.count,
      terminated=action == 1,
      truncated=state.count >= self.limit,
    )

  def _observe(self, state):
    return jnp.stack([state.count, state.start]).astype(jnp.float32)

  def observation_spec(self):
    return specs.BoundedArray((2,), np.float32, 0.0, 1000.0)

  def action_spec(self):
    return specs.DiscreteArray(2)
