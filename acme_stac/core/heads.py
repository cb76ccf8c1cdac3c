"""The P heads of the networks: outputs, losses, and which of them act."""

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

  def matching_loss(
    self, output: NetworkOutput, target: NetworkOutput, step_type: Array
  ) -> Array:
    """Returns `losses.matching_loss` of Q policies and values, their mean."""
    loss = functools.partial(
      losses.matching_loss,
      step_type=step_type,
      distribution=self._networks.distribution,
      value_cost=self._config.bootstrap_value_cost,
    )
    return jnp.mean(jax.vmap(loss, in_axes=(-2, -1, -2, -1))(*output, *target))


def acting_output(output: NetworkOutput, config: STACConfig) -> NetworkOutput:
  """Returns the policies that may act, and their own values (section 9.3).

  One of them acts throughout an episode: head 0, a head of a random ensemble,
  or the average of the heads' policy parameters (the logits of a softmax
  policy).

  Args:
    output: of all heads, as `NetworkOutput` describes it.
    config: the agent's configuration.

  Returns:
    Policies [..., Q, K] and values [..., Q], where Q is P for a random ensemble
    and otherwise 1.
  """
  if config.behaviour == "random_head":
    return output._replace(value=output.value[..., : config.num_heads])
  if config.behaviour == "average":
    mean = jnp.mean(output.policy, axis=-2, keepdims=True)
    return NetworkOutput(mean, output.value[..., -1:])
  return NetworkOutput(output.policy[..., :1, :], output.value[..., :1])


def outer_output(output: NetworkOutput, config: STACConfig) -> NetworkOutput:
  """Returns the policies that may act, with the values of the outer loss.

  These are the outer critic's, the same for every policy, or without a critic
  the policies' own (Bonnet et al., 2022).

  Args:
    output: of all heads, as `NetworkOutput` describes it.
    config: the agent's configuration.

  Returns:
    Policies [..., Q, K] and values [..., Q], as of `acting_output`.
  """
  acting = acting_output(output, config)
  if config.num_values == config.num_heads:
    return acting
  critic = output.value[..., -1:]
  return acting._replace(
    value=jnp.broadcast_to(critic, acting.policy.shape[:-1])
  )
