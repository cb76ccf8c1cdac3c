"""Statistics over seeds and tasks by rliable (Agarwal et al., 2021)."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from rliable import library, metrics

# Bootstrap samples; they decide the second digit of an interval.
_SAMPLES = 2000


class Estimate(NamedTuple):
  """A number with its 95% interval.

  Attributes:
    value: point estimate.
    low: lower end.
    high: upper end.
  """

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    return self.shown(f",.{self._decimals()}f")

  def _decimals(self) -> int:
    """Returns how many decimals say something.

    Two digits of the interval's width, or three of a value that has none, and
    never more than four digits of the largest number.
    """
    finite = [abs(x) for x in self if math.isfinite(x)]
    if not finite or not max(finite):
      return 0
    size = math.floor(math.log10(max(finite)))
    width = self.high - self.low
    if math.isfinite(width) and width > 0:
      return max(0, min(1 - math.floor(math.log10(width)), 3 - size))
    return max(0, 2 - size)

  def shown(self, digits: str) -> str:
    """Returns it as text, with a format's digits; one seed has no interval."""
    value, low, high = (_number(x, digits) for x in self)
    return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


def _number(value: float, digits: str) -> str:
  """Returns a number with a format's digits; zero has no sign."""
  text = f"{value:{digits}}"
  return text if text.strip("-0.,%") else text.removeprefix("-")


def _mean(scores: np.ndarray) -> float:
  return float(np.mean(scores))


def _optimality_gap(scores: np.ndarray) -> float:
  return float(metrics.aggregate_optimality_gap(scores))


# What is said of an agent over tasks, in the order in which it is shown.
AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
  "interquartile mean": lambda x: float(metrics.aggregate_iqm(x)),
  # Of the tasks' means over seeds, as the papers have it.
  "median": lambda x: float(metrics.aggregate_median(x)),
  "mean": _mean,
  "optimality gap": _optimality_gap,
}


def _intervals(
  scores: Mapping[str, np.ndarray | tuple[np.ndarray, np.ndarray]],
  statistic: Callable[..., np.ndarray],
  samples: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns point estimates [K] and 95% intervals [2, K] by name.

  The bootstrap is stratified: seeds are drawn for each task apart. It gives the
  same intervals each time.
  """
  # rliable draws from NumPy's global generator, whatever it is given.
  state = np.random.get_state()
  np.random.seed(0)
  try:
    return library.get_interval_estimates(
      dict(scores), statistic, reps=samples
    )
  finally:
    np.random.set_state(state)


def _estimate(
  values: np.ndarray, intervals: np.ndarray, index: int = 0
) -> Estimate:
  low, high = intervals[:, index]
  return Estimate(float(values[index]), float(low), float(high))


def aggregate(
  scores: Mapping[str, np.ndarray], samples: int = _SAMPLES
) -> dict[str, dict[str, Estimate]]:
  """Returns the `AGGREGATES` of agents, with their intervals.

  Args:
    scores: [seeds, tasks] of each agent.
    samples: of the bootstrap.

  Returns:
    Agent -> name of an aggregate -> estimate.
  """
  values, intervals = _intervals(
    scores,
    lambda x: np.array([aggregate(x) for aggregate in AGGREGATES.values()]),
    samples,
  )
  return {
    agent: {
      name: _estimate(values[agent], intervals[agent], i)
      for i, name in enumerate(AGGREGATES)
    }
    for agent in scores
  }


def mean_interval(values: np.ndarray, samples: int = _SAMPLES) -> Estimate:
  """Returns the mean of one task's seeds, [seeds], with its interval."""
  values = np.asarray(values, float)
  if len(values) < 2:
    value = float(values.mean()) if len(values) else float("nan")
    return Estimate(value, float("nan"), float("nan"))
  points, intervals = _intervals(
    {"": values[:, None]}, lambda x: np.array([_mean(x)]), samples
  )
  return _estimate(points[""], intervals[""])


def curve_intervals(
  values: np.ndarray, samples: int = 500
) -> tuple[np.ndarray, np.ndarray]:
  """Returns means over seeds [K] and their intervals [2, K].

  Args:
    values: [seeds, tasks, K], scores at K points of training. The mean is one
      over tasks as well.
    samples: of the bootstrap.
  """
  points, intervals = _intervals(
    {"": values}, lambda x: np.mean(x, axis=(0, 1)), samples
  )
  return points[""], intervals[""]


def performance_profile(
  scores: Mapping[str, np.ndarray], thresholds: np.ndarray, samples: int = 500
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns the shares of runs with a score above each threshold.

  Args:
    scores: [seeds, tasks] of each agent.
    thresholds: [K].
    samples: of the bootstrap.

  Returns:
    By agent the shares [K] and their intervals [2, K].
  """
  return _intervals(
    scores,
    functools.partial(_shares_above, thresholds=thresholds),
    samples,
  )


def _shares_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
  return library.score_distributions(scores, thresholds)


def probability_of_improvement(
  scores: Mapping[str, np.ndarray], baseline: str, samples: int = _SAMPLES
) -> dict[str, Estimate]:
  """Returns how probable it is that a run of an agent beats the baseline's.

  On a task chosen at random, with ties counted as half.

  Args:
    scores: [seeds, tasks] of each agent.
    baseline: one of them.
    samples: of the bootstrap.

  Returns:
    The estimates of the other agents.
  """
  pairs = {
    agent: (mine, scores[baseline])
    for agent, mine in scores.items()
    if agent != baseline
  }
  values, intervals = _intervals(
    pairs,
    lambda x, y: np.array([metrics.probability_of_improvement(x, y)]),
    samples,
  )
  return {agent: _estimate(values[agent], intervals[agent]) for agent in pairs}


def relative_improvement(
  mine: np.ndarray, theirs: np.ndarray, samples: int = _SAMPLES
) -> Estimate:
  """Returns by how many per cent one mean is above another, of |the other|.

  Args:
    mine: [seeds] of an agent on one task.
    theirs: [seeds] of the baseline.
    samples: of the bootstrap.
  """

  def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    theirs = np.mean(y)
    return np.array([100 * (np.mean(x) - theirs) / max(abs(theirs), 1e-9)])

  if min(len(mine), len(theirs)) < 2:
    value = float(improvement(mine, theirs)[0])
    return Estimate(value, float("nan"), float("nan"))
  values, intervals = _intervals(
    {"": (mine[:, None], theirs[:, None])}, improvement, samples
  )
  return _estimate(values[""], intervals[""])
