import dataclasses
import functools

import dm_env
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import acme_stac
from acme_stac import core
from acme_stac.config import METAPARAMETER_NAMES
from acme_stac.core import losses
from tests.support import helpers

pytestmark = pytest.mark.usefixtures("quick_compilation")


def setup(config, seed=0, continuous=False, **kwargs):
  actions = helpers.CONTINUOUS if continuous else helpers.NUM_ACTIONS
  networks = helpers.networks(config, actions=actions)
  update = core.make_update(networks, config)
  state = update.init(jax.random.PRNGKey(seed))
  trajectory = helpers.trajectory(
    config, seed, continuous=continuous, **kwargs
  )
  return networks, update, state, trajectory


def unroll(networks, params, trajectory):
  """Applies networks that embed no metaparameter."""
  return networks.unroll(
    params,
    trajectory.observation,
    trajectory.core_state,
    trajectory.step_type,
    helpers.NOTHING_EMBEDDED,
  )


def to_float64(tree):
  return jax.tree_util.tree_map(
    lambda x: np.asarray(x, np.float64)
    if np.issubdtype(x.dtype, np.floating)
    else np.asarray(x),
    tree,
  )


def warm_state(config, update, state, continuous=False):
  """A state some updates on, so that the moments are not zero.

  And with η away from its start, where σ is flat.
  """
  for seed in range(3):
    trajectory = to_float64(
      helpers.trajectory(config, 10 + seed, continuous=continuous)
    )
    state, _ = update.update(to_float64(state), trajectory)
  rng = np.random.default_rng(0)
  etas = {}
  for name, eta in state.metaparams.items():
    if config.metaparameter_range == "clip":
      etas[name] = rng.uniform(0.5, 0.9, eta.shape)
    else:
      etas[name] = rng.normal(size=eta.shape)
  return to_float64(state)._replace(metaparams=etas)


