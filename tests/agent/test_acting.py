"""Actors, loops and learner together, on a real queue in this process."""

import jax
import numpy as np
import pytest
import reverb
from acme import core as acme_core
from acme import specs

import acme_stac
from acme_stac import environments
from acme_stac.agent import builder, environment_loop
from tests import helpers


class Source(acme_core.VariableSource):
  def __init__(self, params, version=0):
    self.params, self.version = params, version

  def get_variables(self, names):
    return [{"policy": self.params, "version": self.version}[n] for n in names]


@pytest.mark.parametrize(
  "name,overrides",
  [
    ("catch", {}),
    ("catch", {"lstm_size": 8}),
    ("catch", {"lstm_size": 8, "trajectory_overlap": 5}),
    ("gymnasium:CartPole-v1", {"lstm_size": 8}),
    ("atari:pong", {"torso": "shallow"}),
  ],
)
def test_unrolling_a_stored_sequence_reproduces_the_behaviour(name, overrides):
  """With unchanged parameters every importance weight is 1."""
  config = helpers.small_config(
    **{"trajectory_length": 7, "batch_size": 4, "queue_batches": 10,
       **overrides}
  )
  environment = environments.make_batched(name, 2, seed=0)
  spec = environments.environment_spec(environment)
  networks = acme_stac.make_networks(spec, config)
  params = networks.init(jax.random.PRNGKey(1))
  parts = builder.STACBuilder(config, environments_per_actor=2)
  server = reverb.Server(parts.make_replay_tables(spec))
  client = reverb.Client(f"localhost:{server.port}")
  policy = parts.make_policy(networks, spec)
  actor = parts.make_actor(
    jax.random.PRNGKey(2), policy, spec, Source(params),
    parts.make_adder(client, spec, policy),
  )
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  for _ in range(45):
    loop.step(wait_for_variables=True)
  batches = parts.make_dataset_iterator(client)
  ends = 0
  for _ in range(2):
    trajectory = next(batches).trajectory
    output = networks.unroll(
      params,
      trajectory.observation,
      trajectory.core_state,
      trajectory.step_type,
    )
    log_prob = networks.distribution.log_prob(
      output.policy[:, :, 0], trajectory.action
    )
    np.testing.assert_allclose(
      log_prob[:-1], trajectory.behaviour_log_prob[:-1], atol=2e-5
    )
    ends += (trajectory.step_type == 2).sum()
  if name != "atari:pong":
    assert ends > 0
  server.stop()


def test_loop_counts_episodes():
  environment = environments.make_batched("catch", 8, seed=0)
  spec = environments.environment_spec(environment)
  config = helpers.small_config()
  networks = acme_stac.make_networks(spec, config)
  parts = builder.STACBuilder(config)
  actor = parts.make_actor(
    jax.random.PRNGKey(0),
    parts.make_policy(networks, spec),
    spec,
    Source(networks.init(jax.random.PRNGKey(0))),
  )
  loop = environment_loop.BatchedEnvironmentLoop(environment, actor)
  episodes = sum((loop.step() for _ in range(10 * 10)), [])
  assert len(episodes) == 80
  assert {e.length for e in episodes} == {9}
  assert {e.episode_return for e in episodes} == {1.0, -1.0}
  assert not any(e.truncated for e in episodes)
  assert set(loop.seconds) == {"environment", "inference", "writing"}
  found = environment_loop.evaluate(environment, actor, 20)
  # Rounded up to the same number from every member.
  members = [episode.member for episode in found]
  assert sorted(members) == sorted([*range(8)] * 3)
  assert environment_loop.evaluate(environment, actor, 8, lambda: True) is None


def test_greedy_policy_takes_the_mode():
  config = helpers.small_config()
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  parts = builder.STACBuilder(config)
  observation = np.random.default_rng(0).normal(size=(64, 4)).astype("f")
  step_type = np.ones(64, np.int32)
  logits = networks.step(params, observation, (), step_type)[0].policy[:, 0]
  policy = parts.make_policy(networks, evaluation=True)
  greedy, _, _, _ = policy.select_action(
    params,
    observation,
    step_type,
    policy.initial_state(64),
    jax.random.PRNGKey(0),
  )
  np.testing.assert_array_equal(greedy, np.argmax(logits, -1))
  policy = parts.make_policy(networks)
  sampled, _, _, _ = policy.select_action(
    params,
    observation,
    step_type,
    policy.initial_state(64),
    jax.random.PRNGKey(0),
  )
  assert np.any(sampled != greedy)


def test_acme_environment_loop_drives_the_actor():
  """Single dm_env environment, Acme's own loop and specs."""
  from acme import environment_loop as acme_loop

  environment = environments.make("catch", seed=0)
  spec = specs.make_environment_spec(environment)
  config = helpers.small_config(trajectory_length=7, batch_size=2,
                                queue_batches=50)
  networks = acme_stac.make_networks(spec, config)
  parts = acme_stac.STACBuilder(config)
  server = reverb.Server(parts.make_replay_tables(spec))
  client = reverb.Client(f"localhost:{server.port}")
  policy = parts.make_policy(networks=networks, environment_spec=spec)
  source = Source(networks.init(jax.random.PRNGKey(0)))
  actor = parts.make_actor(
    jax.random.PRNGKey(1),
    policy,
    environment_spec=spec,
    variable_source=source,
    adder=parts.make_adder(client, spec, policy),
  )
  loop = acme_loop.EnvironmentLoop(environment, actor)
  results = [loop.run_episode() for _ in range(10)]
  assert {result["episode_length"] for result in results} == {9}
  assert client.server_info()["trajectories"].current_size == 10 * 10 // 7
  server.stop()
