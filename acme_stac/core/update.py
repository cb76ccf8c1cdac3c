"""One update of parameters and metaparameters (Algorithm 2).

Every agent of the family is a configuration of this one update.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from acme_stac.config import STACConfig
from acme_stac.core import losses, metaparams
from acme_stac.core.distributions import Distribution
from acme_stac.core.types import CoreState, NetworkOutput, Params, Trajectory

Array = jax.Array


class Networks(Protocol):
  """What the update asks of the networks."""

  @property
  def init(self) -> Callable[[Array], Params]:
    """(random key) -> params."""

  @property
  def unroll(self) -> Callable[[Params, Any, CoreState, Array], NetworkOutput]:
    """Applies the networks to sequences.

    (params, observation [T+1, B, ...], core_state [B, ...], step_type [T+1, B])
    -> NetworkOutput [T+1, B, P, ...].
    """

  @property
  def distribution(self) -> Distribution:
    """The family of the policy."""


class TrainingState(NamedTuple):
  """Everything that an update changes.

  Attributes:
    params: θ.
    optimizer_state: second moments of RMSProp.
    metaparams: η, name -> [P].
    meta_optimizer_state: moments of Adam.
    step: updates so far, skipped ones included; int32 scalar.
    skipped_updates: updates dropped for a number that was not finite.
  """

  params: Params
  optimizer_state: optax.OptState
  metaparams: metaparams.Metaparams
  meta_optimizer_state: optax.OptState
  step: Array
  skipped_updates: Array


class Update(NamedTuple):
  """A pair of pure functions, in the manner of optax.

  Attributes:
    init: (random key) -> TrainingState.
    update: (TrainingState, Trajectory) -> (TrainingState, metrics); metrics are
      scalars, or [P] with one entry per head.
  """

  init: Callable[[Array], TrainingState]
  update: Callable[
    [TrainingState, Trajectory], tuple[TrainingState, dict[str, Array]]
  ]


def learning_rate(step: Array | int, config: STACConfig) -> Array:
  """Returns RMSProp's step size: linear from the first to the last update."""
  fraction = jnp.clip(jnp.asarray(step) / config.num_updates, 0.0, 1.0)
  return config.learning_rate + fraction * (
    config.final_learning_rate - config.learning_rate
  )