class Reference:
  """θ'(η) and the outer loss, coded apart from the update, for one state.

  All that the update does not differentiate in is held fixed: the networks'
  conditioning at η₀, and the outer loss's weights, targets and advantages at
  θ'(η₀).
  """

  def __init__(self, networks, config, state, trajectory, held_out):
    self._networks, self._config = networks, config
    self._state, self._trajectory = state, trajectory
    self._held_out = held_out
    # The current values go to the networks, as numbers.
    sigma = [1 / (1 + np.exp(-state.metaparams[n])) for n in config.embedded]
    self._conditioning = np.reshape(sigma, (-1, config.num_heads)).T
    self._old = self._unroll(state.params, held_out)
    new_params = self.new_params(state.metaparams)
    self._frozen = self._unroll(new_params, held_out)
    if config.outer_loss == "bootstrap":
      self._target = self._unroll(self._make_target(new_params), held_out)

  def _unroll(self, params, trajectory):
    return self._networks.unroll(
      params,
      trajectory.observation,
      trajectory.core_state,
      trajectory.step_type,
      self._conditioning,
    )

  def gradient(self, eta):
    """The inner gradient at θ."""
    return self._gradient(eta, self._state.params, self._trajectory)

  def _gradient(self, eta, params, trajectory):
    """The inner gradient, coded for one head after the other."""
    config = self._config
    zeta = core.constrain(eta, config)
    loss = functools.partial(
      core.loss,
      trajectory=trajectory,
      distribution=self._networks.distribution,
      inner=True,
      max_abs_reward=config.max_abs_reward,
    )

    def total(params):
      output = self._unroll(params, trajectory)
      value = 0.0
      for head in range(config.num_heads):
        head_zeta = jax.tree_util.tree_map(lambda x, h=head: x[h], zeta)
        value += loss(
          output.policy[:, :, head],
          output.value[:, :, head],
          hyperparameters=head_zeta,
        )[0]
      if config.outer_critic or config.behaviour == "average":
        # Only the squared error of the last value, with fixed targets' weights.
        hyperparameters = core.fixed_hyperparameters(config)
        measured = self._acting(output)
        for policy, last in measured:
          terms = loss(policy, last, hyperparameters=hyperparameters)[1]
          value += hyperparameters.value_cost * terms.value / len(measured)
      return value / config.num_heads

    return self._clip(jax.grad(total)(params))

  def _clip(self, gradient):
    if self._config.max_gradient_norm is None:
      return gradient
    norm = optax.global_norm(gradient)
    scale = jnp.minimum(1.0, self._config.max_gradient_norm / norm)
    return jax.tree_util.tree_map(lambda g: g * scale, gradient)

  def direction(self, gradient, moments=None, momentum=0.9):
    """RMSProp (TensorFlow's, ε inside the root) or Adam, by hand."""
    config = self._config
    if moments is None:
      moments = self._state.optimizer_state[-1]
    if config.optimizer == "adam":
      count = moments.count + 1

      def element(g, m, n):
        m = (momentum * m + (1 - momentum) * g) / (1 - momentum**count)
        n = (0.999 * n + 0.001 * g**2) / (1 - 0.999**count)
        return m / (jnp.sqrt(n + 1e-16) + 1e-8)

      return jax.tree_util.tree_map(element, gradient, moments.mu, moments.nu)
    decay = config.rmsprop_decay
    return jax.tree_util.tree_map(
      lambda g, n: g
      / jnp.sqrt(decay * n + (1 - decay) * g**2 + config.rmsprop_eps),
      gradient,
      moments.nu,
    )

  def _moments(self, gradient, moments):
    """The moments after a step along `gradient`."""

    def mean(decay, power, before):
      return jax.tree_util.tree_map(
        lambda m, g: decay * m + (1 - decay) * g**power, before, gradient
      )

    if self._config.optimizer == "adam":
      return moments._replace(
        count=moments.count + 1,
        mu=mean(0.9, 1, moments.mu),
        nu=mean(0.999, 2, moments.nu),
      )
    return moments._replace(
      nu=mean(self._config.rmsprop_decay, 2, moments.nu)
    )

  def _descend(self, params, direction):
    # The rate has a test of its own.
    rate = core.learning_rate(self._state.step, self._config)
    return jax.tree_util.tree_map(lambda p, d: p - rate * d, params, direction)

  def new_params(self, eta):
    return self._descend(
      self._state.params, self.direction(self.gradient(eta))
    )

  def _make_target(self, params):
    """θ̃, from θ'(η₀)."""
    eta = self._state.metaparams
    moments = self._moments(
      self.gradient(eta), self._state.optimizer_state[-1]
    )
    for _ in range(self._config.bootstrap_steps - 1):
      gradient = self._gradient(eta, params, self._held_out)
      params = self._descend(params, self.direction(gradient, moments))
      moments = self._moments(gradient, moments)
    frozen = self._unroll(params, self._held_out)
    gradient = self._clip(
      jax.grad(lambda p: self._mean(self._outer_of_head, p, frozen))(params)
    )
    return self._descend(
      params, self.direction(gradient, moments, momentum=0.0)
    )

  def _acting(self, output):
    """Policies that may act, with the values that the outer loss uses."""
    config, heads = self._config, range(self._config.num_heads)
    last = output.value[:, :, -1]
    if config.behaviour == "average":
      mean = sum(output.policy[:, :, h] for h in heads) / config.num_heads
      return [(mean, last)]
    if config.behaviour == "head_0":
      heads = [0]
    return [
      (output.policy[:, :, h],
       last if config.outer_critic else output.value[:, :, h])
      for h in heads
    ]

  def outer_loss(self, params):
    """A plain function of π and V; targets, advantages, weights are numbers."""
    if self._config.outer_loss == "bootstrap":
      return self._mean(self._distance_of_head, params, self._target)
    loss = self._mean(self._outer_of_head, params, self._frozen)
    if self._config.outer_loss == "actor_critic":
      loss += self._mean(self._kl_of_head, params, self._old)
    return loss

  def _mean(self, function, params, fixed):
    """The mean over policies that may act of what `function` gives."""
    new = self._acting(self._unroll(params, self._held_out))
    values = [
      function(*parts) for parts in zip(new, self._acting(fixed), strict=True)
    ]
    return sum(values) / len(values)

  def _sum(self, terms):
    mask = losses.transition_mask(self._held_out.step_type)
    return jnp.sum(jnp.where(mask, terms, 0.0))

  def _kl_of_head(self, new, old):
    kl = self._networks.distribution.kl(new[0][:-1], old[0][:-1])
    return self._config.kl_cost * self._sum(kl)

  def _distance_of_head(self, new, target):
    kl = self._networks.distribution.kl(target[0][:-1], new[0][:-1])
    squared = (new[1][:-1] - target[1][:-1]) ** 2
    return self._sum(kl + self._config.bootstrap_value_cost * squared)

  def _outer_of_head(self, new, frozen):
    config, trajectory = self._config, self._held_out
    distribution = self._networks.distribution
    mask = losses.transition_mask(trajectory.step_type)
    taken = functools.partial(
      distribution.log_prob, action=trajectory.action[:-1]
    )
    held_policy, held_value = frozen
    weights = jnp.exp(
      taken(held_policy[:-1]) - trajectory.behaviour_log_prob[:-1]
    )
    discount = config.discount * trajectory.discount[1:]
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
    policy, value = new[0][:-1], new[1][:-1]
    terms = -config.policy_cost * taken(policy) * advantage
    if config.outer_loss != "policy_gradient":
      terms += (
        config.value_cost * (targets - value) ** 2
        + config.entropy_cost * distribution.regulariser(policy)
      )
    return self._sum(terms)


