"""Metaparameters η and the hyperparameters ζ(η) of the losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_stac.config import STACConfig

Array = jax.Array
Numeric = Array | float
# name -> [P], unconstrained.
Metaparams = dict[str, Array]


class Hyperparameters(NamedTuple):
  """What a loss uses: ζ of Algorithm 2. Scalars, or one value per head [P]."""

  discount: Numeric
  lambda_: Numeric
  alpha_rho: Numeric
  alpha_c: Numeric
  value_cost: Numeric
  policy_cost: Numeric
  entropy_cost: Numeric
  clip_rho_threshold: Numeric
  clip_c_threshold: Numeric


def init_metaparams(config: STACConfig) -> Metaparams:
  """Returns η: for each self-tuned name one value per head, [P]."""
  return {
    name: jnp.full([config.num_heads], config.metaparameter_init, float)
    for name in config.self_tuned
  }


def squash(metaparams: Metaparams) -> Metaparams:
  """Returns σ(η), name by name: what the papers plot, in (0, 1)."""
  return jax.tree_util.tree_map(jax.nn.sigmoid, metaparams)


def outer_hyperparameters(config: STACConfig) -> Hyperparameters:
  """Returns the fixed hyperparameters of the outer loss, as scalars."""
  return Hyperparameters(
    discount=config.discount,
    lambda_=config.lambda_,
    alpha_rho=config.alpha,
    alpha_c=config.alpha,
    value_cost=config.value_cost,
    policy_cost=config.policy_cost,
    entropy_cost=config.entropy_cost,
    clip_rho_threshold=config.clip_rho_threshold,
    clip_c_threshold=config.clip_c_threshold,
  )


def constrain(metaparams: Metaparams, config: STACConfig) -> Hyperparameters:
  """Returns ζ(η), the hyperparameters of the inner loss (Algorithm 2 line 10).

  γ, λ and α become σ(η); the loss weights σ(η) times their outer value. What is
  not self-tuned takes its outer value exactly.

  Args:
    metaparams: η, [P] for each name of `config.self_tuned`.
    config: the agent's configuration.

  Returns:
    Hyperparameters with one value per head in every field, [P].
  """
  outer = outer_hyperparameters(config)
  squashed = squash(metaparams)
  fields = {}
  for name in Hyperparameters._fields:
    value = getattr(outer, name)
    if name in ("alpha_rho", "alpha_c") and "alpha" in squashed:
      fields[name] = squashed["alpha"]
    elif name not in squashed:
      fields[name] = jnp.full([config.num_heads], value, float)
    elif name.endswith("_cost"):
      fields[name] = squashed[name] * value
    else:
      fields[name] = squashed[name]
  return Hyperparameters(**fields)
