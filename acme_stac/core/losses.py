"""The IMPALA loss with leaky V-trace (Algorithm 1), for one head."""

import functools

import chex
import dm_env
import jax
import jax.numpy as jnp

from acme_stac.core import vtrace
from acme_stac.core.distributions import Distribution
from acme_stac.core.metaparams import Hyperparameters
from acme_stac.core.types import Array, LossTerms, Trajectory


def transition_mask(step_type: Array) -> Array:
  """Returns which rows begin a transition, [T, B], from step types [T+1, B].

  The row after a LAST step is the first of the next episode. No action leads
  from one to the other, so that the LAST row begins no transition.
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

  L(θ) = g_v Σ (v_s − V(x_s))²
         − g_p Σ ρ_s log π(a_s|x_s) (r_{s+1} + γ v_{s+1} − sg V(x_s))
         + g_e Σ_s Σ_a π(a|x_s) log π(a|x_s),

  with leaky V-trace targets v_s and weights ρ_s. Sums run over time and batch.
  Transitions that begin at a LAST step are masked, whatever they contain.

  Args:
    policy: parameters of the head's policy, [T+1, B, K].
    value: the head's values, [T+1, B].
    trajectory: the experience, [T+1, B].
    hyperparameters: ζ, scalars; the inner loss is differentiable in them.
    distribution: the family that `policy` parameterises.
    inner: True for the inner loss, whose advantages stay differentiable in ζ
      (line 20); False for the outer loss, where they are stopped (line 22).
    reward_scale: factor of the rewards.
    max_abs_reward: magnitude to which the scaled rewards are clipped.

  Returns:
    The loss, a scalar, and its unweighted terms.
  """
  chex.assert_rank([policy, value, trajectory.reward], [3, 2, 2])
  chex.assert_equal_shape([value, trajectory.reward, trajectory.step_type])
  chex.assert_equal_shape_prefix([policy, value, trajectory.action], 2)
  zeta = hyperparameters
  mask = transition_mask(trajectory.step_type)
  valid = functools.partial(_zero_outside, mask)
  a_tm1 = valid(trajectory.action[:-1])
  log_mu_tm1 = valid(trajectory.behaviour_log_prob[:-1])
  r_t = valid(trajectory.reward[1:])
  discount_t = zeta.discount * valid(trajectory.discount[1:])
  r_t = _scale_and_clip(r_t, reward_scale, max_abs_reward)

  # Leaky V-trace targets (lines 2–16).
  log_pi_tm1 = distribution.log_prob(policy[:-1], a_tm1)
  rho_tm1 = jax.lax.stop_gradient(jnp.exp(log_pi_tm1 - log_mu_tm1))
  v_tm1 = jax.lax.stop_gradient(value[:-1])
  v_t = jax.lax.stop_gradient(value[1:])
  targets_tm1, _ = vtrace.leaky_vtrace(
    v_tm1, v_t, r_t, discount_t, rho_tm1,
    alpha_rho=zeta.alpha_rho, alpha_c=zeta.alpha_c, lambda_=zeta.lambda_,
    clip_rho_threshold=zeta.clip_rho_threshold,
    clip_c_threshold=zeta.clip_c_threshold, mask=mask,
  )

  value_loss = jnp.sum(valid(jnp.square(targets_tm1 - value[:-1])))  # Line 17.
  # Line 18, with IMPALA's sign.
  entropy_loss = jnp.sum(valid(distribution.regulariser(policy[:-1])))

  # Lines 19–23. v_{s+1} is the next step's target; after the last transition of
  # the sequence, and at a LAST step, it is the value V(x_{s+1}) itself.
  targets_t = jnp.concatenate([targets_tm1[1:], v_t[-1:]], axis=0)
  advantage_tm1 = r_t + discount_t * targets_t - v_tm1
  weight_tm1 = vtrace.leaky_weights(
    rho_tm1, zeta.alpha_rho, zeta.clip_rho_threshold
  )
  weighted_tm1 = weight_tm1 * advantage_tm1
  if not inner:
    weighted_tm1 = jax.lax.stop_gradient(weighted_tm1)
  policy_loss = -jnp.sum(valid(log_pi_tm1 * weighted_tm1))

  total = (
    zeta.value_cost * value_loss + zeta.policy_cost * policy_loss
    + zeta.entropy_cost * entropy_loss
  )
  advantage = jnp.sum(valid(advantage_tm1))
  return total, LossTerms(value_loss, policy_loss, entropy_loss, advantage)


def _zero_outside(mask: Array, x: Array) -> Array:
  """Sets the rows of x [T, B, ...] to 0 where no transition begins.

  Applied before anything is computed from them, so that NaN cannot spread.
  """
  where = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
  return jnp.where(where, x, jnp.zeros_like(x))


def _scale_and_clip(
  reward: Array, scale: float, max_abs: float | None
) -> Array:
  """Returns the rewards that are learned from."""
  reward = scale * reward
  return reward if max_abs is None else jnp.clip(reward, -max_abs, max_abs)


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
  chex.assert_rank([new_policy, old_policy, step_type], [3, 3, 2])
  divergence = distribution.kl(
    new_policy[:-1], jax.lax.stop_gradient(old_policy[:-1])
  )
  return jnp.sum(jnp.where(transition_mask(step_type), divergence, 0.0))


def matching_loss(
  policy: Array,
  value: Array,
  target_policy: Array,
  target_value: Array,
  *,
  step_type: Array,
  distribution: Distribution,
  value_cost: float,
) -> Array:
  """Calculates the distance of a head to its bootstrapped target.

  KL(π_θ̃ || π_θ'; T) + c Σ (V_θ̃(x_s) − V_θ'(x_s))²; see "Bootstrapped
  Meta-Learning" by Flennerhag et al. (2022).

  Args:
    policy: parameters of π_θ', [T+1, B, K].
    value: V_θ', [T+1, B].
    target_policy: parameters of π_θ̃, like `policy`; carries no gradient.
    target_value: V_θ̃, like `value`; carries no gradient.
    step_type: [T+1, B].
    distribution: the family of both policies.
    value_cost: c.

  Returns:
    The distance summed over the transitions, a scalar.
  """
  chex.assert_rank([policy, value, step_type], [3, 2, 2])
  chex.assert_equal_shape([policy, target_policy])
  chex.assert_equal_shape([value, target_value])
  target_policy, target_value = jax.lax.stop_gradient(
    (target_policy[:-1], target_value[:-1])
  )
  divergence = distribution.kl(target_policy, policy[:-1])
  error = jnp.square(target_value - value[:-1])
  distance = divergence + value_cost * error
  return jnp.sum(jnp.where(transition_mask(step_type), distance, 0.0))