def metagradient(update, config, state, trajectory, *held_out):
  """Reads the metagradient out of the step that the meta-optimiser makes."""
  if config.meta_optimizer == "sgd":
    new, _ = update.update(state, trajectory, *held_out)
    return jax.tree_util.tree_map(
      lambda old, new: (old - new) / config.meta_learning_rate,
      state.metaparams,
      new.metaparams,
    )
  fresh = state._replace(
    meta_optimizer_state=optax.adam(1.0).init(state.metaparams)
  )
  new, _ = update.update(fresh, trajectory, *held_out)
  moment = new.meta_optimizer_state[0].mu
  return jax.tree_util.tree_map(lambda m: m / (1 - config.meta_b1), moment)


# Every agent whose update differs from the others', and what else changes it.
AGENTS = [
  ("stacx", {}),
  ("stac_no_alpha", {"max_gradient_norm": 0.5}),
  ("stacx_gamma", {"kl_cost": 0.3}),
  ("stacx_split_alpha", {"num_heads": 2}),
  ("stacx_truncation", {"num_heads": 2}),
  ("stacx_random_ensemble", {}),
  ("metagradient_impala", {}),
  ("gamma_embedding", {"embedded": ("discount", "lambda_")}),
  ("stacx_gamma_embedding", {"embedding_per_head": True}),
  ("a2c_meta_gamma", {"trajectory_length": 5, "batch_size": 4}),
  ("stac", {"continuous": True, "lstm_size": 6}),
  ("stacx_average_ensemble", {"continuous": True, "outer_batch": "next"}),
  ("stacx_outer_critic", {
    "metaparameter_range": "double", "continuous": True, "lstm_size": 6,
    "num_heads": 2,
  }),
  ("stac_bootstrap", {
    "continuous": True, "lstm_size": 6, "bootstrap_value_cost": 0.3,
  }),
  ("stacx_bootstrap_outer_critic", {
    "behaviour": "random_head", "bootstrap_steps": 3, "outer_batch": "next",
    "embedded": ("discount",), "num_heads": 2,
  }),
  ("stacx_average_ensemble", {
    "outer_loss": "bootstrap", "bootstrap_steps": 2, "optimizer": "adam",
    "max_gradient_norm": 0.5, "num_heads": 2,
  }),
]


