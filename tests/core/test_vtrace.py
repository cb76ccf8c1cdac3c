import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from acme_stac.core import leaky_vtrace, leaky_weights


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

  with jax.experimental.enable_x64():
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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha_rho,alpha_c", [(1, 1), (0.7, 0.7), (0.9, 0.4)])
def test_theorem_1(seed, alpha_rho, alpha_c):
  """Contraction rate and fixed point of the exact operator on small MDPs.

  Theorem 1 needs α_ρ >= α_c.
  """
  with jax.experimental.enable_x64():
    gamma = 0.9
    mdp = random_mdp(seed)
    transition, reward, pi, mu = mdp
    # β bounds E_μ[min(1, IS)] from below in every state.
    beta = np.min(np.sum(np.minimum(mu, pi), axis=1))
    rate = 1 - (1 - gamma) * (alpha_rho * beta + 1 - alpha_rho)
    rng = np.random.default_rng(seed)
    for _ in range(20):
      v, w = rng.normal(size=(2, 4))
      before = np.max(np.abs(v - w))
      after = np.max(
        np.abs(
          exact_operator(mdp, v, gamma, alpha_rho, alpha_c)
          - exact_operator(mdp, w, gamma, alpha_rho, alpha_c)
        )
      )
      assert after <= rate * before + 1e-9
    # Eq. 9: the policy whose value is the fixed point.
    policy = alpha_rho * np.minimum(mu, pi) + (1 - alpha_rho) * pi
    policy /= policy.sum(axis=1, keepdims=True)
    dynamics = np.einsum("xa,xay->xy", policy, transition)
    value = np.linalg.solve(
      np.eye(4) - gamma * dynamics, np.sum(policy * reward, axis=1)
    )
    np.testing.assert_allclose(
      exact_operator(mdp, value, gamma, alpha_rho, alpha_c), value, atol=1e-9
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
