"""gymnax's environments with dm_env's semantics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType, specs

from acme_stac import environments
from acme_stac.on_device import registry

gymnax = pytest.importorskip("gymnax")

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


def rollout(environment, length, choose, seed=0):
  """Returns the steps [length + 1] of an episode, also after its end."""

  def step(carry, key):
    state, timestep = carry
    state, timestep = environment.step(
      state, choose(timestep.observation, key), key
    )
    return (state, timestep), timestep

  @jax.jit
  def run(key):
    carry = environment.reset(key)
    _, steps = jax.lax.scan(step, carry, jax.random.split(key, length))
    return jax.tree_util.tree_map(
      lambda x, xs: jnp.concatenate([x[None], xs]), carry[1], steps
    )

  return jax.device_get(run(jax.random.PRNGKey(seed)))


@pytest.fixture(scope="module")
def cartpole():
  return registry.make("gymnax:CartPole-v1", max_steps_in_episode=12)


def test_a_terminal_state_has_discount_0(cartpole):
  steps = rollout(cartpole, 11, lambda observation, key: jnp.int32(1))
  (end, *_) = np.flatnonzero(steps.step_type == StepType.LAST)
  assert 7 < end < 11
  assert steps.step_type[0] == StepType.FIRST
  assert (steps.step_type[1:end] == StepType.MID).all()
  assert (steps.discount[:end] == 1).all() and steps.discount[end] == 0
  assert steps.reward[0] == 0 and (steps.reward[1 : end + 1] == 1).all()
  # The last observation is that of the terminal state, not of a next episode.
  assert abs(steps.observation[end, 2]) > 12 * np.pi / 180


def test_a_time_limit_ends_an_episode_with_discount_1(cartpole):
  def balance(observation, key):
    return jnp.int32(observation[2] + observation[3] > 0)

  steps = rollout(cartpole, 12, balance)
  assert (steps.discount == 1).all()
  assert steps.step_type.tolist() == [0] + [1] * 11 + [2]


@pytest.mark.parametrize("name", sorted(gymnax.registered_envs))
def test_states_and_steps_have_fixed_shapes_and_types(name):
  """Weak types too, so that a compiled loop can carry them."""
  if name == "MNISTBandit-bsuite":
    pytest.skip("downloads images")
  environment = registry.make(f"gymnax:{name}")
  action_spec = environment.action_spec()
  key = jax.random.PRNGKey(0)
  first = jax.eval_shape(environment.reset, key)
  action = jax.ShapeDtypeStruct(action_spec.shape, action_spec.dtype)
  after = jax.eval_shape(environment.step, first[0], action, key)
  describe = functools.partial(
    jax.tree_util.tree_map, lambda x: (x.shape, x.dtype, x.weak_type)
  )
  assert describe(first) == describe(after)
  assert not any(x.weak_type for x in jax.tree_util.tree_leaves(first[0]))
  spec = environments.environment_spec(environment)
  observation = first[1].observation
  assert (spec.observations.shape, spec.observations.dtype) == (
    observation.shape, observation.dtype
  )


@pytest.mark.parametrize("game", GAMES)
def test_specs_of_minatar_are_those_of_gymnax_for_booleans(game):
  name = f"{game}-MinAtar"
  environment = registry.make(f"gymnax:{name}")
  original, params = gymnax.make(name)
  spec = environment.observation_spec()
  assert spec.shape == original.observation_space(params).shape
  assert spec.dtype == bool and not spec.minimum.any() and spec.maximum.all()
  assert environment.action_spec() == specs.DiscreteArray(
    original.action_space(params).n, np.int32
  )


def test_boards_of_minatar_are_those_of_gymnax_and_can_be_drawn():
  environment = registry.make("gymnax:Breakout-MinAtar")
  original, params = gymnax.make("Breakout-MinAtar")

  def step(state, key):
    action = jax.random.randint(key, (), 0, 3)
    board, _, reward, *_ = original.step_env(key, state, action, params)
    state, timestep = environment.step(state, action, key)
    return state, (timestep.observation, timestep.reward, board, reward)

  @jax.jit
  def run(key):
    state, first = environment.reset(key)
    board, _ = original.reset_env(key, params)
    state, rows = jax.lax.scan(step, state, jax.random.split(key, 20))
    return first.observation, board, rows, state

  first, board, (boards, rewards, wanted, wanted_rewards), state = run(
    jax.random.PRNGKey(1)
  )
  np.testing.assert_array_equal(first, board)
  np.testing.assert_array_equal(boards, wanted)
  np.testing.assert_array_equal(rewards, wanted_rewards)
  picture = environment.render(state)
  assert picture.dtype == np.uint8 and picture.shape == (240, 240, 3)
  # Every cell with anything on it differs from the background.
  drawn = (picture[::24, ::24] != picture.min(axis=(0, 1))).any(-1)
  np.testing.assert_array_equal(drawn, np.asarray(boards[-1]).any(-1))


def test_options_are_those_of_the_constructor_and_the_parameters():
  make = functools.partial(registry.make, "gymnax:Asterix-MinAtar")
  assert make(use_minimal_action_set=False).action_spec().num_values == 6
  make(max_steps_in_episode=2, ramping=False)
  with pytest.raises(ValueError, match="mean 'ramping'"):
    make(rampings=False)
  with pytest.raises(ValueError, match="must be of type bool, got 1"):
    make(ramping=1)
  with pytest.raises(ValueError, match="max_steps_in_episode must be"):
    make(max_steps_in_episode=0)
  # CartPole has numbers with fractions, which whole ones stand for.
  registry.make("gymnax:CartPole-v1", gravity=10)


def test_ids_that_cannot_be_made_say_why():
  with pytest.raises(ValueError, match="Unknown gymnax id: 'Breakut-MinAtar'"):
    registry.make("gymnax:Breakut-MinAtar")
  with pytest.raises(ValueError, match="cannot make 'MetaMaze-misc': Assert"):
    registry.make("gymnax:MetaMaze-misc", maze_size=4)


def test_only_minatar_is_drawn(cartpole):
  state, _ = cartpole.reset(jax.random.PRNGKey(0))
  with pytest.raises(NotImplementedError, match="gymnax:CartPole-v1 cannot"):
    cartpole.render(state)
