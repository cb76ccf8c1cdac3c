import threading
import time

import jax
import numpy as np
import portpicker
import pytest
import reverb
from dm_env import specs

import acme_stac
from acme_stac import environment_loop, environments
from acme_stac.agent import adders, queues
from programs.launch import colocated
from tests.support import helpers


def sample(value, members=2):
  config = helpers.small_config("impala", batch_size=members)
  trajectory = helpers.trajectory(config, episode_ends=False)
  return queues.Sample(trajectory, np.full([members], value, np.int32))


def test_items_are_copies_in_order():
  queue = queues.LocalQueue(4)
  written = sample(0)
  for value in range(3):
    written.params_version[:] = value
    written.trajectory.reward[:] = value
    queue.put(written)
  assert queue.fill == queues.fill_of(queue) == 0.75
  items = queues.items_of(queue)
  for value in range(3):
    item = next(items)
    np.testing.assert_array_equal(item.params_version, value)
    np.testing.assert_array_equal(item.trajectory.reward, value)
  assert queue.fill == 0.0


def test_full_queue_blocks_until_there_is_room():
  queue = queues.LocalQueue(1)
  queue.put(sample(0))
  writer = threading.Thread(target=queue.put, args=[sample(1)])
  writer.start()
  time.sleep(0.2)
  assert writer.is_alive()
  items = queues.items_of(queue)
  assert next(items).params_version[0] == 0
  writer.join(5)
  assert not writer.is_alive()
  assert next(items).params_version[0] == 1


def test_stop_ends_what_waits():
  stop = threading.Event()
  queue = queues.LocalQueue(1, stop.is_set)
  queue.put(sample(0))
  writer = threading.Thread(target=queue.put, args=[sample(1)])
  writer.start()
  items = queues.items_of(queue)
  next(items)
  writer.join(5)
  next(items)
  reader = threading.Thread(target=lambda: list(items))
  reader.start()
  stop.set()
  reader.join(5)
  assert not reader.is_alive()


def test_actors_and_learner_on_devices_of_their_own():
  *learners, acting = jax.local_devices()[:3]
  config = helpers.small_config(
    "stac", lstm_size=4, batch_size=4, num_environment_steps=2000
  )
  environment = environments.make_batched("catch", 2, seed=0)
  spec = environments.environment_spec(environment)
  networks = acme_stac.make_networks(spec, config)
  builder = acme_stac.STACBuilder(
    config,
    environments_per_actor=2,
    learner_devices=learners,
    inference_device=acting,
  )
  queue = builder.make_local_queue()
  learner = builder.make_learner(
    jax.random.PRNGKey(0), networks, builder.make_dataset_iterator(queue),
    replay_client=queue,
  )

  class Source:
    """Variables that must not come over the host."""

    def get_variables(self, names):
      variables = learner.device_variables(names)
      for leaf in jax.tree_util.tree_leaves(variables):
        assert leaf.devices() == set(learners)
      return variables

  actor = builder.make_actor(
    jax.random.PRNGKey(1), builder.make_policy(networks, spec), spec, Source(),
    builder.make_adder(queue, spec),
  )
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  versions = []
  for step in range(3):
    for _ in range(2 * config.trajectory_length):
      loop.step(wait_for_variables=True)
    learner.step()
    versions.append(actor.fetch_variables())
    params = actor._variables.params[0]
    for leaf in jax.tree_util.tree_leaves(params):
      assert leaf.devices() == {acting}
    for ours, theirs in zip(
      jax.tree_util.tree_leaves(params),
      jax.tree_util.tree_leaves(learner.get_variables(["policy"])),
      strict=True,
    ):
      np.testing.assert_array_equal(ours, theirs)
    assert learner.num_steps == step + 1
  assert versions == [1, 2, 3]
  assert actor._state.head.devices() == {acting}


@pytest.mark.parametrize(
  "devices,batch_size,learners",
  [(1, 32, 1), (2, 32, 1), (3, 32, 2), (4, 32, 2), (8, 32, 4), (8, 35, 7),
   (8, 21, 7), (4, 1, 1)],
)
def test_split_of_devices(devices, batch_size, learners):
  learn, act = colocated.split_devices(list(range(devices)), batch_size)
  assert learn == list(range(learners))
  assert act == (list(range(learners, devices)) if devices > 1 else [0])


@pytest.mark.parametrize("field", ["observation", "reward", "core_state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_items_with_numbers_that_are_not_finite_are_dropped(field, value):
  config = helpers.small_config("impala", batch_size=4, lstm_size=3)
  half = helpers.small_config("impala", batch_size=2, lstm_size=3)
  items = []
  for number in range(6):
    trajectory = helpers.trajectory(half, seed=number)
    if number in (1, 4):
      array = jax.tree_util.tree_leaves(getattr(trajectory, field))[0]
      array.flat[-1] = value
    items.append(
      queues.Sample(trajectory, np.full(2, number, np.int32))
    )
  batches = queues.Batches(items, config)
  versions = [batch.params_version.tolist() for batch in batches]
  assert versions == [[0, 0, 2, 2], [3, 3, 5, 5]]
  assert batches.num_dropped == 4


def test_a_queue_that_is_gone_has_no_fill():
  client = reverb.Client(f"localhost:{portpicker.pick_unused_port()}")
  assert np.isnan(queues.fill_of(client))


def test_several_queues_are_read_as_one():
  config = helpers.small_config(
    "impala", batch_size=2, trajectory_length=3, queue_batches=4
  )
  parts = acme_stac.STACBuilder(
    config, environments_per_actor=2, num_queues=2
  )
  spec = helpers.environment_spec()
  servers = [
    reverb.Server(parts.make_replay_tables(spec)) for _ in range(2)
  ]
  clients = [server.localhost_client() for server in servers]
  # They share the room that one would have.
  infos = [client.server_info()[queues.QUEUE] for client in clients]
  assert [info.max_size for info in infos] == [2, 2]
  trajectory = helpers.trajectory(config)
  for number, client in enumerate(clients):
    writer = queues.make_writer(client)
    for version in range(2):
      writer.put(queues.Sample(
        trajectory, np.full(2, 10 * number + version, np.int32)
      ))
  assert queues.fill_of(clients) == 1.0
  batches = parts.make_dataset_iterator(clients)
  versions = [int(next(batches).params_version[0]) for _ in range(4)]
  assert sorted(versions) == [0, 1, 10, 11]
  # Each in its own order.
  assert [v for v in versions if v < 10] == [0, 1]
  assert [v for v in versions if v >= 10] == [10, 11]
  with pytest.raises(ValueError, match="writes to one queue"):
    queues.make_writer(clients)
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
  parts = acme_stac.STACBuilder(config, environments_per_actor=2)
  server = reverb.Server(parts.make_replay_tables(spec))
  client = server.localhost_client()
  adder = parts.make_adder(client, spec)
  extras = adders.Extras(np.zeros(2, np.float32), (), 0)

  def timestep(number):
    return environments.base.first_time_step(
      {
        "speed": np.full((2, 2), number, np.float32),
        "walls": np.zeros((2, 0), np.float32),
      },
      2,
    )

  adder.add_first(timestep(0))
  for number in range(1, 5):
    adder.add(np.zeros(2, np.int32), timestep(number), extras)
  sample = next(parts.make_dataset_iterator(client))
  server.stop()
  observation = sample.trajectory.observation
  assert observation["walls"].shape == (4, 2, 0)
  np.testing.assert_array_equal(observation["speed"][:, 0, 0], range(4))
