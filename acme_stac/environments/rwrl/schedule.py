"""How a perturbed parameter moves from episode to episode."""

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


class Schedule:
  """Draws the values of a perturbed parameter.

  With normal steps δ, from `start` on and clipped to [minimum, maximum]:
  `constant` stays; `random_walk` adds δ; `drift_pos` and `drift_neg` add and
  subtract |δ|; `cyclic_pos` and `cyclic_neg` do too, and return to `start` at
  the end of the range; `uniform` draws from the whole range; `saw_wave` moves
  by |δ| up to the maximum, then down to the minimum, and so on.
  """

  def __init__(
    self,
    scheduler: str,
    *,
    start: float,
    minimum: float,
    maximum: float,
    std: float,
    rng: stages.Rng,
    saw_wave_forgets: bool = False,
  ):
    """Initialises the schedule at its start.

    Args:
      scheduler: one of `SCHEDULERS`.
      start: value before the first step.
      minimum: least value.
      maximum: largest value.
      std: standard deviation of a step.
      rng: draws the steps.
      saw_wave_forgets: see `Faults`.
    """
    self._scheduler = scheduler
    self._start = self._value = start
    self._minimum, self._maximum, self._std = minimum, maximum, std
    self._rng = rng
    self._saw_wave_forgets = saw_wave_forgets
    self._sign = 1.0

  def next(self) -> float:
    """Returns the next value."""
    # The published suite draws it for every scheduler.
    delta = self._rng.normal(scale=self._std)
    value = self._value
    match self._scheduler:
      case "random_walk":
        value += delta
      case "drift_pos":
        value += abs(delta)
      case "drift_neg":
        value -= abs(delta)
      case "cyclic_pos":
        value += abs(delta)
        value = self._start if value >= self._maximum else value
      case "cyclic_neg":
        value -= abs(delta)
        value = self._start if value <= self._minimum else value
      case "uniform":
        value = self._rng.uniform(self._minimum, self._maximum)
      case "saw_wave":
        value = self._saw_wave(abs(delta))
    self._value = float(np.clip(value, self._minimum, self._maximum))
    return self._value

  def _saw_wave(self, step: float) -> float:
    if self._saw_wave_forgets:
      value = self._sign * step
      if not self._minimum < value < self._maximum:
        self._sign = -self._sign
      return value
    value = self._value + self._sign * step
    if value >= self._maximum:
      self._sign = -1.0
    elif value <= self._minimum:
      self._sign = 1.0
    return value
