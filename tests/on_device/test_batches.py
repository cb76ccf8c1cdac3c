"""Environments written in JAX, stepped by the host."""

import functools

import numpy as np
import pytest
from dm_env import StepType

from acme_stac import environments
from acme_stac.on_device import batches
from tests.support import jax_environments

COUNTING = "python:tests.support.jax_environments:Counting"


def make_counting(num_environments, seed, **options):
  return environments.make_batched(COUNTING, num_environments, seed, **options)


def test_members_start_episodes_in_the_step_after_their_last():
  batch = make_counting(3, seed=0, limit=3)
  step = batch.reset()
  assert (step.step_type == StepType.FIRST).all()
  starts = step.observation[:, 1]
  assert len(set(starts)) == 3
  # Member 1 ends its episodes at once, member 2 in the second step.
  types, counts, discounts, rewards = [], [], [], []
  for number in range(6):
    step = batch.step(np.array([0, 1, number == 1]))
    types.append(step.step_type.tolist())
    counts.append(step.observation[:, 0].tolist())
    discounts.append(step.discount.tolist())
    rewards.append(step.reward.tolist())
  assert types == [
    [1, 2, 1], [1, 0, 2], [2, 2, 0], [0, 0, 1], [1, 2, 1], [1, 0, 2]
  ]
  assert counts == [
    [1, 1, 1], [2, 0, 2], [3, 1, 0], [0, 0, 1], [1, 1, 2], [2, 0, 3]
  ]
  assert rewards == counts
  # 0 in a terminal state, 1 at the time limit.
  assert discounts == [
    [1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]
  ]
  assert (step.observation[:, 1] != starts).all()


def test_members_draw_from_seeds_of_their_own():
  """Whatever the other members do."""
  batch = make_counting(3, seed=7)
  alone = make_counting(1, seed=8)
  wanted, have = batch.reset(), alone.reset()
  for number in range(12):
    np.testing.assert_array_equal(have.observation, wanted.observation[1:2])
    actions = np.array([number % 2, number % 3 == 0, 0])
    wanted, have = batch.step(actions), alone.step(actions[1:2])
  assert (batch.reset().observation[:, 1] != wanted.observation[:, 1]).all()
  np.testing.assert_array_equal(
    make_counting(3, seed=7).reset().observation,
    make_counting(3, seed=7).step(np.zeros(3, np.int32)).observation,
  )


def test_batches_are_what_other_batches_are():
  batch = make_counting(4, seed=0)
  assert batch.num_environments == 4 and batch.action_repeat == 2
  environments.check(batch, max_steps=20)
  with pytest.raises(ValueError, match=r"Actions must be in \[0, 2\)"):
    batch.step(np.full(4, 2))
  with pytest.raises(NotImplementedError, match="counting cannot be drawn"):
    batch.render()
  environments.check(environments.make(COUNTING, limit=4), max_steps=20)
  assert environments.option_types(COUNTING) == {"limit": int}
  with pytest.raises(ValueError, match="Unknown option .* mean 'limit'"):
    environments.make(COUNTING, limits=3)
  with pytest.raises(ValueError, match="Counting.*at least 1"):
    environments.make(COUNTING, limit=0)
  # The class itself, as other factories.
  made = environments.make_batched(jax_environments.Counting, 2, 0, limit=3)
  assert made.environment.limit == 3


def test_batches_of_one_environment_are_compiled_once():
  make = functools.partial(batches.make, "catch", 2, 0)
  first, second = make(rows=4, columns=3), make(columns=3, rows=4)
  assert first.environment is second.environment
  assert first.environment is not make(rows=5, columns=3).environment


def test_gymnax_is_an_environment_like_any_other():
  pytest.importorskip("gymnax")
  name = "gymnax:Breakout-MinAtar"
  assert environments.option_types(name) == {
    "max_steps_in_episode": int, "use_minimal_action_set": bool
  }
  assert not environments.imports_code(name)
  batch = environments.make_batched(name, 2, seed=0, max_steps_in_episode=4)
  environments.check(batch, max_steps=10)
  assert batch.render().shape == (240, 240, 3)
  with pytest.raises(ValueError, match="mean 'Breakout-MinAtar'"):
    environments.make_batched("gymnax:Breakout", 1, seed=0)
