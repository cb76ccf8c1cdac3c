"""Metaparameters η and the hyperparameters ζ(η) of the losses."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from acme_stac.config import STACConfig
from acme_stac.core.types import Array, Metaparams

Numeric = Array | float


class Hyperparameters(NamedTuple):
  """ζ of Algorithm 2: the arguments of a loss, scalars or one per head [P]."""

  discount: Numeric
  lambda_: Numeric
  alpha_rho: Numeric
  alpha_c: Numeric
  value_cost: Numeric
  policy_cost: Numeric
  entropy_cost: Numeric
  clip_rho_threshold: Numeric
  clip_c_threshold: Numeric


class Metaparameter(NamedTuple):
  """The hyperparameters that a self-tuned name sets.

  Attributes:
    ties: fields of `Hyperparameters` that it sets.
    scales: True if σ(η) scales their outer values; False if it replaces them.
    is_weight: True for the weight of a loss's term, which is scaled by 2σ(η) if
      `metaparameter_range` is "double".
  """

  ties: tuple[str, ...]
  scales: bool
  is_weight: bool = False


# Algorithm 2 line 10. Names as in `STACConfig.self_tuned`.
METAPARAMETERS: Mapping[str, Metaparameter] = {
  "discount": Metaparameter(("discount",), scales=False),
  "lambda_": Metaparameter(("lambda_",), scales=False),
  "value_cost": Metaparameter(("value_cost",), scales=True, is_weight=True),
  "policy_cost": Metaparameter(("policy_cost",), scales=True, is_weight=True),
  "entropy_cost": Metaparameter(("entropy_cost",), scales=True, is_weight=True),
  "alpha": Metaparameter(("alpha_rho", "alpha_c"), scales=False),
  "alpha_rho": Metaparameter(("alpha_rho",), scales=False),
  "alpha_c": Metaparameter(("alpha_c",), scales=False),
  "clip_threshold": Metaparameter(
    ("clip_rho_threshold", "clip_c_threshold"), scales=True
  ),
}


def init_metaparams(config: STACConfig) -> Metaparams:
  """Returns the initial η [P] of every self-tuned name."""
  return {
    name: jnp.full(
      [config.num_heads],
      0.0 if _is_doubled(name, config) else config.metaparameter_init,
      float,
    )
    for name in config.self_tuned
  }


def _is_doubled(name: str, config: STACConfig) -> bool:
  """Returns whether a metaparameter is 2σ(η), in (0, 2)."""
  doubles = config.metaparameter_range == "double"
  return doubles and METAPARAMETERS[name].is_weight


def squash(metaparams: Metaparams, config: STACConfig) -> Metaparams:
  """Returns σ(η) by name, in (0, 1), which the papers plot.

  With `metaparameter_range` "clip" it is η itself, in [0, 1]; with "double" it
  is 2σ(η) for loss weights, the factor of their outer value.
  """
  if config.metaparameter_range == "clip":
    return metaparams
  sigma = {name: jax.nn.sigmoid(eta) for name, eta in metaparams.items()}
  return {
    name: 2.0 * value if _is_doubled(name, config) else value
    for name, value in sigma.items()
  }


def project(metaparams: Metaparams, config: STACConfig) -> Metaparams:
  """Moves η back into its range after an update."""
  if config.metaparameter_range == "clip":
    return {name: jnp.clip(eta, 0.0, 1.0) for name, eta in metaparams.items()}
  return metaparams


def fixed_hyperparameters(config: STACConfig) -> Hyperparameters:
  """Returns the outer values as scalars; IMPALA uses them."""
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
  """Returns ζ of the outer loss, as scalars.

  The policy-gradient outer loss of Xu et al. (2018) has neither a value nor an
  entropy term.
  """
  fixed = fixed_hyperparameters(config)
  if config.outer_loss == "policy_gradient":
    return fixed._replace(value_cost=0.0, entropy_cost=0.0)
  return fixed


def constrain(metaparams: Metaparams, config: STACConfig) -> Hyperparameters:
  """Returns ζ(η), the hyperparameters of the inner loss (Algorithm 2 line 10).

  γ, λ and α are `squash`(η); loss weights and truncation levels are that times
  their outer value. Other hyperparameters have exactly their outer value.

  Args:
    metaparams: η, [P] for each name of `config.self_tuned`.
    config: the agent's configuration.

  Returns:
    Hyperparameters with one value per head in every field, [P].
  """
  fixed = fixed_hyperparameters(config)._asdict()
  fields = {
    field: jnp.full([config.num_heads], value, float)
    for field, value in fixed.items()
  }
  for name, sigma in squash(metaparams, config).items():
    metaparameter = METAPARAMETERS[name]
    for field in metaparameter.ties:
      scales = metaparameter.scales
      fields[field] = sigma * fixed[field] if scales else sigma
  return Hyperparameters(**fields)


def conditioning(
  metaparams: Metaparams, config: STACConfig
) -> Array | npt.NDArray[Any]:
  """Returns the values that the networks embed, [P, K].

  Their gradient is stopped: the metagradient flows through the inner loss's
  hyperparameters, not through the networks' input.

  Args:
    metaparams: η, [P] for each name of `config.self_tuned`.
    config: the agent's configuration.

  Returns:
    Current σ(η) of the K names in `config.embedded`; K may be 0.
  """
  if not config.embedded:
    # A constant of NumPy's: making it needs no device.
    return np.zeros([config.num_heads, 0], jnp.result_type(float))
  squashed = squash(metaparams, config)
  values = jnp.stack([squashed[name] for name in config.embedded], axis=-1)
  return jax.lax.stop_gradient(values)
