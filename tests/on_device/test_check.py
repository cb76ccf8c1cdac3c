"""What is found before an environment in JAX is compiled for training."""

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType, specs

from acme_stac import on_device
from tests.support.jax_environments import Counting


class Kept(Counting):
  """Keeps the state in an attribute."""

  def step(self, state, action, key):
    self.kept = state.count + 1
    return super().step(state, action, key)


class Numbered(Counting):
  """Counts calls."""

  calls = 0

  def reset(self, key):
    self.calls += 1
    state, step = super().reset(key)
    return state._replace(count=state.count + self.calls), step


class Timed(Counting):
  """Asks the host for a number that changes."""

  def step(self, state, action, key):
    now = jax.pure_callback(
      lambda _: np.float32(time.perf_counter() % 1000.0),
      jax.ShapeDtypeStruct((), np.float32), key, vmap_method="sequential",
    )
    state, step = super().step(state, action, key)
    return state, step._replace(reward=step.reward + now)


class Branching(Counting):
  """Decides in Python on a value of JAX."""

  def step(self, state, action, key):
    if action == 1:
      state = state._replace(count=state.count + 1)
    return super().step(state, action, key)


class OtherState(Counting):
  """Changes the type of a part of the state."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    return state._replace(count=state.count.astype(jnp.float32)), step


class OtherStructure(Counting):
  """Returns a state that has another structure."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    return tuple(state), step


class GymStep(Counting):
  """Returns what environments of other libraries return."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    return step.observation, state, step.reward, step.last(), {}


class WrongRewards(Counting):
  """Returns rewards with an axis."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    return state, step._replace(reward=step.reward[None])


class NoReward(Counting):
  """Leaves the reward of a first step out, as dm_env does."""

  def reset(self, key):
    state, step = super().reset(key)
    return state, step._replace(reward=None, discount=None)


class SomeReward(Counting):
  """Has a reward before any action."""

  def reset(self, key):
    state, step = super().reset(key)
    return state, step._replace(reward=step.reward + 1)


class OtherObservation(Counting):
  """Observes numbers of another type and number than its spec."""

  def observation_spec(self):
    return specs.BoundedArray((3,), np.int32, 0, 1000)


class ResetsItself(Counting):
  """Returns FIRST from step at an episode's end."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    step_type = jnp.where(step.step_type == 2, 0, step.step_type)
    return state, step._replace(step_type=step_type)


class StartsInTheMiddle(Counting):
  """Returns MID from reset."""

  def reset(self, key):
    state, step = super().reset(key)
    return state, step._replace(step_type=jnp.int32(StepType.MID))


class LargeDiscount(Counting):
  """Has discounts above 1."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    return state, step._replace(discount=step.discount * 2)


class NotANumber(Counting):
  """Observes nan in its third step."""

  def step(self, state, action, key):
    state, step = super().step(state, action, key)
    bad = jnp.where(state.count == 3, jnp.nan, step.observation)
    return state, step._replace(observation=bad)


class SeveralChoices(Counting):
  """Takes two choices at once."""

  def action_spec(self):
    return specs.BoundedArray((2,), np.int32, 0, 1)


class Nameless(Counting):
  """Has no name."""

  name = None


@pytest.mark.parametrize(
  "cls,messages",
  [
    (Kept, ["step() keeps values of one call (tracers) beyond its end"]),
    (Numbered, ["reset() is not pure: traced again, it is another function"]),
    (Timed, ["not pure: called again with equal states"]),
    (Branching, ["step() cannot be traced", "TracerBoolConversionError"]),
    (OtherState, ["state.count is int32[] after reset() and float32[] after"]),
    (OtherStructure, ["a state of the structure of reset()'s"]),
    (GymStep, ["step() must return a state and a dm_env.TimeStep"]),
    (WrongRewards, ["step()'s reward must be one float32, got float32[1]"]),
    (NoReward, [
      "reset()'s reward must be one float32, got None", "discount must be one",
    ]),
    (SomeReward, ["reset()'s reward must be 0 and its discount 1, got 1.0"]),
    (OtherObservation, [
      "reset()'s observation must be int32[3], as its spec says, got float32[2]"
    ]),
    (ResetsItself, ["is FIRST, but a reset and the step after LAST must"]),
    (StartsInTheMiddle, ["is MID, but a reset and the step after LAST must"]),
    (LargeDiscount, ["discount must be one number in [0, 1]"]),
    (NotANumber, ["observation has a nan or infinity"]),
    (SeveralChoices, ["Several discrete choices at once are not supported"]),
  ],
)
def test_what_is_wrong_is_said_in_one_message(cls, messages):
  with pytest.raises(ValueError) as raised:
    on_device.check(cls())
  message = str(raised.value)
  for part in ["Environment 'counting' cannot be trained", *messages]:
    assert part in message


def test_other_objects_are_refused():
  with pytest.raises(ValueError, match="subclass of acme_stac.on_device.Env"):
    on_device.check(3)
  with pytest.raises(ValueError, match="attribute `name` must be a string"):
    on_device.check(Nameless())


@pytest.mark.parametrize("name", ["catch", "gymnax:Breakout-MinAtar"])
def test_nothing_is_wrong_with_environments_that_are_here(name):
  if name.startswith("gymnax:"):
    pytest.importorskip("gymnax")
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    on_device.check(on_device.make(name))


def test_bounds_that_are_left_are_a_warning():
  class Low(Counting):
    def observation_spec(self):
      return specs.BoundedArray((2,), np.float32, 0, 1)

  with pytest.warns(UserWarning, match="observation leaves the bounds"):
    on_device.check(Low())