def agent_in_float64(agent, overrides):
  """Returns update, state, batches and the reference of one of `AGENTS`."""
  overrides = dict(overrides)
  continuous = overrides.pop("continuous", False)
  config = helpers.small_config(agent, **overrides)
  networks, update, state, trajectory = setup(config, continuous=continuous)
  # Most agents' metagradient needs no other program than the warming up.
  step = core.Update(update.init, jax.jit(update.update))
  state = warm_state(config, step, state, continuous)
  batches = [to_float64(trajectory)]
  if config.outer_batch != "same":
    batches.append(
      to_float64(helpers.trajectory(config, 5, continuous=continuous))
    )
  reference = Reference(networks, config, state, batches[0], batches[-1])
  exact = metagradient(step, config, state, *batches)
  return config, state, reference, exact


@pytest.mark.parametrize("agent,overrides", AGENTS)
def test_metagradient_equals_finite_differences(agent, overrides):
  """Central differences in η, in float64, the stopped parts frozen."""
  with helpers.float64():
    config, state, reference, exact = agent_in_float64(agent, overrides)
    outer = jax.jit(
      lambda eta: reference.outer_loss(reference.new_params(eta))
    )
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


@pytest.mark.parametrize("agent", ["stacx", "a2c_meta_gamma"])
def test_metagradient_equals_a_jacobian_vector_product(agent):
  """u·∂g/∂η with u = (∂θ'/∂g)ᵀ ∇L_outer, coded apart from the update."""
  with helpers.float64():
    overrides = dict(AGENTS)[agent]
    config, state, reference, exact = agent_in_float64(agent, overrides)
    gradient = jax.jit(reference.gradient)(state.metaparams)
    outer_gradient = jax.grad(reference.outer_loss)(
      reference.new_params(state.metaparams)
    )
    rate = core.learning_rate(state.step, config)
    if config.optimizer == "adam":
      # Element by element, so that one product gives the whole diagonal.
      ones = jax.tree_util.tree_map(jnp.ones_like, gradient)
      _, slope = jax.jvp(reference.direction, (gradient,), (ones,))
    else:
      decay = config.rmsprop_decay

      def derivative(g, nu):
        # d/dg of g / sqrt(decay ν + (1 − decay) g² + ε).
        root = decay * nu + (1 - decay) * g**2 + config.rmsprop_eps
        return 1 / jnp.sqrt(root) - (1 - decay) * g**2 / root**1.5

      slope = jax.tree_util.tree_map(
        derivative, gradient, state.optimizer_state[-1].nu
      )
    u = jax.tree_util.tree_map(
      lambda s, outer: -rate * s * outer, slope, outer_gradient
    )
    for name in config.self_tuned:
      for head in range(config.num_heads):
        tangent = jax.tree_util.tree_map(jnp.zeros_like, state.metaparams)
        tangent[name] = tangent[name].at[head].set(1.0)
        _, column = jax.jvp(reference.gradient, (state.metaparams,), (tangent,))
        product = optax.tree_utils.tree_vdot(u, column)
        # Read out of a step of 1e-4, the metagradient has fewer digits.
        np.testing.assert_allclose(
          exact[name][head],
          product,
          rtol=1e-7 if config.meta_optimizer == "sgd" else 1e-9,
        )


@pytest.mark.parametrize("separate", [("alpha",), ("alpha_rho", "alpha_c")])
def test_every_metaparameter_moves(separate):
  """The trap: default compositions give a metagradient of exactly zero."""
  alphas = {"alpha", "alpha_rho", "alpha_c"}
  names = (*(n for n in METAPARAMETER_NAMES if n not in alphas), *separate)
  config = helpers.small_config("stacx", self_tuned=names)
  _, update, state, trajectory = setup(config)
  step = core.Update(update.init, jax.jit(update.update))
  gradient = metagradient(step, config, state, trajectory)
  for name in names:
    assert np.all(np.asarray(gradient[name]) != 0.0), name


