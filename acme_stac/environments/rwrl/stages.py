"""Stages through which actions, observations and rewards pass one by one."""

import collections
from typing import Any

import numpy as np

# A numpy.random.Generator, or the module numpy.random, whose functions of the
# same names draw from the global generator.
Rng = Any


class Stage:
  """Transforms one value per call and may remember earlier ones."""

  def __call__(self, value: Any) -> Any:
    """Returns the transformed value; leaves its argument unchanged."""
    raise NotImplementedError

  def reset(self):
    """Forgets all earlier values."""


class Delay(Stage):
  """Returns the value of `steps` calls ago, at first the first one."""

  def __init__(self, steps: int):
    self._steps = steps
    self._values: collections.deque[Any] = collections.deque()

  def __call__(self, value: Any) -> Any:
    if not self._values:
      self._values.extend([value] * self._steps)
    self._values.append(value)
    return self._values.popleft()

  def reset(self):
    self._values.clear()


class GaussianNoise(Stage):
  """Adds independent normal noise, then clips to the bounds, if any."""

  def __init__(self, std: float, rng: Rng, bounds: Any = None):
    self._std, self._rng, self._bounds = std, rng, bounds

  def __call__(self, value: np.ndarray) -> np.ndarray:
    value = self._rng.normal(value, self._std)
    return value if self._bounds is None else np.clip(value, *self._bounds)


class _Spells(Stage):
  """Draws spells of `steps` calls for each component independently.

  A component outside a spell starts one with the given probability. Starts are
  drawn at every call for all components, including those in a spell.
  """

  def __init__(self, probability: float, steps: int, rng: Rng):
    self._probability, self._steps, self._rng = probability, steps, rng
    self._left: Any = 0

  def _in_spell(self, shape: tuple[int, ...]) -> np.ndarray:
    """Draws which components are in a spell at this call, bool of `shape`."""
    starts = self._rng.binomial(1, self._probability, size=shape) == 1
    left = np.where((self._left == 0) & starts, self._steps, self._left)
    active = left > 0
    self._left = left - active
    return active

  def reset(self):
    self._left = 0


class Dropped(_Spells):
  """Sets components to 0 during spells."""

  def __call__(self, value: np.ndarray) -> np.ndarray:
    return np.where(self._in_spell(value.shape), 0.0, value)


class Stuck(_Spells):
  """Holds components at the last output of this stage during spells.

  A stuck component therefore repeats the same noise, and a dropped one stays 0.
  """

  def __init__(self, probability: float, steps: int, rng: Rng):
    super().__init__(probability, steps, rng)
    self._previous: np.ndarray | None = None

  def __call__(self, value: np.ndarray) -> np.ndarray:
    previous = value if self._previous is None else self._previous
    self._previous = np.where(self._in_spell(value.shape), previous, value)
    return self._previous

  def reset(self):
    super().reset()
    self._previous = None


class Repetition(Stage):
  """Repeats a value for `steps` calls with a probability, dropping others."""

  def __init__(self, probability: float, steps: int, rng: Rng):
    self._probability, self._steps, self._rng = probability, steps, rng
    self._left = 0
    self._held: Any = None

  def __call__(self, value: Any) -> Any:
    if self._left:
      self._left -= 1
      return self._held
    if self._rng.uniform() < self._probability:
      self._left = self._steps - 1
    self._held = value
    return value

  def reset(self):
    self._left = 0
