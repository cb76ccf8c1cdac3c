"""Policies in plain files, without the distributed stack."""

import dataclasses
import json
import subprocess
import sys
import types

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac import core, environments, policies
from acme_stac.agent import checkpointing
from programs import export
from programs.machine import UserError
from tests import helpers
from tests.core import test_imports

METADATA = {
  "agent": "stacx", "environment": "catch", "environment_steps": 1200,
}


def save(workdir, spec, config, metadata=None):
  """Writes a checkpoint as a learner does; returns its state and networks."""
  networks = acme_stac.make_networks(spec, config)
  state = core.make_update(networks, config).init(jax.random.PRNGKey(3))
  # Values that differ, so that a mix-up of metaparameters shows.
  eta = {
    name: value + 0.3 * np.arange(value.size) + len(name)
    for name, value in state.metaparams.items()
  }
  state = state._replace(metaparams=eta)
  checkpointing.save(
    workdir / "checkpoints", 7, state,
    {
      **METADATA,
      "number": 1,
      "config": dataclasses.asdict(config),
      "environment_spec": environments.spec_to_json(spec),
      **(metadata or {}),
    },
  )
  return state, networks


def by_hand(networks, state, config, observations, first):
  """Returns the modes of the acting policy along one stream."""
  output = networks.unroll(
    state.params,
    jax.tree_util.tree_map(lambda x: np.asarray(x)[:, None], observations),
    networks.initial_state(1),
    np.where(first, dm_env.StepType.FIRST, dm_env.StepType.MID)[:, None],
    *filter(
      lambda x: x is not None, [core.conditioning(state.metaparams, config)]
    ),
  )
  policy = core.acting_output(output, config).policy[:, 0, 0]
  action = np.asarray(networks.distribution.mode(policy))
  return networks.action_space.to_environment(action)


@pytest.mark.parametrize("actions", [3, helpers.CONTINUOUS])
@pytest.mark.parametrize("overrides", [
  {}, {"lstm_size": 8}, {"embedded": ("discount", "alpha")},
  {"behaviour": "average"}, {"num_heads": 1, "self_tuned": ()},
])
def test_acts_as_the_networks_do(tmp_path, actions, overrides):
  config = helpers.small_config(**overrides)
  spec = helpers.environment_spec(actions=actions)
  state, networks = save(tmp_path, spec, config)
  rng = np.random.default_rng(0)
  observations = (5 * rng.normal(size=(30, 4))).astype(np.float32)
  first = np.zeros(30, bool)
  first[[0, 15]] = True
  expected = by_hand(networks, state, config, observations, first)
  assert len(np.unique(expected, axis=0)) > 1
  policies.export_policy(tmp_path, tmp_path / "policy.npz")
  for path in (tmp_path, tmp_path / "policy.npz"):
    policy = acme_stac.load_policy(path, greedy=True)
    assert policy.config == config
    assert policy.metadata["environment_steps"] == 1200
    episode = policy.initial_state()
    actual = []
    for observation, begins in zip(observations, first, strict=True):
      if begins:
        episode = policy.initial_state()
      actual.append(policy(observation, episode))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert actual[0].dtype == spec.actions.dtype


def test_batches_whose_episodes_begin_apart(tmp_path):
  config = helpers.small_config(lstm_size=8)
  spec = helpers.environment_spec(actions=helpers.CONTINUOUS)
  state, networks = save(tmp_path, spec, config)
  observations = np.random.default_rng(0).normal(size=(9, 2, 4))
  first = np.zeros((9, 2), bool)
  first[0] = first[3, 0] = first[6, 1] = True
  policy = acme_stac.load_policy(tmp_path, greedy=True)
  episodes = policy.initial_state(2)
  actual = []
  for observation, begins in zip(observations, first, strict=True):
    episodes.begins |= begins
    actual.append(policy(observation, episodes))
  for member in range(2):
    expected = by_hand(
      networks, state, config,
      observations[:, member].astype(np.float32), first[:, member],
    )
    np.testing.assert_allclose(
      np.array(actual)[:, member], expected, rtol=1e-5
    )


