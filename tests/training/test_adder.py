"""The way into and out of a real Reverb queue."""

import threading
import time

import dm_env
import jax
import numpy as np
import pytest
import reverb

from acme_stac import environments
from acme_stac.agent import adders, builder, queues
from tests.support import helpers


def make(config, environments_per_actor=2, spec=None, stop=lambda: False):
  spec = spec or helpers.environment_spec(())
  parts = builder.STACBuilder(
    config, environments_per_actor=environments_per_actor, should_stop=stop
  )
  server = reverb.Server(parts.make_replay_tables(spec))
  client = reverb.Client(f"localhost:{server.port}")
  return server, client, parts, parts.make_adder(client, spec)


def extras(step, members=2, version=0):
  return adders.Extras(
    np.full(members, -0.1 * step, np.float32), (), version
  )


def stream(adder, steps, members=2, episode=4, start=0):
  """Adds steps whose observation is their number; returns what was added."""
  rows = []
  for t in range(start, start + steps + 1):
    kind = {0: 0, episode: 2}.get(t % (episode + 1), 1)
    step = dm_env.TimeStep(
      np.full(members, kind, np.int32),
      np.full(members, 10.0 * t, np.float32),
      np.full(members, float(kind != 2), np.float32),
      np.arange(members, dtype=np.float32) + t * 100,
    )
    if t == 0:
      adder.add_first(step)
    elif t > start:
      action = np.full(members, t % 3, np.int32)
      adder.add(action, step, extras(t, members, version=t))
      rows.append(t)
  return rows


@pytest.mark.parametrize("overlap", [0, 3, 4])
def test_trajectories(overlap):
  config = helpers.small_config(
    trajectory_length=5, trajectory_overlap=overlap, batch_size=4,
    queue_batches=20,
  )
  server, client, parts, adder = make(config)
  stream(adder, 33)
  batches = parts.make_dataset_iterator(client)
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
  server.stop()


def test_single_environment_and_episode_ends():
  """As Acme's environment loop adds: add_first at every episode."""
  config = helpers.small_config(trajectory_length=4, batch_size=2)
  server, client, parts, adder = make(config, environments_per_actor=1)
  value = 0.0

  def observation():
    nonlocal value
    value += 1
    return np.float32(value)

  for _ in range(4):
    adder.add_first(dm_env.restart(observation()))
    adder.add(1, dm_env.transition(1.0, observation()), extras(1, 1))
    adder.add(2, dm_env.truncation(2.0, observation(), 1.0), extras(1, 1))
  trajectory = next(parts.make_dataset_iterator(client)).trajectory
  np.testing.assert_array_equal(
    trajectory.observation.T, [[1, 2, 3, 4, 5], [5, 6, 7, 8, 9]]
  )
  np.testing.assert_array_equal(
    trajectory.step_type.T, [[0, 1, 2, 0, 1], [1, 2, 0, 1, 2]]
  )
  np.testing.assert_array_equal(trajectory.discount.T, np.ones((2, 5)))
  np.testing.assert_array_equal(trajectory.action[:2, 0], [1, 2])
  server.stop()


def test_core_state_is_that_of_the_first_row():
  config = helpers.small_config(
    trajectory_length=4, trajectory_overlap=2, batch_size=2, lstm_size=3,
    queue_batches=10,
  )
  server, client, parts, adder = make(config)
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
      adder.add(
        np.zeros(2), step, adders.Extras(np.zeros(2), state, 0)
      )
  batches = parts.make_dataset_iterator(client)
  for start in (0, 2, 4):
    hidden, _ = next(batches).trajectory.core_state
    np.testing.assert_array_equal(hidden, np.full((2, 3), start))
  server.stop()


def test_full_queue_blocks_and_nothing_is_lost():
  config = helpers.small_config(
    trajectory_length=2, batch_size=2, queue_batches=2
  )
  server, client, parts, adder = make(config)
  thread = threading.Thread(target=stream, args=(adder, 40), daemon=True)
  thread.start()
  time.sleep(1.5)
  # Two batches of one item each in the queue, and the one that waits.
  assert adder.num_items == 2
  assert thread.is_alive()
  batches = parts.make_dataset_iterator(client)
  firsts = [next(batches).trajectory.observation[0, 0] for _ in range(20)]
  np.testing.assert_array_equal(firsts, np.arange(0, 40, 2) * 100)
  thread.join(5)
  assert not thread.is_alive()
  assert adder.seconds_blocked > 0.5
  server.stop()


def test_stopping_frees_the_writer():
  stopped = threading.Event()
  config = helpers.small_config(trajectory_length=2, batch_size=2)
  server, client, parts, adder = make(config, stop=stopped.is_set)
  writer = threading.Thread(target=stream, args=(adder, 40), daemon=True)
  writer.start()
  time.sleep(0.5)
  assert writer.is_alive()
  stopped.set()
  writer.join(5)
  assert not writer.is_alive()
  server.stop()


def test_writer_survives_a_restart_of_the_server():
  config = helpers.small_config(
    trajectory_length=2, batch_size=2, queue_batches=20
  )
  server, client, parts, adder = make(config)
  port = server.port
  stream(adder, 4)
  next(parts.make_dataset_iterator(client))
  server.stop()
  server = reverb.Server(
    parts.make_replay_tables(helpers.environment_spec(())), port=port
  )
  stream(adder, 10, start=4)
  sample = next(parts.make_dataset_iterator(client))
  assert sample.trajectory.observation.shape == (3, 2)
  server.stop()


def test_mistakes():
  config = helpers.small_config()
  server, _, _, adder = make(config)
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(np.zeros(2), dm_env.restart(np.zeros(2)), extras(0))
  with pytest.raises(ValueError, match=r"\(3\) must divide batch_size \(4\)"):
    builder.STACBuilder(config, environments_per_actor=3)
  server.stop()


def test_observations_may_be_overwritten_by_the_environment():
  environment = environments.make_batched("catch", 2, seed=0)
  config = helpers.small_config(trajectory_length=3, batch_size=2)
  spec = environments.environment_spec(environment)
  server, client, parts, adder = make(config, spec=spec)
  step = environment.reset()
  buffer = np.array(step.observation)
  seen = []
  adder.add_first(step._replace(observation=buffer))
  for t in range(6):
    seen.append(buffer.copy())
    step = environment.step(np.ones(2, int))
    buffer[:] = step.observation
    adder.add(np.ones(2), step._replace(observation=buffer), extras(t))
    buffer[:] = step.observation
  trajectory = next(parts.make_dataset_iterator(client)).trajectory
  np.testing.assert_array_equal(trajectory.observation[:3], seen[:3])
  server.stop()


def test_what_is_not_finite_is_not_written():
  config = helpers.small_config(trajectory_length=5, batch_size=2)
  queue = queues.LocalQueue(9)
  adder = adders.TrajectoryAdder(queue, helpers.environment_spec(()), config)
  bad = dm_env.TimeStep(
    np.full(2, 1, np.int32), np.float32([0.0, np.inf]), np.ones(2, np.float32),
    np.zeros(2, np.float32),
  )
  stream(adder, 3)
  adder.add(np.zeros(2, np.int32), bad, extras(4))
  with pytest.raises(adders.NonFiniteError, match="'?reward'? had numbers"):
    stream(adder, 5, start=4)
  assert adder.num_items == 0 and queue.fill == 0.0
  # It goes on after a reset.
  adder.reset()
  stream(adder, 5)
  assert adder.num_items == 1
