import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from acme_stac.core import leaky_vtrace, leaky_weights
from tests.support import helpers


def random_arguments(seed, shape=(7, 3)):
  rng = np.random.default_rng(seed)
  v_tm1, v_t, r_t = rng.normal(size=(3, *shape)).astype(np.float32)
  discount_t = (0.95 * rng.integers(0, 2, shape)).astype(np.float32)
  rho = np.exp(rng.normal(size=shape)).astype(np.float32)
  return v_tm1, v_t, r_t, discount_t, rho


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_equals_rlax_for_tied_alpha(alpha, lambda_):
  arguments = random_arguments(0)
  ours = leaky_vtrace(
    *arguments, alpha_rho=alpha, alpha_c=alpha, lambda_=lambda_
  )
  theirs = jax.vmap(
    lambda *a: rlax.leaky_vtrace(*a, alpha, lambda_), in_axes=1, out_axes=1
  )(*map(jnp.asarray, arguments))
  np.testing.assert_allclose(ours.errors, theirs, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    ours.targets, theirs + arguments[0], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("clip_rho", [0.5, 1.0, 2.0])
def test_is_vtrace_at_alpha_one(clip_rho):
  arguments = random_arguments(1)
  ours = leaky_vtrace(*arguments, clip_rho_threshold=clip_rho)
  theirs = jax.vmap(
    lambda *a: rlax.vtrace(*a, clip_rho_threshold=clip_rho),
    in_axes=1,
    out_axes=1,
  )(*map(jnp.asarray, arguments))
  np.testing.assert_allclose(ours.errors, theirs, rtol=1e-5, atol=1e-5)


def test_is_importance_sampling_at_alpha_zero():
  """Against the definition as a double sum, one T at a time, in NumPy."""
  v_tm1, v_t, r_t, discount_t, rho = random_arguments(2, (6,))
  ours = leaky_vtrace(
    v_tm1, v_t, r_t, discount_t, rho, alpha_rho=0.0, alpha_c=0.0, lambda_=0.8
  )
  for start in range(6):
    target, weight = v_tm1[start], 1.0
    for t in range(start, 6):
      delta = r_t[t] + discount_t[t] * v_t[t] - v_tm1[t]
      target += weight * rho[t] * delta
      weight *= discount_t[t] * 0.8 * rho[t]
    np.testing.assert_allclose(ours.targets[start], target, rtol=1e-4)


def test_alphas_are_apart():
  """α_ρ weighs the errors, α_c the trace: by hand on two steps."""
  rho = jnp.array([3.0, 2.0])
  ones = jnp.ones(2)
  out = leaky_vtrace(
    0 * ones, 0 * ones, ones, ones, rho, alpha_rho=0.25, alpha_c=0.5
  )
  rho_0, rho_1 = 0.25 + 0.75 * 3, 0.25 + 0.75 * 2
  c_0 = 0.5 + 0.5 * 3
  np.testing.assert_allclose(out.errors, [rho_0 + c_0 * rho_1, rho_1])


def test_gradients():
  """Values and weights carry none; γ, λ and both α do."""
  v_tm1, v_t, r_t, discount_t, rho = random_arguments(3)
  # NumPy would keep γ times a float32 array in single precision.
  discount_t = discount_t.astype(np.float64)

  def total(v_tm1, v_t, rho, gamma, lambda_, alpha_rho, alpha_c):
    out = leaky_vtrace(
      v_tm1,
      v_t,
      r_t,
      gamma * discount_t,
      rho,
      alpha_rho=alpha_rho,
      alpha_c=alpha_c,
      lambda_=lambda_,
    )
    return jnp.sum(jnp.square(out.targets))

  with helpers.float64():
    point = (v_tm1, v_t, rho, 0.9, 0.8, 0.7, 0.6)
    point = [np.asarray(x, np.float64) for x in point]
    gradients = jax.grad(total, argnums=range(7))(*point)
    for stopped in gradients[:3]:
      assert not np.any(stopped)
    for index in range(3, 7):
      step = 1e-6
      up, down = list(point), list(point)
      up[index] = point[index] + step
      down[index] = point[index] - step
      difference = (total(*up) - total(*down)) / (2 * step)
      np.testing.assert_allclose(gradients[index], difference, rtol=1e-6)


def test_mask_cuts_and_ignores():
  arguments = random_arguments(4, (6,))
  mask = np.array([1, 1, 0, 1, 1, 1], bool)
  whole = leaky_vtrace(*arguments, mask=mask)
  spoilt = [x.copy() for x in arguments]
  for x in (*spoilt[1:],):
    x[2] = np.nan
  np.testing.assert_array_equal(
    whole.errors, leaky_vtrace(*spoilt, mask=mask).errors
  )
  before = leaky_vtrace(*[x[:2] for x in arguments])
  after = leaky_vtrace(*[x[3:] for x in arguments])
  np.testing.assert_allclose(
    whole.errors,
    np.concatenate([before.errors, [0.0], after.errors]),
    rtol=1e-6,
  )


def random_mdp(seed, states=4, actions=3):
  rng = np.random.default_rng(seed)
  transition = rng.dirichlet(np.ones(states), (states, actions))
  reward = rng.normal(size=(states, actions))
  pi = rng.dirichlet(np.ones(actions), states)
  mu = rng.dirichlet(2 * np.ones(actions), states)
  return transition, reward, pi, mu


def exact_operator(mdp, value, gamma, alpha_rho, alpha_c, horizon=400):
  """The leaky V-trace operator (Eq. 6), as an exact expectation under μ."""
  transition, reward, pi, mu = mdp
  ratio = pi / mu
  rho = np.asarray(leaky_weights(ratio, alpha_rho, 1.0), np.float64)
  c = np.asarray(leaky_weights(ratio, alpha_c, 1.0), np.float64)
  delta = np.sum(
    mu * rho * (reward + gamma * transition @ value - value[:, None]), axis=1
  )
  # E_μ[c_s 1(x_{s+1} = ·)]: how the trace spreads errors backwards.
  spread = np.einsum("xa,xa,xay->xy", mu, c, transition)
  result, power = value.copy(), np.eye(len(value))
  for _ in range(horizon):
    result += power @ delta
    power = gamma * power @ spread
  return result


def contraction(mdp, gamma, alpha_rho, alpha_c):
  """The exact operator's sup-norm factor, and the bound of Theorem 1.

  The operator is affine: v + (I − γ C)⁻¹ (r + (γ P_ρ − diag ρ) v), with C and
  P_ρ the transitions weighed by c and ρ. Any leading axes are many MDPs.
  """
  transition, _, pi, mu = mdp
  alpha_rho, alpha_c = np.asarray(alpha_rho), np.asarray(alpha_c)

  def weighed(alpha):
    weights = leaky_weights(pi / mu, alpha[..., None, None], 1.0)
    return mu * np.asarray(weights, np.float64)

  rho, c = weighed(alpha_rho), weighed(alpha_c)
  identity = np.eye(transition.shape[-1])
  spread = np.einsum("...xa,...xay->...xy", c, transition)
  step = gamma * np.einsum("...xa,...xay->...xy", rho, transition)
  step -= rho.sum(-1)[..., None] * identity
  linear = identity + np.linalg.solve(identity - gamma * spread, step)
  # β bounds E_μ[min(1, IS)] from below in every state.
  beta = np.min(np.sum(np.minimum(mu, pi), axis=-1), axis=-1)
  bound = 1 - (1 - gamma) * (alpha_rho * beta + 1 - alpha_rho)
  return np.max(np.sum(np.abs(linear), axis=-1), axis=-1), bound


def many_mdps(seed=0, count=2000, states=3, actions=2):
  """Random MDPs whose policies differ enough for Theorem 1 to fail."""
  rng = np.random.default_rng(seed)
  transition = rng.dirichlet(0.3 * np.ones(states), (count, states, actions))
  reward = rng.normal(size=(count, states, actions))
  pi = rng.dirichlet(0.3 * np.ones(actions), (count, states))
  mu = 0.02 + 0.96 * rng.dirichlet(np.ones(actions), (count, states))
  return transition, reward, pi, mu


def test_theorem_1_holds_where_alpha_rho_is_at_most_alpha_c():
  """And not the other way round, as the papers have it.

  The proof needs weights ρ ≥ c, and a larger α makes a smaller weight.
  """
  with helpers.float64():
    mdps = many_mdps()
    lower, upper = np.sort(np.random.default_rng(1).uniform(size=(2, 2000)), 0)
    for alpha_rho, alpha_c in ((lower, upper), (lower, lower), (1.0, 1.0)):
      factor, bound = contraction(mdps, 0.9, alpha_rho, alpha_c)
      assert np.all(factor <= bound + 1e-9)
    factor, bound = contraction(mdps, 0.9, upper, lower)
    # In 615 of them it fails; in most of those the operator even expands.
    assert np.sum(factor > bound + 1e-9) > 100
    assert np.sum(factor > 1.0) > 100


def test_counterexample_to_theorem_1_as_the_papers_state_it():
  """Two states; action i leads to state i."""
  with helpers.float64():
    transition = np.broadcast_to(np.eye(2), (2, 2, 2))
    pi, mu = np.array([[0.5, 0.5], [0.9, 0.1]]), np.full((2, 2), 0.5)
    mdp = transition, np.zeros((2, 2)), pi, mu
    factor, bound = contraction(mdp, 0.9, alpha_rho=0.9, alpha_c=0.4)
    np.testing.assert_allclose([factor, bound], [1.479, 0.936], atol=5e-4)
    # The operator itself, not only its matrix, expands a difference by that.
    grown = [
      np.max(np.abs(
        exact_operator(mdp, np.array(v), 0.9, 0.9, 0.4)
        - exact_operator(mdp, np.zeros(2), 0.9, 0.9, 0.4)
      ))
      for v in ((1.0, 1.0), (1.0, -1.0))
    ]
    np.testing.assert_allclose(max(grown), factor, rtol=1e-9)
    factor, bound = contraction(mdp, 0.9, alpha_rho=0.4, alpha_c=0.9)
    assert factor <= bound


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
  "alpha_rho,alpha_c", [(1, 1), (0.7, 0.7), (0.9, 0.4), (0.4, 0.9)]
)
def test_fixed_point_of_leaky_vtrace(seed, alpha_rho, alpha_c):
  """Eq. 9: the value of the policy π_ρ̄,α_ρ, in whatever order both α are."""
  with helpers.float64():
    gamma = 0.9
    mdp = transition, reward, pi, mu = random_mdp(seed)
    policy = alpha_rho * np.minimum(mu, pi) + (1 - alpha_rho) * pi
    policy /= policy.sum(axis=1, keepdims=True)
    dynamics = np.einsum("xa,xay->xy", policy, transition)
    value = np.linalg.solve(
      np.eye(4) - gamma * dynamics, np.sum(policy * reward, axis=1)
    )
    np.testing.assert_allclose(
      exact_operator(mdp, value, gamma, alpha_rho, alpha_c), value, atol=1e-9
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_truncated_weight_that_overflows_is_the_truncation_level(dtype):
  """Where (1 − α) IS is 0 · inf, and in θ's targets as in the advantages."""
  with helpers.float64():
    rho = np.array([0.5, 1.0, 3.0, np.inf], dtype)
    weights = leaky_weights(rho, dtype(1.0), 2.0)
    np.testing.assert_array_equal(weights, np.array([0.5, 1.0, 2.0, 2.0]))
    # α = 0 truncates nothing; a weight that is no number is not hidden.
    assert leaky_weights(rho, dtype(0.0), 2.0)[3] == np.finfo(dtype).max
    assert np.isnan(leaky_weights(dtype(np.nan), dtype(1.0), 2.0))
    arguments = [x.astype(dtype) for x in random_arguments(5, (4,))]
    large = dtype(1e30)
    outputs = [
      leaky_vtrace(*arguments[:4], np.array([0.5, 1.0, 3.0, last], dtype))
      for last in (large, np.inf)
    ]
    np.testing.assert_array_equal(*[out.targets for out in outputs])
    # The derivatives that the metagradient uses are finite.
    for argument in (1, 2):
      gradient = jax.grad(leaky_weights, argnums=argument)(
        rho[3], dtype(1.0), dtype(2.0)
      )
      assert np.isfinite(gradient)
    assert gradient == 1.0


def test_finite_weights_are_those_of_eq_5_to_the_bit():
  rho = np.exp(np.random.default_rng(0).uniform(-80, 80, 1000))
  rho = jnp.asarray(rho, jnp.float32)
  for alpha in (0.0, 0.3, 0.99, 1.0):
    np.testing.assert_array_equal(
      leaky_weights(rho, alpha, 1.0),
      alpha * jnp.minimum(1.0, rho) + (1.0 - alpha) * rho,
    )


def test_expectation_of_samples_is_the_operator():
  """The function on sampled trajectories agrees with the exact operator."""
  transition, reward, pi, mu = mdp = random_mdp(11)
  gamma, alpha_rho, alpha_c = 0.8, 0.8, 0.5
  value = np.array([1.0, -2.0, 0.5, 3.0])
  rng = np.random.default_rng(0)
  time, batch = 25, 60_000
  states = np.zeros((time + 1, batch), int)
  actions = np.zeros((time, batch), int)
  for t in range(time):
    uniform = rng.random((batch, 1))
    cumulative = np.cumsum(mu[states[t]], axis=1)
    actions[t] = np.argmax(cumulative > uniform, axis=1)
    uniform = rng.random((batch, 1))
    cumulative = np.cumsum(transition[states[t], actions[t]], axis=1)
    states[t + 1] = np.argmax(cumulative > uniform, axis=1)
  s = states[:-1]
  out = leaky_vtrace(
    value[s],
    value[states[1:]],
    reward[s, actions],
    np.full((time, batch), gamma),
    (pi / mu)[s, actions],
    alpha_rho=alpha_rho,
    alpha_c=alpha_c,
  )
  exact = exact_operator(mdp, value, gamma, alpha_rho, alpha_c, time)[0]
  first = np.asarray(out.targets[0])
  error = first.std() / np.sqrt(batch)
  assert abs(first.mean() - exact) < 4 * error
