"""Actors, loops and learner together, on a queue in this process."""

import functools

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac import core, environment_loop, environments
from acme_stac.networks import make_policy
from acme_stac.training import AgentBuilder
from tests.support import helpers


class Source:
  def __init__(self, params, conditioning=helpers.NOTHING_EMBEDDED):
    self.variables = {
      "policy": params, "version": 0, "conditioning": conditioning
    }

  def get_variables(self, names):
    return [self.variables[name] for name in names]


def make_actor(environment, config):
  """Returns an actor that writes nothing."""
  spec = environments.environment_spec(environment)
  networks = acme_stac.make_networks(spec, config)
  return AgentBuilder(config).make_actor(
    jax.random.PRNGKey(0),
    make_policy(networks, config),
    Source(networks.init(jax.random.PRNGKey(0))),
  )


OVERLAP = {"trajectory_length": 40, "trajectory_overlap": 30}
LSTM = {"lstm_size": 8}


@pytest.mark.parametrize(
  "name,agent,overrides",
  [
    ("catch", "stacx", {}),
    ("catch", "stacx", LSTM),
    ("catch", "stacx", {**LSTM, "trajectory_overlap": 5}),
    ("catch", "stacx", {"torso": "deep", "torso_sizes": (4,), **LSTM}),
    ("catch", "stacx", {"torso": "deep_strided", "torso_sizes": (4,), **LSTM}),
    ("catch", "stacx_random_ensemble", {}),
    ("catch", "stacx_random_ensemble", {**LSTM, "trajectory_overlap": 5}),
    ("catch", "stacx_average_ensemble", LSTM),
    ("catch", "stacx_gamma_embedding", {"embedding_per_head": True, **LSTM}),
    ("gymnasium:CartPole-v1", "stacx", LSTM),
    ("gymnasium:CartPole-v1", "a2c_meta_gamma", {}),
    ("gymnasium:Pendulum-v1", "stacx", {**LSTM, "trajectory_overlap": 5}),
    ("control:cartpole/swingup", "stac", {**LSTM, **OVERLAP}),
    ("control:walker/walk", "stacx_average_ensemble", LSTM),
    ("atari:pong", "stacx", {"torso": "shallow"}),
    ("atari:pong", "stac", {"torso": "deep", "torso_sizes": (4, 4), **LSTM}),
  ],
)
def test_unrolling_a_stored_sequence_reproduces_the_behaviour(
  name, agent, overrides
):
  """With unchanged parameters every importance weight is 1."""
  config = helpers.small_config(
    agent,
    **{"trajectory_length": 7, "batch_size": 4, "queue_batches": 10,
       **overrides},
  )
  environment = environments.make_batched(name, 2, seed=0)
  spec = environments.environment_spec(environment)
  networks = acme_stac.make_networks(spec, config)
  params = networks.init(jax.random.PRNGKey(1))
  # Unequal values: each head is to see its own.
  eta = jax.tree_util.tree_map(
    lambda x: x - np.arange(x.size, dtype="f"), core.init_metaparams(config)
  )
  condition = core.conditioning(eta, config)
  parts = AgentBuilder(config, environments_per_actor=2)
  queue = parts.make_local_queue()
  actor = parts.make_actor(
    jax.random.PRNGKey(2), make_policy(networks, config),
    Source(params, condition), parts.make_adder(queue, spec),
  )
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  length = config.trajectory_length
  # Two environments and batches of four: two items a batch.
  for _ in range(4 * length + 1):
    loop.step(wait_for_variables=True)
  batches = parts.make_batches(queue)
  ends = 0
  for _ in range(2):
    trajectory = next(batches).trajectory
    output = networks.unroll(
      params,
      trajectory.observation,
      trajectory.core_state,
      trajectory.step_type,
      condition,
    )
    policies = core.acting_output(output, config).policy
    errors = np.stack([
      np.abs(
        networks.distribution.log_prob(policies[:, :, i], trajectory.action)
        - trajectory.behaviour_log_prob
      )[:-1]
      for i in range(policies.shape[2])
    ])
    # Each step was made by one of the policies that may act.
    assert errors.min(0).max() < 3e-5
    assert trajectory.action.dtype == networks.action_space.spec.dtype
    ends += (trajectory.step_type == 2).sum()
  if name in ("catch", "gymnasium:CartPole-v1"):
    assert ends > 0


@pytest.mark.parametrize("lstm_size", [None, 4])
def test_inference_compiles_once(lstm_size):
  """For all episodes, streams and parameters."""
  environment = environments.make_batched("catch", 3, seed=0, rows=3)
  actor = make_actor(environment, helpers.small_config(lstm_size=lstm_size))
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  for _ in range(2):
    loop.reset()
    actor.fetch_variables()
    for _ in range(7):
      loop.step()
  assert actor._inference._select._cache_size() == 1


def test_parameters_are_fetched_between_trajectories():
  """What the learner knows when a trajectory starts acts in its first step."""
  config = helpers.small_config(queue_batches=10)
  environment = environments.make_batched("catch", 4, seed=0)
  spec = environments.environment_spec(environment)
  networks = acme_stac.make_networks(spec, config)
  source = Source(networks.init(jax.random.PRNGKey(0)))
  parts = AgentBuilder(config, environments_per_actor=4)
  queue = parts.make_local_queue()
  adder = parts.make_adder(queue, spec)
  actor = parts.make_actor(
    jax.random.PRNGKey(0), make_policy(networks, config), source, adder
  )
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  batches = parts.make_batches(queue)
  for item in range(4):
    # As if the learner had learned from the last item.
    source.variables["version"] = item
    while adder.num_items == item:
      loop.step(wait_for_variables=True)
    np.testing.assert_array_equal(next(batches).params_version, item)


