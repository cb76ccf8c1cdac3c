"""The loop collects what environments do, and learns as the update does."""

import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_stac
from acme_stac import core, environment_loop, environments, on_device
from acme_stac.networks import make_policy
from acme_stac.training import AgentBuilder
from tests.support.jax_environments import Corridor, Place
from tests.training.test_actor import Source

FIRST, MID, LAST = map(int, dm_env.StepType)


def make(
  agent="impala", num_environments=None, environment=None, **overrides
):
  environment = environment or Corridor()
  spec = environments.environment_spec(environment)
  config = acme_stac.make_config(agent, "small", **{
    "batch_size": 4, "trajectory_length": 5, "torso_sizes": (8,),
    "head_sizes": (), "num_environment_steps": 200, **overrides,
  })
  networks = acme_stac.make_networks(spec, config)
  trainer = on_device.make_trainer(
    environment, networks, config, num_environments
  )
  # Compiled once for all calls of a test.
  return trainer._replace(
    init=jax.jit(trainer.init),
    collect=jax.jit(trainer.collect),
    train=jax.jit(trainer.train, static_argnames="num_updates"),
  ), networks, config


def collect_many(trainer, state, number):
  """Returns the batches of `number` calls of collect, and the last state."""
  batches = []
  for _ in range(number):
    state, trajectory, ended = trainer.collect(state)
    batches.append((jax.device_get(trajectory), jax.device_get(ended)))
  return batches, state


