"""The IMPALA loss with leaky V-trace (Algorithm 1), for one head."""

from typing import NamedTuple

import chex
import dm_env
import jax
import jax.numpy as jnp

from acme_stac.core import vtrace
from acme_stac.core.distributions import Distribution
from acme_stac.core.metaparams import Hyperparameters
from acme_stac.core.types import Trajectory

Array = jax.Array


class LossTerms(NamedTuple):
  """The parts of a loss, unweighted, as sums over time and batch (scalars).

  Attributes:
    value: squared errors of the value.
    policy: the policy gradient's surrogate.
    entropy: what the entropy cost multiplies.
    advantage: r + γ v' − V, no part of the loss: how far returns exceed values.
  """

  value: Array
  policy: Array
  entropy: Array
  advantage: Array


def transition_mask(step_type: Array) -> Array:
  """Returns which rows begin a transition, [T, B], from step types [T+1, B].

  The row of a LAST step leads to the first step of the next episode: no action
  was taken there, so there is nothing to learn from.
  """
  return step_type[:-1] != int(dm_env.StepType.LAST)


def loss(
  policy: Array,
  value: Array,
  trajectory: Trajectory,
  hyperparameters: Hyperparameters,
  distribution: Distribution,
  *,
  inner: bool,
  reward_scale: float = 1.0,
  max_abs_reward: float | None = None,
) -> tuple[Array, LossTerms]:
  """Calculates the loss of one head (Algorithm 1, lines 2–24).

  Losses are sums over time and batch. Transitions out of LAST steps count for
  nothing, whatever they contain.

  Args:
    policy: parameters of the head's policy, [T+1, B, K].
    value: the head's values, [T+1, B].
    trajectory: the experience, [T+1, B].
    hyperparameters: ζ, scalars; the inner loss is differentiable in them.
    distribution: the family that `policy` parameterises.
    inner: True for the inner loss, whose advantages stay differentiable in ζ
      (line 20); False for the outer loss, where they are stopped (line 22).
    reward_scale: multiplies rewards.
    max_abs_reward: clips the products to this magnitude.

  Returns:
    The loss, a scalar, and its unweighted parts.
  """
  chex.assert_equal_shape([value, trajectory.reward, trajectory.step_type])
  mask = transition_mask(trajectory.step_type)

  def valid(x: Array) -> Array:
    """Replaces what stands at no transition before it is computed with."""
    where = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(where, x, jnp.zeros_like(x))

  action = valid(trajectory.action[:-1])
  behaviour_log_prob = valid(trajectory.behaviour_log_prob[:-1])
  reward = valid(trajectory.reward[1:])
  discount = valid(trajectory.discount[1:])
  if reward_scale != 1.0:
    reward = reward_scale * reward
  if max_abs_reward is not None:
    reward = jnp.clip(reward, -max_abs_reward, max_abs_reward)

  log_prob = distribution.log_prob(policy[:-1], action)
  rho = jax.lax.stop_gradient(jnp.exp(log_prob - behaviour_log_prob))
  v_tm1 = jax.lax.stop_gradient(value[:-1])
  v_t = jax.lax.stop_gradient(value[1:])
  discount_t = hyperparameters.discount * discount
  targets, _ = vtrace.leaky_vtrace(
    v_tm1,
    v_t,
    reward,
    discount_t,
    rho,
    alpha_rho=hyperparameters.alpha_rho,
    alpha_c=hyperparameters.alpha_c,
    lambda_=hyperparameters.lambda_,
    clip_rho_threshold=hyperparameters.clip_rho_threshold,
    clip_c_threshold=hyperparameters.clip_c_threshold,
    mask=mask,
  )

  value_loss = jnp.sum(valid(jnp.square(targets - value[:-1])))

  # v_{s+1}: the next step's target; behind the last transition of the
  # sequence, and at a LAST step, the target is the value itself.
  next_targets = jnp.concatenate([targets[1:], v_t[-1:]], axis=0)
  advantage = reward + discount_t * next_targets - v_tm1
  weighted_advantage = (
    vtrace.leaky_weights(
      rho, hyperparameters.alpha_rho, hyperparameters.clip_rho_threshold
    )
    * advantage
  )
  if not inner:
    weighted_advantage = jax.lax.stop_gradient(weighted_advantage)
  policy_loss = -jnp.sum(valid(log_prob * weighted_advantage))

  entropy_loss = jnp.sum(valid(distribution.regulariser(policy[:-1])))

  total = (
    hyperparameters.value_cost * value_loss
    + hyperparameters.policy_cost * policy_loss
    + hyperparameters.entropy_cost * entropy_loss
  )
  return total, LossTerms(
    value_loss, policy_loss, entropy_loss, jnp.sum(valid(advantage))
  )


def kl_loss(
  new_policy: Array,
  old_policy: Array,
  step_type: Array,
  distribution: Distribution,
) -> Array:
  """Calculates KL(π_θ' || π_θ; T) (Algorithm 2 line 14), a sum like the losses.

  Args:
    new_policy: parameters of π_θ', [T+1, B, K].
    old_policy: parameters of π_θ, [T+1, B, K]; carries no gradient.
    step_type: [T+1, B].
    distribution: the family of both.

  Returns:
    The divergence summed over the transitions, a scalar.
  """
  divergence = distribution.kl(
    new_policy[:-1], jax.lax.stop_gradient(old_policy[:-1])
  )
  return jnp.sum(jnp.where(transition_mask(step_type), divergence, 0.0))