@pytest.mark.parametrize("heads", [1, 3])
def test_nothing_self_tuned_is_impala_bit_for_bit(heads):
  # Two programs are the same to the bit as they are compiled to run.
  jax.config.update("jax_disable_most_optimizations", False)
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
def test_update_that_is_not_finite_is_skipped(agent):
  config = helpers.small_config(agent)
  _, update, state, trajectory = setup(config)
  step = jax.jit(update.update)
  state, _ = step(state, trajectory)
  for bad in (np.nan, np.inf):
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


def with_behaviour_log_prob(log_prob):
  """Returns what makes one action of a batch as rare as that for the actor."""

  def change(trajectory):
    log_probs = trajectory.behaviour_log_prob.copy()
    log_probs[1, 3] = log_prob
    return trajectory._replace(behaviour_log_prob=log_probs)

  return change


OVERFLOWS = {
  "reward": lambda t: t._replace(reward=1e20 * np.ones_like(t.reward)),
  # A weight beyond the range of single precision when squared, and at once.
  "weight": with_behaviour_log_prob(-60.0),
  "weight of inf": with_behaviour_log_prob(-1000.0),
}


@pytest.mark.parametrize("agent,overrides", [
  ("impala", {"alpha": 0.9, "max_gradient_norm": None}),
  ("impala", {"alpha": 0.9}),
  ("stacx", {}),
  ("stac", {"optimizer": "adam"}),
])
def test_overflow_is_a_skipped_update(agent, overrides):
  """Never a step of zero that nobody counts, nor a moment of inf."""
  config = helpers.small_config(
    agent, **{"max_gradient_norm": 40.0, **overrides}
  )
  _, update, state, trajectory = setup(config)
  step = jax.jit(update.update)
  for name, change in OVERFLOWS.items():
    new, metrics = step(state, change(trajectory))
    assert metrics["skipped_updates"] == new.skipped_updates == 1, name
    jax.tree_util.tree_map(np.testing.assert_array_equal, new[:4], state[:4])


def test_overflow_of_the_outer_batch_alone_is_skipped():
  """Parameters are kept as well: both levels change, or none."""
  config = helpers.small_config("metagradient_impala", max_gradient_norm=40.0)
  _, update, state, trajectory = setup(config)
  held_out = OVERFLOWS["reward"](helpers.trajectory(config, 1))
  held_out = held_out._replace(reward=1e18 * held_out.reward)
  new, _ = jax.jit(update.update)(state, trajectory, held_out)
  assert new.skipped_updates == 1
  jax.tree_util.tree_map(np.testing.assert_array_equal, new[:4], state[:4])


def test_truncated_weight_of_inf_voids_no_update():
  """With α = 1 it counts as the truncation level, as any large weight."""
  config = helpers.small_config("impala")
  _, update, state, trajectory = setup(config)
  step = jax.jit(update.update)
  news = [
    step(state, OVERFLOWS[name](trajectory))
    for name in ("weight", "weight of inf")
  ]
  assert news[1][1]["importance_weight_max"] == np.inf
  assert news[1][0].skipped_updates == 0
  jax.tree_util.tree_map(
    np.testing.assert_array_equal, news[0][0], news[1][0]
  )


@pytest.mark.parametrize("agent", ["impala", "stacx"])
def test_batch_without_a_transition_is_no_skipped_update(agent):
  """Its gradient is exactly 0, where the norm has no derivative."""
  config = helpers.small_config(
    agent, trajectory_length=1, max_gradient_norm=40.0
  )
  _, update, state, trajectory = setup(config, episode_ends=False)
  step_type = trajectory.step_type.copy()
  step_type[:] = [[dm_env.StepType.LAST], [dm_env.StepType.FIRST]]
  new, metrics = jax.jit(update.update)(
    state, trajectory._replace(step_type=step_type)
  )
  assert new.skipped_updates == 0
  assert metrics["gradient_norm"] == 0.0
  for before, after in ((state.params, new.params),
                        (state.metaparams, new.metaparams)):
    jax.tree_util.tree_map(np.testing.assert_array_equal, before, after)


