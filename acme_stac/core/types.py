"""The data that flows from actors to the update."""

from typing import Any, NamedTuple

import jax

Array = jax.Array
Params = Any
CoreState = Any


class Trajectory(NamedTuple):
  """A batch of contiguous steps of experience, time-major.

  Row t holds the dm_env timestep t (`observation`, `reward`, `discount`,
  `step_type`) and what the behaviour policy did there (`action`,
  `behaviour_log_prob`). Transition t leads from row t to row t+1, whose reward
  and discount belong to it. A row of type LAST leads to the first row of the
  next episode: that is no transition, and its action, the reward and the
  discount after it are never used.

  Attributes:
    observation: nest of arrays [T+1, B, ...].
    action: [T+1, B, ...], as the distribution makes and takes them.
    reward: [T+1, B], unclipped.
    discount: [T+1, B], the environment's own: 0 at a termination.
    step_type: [T+1, B] int, values of `dm_env.StepType`.
    behaviour_log_prob: [T+1, B], log μ(a|x).
    core_state: nest of arrays [B, ...], the recurrent state *before* row 0.
  """

  observation: Any
  # Arrays of JAX or NumPy, their specs or their shardings.
  action: Any
  reward: Any
  discount: Any
  step_type: Any
  behaviour_log_prob: Any
  core_state: CoreState = ()


class NetworkOutput(NamedTuple):
  """What the networks say of each observation, for all P heads.

  Attributes:
    policy: parameters of the action distribution, [..., P, K].
    value: [..., P]; [..., P + 1] if the average of the heads acts, whose value
      is the last.
  """

  policy: Array
  value: Array
