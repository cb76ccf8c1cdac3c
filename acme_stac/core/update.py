"""One update of parameters and metaparameters (Algorithm 2).

Every agent of the family is a configuration of this one update.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from acme_stac.config import STACConfig
from acme_stac.core import behaviour, losses, metaparams
from acme_stac.core.distributions import Distribution
from acme_stac.core.types import NetworkOutput, Params, Trajectory

Array = jax.Array

# Metrics of the order of two α tuned apart. Theorem 1 needs α_ρ ≤ α_c; the
# papers state, and count, α_ρ ≥ α_c. Equal ones count in both.
_ALPHA_ORDERS = {
  "share_alpha_rho_at_most_alpha_c": jnp.less_equal,
  "share_alpha_rho_at_least_alpha_c": jnp.greater_equal,
}
# On-policy weights are 1 to rounding: they are truncated only beyond this.
_WEIGHT_TOLERANCE = 1e-3


class Networks(Protocol):
  """What the update asks of the networks."""

  @property
  def init(self) -> Callable[[Array], Params]:
    """(random key) -> params."""

  @property
  def unroll(self) -> Callable[..., NetworkOutput]:
    """Applies the networks to sequences.

    (params, observation [T+1, B, ...], core_state [B, ...], step_type [T+1, B])
    -> NetworkOutput [T+1, B, P, ...]. If metaparameters are embedded, their
    values [P, K] are a fifth argument.
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
    ordered_updates: updates so far with either order of α_ρ and α_c, int32 [P]
      by the name of its metric; {} unless both are tuned apart.
  """

  params: Params
  optimizer_state: optax.OptState
  metaparams: metaparams.Metaparams
  meta_optimizer_state: optax.OptState
  step: Array
  skipped_updates: Array
  ordered_updates: dict[str, Array]


class _Inner(NamedTuple):
  """What the step from θ to θ' gives besides θ'."""

  optimizer_state: optax.OptState
  gradient: Params
  loss: Array
  output: NetworkOutput
  terms: losses.LossTerms


class Update(NamedTuple):
  """A pair of pure functions, in the manner of optax.

  Attributes:
    init: (random key) -> TrainingState.
    update: (TrainingState, Trajectory, held_out) -> (TrainingState, metrics).
      The outer loss is that of the trajectory `held_out`; without it, of the
      one that was learned from. Metrics are scalars, or [P] with one entry per
      head.
  """

  init: Callable[[Array], TrainingState]
  update: Callable[..., tuple[TrainingState, dict[str, Array]]]


class DataParallel(NamedTuple):
  """An update of batches that are split over devices.

  Attributes:
    update: `Update.update`, jitted.
    state_sharding: of the state, which every device has.
    trajectory_sharding: of a batch.
  """

  update: jax.stages.Wrapped
  state_sharding: NamedSharding
  trajectory_sharding: Trajectory

  def put(self, trajectory: Trajectory) -> Trajectory:
    """Returns a batch [T+1, B, ...] on the devices, each with its part."""
    return Trajectory(*map(
      jax.device_put, trajectory, self.trajectory_sharding
    ))


def data_parallel(
  update: Update, config: STACConfig, devices: Sequence[jax.Device]
) -> DataParallel:
  """Returns the update on several devices.

  Gradients and metagradients are those of the whole batch, on any number.

  Args:
    update: made from `config`.
    config: the agent's configuration.
    devices: to use.

  Raises:
    ValueError: if the batch cannot be split evenly over the devices.
  """
  if not devices or config.batch_size % len(devices):
    raise ValueError(
      f"batch_size ({config.batch_size}) must be a multiple of the number of"
      f" devices ({len(devices)})."
    )
  mesh = Mesh(np.array(devices), ("batch",))
  replicated = NamedSharding(mesh, PartitionSpec())
  time_major = NamedSharding(mesh, PartitionSpec(None, "batch"))
  trajectory = Trajectory(
    observation=time_major,
    action=time_major,
    reward=time_major,
    discount=time_major,
    step_type=time_major,
    behaviour_log_prob=time_major,
    core_state=NamedSharding(mesh, PartitionSpec("batch")),
  )
  # The last argument is the outer loss's own batch, for agents that have one.
  batches = [trajectory] * config.batches_to_begin
  jitted = jax.jit(
    update.update,
    in_shardings=(replicated, *batches),
    out_shardings=replicated,
  )
  return DataParallel(jitted, replicated, trajectory)


def learning_rate(step: Array | int, config: STACConfig) -> Array:
  """Returns the step size: linear from the first to the last update."""
  fraction = jnp.clip(jnp.asarray(step) / config.num_updates, 0.0, 1.0)
  return config.learning_rate + fraction * (
    config.final_learning_rate - config.learning_rate
  )


def check_output(
  output: NetworkOutput, rows: tuple[int, ...], config: STACConfig
):
  """Checks what networks give for rows of the shape `rows`.

  Raises:
    ValueError: unless it has a policy and a value for every head.
  """
  heads = config.num_heads
  values = heads + (config.behaviour == "average")
  try:
    policy, value = output.policy.shape, output.value.shape
  except AttributeError as error:
    raise ValueError(
      "The networks must give a core.NetworkOutput, got"
      f" {type(output).__name__}."
    ) from error
  if policy[:-1] != (*rows, heads) or value != (*rows, values):
    raise ValueError(
      f"For rows {rows} and {heads} heads the networks must give a policy"
      f" [*rows, {heads}, K] and a value [*rows, {values}]"
      f"{', the last one of the average' * (values > heads)}, but they gave"
      f" {policy} and {value}."
    )


def make_update(networks: Networks, config: STACConfig) -> Update:
  """Returns the update of a configuration, to be jitted by the caller.

  The inner loss of all heads is averaged and differentiated in θ; θ' follows by
  the optimiser; the outer loss of the acting policy at θ' plus the KL term is
  differentiated in η, exactly: through the optimiser, its moments included.
  With nothing self-tuned this is IMPALA and costs what IMPALA costs.

  An update is skipped as a whole, and counted, if a loss, the norm of a
  gradient, or anything that it would write to the state is not finite: then
  parameters, metaparameters and both optimisers' states stay as they are.

  Args:
    networks: initialiser, unroll and action distribution.
    config: the agent's configuration.
  """
  clip = (
    [_clip_by_global_norm(config.max_gradient_norm)]
    if config.max_gradient_norm is not None
    else []
  )
  optimizer = optax.chain(*clip, _make_optimizer(config))
  meta_optimizer = _make_meta_optimizer(config)
  fixed = metaparams.fixed_hyperparameters(config)
  outer_hyperparameters = metaparams.outer_hyperparameters(config)
  split_alpha = {"alpha_rho", "alpha_c"} <= set(config.self_tuned)
  kl_cost = config.kl_cost if config.outer_loss == "actor_critic" else 0.0
  # Of heads side by side: [..., P, K] and [..., P].
  head_losses = functools.partial(
    losses.loss,
    distribution=networks.distribution,
    reward_scale=config.reward_scale,
    max_abs_reward=config.max_abs_reward,
  )

  def unroll(params: Params, eta, trajectory: Trajectory) -> NetworkOutput:
    condition = metaparams.conditioning(eta, config)
    output = networks.unroll(
      params,
      trajectory.observation,
      trajectory.core_state,
      trajectory.step_type,
      *([] if condition is None else [condition]),
    )
    check_output(output, trajectory.step_type.shape, config)
    return output

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
      ordered_updates={
        name: jnp.zeros([config.num_heads], jnp.int32)
        for name in (_ALPHA_ORDERS if split_alpha else ())
      },
    )

  def inner_loss(params, eta, trajectory):
    """Averages the heads' losses (Algorithm 2 line 11)."""
    output = unroll(params, eta, trajectory)
    per_head, terms = jax.vmap(
      functools.partial(head_losses, inner=True),
      in_axes=(-2, -1, None, 0),
    )(
      output.policy,
      output.value[..., : config.num_heads],
      trajectory,
      metaparams.constrain(eta, config),
    )
    total = jnp.mean(per_head)
    if config.behaviour == "average":
      # The average is trained through the heads; only its value is its own.
      acting = behaviour.acting_output(output, config)
      value_loss, _ = head_losses(
        acting.policy[..., 0, :],
        acting.value[..., 0],
        trajectory,
        fixed._replace(policy_cost=0.0, entropy_cost=0.0),
        inner=True,
      )
      total += value_loss / config.num_heads
    return total, (total, output, terms)

  def step_params(params, optimizer_state, eta, step, trajectory):
    """Returns θ'(η) and the rest of line 12."""
    gradient, (loss, output, terms) = jax.grad(inner_loss, has_aux=True)(
      params, eta, trajectory
    )
    direction, new_optimizer_state = optimizer.update(gradient, optimizer_state)
    rate = learning_rate(step, config)
    new_params = jax.tree_util.tree_map(
      lambda p, d: p - rate.astype(p.dtype) * d, params, direction
    )
    return new_params, _Inner(
      new_optimizer_state, gradient, loss, output, terms
    )

  def outer_loss(eta, moved, params, optimizer_state, step, *trajectories):
    """Returns the acting policy's loss at θ'(η) and the KL term (lines 13, 14).

    `moved` is added to θ': zeros, there to be differentiated in.
    """
    trajectory, held_out = trajectories
    new_params, inner = step_params(
      params, optimizer_state, eta, step, trajectory
    )
    new_params = jax.tree_util.tree_map(jnp.add, new_params, moved)
    if held_out is None:
      held_out, old_output = trajectory, inner.output
    else:
      old_output = unroll(params, eta, held_out)
    new = behaviour.acting_output(unroll(new_params, eta, held_out), config)
    loss, terms = jax.vmap(
      functools.partial(head_losses, inner=False), in_axes=(-2, -1, None, None)
    )(new.policy, new.value, held_out, outer_hyperparameters)
    total, terms = jnp.mean(loss), jax.tree_util.tree_map(jnp.mean, terms)
    old = behaviour.acting_output(old_output, config)
    kl = jnp.mean(
      jax.vmap(losses.kl_loss, in_axes=(-2, -2, None, None))(
        new.policy, old.policy, held_out.step_type, networks.distribution
      )
    )
    if kl_cost:  # Without it the divergence is only logged.
      total += kl_cost * kl
    return total, (new_params, inner, terms, kl)

  def update(
    state: TrainingState,
    trajectory: Trajectory,
    held_out: Trajectory | None = None,
  ):
    arguments = (state.params, state.optimizer_state)
    metrics: dict[str, Array] = {}
    outer_numbers: tuple[Array, ...] = ()
    new_eta, new_meta_state = state.metaparams, state.meta_optimizer_state
    if config.self_tuned:
      zeros = jax.tree_util.tree_map(jnp.zeros_like, state.params)
      (outer, aux), (meta_gradient, outer_gradient) = jax.value_and_grad(
        outer_loss, argnums=(0, 1), has_aux=True
      )(state.metaparams, zeros, *arguments, state.step, trajectory, held_out)
      new_params, inner, outer_terms, kl = aux
      meta_direction, new_meta_state = meta_optimizer.update(
        meta_gradient, state.meta_optimizer_state
      )
      new_eta = metaparams.project(
        optax.apply_updates(state.metaparams, meta_direction), config
      )
      outer_mask = losses.transition_mask(
        (trajectory if held_out is None else held_out).step_type
      )
      metrics.update(
        outer_loss=outer,
        outer_value_loss=outer_terms.value,
        outer_policy_loss=outer_terms.policy,
        outer_entropy_loss=outer_terms.entropy,
        outer_advantage=outer_terms.advantage
        / jnp.maximum(jnp.sum(outer_mask), 1),
        kl=kl,
        meta_gradient_norm=optax.global_norm(meta_gradient),
        gradient_cosine=_cosine(inner.gradient, outer_gradient),
      )
      outer_numbers = (outer, metrics["meta_gradient_norm"])
    else:
      new_params, inner = step_params(
        *arguments, state.metaparams, state.step, trajectory
      )
    gradient_norm = optax.global_norm(inner.gradient)

    # The norm itself: if it overflows, clipping makes the gradient 0.
    finite = _all_finite((
      inner.loss, gradient_norm, outer_numbers,
      new_params, inner.optimizer_state, new_eta, new_meta_state,
    ))
    skipped = state.skipped_updates + jnp.where(finite, 0, 1)
    changed = state._replace(
      params=new_params,
      optimizer_state=inner.optimizer_state,
      metaparams=new_eta,
      meta_optimizer_state=new_meta_state,
    )
    new_state = jax.tree_util.tree_map(
      lambda new, old: jnp.where(finite, new, old), changed, state
    )._replace(step=state.step + 1, skipped_updates=skipped)
    if split_alpha:
      squashed = metaparams.squash(state.metaparams, config)
      ordered = {
        name: state.ordered_updates[name]
        + compare(squashed["alpha_rho"], squashed["alpha_c"])
        for name, compare in _ALPHA_ORDERS.items()
      }
      new_state = new_state._replace(ordered_updates=ordered)
      metrics.update({n: c / new_state.step for n, c in ordered.items()})

    metrics.update(
      value_loss=inner.terms.value,
      policy_loss=inner.terms.policy,
      entropy_loss=inner.terms.entropy,
      gradient_norm=gradient_norm,
      learning_rate=learning_rate(state.step, config),
      skipped_updates=skipped,
      **_statistics(inner.output, trajectory),
      **{
        f"sigma_{name}": value
        for name, value in metaparams.squash(state.metaparams, config).items()
      },
    )
    return new_state, metrics

  def _statistics(output: NetworkOutput, trajectory: Trajectory):
    """Returns means over transitions and the policies that may have acted."""
    mask = losses.transition_mask(trajectory.step_type)
    policy = behaviour.acting_output(output, config).policy[:-1]
    count = jnp.maximum(jnp.sum(mask), 1) * policy.shape[-2]
    action = jnp.where(
      mask.reshape(mask.shape + (1,) * (trajectory.action.ndim - 2)),
      trajectory.action[:-1],
      0,
    )
    log_prob = jax.vmap(
      networks.distribution.log_prob, in_axes=(-2, None), out_axes=-1
    )(policy, action)
    log_ratio = log_prob - trajectory.behaviour_log_prob[:-1, :, None]
    valid = mask[..., None]
    weights = jnp.where(valid, jnp.exp(log_ratio), 0.0)
    entropy = jnp.where(valid, networks.distribution.entropy(policy), 0.0)
    truncated = weights > config.clip_rho_threshold * (1.0 + _WEIGHT_TOLERANCE)
    return {
      "entropy": jnp.sum(entropy) / count,
      "importance_weight_mean": jnp.sum(weights) / count,
      "importance_weight_max": jnp.max(weights),
      "importance_weight_clipped": jnp.sum(truncated) / count,
    }

  return Update(init, update)


