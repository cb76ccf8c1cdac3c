"""MuJoCo Playground's tasks; skipped where the package is not installed."""

import types
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("mujoco_playground")

from acme_stac.on_device import playground
from configs import playground as playground_config
from programs.run import validation

KEY = jax.random.PRNGKey(0)


class FakeState(NamedTuple):
  """What the adapter uses of Playground's states."""

  obs: Any
  reward: Any
  done: Any


class FakeTask:
  """Adds the action to the observation; done, and NaN, beyond 10."""

  mj_model = types.SimpleNamespace(
    actuator_ctrlrange=np.array([[-1.0, 1.0], [-1.0, 1.0]])
  )

  def reset(self, key):
    x = jax.random.uniform(key, (2,))
    return FakeState({"x": x}, jnp.zeros(()), 0.0)

  def step(self, state, action):
    x = state.obs["x"] + action
    diverged = x[0] > 10
    x = jnp.where(diverged, jnp.nan, x)
    # A Python number is weakly typed.
    return FakeState({"x": x}, 0.5 * x[0], diverged.astype(float))


@pytest.fixture(scope="module")
def task():
  states = jax.device_get(jax.vmap(FakeTask().reset)(jax.random.split(KEY, 3)))
  return playground.Playground("playground:Fake", FakeTask(), 4, states)


def play(task, action, steps):
  state, timestep = task.reset(KEY)
  found = [timestep]
  for _ in range(steps):
    state, timestep = task.step(state, jnp.array(action, jnp.float32), KEY)
    found.append(timestep)
  return found


def test_time_limit_truncates_with_discount_1_and_the_last_observation(task):
  first, *later = play(task, [1.0, 0.0], 4)
  assert first.step_type == dm_env.StepType.FIRST
  types_ = [int(timestep.step_type) for timestep in later]
  assert types_ == [dm_env.StepType.MID] * 3 + [dm_env.StepType.LAST]
  assert [float(timestep.discount) for timestep in later] == [1.0] * 4
  np.testing.assert_allclose(
    later[-1].observation["x"], first.observation["x"] + np.array([4.0, 0.0]),
    rtol=1e-6,
  )


def test_diverged_physics_terminate_with_finite_numbers(task):
  last = play(task, [20.0, 0.0], 1)[-1]
  assert last.step_type == dm_env.StepType.LAST
  assert last.discount == 0.0 and last.reward == 0.0
  np.testing.assert_array_equal(last.observation["x"], [0.0, 0.0])


def test_episodes_begin_in_one_of_the_initial_states(task):
  keys = jax.random.split(KEY, 64)
  found = jax.vmap(task.reset)(keys)[1].observation["x"]
  expected = jax.vmap(FakeTask().reset)(jax.random.split(KEY, 3)).obs["x"]
  np.testing.assert_allclose(
    np.unique(found, axis=0), np.unique(expected, axis=0), rtol=1e-6
  )


def test_reset_and_step_have_the_same_types(task):
  def described(result):
    return jax.tree_util.tree_map(
      lambda x: (x.shape, x.dtype, x.weak_type), result
    )

  state, timestep = jax.eval_shape(task.reset, KEY)
  action = jax.ShapeDtypeStruct((2,), jnp.float32)
  stepped = jax.eval_shape(task.step, state, action, KEY)
  assert described((state, timestep)) == described(stepped)


def test_specs(task):
  assert task.observation_spec()["x"].shape == (2,)
  action = task.action_spec()
  np.testing.assert_array_equal(action.minimum, [-1.0, -1.0])
  np.testing.assert_array_equal(action.maximum, [1.0, 1.0])
  assert action.dtype == np.float32
  assert (task.reward_spec().minimum, task.reward_spec().maximum) == (0.0, 1.0)


def test_a_run_has_the_values_of_table_3(tmp_path, monkeypatch, task):
  monkeypatch.setattr(playground, "make", lambda level: task)
  config = playground_config.get_config("CheetahRun")
  run = validation.make_experiment(config, 1, str(tmp_path), is_on_device=True)
  agent = run.config
  assert run.environments_per_actor == agent.batch_size == 24
  assert (agent.trajectory_length, agent.trajectory_overlap) == (40, 30)
  assert agent.num_environment_steps == 30_000_000


def test_an_unknown_task_has_near_matches():
  with pytest.raises(ValueError, match="'CheetahRun'"):
    playground.make("CheetaRun")
  with pytest.raises(ValueError, match="initial_states"):
    playground.make("CartpoleSwingup", initial_states=0)


def test_a_task_of_the_suite_is_the_suite_s():
  """The first 3 steps are those of MuJoCo itself."""
  import mujoco

  task = playground.make("CartpoleSwingup", initial_states=2)
  state, timestep = task.reset(KEY)
  task.observation_spec().validate(np.asarray(timestep.observation))
  model = state.inner.data
  theirs = playground.dm_control_suite.load(
    "CartpoleSwingup", config_overrides={"impl": "jax"}
  ).mj_model
  data = mujoco.MjData(theirs)
  data.qpos[:], data.qvel[:] = model.qpos, model.qvel
  step = jax.jit(task.step)
  for _ in range(3):
    state, timestep = step(state, jnp.array([0.5]), KEY)
    data.ctrl[:] = 0.5
    mujoco.mj_step(theirs, data)
    assert 0.0 <= timestep.reward <= 1.0
    np.testing.assert_allclose(state.inner.data.qpos, data.qpos, atol=1e-4)
