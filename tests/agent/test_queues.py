"""The trajectory queue on real Reverb servers."""

import threading
import time

import numpy as np
import portpicker
import reverb
from dm_env import specs

from acme_stac import environments
from acme_stac.agent.queues import ReverbQueue, ReverbQueues, make_table
from acme_stac.training import AgentBuilder
from acme_stac.training.adder import Decision
from acme_stac.training.samples import Sample
from tests.support import helpers


class Server:
  """A queue of two environments' trajectories, and both of its ends."""

  def __init__(self, config, spec=None, stop=lambda: False, port=None):
    spec = spec or helpers.environment_spec(())
    builder = AgentBuilder(
      config, environments_per_actor=2, should_stop=stop
    )
    self.server = reverb.Server([make_table(builder, spec)], port=port)
    queue = ReverbQueue(self.server.localhost_client())
    self.adder = builder.make_adder(queue, spec)
    self.batches = builder.make_batches(queue)

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.server.stop()


def add(adder, numbers, begin=True):
  """Adds time steps whose observations are numbers."""
  for number in numbers:
    observation = np.full(2, number, np.float32)
    step = environments.base.first_time_step(observation, 2)
    if begin and number == numbers[0]:
      adder.add_first(step)
    else:
      adder.add(
        Decision(np.zeros(2, np.int32), np.zeros(2, np.float32), (), 0), step
      )


def test_full_queue_blocks_and_nothing_is_lost():
  config = helpers.small_config(
    trajectory_length=2, batch_size=2, queue_batches=2
  )
  with Server(config) as queue:
    writer = threading.Thread(
      target=add, args=(queue.adder, range(41)), daemon=True
    )
    writer.start()
    time.sleep(1.0)
    # Two batches of one item each are in the queue, and one waits.
    assert queue.adder.num_items == 2
    assert writer.is_alive()
    firsts = [next(queue.batches).trajectory.observation[0, 0]
              for _ in range(20)]
    np.testing.assert_array_equal(firsts, np.arange(0, 40, 2))
    writer.join(5)
    assert not writer.is_alive()
    assert queue.adder.seconds_blocked > 0.3


def test_stopping_frees_the_writer():
  stopped = threading.Event()
  config = helpers.small_config(trajectory_length=2, batch_size=2)
  with Server(config, stop=stopped.is_set) as queue:
    writer = threading.Thread(
      target=add, args=(queue.adder, range(41)), daemon=True
    )
    writer.start()
    time.sleep(0.5)
    assert writer.is_alive()
    stopped.set()
    writer.join(5)
    assert not writer.is_alive()


def test_writer_survives_a_restart_of_the_server():
  config = helpers.small_config(
    trajectory_length=2, batch_size=2, queue_batches=20
  )
  with Server(config) as queue:
    add(queue.adder, range(5))
    next(queue.batches)
    port = queue.server.port
  with Server(config, port=port) as again:
    add(queue.adder, range(5, 15), begin=False)
    sample = next(again.batches)
    assert sample.trajectory.observation.shape == (3, 2)


def test_a_queue_that_is_gone_has_no_fill():
  client = reverb.Client(f"localhost:{portpicker.pick_unused_port()}")
  assert np.isnan(ReverbQueue(client).fill)
  assert ReverbQueues([client, client]).num_items is None


def test_several_queues_are_read_as_one():
  config = helpers.small_config(
    "impala", batch_size=2, trajectory_length=3, queue_batches=4
  )
  builder = AgentBuilder(config, environments_per_actor=2, num_queues=2)
  # They share the room that one would have.
  assert builder.queue_size == 2
  spec = helpers.environment_spec()
  servers = [reverb.Server([make_table(builder, spec)]) for _ in range(2)]
  clients = [server.localhost_client() for server in servers]
  trajectory = helpers.trajectory(config)
  for number, client in enumerate(clients):
    writer = ReverbQueue(client)
    for version in range(2):
      writer.put(Sample(
        trajectory, np.full(2, 10 * number + version, np.int32)
      ))
  queue = ReverbQueues(clients)
  assert queue.fill == 1.0 and queue.num_items == 4
  batches = builder.make_batches(queue)
  versions = [int(next(batches).params_version[0]) for _ in range(4)]
  assert sorted(versions) == [0, 1, 10, 11]
  # Each in its own order.
  assert [v for v in versions if v < 10] == [0, 1]
  assert [v for v in versions if v >= 10] == [10, 11]
  for server in servers:
    server.stop()


def test_parts_without_elements_pass_the_queue():
  """Such as DeepMind's corridors without walls."""
  config = helpers.small_config(
    "impala", batch_size=2, trajectory_length=3, queue_batches=1
  )
  spec = helpers.environment_spec()._replace(observations={
    "speed": specs.Array((2,), np.float32),
    "walls": specs.BoundedArray((0,), np.float32, np.zeros(0), np.zeros(0)),
  })

  def timestep(number):
    return environments.base.first_time_step(
      {
        "speed": np.full((2, 2), number, np.float32),
        "walls": np.zeros((2, 0), np.float32),
      },
      2,
    )

  decision = Decision(np.zeros(2, np.int32), np.zeros(2, np.float32), (), 0)
  with Server(config, spec) as queue:
    queue.adder.add_first(timestep(0))
    for number in range(1, 5):
      queue.adder.add(decision, timestep(number))
    observation = next(queue.batches).trajectory.observation
  assert observation["walls"].shape == (4, 2, 0)
  np.testing.assert_array_equal(observation["speed"][:, 0, 0], range(4))
