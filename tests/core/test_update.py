import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_stac import core
from acme_stac.config import METAPARAMETER_NAMES
from acme_stac.core import losses
from tests import helpers


def setup(config, seed=0, **kwargs):
  networks = helpers.networks(config)
  update = core.make_update(networks, config)
  state = update.init(jax.random.PRNGKey(seed))
  return networks, update, state, helpers.trajectory(config, seed, **kwargs)


def to_float64(tree):
  return jax.tree_util.tree_map(
    lambda x: np.asarray(x, np.float64)
    if np.issubdtype(x.dtype, np.floating)
    else np.asarray(x),
    tree,
  )


def warm_state(config, update, state):
  """A state some updates on, so that the second moments are not zero."""
  step = jax.jit(update.update)
  for seed in range(3):
    trajectory = to_float64(helpers.trajectory(config, 10 + seed))
    state, _ = step(to_float64(state), trajectory)
  return to_float64(state)


def unroll(networks, params, trajectory):
  return networks.unroll(
    params, trajectory.observation, trajectory.core_state, trajectory.step_type
  )


def inner_gradient(networks, config, params, zeta, trajectory):
  """The inner gradient, coded for one head after the other."""

  def total(params):
    output = unroll(networks, params, trajectory)
    value = 0.0
    for head in range(config.num_heads):
      head_zeta = jax.tree_util.tree_map(lambda x, h=head: x[h], zeta)
      value += core.loss(
        output.policy[:, :, head],
        output.value[:, :, head],
        trajectory,
        head_zeta,
        networks.distribution,
        inner=True,
        max_abs_reward=config.max_abs_reward,
      )[0]
    return value / config.num_heads

  return jax.grad(total)(params)


def rmsprop(config, params, second_moment, gradient, step):
  """TensorFlow's RMSProp with ε inside the root, by hand."""
  decay, eps = config.rmsprop_decay, config.rmsprop_eps
  # Has a test of its own.
  rate = core.learning_rate(step, config)
  second_moment = jax.tree_util.tree_map(
    lambda n, g: decay * n + (1 - decay) * g**2, second_moment, gradient
  )
  return jax.tree_util.tree_map(
    lambda p, g, n: p - rate * g / jnp.sqrt(n + eps),
    params,
    gradient,
    second_moment,
  )


def frozen_outer_loss(networks, config, params, frozen, old, trajectory):
  """The outer loss with all that it stops held at `frozen`'s outputs.

  A second coding, from the definition: targets, advantages and weights are
  numbers, and the loss is a plain function of π and V.
  """
  outer = core.outer_hyperparameters(config)
  mask = losses.transition_mask(trajectory.step_type)
  taken = functools.partial(
    networks.distribution.log_prob, action=trajectory.action[:-1]
  )
  # Held: importance weights, targets, advantages.
  held_value = frozen.value[..., 0]
  weights = jnp.exp(
    taken(frozen.policy[:-1, :, 0]) - trajectory.behaviour_log_prob[:-1]
  )
  discount = outer.discount * trajectory.discount[1:]
  targets = core.leaky_vtrace(
    held_value[:-1],
    held_value[1:],
    trajectory.reward[1:],
    discount,
    weights,
    mask=mask,
  ).targets
  following = jnp.concatenate([targets[1:], held_value[-1:]])
  advantage = jnp.minimum(1.0, weights) * (
    trajectory.reward[1:] + discount * following - held_value[:-1]
  )
  # Free: log π, V, the entropy and the divergence.
  output = unroll(networks, params, trajectory)
  policy, value = output.policy[:-1, :, 0], output.value[:-1, :, 0]
  log_new = jax.nn.log_softmax(policy)
  log_old = jax.nn.log_softmax(old.policy[:-1, :, 0])
  terms = (
    outer.value_cost * (targets - value) ** 2
    - outer.policy_cost * taken(policy) * advantage
    + outer.entropy_cost * jnp.sum(jnp.exp(log_new) * log_new, -1)
    + config.kl_cost * jnp.sum(jnp.exp(log_new) * (log_new - log_old), -1)
  )
  return jnp.sum(jnp.where(mask, terms, 0.0))


def metagradient(update, config, state, trajectory):
  """Reads the metagradient out of Adam's first moment."""
  fresh = state._replace(
    meta_optimizer_state=optax.adam(1.0).init(state.metaparams)
  )
  new, _ = update.update(fresh, trajectory)
  moment = new.meta_optimizer_state[0].mu
  return jax.tree_util.tree_map(lambda m: m / (1 - config.meta_b1), moment)


SUBSETS = [
  ("stacx", {}),
  ("stac", {}),
  ("stacx", {"self_tuned": ("alpha_rho", "alpha_c", "discount")}),
  ("stacx_gamma", {}),
  ("stac_no_alpha", {"max_gradient_norm": 0.5}),
  ("stacx", {"lstm_size": 6}),
]


