"""Maps a distribution's actions to an environment's actions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from dm_env import specs

from acme_stac.config import STACConfig
from acme_stac.core.distributions import (
  Categorical,
  Distribution,
  SquashedGaussian,
)


@dataclasses.dataclass(frozen=True)
class ActionSpace:
  """An action distribution and its mapping to an environment's actions.

  Attributes:
    distribution: the family of the policy.
    num_params: number of parameters K of the distribution.
    spec: spec of the distribution's actions, which are stored and learned from:
      a discrete choice, or a vector in [−1, 1].
    to_environment: maps a batch of these actions, [N, ...], to the
      environment's actions; maps JAX arrays to JAX arrays, so that it can be
      transformed.
  """

  distribution: Distribution
  num_params: int
  spec: specs.Array
  to_environment: Callable[[Any], Any]


def make_action_space(spec: Any, config: STACConfig) -> ActionSpace:
  """Returns the action space for an action spec.

  A discrete choice gets a softmax policy. A bounded array of floats of any
  shape gets a squashed Gaussian with one component per element, rescaled from
  [−1, 1] to the bounds.

  Args:
    spec: the environment's action spec.
    config: sets the bounds of the Gaussian's standard deviation.

  Raises:
    ValueError: for any other spec.
  """
  if isinstance(spec, specs.DiscreteArray):
    return ActionSpace(
      Categorical(),
      spec.num_values,
      specs.DiscreteArray(spec.num_values, name="action"),
      lambda action: action.astype(_dtype(spec, action), copy=False),
    )
  _check_continuous(spec)
  size = int(np.prod(spec.shape))
  low = np.broadcast_to(spec.minimum, spec.shape).astype(np.float64)
  high = np.broadcast_to(spec.maximum, spec.shape).astype(np.float64)

  def to_environment(action: Any) -> Any:
    action = action.reshape((-1, *spec.shape))
    if isinstance(action, np.ndarray):
      action = action.astype(np.float64)
    # Exact at both ends, and inside the bounds after rounding to the dtype.
    scaled = 0.5 * ((1.0 - action) * low + (1.0 + action) * high)
    scaled = scaled.astype(_dtype(spec, action))
    return scaled.clip(spec.minimum, spec.maximum)

  return ActionSpace(
    SquashedGaussian(config.log_sigma_min, config.log_sigma_max),
    2 * size,
    specs.BoundedArray((size,), np.float32, -1.0, 1.0, name="action"),
    to_environment,
  )


def _dtype(spec: specs.Array, action: Any) -> Any:
  """Returns a spec's dtype, or JAX's closest one if `action` is a JAX array."""
  if isinstance(action, np.ndarray):
    return spec.dtype
  return jax.dtypes.canonicalize_dtype(spec.dtype)


def _check_continuous(spec: Any):
  """Raises ValueError unless `spec` is a bounded array of floats."""
  allowed = (
    "An action must be one discrete choice (dm_env.specs.DiscreteArray, shape"
    " ()) or bounded floats (dm_env.specs.BoundedArray, any shape), but this"
    f" environment's action spec is {spec!r}."
  )
  if not isinstance(spec, specs.Array):
    raise ValueError(
      f"{allowed} Wrap the environment so that it takes one array."
    )
  if np.issubdtype(spec.dtype, np.integer) and spec.shape:
    raise ValueError(
      f"{allowed} Several discrete choices at once are not supported: number"
      " the combinations in a wrapper and offer them as one DiscreteArray."
    )
  if not np.issubdtype(spec.dtype, np.floating):
    raise ValueError(
      f"{allowed} A choice of one of n numbers is a DiscreteArray(n)."
    )
  if not isinstance(spec, specs.BoundedArray) or not (
    np.isfinite(spec.minimum).all() and np.isfinite(spec.maximum).all()
  ):
    raise ValueError(
      f"{allowed} Give every component a finite minimum and maximum in a"
      " wrapper."
    )
  if not np.prod(spec.shape):
    raise ValueError(f"{allowed} It has no components.")