def _all_finite(tree: Any) -> Array:
  leaves = [
    jnp.all(jnp.isfinite(x))
    for x in jax.tree_util.tree_leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.all(jnp.stack(leaves))


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """Returns optax's clipping, but with a derivative where the gradient is 0."""

  def clip(gradient, params=None):
    del params
    leaves = jax.tree_util.tree_leaves(gradient)
    square = sum(jnp.sum(jnp.square(g)) for g in leaves)
    norm = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
    return jax.tree_util.tree_map(
      lambda g: jnp.where(norm < max_norm, g, g / norm * max_norm), gradient
    )

  return optax.stateless(clip)


def _make_optimizer(config: STACConfig) -> optax.GradientTransformation:
  """Returns the scaling of gradients; the learning rate is applied apart."""
  if config.optimizer == "adam":
    # The metagradient differentiates the root of the second moment, which has
    # no derivative at 0: where the gradient has always been 0 (dead units).
    return optax.scale_by_adam(eps_root=1e-16)
  return optax.scale_by_rms(
    decay=config.rmsprop_decay, eps=config.rmsprop_eps, eps_in_sqrt=True
  )


def _make_meta_optimizer(config: STACConfig) -> optax.GradientTransformation:
  if config.meta_optimizer == "sgd":
    return optax.sgd(config.meta_learning_rate)
  return optax.adam(
    config.meta_learning_rate,
    b1=config.meta_b1,
    b2=config.meta_b2,
    eps=config.meta_eps,
  )


def _cosine(inner_gradient: Params, outer_gradient: Params) -> Array:
  """Returns the cosine of two gradients, over what the outer loss depends on.

  These are the elements at which the outer gradient is not 0. An outer loss of
  the policy gradient alone does not reach the value head, which must not count
  in the inner gradient's norm either.
  """
  touched = jax.tree_util.tree_map(
    lambda inner, outer: jnp.where(outer != 0.0, inner, 0.0),
    inner_gradient,
    outer_gradient,
  )
  product = optax.tree_utils.tree_vdot(touched, outer_gradient)
  norms = optax.global_norm(touched) * optax.global_norm(outer_gradient)
  return product / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
