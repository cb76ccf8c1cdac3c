"""Metagradients that look further than one update.

`test_update.py` compares those of these agents with finite differences, too.
"""

import types

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_stac import core
from acme_stac.core import losses
from tests.core.test_update import metagradient, setup, to_float64, unroll
from tests.support import helpers, myopia

pytestmark = pytest.mark.usefixtures("quick_compilation")


def linear_networks():
  """One head, whose logits and value are linear in the features."""

  def init(key):
    keys = jax.random.split(key)
    return {
      "policy": jax.random.normal(keys[0], (4, helpers.NUM_ACTIONS)),
      "value": jax.random.normal(keys[1], (4,)),
    }

  def apply(params, observation, *rest):
    return core.NetworkOutput(
      (observation @ params["policy"])[..., None, :],
      (observation @ params["value"])[..., None],
    )

  return types.SimpleNamespace(
    init=init, unroll=apply, distribution=core.Categorical()
  )


class OneStepInNumPy:
  """The gradients of Algorithm 1 for single transitions and linear networks."""

  def __init__(self, config, trajectory):
    self._config, self._trajectory = config, trajectory
    self.features = trajectory.observation[0]
    self._taken = np.eye(helpers.NUM_ACTIONS)[trajectory.action[0]]

  def policy(self, params):
    odds = np.exp(self.features @ params["policy"])
    return odds / odds.sum(-1, keepdims=True)

  def gradients(self, params):
    """Of the policy and value terms, each with its outer weight."""
    config, data = self._config, self._trajectory
    policy = self.policy(params)
    weights = np.minimum(
      1.0, np.sum(self._taken * policy, -1) / np.exp(data.behaviour_log_prob[0])
    )
    following = config.discount * data.discount[1]
    errors = weights * (
      data.reward[1] + following * (data.observation[1] @ params["value"])
      - self.features @ params["value"]
    )
    steepest = np.einsum("b,bi,bj", errors, self.features, self._taken - policy)
    return {
      "policy": -config.policy_cost * steepest,
      "value": -2 * config.value_cost * errors @ self.features,
    }


def test_one_step_to_the_target_in_closed_form():
  """RMSProp, softmax and V-trace by hand, for the weight of the policy."""
  config = helpers.small_config(
    "stac_bootstrap", self_tuned=("policy_cost",), trajectory_length=1,
    batch_size=6, entropy_cost=0.0, policy_cost=0.7,
  )
  with helpers.float64():
    trajectory = to_float64(helpers.trajectory(config, episode_ends=False))
    update = core.make_update(linear_networks(), config)
    state = to_float64(update.init(jax.random.PRNGKey(0)))
    (eta,) = state.metaparams["policy_cost"]
    exact = jax.jit(lambda s: metagradient(update, config, s, trajectory))(
      state
    )["policy_cost"]
    rate = float(core.learning_rate(state.step, config))
  problem = OneStepInNumPy(config, trajectory)
  decay, epsilon = config.rmsprop_decay, config.rmsprop_eps

  def step(params, gradients, moments):
    """Returns parameters, moments and the derivative of the direction."""
    moments = {
      name: decay * moments[name] + (1 - decay) * g**2
      for name, g in gradients.items()
    }
    root = {name: np.sqrt(m + epsilon) for name, m in moments.items()}
    new = {
      name: params[name] - rate * g / root[name]
      for name, g in gradients.items()
    }
    g, r = gradients["policy"], root["policy"]
    return new, moments, 1 / r - (1 - decay) * g**2 / r**3

  sigma = 1 / (1 + np.exp(-eta))
  at_outer = problem.gradients(state.params)
  inner = {**at_outer, "policy": sigma * at_outer["policy"]}
  nothing = dict.fromkeys(inner, 0.0)
  new, moments, derivative = step(state.params, inner, nothing)
  target, _, _ = step(new, problem.gradients(new), moments)
  # The gradient of KL(π̃ || π') in the logits of π' is π' − π̃.
  difference = problem.policy(new) - problem.policy(target)
  expected = np.sum(
    (problem.features.T @ difference) * -rate * derivative
    * at_outer["policy"] * sigma * (1 - sigma)
  )
  # Read out of Adam's step.
  np.testing.assert_allclose(exact, [expected], rtol=1e-8)


def test_target_that_is_where_the_inner_step_leads_moves_no_metaparameter():
  """A held-out batch of which θ' predicts the values has no outer gradient."""
  config = helpers.small_config(
    "stac_bootstrap", outer_batch="next", entropy_cost=0.0,
    bootstrap_value_cost=1.0,
  )
  with helpers.float64():
    networks, update, state, trajectory = setup(config)
    state, trajectory = to_float64(state), to_float64(trajectory)
    held_out = to_float64(helpers.trajectory(config, 1, episode_ends=False))
    step = core.Update(update.init, jax.jit(update.update))
    new, metrics = step.update(state, trajectory, held_out)
    assert metrics["meta_gradient_norm"] > 1e-6
    # The inner step does not see this batch.
    value = unroll(networks, new.params, held_out).value[..., 0]
    held_out = held_out._replace(
      reward=np.concatenate([np.zeros((1, 4)), value[:-1]]),
      discount=np.zeros_like(held_out.discount),
    )
    again, metrics = step.update(state, trajectory, held_out)
  assert metrics["meta_gradient_norm"] < 1e-12
  jax.tree_util.tree_map(
    np.testing.assert_array_equal, again.params, new.params
  )


