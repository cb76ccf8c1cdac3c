"""Policies in plain files, without the distributed stack."""

import copy
import dataclasses
import json
import os
import pathlib
import pickle
import subprocess
import sys
import types

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac import checkpointing, core, environments, policy_file
from programs import evaluate, export, report
from programs.run.errors import UserError
from tests.core import test_imports
from tests.support import helpers

DATA = pathlib.Path(__file__).parent / "data"
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
    core.conditioning(state.metaparams, config),
  )
  policy = core.acting_output(output, config).policy[:, 0, 0]
  action = np.asarray(networks.distribution.mode(policy))
  return networks.action_space.to_environment(action)


@pytest.mark.parametrize("actions,overrides", [
  (3, {}),
  (helpers.CONTINUOUS, {"lstm_size": 8}),
  (3, {"embedded": ("discount", "alpha")}),
  (helpers.CONTINUOUS, {"behaviour": "average"}),
  (3, {"num_heads": 1, "self_tuned": ()}),
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
  acme_stac.export_policy(tmp_path, tmp_path / "policy.npz")
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
    state.params, observation[None, None], (), np.zeros((1, 1), np.int32),
    helpers.NOTHING_EMBEDDED,
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
  assert policy_file.read_metadata(tmp_path)["note"] == "mine"
  with pytest.raises(ValueError, match="There is no file or folder"):
    policy_file.read_metadata(tmp_path / "none")


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
  listed = {name: value[0].tolist() for name, value in observations.items()}
  np.testing.assert_array_equal(
    policy(listed, policy.initial_state()), expected[0]
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
  assert export.main([str(tmp_path), f"--output={output}"]) == 0
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
    export.main([str(tmp_path / "checkpoints"), "--output=x.npz"])
  with pytest.raises(UserError, match="There is no file or folder"):
    export.main([str(tmp_path / "none"), "--output=x.npz"])
  # What made the networks is not needed to carry them.
  other = tmp_path / "other"
  save(
    other, helpers.environment_spec(), helpers.small_config(),
    {"networks": "python:not.there:make"},
  )
  assert export.main([str(other), f"--output={output}"]) == 0
  with pytest.raises(UserError, match="No such file"):
    export.main([str(tmp_path), f"--output={tmp_path}/no/x.npz"])
  result = subprocess.run(
    [sys.executable, "-m", "programs.export", f"{tmp_path}/none",
     "--output=x.npz"],
    capture_output=True, text=True,
  )
  assert result.returncode == 2
  assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("name,observation,actions", [
  (
    "parts",
    {
      "place": specs.DiscreteArray(5, np.int64),
      "board": specs.BoundedArray((2, 3), np.uint8, 0, 255),
    },
    [
      [-0.7613627314567566, 0.7614644765853882], [0.0, 0.0],
      [-0.7615765929222107, 0.7615858912467957],
    ],
  ),
  (
    "image",
    specs.BoundedArray((4, 5, 6), np.uint8, 0, 1),
    [
      [0.0, 0.0], [0.0002333370503038168, 0.0003391687641851604],
      [3.201692015863955e-05, 4.653842552215792e-05],
    ],
  ),
])
def test_older_files_act_as_they_did(name, observation, actions):
  """Files and actions of the version before bounds were kept.

  Their networks take choices as numbers and images as 0 to 255, and an image
  whose first axis is shorter than its last has its channels first.
  """
  path = DATA / f"policy_of_{name}_before_bounds.npz"
  policy = acme_stac.load_policy(path, greedy=True)
  rng = np.random.default_rng(0)
  for expected in actions:
    drawn = jax.tree_util.tree_map(
      lambda leaf: rng.integers(
        leaf.minimum, leaf.maximum, leaf.shape, leaf.dtype, endpoint=True
      ),
      observation,
    )
    action = policy(drawn, policy.initial_state())
    np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-9)


def test_choices_and_images_of_a_file_are_prepared_as_in_training(tmp_path):
  config = helpers.small_config("impala")
  spec = helpers.environment_spec(actions=helpers.CONTINUOUS)._replace(
    observations={
      "place": specs.DiscreteArray(5, np.int64),
      "board": specs.BoundedArray((2, 3), np.uint8, 0, 1),
      "walls": specs.BoundedArray((0,), np.float64, -np.inf, np.inf),
    }
  )
  state, networks = save(tmp_path, spec, config)
  rng = np.random.default_rng(0)
  observations = {
    "place": np.arange(5),
    "board": rng.integers(0, 2, (5, 2, 3)).astype(np.uint8),
    "walls": np.zeros((5, 0)),
  }
  expected = by_hand(
    networks, state, config, observations, np.arange(5) == 0
  )
  policy = acme_stac.load_policy(tmp_path, greedy=True)
  actual = policy(observations, policy.initial_state(5))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("actions", [3, helpers.CONTINUOUS])
def test_the_pure_function_acts_as_the_object_does(tmp_path, actions):
  config = helpers.small_config(lstm_size=8)
  save(tmp_path, helpers.environment_spec(actions=actions), config)
  policy = acme_stac.load_policy(tmp_path, greedy=True)
  observations = np.random.default_rng(0).normal(size=(5, 2, 4))
  observations = observations.astype(np.float32)
  state = policy.initial_state(2)
  expected = [policy(observation, state) for observation in observations]

  def step(state, xs):
    actions, state = policy.act(*xs[:1], state, xs[1])
    return state, actions

  keys = jax.random.split(jax.random.PRNGKey(0), 5)
  _, actual = jax.jit(
    lambda *xs: jax.lax.scan(step, policy.initial_act_state(2), xs)
  )(observations, keys)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  _, eager = policy.act(observations[0], policy.initial_act_state(2), keys[0])
  assert not eager.begins.any()


def test_a_call_under_jit_raises_and_changes_nothing(tmp_path):
  save(tmp_path, helpers.environment_spec(), helpers.small_config(lstm_size=8))
  policy = acme_stac.load_policy(tmp_path)
  observation = np.ones(4, np.float32)
  state, again = policy.initial_state(seed=1), policy.initial_state(seed=1)
  for wrong in (
    lambda x: policy(x, state),
    lambda x: policy(observation, state) + x,
    lambda x: policy(x, policy.initial_state()),
  ):
    with pytest.raises(ValueError, match="use policy.act"):
      jax.jit(wrong)(observation)
  assert state.begins.all()
  assert [int(policy(observation, state)) for _ in range(9)] == [
    int(policy(observation, again)) for _ in range(9)
  ]
  policy(observation, policy.initial_state())


def test_a_wrong_state_raises_and_changes_nothing(tmp_path):
  save(tmp_path, helpers.environment_spec(), helpers.small_config(lstm_size=8))
  policy = acme_stac.load_policy(tmp_path)
  observation = np.ones((2, 4), np.float32)
  state = policy.initial_state(2, seed=1)
  again = copy.deepcopy(state)
  for begins in (np.array([True]), True, [[True, True]]):
    state.begins = begins
    with pytest.raises(ValueError, match=r"begins must have the shape \(2,\)"):
      policy(observation, state)
  for other in (None, policy.initial_act_state(2)):
    with pytest.raises(ValueError, match="initial_state"):
      policy(observation, other)
  # Whatever says which of them begin, it may be of JAX, or a list.
  for begins in (jax.numpy.array([True, False]), [False, True]):
    state.begins, again.begins = begins, np.array(begins)
    np.testing.assert_array_equal(
      policy(observation, state), policy(observation, again)
    )
    assert not state.begins.any()


def test_policies_can_be_copied_and_pickled(tmp_path):
  config = helpers.small_config(lstm_size=8, embedded=("discount",))
  save(tmp_path, helpers.environment_spec(), config, {"networks": None})
  policy = acme_stac.load_policy(tmp_path)
  policy.initial_state()
  others = [
    pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy),
    copy.copy(policy),
  ]
  observations = np.random.default_rng(0).normal(size=(9, 4))

  def play(policy):
    state = policy.initial_state()
    return [int(policy(x, state)) for x in observations]

  expected = play(policy)
  for other in others:
    assert play(other) == expected
    assert other.config == config
    assert other.metadata == policy.metadata
  pickle.loads(pickle.dumps(policy.initial_state(2)))


def own_networks(spec, config):
  """Networks of a user."""
  return acme_stac.make_networks(
    spec, dataclasses.replace(config, torso_sizes=(5,))
  )


def test_networks_of_ones_own_are_asked_for(tmp_path):
  config, spec = helpers.small_config(), helpers.environment_spec()
  networks = own_networks(spec, config)
  state = core.make_update(networks, config).init(jax.random.PRNGKey(3))
  named, unnamed = tmp_path / "named.npz", tmp_path / "unnamed.npz"
  acme_stac.save_policy(
    named, state, config, spec, network_factory=own_networks
  )
  acme_stac.save_policy(unnamed, state, config, spec)
  with pytest.raises(ValueError, match="own_networks.*network_f"):
    acme_stac.load_policy(named)
  with pytest.raises(ValueError, match="as network_factory"):
    acme_stac.load_policy(unnamed)
  for path in (named, unnamed):
    policy = acme_stac.load_policy(path, network_factory=own_networks)
    assert int(policy(np.zeros(4), policy.initial_state())) in range(3)


def test_a_file_does_not_choose_code_to_import(tmp_path):
  spec, config = helpers.environment_spec(), helpers.small_config()
  (tmp_path / "planted.py").write_text("raise SystemExit('planted')")
  for name, options in (
    ("python:planted:Make", {}),
    ("gymnasium:planted:Id-v0", {}),
    ("gymnasium:GymV26Environment-v0", {"env_id": "planted:Id-v0"}),
    ("gymnasium:GymV26Environment-v0", {"kwargs": [{"id": "planted:Id-v0"}]}),
  ):
    save(tmp_path, spec, config, {
      "environment": name, "environment_options": options,
    })
    assert environments.imports_code(name, options)
    policy = acme_stac.load_policy(tmp_path)
    with pytest.raises(ValueError, match="allow_import=True"):
      policy.make_environment()
    acme_stac.export_policy(tmp_path, tmp_path / "policy.npz")
    with pytest.raises(UserError, match="names code to import"):
      evaluate.main([str(tmp_path / "policy.npz")])
    if options:
      # Whoever names the environment has not chosen the file's options.
      with pytest.raises(UserError, match="names code to import.*--option"):
        evaluate.main([
          str(tmp_path / "policy.npz"), f"--environment={name}",
        ])
  assert not environments.imports_code("gymnasium:CartPole-v1", {"a": "b"})
  assert not environments.imports_code("atari:pong")
  save(tmp_path, spec, config, {"environment_options": {"rows": 7}})
  environment = acme_stac.load_policy(tmp_path).make_environment(columns=3)
  assert environment.observation_spec().shape == (7, 3)
  save(tmp_path, spec, config, {"environment": None})
  with pytest.raises(ValueError, match="does not say what it was trained on"):
    acme_stac.load_policy(tmp_path).make_environment()


def test_results_go_to_regular_files_only(tmp_path):
  spec, config = helpers.environment_spec(), helpers.small_config()
  save(tmp_path / "run", spec, config)
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "policy.npz").mkdir()
  (tmp_path / "out" / "episodes.csv").symlink_to("/nowhere/at/all")
  os.mkfifo(tmp_path / "out" / "index.html")
  policy = tmp_path / "out" / "policy.npz"
  with pytest.raises(UserError, match="policy.npz cannot be written"):
    export.main([str(tmp_path / "run"), f"--output={policy}"])
  save(tmp_path / "run", environments.environment_spec(
    environments.make_batched("catch", 1, 0)
  ), config)
  with pytest.raises(UserError, match="episodes.csv cannot be written"):
    evaluate.main([str(tmp_path / "run"), f"--output={tmp_path / 'out'}"])
  with pytest.raises(UserError, match="index.html cannot be written"):
    report.main([str(tmp_path / "run"), f"--output={tmp_path / 'out'}"])
