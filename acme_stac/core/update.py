"""One update of parameters and metaparameters: Algorithm 2.

Every agent of the family is a configuration of this one update. Line numbers
are those of Algorithm 2.
"""

import jax
import jax.numpy as jnp
import optax

from acme_stac.config import STACConfig
from acme_stac.core import diagnostics, heads, metaparams, optimizers
from acme_stac.core.types import (
  Array,
  InnerStep,
  LossTerms,
  Metaparams,
  Metrics,
  NetworkOutput,
  Networks,
  OuterStep,
  Params,
  TrainingState,
  Trajectory,
  Update,
)

# Steps to a target that are compiled one after the other. More are a loop, in
# which XLA's convolutions for the CPU take ten times as long.
MAX_UNROLLED = 8


def make_update(networks: Networks, config: STACConfig) -> Update:
  """Returns the update of a configuration, to be jitted by the caller.

  The metagradient is exact: it flows through OPT, its moments included. With
  nothing self-tuned this is IMPALA and costs what IMPALA costs.

  An update is skipped and counted if a loss, the norm of a gradient or a number
  of the new state is not finite. Parameters, metaparameters and the states of
  both optimisers then stay as they are.

  Args:
    networks: initialiser, unroll and action distribution.
    config: the agent's configuration.
  """
  algorithm = _Algorithm2(networks, config)
  return Update(algorithm.init, algorithm.update)