def test_truncated_weights_are_counted_beyond_rounding():
  config = helpers.small_config("impala")
  networks, update, state, trajectory = setup(config, episode_ends=False)
  output = unroll(networks, state.params, trajectory)
  log_prob = networks.distribution.log_prob(
    output.policy[..., 0, :], trajectory.action
  )
  step = jax.jit(update.update)
  for rounding, share in ((1e-5, 0.0), (1e-2, 1.0)):
    _, metrics = step(
      state, trajectory._replace(behaviour_log_prob=log_prob - rounding)
    )
    np.testing.assert_allclose(metrics["importance_weight_clipped"], share)


@pytest.mark.parametrize("agent,overrides", [
  ("metagradient_impala", {}),
  ("stacx", {"kl_cost": 0.0}),
  ("stacx", {"kl_cost": 0.0, "outer_batch": "next"}),
])
def test_kl_is_measured_where_the_outer_loss_has_none(agent, overrides):
  config = helpers.small_config(agent, **overrides)
  networks, update, state, trajectory = setup(config)
  held_out = trajectory
  if config.outer_batch != "same":
    held_out = helpers.trajectory(config, 1)
  new, metrics = jax.jit(update.update)(state, trajectory, held_out)
  policies = [
    unroll(networks, params, held_out).policy[..., 0, :]
    for params in (new.params, state.params)
  ]
  expected = core.kl_loss(
    *policies, held_out.step_type, networks.distribution
  )
  assert expected > 1e-6
  np.testing.assert_allclose(metrics["kl"], expected, rtol=1e-2)


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


def test_held_out_batch_reaches_only_the_metaparameters():
  config = helpers.small_config("metagradient_impala")
  _, update, state, trajectory = setup(config)
  step = jax.jit(update.update)
  others = [helpers.trajectory(config, seed) for seed in (7, 8)]
  states = [step(state, trajectory, other)[0] for other in others]
  states.append(step(state, trajectory)[0])
  states.append(step(state, trajectory, trajectory)[0])
  for other in states[1:]:
    jax.tree_util.tree_map(
      np.testing.assert_array_equal, other.params, states[0].params
    )
  etas = [new.metaparams["discount"] for new in states]
  assert etas[0] != etas[1] != etas[2]
  np.testing.assert_allclose(etas[2], etas[3], rtol=1e-6)


def test_metagradient_impala_is_that_of_xu_et_al():
  """Inner 0.5 (v − V)² + policy gradient + 0.01 entropy; outer policy only."""
  config = acme_stac.make_config("metagradient_impala", "atari")
  fixed = core.fixed_hyperparameters(config)
  assert (fixed.value_cost, fixed.policy_cost, fixed.entropy_cost) == (
    0.5, 1.0, 0.01
  )
  outer = core.outer_hyperparameters(config)
  assert (outer.value_cost, outer.policy_cost, outer.entropy_cost) == (
    0.0, 1.0, 0.0
  )
  _, update, state, trajectory = setup(
    helpers.small_config("metagradient_impala")
  )
  held_out = helpers.trajectory(config=helpers.small_config(), seed=1)
  _, metrics = jax.jit(update.update)(state, trajectory, held_out)
  assert metrics["outer_loss"] == metrics["outer_policy_loss"]
  assert metrics["kl"] > 0.0  # Measured, no part of the loss.


def test_random_ensemble_measures_every_head():
  """The outer loss is the mean of the heads' losses."""
  config = helpers.small_config("stacx_random_ensemble", kl_cost=0.0)
  networks, update, state, trajectory = setup(config)
  new, metrics = jax.jit(update.update)(state, trajectory)
  output = unroll(networks, new.params, trajectory)
  each = [
    core.loss(
      output.policy[:, :, head],
      output.value[:, :, head],
      trajectory,
      core.outer_hyperparameters(config),
      networks.distribution,
      inner=False,
    )[0]
    for head in range(3)
  ]
  np.testing.assert_allclose(metrics["outer_loss"], np.mean(each), rtol=1e-4)


