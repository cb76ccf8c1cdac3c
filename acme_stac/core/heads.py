"""The P heads of the networks: outputs, losses, and which policies act."""

import functools

import jax
import jax.numpy as jnp

from acme_stac.config import STACConfig
from acme_stac.core import losses, metaparams
from acme_stac.core.types import (
  Array,
  LossTerms,
  Metaparams,
  NetworkOutput,
  Networks,
  Params,
  Trajectory,
  check_output,
)


class Heads:
  """Computes what the update needs of all heads at once."""

  def __init__(self, networks: Networks, config: STACConfig):
    """Takes the networks and the agent's configuration."""
    self._networks = networks
    self._config = config

  def unroll(
    self, params: Params, eta: Metaparams, trajectory: Trajectory
  ) -> NetworkOutput:
    """Returns the policies and values of every row, [T+1, B, P, ...].

    Args:
      params: of the networks.
      eta: the metaparameters, of which the networks may embed some.
      trajectory: the experience, [T+1, B].
    """
    output = self._networks.unroll(
      params,
      trajectory.observation,
      trajectory.core_state,
      trajectory.step_type,
      metaparams.conditioning(eta, self._config),
    )
    check_output(output, trajectory.step_type.shape, self._config)
    return output

  def losses(
    self,
    output: NetworkOutput,
    trajectory: Trajectory,
    zeta: metaparams.Hyperparameters,
    *,
    inner: bool,
  ) -> tuple[Array, LossTerms]:
    """Returns `losses.loss` of Q heads and its terms, [Q] each.

    Args:
      output: policies [T+1, B, Q, K] and values [T+1, B, Q].
      trajectory: the experience, [T+1, B].
      zeta: scalars, the same for all heads, or one value per head [Q].
      inner: as in `losses.loss`.
    """
    loss = functools.partial(
      losses.loss,
      distribution=self._networks.distribution,
      inner=inner,
      reward_scale=self._config.reward_scale,
      max_abs_reward=self._config.max_abs_reward,
    )
    per_head = 0 if jnp.ndim(zeta.discount) else None
    return jax.vmap(loss, in_axes=(-2, -1, None, per_head))(
      output.policy, output.value, trajectory, zeta
    )

  def kl(self, new: Array, old: Array, step_type: Array) -> Array:
    """Returns `losses.kl_loss` of policies [T+1, B, Q, K], their mean."""
    kl = jax.vmap(losses.kl_loss, in_axes=(-2, -2, None, None))
    return jnp.mean(kl(new, old, step_type, self._networks.distribution))


def acting_output(output: NetworkOutput, config: STACConfig) -> NetworkOutput:
  """Returns the policies that may act, and their values (section 9.3).

  The outer loss measures these. One of them acts throughout an episode: head 0,
  a head of a random ensemble, or the average of the heads' policy parameters
  (the logits of a softmax policy).

  Args:
    output: of all heads, [..., P, K] and [..., P]; of an average ensemble the
      value is [..., P + 1].
    config: the agent's configuration.

  Returns:
    Policies [..., Q, K] and values [..., Q], where Q is P for a random ensemble
    and otherwise 1.
  """
  if config.behaviour == "random_head":
    return output
  if config.behaviour == "average":
    mean = jnp.mean(output.policy, axis=-2, keepdims=True)
    return NetworkOutput(mean, output.value[..., -1:])
  return NetworkOutput(output.policy[..., :1, :], output.value[..., :1])
