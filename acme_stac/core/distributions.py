"""Action distributions as values: pure functions of their parameters.

The update and the actors know a policy only through this interface.
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
    """Returns the greedy actions, shaped like samples."""

  def log_prob(self, params: Array, action: Any) -> Array:
    """Returns log π(a), [...]."""

  def regulariser(self, params: Array) -> Array:
    """Returns the term that the entropy cost multiplies, [...]."""

  def entropy(self, params: Array) -> Array:
    """Returns the entropy in nats, [...], as it is logged."""

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
    """Returns the negative entropy Σ_a π log π: minimising it explores."""
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

  A logit of −inf rules an action out: it adds 0 to entropy and KL, where
  π log π would be 0 · inf = NaN.
  """
  log_probs = jax.nn.log_softmax(logits)
  return jnp.maximum(log_probs, jnp.finfo(log_probs.dtype).min)


class SquashedGaussian:
  """tanh of a diagonal Gaussian, the policy of continuous actions.

  See section 9.3 of Zahavy et al. (2020). Parameters are outputs [..., 2A] of a
  network: the first half makes the means μ = tanh(·), the second the standard
  deviations σ(y) = exp(σ_min + 0.5 (σ_max − σ_min) (tanh(y) + 1)). Actions
  [..., A] are in [−1, 1].

  Samples stay inside ±(1 − 6e-8) in single precision, where atanh is finite:
  that is a Gaussian sample of 8.7, more than four standard deviations away for
  σ_max up to 0.5. The probability of an action is always that of the action as
  it is stored, so that actor and learner agree on it to rounding.
  """

  def __init__(self, log_sigma_min: float, log_sigma_max: float):
    """Takes the bounds σ_min < σ_max of the log standard deviation."""
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
    """Returns the squashed mean, [..., A]: the median of every component."""
    mean, _ = self.gaussian(params)
    return jnp.tanh(mean)

  def log_prob(self, params: Array, action: Array) -> Array:
    """Returns log π(a) on the squashed space, [...], for actions [..., A]."""
    mean, log_sigma = self.gaussian(params)
    unsquashed = jnp.arctanh(_inside(action.astype(mean.dtype)))
    standardised = (unsquashed - mean) * jnp.exp(-log_sigma)
    log_normal = (
      -0.5 * jnp.square(standardised) - log_sigma - 0.5 * math.log(2 * math.pi)
    )
    # log |da/du| = log(1 − tanh² u), without the cancellation near ±1.
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
    """Returns KL(π_params || π_other), [...]; squashing does not change it."""
    return _gaussian_kl(*self.gaussian(params), *self.gaussian(other))


def _inside(action: Array) -> Array:
  """Keeps actions where atanh is finite."""
  limit = 1.0 - jnp.finfo(action.dtype).epsneg
  return jnp.clip(action, -limit, limit)


def _gaussian_kl(mean, log_sigma, other_mean, other_log_sigma) -> Array:
  """Returns KL between diagonal Gaussians, summed over the last axis."""
  difference = log_sigma - other_log_sigma
  standardised = (mean - other_mean) * jnp.exp(-other_log_sigma)
  return jnp.sum(
    0.5 * (jnp.expm1(2.0 * difference) + jnp.square(standardised))
    - difference,
    axis=-1,
  )