def test_overflow_on_the_way_to_the_target_is_a_skipped_update():
  """Clipping would make the step to the target 0, and count nothing."""
  config = helpers.small_config(
    "stac_bootstrap", outer_batch="next", max_gradient_norm=40.0
  )
  _, update, state, trajectory = setup(config)
  held_out = helpers.trajectory(config, 1)
  step = jax.jit(update.update)
  for reward, skipped in ((1.0, 0), (1e19, 1)):
    new, _ = step(
      state, trajectory,
      held_out._replace(reward=np.full_like(held_out.reward, reward)),
    )
    assert new.skipped_updates == skipped
  jax.tree_util.tree_map(np.testing.assert_array_equal, new[:4], state[:4])


def test_distance_to_a_target_has_a_gradient_in_the_head_alone():
  rng = np.random.default_rng(0)
  policy, target = rng.normal(size=(2, 3, 2, 4))
  value, target_value = rng.normal(size=(2, 3, 2))
  step_type = np.full((3, 2), dm_env.StepType.MID)
  step_type[1, 0] = dm_env.StepType.LAST

  def distance(*arrays):
    return losses.matching_loss(
      *arrays, step_type=step_type, distribution=core.Categorical(),
      value_cost=0.5,
    )

  arrays = policy, value, target, target_value
  found, gradients = jax.value_and_grad(distance, argnums=(0, 1, 2, 3))(
    *map(jnp.asarray, arrays)
  )
  new, old = (
    np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (policy, target)
  )
  valid = step_type[:-1] != dm_env.StepType.LAST
  terms = np.sum(old * np.log(old / new), -1) + 0.5 * (
    value - target_value
  ) ** 2
  np.testing.assert_allclose(found, terms[:-1][valid].sum(), rtol=1e-5)
  np.testing.assert_allclose(
    gradients[0][:-1][valid], (new - old)[:-1][valid], rtol=1e-4, atol=1e-6
  )
  assert not np.any(gradients[2]) and not np.any(gradients[3])


def test_outer_critic_learns_as_a_head_with_the_outer_hyperparameters():
  """From the same start, head 0 and the critic keep the same parameters."""
  config = helpers.small_config(
    "stacx_outer_critic", self_tuned=("policy_cost",)
  )
  _, update, state, _ = setup(config)
  params = dict(state.params)
  names = [name for name in params if "value_outer" in name]
  twins = {name: name.replace("outer", "0") for name in names}
  assert len(twins) == 2
  params |= {name: params[twin] for name, twin in twins.items()}
  state = state._replace(params=params)
  step = jax.jit(update.update)
  for seed in range(4):
    state, _ = step(state, helpers.trajectory(config, seed))
  for name, twin in twins.items():
    assert not np.allclose(state.params[name]["w"], params[name]["w"])
    for array, other in zip(
      jax.tree_util.tree_leaves(state.params[name]),
      jax.tree_util.tree_leaves(state.params[twin]),
      strict=True,
    ):
      np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-6)


def test_outer_critic_does_not_depend_on_the_metaparameters():
  config = helpers.small_config("stac_outer_critic")
  _, update, state, trajectory = setup(config)
  step = jax.jit(update.update)
  lower = {name: eta - 3.0 for name, eta in state.metaparams.items()}
  news = [
    step(state._replace(metaparams=eta), trajectory)[0].params
    for eta in (state.metaparams, lower)
  ]
  for name in news[0]:
    same = np.array_equal(news[0][name]["w"], news[1][name]["w"])
    assert same == ("value_outer" in name), name


def test_without_metaparameters_the_remedies_change_nothing():
  plain = helpers.small_config("impala")
  changed = helpers.small_config(
    "impala", outer_critic=True, outer_loss="bootstrap", bootstrap_steps=2
  )
  states = []
  for config in (plain, changed):
    _, update, state, trajectory = setup(config)
    states.append(jax.jit(update.update)(state, trajectory))
  jax.tree_util.tree_map(np.testing.assert_array_equal, *states)


# One update ahead, by the policy's loss alone, as Xu et al. (2018) have it.
MYOPIC = {"outer_loss": "policy_gradient"}
FAR_SIGHTED = {
  "outer_critic": {**MYOPIC, "outer_critic": True},
  "bootstrap": {"outer_loss": "bootstrap", "bootstrap_steps": 64},
}


def test_a_metagradient_of_one_update_takes_the_wrong_way():
  """γ must not fall: with a fixed one, the return rises with it."""
  returns = [
    myopia.train(400, meta_learning_rate=0.0, metaparameter_init=eta)
    .episode_return[-1]
    for eta in (1.0, 3.0)
  ]
  assert returns[0] < 1.2 < 1.3 < returns[1]
  for fields in (MYOPIC, {"outer_loss": "bootstrap"}):
    found = myopia.train(400, **fields)
    # The first update has no values to discount.
    assert np.all(np.diff(found.discount[2:50]) < 0.0)
    assert found.discount[-1] < 0.1
    assert found.episode_return[-1] < returns[0]


@pytest.mark.parametrize("remedy", FAR_SIGHTED)
def test_a_far_sighted_metagradient_takes_the_right_way(remedy):
  found = myopia.train(400, **FAR_SIGHTED[remedy])
  assert found.discount[-1] > 0.99
  assert found.episode_return[-1] > 1.35
