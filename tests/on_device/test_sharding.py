"""Runs and batches spread over devices give what one device gives."""

import functools

import jax
import numpy as np
import pytest

import acme_stac
from acme_stac import environments, on_device
from tests.support.jax_environments import Corridor

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make(agent, **overrides):
  config = acme_stac.make_config(
    agent, "small", batch_size=4, trajectory_length=5, torso_sizes=(8,),
    head_sizes=(), num_environment_steps=200, **overrides,
  )
  spec = environments.environment_spec(Corridor())
  networks = acme_stac.make_networks(spec, config)
  trainer = on_device.make_trainer(Corridor(), networks, config)
  return trainer._replace(init=jax.jit(trainer.init))


def assert_same(sharded, single, devices):
  leaves = jax.tree_util.tree_leaves(sharded)
  assert {len(leaf.sharding.device_set) for leaf in leaves} == {devices}
  for one, other in zip(
    leaves, jax.tree_util.tree_leaves(single), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_batch_of_a_run_can_be_spread_over_devices():
  trainer = make("impala", lstm_size=4, trajectory_overlap=2)
  train = jax.jit(trainer.train, static_argnums=1)
  state = trainer.init(jax.random.PRNGKey(0))
  single, _ = train(state, 3)
  for devices in (2, 4):
    sharded, _ = train(
      on_device.shard_batch(state, jax.devices()[:devices]), 3
    )
    assert_same(sharded.training, single.training, devices)


def test_a_batch_that_was_collected_ahead_is_spread_too():
  state = make("metagradient_impala", lstm_size=4).init(jax.random.PRNGKey(0))
  ahead = on_device.shard_batch(state, jax.devices()[:2]).ahead
  assert ahead.reward.addressable_shards[0].data.shape == (6, 2)
  assert ahead.core_state[0].addressable_shards[0].data.shape == (2, 4)


def test_runs_can_be_spread_over_devices():
  trainer = make("impala")
  train = jax.jit(jax.vmap(functools.partial(trainer.train, num_updates=3)))
  states = jax.vmap(trainer.init)(jax.random.split(jax.random.PRNGKey(0), 4))
  single, _ = train(states)
  for devices in (2, 4):
    sharded, metrics = train(
      on_device.shard_runs(states, jax.devices()[:devices])
    )
    assert_same(sharded.training, single.training, devices)
    assert len(metrics["episodes"].sharding.device_set) == devices


def test_what_cannot_be_spread_evenly_is_refused():
  state = make("impala").init(jax.random.PRNGKey(0))
  with pytest.raises(ValueError, match="4 environments .* over 3 devices"):
    on_device.shard_batch(state, jax.devices()[:3])
  with pytest.raises(ValueError, match="2 runs .* over 3 devices"):
    on_device.shard_runs({"x": np.zeros([2, 5])}, jax.devices()[:3])
