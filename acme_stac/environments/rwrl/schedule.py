"""How a perturbed parameter moves from episode to episode."""

import dataclasses

import numpy as np

from acme_stac.environments.rwrl import stages

SCHEDULERS = (
  "constant",
  "random_walk",
  "drift_pos",
  "drift_neg",
  "cyclic_pos",
  "cyclic_neg",
  "uniform",
  "saw_wave",
)


@dataclasses.dataclass
class Schedule:
  """Draws the values of a perturbed parameter.

  Values start at `start` and are clipped to [min, max]. With normal steps δ,
  `constant` stays; `random_walk` adds δ; `drift_pos` and `drift_neg` add and
  subtract |δ|; `cyclic_pos` and `cyclic_neg` do the same and return to `start`
  at the end of the range; `uniform` draws from the whole range; `saw_wave`
  moves by |δ| up to the maximum, then down to the minimum, and so on.

  Attributes:
    scheduler: one of `SCHEDULERS`.
    start: value before the first step.
    min: least value.
    max: largest value.
    std: standard deviation of a step.
    rng: draws the steps.
    saw_wave_forgets: see `Faults`.
  """

  scheduler: str
  start: float
  min: float
  max: float
  std: float
  rng: stages.Rng
  saw_wave_forgets: bool = False

  def __post_init__(self):
    self._value = self.start
    self._sign = 1.0

  def next(self) -> float:
    """Returns the next value."""
    # The published suite draws a step for every scheduler.
    delta = self.rng.normal(scale=self.std)
    value = self._value
    match self.scheduler:
      case "random_walk":
        value += delta
      case "drift_pos":
        value += abs(delta)
      case "drift_neg":
        value -= abs(delta)
      case "cyclic_pos":
        value += abs(delta)
        value = self.start if value >= self.max else value
      case "cyclic_neg":
        value -= abs(delta)
        value = self.start if value <= self.min else value
      case "uniform":
        value = self.rng.uniform(self.min, self.max)
      case "saw_wave":
        before = 0.0 if self.saw_wave_forgets else value
        value = before + self._sign * abs(delta)
        if self.saw_wave_forgets:
          if not self.min < value < self.max:
            self._sign = -self._sign
        elif value >= self.max:
          self._sign = -1.0
        elif value <= self.min:
          self._sign = 1.0
    self._value = float(np.clip(value, self.min, self.max))
    return self._value