def test_samples_follow_the_distribution(tmp_path):
  config = helpers.small_config(head_output_scale=3.0)
  state, networks = save(tmp_path, helpers.environment_spec(), config)
  observation = np.ones(4, np.float32)
  output = networks.unroll(
    state.params, observation[None, None], (), np.zeros((1, 1), np.int32)
  )
  expected = jax.nn.softmax(core.acting_output(output, config).policy[0, 0, 0])
  policy = acme_stac.load_policy(tmp_path)
  actions = policy(
    np.tile(observation, (20_000, 1)), policy.initial_state(20_000, seed=1)
  )
  share = np.bincount(actions, minlength=3) / len(actions)
  np.testing.assert_allclose(share, expected, atol=0.015)
  again = policy(
    np.tile(observation, (20_000, 1)), policy.initial_state(20_000, seed=1)
  )
  np.testing.assert_array_equal(actions, again)


def test_episodes_have_samples_of_their_own(tmp_path):
  config = helpers.small_config(behaviour="random_head")
  save(tmp_path, helpers.environment_spec(), config)
  observation = np.zeros(4, np.float32)

  def play(**arguments):
    policy = acme_stac.load_policy(tmp_path)
    heads, actions = [], []
    for _ in range(30):
      state = policy.initial_state(**arguments)
      actions.append(int(policy(observation, state)))
      heads.append(int(state.head[0]))
    return heads, actions

  heads, actions = play()
  assert set(heads) == {0, 1, 2} and len(set(actions)) > 1
  # Loading it again repeats them, and so does a seed.
  assert play() == (heads, actions)
  assert len(set(play(seed=3)[0])) == 1


def test_a_learner_of_ones_own(tmp_path):
  config = helpers.small_config(embedded=("discount",))
  spec = helpers.environment_spec()
  state, networks = save(tmp_path / "run", spec, config)
  acme_stac.save_policy(tmp_path / "a.npz", state, config, spec, note="mine")
  policy = acme_stac.load_policy(tmp_path / "a.npz", greedy=True)
  assert policy.metadata["note"] == "mine"
  same = acme_stac.load_policy(tmp_path / "run", greedy=True)
  for observation in np.random.default_rng(0).normal(size=(9, 4)):
    assert policy(observation, policy.initial_state()) == same(
      observation, same.initial_state()
    )
  with pytest.raises(ValueError, match="num_environments must be"):
    policy.initial_state(0)


@pytest.mark.parametrize("metaparameter_range", ["sigmoid", "clip"])
def test_metaparameters_are_those_of_the_checkpoint(
  tmp_path, metaparameter_range
):
  init = {"sigmoid": 4.6, "clip": 0.2}[metaparameter_range]
  config = helpers.small_config(
    self_tuned=("lambda_", "discount"),
    metaparameter_range=metaparameter_range, metaparameter_init=init,
  )
  state, _ = save(tmp_path, helpers.environment_spec(), config)
  found = acme_stac.load_policy(tmp_path).metaparameters
  assert list(found) == ["lambda_", "discount"]
  for name, values in found.items():
    eta = np.asarray(state.metaparams[name])
    expected = 1 / (1 + np.exp(-eta)) if metaparameter_range == "sigmoid" else (
      eta
    )
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert len(set(values.tolist())) == 3
  save(
    tmp_path / "impala", helpers.environment_spec(),
    helpers.small_config("impala"),
  )
  assert acme_stac.load_policy(tmp_path / "impala").metaparameters == {}


def test_metadata_needs_no_networks(tmp_path):
  wrong = {"networks": "python:not.there:make", "note": "mine"}
  save(tmp_path, helpers.environment_spec(), helpers.small_config(), wrong)
  assert policies.read_metadata(tmp_path)["note"] == "mine"
  with pytest.raises(ValueError, match="There is no file or folder"):
    policies.read_metadata(tmp_path / "none")


