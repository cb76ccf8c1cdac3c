"""The adder with Acme's interface."""

import dm_env
import numpy as np

from acme_stac.agent.adders import TrajectoryAdder
from acme_stac.training import AgentBuilder
from acme_stac.training.adder import Decision
from tests.support import helpers


def test_single_environment_and_episode_ends():
  """As Acme's environment loop adds: add_first at every episode."""
  config = helpers.small_config(trajectory_length=4, batch_size=2)
  builder = AgentBuilder(config)
  queue = builder.make_local_queue()
  spec = helpers.environment_spec(())
  adder = TrajectoryAdder(builder.make_adder(queue, spec), spec.observations)
  value = 0.0

  def observation():
    nonlocal value
    value += 1
    return np.float32(value)

  def extras(action):
    return Decision(np.int32(action), np.float32(-0.1), (), 0)

  for _ in range(4):
    adder.add_first(dm_env.restart(observation()))
    adder.add(1, dm_env.transition(1.0, observation()), extras(1))
    adder.add(2, dm_env.truncation(2.0, observation(), 1.0), extras=extras(2))
  assert adder.num_items == 2
  trajectory = next(builder.make_batches(queue)).trajectory
  np.testing.assert_array_equal(
    trajectory.observation.T, [[1, 2, 3, 4, 5], [5, 6, 7, 8, 9]]
  )
  np.testing.assert_array_equal(
    trajectory.step_type.T, [[0, 1, 2, 0, 1], [1, 2, 0, 1, 2]]
  )
  np.testing.assert_array_equal(trajectory.discount.T, np.ones((2, 5)))
  np.testing.assert_array_equal(trajectory.action[:2, 0], [1, 2])
