"""The way into and out of the trajectory queue."""

import dm_env
import jax
import numpy as np
import pytest

from acme_stac import environments
from acme_stac.training import AgentBuilder, LocalQueue, TrajectoryAdder
from acme_stac.training.adder import Decision, NonFiniteError
from tests.support import helpers


def make(config, spec=None):
  """Returns an adder of two environments and the batches of its queue."""
  spec = spec or helpers.environment_spec(())
  builder = AgentBuilder(config, environments_per_actor=2)
  queue = builder.make_local_queue()
  return builder.make_adder(queue, spec), builder.make_batches(queue)


def decision(step, action=0, version=0):
  return Decision(
    np.full(2, action, np.int32), np.full(2, -0.1 * step, np.float32), (),
    version,
  )


def stream(adder, steps, episode=4, start=0):
  """Adds steps whose observation is their number; returns what was added."""
  rows = []
  for t in range(start, start + steps + 1):
    kind = {0: 0, episode: 2}.get(t % (episode + 1), 1)
    step = dm_env.TimeStep(
      np.full(2, kind, np.int32),
      np.full(2, 10.0 * t, np.float32),
      np.full(2, float(kind != 2), np.float32),
      np.arange(2, dtype=np.float32) + t * 100,
    )
    if t == 0:
      adder.add_first(step)
    elif t > start:
      adder.add(decision(t, t % 3, version=t), step)
      rows.append(t)
  return rows


@pytest.mark.parametrize("overlap", [0, 3, 4])
def test_trajectories(overlap):
  config = helpers.small_config(
    trajectory_length=5, trajectory_overlap=overlap, batch_size=4,
    queue_batches=20,
  )
  adder, batches = make(config)
  stream(adder, 33)
  fresh = 5 - overlap
  start = 0
  for _ in range(3):
    sample = next(batches)
    trajectory = sample.trajectory
    assert trajectory.observation.shape == (6, 4)
    for item in range(2):
      columns = slice(2 * item, 2 * item + 2)
      expected = np.arange(start, start + 6)
      np.testing.assert_array_equal(
        trajectory.observation[:, columns],
        expected[:, None] * 100 + np.arange(2),
      )
      np.testing.assert_array_equal(
        trajectory.reward[:, columns], expected[:, None] * [10.0, 10.0]
      )
      # Row t holds what was done at t: added together with t + 1.
      np.testing.assert_array_equal(
        trajectory.action[:-1, columns], (expected[1:, None] % 3) * [1, 1]
      )
      np.testing.assert_allclose(
        trajectory.behaviour_log_prob[:-1, columns],
        expected[1:, None] * [-0.1, -0.1],
        rtol=1e-5,
      )
      kinds = np.select([expected % 5 == 0, expected % 5 == 4], [0, 2], 1)
      np.testing.assert_array_equal(
        trajectory.step_type[:, columns], kinds[:, None] * [1, 1]
      )
      # The version that acted first.
      assert (sample.params_version[columns] == start + 1).all()
      start += fresh


def test_core_state_is_that_of_the_first_row():
  config = helpers.small_config(
    trajectory_length=4, trajectory_overlap=2, batch_size=2, lstm_size=3,
    queue_batches=10,
  )
  adder, batches = make(config)
  networks = helpers.networks(config, observation=())
  for t in range(9):
    step = dm_env.TimeStep(
      np.ones(2, np.int32), np.zeros(2), np.ones(2), np.zeros(2)
    )
    if t == 0:
      adder.add_first(step)
    else:
      # Before row t - 1.
      state = jax.tree_util.tree_map(
        lambda x, t=t: x + t - 1, networks.initial_state(2)
      )
      adder.add(Decision(np.zeros(2), np.zeros(2), state, 0), step)
  for start in (0, 2, 4):
    hidden, _ = next(batches).trajectory.core_state
    np.testing.assert_array_equal(hidden, np.full((2, 3), start))


def test_mistakes():
  config = helpers.small_config()
  adder, _ = make(config)
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(decision(0), dm_env.restart(np.zeros(2)))
  with pytest.raises(ValueError, match=r"\(3\) must divide batch_size \(4\)"):
    AgentBuilder(config, environments_per_actor=3)


def test_observations_may_be_overwritten_by_the_environment():
  environment = environments.make_batched("catch", 2, seed=0)
  config = helpers.small_config(trajectory_length=3, batch_size=2)
  spec = environments.environment_spec(environment)
  adder, batches = make(config, spec)
  step = environment.reset()
  buffer = np.array(step.observation)
  seen = []
  adder.add_first(step._replace(observation=buffer))
  for t in range(6):
    seen.append(buffer.copy())
    step = environment.step(np.ones(2, int))
    buffer[:] = step.observation
    adder.add(decision(t, 1), step._replace(observation=buffer))
    buffer[:] = step.observation
  trajectory = next(batches).trajectory
  np.testing.assert_array_equal(trajectory.observation[:3], seen[:3])


def test_what_is_not_finite_is_not_written():
  config = helpers.small_config(trajectory_length=5, batch_size=2)
  queue = LocalQueue(9)
  adder = TrajectoryAdder(queue, helpers.environment_spec(()), config)
  bad = dm_env.TimeStep(
    np.full(2, 1, np.int32), np.float32([0.0, np.inf]), np.ones(2, np.float32),
    np.zeros(2, np.float32),
  )
  stream(adder, 3)
  adder.add(decision(4), bad)
  with pytest.raises(NonFiniteError, match="numbers in its reward"):
    stream(adder, 5, start=4)
  assert adder.num_items == 0 and queue.fill == 0.0
  # It goes on after a reset.
  adder.reset()
  stream(adder, 5)
  assert adder.num_items == 1