def test_nests_of_observations(tmp_path):
  """Leaves go to the networks in the order in which training had them."""
  config = helpers.small_config()
  spec = helpers.environment_spec()._replace(observations={
    "b": specs.Array((2,), np.float32), "a": specs.Array((1,), np.int64),
  })
  state, networks = save(tmp_path, spec, config)
  observations = {
    "b": np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32),
    "a": np.arange(9)[:, None],
  }
  expected = by_hand(
    networks, state, config, observations, np.arange(9) == 0
  )
  policy = acme_stac.load_policy(tmp_path, greedy=True)
  actual = [
    policy(
      {name: value[i] for name, value in observations.items()},
      policy.initial_state(),
    )
    for i in range(9)
  ]
  np.testing.assert_array_equal(actual, expected)
  # Any mapping will do, and what the networks do not take may be in it.
  proxied = types.MappingProxyType({
    "mission": "go", "b": observations["b"][0], "a": observations["a"][0],
  })
  np.testing.assert_array_equal(
    policy(proxied, policy.initial_state()), expected[0]
  )
  with pytest.raises(ValueError, match=r"trained on \[\(1, 1\), \(1, 2\)\]"):
    policy({"a": np.zeros(1), "b": np.zeros(3)}, policy.initial_state())
  for wrong in (np.zeros(3), {"a": np.zeros(1)}):
    with pytest.raises(ValueError, match="does not have the parts"):
      policy(wrong, policy.initial_state())


def test_needs_neither_acme_nor_tensorflow(tmp_path):
  save(tmp_path, helpers.environment_spec(), helpers.small_config())
  result = test_imports.run(f"""
import acme_stac, numpy as np
policy = acme_stac.load_policy({str(tmp_path)!r}, greedy=True)
print(int(policy(np.zeros(4), policy.initial_state())) in range(3))
""")
  assert result.stdout == "True\n", result.stderr


@pytest.mark.parametrize("wrong,message", [
  ({"config": {"num_heads": 3, "colour": "red"}}, "unexpected keyword"),
  ({"environment_spec": None}, "how its agent was made"),
  ({"environment_spec": {"observations": []}}, "how its agent was made"),
  *(
    (
      {"environment_spec": {
        "observations": {"shape": shape, "dtype": "float32"},
        "actions": {"shape": [], "dtype": "int32", "num_values": 3},
      }},
      "each size of a shape|too large",
    )
    for shape in ([-4], [4.5], [10**12], [10**6, 10**6])
  ),
  (
    {"environment_spec": {
      "observations": {"shape": [4], "dtype": "float32"},
      "actions": {
        "shape": [10**9], "dtype": "float32", "minimum": -1, "maximum": 1
      },
    }},
    "each size of a shape",
  ),
  ({"config": {}}, "how its agent was made"),
  ({"environment": ["catch"]}, "environment must be str"),
  ({"environment_options": "x"}, "environment_options must be dict"),
  ({"environment_steps": "many"}, "environment_steps must be int"),
  ({"networks": 3}, "networks must be str"),
  (
    {"config": dataclasses.asdict(helpers.small_config(torso_sizes=(9,)))},
    "of another configuration",
  ),
])
def test_files_of_something_else(tmp_path, wrong, message):
  save(tmp_path, helpers.environment_spec(), helpers.small_config(), wrong)
  with pytest.raises(ValueError, match=message):
    acme_stac.load_policy(tmp_path)


def test_export_command(tmp_path, capsys):
  save(tmp_path, helpers.environment_spec(), helpers.small_config())
  output = tmp_path / "policy.npz"
  assert export.main([f"--workdir={tmp_path}", f"--output={output}"]) == 0
  assert "stacx on catch after 1,200 environment steps" in (
    capsys.readouterr().out
  )
  # Parameters and configuration, and nothing of the learner.
  with np.load(output, allow_pickle=False) as file:
    assert {name.partition("[")[0] for name in file.files} == {
      ".params", ".metaparams", "metadata"
    }
    assert json.loads(str(file["metadata"]))["config"]["num_heads"] == 3
  with pytest.raises(UserError, match="has no checkpoints"):
    export.main([f"--workdir={tmp_path / 'checkpoints'}", "--output=x.npz"])
  with pytest.raises(UserError, match="There is no file or folder"):
    export.main([f"--workdir={tmp_path / 'none'}", "--output=x.npz"])
  # What made the networks is not needed to carry them.
  other = tmp_path / "other"
  save(
    other, helpers.environment_spec(), helpers.small_config(),
    {"networks": "python:not.there:make"},
  )
  assert export.main([f"--workdir={other}", f"--output={output}"]) == 0
  with pytest.raises(UserError, match="No such file"):
    export.main([f"--workdir={tmp_path}", f"--output={tmp_path}/no/x.npz"])
  result = subprocess.run(
    [sys.executable, "-m", "programs.export", f"--workdir={tmp_path}/none",
     "--output=x.npz"],
    capture_output=True, text=True,
  )
  assert result.returncode == 2
  assert result.stderr.startswith("Error: ")