class _Algorithm2:
  """The update of a configuration, as pure functions of their arguments."""

  def __init__(self, networks: Networks, config: STACConfig):
    self._networks = networks
    self._config = config
    self._heads = heads.Heads(networks, config)
    self._opt = optimizers.make_optimizer(config)
    self._target_opt = optimizers.make_optimizer(config, momentum=False)
    self._meta_opt = optimizers.make_meta_optimizer(config)

  def init(self, key: Array) -> TrainingState:
    """Returns the state before the first update."""
    params = self._networks.init(key)
    eta = metaparams.init_metaparams(self._config)
    return TrainingState(
      params=params,
      optimizer_state=self._opt.init(params),
      metaparams=eta,
      meta_optimizer_state=self._meta_opt.init(eta),
      step=jnp.zeros([], jnp.int32),
      skipped_updates=jnp.zeros([], jnp.int32),
      ordered_updates=diagnostics.init_alpha_orders(self._config),
    )

  def update(
    self,
    state: TrainingState,
    trajectory: Trajectory,
    held_out: Trajectory | None = None,
  ) -> tuple[TrainingState, Metrics]:
    """Returns the next state and metrics: one iteration of line 8.

    Args:
      state: θ, η and the optimisers' states.
      trajectory: T of the inner loss, [T+1, B].
      held_out: T of the outer loss; None for the inner loss's.
    """
    outer: OuterStep | None = None
    if self._config.self_tuned:
      inner, outer = self._step_both(state, trajectory, held_out)
    else:
      inner = self._step_params(state.metaparams, state, trajectory)
    new_state = self._next_state(state, inner, outer)
    return new_state, {
      **diagnostics.state_metrics(state, new_state, self._config),
      **diagnostics.inner_metrics(
        inner, trajectory, self._networks.distribution, self._config
      ),
      **diagnostics.outer_metrics(
        inner, outer, trajectory if held_out is None else held_out
      ),
    }

  def _step_params(
    self, eta: Metaparams, state: TrainingState, trajectory: Trajectory
  ) -> InnerStep:
    """Returns θ'(η) (lines 10 to 12)."""
    gradient, inner = jax.grad(self._inner_loss, has_aux=True)(
      state.params, eta, trajectory
    )
    direction, optimizer_state = self._opt.update(
      gradient, state.optimizer_state
    )
    rate = optimizers.learning_rate(state.step, self._config)
    new_params = optimizers.descend(state.params, direction, rate)
    return InnerStep(new_params, optimizer_state, gradient, *inner)

  def _inner_loss(
    self, params: Params, eta: Metaparams, trajectory: Trajectory
  ) -> tuple[Array, tuple[Array, LossTerms, NetworkOutput]]:
    """Returns the mean of the heads' losses, and (loss, terms, output)."""
    config = self._config
    zeta = metaparams.constrain(eta, config)  # Line 10.
    output = self._heads.unroll(params, eta, trajectory)
    per_head, terms = self._heads.losses(
      output._replace(value=output.value[..., : config.num_heads]),
      trajectory, zeta, inner=True,
    )
    total = jnp.mean(per_head)  # Line 11.
    if config.num_values > config.num_heads:
      total += self._critic_loss(output, trajectory) / config.num_heads
    return total, (total, terms, output)

  def _critic_loss(
    self, output: NetworkOutput, trajectory: Trajectory
  ) -> Array:
    """Returns the loss of the outer loss's own value, which no η enters.

    It has the outer hyperparameters. Of an ensemble with a random head it is
    the mean over the heads' policies, so that the value is that of the draw.
    """
    zeta = metaparams.fixed_hyperparameters(self._config)
    # The policies are the heads', which learn by their own losses.
    zeta = zeta._replace(policy_cost=0.0, entropy_cost=0.0)
    measured = heads.outer_output(output, self._config)
    loss, _ = self._heads.losses(measured, trajectory, zeta, inner=True)
    return jnp.mean(loss)

  def _step_both(
    self,
    state: TrainingState,
    trajectory: Trajectory,
    held_out: Trajectory | None,
  ) -> tuple[InnerStep, OuterStep]:
    """Returns θ'(η) and η' (lines 10 to 15)."""
    # Zeros that are added to θ', to obtain the gradient in θ' too.
    offset = jax.tree_util.tree_map(jnp.zeros_like, state.params)
    (loss, (inner, terms, kl)), (metagradient, gradient) = jax.value_and_grad(
      self._outer_loss, argnums=(0, 1), has_aux=True
    )(state.metaparams, offset, state, trajectory, held_out)
    direction, meta_optimizer_state = self._meta_opt.update(
      metagradient, state.meta_optimizer_state
    )
    eta = optax.apply_updates(state.metaparams, direction)  # Line 15.
    return inner, OuterStep(
      metaparams.project(eta, self._config),
      meta_optimizer_state, metagradient, gradient, loss, terms, kl,
    )

  def _outer_loss(
    self,
    eta: Metaparams,
    offset: Params,
    state: TrainingState,
    trajectory: Trajectory,
    held_out: Trajectory | None,
  ) -> tuple[Array, tuple[InnerStep, LossTerms, Array]]:
    """Returns the outer loss at θ'(η) + offset, and (inner step, terms, KL)."""
    config = self._config
    inner = self._step_params(eta, state, trajectory)
    new_params = jax.tree_util.tree_map(jnp.add, inner.params, offset)
    if held_out is None:
      held_out, old_output = trajectory, inner.output
    else:
      old_output = self._heads.unroll(state.params, eta, held_out)
    total, (new, terms) = self._measure(new_params, eta, held_out)  # Line 13.
    old = heads.acting_output(old_output, config)
    kl = self._heads.kl(new.policy, old.policy, held_out.step_type)
    if config.outer_loss == "actor_critic":
      total += config.kl_cost * kl  # Line 14; otherwise it is only logged.
    elif config.outer_loss == "bootstrap":
      target = self._target(inner, eta, state, held_out)
      total = self._heads.matching_loss(new, target, held_out.step_type)
    terms = jax.tree_util.tree_map(jnp.mean, terms)
    return total, (inner._replace(params=new_params), terms, kl)

  def _measure(
    self, params: Params, eta: Metaparams, trajectory: Trajectory
  ) -> tuple[Array, tuple[NetworkOutput, LossTerms]]:
    """Returns the mean loss of the policies that may act, and (output, terms).

    Its targets and advantages are those of the outer critic, if there is one.
    """
    output = self._heads.unroll(params, eta, trajectory)
    measured = heads.outer_output(output, self._config)
    zeta = metaparams.outer_hyperparameters(self._config)
    loss, terms = self._heads.losses(measured, trajectory, zeta, inner=False)
    return jnp.mean(loss), (measured, terms)

  def _target(
    self,
    inner: InnerStep,
    eta: Metaparams,
    state: TrainingState,
    trajectory: Trajectory,
  ) -> NetworkOutput:
    """Returns what η bootstraps from (Flennerhag et al., 2022), a constant.

    From θ'(η), L − 1 more updates with the same η, then one step down the outer
    loss. All are steps of OPT from its state after the inner step, at this
    update's rate; the last has no momentum, so that it vanishes with the outer
    gradient. NaN if a gradient's norm overflows, which clipping would hide.

    Args:
      inner: the step to θ'(η).
      eta: η.
      state: before the inner step.
      trajectory: T of the outer loss, which all steps are made on.
    """
    params, optimizer_state, eta = jax.lax.stop_gradient(
      (inner.params, inner.optimizer_state, eta)
    )

    def step_further(
      _: int, reached: tuple[Params, optax.OptState, Array]
    ) -> tuple[Params, optax.OptState, Array]:
      params, optimizer_state, norm = reached
      before = state._replace(params=params, optimizer_state=optimizer_state)
      step = self._step_params(eta, before, trajectory)
      norm += optax.global_norm(step.gradient)
      return step.params, step.optimizer_state, norm

    reached = params, optimizer_state, jnp.zeros([])
    further = self._config.bootstrap_steps - 1
    if further <= MAX_UNROLLED:
      for number in range(further):
        reached = step_further(number, reached)
    else:
      reached = jax.lax.fori_loop(0, further, step_further, reached)
    params, optimizer_state, norm = reached
    gradient, _ = jax.grad(self._measure, has_aux=True)(params, eta, trajectory)
    norm += optax.global_norm(gradient)
    direction, _ = self._target_opt.update(gradient, optimizer_state)
    rate = optimizers.learning_rate(state.step, self._config)
    target = optimizers.descend(params, direction, rate)
    _, (output, _) = self._measure(target, eta, trajectory)
    output = jax.lax.stop_gradient(output)
    return jax.tree_util.tree_map(
      lambda x: jnp.where(jnp.isfinite(norm), x, jnp.nan), output
    )

  def _next_state(
    self, state: TrainingState, inner: InnerStep, outer: OuterStep | None
  ) -> TrainingState:
    """Returns the state after an update; the old one if it is skipped."""
    changed = state._replace(
      params=inner.params, optimizer_state=inner.optimizer_state
    )
    # The norm itself: if it overflows, clipping makes the gradient 0.
    numbers = [inner.loss, optax.global_norm(inner.gradient)]
    if outer is not None:
      changed = changed._replace(
        metaparams=outer.metaparams,
        meta_optimizer_state=outer.meta_optimizer_state,
      )
      numbers += [outer.loss, optax.global_norm(outer.metagradient)]
    finite = diagnostics.all_finite((numbers, changed))
    kept = jax.tree_util.tree_map(
      lambda new, old: jnp.where(finite, new, old), changed, state
    )
    return kept._replace(
      step=state.step + 1,
      skipped_updates=state.skipped_updates + jnp.where(finite, 0, 1),
      ordered_updates=diagnostics.count_alpha_orders(
        state.ordered_updates, state.metaparams, self._config
      ),
    )
