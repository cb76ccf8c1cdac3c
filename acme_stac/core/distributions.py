"""Action distributions as values: pure functions of their parameters.

The update and the actors know a policy only through this interface.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array


class Distribution(Protocol):
  """A family of action distributions with parameters [..., K]."""

  def sample(self, key: Array, params: Array) -> Array:
    """Draws actions of shape [...]."""

  def mode(self, params: Array) -> Array:
    """Returns the most probable actions, [...]."""

  def log_prob(self, params: Array, action: Any) -> Array:
    """Returns log π(a), [...]."""

  def regulariser(self, params: Array) -> Array:
    """Returns the term that the entropy cost multiplies, [...]."""

  def entropy(self, params: Array) -> Array:
    """Returns the entropy in nats, [...]."""

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
    log_probs = jax.nn.log_softmax(params)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

  def regulariser(self, params: Array) -> Array:
    """Returns the negative entropy Σ_a π log π: minimising it explores."""
    return -self.entropy(params)

  def entropy(self, params: Array) -> Array:
    """Returns −Σ_a π log π in nats, [...]."""
    log_probs = jax.nn.log_softmax(params)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

  def kl(self, params: Array, other: Array) -> Array:
    """Returns KL(π_params || π_other) = Σ_a π (log π − log π_other), [...]."""
    log_p = jax.nn.log_softmax(params)
    log_q = jax.nn.log_softmax(other)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