def test_value_of_the_average_is_learned():
  """With fixed weights, the ensemble's value head regresses on its targets."""
  config = helpers.small_config(
    "stacx_average_ensemble",
    learning_rate=4e-3,
    policy_cost=0.0,
    entropy_cost=0.0,
    discount=0.0,
    head_sizes=(64,),
    num_environment_steps=20_000,
  )
  networks, update, state, trajectory = setup(config)
  step = jax.jit(update.update)

  def error(params):
    output = unroll(networks, params, trajectory)
    acting = core.acting_output(output, config)
    return core.loss(
      acting.policy[..., 0, :],
      acting.value[..., 0],
      trajectory,
      core.outer_hyperparameters(config),
      networks.distribution,
      inner=False,
    )[1].value

  before = error(state.params)
  for _ in range(200):
    state, _ = step(state, trajectory)
  assert error(state.params) < 0.5 * before


def test_shares_of_both_orders_of_alpha():
  config = helpers.small_config("stacx_split_alpha")
  _, update, state, trajectory = setup(config)
  metaparams = dict(state.metaparams)
  metaparams["alpha_rho"] = jnp.array([1.0, 1.0, 1.0])
  metaparams["alpha_c"] = jnp.array([0.0, 2.0, 1.0])
  state = state._replace(
    metaparams=metaparams,
    step=jnp.int32(3),
    ordered_updates={
      "share_alpha_rho_at_most_alpha_c": jnp.array([0, 2, 3], jnp.int32),
      "share_alpha_rho_at_least_alpha_c": jnp.array([3, 1, 0], jnp.int32),
    },
  )
  new, metrics = jax.jit(update.update)(state, trajectory)
  # Theorem 1 holds for the first; the papers count the second.
  for name, counts in (
    ("share_alpha_rho_at_most_alpha_c", [0, 3, 4]),
    ("share_alpha_rho_at_least_alpha_c", [4, 1, 1]),
  ):
    np.testing.assert_array_equal(new.ordered_updates[name], counts)
    np.testing.assert_allclose(metrics[name], np.array(counts) / 4)


def test_clipped_metaparameters_stay_in_their_range():
  config = helpers.small_config(
    "a2c_meta_gamma", metaparameter_init=1.0, meta_learning_rate=1e6
  )
  _, update, state, _ = setup(config)
  np.testing.assert_array_equal(
    core.constrain(state.metaparams, config).discount, [1.0]
  )
  step = jax.jit(update.update)
  seen = set()
  for seed in range(8):
    state, metrics = step(
      state,
      helpers.trajectory(config, seed),
      helpers.trajectory(config, seed + 100),
    )
    seen.add(float(state.metaparams["discount"][0]))
    assert metrics["skipped_updates"] == 0
  # Steps as large as these reach both bounds and pass neither.
  assert min(seen) == 0.0
  assert max(seen) == 1.0


def test_cosine_of_the_two_gradients():
  """The replication's second term, for the policy's parameters alone."""
  config = helpers.small_config(
    "a2c_meta_gamma", torso_sizes=(), trajectory_length=5, batch_size=4
  )
  networks, update, state, trajectory = setup(config)
  held_out = helpers.trajectory(config, 3)
  new, metrics = jax.jit(update.update)(state, trajectory, held_out)

  def gradient(params, trajectory, hyperparameters):
    def loss(params):
      output = unroll(networks, params, trajectory)
      return core.loss(
        output.policy[:, :, 0],
        output.value[:, :, 0],
        trajectory,
        hyperparameters,
        networks.distribution,
        inner=False,
      )[0]

    policy = jax.grad(loss)(params)
    return np.concatenate([
      np.ravel(x)
      for name in sorted(policy)
      if "policy" in name
      for x in jax.tree_util.tree_leaves(policy[name])
    ])

  inner = gradient(
    state.params,
    trajectory,
    jax.tree_util.tree_map(
      lambda x: x[0], core.constrain(state.metaparams, config)
    ),
  )
  outer = gradient(new.params, held_out, core.outer_hyperparameters(config))
  inner[outer == 0.0] = 0.0
  cosine = inner @ outer / np.linalg.norm(inner) / np.linalg.norm(outer)
  np.testing.assert_allclose(metrics["gradient_cosine"], cosine, rtol=1e-3)