@pytest.mark.parametrize("agent,overrides", SUBSETS)
def test_metagradient_equals_finite_differences(agent, overrides):
  """Central differences in η, in float64, the stopped parts frozen."""
  with jax.experimental.enable_x64():
    config = helpers.small_config(agent, **overrides)
    networks, update, state, trajectory = setup(config)
    state = warm_state(config, update, state)
    # Away from its start, where σ is flat.
    rng = np.random.default_rng(0)
    state = state._replace(
      metaparams={
        name: rng.normal(size=x.shape) for name, x in state.metaparams.items()
      }
    )
    trajectory = to_float64(trajectory)
    second_moment = state.optimizer_state[-1].nu
    old = unroll(networks, state.params, trajectory)

    @jax.jit
    def new_params(eta):
      gradient = inner_gradient(
        networks, config, state.params, core.constrain(eta, config), trajectory
      )
      if config.max_gradient_norm is not None:
        norm = optax.global_norm(gradient)
        scale = config.max_gradient_norm / jnp.maximum(
          norm, config.max_gradient_norm
        )
        gradient = jax.tree_util.tree_map(lambda g: g * scale, gradient)
      return rmsprop(config, state.params, second_moment, gradient, state.step)

    frozen = unroll(networks, new_params(state.metaparams), trajectory)

    @jax.jit
    def outer(eta):
      return frozen_outer_loss(
        networks, config, new_params(eta), frozen, old, trajectory
      )

    exact = jax.jit(
      lambda s: metagradient(update, config, s, trajectory)
    )(state)
    step = 1e-5
    for name, eta in state.metaparams.items():
      for head in range(config.num_heads):
        moved = []
        for sign in (1, -1):
          changed = eta.copy()
          changed[head] += sign * step
          moved.append(outer({**state.metaparams, name: changed}))
        difference = (moved[0] - moved[1]) / (2 * step)
        np.testing.assert_allclose(
          exact[name][head], difference, rtol=1e-5, atol=1e-9
        )
        assert exact[name][head] != 0.0


def test_metagradient_equals_a_jacobian_vector_product():
  """u·∂g/∂η with u = (∂θ'/∂g)ᵀ ∇L_outer, coded apart from the update."""
  with jax.experimental.enable_x64():
    config = helpers.small_config("stacx")
    networks, update, state, trajectory = setup(config)
    state = warm_state(config, update, state)
    trajectory = to_float64(trajectory)
    second_moment = state.optimizer_state[-1].nu
    old = unroll(networks, state.params, trajectory)

    def gradient_of(eta):
      return inner_gradient(
        networks, config, state.params, core.constrain(eta, config), trajectory
      )

    gradient = jax.jit(gradient_of)(state.metaparams)
    new = rmsprop(config, state.params, second_moment, gradient, state.step)
    frozen = unroll(networks, new, trajectory)
    outer_gradient = jax.grad(
      lambda p: frozen_outer_loss(
        networks, config, p, frozen, old, trajectory
      )
    )(new)
    decay, eps = config.rmsprop_decay, config.rmsprop_eps
    rate = core.learning_rate(state.step, config)

    def through_rmsprop(gradient, nu, outer):
      # d/dg of g / sqrt(decay ν + (1 − decay) g² + ε), element by element.
      root = decay * nu + (1 - decay) * gradient**2 + eps
      slope = 1 / jnp.sqrt(root) - (1 - decay) * gradient**2 / root**1.5
      return -rate * slope * outer

    u = jax.tree_util.tree_map(
      through_rmsprop, gradient, second_moment, outer_gradient
    )
    exact = jax.jit(
      lambda s: metagradient(update, config, s, trajectory)
    )(state)
    for name in config.self_tuned:
      for head in range(config.num_heads):
        tangent = jax.tree_util.tree_map(jnp.zeros_like, state.metaparams)
        tangent[name] = tangent[name].at[head].set(1.0)
        _, column = jax.jvp(gradient_of, (state.metaparams,), (tangent,))
        product = sum(
          jnp.vdot(a, b)
          for a, b in zip(
            jax.tree_util.tree_leaves(u),
            jax.tree_util.tree_leaves(column),
            strict=True,
          )
        )
        np.testing.assert_allclose(exact[name][head], product, rtol=1e-9)


@pytest.mark.parametrize("name", METAPARAMETER_NAMES)
def test_every_metaparameter_moves(name):
  """The trap: default compositions give a metagradient of exactly zero."""
  config = helpers.small_config("stacx", self_tuned=(name,))
  _, update, state, trajectory = setup(config)
  step = core.Update(update.init, jax.jit(update.update))
  gradient = metagradient(step, config, state, trajectory)
  assert np.all(np.asarray(gradient[name]) != 0.0)


