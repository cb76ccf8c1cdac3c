"""Environments in JAX that tests train in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from acme_stac import checks, on_device


class Place(NamedTuple):
  """State of `Corridor`: scalars."""

  place: jax.Array
  time: jax.Array


class Corridor(on_device.Environment):
  """A corridor of 5 places with a termination and a time limit.

  Episodes begin at place 1 or 2 and end at place 4, where the reward is 1, or
  are cut off after 6 actions. Actions 0, 1, 2 go left, stay, go right; each
  costs 0.1. The observation has the place as one-hot and the time.
  """

  name = "corridor"

  def reset(self, key):
    place = jax.random.randint(key, (), 1, 3)
    state = Place(place, jnp.int32(0))
    return state, on_device.restart(self._observe(state))

  def step(self, state, action, key):
    place = jnp.clip(state.place + action - 1, 0, 4)
    state = Place(place, state.time + 1)
    return state, on_device.transition(
      self._observe(state),
      reward=jnp.where(place == 4, 1.0, 0.0) - 0.1,
      terminated=place == 4,
      truncated=state.time >= 6,
    )

  def _observe(self, state):
    one_hot = jnp.arange(5) == state.place
    return jnp.append(one_hot.astype(jnp.float32), 0.1 * state.time)

  def observation_spec(self):
    return specs.BoundedArray((6,), np.float32, 0.0, 1.0)

  def action_spec(self):
    return specs.DiscreteArray(3)


def make_corridor(extra: int = 0) -> Corridor:
  """Makes a corridor; the option is ignored."""
  return Corridor()


def make_nothing() -> Corridor:
  """Makes nothing, whatever its annotation says."""


def make_unannotated():
  return Corridor()


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