def assert_equal(left, right, rtol=0.0):
  for one, other in zip(
    jax.tree_util.tree_leaves(left), jax.tree_util.tree_leaves(right),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


def test_rows_are_what_the_environment_does_with_the_actions():
  trainer, _, _ = make()
  batches, _ = collect_many(trainer, trainer.init(jax.random.PRNGKey(0)), 8)
  # Consecutive batches share a row, whose action only the later one has.
  rows = core.Trajectory(*[
    np.concatenate([getattr(batch, name)[:-1] for batch, _ in batches])
    for name in core.Trajectory._fields[:-1]
  ])
  place = rows.observation[..., :5].argmax(-1)
  time = np.rint(10 * rows.observation[..., 5]).astype(int)
  seen = set()
  for member in range(4):
    for t in range(len(place)):
      kind = rows.step_type[t, member]
      if t == 0 or rows.step_type[t - 1, member] == LAST:
        assert kind == FIRST
        assert place[t, member] in (1, 2) and time[t, member] == 0
        assert rows.reward[t, member] == 0 and rows.discount[t, member] == 1
        continue
      moved = place[t - 1, member] + rows.action[t - 1, member] - 1
      assert place[t, member] == np.clip(moved, 0, 4)
      assert time[t, member] == time[t - 1, member] + 1
      terminated = place[t, member] == 4
      truncated = time[t, member] == 6
      assert kind == (LAST if terminated or truncated else MID)
      assert rows.discount[t, member] == (0.0 if terminated else 1.0)
      assert rows.reward[t, member] == pytest.approx(terminated - 0.1)
      seen.add((kind, bool(terminated)))
  assert seen == {(MID, False), (LAST, True), (LAST, False)}
  for batch, following in zip(batches, batches[1:], strict=False):
    assert_equal(batch[0].observation[-1], following[0].observation[0])
    assert_equal(batch[0].step_type[-1], following[0].step_type[0])


class Straight(Corridor):
  """A corridor without chance."""

  def reset(self, key):
    state = Place(jnp.int32(1), jnp.int32(0))
    return state, on_device.restart(self._observe(state))


def test_serial_collects_the_same_experience_with_the_same_parameters():
  # Logits so far apart leave nothing to chance in the policy either.
  trainer, networks, config = make(
    environment=Straight(), head_output_scale=1e5, queue_batches=10
  )
  init, collect = jax.jit(trainer.init), jax.jit(trainer.collect)
  builder = AgentBuilder(config, environments_per_actor=4)
  policy = make_policy(networks, config)
  spec = environments.environment_spec(Straight())
  endings = set()
  for seed in range(2, 5):
    state = init(jax.random.PRNGKey(seed))
    queue = builder.make_local_queue()
    loop = environment_loop.BatchedEnvironmentLoop(
      environments.make_batched(Straight, 4, seed=0),
      builder.make_actor(
        jax.random.PRNGKey(0), policy, Source(state.training.params),
        builder.make_adder(queue, spec),
      ),
    )
    for _ in range(2 * config.trajectory_length + 1):
      loop.step(wait_for_variables=True)
    batches = builder.make_batches(queue)
    for _ in range(2):
      state, trajectory, _ = collect(state)
      expected = next(batches).trajectory
      for name in core.Trajectory._fields[:-1]:
        # The last row has no decision yet.
        rows = slice(-1 if name in ("action", "behaviour_log_prob") else None)
        assert_equal(
          getattr(trajectory, name)[rows], getattr(expected, name)[rows]
        )
      ends = trajectory.step_type == LAST
      endings |= set(trajectory.discount[ends].tolist())
  # Terminal states and time limits.
  assert endings == {0.0, 1.0}


def test_ended_episodes_are_counted():
  trainer, _, _ = make()
  batches, _ = collect_many(trainer, trainer.init(jax.random.PRNGKey(1)), 12)
  returns, lengths = [], []
  running = np.zeros(4)
  length = np.zeros(4, int)
  for batch, _ in batches:
    for t in range(1, 6):
      first = batch.step_type[t] == FIRST
      running = np.where(first, 0.0, running + batch.reward[t])
      length = np.where(first, 0, length + 1)
      ended = batch.step_type[t] == LAST
      returns += list(running[ended])
      lengths += list(length[ended])
  counted = [sum(np.asarray(x)) for x in zip(*[e for _, e in batches],
                                             strict=True)]
  assert counted[0] == len(returns) > 5
  assert counted[1] == pytest.approx(sum(returns), rel=1e-5)
  assert counted[2] == sum(lengths)


@pytest.mark.parametrize(
  "agent, overrides",
  [
    ("impala", {
      "num_heads": 2, "behaviour": "random_head", "lstm_size": 4,
      "trajectory_overlap": 3,
    }),
    ("metagradient_impala", {}),  # Its outer batch is the next one.
    ("a2c_meta_gamma", {"batch_size": 2, "trajectory_length": 4}),
    ("gamma_embedding", {}),
  ],
)
def test_an_update_is_that_of_the_core_on_the_collected_batch(agent, overrides):
  trainer, networks, config = make(agent, **overrides)
  state = trainer.init(jax.random.PRNGKey(2))
  # From the second update on, overlapping and held batches have been in use.
  state, _ = trainer.train(state, 1)
  collected, newest, _ = trainer.collect(state)
  if config.batches_ahead:
    batches = [state.ahead, newest]
  elif config.batches_per_update == 2:
    batches = [newest, trainer.collect(collected)[1]]
  else:
    batches = [newest]
  update = jax.jit(core.make_update(networks, config).update)
  expected, expected_metrics = update(state.training, *batches)
  actual, metrics = trainer.train(state, 1)
  assert_equal(actual.training, expected)
  for name, value in expected_metrics.items():
    assert_equal(metrics[name][0], value, rtol=1e-4)


def test_learning_is_on_policy():
  trainer, _, _ = make("impala", lstm_size=4)
  state = trainer.init(jax.random.PRNGKey(3))
  _, metrics = trainer.train(state, 10)
  np.testing.assert_allclose(metrics["importance_weight_mean"], 1.0, rtol=1e-5)
  np.testing.assert_allclose(metrics["importance_weight_max"], 1.0, rtol=1e-5)
  assert not np.any(metrics["importance_weight_clipped"])


def test_overlapping_trajectories_share_their_decisions_and_core_states():
  trainer, networks, config = make(
    "impala", lstm_size=4, trajectory_overlap=3
  )
  batches, state = collect_many(
    trainer, trainer.init(jax.random.PRNGKey(4)), 3
  )
  (first, _), (second, _), _ = batches
  for name in ("action", "behaviour_log_prob", "reward", "step_type"):
    assert_equal(getattr(first, name)[2:5], getattr(second, name)[:3])
  # The parameters have not changed, so the core states lead to the same policy.
  log_prob = core.Categorical().log_prob(
    networks.unroll(
      state.training.params, second.observation, second.core_state,
      second.step_type, core.conditioning({}, config),
    ).policy[:5, :, 0],
    second.action[:5],
  )
  assert_equal(log_prob, second.behaviour_log_prob[:5], rtol=1e-5)


def test_a_batch_can_be_made_of_consecutive_trajectories():
  trainer, _, _ = make("impala", num_environments=2, lstm_size=4)
  state = trainer.init(jax.random.PRNGKey(5))
  state, batch, _ = trainer.collect(state)
  assert batch.reward.shape == (6, 4)
  assert batch.core_state[0].shape == (4, 4)
  assert_equal(batch.observation[-1, :2], batch.observation[0, 2:])
  with pytest.raises(ValueError, match=r"num_environments \(3\) must divide"):
    make("impala", num_environments=3)


def test_a_seed_among_others_gives_the_results_that_it_gives_alone():
  trainer, _, _ = make("impala")
  train = functools.partial(trainer.train, num_updates=5)
  keys = jax.random.split(jax.random.PRNGKey(6), 3)
  _, together = jax.jit(lambda keys: jax.vmap(train)(
    jax.vmap(trainer.init)(keys)
  ))(keys)
  _, alone = jax.jit(lambda key: train(trainer.init(key)))(keys[1])
  for name, values in alone.items():
    np.testing.assert_allclose(
      together[name][1], values, rtol=1e-3, atol=1e-5, err_msg=name
    )


@pytest.mark.parametrize(
  "backend, devices", [("cpu", 1), ("cpu", 2), ("gpu", 1)]
)
def test_runs_are_mapped_as_vmap_maps_them(backend, devices, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  rows = jnp.arange(6.0).reshape(3, 2)

  def function(tree, row):
    return {"sum": tree["a"] + row.sum()}, row[0]

  expected = jax.vmap(function)({"a": rows[:, 1]}, rows)
  assert_equal(
    on_device.map_runs(function, devices)({"a": rows[:, 1]}, rows), expected
  )


def test_hyperparameters_can_differ_within_a_program():
  values = {
    "learning_rate": [1e-3, 2e-3], "kl_cost": [0.0, 1.0],
    "discount": [0.9, 0.99], "rmsprop_eps": [0.1, 0.01],
    "entropy_cost": [0.0, 0.1], "metaparameter_init": [1.0, 4.6],
    "meta_learning_rate": [0.1, 0.01], "reward_scale": [1.0, 2.0],
    "max_gradient_norm": [1.0, 40.0], "lambda_": [0.9, 1.0],
  }
  trainer, _, _ = make("stac")
  key = jax.random.PRNGKey(7)
  states = jax.vmap(trainer.init, in_axes=(None, 0))(
    key, {name: jnp.array(pair) for name, pair in values.items()}
  )
  together, _ = jax.jit(jax.vmap(
    functools.partial(trainer.train, num_updates=3)
  ))(states)
  fixed, _, _ = make("stac", **{name: pair[0] for name, pair in values.items()})
  alone, _ = fixed.train(fixed.init(key), 3)
  one = jax.tree_util.tree_map(lambda x: x[0], together.training)
  assert_equal(one, alone.training, rtol=1e-4)


def test_names_of_hyperparameters_are_checked():
  trainer, _, _ = make("impala")
  key = jax.random.PRNGKey(0)
  with pytest.raises(ValueError, match="'learning_rte'.*learning_rate"):
    trainer.init(key, {"learning_rte": 1e-3})
  with pytest.raises(ValueError, match="batch_size"):
    trainer.init(key, {"batch_size": 3})
  unclipped, _, _ = make("impala", max_gradient_norm=None)
  with pytest.raises(ValueError, match="max_gradient_norm is None"):
    unclipped.init(key, {"max_gradient_norm": 1.0})


def test_an_evaluation_plays_whole_episodes():
  trainer, networks, config = make("impala")
  state = trainer.init(jax.random.PRNGKey(8))

  def evaluate(number, steps):
    return jax.device_get(jax.jit(on_device.make_evaluator(
      Corridor(), networks, config, number, steps
    ))(state.training, jax.random.PRNGKey(9)))

  whole = evaluate(32, 100)
  assert not whole.cut_off.any()
  assert whole.length.min() >= 2 and whole.length.max() == 6
  reached = whole.episode_return + 0.1 * whole.length
  np.testing.assert_allclose(reached, np.rint(reached), atol=1e-5)
  assert set(np.rint(reached)) == {0.0, 1.0}
  cut = evaluate(32, 3)
  np.testing.assert_array_equal(cut.cut_off, whole.length > 3)
  np.testing.assert_array_equal(cut.length, np.minimum(whole.length, 3))


def test_it_learns_to_reach_the_end():
  trainer, _, _ = make(
    "impala", batch_size=16, num_environment_steps=60_000, trajectory_length=10,
    max_abs_reward=None, learning_rate=3e-3,
  )
  state = trainer.init(jax.random.PRNGKey(10))
  _, metrics = trainer.train(state, 300)
  returns = metrics["episode_return_sum"] / metrics["episodes"]
  assert np.mean(returns[:10]) < 0.4
  assert np.mean(returns[-30:]) > 0.7
