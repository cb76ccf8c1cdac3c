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


def squash(metaparams: Metaparams, config: STACConfig) -> Metaparams:
  """Returns what the papers plot, name by name: σ(η), in (0, 1).

  With `metaparameter_range` "clip" that is η itself, in [0, 1].
  """
  if config.metaparameter_range == "clip":
    return metaparams
  return jax.tree_util.tree_map(jax.nn.sigmoid, metaparams)


def project(metaparams: Metaparams, config: STACConfig) -> Metaparams:
  """Returns η moved back into its range, after an update."""
  if config.metaparameter_range == "clip":
    return jax.tree_util.tree_map(lambda x: jnp.clip(x, 0.0, 1.0), metaparams)
  return metaparams


def fixed_hyperparameters(config: STACConfig) -> Hyperparameters:
  """Returns the outer values, as scalars: what IMPALA uses."""
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


def outer_hyperparameters(config: STACConfig) -> Hyperparameters:
  """Returns the hyperparameters of the outer loss, as scalars.

  They are the fixed ones; an outer loss of the policy gradient alone (Xu et
  al., 2018) weighs the other terms with 0.
  """
  fixed = fixed_hyperparameters(config)
  if config.outer_loss == "policy_gradient":
    return fixed._replace(value_cost=0.0, entropy_cost=0.0)
  return fixed


def constrain(metaparams: Metaparams, config: STACConfig) -> Hyperparameters:
  """Returns ζ(η), the hyperparameters of the inner loss (Algorithm 2 line 10).

  γ, λ and α become σ(η); loss weights and truncation levels σ(η) times their
  outer value. What is not self-tuned takes its outer value exactly.

  Args:
    metaparams: η, [P] for each name of `config.self_tuned`.
    config: the agent's configuration.

  Returns:
    Hyperparameters with one value per head in every field, [P].
  """
  fixed = fixed_hyperparameters(config)
  # A name that ties two fields stands for both.
  ties = {
    "alpha_rho": "alpha",
    "alpha_c": "alpha",
    "clip_rho_threshold": "clip_threshold",
    "clip_c_threshold": "clip_threshold",
  }
  squashed = squash(metaparams, config)
  fields = {}
  for field in Hyperparameters._fields:
    value = getattr(fixed, field)
    name = field if field in squashed else ties.get(field, field)
    if name not in squashed:
      fields[field] = jnp.full([config.num_heads], value, float)
    elif name.endswith(("_cost", "_threshold")):
      fields[field] = squashed[name] * value
    else:
      fields[field] = squashed[name]
  return Hyperparameters(**fields)


def conditioning(metaparams: Metaparams, config: STACConfig) -> Array | None:
  """Returns what the networks embed: values of this moment, [P, K].

  No gradient flows through it: the metagradient goes through the returns and
  loss weights that the hyperparameters make, not through the networks' input.

  Args:
    metaparams: η, [P] for each name of `config.self_tuned`.
    config: the agent's configuration; K is the number of `embedded` names.

  Returns:
    The squashed metaparameters, or None if none is embedded.
  """
  if not config.embedded:
    return None
  squashed = squash(metaparams, config)
  values = jnp.stack([squashed[name] for name in config.embedded], axis=-1)
  return jax.lax.stop_gradient(values)
