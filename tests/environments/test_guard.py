import threading
import time

import dm_env
import numpy as np
import pytest
from dm_env import specs

from acme_stac import environments
from acme_stac.environments import base
from acme_stac.environments.catch import Catch

FIRST, MID, LAST = (
  dm_env.StepType.FIRST,
  dm_env.StepType.MID,
  dm_env.StepType.LAST,
)


class Environment(base.BatchedEnvironment):
  """Does what it is told to with the next steps."""

  num_environments = 2

  def __init__(self, observation=None):
    self.answers = []
    self.closed = False
    self._observation = observation

  def observation_spec(self):
    return {"a": specs.Array((3,), np.float32)}

  def action_spec(self):
    return specs.DiscreteArray(2)

  def good(self, *step_types):
    return dm_env.TimeStep(
      np.array(step_types or [MID] * 2, np.int32),
      np.zeros(2, np.float32),
      np.ones(2, np.float32),
      {"a": np.zeros((2, 3), np.float32)},
    )

  def reset(self):
    return self.good(FIRST, FIRST)

  def step(self, actions):
    answer = self.answers.pop(0)
    return answer() if callable(answer) else answer

  def close(self):
    self.closed = True


def guarded(*answers, **kwargs):
  environment = Environment()
  environment.answers = list(answers)
  guard = environments.GuardedEnvironment(environment, **kwargs)
  guard.reset()
  return guard, environment


def test_what_is_good_passes():
  guard, environment = guarded(Environment().good())
  timestep = guard.step(np.array([0, 1]))
  assert timestep.step_type.tolist() == [MID] * 2
  assert guard.num_environments == 2
  assert guard.action_spec() == environment.action_spec()
  guard.close()
  assert environment.closed


@pytest.mark.parametrize("error", [RuntimeError("lost"), SystemExit("lost")])
def test_close_that_raises_is_a_warning_and_closes_the_others(error):
  closed = []

  class Member(Catch):
    def close(self):
      closed.append(self)
      raise error

  members = [
    environments.EnvironmentOfBatch(Member(1, seed)) for seed in range(2)
  ]
  batch = environments.BatchOfEnvironments(members)
  with pytest.warns(UserWarning, match=r"close\(\) raised \w+: lost"):
    environments.GuardedEnvironment(batch).close()
  assert len(closed) == 2


def test_what_it_raises_is_told_with_the_last_actions():
  def fail():
    raise OSError("the simulator is gone")

  good = Environment().good()
  guard, _ = guarded(good, good, fail)
  for action in ([0, 0], [1, 0]):
    guard.step(np.array(action))
  with pytest.raises(environments.EnvironmentFailedError) as raised:
    guard.step(np.array([1, 1]))
  text = str(raised.value)
  assert "OSError: the simulator is gone" in text
  assert text.endswith("[0, 0]\n  [1, 0]\n  [1, 1]")


@pytest.mark.parametrize("change,message", [
  (
    {"observation": {"a": np.zeros((2, 4), np.float32)}},
    r"observation\['a'\] must have shape \(2, 3\), got \(2, 4\)",
  ),
  ({"observation": {"a": np.zeros((2, 3))}}, "float64"),
  ({"observation": {"b": np.zeros((2, 3), np.float32)}}, "parts must be"),
  (
    {"reward": np.zeros(3)},
    r"reward must be an array of shape \(2,\), got a ndarray of shape \(3,",
  ),
  ({"reward": [0.0, 0.0]}, "reward .* got a list"),
  ({"reward": np.array(["a", "b"])}, "reward must be of numbers, got <U1"),
  ({"step_type": [MID, MID]}, "step_type .* got a list"),
  ({"step_type": np.zeros((2, 1))}, "step_type"),
  ({"discount": 1.0}, "discount"),
])
def test_wrong_shapes(change, message):
  guard, _ = guarded(Environment().good()._replace(**change))
  with pytest.raises(environments.EnvironmentFailedError, match=message):
    guard.step(np.array([0, 1]))


def test_observation_must_be_an_array():
  class Single(Environment):
    def observation_spec(self):
      return specs.Array((1,), np.float32)

    def reset(self):
      return super().reset()._replace(observation=[[0.0], [0.0]])

  guard = environments.GuardedEnvironment(Single())
  with pytest.raises(environments.EnvironmentFailedError, match="of arrays"):
    guard.reset()


def test_episodes_that_follow_each_other_pass():
  good = Environment().good
  guard, _ = guarded(
    good(LAST, MID), good(FIRST, LAST), good(LAST, FIRST), good(FIRST, MID)
  )
  for _ in range(4):
    guard.step(np.array([0, 0]))
  guard.reset()


@pytest.mark.parametrize("steps,message", [
  ([(MID, FIRST)], "member 1 is FIRST, but"),
  ([(LAST, MID), (MID, MID)], "member 0 is MID, but"),
  ([(MID, LAST), (MID, LAST)], "member 1 is LAST, but"),
])
def test_the_order_of_step_types_is_watched(steps, message):
  good = Environment().good
  guard, _ = guarded(*[good(*types) for types in steps])
  with pytest.raises(environments.EnvironmentFailedError, match=message):
    for _ in steps:
      guard.step(np.array([0, 0]))


def test_a_reset_must_begin_an_episode():
  environment = Environment()
  environment.reset = environment.good
  with pytest.raises(environments.EnvironmentFailedError, match="must return"):
    environments.GuardedEnvironment(environment).reset()


def test_an_assertion_without_text_is_shown_as_code():
  def fail():
    raise AssertionError

  guard, _ = guarded(fail)
  with pytest.raises(
    environments.EnvironmentFailedError, match="`raise AssertionError`"
  ):
    guard.step(np.array([0, 0]))


def test_hanging_is_told_once():
  told = []
  release = threading.Event()
  guard, _ = guarded(
    lambda: release.wait(20) and Environment().good(),
    timeout_seconds=0.1,
    on_timeout=lambda text: (told.append(text), release.set()),
  )
  guard.step(np.array([1, 0]))
  assert len(told) == 1
  assert "has not returned for 0.1 s" in told[0] and "[1, 0]" in told[0]


def test_many_fast_steps_are_no_hanging():
  good = Environment().good()
  told = []
  guard, environment = guarded(
    timeout_seconds=0.2, on_timeout=told.append
  )
  deadline = time.monotonic() + 1.0
  while time.monotonic() < deadline:
    environment.answers.append(good)
    guard.step(np.array([0, 0]))
    time.sleep(0.01)
  assert not told
