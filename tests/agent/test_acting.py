"""The policy in Acme's own actor and environment loop."""

import acme_stac.agent  # isort: skip  # Before anything of acme.jax.

import collections
import types

import dm_env
import jax
import numpy as np
import pytest
import reverb
from acme import core, environment_loop, specs
from acme.agents.jax import actors
from acme.jax import variable_utils

from acme_stac import environments
from acme_stac.networks import make_policy
from acme_stac.training import Actor
from acme_stac.training.inference import Inference
from acme_stac.training.variables import ACTOR_VARIABLES, VariableClient
from tests.support import helpers

# Values [P, K] of K = 0 metaparameters for P = 3 heads.
NOTHING_EMBEDDED = np.zeros((3, 0), np.float32)


class Source(core.VariableSource):
  def __init__(self, params):
    self._variables = {
      "policy": params, "version": np.int32(7), "conditioning": NOTHING_EMBEDDED
    }

  def get_variables(self, names):
    return [self._variables[name] for name in names]


class Record:
  """An adder that keeps decisions, with Acme's interface and with ours."""

  num_items = 0

  def __init__(self):
    self.decisions = []

  def add_first(self, timestep):
    pass

  def add(self, *arguments, extras=None):
    self.decisions.append(arguments[0] if extras is None else extras)


@pytest.mark.parametrize("lstm_size", [None, 4])
def test_acmes_generic_actor_acts_as_ours(lstm_size):
  config = helpers.small_config(
    "stacx_random_ensemble", lstm_size=lstm_size
  )
  spec = specs.make_environment_spec(environments.make("catch", seed=0))
  networks = acme_stac.make_networks(spec, config)
  source = Source(networks.init(jax.random.PRNGKey(0)))
  key = jax.random.PRNGKey(1)

  theirs = Record()
  generic = actors.GenericActor(
    acme_stac.STACBuilder(config).make_policy(networks, spec),
    key,
    variable_utils.VariableClient(
      source, ACTOR_VARIABLES, device="cpu"
    ),
    theirs,
  )
  environment_loop.EnvironmentLoop(
    environments.make("catch", seed=0), generic
  ).run_episode()

  ours = Record()
  # The key that Acme's actor gives to an episode.
  _, episode_key = jax.random.split(key)
  device = jax.local_devices(backend="cpu")[0]
  actor = Actor(
    Inference(make_policy(networks, config), device), episode_key,
    VariableClient(source, device),
    ours,
  )
  environment = environments.make_batched("catch", 1, seed=0)
  timestep = environment.reset()
  actor.observe_first(timestep)
  while timestep.step_type[0] != dm_env.StepType.LAST:
    actor.start(timestep)
    timestep = environment.step(actor.finish())
    actor.observe(timestep)

  assert len(ours.decisions) == len(theirs.decisions) == 9
  for a, b in zip(ours.decisions, theirs.decisions, strict=True):
    np.testing.assert_array_equal(a.action[0], b.action)
    np.testing.assert_allclose(a.log_prob[0], b.log_prob, rtol=1e-6)
    assert a.params_version == b.params_version == 7
    jax.tree_util.tree_map(
      lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-6),
      a.core_state, b.core_state,
    )


def test_an_inference_server_may_act_for_several_actors():
  """It stacks their observations and states along a new axis."""
  config = helpers.small_config(lstm_size=4)
  spec = helpers.environment_spec()
  networks = acme_stac.make_networks(spec, config)
  policy = acme_stac.STACBuilder(config).make_policy(networks, spec)
  variables = [
    networks.init(jax.random.PRNGKey(0)), np.int32(3), NOTHING_EMBEDDED
  ]
  observations = np.random.default_rng(0).normal(size=(5, 4)).astype("f")
  states = jax.vmap(policy.init)(jax.random.split(jax.random.PRNGKey(1), 5))
  handler = jax.jit(jax.vmap(policy.select_action, in_axes=(None, 0, 0)))
  for _ in range(2):
    actions, following = handler(variables, observations, states)
    for index in range(5):
      state = jax.tree_util.tree_map(lambda x, i=index: x[i], states)
      action, alone = policy.select_action(
        variables, observations[index], state
      )
      assert action == actions[index]
      np.testing.assert_allclose(
        policy.get_extras(alone).log_prob,
        policy.get_extras(following).log_prob[index], rtol=1e-5,
      )
    states = following


