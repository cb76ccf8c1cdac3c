"""Point estimates and 95% intervals over seeds and tasks.

Every interval of this project, in reports, tables of sweeps and evaluations, is
a percentile bootstrap interval, stratified by task (Agarwal et al., 2021), from
a fixed seed. It never leaves the range of the seeds, and is too narrow for
fewer than about ten. A single seed has no interval.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rliable import metrics

# Numbers of bootstrap samples. With fewer, the second digit of an interval is
# noise.
_SAMPLES = 2000
_CURVE_SAMPLES = 500
_SEED = 0
# Probability on each side of an interval.
_TAIL = (1 - 0.95) / 2
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
    """Returns the number of decimals that the interval justifies.

    Shows two digits of the interval's width, or three digits of a value without
    an interval, and at most four digits of the largest number.
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
  # The median over tasks of the means over seeds, as in the papers.
  "median": metrics.aggregate_median,
  "mean": np.mean,
  "optimality gap": metrics.aggregate_optimality_gap,
}


def _bootstrap(
  scores: Mapping[str, tuple[np.ndarray, ...]],
  statistic: Callable[..., Any],
  samples: int = _SAMPLES,
) -> Curves:
  """Estimates a statistic of each entry, with its seeds resampled per task.

  The same as rliable's get_interval_estimates, whose dependency `arch` does not
  work with pandas 3, and which cannot be seeded.

  Args:
    scores: name -> arguments of the statistic, each [seeds, tasks, ...].
    statistic: returns a number, or an array [K].
    samples: number of bootstrap samples.
  """
  random = np.random.RandomState(_SEED)
  found = Curves({}, {})
  for name, arrays in scores.items():
    # Indices of the other axes: every place has its seeds resampled apart.
    places = [tuple(np.ogrid[tuple(map(slice, x.shape))])[1:] for x in arrays]
    resampled = [
      statistic(*[
        x[(random.randint(len(x), size=x.shape),) + others]
        for x, others in zip(arrays, places, strict=True)
      ])
      for _ in range(samples)
    ]
    found.values[name] = np.atleast_1d(statistic(*arrays))
    found.intervals[name] = np.percentile(
      resampled, (100 * _TAIL, 100 * (1 - _TAIL)), axis=0
    ).reshape(2, -1)
  return found


def aggregate(
  scores: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Estimate]]:
  """Estimates the `AGGREGATES` of each agent.

  Args:
    scores: normalised scores of each agent, [seeds, tasks].

  Returns:
    Agent -> name of the aggregate -> estimate.
  """
  found = _bootstrap(
    {agent: (values,) for agent, values in scores.items()},
    lambda x: [function(x) for function in AGGREGATES.values()],
  )
  return {
    agent: {name: found.at(agent, i) for i, name in enumerate(AGGREGATES)}
    for agent in scores
  }


def mean_interval(values: Any) -> Estimate:
  """Estimates the mean over seeds, [seeds], of one task."""
  values = np.asarray(values, float)
  if len(values) < 2:
    mean = float(values.mean()) if len(values) else math.nan
    return Estimate(mean, math.nan, math.nan)
  return _bootstrap({"": (values[:, None],)}, lambda x: x.mean()).at("")


def mean_curves(scores: Mapping[str, np.ndarray]) -> Curves:
  """Estimates means over seeds and tasks at K points of training.

  Args:
    scores: of each agent, [seeds, tasks, K].
  """
  return _bootstrap(
    {agent: (values,) for agent, values in scores.items()},
    lambda x: x.mean(axis=(0, 1)), _CURVE_SAMPLES,
  )


def performance_profiles(
  scores: Mapping[str, np.ndarray], thresholds: np.ndarray
) -> Curves:
  """Estimates the share of runs that score above each threshold.

  Args:
    scores: normalised scores of each agent, [seeds, tasks].
    thresholds: [K].
  """
  return _bootstrap(
    {agent: (values,) for agent, values in scores.items()},
    lambda x: (x[..., None] > thresholds).mean(axis=(0, 1)), _CURVE_SAMPLES,
  )


def probability_of_improvement(
  scores: Mapping[str, np.ndarray], baseline: str
) -> dict[str, Estimate]:
  """Estimates P(a run's score > one of the baseline's) on a random task.

  A tie counts one half. Equals metrics.probability_of_improvement, whose U
  tests take 100 times as long.

  Args:
    scores: normalised scores of each agent, [seeds, tasks].
    baseline: one of the agents.

  Returns:
    An estimate for each other agent.
  """
  pairs = {
    agent: (mine, scores[baseline])
    for agent, mine in scores.items() if agent != baseline
  }
  found = _bootstrap(
    pairs, lambda x, y: 0.5 + np.sign(x[:, None] - y).mean() / 2
  )
  return {agent: found.at(agent) for agent in pairs}


def relative_improvement(mine: np.ndarray, theirs: np.ndarray) -> Estimate:
  """Estimates 100 · (mean(mine) − mean(theirs)) / |mean(theirs)|, in %.

  Args:
    mine: scores of an agent on one task, [seeds].
    theirs: scores of the baseline, [seeds].
  """

  def improvement(x: np.ndarray, y: np.ndarray) -> float:
    return 100 * (x.mean() - y.mean()) / max(abs(y.mean()), 1e-9)

  if min(len(mine), len(theirs)) < 2:
    return Estimate(improvement(mine, theirs), math.nan, math.nan)
  return _bootstrap({"": (mine[:, None], theirs[:, None])}, improvement).at("")


def average_over_seeds(
  rows: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
  """Averages the runs whose names differ only in the seed.

  Args:
    rows: name of a run -> `summary.summarise_run`. The last part of a name is a
      seed if it is a number, as in "cartpole/stac/3".

  Returns:
    A row for each group: its name, the number of runs and, for every kind of
    return, the mean and the ends of its interval.
  """
  table = pd.DataFrame.from_dict(rows, orient="index")
  averages = []
  for group, members in table.groupby(_without_seed, sort=False):
    row = {"group": group, "runs": len(members)}
    for name in _RETURNS:
      value, low, high = mean_interval(members[name])
      row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    averages.append(row)
  return averages


def _without_seed(name: str) -> str:
  group, _, last = name.rpartition("/")
  return group if last.isdecimal() else name
