"""Families of action distributions, as pure functions of their parameters.

The update and the actors use a policy only through `Distribution`.
"""

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array


class Distribution(Protocol):
  """A family of action distributions with parameters [..., K]."""

  def sample(self, key: Array, params: Array) -> Array:
    """Draws actions of shape [...], or [..., A] if they are vectors."""

  def mode(self, params: Array) -> Array:
    """Returns the greedy actions, of the shape of samples."""

  def log_prob(self, params: Array, action: Any) -> Array:
    """Returns log π(a), [...]."""

  def regulariser(self, params: Array) -> Array:
    """Returns the term that the entropy cost weights, [...]."""

  def entropy(self, params: Array) -> Array:
    """Returns the logged entropy in nats, [...]."""

  def kl(self, params: Array, other: Array) -> Array:
    """Returns KL(params || other), [...]."""


class Categorical:
  """The softmax policy of discrete actions; parameters are logits [..., A]."""

  def sample(self, key: Array, params: Array) -> Array:
    """Draws int32 actions of shape [...]."""
    return jax.random.categorical(key, params).astype(jnp.int32)

  def mode(self, params: Array) -> Array:
    """Returns the most probable actions, int32 [...]."""
    return jnp.argmax(params, axis=-1).astype(jnp.int32)

  def log_prob(self, params: Array, action: Array) -> Array:
    """Returns log π(a), [...]."""
    log_probs = _log_softmax(params)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

  def regulariser(self, params: Array) -> Array:
    """Returns the negative entropy Σ_a π log π, [...]."""
    return -self.entropy(params)

  def entropy(self, params: Array) -> Array:
    """Returns −Σ_a π log π in nats, [...]."""
    log_probs = _log_softmax(params)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

  def kl(self, params: Array, other: Array) -> Array:
    """Returns KL(π_params || π_other) = Σ_a π (log π − log π_other), [...]."""
    log_p, log_q = _log_softmax(params), _log_softmax(other)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _log_softmax(logits: Array) -> Array:
  """Returns finite log-probabilities.

  An action with a logit of −inf contributes 0 to entropy and KL; without the
  bound, π log π would be 0 · inf = NaN.
  """
  log_probs = jax.nn.log_softmax(logits)
  return jnp.maximum(log_probs, jnp.finfo(log_probs.dtype).min)


class SquashedGaussian:
  """The tanh of a diagonal Gaussian, the policy of continuous actions.

  See section 9.3 of Zahavy et al. (2020). The parameters [..., 2A] are outputs
  (x, y) of a network, with means μ = tanh(x) and standard deviations
  σ = exp(σ_min + 0.5 (σ_max − σ_min) (tanh(y) + 1)). Actions [..., A] are in
  [−1, 1].

  Samples are clipped to ±(1 − 6e-8) in single precision, so that atanh is
  finite. Clipping starts at a Gaussian sample of 8.7, which for σ_max ≤ 0.5 is
  more than four standard deviations away. Probabilities are those of the
  clipped actions, so that actor and learner agree on them to rounding.
  """

  def __init__(self, log_sigma_min: float, log_sigma_max: float):
    """Takes bounds σ_min < σ_max of the log standard deviation."""
    self._log_sigma_min = log_sigma_min
    self._log_sigma_max = log_sigma_max

  def gaussian(self, params: Array) -> tuple[Array, Array]:
    """Returns mean and log standard deviation before squashing, [..., A]."""
    mean, y = jnp.split(params, 2, axis=-1)
    span = self._log_sigma_max - self._log_sigma_min
    log_sigma = self._log_sigma_min + 0.5 * span * (jnp.tanh(y) + 1.0)
    return jnp.tanh(mean), log_sigma

  def sample(self, key: Array, params: Array) -> Array:
    """Draws actions [..., A]."""
    mean, log_sigma = self.gaussian(params)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    return _inside(jnp.tanh(mean + jnp.exp(log_sigma) * noise))

  def mode(self, params: Array) -> Array:
    """Returns the squashed mean, [..., A], the median of every component."""
    mean, _ = self.gaussian(params)
    return jnp.tanh(mean)

  def log_prob(self, params: Array, action: Array) -> Array:
    """Returns log π(a), [...], of squashed actions [..., A]."""
    mean, log_sigma = self.gaussian(params)
    unsquashed = jnp.arctanh(_inside(action.astype(mean.dtype)))
    standardised = (unsquashed - mean) * jnp.exp(-log_sigma)
    log_normal = (
      -0.5 * jnp.square(standardised) - log_sigma - 0.5 * math.log(2 * math.pi)
    )
    # log |da/du| = log(1 − tanh² u), stable near ±1.
    log_jacobian = 2.0 * (
      math.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed)
    )
    return jnp.sum(log_normal - log_jacobian, axis=-1)

  def regulariser(self, params: Array) -> Array:
    """Returns KL(N(μ, σ) || N(0, I)) before squashing, [...]."""
    mean, log_sigma = self.gaussian(params)
    return _gaussian_kl(mean, log_sigma, 0.0, 0.0)

  def entropy(self, params: Array) -> Array:
    """Returns the entropy of the Gaussian before squashing, [...]."""
    _, log_sigma = self.gaussian(params)
    return jnp.sum(log_sigma + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

  def kl(self, params: Array, other: Array) -> Array:
    """Returns KL(π_params || π_other), [...]; it is invariant to squashing."""
    return _gaussian_kl(*self.gaussian(params), *self.gaussian(other))


def _inside(action: Array) -> Array:
  """Clips actions to where atanh is finite."""
  limit = 1.0 - jnp.finfo(action.dtype).epsneg
  return jnp.clip(action, -limit, limit)


def _gaussian_kl(
  mean: Array,
  log_sigma: Array,
  other_mean: Array | float,
  other_log_sigma: Array | float,
) -> Array:
  """Returns KL between diagonal Gaussians, summed over the last axis."""
  difference = log_sigma - other_log_sigma
  standardised = (mean - other_mean) * jnp.exp(-other_log_sigma)
  return jnp.sum(
    0.5 * (jnp.expm1(2.0 * difference) + jnp.square(standardised))
    - difference,
    axis=-1,
  )
