"""What the checker says of environments that are wrong, each in its own way."""

import re
import types
import warnings

import dm_env
import numpy as np
import pytest
from dm_env import specs

from acme_stac import environments


class Good(dm_env.Environment):
  """Five steps an episode; subclasses are wrong in one thing."""

  def __init__(self, seed=0, length=5):
    self._rng = np.random.default_rng(seed)
    self._length = length
    self._count = -1

  def observation(self):
    return {
      "position": self._rng.uniform(-1, 1, 2).astype(np.float32),
      "goal": np.int32(3),
    }

  def reset(self):
    self._count = 0
    return dm_env.restart(self.observation())

  def step(self, action):
    if not 0 <= self._count < self._length:
      return self.reset()
    self.action_spec().validate(action)
    self._count += 1
    if self._count == self._length:
      return dm_env.termination(1.0, self.observation())
    return dm_env.transition(0.5, self.observation())

  def observation_spec(self):
    return {
      "position": specs.BoundedArray((2,), np.float32, -1, 1),
      "goal": specs.Array((), np.int32),
    }

  def action_spec(self):
    return specs.BoundedArray((3,), np.float32, -2, 1)

  def reward_spec(self):
    return specs.BoundedArray((), np.float32, 0, 1)


def changed(**methods):
  return type("Wrong", (Good,), methods)()


def observing(**parts):
  def observation(self):
    return {**Good.observation(self), **parts}

  return changed(observation=observation)


def stepping(**fields):
  def step(self, action):
    timestep = Good.step(self, action)
    return timestep if timestep.first() else timestep._replace(**fields)

  return changed(step=step)


WRONG = [
  (observing(position=np.zeros(3, "f")), "'position'] must have shape (2,)"),
  (observing(position=np.zeros(2)), "must be float32, got float64"),
  (observing(position=np.full(2, np.nan, "f")), "nan or infinity"),
  (observing(more=np.zeros(2)), "parts must be"),
  (stepping(reward=float("nan")), "reward must be one finite number"),
  (stepping(reward=None), "got None"),
  (stepping(reward=np.zeros(2)), "reward must be one finite number"),
  (stepping(discount=1.5), "discount must be one number in [0, 1]"),
  (stepping(discount=None), "discount must be one number in [0, 1]"),
  (stepping(step_type=7), "must be a dm_env.StepType, got 7"),
  (
    stepping(step_type=dm_env.StepType.FIRST, reward=None, discount=None),
    "step_type of member 0 is FIRST, but",
  ),
  (changed(observation_spec=lambda self: {"x": 3}), "must be a dm_env.specs"),
  (changed(action_spec=lambda self: None), "action_spec() must be"),
  (
    changed(reset=lambda self: dm_env.transition(0.0, self.observation())),
    "is MID, but a reset and the step after LAST must return FIRST",
  ),
]


WRONG += [
  (stepping(reward="1.0"), "reward must be one finite number, got '1.0'"),
  (observing(goal="three"), "must be int32, got <U5"),
  (changed(observation=lambda self: [1.0, 2.0]), "of type list"),
  (
    changed(reset=lambda self: dm_env.TimeStep(
      dm_env.StepType.FIRST, 3.0, 0.0, self.observation()
    )),
    "discount of a FIRST step must be None",
  ),
  (
    changed(observation_spec=lambda self: specs.BoundedArray(
      (2,), np.float32, np.nan, 1
    )),
    "has a nan or minimum > maximum",
  ),
  (
    changed(observation_spec=lambda self: specs.Array((0, 2), np.float32)),
    "observation_spec() has no elements",
  ),
  (
    changed(observation_spec=lambda self: specs.Array((), object)),
    "must be of numbers",
  ),
  (
    changed(action_spec=lambda self: specs.BoundedArray((0,), "f", 0, 1)),
    "action_spec() has no elements",
  ),
  (changed(reset=lambda self: (np.zeros(2), {})), "reset() must return a dm_"),
  (changed(step=lambda self, action: (0, 1.0, 0, 0, {})), "takes those"),
  (changed(reset=lambda self: [][0]), "reset() raised IndexError"),
  (changed(step=lambda self, action: 1 / 0), "step() raised ZeroDivisionErr"),
  (changed(observation_spec=lambda self: [][0]), "observation_spec() raised"),
]


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("environment,message", WRONG)
def test_what_is_wrong_is_named(environment, message, made):
  with pytest.raises(ValueError) as error:
    if made:
      # What `make` puts around an environment hides nothing.
      environment = environments.make(lambda seed, e=environment: e, seed=0)
    environments.check(environment)
  assert message in str(error.value)
  # One kind of mistake is one line, however often it is made.
  assert len(str(error.value).splitlines()) <= 4


