"""Observations of 64 bits, which networks take in 32."""

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac import environments, policy_file, trained_policy
from acme_stac.environments import base, precision
from tests.support import helpers

WIDE = {
  "count": np.int64, "size": np.uint64, "speed": np.float64,
  "image": np.uint8,
}


class Wide(dm_env.Environment):
  """Observes the numbers of a table, one row after the other."""

  def __init__(self, rows):
    self._rows = rows
    self._step = 0

  def _observe(self):
    row = self._rows[min(self._step, len(self._rows) - 1)]
    return {
      name: np.array([row.get(name, 1)], dtype) for name, dtype in WIDE.items()
    }

  def reset(self):
    self._step = 0
    return dm_env.restart(self._observe())

  def step(self, action):
    self._step += 1
    return dm_env.transition(0.0, self._observe())

  def observation_spec(self):
    return {name: specs.Array((1,), dtype) for name, dtype in WIDE.items()}

  def action_spec(self):
    return specs.DiscreteArray(2)


BEYOND = [
  ("count", 2**32, "4294967296.*int32"),
  ("count", -(2**31) - 1, "int32"),
  ("size", 2**32, "uint32"),
  ("speed", 1e300, r"1e\+300.*float32"),
  ("speed", -1e39, "float32"),
]


def guarded(rows):
  batch = environments.BatchOfEnvironments([Wide(rows), Wide(rows)])
  return environments.GuardedEnvironment(batch)


def test_guarded_environments_give_32_bits():
  largest = {"count": -(2**31), "size": 2**32 - 1, "speed": 3e38}
  environment = guarded([largest])
  observation = environment.reset().observation
  spec = environment.observation_spec()
  assert spec == environments.environment_spec(environment).observations
  for name, expected in largest.items():
    assert observation[name].dtype == spec[name].dtype
    assert observation[name].dtype.itemsize == 4
    np.testing.assert_array_equal(
      observation[name], np.full((2, 1), expected, spec[name].dtype)
    )


@pytest.mark.parametrize("reward", [1e300, np.float64(-1e39)])
def test_reward_that_does_not_fit_is_named_before_a_run(reward):
  class Rewarding(Wide):
    def step(self, action):
      return super().step(action)._replace(reward=reward)

  with pytest.raises(ValueError, match=r"reward has -?1e\+3.*float32.*Scale"):
    environments.check(Rewarding([{}]))


class WideBatch(base.BatchedEnvironment):
  """Steps its members itself, with numbers of 64 bits."""

  def __init__(self, num_environments, seed, reward: float = 0.0):
    self.num_environments = num_environments
    self._reward = reward

  def _step(self, step_type, reward):
    size = self.num_environments
    return dm_env.TimeStep(
      np.full(size, step_type),
      np.full(size, reward),
      np.ones(size),
      np.zeros(size, np.int64),
    )

  def reset(self):
    return self._step(dm_env.StepType.FIRST, 0.0)

  def step(self, actions):
    return self._step(dm_env.StepType.MID, self._reward)

  def observation_spec(self):
    return specs.DiscreteArray(3, np.int64)

  def action_spec(self):
    return specs.DiscreteArray(2)


def test_batch_that_steps_its_members_itself_may_have_64_bits():
  environments.check(environments.make_batched(WideBatch, 2, seed=0))
  beyond = environments.make_batched(WideBatch, 2, seed=0, reward=1e300)
  with pytest.raises(ValueError, match=r"reward has 1e\+300.*float32"):
    environments.check(beyond)


def test_largest_reward_fits():
  largest = [float(np.finfo(np.float32).max), -np.inf, 0.0]
  np.testing.assert_array_equal(
    precision.cast("reward", largest, np.float32), np.array(largest, np.float32)
  )


@pytest.mark.parametrize("name,value,message", BEYOND)
def test_numbers_that_do_not_fit_are_named(name, value, message):
  environment = guarded([{}, {name: value}])
  environment.reset()
  with pytest.raises(
    environments.EnvironmentFailedError,
    match=rf"environment's observation\['{name}'\] has .*{message}",
  ):
    environment.step(np.zeros(2, np.int32))
  with pytest.raises(ValueError, match=rf"observation\['{name}'\]"):
    environments.check(Wide([{}, {name: value}]))


def test_numbers_that_are_not_finite_are_left_to_others():
  x = np.array([np.inf, -np.inf, np.nan])
  np.testing.assert_array_equal(precision.narrow(x), x.astype(np.float32))


@pytest.mark.parametrize("name,value,message", BEYOND[::3])
def test_policies_refuse_what_does_not_fit(name, value, message):
  config = helpers.small_config("impala")
  environment = Wide([{}, {name: value}])
  spec = helpers.environment_spec()._replace(
    observations=environments.environment_spec(environment).observations
  )
  networks = acme_stac.make_networks(spec, config)
  policy = trained_policy.TrainedPolicy(
    config, spec,
    policy_file.ActingParams(networks.init(jax.random.PRNGKey(0)), {}),
  )
  state = policy.initial_state()
  policy(environment.reset().observation, state)
  with pytest.raises(ValueError, match=rf"observation\['{name}'\]"):
    policy(environment.step(0).observation, state)


def test_specs_in_32_bits():
  narrow = precision.narrow_spec({
    "choice": specs.DiscreteArray(5, np.int64),
    "bounded": specs.BoundedArray((2,), np.float64, [-1e300, 0], [1, 1e300]),
    "whole": specs.BoundedArray((), np.int64, -(2**40), 7),
    "same": specs.BoundedArray((2,), np.uint8, 0, 1),
  })
  assert narrow == {
    "choice": specs.DiscreteArray(5, np.int32),
    "bounded": specs.BoundedArray(
      (2,), np.float32, [-np.inf, 0], [1, np.inf]
    ),
    "whole": specs.BoundedArray((), np.int32, -(2**31), 7),
    "same": specs.BoundedArray((2,), np.uint8, 0, 1),
  }