def test_random_ensemble_keeps_its_head_for_an_episode():
  config = helpers.small_config("stacx_random_ensemble", num_heads=4)
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  policy = make_policy(networks, config)
  state, key = policy.initial_state(200), jax.random.PRNGKey(1)
  select = functools.partial(
    jax.jit(policy.select_action), conditioning=helpers.NOTHING_EMBEDDED
  )
  observation = np.random.default_rng(0).normal(size=(200, 4)).astype("f")
  first = np.zeros(200, np.int32)
  _, _, start, key = select(params, observation, first, state, key)
  counts = np.bincount(start.head, minlength=4)
  assert counts.min() > 25
  _, log_prob, later, key = select(params, observation, first + 1, start, key)
  np.testing.assert_array_equal(later.head, start.head)
  half = first.copy()
  half[:100] = 1
  action, log_prob, later, _ = select(params, observation, half, start, key)
  np.testing.assert_array_equal(later.head[:100], start.head[:100])
  assert np.mean(later.head[100:] == start.head[100:]) < 0.5
  output, _ = networks.step(
    params, observation, (), half, helpers.NOTHING_EMBEDDED
  )
  chosen = np.asarray(output.policy)[np.arange(200), later.head]
  np.testing.assert_allclose(
    log_prob, networks.distribution.log_prob(chosen, action), rtol=1e-4
  )


def test_average_ensemble_acts_by_the_mean_logits():
  config = helpers.small_config("stacx_average_ensemble")
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  policy = make_policy(networks, config)
  observation = np.random.default_rng(0).normal(size=(64, 4)).astype("f")
  step_type = np.ones(64, np.int32)
  action, log_prob, _, _ = policy.select_action(
    params, observation, step_type, policy.initial_state(64),
    jax.random.PRNGKey(0),
    helpers.NOTHING_EMBEDDED,
  )
  output, _ = networks.step(
    params, observation, (), step_type, helpers.NOTHING_EMBEDDED
  )
  logits = np.mean(output.policy, axis=1)
  expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  np.testing.assert_allclose(
    log_prob, expected[np.arange(64), action], rtol=1e-4
  )


def test_loop_counts_episodes():
  environment = environments.make_batched("catch", 8, seed=0)
  actor = make_actor(environment, helpers.small_config())
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  episodes = sum((loop.step() for _ in range(10 * 10)), [])
  assert len(episodes) == 80
  assert {e.length for e in episodes} == {9}
  assert {e.episode_return for e in episodes} == {1.0, -1.0}
  assert not any(e.truncated for e in episodes)
  assert set(loop.seconds) == {"environment", "inference", "writing"}
  found = environment_loop.evaluate(environment, actor, 20)
  # Rounded up to the same number from every member.
  members = [episode.member for episode in found.episodes]
  assert found.num_cut_off == 0
  assert sorted(members) == sorted([*range(8)] * 3)
  assert environment_loop.evaluate(environment, actor, 8, lambda: True) is None


@pytest.mark.parametrize("ends_after", [None, 9])
def test_an_episode_beyond_the_limit_is_cut_off_and_counted(ends_after):
  class Endless(dm_env.Environment):
    """Gives a reward of 1 a step, and ends after so many, or never."""

    def reset(self):
      self._steps = 0
      return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
      self._steps += 1
      end = self._steps == ends_after
      step = dm_env.termination if end else dm_env.transition
      return step(1.0, np.zeros(2, np.float32))

    def observation_spec(self):
      return specs.Array((2,), np.float32)

    def action_spec(self):
      return specs.DiscreteArray(3)

  environment = environments.BatchOfEnvironments([Endless(), Endless()])
  actor = make_actor(environment, helpers.small_config())
  progress = []
  found = environment_loop.evaluate(
    environment, actor, 6, max_episode_steps=7, report_progress=progress.append
  )
  assert found.num_cut_off == 6
  assert progress[-1] == 6 and progress == sorted(progress)
  # None is the rest of one that was cut off.
  assert {
    (e.episode_return, e.length, e.truncated) for e in found.episodes
  } == {(7.0, 7, True)}
  assert sorted(e.member for e in found.episodes) == [0, 0, 0, 1, 1, 1]


def test_greedy_policy_takes_the_mode():
  config = helpers.small_config()
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  observation = np.random.default_rng(0).normal(size=(64, 4)).astype("f")
  step_type = np.ones(64, np.int32)
  logits = networks.step(
    params, observation, (), step_type, helpers.NOTHING_EMBEDDED
  )[0].policy[:, 0]
  policy = make_policy(networks, config, greedy=True)
  greedy, _, _, _ = policy.select_action(
    params,
    observation,
    step_type,
    policy.initial_state(64),
    jax.random.PRNGKey(0),
    helpers.NOTHING_EMBEDDED,
  )
  np.testing.assert_array_equal(greedy, np.argmax(logits, -1))
  policy = make_policy(networks, config)
  sampled, _, _, _ = policy.select_action(
    params,
    observation,
    step_type,
    policy.initial_state(64),
    jax.random.PRNGKey(0),
    helpers.NOTHING_EMBEDDED,
  )
  assert np.any(sampled != greedy)
