import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac.core import Categorical, SquashedGaussian
from acme_stac.environments import EnvironmentSpec
from acme_stac.networks import actions
from tests.support import helpers

CONFIG = helpers.small_config()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
  "shape,low,high",
  [
    ((), -2.0, 2.0),
    ((3,), -1.0, 1.0),
    ((2,), [0.0, -5.0], [0.1, 1e6]),
    ((2, 2), [[-1, 0], [1, 2]], [[1, 1], [2, 2.5]]),
  ],
)
def test_rescaling_to_any_bounds(shape, low, high, dtype):
  spec = specs.BoundedArray(shape, dtype, low, high)
  space = actions.make_action_space(spec, CONFIG)
  assert isinstance(space.distribution, SquashedGaussian)
  size = int(np.prod(shape))
  assert space.num_params == 2 * size
  assert space.spec.shape == (size,)
  for edge, bound in ((-1.0, spec.minimum), (1.0, spec.maximum)):
    whole = space.to_environment(np.full((4, size), edge, np.float32))
    assert whole.shape == (4, *shape)
    assert whole.dtype == dtype
    np.testing.assert_array_equal(
      whole, np.broadcast_to(bound, (4, *shape))
    )
  middle = space.to_environment(np.zeros((1, size), np.float32))[0]
  expected = (np.asarray(spec.minimum) + spec.maximum) / 2
  np.testing.assert_allclose(middle, expected, rtol=1e-6)
  random = np.random.default_rng(0).uniform(-1, 1, (100, size))
  for action in space.to_environment(random.astype(np.float32)):
    spec.validate(action)


def test_discrete_actions_pass_through():
  spec = specs.DiscreteArray(5, dtype=np.int64)
  space = actions.make_action_space(spec, CONFIG)
  assert isinstance(space.distribution, Categorical)
  assert space.num_params == 5
  action = space.to_environment(np.array([0, 4], np.int32))
  assert action.dtype == np.int64
  np.testing.assert_array_equal(action, [0, 4])


@pytest.mark.parametrize(
  "spec,message",
  [
    (specs.BoundedArray((3,), np.int32, 0, 4), "Several discrete choices"),
    (specs.Array((2,), np.float32), "finite minimum and maximum"),
    (
      specs.BoundedArray((2,), np.float32, -np.inf, 1.0),
      "finite minimum and maximum",
    ),
    (specs.BoundedArray((0,), np.float32, -1, 1), "no components"),
    ({"a": specs.DiscreteArray(2)}, "takes one array"),
  ],
)
def test_other_actions_are_refused(spec, message):
  spec = helpers.environment_spec()._replace(actions=spec)
  with pytest.raises(ValueError, match=message):
    acme_stac.make_networks(spec, CONFIG)


class Reacher(dm_env.Environment):
  """A task that checks every action against its spec."""

  spec = specs.BoundedArray((2, 1), np.float64, [[-3.0], [0.0]], [[1.0], [0.5]])

  def reset(self):
    return dm_env.restart(np.zeros(3, np.float32))

  def step(self, action):
    self.spec.validate(action)
    return dm_env.transition(0.0, np.zeros(3, np.float32))

  def observation_spec(self):
    return specs.Array((3,), np.float32)

  def action_spec(self):
    return self.spec


def test_actor_gives_the_environment_what_it_asks_for():
  from acme_stac import environment_loop, environments
  from acme_stac.networks import make_policy
  from acme_stac.training import AgentBuilder
  from tests.training.test_actor import Source

  batch = environments.BatchOfEnvironments([Reacher(), Reacher()])
  spec = EnvironmentSpec(
    batch.observation_spec(), batch.action_spec(), None, None
  )
  networks = acme_stac.make_networks(spec, CONFIG)
  actor = AgentBuilder(CONFIG).make_actor(
    jax.random.PRNGKey(0),
    make_policy(networks, CONFIG),
    Source(networks.init(jax.random.PRNGKey(0))),
  )
  loop = environment_loop.BatchedEnvironmentLoop(batch, actor)
  for _ in range(50):
    loop.step()
