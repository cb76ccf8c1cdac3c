"""Metrics of an update; none of them influences it."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from acme_stac.config import STACConfig
from acme_stac.core import heads, losses, metaparams, optimizers
from acme_stac.core.distributions import Distribution
from acme_stac.core.types import (
  Array,
  InnerStep,
  Metaparams,
  Metrics,
  NetworkOutput,
  OuterStep,
  Params,
  TrainingState,
  Trajectory,
)

# Theorem 1 needs α_ρ ≤ α_c, while the papers state and count α_ρ ≥ α_c. Equal
# values count in both.
_ALPHA_ORDERS = {
  "share_alpha_rho_at_most_alpha_c": jnp.less_equal,
  "share_alpha_rho_at_least_alpha_c": jnp.greater_equal,
}
# A weight counts as truncated only beyond this: on-policy weights are 1 up to
# rounding.
_WEIGHT_TOLERANCE = 1e-3


def init_alpha_orders(config: STACConfig) -> dict[str, Array]:
  """Returns zero counts [P] of both orders; {} unless α_ρ and α_c are tuned."""
  if not {"alpha_rho", "alpha_c"} <= set(config.self_tuned):
    return {}
  return {
    name: jnp.zeros([config.num_heads], jnp.int32) for name in _ALPHA_ORDERS
  }


def count_alpha_orders(
  counts: dict[str, Array], eta: Metaparams, config: STACConfig
) -> dict[str, Array]:
  """Returns the counts [P] after an update with metaparameters `eta`."""
  sigma = metaparams.squash(eta, config)
  return {
    name: count + _ALPHA_ORDERS[name](sigma["alpha_rho"], sigma["alpha_c"])
    for name, count in counts.items()
  }


def all_finite(tree: Any) -> Array:
  """Returns whether every float in a nest of arrays is finite, a scalar."""
  leaves = [
    jnp.all(jnp.isfinite(x))
    for x in jax.tree_util.tree_leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.stack(leaves))


def state_metrics(
  state: TrainingState, new_state: TrainingState, config: STACConfig
) -> Metrics:
  """Returns the step size, σ(η) [P], and counts over all updates so far."""
  squashed = metaparams.squash(state.metaparams, config)
  return {
    "learning_rate": optimizers.learning_rate(state.step, config),
    "skipped_updates": new_state.skipped_updates,
    **{f"sigma_{name}": value for name, value in squashed.items()},
    **{
      name: count / new_state.step
      for name, count in new_state.ordered_updates.items()
    },
  }


def inner_metrics(
  inner: InnerStep,
  trajectory: Trajectory,
  distribution: Distribution,
  config: STACConfig,
) -> Metrics:
  """Returns terms of the inner loss [P], its gradient's norm and statistics."""
  return {
    "value_loss": inner.terms.value,
    "policy_loss": inner.terms.policy,
    "entropy_loss": inner.terms.entropy,
    "gradient_norm": optax.global_norm(inner.gradient),
    **policy_statistics(inner.output, trajectory, distribution, config),
  }


def outer_metrics(
  inner: InnerStep, outer: OuterStep | None, trajectory: Trajectory
) -> Metrics:
  """Returns terms and gradient norms of the outer loss; {} if it has no step.

  Args:
    inner: the step of θ.
    outer: the step of η, if any metaparameter is tuned.
    trajectory: the experience of the outer loss.
  """
  if outer is None:
    return {}
  mask = losses.transition_mask(trajectory.step_type)
  return {
    "outer_loss": outer.loss,
    "outer_value_loss": outer.terms.value,
    "outer_policy_loss": outer.terms.policy,
    "outer_entropy_loss": outer.terms.entropy,
    "outer_advantage": outer.terms.advantage / jnp.maximum(jnp.sum(mask), 1),
    "kl": outer.kl,
    "meta_gradient_norm": optax.global_norm(outer.metagradient),
    "gradient_cosine": gradient_cosine(inner.gradient, outer.gradient),
  }


def policy_statistics(
  output: NetworkOutput,
  trajectory: Trajectory,
  distribution: Distribution,
  config: STACConfig,
) -> Metrics:
  """Returns the policy's entropy and importance weights.

  Args:
    output: the networks' output for the trajectory, [T+1, B, P, ...].
    trajectory: the experience, [T+1, B].
    distribution: the family of the policies.
    config: the agent's configuration.

  Returns:
    Scalars: means over transitions and the policies that may have acted, and
    the largest weight.
  """
  policy = heads.acting_output(output, config).policy[:-1]
  chex.assert_rank([policy, trajectory.behaviour_log_prob], [4, 2])
  mask = losses.transition_mask(trajectory.step_type)
  count = jnp.maximum(jnp.sum(mask), 1) * policy.shape[-2]
  action = jnp.where(
    mask.reshape(mask.shape + (1,) * (trajectory.action.ndim - 2)),
    trajectory.action[:-1],
    0,
  )
  log_prob = jax.vmap(
    distribution.log_prob, in_axes=(-2, None), out_axes=-1
  )(policy, action)
  log_ratio = log_prob - trajectory.behaviour_log_prob[:-1, :, None]
  valid = mask[..., None]
  weights = jnp.where(valid, jnp.exp(log_ratio), 0.0)
  entropy = jnp.where(valid, distribution.entropy(policy), 0.0)
  truncated = weights > config.clip_rho_threshold * (1.0 + _WEIGHT_TOLERANCE)
  return {
    "entropy": jnp.sum(entropy) / count,
    "importance_weight_mean": jnp.sum(weights) / count,
    "importance_weight_max": jnp.max(weights),
    "importance_weight_clipped": jnp.sum(truncated) / count,
  }


def gradient_cosine(inner_gradient: Params, outer_gradient: Params) -> Array:
  """Returns the cosine of two gradients where the outer gradient is not 0.

  An outer loss of the policy gradient alone has no gradient in the value head,
  which is therefore left out of the inner gradient's norm too.
  """
  touched = jax.tree_util.tree_map(
    lambda inner, outer: jnp.where(outer != 0.0, inner, 0.0),
    inner_gradient,
    outer_gradient,
  )
  product = optax.tree_utils.tree_vdot(touched, outer_gradient)
  norms = optax.global_norm(touched) * optax.global_norm(outer_gradient)
  return product / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
