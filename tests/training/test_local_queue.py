import threading
import time

import jax
import numpy as np
import pytest

from acme_stac import environment_loop, environments
from acme_stac.networks import make_networks, make_policy
from acme_stac.training import AgentBuilder, LocalQueue
from acme_stac.training.samples import Batches, Sample
from tests.support import helpers


def sample(value, members=2):
  config = helpers.small_config("impala", batch_size=members)
  trajectory = helpers.trajectory(config, episode_ends=False)
  return Sample(trajectory, np.full([members], value, np.int32))


def test_items_come_in_order_and_uncopied():
  queue = LocalQueue(4)
  written = [sample(value) for value in range(3)]
  for item in written:
    queue.put(item)
  assert queue.fill == 0.75
  items = iter(queue)
  for value in range(3):
    item = next(items)
    assert item.params_version is written[value].params_version
    assert item.trajectory.observation is written[value].trajectory.observation
  assert queue.fill == 0.0


def test_full_queue_blocks_until_there_is_room():
  queue = LocalQueue(1)
  queue.put(sample(0))
  writer = threading.Thread(target=queue.put, args=[sample(1)])
  writer.start()
  time.sleep(0.2)
  assert writer.is_alive()
  items = iter(queue)
  assert next(items).params_version[0] == 0
  writer.join(5)
  assert not writer.is_alive()
  assert next(items).params_version[0] == 1


def test_stop_ends_what_waits():
  stop = threading.Event()
  queue = LocalQueue(1, stop.is_set)
  queue.put(sample(0))
  writer = threading.Thread(target=queue.put, args=[sample(1)])
  writer.start()
  items = iter(queue)
  next(items)
  writer.join(5)
  next(items)
  reader = threading.Thread(target=lambda: list(items))
  reader.start()
  stop.set()
  reader.join(5)
  assert not reader.is_alive()


def test_actors_and_learner_on_devices_of_their_own(quick_compilation):
  *learners, acting = jax.local_devices()[:3]
  config = helpers.small_config(
    "stac", lstm_size=4, batch_size=4, num_environment_steps=2000
  )
  environment = environments.make_batched("catch", 2, seed=0)
  spec = environments.environment_spec(environment)
  networks = make_networks(spec, config)
  builder = AgentBuilder(
    config,
    environments_per_actor=2,
    learner_devices=learners,
    inference_device=acting,
  )
  queue = builder.make_local_queue()
  learner = builder.make_learner(
    jax.random.PRNGKey(0), networks, builder.make_batches(queue)
  )

  class Source:
    """Variables that must not come over the host."""

    def get_variables(self, names):
      variables = learner.device_variables(names)
      for leaf in jax.tree_util.tree_leaves(variables):
        assert leaf.devices() == set(learners)
      return variables

  actor = builder.make_actor(
    jax.random.PRNGKey(1), make_policy(networks, config), Source(),
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
      Sample(trajectory, np.full(2, number, np.int32))
    )
  batches = Batches(items, config)
  versions = [batch.params_version.tolist() for batch in batches]
  assert versions == [[0, 0, 2, 2], [3, 3, 5, 5]]
  assert batches.num_dropped == 4
