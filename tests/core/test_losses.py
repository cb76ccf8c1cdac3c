import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_stac import core
from acme_stac.core.losses import transition_mask
from tests.support import helpers

CONFIG = helpers.small_config("impala")
DISTRIBUTION = core.Categorical()
OUTER = core.outer_hyperparameters(CONFIG)


def outputs(seed=0):
  rng = np.random.default_rng(seed)
  shape = (CONFIG.trajectory_length + 1, CONFIG.batch_size)
  policy = rng.normal(size=(*shape, helpers.NUM_ACTIONS)).astype(np.float32)
  return policy, rng.normal(size=shape).astype(np.float32)


def value_and_gradients(trajectory, policy, value, inner=True, ζ=OUTER):  # noqa: N803
  return jax.value_and_grad(
    lambda p, v: core.loss(
      p, v, trajectory, ζ, DISTRIBUTION, inner=inner
    )[0],
    argnums=(0, 1),
  )(policy, value)


def test_equals_a_transcript_of_algorithm_1():
  """Loops over members and steps, in NumPy, as the paper prints them."""
  trajectory = helpers.trajectory(CONFIG, episode_ends=False)
  policy, value = outputs()
  zeta = OUTER._replace(
    discount=0.9, lambda_=0.8, alpha_rho=0.7, alpha_c=0.4,
    value_cost=0.3, policy_cost=0.6, entropy_cost=0.05,
  )
  expected = 0.0
  steps = CONFIG.trajectory_length
  for i in range(CONFIG.batch_size):
    log_pi = np.log(
      np.exp(policy[:, i]) / np.exp(policy[:, i]).sum(-1, keepdims=True)
    )
    taken = log_pi[np.arange(steps + 1), trajectory.action[:, i]]
    weight = np.exp(taken - trajectory.behaviour_log_prob[:, i])
    v, r = value[:, i], trajectory.reward[:, i]
    error, targets = 0.0, np.zeros(steps + 1)
    targets[steps] = v[steps]
    for s in reversed(range(steps)):
      rho = 0.7 * min(1, weight[s]) + 0.3 * weight[s]
      c = 0.8 * (0.4 * min(1, weight[s]) + 0.6 * weight[s])
      delta = rho * (r[s + 1] + 0.9 * v[s + 1] - v[s])
      error = delta + 0.9 * c * error
      targets[s] = error + v[s]
    for s in range(steps):
      rho = 0.7 * min(1, weight[s]) + 0.3 * weight[s]
      advantage = r[s + 1] + 0.9 * targets[s + 1] - v[s]
      expected += 0.3 * (targets[s] - v[s]) ** 2
      expected -= 0.6 * rho * taken[s] * advantage
      # With the sign that makes entropy a bonus.
      expected += 0.05 * np.sum(np.exp(log_pi[s]) * log_pi[s])
  loss, _ = core.loss(
    policy, value, trajectory, zeta, DISTRIBUTION, inner=True
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_masked_steps_change_nothing_whatever_they_contain():
  trajectory = helpers.trajectory(CONFIG)
  policy, value = outputs()
  mask = np.asarray(transition_mask(trajectory.step_type))
  assert not mask.all()
  spoilt = jax.tree_util.tree_map(np.array, trajectory)
  spoilt.reward[1:][~mask] = np.nan
  spoilt.discount[1:][~mask] = np.inf
  spoilt.behaviour_log_prob[:-1][~mask] = np.nan
  spoilt.action[:-1][~mask] = 10**6
  expected = value_and_gradients(trajectory, policy, value)
  actual = value_and_gradients(spoilt, policy, value)
  jax.tree_util.tree_map(np.testing.assert_array_equal, actual, expected)
  # Nor do they pull at the networks' outputs there.
  assert not np.any(actual[1][0][:-1][~mask])
  assert not np.any(actual[1][1][:-1][~mask])


def test_time_limit_bootstraps_and_termination_does_not():
  trajectory = helpers.trajectory(CONFIG)
  policy, value = outputs()
  moved = value.copy()
  moved[2] += 1.0  # The LAST rows of members 0 (terminal) and 1 (time limit).
  changes = []
  for member in (0, 1):
    one = jax.tree_util.tree_map(
      lambda x, m=member: x[:, m : m + 1], trajectory
    )
    slices = [
      core.loss(
        policy[:, member : member + 1],
        v[:, member : member + 1],
        one,
        OUTER,
        DISTRIBUTION,
        inner=True,
      )[0]
      for v in (value, moved)
    ]
    changes.append(float(slices[1] - slices[0]))
  assert changes[0] == 0.0
  assert abs(changes[1]) > 1e-3


def test_nothing_crosses_an_episode_end():
  """What follows the LAST step has no influence on what came before it."""
  trajectory = helpers.trajectory(CONFIG)
  policy, value = outputs()
  moved = value.copy()
  moved[3:, :2] += 1.0
  _, (_, before) = value_and_gradients(trajectory, policy, value)
  _, (_, after) = value_and_gradients(trajectory, policy, moved)
  np.testing.assert_array_equal(before[:3, :2], after[:3, :2])


@pytest.mark.parametrize("inner", [True, False])
def test_what_is_differentiable_in_the_hyperparameters(inner):
  """The inner loss in all of ζ; the outer advantages in none of it."""
  trajectory = helpers.trajectory(CONFIG)
  policy, value = outputs()

  def policy_loss(discount):
    terms = core.loss(
      policy,
      value,
      trajectory,
      OUTER._replace(discount=discount),
      DISTRIBUTION,
      inner=inner,
    )[1]
    return terms.policy

  assert bool(jax.grad(policy_loss)(0.9) != 0.0) == inner


def test_rewards_are_clipped():
  trajectory = helpers.trajectory(CONFIG)
  large = trajectory._replace(reward=100 * np.sign(trajectory.reward))
  unit = trajectory._replace(reward=np.sign(trajectory.reward))
  policy, value = outputs()
  losses = [
    core.loss(
      policy, value, t, OUTER, DISTRIBUTION, inner=True, max_abs_reward=bound
    )[0]
    for t, bound in ((large, 1.0), (unit, None))
  ]
  assert losses[0] == losses[1]


def test_rewards_are_scaled_before_they_are_clipped():
  trajectory = helpers.trajectory(CONFIG)
  scaled = trajectory._replace(reward=0.1 * trajectory.reward)
  policy, value = outputs()
  losses = [
    core.loss(
      policy, value, t, OUTER, DISTRIBUTION, inner=True, reward_scale=scale,
      max_abs_reward=0.05,
    )[0]
    for t, scale in ((trajectory, 0.1), (scaled, 1.0), (trajectory, 1.0))
  ]
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
  assert abs(losses[0] - losses[2]) > 1e-3


def test_kl_loss():
  trajectory = helpers.trajectory(CONFIG)
  new, old = outputs(0)[0], outputs(1)[0]
  p, q = jax.nn.softmax(new), jax.nn.softmax(old)
  mask = trajectory.step_type[:-1] != dm_env.StepType.LAST
  expected = np.sum((p * np.log(p / q)).sum(-1)[:-1] * mask)
  kl = core.kl_loss(new, old, trajectory.step_type, DISTRIBUTION)
  np.testing.assert_allclose(kl, expected, rtol=1e-5)
  assert core.kl_loss(old, old, trajectory.step_type, DISTRIBUTION) == 0.0
  gradient = jax.grad(
    lambda q: core.kl_loss(new, q, trajectory.step_type, DISTRIBUTION)
  )(jnp.asarray(old))
  assert not np.any(gradient)


def test_categorical_against_distrax():
  import distrax

  logits, other = outputs(2)[0], outputs(3)[0]
  theirs = distrax.Categorical(logits=logits)
  action = helpers.trajectory(CONFIG).action
  for ours, reference in (
    (DISTRIBUTION.log_prob(logits, action), theirs.log_prob(action)),
    (DISTRIBUTION.entropy(logits), theirs.entropy()),
    (-DISTRIBUTION.regulariser(logits), theirs.entropy()),
    (
      DISTRIBUTION.kl(logits, other),
      theirs.kl_divergence(distrax.Categorical(logits=other)),
    ),
    (DISTRIBUTION.mode(logits), theirs.mode()),
  ):
    np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-6)
  samples = DISTRIBUTION.sample(
    jax.random.PRNGKey(0), jnp.broadcast_to(logits[0, 0], (20_000, 3))
  )
  frequencies = np.bincount(samples, minlength=3) / 20_000
  np.testing.assert_allclose(frequencies, theirs.probs[0, 0], atol=0.02)