def test_acme_environment_loop_fills_the_queue():
  """A single dm_env environment in Acme's own loop."""
  environment = environments.make("catch", seed=0)
  spec = specs.make_environment_spec(environment)
  config = helpers.small_config(
    trajectory_length=7, batch_size=2, queue_batches=50
  )
  networks = acme_stac.make_networks(spec, config)
  parts = acme_stac.STACBuilder(config)
  server = reverb.Server(parts.make_replay_tables(spec))
  client = reverb.Client(f"localhost:{server.port}")
  policy = parts.make_policy(networks=networks, environment_spec=spec)
  actor = parts.make_actor(
    jax.random.PRNGKey(1),
    policy,
    environment_spec=spec,
    variable_source=Source(networks.init(jax.random.PRNGKey(0))),
    adder=parts.make_adder(client, spec, policy),
  )
  loop = environment_loop.EnvironmentLoop(environment, actor)
  results = [loop.run_episode() for _ in range(10)]
  assert {result["episode_length"] for result in results} == {9}
  assert client.server_info()["trajectories"].current_size == 10 * 10 // 7
  server.stop()


def container(kind):
  """Returns a function that puts two parts into an observation."""
  return {
    "dict": lambda b, a: {"b": b, "a": a},
    "ordered": lambda b, a: collections.OrderedDict(b=b, a=a),
    "other order": lambda b, a: collections.OrderedDict(a=a, b=b),
    "mapping": lambda b, a: types.MappingProxyType({"b": b, "a": a}),
    "more": lambda b, a: {"a": a, "aa": np.zeros(3), "b": b},
    "list": lambda b, a: [b, {"a": [a]}],
    "tuple": lambda b, a: (b, {"a": (a,)}),
  }[kind]


class Parts(dm_env.Environment):
  """Four steps with observations of two parts."""

  def __init__(self, spec, observation):
    self._spec = container(spec)
    self._observe = container(observation)
    self._time = 0

  def _observation(self):
    return self._observe(
      np.array([5.0, self._time], np.float32), np.array([-1, 0], np.float32)
    )

  def reset(self):
    self._time = 0
    return dm_env.restart(self._observation())

  def step(self, action):
    self._time += 1
    following = dm_env.termination if self._time > 4 else dm_env.transition
    return following(1.0, self._observation())

  def observation_spec(self):
    part = specs.Array((2,), np.float32)
    return self._spec(part, part)

  def action_spec(self):
    return specs.DiscreteArray(3)


@pytest.mark.parametrize("spec,observation", [
  ("dict", "dict"),
  ("dict", "other order"),
  ("dict", "ordered"),
  ("dict", "more"),
  ("ordered", "ordered"),
  ("ordered", "dict"),
  ("ordered", "other order"),
  ("ordered", "mapping"),
  ("list", "list"),
  ("list", "tuple"),
  ("tuple", "list"),
])
def test_actor_and_learner_see_the_same_in_every_container(spec, observation):
  """Through Acme's loop and Reverb: the first update is on-policy."""
  environment = Parts(spec, observation)
  environment_spec = specs.make_environment_spec(environment)
  config = helpers.small_config(
    "impala", batch_size=1, trajectory_length=3, head_output_scale=3.0
  )
  networks = acme_stac.make_networks(environment_spec, config)
  builder = acme_stac.STACBuilder(
    config, log_every_seconds=0.0, learner_devices=jax.local_devices()[:1]
  )
  server = reverb.Server(builder.make_replay_tables(environment_spec))
  client = reverb.Client(f"localhost:{server.port}")
  rows = []
  learner = builder.make_learner(
    jax.random.PRNGKey(0), networks, builder.make_dataset_iterator(client),
    lambda label: types.SimpleNamespace(write=rows.append), environment_spec,
  )
  actor = builder.make_actor(
    jax.random.PRNGKey(1), builder.make_policy(networks, environment_spec),
    environment_spec, learner, builder.make_adder(client, environment_spec),
  )
  environment_loop.EnvironmentLoop(environment, actor).run_episode()
  learner.step()
  server.stop()
  np.testing.assert_allclose(
    [rows[0][f"importance_weight_{name}"] for name in ("mean", "max")], 1.0,
    rtol=1e-5,
  )
