"""Leaky V-trace (Eq. 5; Algorithm 1, lines 2–16)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

Array = jax.Array
Numeric = Array | float


class LeakyVTraceOutput(NamedTuple):
  """Targets v_s and errors e_s = v_s − V(x_s), both shaped like v_tm1."""

  targets: Array
  errors: Array


def leaky_weights(rho: Array, alpha: Numeric, clip_threshold: Numeric) -> Array:
  """Mixes truncated and plain importance weights.

  α min(c̄, IS) + (1 − α) IS (Eq. 5), differentiable in α.

  Infinite weights are replaced by the largest finite number, because with α = 1
  the term (1 − α) IS would be 0 · inf = NaN.

  Args:
    rho: importance weights IS, any shape.
    alpha: mixing coefficient: 1 truncates, 0 does not.
    clip_threshold: truncation level.

  Returns:
    The mixed weights, shaped like `rho`.
  """
  rho = jnp.nan_to_num(rho, nan=jnp.nan)
  return alpha * jnp.minimum(clip_threshold, rho) + (1.0 - alpha) * rho


def leaky_vtrace(
  v_tm1: Array,
  v_t: Array,
  r_t: Array,
  discount_t: Array,
  rho_tm1: Array,
  *,
  alpha_rho: Numeric = 1.0,
  alpha_c: Numeric = 1.0,
  lambda_: Numeric = 1.0,
  clip_rho_threshold: Numeric = 1.0,
  clip_c_threshold: Numeric = 1.0,
  mask: Array | None = None,
) -> LeakyVTraceOutput:
  """Calculates leaky V-trace targets from importance weights.

  See "A Self-Tuning Actor-Critic Algorithm" by Zahavy et al., Eq. 5 and
  Algorithm 1. The targets are differentiable in discounts, λ and both α;
  gradients through values and importance weights are stopped.

  All arrays are [T] or time-major [T, B]. A transition leads from step tm1 to
  step t.

  Args:
    v_tm1: values V(x_s).
    v_t: values V(x_{s+1}).
    r_t: rewards r_{s+1}.
    discount_t: discounts γ d_{s+1}, with d the environment's own.
    rho_tm1: importance weights π(a_s|x_s) / μ(a_s|x_s).
    alpha_rho: mixing coefficient α_ρ of the weights of the errors.
    alpha_c: mixing coefficient α_c of the trace.
    lambda_: λ, a scalar or shaped like v_tm1.
    clip_rho_threshold: truncation level ρ̄.
    clip_c_threshold: truncation level c̄.
    mask: 1 or True where there is a transition. Elsewhere the error is 0, the
      trace is cut, and the other arguments are ignored, even if NaN.

  Returns:
    `LeakyVTraceOutput` with `targets` v_s and `errors` v_s − V(x_s).
  """
  chex.assert_equal_shape([v_tm1, v_t, r_t, discount_t, rho_tm1])
  chex.assert_rank(v_tm1, {1, 2})
  v_tm1, v_t, rho_tm1 = jax.lax.stop_gradient((v_tm1, v_t, rho_tm1))

  rho = leaky_weights(rho_tm1, alpha_rho, clip_rho_threshold)
  trace = lambda_ * leaky_weights(rho_tm1, alpha_c, clip_c_threshold)
  td_errors = rho * (r_t + discount_t * v_t - v_tm1)
  decay = discount_t * trace
  if mask is not None:
    chex.assert_equal_shape([v_tm1, mask])
    valid = mask.astype(bool)
    td_errors = jnp.where(valid, td_errors, 0.0)
    decay = jnp.where(valid, decay, 0.0)

  def backwards(
    error: Array, step: tuple[Array, Array]
  ) -> tuple[Array, Array]:
    td_error, step_decay = step
    error = td_error + step_decay * error
    return error, error

  _, errors = jax.lax.scan(
    backwards, jnp.zeros_like(td_errors[0]), (td_errors, decay), reverse=True
  )
  return LeakyVTraceOutput(targets=errors + v_tm1, errors=errors)
