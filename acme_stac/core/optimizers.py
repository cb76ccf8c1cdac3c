"""OPT and MetaOPT of Algorithm 2; OPT is differentiable everywhere."""

import jax
import jax.numpy as jnp
import optax

from acme_stac.config import STACConfig
from acme_stac.core.types import Array, Params


def make_optimizer(
  config: STACConfig, *, momentum: bool = True
) -> optax.GradientTransformation:
  """Returns the optimiser of θ, without its step size (`learning_rate`).

  Args:
    config: the agent's configuration.
    momentum: False to step along the gradient alone, without Adam's mean of
      earlier ones. The state is the same.
  """
  if config.optimizer == "adam":
    # The metagradient differentiates √ν, which has no derivative at 0, where
    # the gradient has always been 0, for example at dead units.
    scale = optax.scale_by_adam(b1=0.9 if momentum else 0.0, eps_root=1e-16)
  else:
    scale = optax.scale_by_rms(
      decay=config.rmsprop_decay, eps=config.rmsprop_eps, eps_in_sqrt=True
    )
  if config.max_gradient_norm is None:
    return optax.chain(scale)
  return optax.chain(_clip_by_global_norm(config.max_gradient_norm), scale)


def make_meta_optimizer(config: STACConfig) -> optax.GradientTransformation:
  """Returns the optimiser of η."""
  if config.meta_optimizer == "sgd":
    return optax.sgd(config.meta_learning_rate)
  return optax.adam(
    config.meta_learning_rate,
    b1=config.meta_b1,
    b2=config.meta_b2,
    eps=config.meta_eps,
  )


def learning_rate(step: Array | float, config: STACConfig) -> Array:
  """Returns the step size, which decays linearly over all updates."""
  fraction = jnp.clip(jnp.asarray(step) / config.num_updates, 0.0, 1.0)
  return config.learning_rate + fraction * (
    config.final_learning_rate - config.learning_rate
  )


def descend(params: Params, direction: Params, rate: Array) -> Params:
  """Returns θ − rate · direction, in the types of θ."""
  return jax.tree_util.tree_map(
    lambda p, d: p - rate.astype(p.dtype) * d, params, direction
  )


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """Returns optax's clipping with a derivative where the gradient is 0."""

  def clip(gradient: Params, params: Params | None = None) -> Params:
    del params
    leaves = jax.tree_util.tree_leaves(gradient)
    square = sum(jnp.sum(jnp.square(g)) for g in leaves)
    norm = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
    return jax.tree_util.tree_map(
      lambda g: jnp.where(norm < max_norm, g, g / norm * max_norm), gradient
    )

  return optax.stateless(clip)
