"""Faults of the published suite, which exact mode reproduces."""

from typing import NamedTuple


class Faults(NamedTuple):
  """Selects the faults of the published suite that an environment reproduces.

  Attributes:
    episodes_overlap: delays, drops, stuck values and repetitions carry over to
      the next episode, which starts with observations, rewards and actions of
      the last one. Corrected: every episode starts afresh; it pays its first
      reward `reward_delay` + 1 times and never its last `reward_delay` ones.
    saw_wave_forgets: `saw_wave` takes its step as the value, which sticks at
      the end of a range of positive numbers. Corrected: the value walks up to
      the maximum and down to the minimum.
    constraints_skip_delay: the entry `constraints` is not delayed with the rest
      of the observation.
    constraints_lag_reset: at a reset, constraints are evaluated before
      orientations, accelerations and forces of the new state are computed.
    walker_angles_always_safe: `joint_angle` of walker holds if any joint is
      above its lower and any below its upper limit. Corrected: if all are.
    humanoid_velocity_skips_joint: `joint_velocity` of humanoid ignores the
      first joint.
    walker_thighs_on_one_side: `torso_length` of walker moves both thighs to the
      right side.
  """

  episodes_overlap: bool
  saw_wave_forgets: bool
  constraints_skip_delay: bool
  constraints_lag_reset: bool
  walker_angles_always_safe: bool
  humanoid_velocity_skips_joint: bool
  walker_thighs_on_one_side: bool


PUBLISHED = Faults(*[True] * len(Faults._fields))
CORRECTED = Faults(*[False] * len(Faults._fields))