@pytest.mark.parametrize("heads", [1, 3])
def test_nothing_self_tuned_is_impala_bit_for_bit(heads):
  config = helpers.small_config("impala", num_heads=heads)
  networks, update, state, _ = setup(config)
  optimizer = optax.rmsprop(
    lambda count: core.learning_rate(count, config),
    decay=config.rmsprop_decay,
    eps=config.rmsprop_eps,
    eps_in_sqrt=True,
  )
  params, optimizer_state = state.params, optimizer.init(state.params)
  outer = core.outer_hyperparameters(config)

  @jax.jit
  def impala(params, optimizer_state, trajectory):
    def loss(params):
      output = unroll(networks, params, trajectory)
      per_head, _ = jax.vmap(
        lambda policy, value: core.loss(
          policy, value, trajectory, outer, networks.distribution, inner=False
        ),
        in_axes=(-2, -1),
      )(output.policy, output.value)
      return jnp.mean(per_head)

    updates, optimizer_state = optimizer.update(
      jax.grad(loss)(params), optimizer_state
    )
    return optax.apply_updates(params, updates), optimizer_state

  step = jax.jit(update.update)
  for seed in range(5):
    trajectory = helpers.trajectory(config, seed)
    state, metrics = step(state, trajectory)
    params, optimizer_state = impala(params, optimizer_state, trajectory)
  jax.tree_util.tree_map(np.testing.assert_array_equal, state.params, params)
  assert "meta_gradient_norm" not in metrics


def test_inner_loss_is_impala_for_what_is_not_tuned():
  """Tuning γ from its outer value on changes nothing in the first step."""
  gamma = 0.97
  start = float(np.log(gamma / (1 - gamma)))
  tuned = helpers.small_config(
    "stacx_gamma", discount=gamma, metaparameter_init=start
  )
  fixed = helpers.small_config("impala_aux", discount=gamma)
  _, update, state, trajectory = setup(tuned)
  _, plain, plain_state, _ = setup(fixed)
  new, _ = jax.jit(update.update)(state, trajectory)
  expected, _ = jax.jit(plain.update)(plain_state, trajectory)
  jax.tree_util.tree_map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    new.params,
    expected.params,
  )


def test_adam_moves_eta():
  config = helpers.small_config("stac")
  _, update, state, trajectory = setup(config)
  step = core.Update(update.init, jax.jit(update.update))
  gradient = metagradient(step, config, state, trajectory)
  new, _ = step.update(state, trajectory)
  for name, g in gradient.items():
    # Adam's first step: the bias corrections cancel the decays.
    expected = config.metaparameter_init - config.meta_learning_rate * g / (
      jnp.abs(g) + config.meta_eps
    )
    np.testing.assert_allclose(new.metaparams[name], expected, rtol=1e-5)


def test_learning_rate_is_linear_and_ends():
  config = helpers.small_config(learning_rate=1e-2, final_learning_rate=1e-3)
  last = config.num_updates
  np.testing.assert_allclose(core.learning_rate(0, config), 1e-2)
  np.testing.assert_allclose(
    core.learning_rate(last / 2, config), 5.5e-3, rtol=1e-5
  )
  np.testing.assert_allclose(
    core.learning_rate(last, config), 1e-3, rtol=1e-5
  )
  np.testing.assert_allclose(
    core.learning_rate(2 * last, config), 1e-3, rtol=1e-5
  )


@pytest.mark.parametrize("agent", ["impala", "stacx"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_update_that_is_not_finite_is_skipped(agent, bad):
  config = helpers.small_config(agent)
  _, update, state, trajectory = setup(config)
  step = jax.jit(update.update)
  state, _ = step(state, trajectory)
  reward = trajectory.reward.copy()
  reward[1, 3] = bad
  new, metrics = step(state, trajectory._replace(reward=reward))
  jax.tree_util.tree_map(np.testing.assert_array_equal, new[:4], state[:4])
  assert metrics["skipped_updates"] == new.skipped_updates == 1
  assert new.step == state.step + 1
  again, metrics = step(new, trajectory)
  assert metrics["skipped_updates"] == 1
  assert all(
    np.isfinite(x).all() for x in jax.tree_util.tree_leaves(again.params)
  )


def test_update_compiles_once():
  """A state whose types change with the first update would compile twice."""
  config = helpers.small_config("stacx")
  _, update, state, trajectory = setup(config)
  traces = []

  @jax.jit
  def step(state, trajectory):
    traces.append(None)
    return update.update(state, trajectory)

  for _ in range(3):
    state, _ = step(state, trajectory)
  assert len(traces) == 1


def test_masked_steps_change_no_update():
  config = helpers.small_config("stacx")
  _, update, state, trajectory = setup(config)
  mask = np.asarray(losses.transition_mask(trajectory.step_type))
  spoilt = jax.tree_util.tree_map(np.array, trajectory)
  spoilt.reward[1:][~mask] = np.nan
  spoilt.discount[1:][~mask] = np.nan
  spoilt.behaviour_log_prob[:-1][~mask] = np.nan
  spoilt.action[:-1][~mask] = -7
  step = jax.jit(update.update)
  jax.tree_util.tree_map(
    np.testing.assert_array_equal,
    step(state, spoilt),
    step(state, trajectory),
  )
