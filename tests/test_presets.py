"""Small presets: one set for Python users and commands alike."""

import dataclasses

import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac import presets
from acme_stac.environments import EnvironmentSpec, environment_spec, make
from configs import small
from programs.run import validation

_REUSE = {
  "learning_rate": 1e-3,
  "batch_size": 24,
  "trajectory_length": 40,
  "trajectory_overlap": 30,
  "max_abs_reward": None,
}
_CONTROL = {**_REUSE, "optimizer": "adam", "torso": "layer_norm_mlp"}
# Environment -> the small domain of its kind, and in what that differs from
# CartPole's values. docs/results.md has been measured with them.
MEASURED = {
  "gymnasium:CartPole-v1": ("small", {}),
  "catch": (
    "small_board",
    {"value_cost": 0.25, "entropy_cost": 0.01, "max_abs_reward": None},
  ),
  "control:cartpole/swingup": ("small_control_1", _CONTROL),
  "control:acrobot/swingup": ("small_control_1", _CONTROL),
  "control:pendulum/swingup": ("small_control_1", _CONTROL),
  "control:cheetah/run": ("small_control", {**_CONTROL, "entropy_cost": 0.005}),
  "rwrl:cartpole/swingup/easy": ("small_control_1", _CONTROL),
  "rwrl:walker/walk/easy": (
    "small_control", {**_CONTROL, "entropy_cost": 0.005}
  ),
  "atari:krull": (
    "small_pixels",
    {
      "value_cost": 0.5,
      "entropy_cost": 0.01,
      "optimizer": "adam",
      "learning_rate": 5e-4,
      "batch_size": 16,
      "max_abs_reward": 1.0,
      "torso": "shallow",
      "action_repeat": 4,
    },
  ),
}
CARTPOLE = {
  "discount": 0.99,
  "value_cost": 1.0,
  "entropy_cost": 0.03,
  "learning_rate": 4e-3,
  "max_gradient_norm": 40.0,
  "action_repeat": 1,
  "max_abs_reward": 0.1,
  "torso": "mlp",
  "torso_sizes": (256, 256),
}


@pytest.mark.parametrize("name", MEASURED)
def test_python_users_and_commands_get_the_values_that_were_measured(
  name, tmp_path
):
  domain, differences = MEASURED[name]
  agent = "stacx"
  run_config = small.get_config(name)
  run_config.agent = agent
  run = validation.make_experiment(run_config, 1, str(tmp_path))
  steps = run.config.num_environment_steps
  expected = acme_stac.STACConfig(**{
    **acme_stac.AGENTS[agent],
    **CARTPOLE,
    **differences,
    "num_environment_steps": steps,
  })
  assert run.config == expected
  overrides = {
    "num_environment_steps": steps,
    "action_repeat": run.config.action_repeat,
  }
  environment = make(name)
  spec = environment_spec(environment)
  environment.close()
  assert presets.small_domain(spec) == domain
  for of_python in (
    acme_stac.make_config(agent, "small", spec, **overrides),
    acme_stac.make_config(agent, domain, **overrides),
  ):
    assert of_python == run.config


def test_configs_small_sets_no_hyperparameter_of_the_agent():
  for name in (*MEASURED, "control_pixels:cartpole/swingup"):
    assert all(value is None for value in small.get_config(name).stac.values())


def spec_of(observation, action, reward=None):
  discount = specs.BoundedArray((), np.float32, 0.0, 1.0)
  reward = reward or specs.Array((), np.float32)
  return EnvironmentSpec(observation, action, reward, discount)


def test_each_kind_of_environment_has_its_small_domain():
  vector = specs.Array((11,), np.float64)
  image = specs.BoundedArray((84, 84, 9), np.uint8, 0, 255)
  choice = specs.DiscreteArray(4)
  unit = specs.BoundedArray((), np.float32, 0.0, 1.0)

  def action(size):
    return specs.BoundedArray((size,), np.float32, -1.0, 1.0)

  for observation, actions, reward, domain in (
    (vector, choice, unit, "small"),
    (vector, choice, None, "small_discrete"),
    (specs.DiscreteArray(16), choice, None, "small_discrete"),
    ({"a": image, "b": vector}, choice, None, "small_discrete"),
    (specs.Array((10, 5), np.float32), choice, None, "small_board"),
    (specs.Array((10, 10, 4), bool), choice, unit, "small_discrete"),
    (specs.Array((1, 6), np.float32), choice, None, "small_discrete"),
    (specs.BoundedArray((16, 16), np.uint8, 0, 255), choice, unit,
     "small_discrete"),
    (specs.BoundedArray((24, 24, 3), np.uint8, 0, 255), choice, None,
     "small_discrete"),
    (image, choice, None, "small_pixels"),
    (specs.BoundedArray((84, 84), np.uint8, 0, 255), choice, None,
     "small_pixels"),
    ({"a": image}, choice, None, "small_pixels"),
    ({"a": image, "b": specs.Array((0,), np.float32)}, choice, None,
     "small_pixels"),
    (image, action(3), None, "small_control_pixels"),
    (specs.Array((4, 1000), np.float32), action(3), None, "small_continuous"),
    (vector, action(6), unit, "small_control"),
    (vector, action(1), unit, "small_control_1"),
    (vector, action(6), None, "small_continuous"),
    (vector, action(1), None, "small_continuous_1"),
  ):
    spec = spec_of(observation, actions, reward)
    assert presets.small_domain(spec) == domain
    config = acme_stac.make_config("stacx", "small", spec)
    assert config == acme_stac.make_config("stacx", domain)


def test_gymnasiums_tasks_get_the_settings_of_their_kind(tmp_path):
  for task, domain in (
    ("Acrobot-v1", "small_discrete"),
    ("LunarLander-v3", "small_discrete"),
    ("Pendulum-v1", "small_continuous_1"),
    ("MountainCarContinuous-v0", "small_continuous_1"),
    ("Hopper-v5", "small_continuous"),
    ("HalfCheetah-v5", "small_continuous"),
    ("Ant-v5", "small_continuous"),
  ):
    run = validation.make_experiment(
      small.get_config(f"gymnasium:{task}"), 1, str(tmp_path)
    )
    assert run.config == acme_stac.make_config("stacx", domain), task


def test_what_an_agent_or_the_user_sets_comes_before_the_kind():
  spec = spec_of(
    specs.Array((10, 5), np.float32), specs.DiscreteArray(3)
  )
  config = acme_stac.make_config("a2c_meta_gamma", "small", spec)
  for name, value in acme_stac.AGENTS["a2c_meta_gamma"].items():
    assert getattr(config, name) == value
  changed = acme_stac.make_config("stac", "small", spec, value_cost=0.7)
  plain = acme_stac.make_config("stac", "small_board")
  assert changed == dataclasses.replace(plain, value_cost=0.7)


def test_a_spec_changes_nothing_in_the_domains_of_the_papers():
  spec = spec_of(specs.Array((3,), np.float32), specs.DiscreteArray(2))
  for domain in ("atari", "control_features", "control_pixels"):
    assert acme_stac.make_config("stacx", domain, spec) == (
      acme_stac.make_config("stacx", domain)
    )