def test_cosine_does_not_depend_on_how_parameters_are_grouped():
  """The same networks, with all their parameters in one array."""
  config = helpers.small_config("metagradient_impala")
  networks, update, state, trajectory = setup(config)
  flat, unravel = jax.flatten_util.ravel_pytree(state.params)
  one_array = dataclasses.replace(
    networks,
    init=lambda key: flat,
    unroll=lambda params, *rest: networks.unroll(unravel(params), *rest),
  )
  joined = core.make_update(one_array, config)
  cosines = [
    jax.jit(u.update)(
      u.init(jax.random.PRNGKey(0)), trajectory, helpers.trajectory(config, 1)
    )[1]["gradient_cosine"]
    for u in (update, joined)
  ]
  np.testing.assert_allclose(*cosines, rtol=1e-4)


def test_a2c_on_policy_learns_from_n_step_returns():
  """With weights of 1, targets are the replication's n-step returns."""
  config = helpers.small_config(
    "a2c_meta_gamma", trajectory_length=5, batch_size=1
  )
  networks, _, state, trajectory = setup(config, episode_ends=False)
  output = unroll(networks, state.params, trajectory)
  policy, value = output.policy[:, :, 0], np.asarray(output.value[:, :, 0])
  trajectory = trajectory._replace(
    behaviour_log_prob=networks.distribution.log_prob(
      policy, trajectory.action
    )
  )
  gamma = 0.9
  _, terms = core.loss(
    policy,
    value,
    trajectory,
    core.fixed_hyperparameters(config)._replace(discount=gamma),
    networks.distribution,
    inner=True,
  )
  target, squared, surrogate = value[-1, 0], 0.0, 0.0
  for t in reversed(range(5)):
    target = trajectory.reward[t + 1, 0] + gamma * target
    squared += (target - value[t, 0]) ** 2
    surrogate -= trajectory.behaviour_log_prob[t, 0] * (target - value[t, 0])
  np.testing.assert_allclose(terms.value, squared, rtol=1e-4)
  np.testing.assert_allclose(terms.policy, surrogate, rtol=1e-4)


@pytest.mark.parametrize("wrong,message", [
  (lambda output: output._replace(policy=output.policy[..., 0, :]), "policy"),
  (lambda output: output._replace(value=output.value[..., :2]), "value"),
  (lambda output: output._replace(value=output.value[:-1]), "value"),
  (tuple, "must return a core.NetworkOutput, got tuple"),
])
def test_networks_of_another_shape_are_refused(wrong, message):
  config = helpers.small_config()
  right = helpers.networks(config)
  networks = dataclasses.replace(
    right, unroll=lambda *arguments: wrong(right.unroll(*arguments))
  )
  update = core.make_update(networks, config)
  state = core.make_update(right, config).init(jax.random.PRNGKey(0))
  with pytest.raises(ValueError, match=message):
    update.update(state, helpers.trajectory(config))


@pytest.mark.parametrize("own", [
  {"behaviour": "average"}, {"outer_critic": True},
])
def test_value_of_the_outer_loss_is_one_more(own):
  config = helpers.small_config(**own)
  with pytest.raises(ValueError, match=r"value \[\*rows, 4\], the last one"):
    core.check_output(
      core.NetworkOutput(np.zeros((6, 4, 3, 2)), np.zeros((6, 4, 3))),
      (6, 4), config,
    )