@pytest.mark.parametrize("environment,message", [
  (
    observing(position=np.float32([1.5, 0])),
    r"observation\['position'\] leaves the bounds of its spec, \[-1.0, 1.0\]:"
    r" it was between 0 and 1.5",
  ),
  (
    stepping(reward=np.float32(3)),
    r"reward leaves the bounds of its spec, \[0.0, 1.0\]",
  ),
])
def test_what_leaves_its_bounds_is_said_once_and_passes(environment, message):
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    environments.check(environment)
  (warning,) = said
  assert re.search(message, str(warning.message))


def test_python_numbers_and_any_mapping_are_observations():
  class Loose(Good):
    def observation(self):
      return types.MappingProxyType({"position": [0.5, 0.5], "goal": 3})

    def observation_spec(self):
      return types.MappingProxyType(super().observation_spec())

  environments.check(Loose())
  batch = environments.make_batched(Loose, 2, seed=0)
  environments.check(batch)
  step = batch.reset()
  assert step.observation["position"].dtype == np.float32
  assert step.observation["goal"].tolist() == [3, 3]
  assert isinstance(batch.observation_spec(), dict)


def test_all_members_of_a_batch_are_played():
  broken = Good(seed=1)
  broken.observation = lambda: {"position": np.zeros(3, "f"), "goal": 1}
  with pytest.raises(ValueError, match="'position'] must have shape"):
    environments.check(environments.BatchOfEnvironments([Good(), broken]))


def test_batches_of_their_own_are_checked_as_wholes():
  class Wrong(environments.Catch):
    def step(self, actions):
      timestep = super().step(actions)
      return timestep._replace(step_type=timestep.step_type.clip(1))

  with pytest.raises(ValueError, match="is MID, but a reset"):
    environments.check(Wrong(3, seed=0))


@pytest.mark.parametrize("dtype", [
  f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
])
def test_whole_numbers_of_every_type_are_actions(dtype):
  taken = []

  def step(self, action):
    taken.append(np.asarray(action).dtype)
    return Good.step(self, np.asarray(action))

  environments.check(changed(
    step=step, action_spec=lambda self: specs.DiscreteArray(3, dtype)
  ))
  assert set(taken) == {np.dtype(dtype)}


def test_everything_is_named_at_once():
  environment = stepping(reward=None, discount=2.0)
  with pytest.raises(ValueError, match="reward(.|\n)*discount"):
    environments.check(environment)


def test_good_environments_pass():
  environments.check(Good())
  environments.check(environments.BatchOfEnvironments([Good(), Good(seed=1)]))
  for name in (
    "catch", "gymnasium:CartPole-v1", "gymnasium:Pendulum-v1", "atari:pong",
    "control:humanoid/run",
  ):
    environments.check(environments.make_batched(name, 1, seed=0))
    environments.check(environments.make(name, seed=0))


def test_time_is_bounded():
  calls = []

  class Slow(Good):
    def step(self, action):
      calls.append(1)
      return super().step(action)

  environments.check(Slow(), max_seconds=0.0)
  assert len(calls) == 1
  environments.check(Slow(), max_steps=30, max_seconds=1e3)
  # Every sixth is a reset.
  assert len(calls) == 1 + 25


def test_parts_whose_names_cannot_be_sorted_are_refused_in_words():
  class Mixed(Good):
    def observation_spec(self):
      return {1: specs.Array((), np.float32), "a": specs.Array((), np.float32)}

  with pytest.raises(ValueError, match="cannot be sorted.*strings as the na"):
    environments.check(Mixed())