def make_update(networks: Networks, config: STACConfig) -> Update:
  """Returns the update of a configuration, to be jitted by the caller.

  The inner loss of all heads is averaged and differentiated in θ; θ' follows by
  RMSProp; the outer loss of head 0 at θ' plus the KL term is differentiated in
  η, exactly: through RMSProp, its second moments included. With nothing
  self-tuned this is IMPALA and costs what IMPALA costs.

  An update with any number that is not finite changes neither parameters nor
  metaparameters nor the optimisers' states; it is counted.

  Args:
    networks: initialiser, unroll and action distribution.
    config: the agent's configuration.
  """
  clip = (
    [optax.clip_by_global_norm(config.max_gradient_norm)]
    if config.max_gradient_norm is not None
    else []
  )
  optimizer = optax.chain(
    *clip,
    optax.scale_by_rms(
      decay=config.rmsprop_decay, eps=config.rmsprop_eps, eps_in_sqrt=True
    ),
  )
  meta_optimizer = optax.adam(
    config.meta_learning_rate,
    b1=config.meta_b1,
    b2=config.meta_b2,
    eps=config.meta_eps,
  )
  outer_hyperparameters = metaparams.outer_hyperparameters(config)
  head_loss = functools.partial(
    losses.loss,
    distribution=networks.distribution,
    max_abs_reward=config.max_abs_reward,
  )

  def unroll(params: Params, trajectory: Trajectory) -> NetworkOutput:
    return networks.unroll(
      params,
      trajectory.observation,
      trajectory.core_state,
      trajectory.step_type,
    )

  def init(key: Array) -> TrainingState:
    params = networks.init(key)
    eta = metaparams.init_metaparams(config)
    return TrainingState(
      params=params,
      optimizer_state=optimizer.init(params),
      metaparams=eta,
      meta_optimizer_state=meta_optimizer.init(eta),
      step=jnp.zeros([], jnp.int32),
      skipped_updates=jnp.zeros([], jnp.int32),
    )

  def inner_loss(params, hyperparameters, trajectory):
    """Averages the heads' losses (Algorithm 2 line 11)."""
    output = unroll(params, trajectory)
    per_head, terms = jax.vmap(
      functools.partial(head_loss, inner=True),
      in_axes=(-2, -1, None, 0),
    )(output.policy, output.value, trajectory, hyperparameters)
    return jnp.mean(per_head), (output, terms)

  def step_params(params, optimizer_state, eta, step, trajectory):
    """Returns θ'(η) and the rest of line 12."""
    hyperparameters = metaparams.constrain(eta, config)
    gradient, (output, terms) = jax.grad(inner_loss, has_aux=True)(
      params, hyperparameters, trajectory
    )
    direction, new_optimizer_state = optimizer.update(gradient, optimizer_state)
    rate = learning_rate(step, config)
    new_params = jax.tree_util.tree_map(
      lambda p, d: p - rate.astype(p.dtype) * d, params, direction
    )
    return new_params, (new_optimizer_state, gradient, output, terms)

  def outer_loss(eta, params, optimizer_state, step, trajectory):
    """Returns the loss of head 0 at θ'(η) and the KL term (lines 13, 14)."""
    new_params, inner = step_params(
      params, optimizer_state, eta, step, trajectory
    )
    *_, output, _ = inner
    new_output = unroll(new_params, trajectory)
    loss, terms = head_loss(
      new_output.policy[..., 0, :],
      new_output.value[..., 0],
      trajectory,
      outer_hyperparameters,
      inner=False,
    )
    kl = losses.kl_loss(
      new_output.policy[..., 0, :],
      output.policy[..., 0, :],
      trajectory.step_type,
      networks.distribution,
    )
    total = loss + config.kl_cost * kl
    return total, (new_params, inner, terms, kl)

  def update(state: TrainingState, trajectory: Trajectory):
    arguments = (state.params, state.optimizer_state)
    metrics: dict[str, Array] = {}
    new_eta, new_meta_state = state.metaparams, state.meta_optimizer_state
    if config.self_tuned:
      (outer, aux), meta_gradient = jax.value_and_grad(
        outer_loss, has_aux=True
      )(state.metaparams, *arguments, state.step, trajectory)
      new_params, inner, outer_terms, kl = aux
      meta_direction, new_meta_state = meta_optimizer.update(
        meta_gradient, state.meta_optimizer_state
      )
      new_eta = optax.apply_updates(state.metaparams, meta_direction)
      metrics.update(
        outer_loss=outer,
        outer_value_loss=outer_terms.value,
        outer_policy_loss=outer_terms.policy,
        outer_entropy_loss=outer_terms.entropy,
        kl=kl,
        meta_gradient_norm=optax.global_norm(meta_gradient),
      )
    else:
      new_params, inner = step_params(
        *arguments, state.metaparams, state.step, trajectory
      )
    new_optimizer_state, gradient, output, terms = inner

    finite = _all_finite((
      gradient, new_params, new_optimizer_state, new_eta, new_meta_state
    ))
    skipped = state.skipped_updates + jnp.where(finite, 0, 1)
    changed = state._replace(
      params=new_params,
      optimizer_state=new_optimizer_state,
      metaparams=new_eta,
      meta_optimizer_state=new_meta_state,
    )
    new_state = jax.tree_util.tree_map(
      lambda new, old: jnp.where(finite, new, old), changed, state
    )._replace(step=state.step + 1, skipped_updates=skipped)

    metrics.update(
      value_loss=terms.value,
      policy_loss=terms.policy,
      entropy_loss=terms.entropy,
      gradient_norm=optax.global_norm(gradient),
      learning_rate=learning_rate(state.step, config),
      skipped_updates=skipped,
      **_statistics(output, trajectory),
      **{
        f"sigma_{name}": value
        for name, value in metaparams.squash(state.metaparams).items()
      },
    )
    return new_state, metrics

  def _statistics(output: NetworkOutput, trajectory: Trajectory):
    """Returns means over transitions: what the acting head did."""
    mask = losses.transition_mask(trajectory.step_type)
    count = jnp.maximum(jnp.sum(mask), 1)
    policy = output.policy[:-1, :, 0]
    action = jnp.where(
      mask.reshape(mask.shape + (1,) * (trajectory.action.ndim - 2)),
      trajectory.action[:-1],
      0,
    )
    log_ratio = (
      networks.distribution.log_prob(policy, action)
      - trajectory.behaviour_log_prob[:-1]
    )
    weights = jnp.where(mask, jnp.exp(log_ratio), 0.0)
    entropy = jnp.where(mask, networks.distribution.entropy(policy), 0.0)
    return {
      "entropy": jnp.sum(entropy) / count,
      "importance_weight_mean": jnp.sum(weights) / count,
      "importance_weight_max": jnp.max(weights),
      "importance_weight_clipped": jnp.sum(weights > config.clip_rho_threshold)
      / count,
    }

  return Update(init, update)


def _all_finite(tree: Any) -> Array:
  leaves = [
    jnp.all(jnp.isfinite(x))
    for x in jax.tree_util.tree_leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.stack(leaves))
