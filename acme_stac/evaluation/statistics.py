"""Estimates over seeds and tasks by rliable (Agarwal et al., 2021).

Every interval of this project, in reports, tables of sweeps and evaluations, is
a 95% percentile bootstrap interval, stratified by task, from a fixed seed. It
never leaves the range of the seeds, and is too narrow for fewer than about ten.
A single seed has no interval.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rliable import library, metrics

# Bootstrap samples: the second digit of an interval depends on them.
_SAMPLES = 2000
_CURVE_SAMPLES = 500
_SEED = 0
# Columns of `average_over_seeds`.
_RETURNS = ("evaluation", "final_return", "mean_return")


class Estimate(NamedTuple):
  """A number with its 95% interval.

  Attributes:
    value: point estimate.
    low: lower end of the interval; NaN if there is none.
    high: upper end.
  """

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    return self.shown(f",.{self._decimals()}f")

  def _decimals(self) -> int:
    """Returns the number of decimals that the interval supports.

    These are two digits of the interval's width, or three digits of a value
    without an interval, and at most four digits of the largest number.
    """
    finite = [abs(x) for x in self if math.isfinite(x)]
    if not finite or not max(finite):
      return 0
    size = math.floor(math.log10(max(finite)))
    width = self.high - self.low
    if math.isfinite(width) and width > 0:
      return max(0, min(1 - math.floor(math.log10(width)), 3 - size))
    return max(0, 2 - size)

  def shown(self, spec: str) -> str:
    """Returns "value [low, high]" in a format such as ".1%"."""
    # "z" (no sign on zero) needs Python 3.11.
    value, low, high = (
      text if (text := format(x, spec)).strip("-0.,%") else text.lstrip("-")
      for x in self
    )
    return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


class Curves(NamedTuple):
  """Estimates at K points, by name.

  Attributes:
    values: [K] point estimates of each name.
    intervals: [2, K] ends of the 95% intervals of each name.
  """

  values: dict[str, np.ndarray]
  intervals: dict[str, np.ndarray]

  def at(self, name: str, index: int = 0) -> Estimate:
    """Returns the estimate of one name at one point."""
    low, high = self.intervals[name][:, index]
    return Estimate(float(self.values[name][index]), float(low), float(high))


# Aggregates over seeds and tasks, in the order in which reports show them.
AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
  "interquartile mean": metrics.aggregate_iqm,
  # Over tasks of the means over seeds, as in the papers.
  "median": metrics.aggregate_median,
  "mean": np.mean,
  "optimality gap": metrics.aggregate_optimality_gap,
}


def _bootstrap(
  scores: Mapping[str, np.ndarray | tuple[np.ndarray, np.ndarray]],
  statistic: Callable[..., np.ndarray],
  samples: int,
) -> Curves:
  """Returns a statistic's estimates; seeds are resampled per task."""
  # rliable 1.2 ignores its `random_state` and draws from NumPy's global
  # generator, which is seeded for it and then restored.
  state = np.random.get_state()
  np.random.seed(_SEED)
  try:
    return Curves(
      *library.get_interval_estimates(dict(scores), statistic, reps=samples)
    )
  finally:
    np.random.set_state(state)


def aggregate(
  scores: Mapping[str, np.ndarray], samples: int = _SAMPLES
) -> dict[str, dict[str, Estimate]]:
  """Estimates the `AGGREGATES` of each agent.

  Args:
    scores: normalised scores of each agent, [seeds, tasks].
    samples: bootstrap samples.

  Returns:
    Agent -> name of the aggregate -> estimate.
  """
  found = _bootstrap(
    scores,
    lambda x: np.array([function(x) for function in AGGREGATES.values()]),
    samples,
  )
  return {
    agent: {name: found.at(agent, i) for i, name in enumerate(AGGREGATES)}
    for agent in scores
  }


def mean_interval(values: Any, samples: int = _SAMPLES) -> Estimate:
  """Estimates the mean over seeds, [seeds], of one task."""
  values = np.asarray(values, float)
  if len(values) < 2:
    return _alone(values.mean() if len(values) else math.nan)
  return _bootstrap(
    {"": values[:, None]}, lambda x: np.array([x.mean()]), samples
  ).at("")


def _alone(value: float) -> Estimate:
  return Estimate(float(value), math.nan, math.nan)


def mean_curves(
  scores: Mapping[str, np.ndarray], samples: int = _CURVE_SAMPLES
) -> Curves:
  """Estimates means over seeds and tasks at K points of training.

  Args:
    scores: of each agent, [seeds, tasks, K].
    samples: bootstrap samples.
  """
  return _bootstrap(scores, lambda x: x.mean(axis=(0, 1)), samples)


def performance_profiles(
  scores: Mapping[str, np.ndarray],
  thresholds: np.ndarray,
  samples: int = _CURVE_SAMPLES,
) -> Curves:
  """Estimates the share of runs that score above each threshold.

  Args:
    scores: normalised scores of each agent, [seeds, tasks].
    thresholds: [K].
    samples: bootstrap samples.
  """
  return _bootstrap(
    scores,
    lambda x: (x[..., None] > thresholds).mean(axis=(0, 1)),
    samples,
  )


def probability_of_improvement(
  scores: Mapping[str, np.ndarray], baseline: str, samples: int = _SAMPLES
) -> dict[str, Estimate]:
  """Estimates P(a run's score > one of the baseline's) on a random task.

  A tie counts one half.

  Args:
    scores: normalised scores of each agent, [seeds, tasks].
    baseline: one of the agents.
    samples: bootstrap samples.

  Returns:
    An estimate for each other agent.
  """
  pairs = {
    agent: (mine, scores[baseline])
    for agent, mine in scores.items()
    if agent != baseline
  }
  found = _bootstrap(
    # As metrics.probability_of_improvement, whose U tests take 100 times as
    # long.
    pairs, lambda x, y: np.array([0.5 + np.sign(x[:, None] - y).mean() / 2]),
    samples,
  )
  return {agent: found.at(agent) for agent in pairs}


def relative_improvement(
  mine: np.ndarray, theirs: np.ndarray, samples: int = _SAMPLES
) -> Estimate:
  """Estimates 100 · (mean(mine) − mean(theirs)) / |mean(theirs)|, in %.

  Args:
    mine: scores of an agent on one task, [seeds].
    theirs: scores of the baseline, [seeds].
    samples: bootstrap samples.
  """

  def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = y.mean()
    return np.array([100 * (x.mean() - base) / max(abs(base), 1e-9)])

  if min(len(mine), len(theirs)) < 2:
    return _alone(improvement(mine, theirs)[0])
  return _bootstrap(
    {"": (mine[:, None], theirs[:, None])}, improvement, samples
  ).at("")


def average_over_seeds(
  rows: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
  """Averages the runs whose names differ only in the last part.

  Args:
    rows: name of a run, such as "cartpole/stac/3", -> `summary.summarise_run`.

  Returns:
    A row for each group: its name, the number of runs and, of every kind of
    return, the mean and the ends of its interval.
  """
  table = pd.DataFrame.from_dict(rows, orient="index")
  return [
    {"group": group, "runs": len(members), **_averages(members)}
    for group, members in table.groupby(
      lambda name: name.rpartition("/")[0], sort=False
    )
  ]


def _averages(members: pd.DataFrame) -> dict[str, float]:
  estimates: Iterable[tuple[str, Estimate]] = (
    (name, mean_interval(members[name])) for name in _RETURNS
  )
  return {
    key: number
    for name, (value, low, high) in estimates
    for key, number in (
      (name, value), (f"{name}_low", low), (f"{name}_high", high)
    )
  }
