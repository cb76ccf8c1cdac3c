import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from acme_stac import core
from tests.support import helpers

MIN, MAX = -3.0, 0.5


def random_params(seed=0, shape=(50,), size=3):
  rng = np.random.default_rng(seed)
  return rng.normal(scale=1.5, size=(*shape, 2 * size))


def gaussian_of(params):
  """Mean and σ of section 9.3, by hand."""
  mean, y = np.split(np.asarray(params, np.float64), 2, axis=-1)
  sigma = np.exp(MIN + 0.5 * (MAX - MIN) * (np.tanh(y) + 1))
  return np.tanh(mean), sigma


def squashed(params):
  return distrax.Transformed(
    distrax.MultivariateNormalDiag(*gaussian_of(params)),
    distrax.Block(distrax.Tanh(), 1),
  )


def test_log_prob_equals_distrax():
  with helpers.float64():
    policy = core.SquashedGaussian(MIN, MAX)
    params = random_params()
    action = np.random.default_rng(1).uniform(-0.999, 0.999, (50, 3))
    np.testing.assert_allclose(
      policy.log_prob(params, action),
      squashed(params).log_prob(action),
      rtol=1e-8,
    )


def test_divergences_equal_distrax():
  with helpers.float64():
    policy = core.SquashedGaussian(MIN, MAX)
    one, other = random_params(0), random_params(1)
    p = distrax.MultivariateNormalDiag(*gaussian_of(one))
    q = distrax.MultivariateNormalDiag(*gaussian_of(other))
    standard = distrax.MultivariateNormalDiag(np.zeros(3), np.ones(3))
    np.testing.assert_allclose(
      policy.kl(one, other), p.kl_divergence(q), rtol=1e-8
    )
    np.testing.assert_allclose(
      policy.regulariser(one), p.kl_divergence(standard), rtol=1e-8
    )
    np.testing.assert_allclose(policy.entropy(one), p.entropy(), rtol=1e-8)
    np.testing.assert_allclose(policy.kl(one, one), 0.0, atol=1e-12)


def test_numeric_integration():
  """The density has mass 1, and its integral is the squashed KL."""
  with helpers.float64():
    policy = core.SquashedGaussian(MIN, MAX)
    # Substituting a = tanh(u) keeps the grid fine near ±1.
    u = np.linspace(-9.0, 9.0, 200_001)
    action, weight = np.tanh(u)[:, None], 1 - np.tanh(u) ** 2
    for seed in range(5):
      one, other = random_params(seed, (), 1), random_params(seed + 9, (), 1)
      log_p = policy.log_prob(one, action)
      log_q = policy.log_prob(other, action)
      density = np.exp(log_p) * weight
      mass = integrate.trapezoid(density, u)
      divergence = integrate.trapezoid(density * (log_p - log_q), u)
      np.testing.assert_allclose(mass, 1.0, rtol=1e-6)
      np.testing.assert_allclose(
        divergence, policy.kl(one, other), rtol=1e-6
      )


def test_samples_follow_the_density():
  policy = core.SquashedGaussian(MIN, MAX)
  params = jnp.asarray(random_params(3, (), 1), jnp.float32)
  samples = np.asarray(
    policy.sample(
      jax.random.PRNGKey(0), jnp.broadcast_to(params, (100_000, 2))
    )
  )[:, 0]
  mean, sigma = gaussian_of(params)
  edges = np.tanh(mean + sigma * np.array([-1.0, 0.0, 1.0]))
  share = [np.mean(samples < edge) for edge in edges]
  np.testing.assert_allclose(share, [0.1587, 0.5, 0.8413], atol=0.005)
  np.testing.assert_allclose(policy.mode(params), np.tanh(mean), rtol=1e-5)


@pytest.mark.parametrize("action", [1.0, -1.0, 1.0 - 6e-8, -0.9999999])
def test_actions_at_the_bounds(action):
  """log π, its gradient and weights stay finite and exact at ±1."""
  policy = core.SquashedGaussian(MIN, MAX)
  params = jnp.asarray(random_params(4, (), 2), jnp.float32)
  actions = jnp.array([action, 0.3], jnp.float32)
  value, gradient = jax.value_and_grad(policy.log_prob)(params, actions)
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()
  # The Jacobian cancels in a ratio: what is left is the Gaussians' ratio.
  other = params + 0.1
  ratio = policy.log_prob(other, actions) - value
  limit = 1 - np.finfo(np.float32).epsneg
  u = np.arctanh(np.clip(np.asarray(actions, np.float64), -limit, limit))

  def log_normal(params):
    mean, sigma = gaussian_of(params)
    return np.sum(-0.5 * ((u - mean) / sigma) ** 2 - np.log(sigma))

  expected = log_normal(other) - log_normal(params)
  np.testing.assert_allclose(ratio, expected, rtol=1e-3)


def test_extreme_parameters():
  policy = core.SquashedGaussian(MIN, MAX)
  params = jnp.array([[1e4, -1e4, 1e4, -1e4]])
  action = policy.sample(jax.random.PRNGKey(0), params)
  assert np.all(np.abs(action) < 1.0)
  assert np.isfinite(policy.log_prob(params, action)).all()
  mean, log_sigma = policy.gaussian(params)
  np.testing.assert_allclose(mean, [[1.0, -1.0]])
  np.testing.assert_allclose(log_sigma, [[MAX, MIN]])


def test_categorical_equals_distrax():
  rng = np.random.default_rng(0)
  one, other = rng.normal(size=(2, 50, 4))
  action = rng.integers(0, 4, 50)
  policy = core.Categorical()
  p, q = distrax.Categorical(logits=one), distrax.Categorical(logits=other)
  np.testing.assert_allclose(
    policy.log_prob(one, action), p.log_prob(action), rtol=1e-4
  )
  np.testing.assert_allclose(policy.entropy(one), p.entropy(), rtol=1e-4)
  np.testing.assert_allclose(
    policy.kl(one, other), p.kl_divergence(q), rtol=1e-3, atol=1e-6
  )
  np.testing.assert_allclose(policy.regulariser(one), -p.entropy(), rtol=1e-4)


def test_an_action_ruled_out_adds_nothing():
  """A logit of −inf: as if the action did not exist, and nowhere NaN."""
  policy = core.Categorical()
  three = jnp.array([0.3, -jnp.inf, -0.4])
  other = jnp.array([-0.1, -jnp.inf, 0.2])
  two, other_two = three[::2], other[::2]
  for whole, part in (
    (policy.entropy, policy.entropy),
    (lambda x: policy.kl(x, other), lambda x: policy.kl(x, other_two)),
    (lambda x: policy.log_prob(x, jnp.array(2)),
     lambda x: policy.log_prob(x, jnp.array(1))),
  ):
    value, gradient = jax.value_and_grad(whole)(three)
    expected, expected_gradient = jax.value_and_grad(part)(two)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[::2], expected_gradient, rtol=1e-5)
    assert gradient[1] == 0.0
  assert jnp.exp(policy.log_prob(three, jnp.array(1))) == 0.0


def test_kl_of_gaussians_that_hardly_differ_keeps_its_digits():
  """In single precision exp(2d) − 1 − 2d would be rounding alone."""
  policy = core.SquashedGaussian(-3.0, 0.5)
  params = np.array([[0.2, 0.1]])
  moved = params + np.array([[0.0, 1e-4]])
  with helpers.float64():
    exact = policy.kl(jnp.asarray(moved), jnp.asarray(params))
  single = policy.kl(
    jnp.asarray(moved, jnp.float32), jnp.asarray(params, jnp.float32)
  )
  np.testing.assert_allclose(single, exact, rtol=0.02)
