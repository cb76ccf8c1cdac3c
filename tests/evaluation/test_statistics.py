import math

import numpy as np
import pytest
from rliable import metrics
from scipy import stats

from acme_stac.evaluation import statistics


@pytest.fixture
def scores():
  rng = np.random.default_rng(0)
  return {
    "impala": rng.normal(0.4, 0.2, (6, 4)),
    "stac": rng.normal(0.6, 0.2, (5, 4)),
  }


def test_aggregates_are_what_they_are_called(scores):
  estimates = statistics.aggregate(scores)
  for agent, values in scores.items():
    found = estimates[agent]
    assert found["interquartile mean"].value == pytest.approx(
      stats.trim_mean(values, 0.25, axis=None)
    )
    assert found["median"].value == pytest.approx(
      np.median(values.mean(axis=0))
    )
    assert found["mean"].value == pytest.approx(values.mean())
    assert found["optimality gap"].value == pytest.approx(
      np.maximum(1.0 - values, 0.0).mean()
    )
    for estimate in found.values():
      assert estimate.low < estimate.value < estimate.high


def test_intervals_are_those_of_a_mean():
  values = np.random.default_rng(1).normal(3.0, 2.0, 400)
  value, low, high = statistics.mean_interval(values)
  assert value == pytest.approx(values.mean())
  expected = stats.norm.interval(0.95, values.mean(), stats.sem(values))
  np.testing.assert_allclose((low, high), expected, atol=0.03)
  # The same each time, and nobody else's random numbers change.
  np.random.seed(5)
  assert statistics.mean_interval(values) == (value, low, high)
  assert np.random.rand() == np.random.RandomState(5).rand()


def test_seeds_are_drawn_for_each_task_apart():
  # Without stratification tasks' differences would widen the interval.
  values = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
  estimate = statistics.aggregate({"": values})[""]["mean"]
  assert estimate == (0.5, 0.5, 0.5)


def test_one_seed_has_no_interval():
  value, low, high = statistics.mean_interval(np.array([2.0]))
  assert value == 2.0 and np.isnan([low, high]).all()
  assert str(statistics.Estimate(value, low, high)) == "2.00"
  assert np.isnan(statistics.mean_interval(np.array([])).value)


def test_curves_are_means_over_seeds_and_tasks(scores):
  values = np.stack([scores["stac"], scores["stac"] + 1.0], axis=-1)
  found = statistics.mean_curves({"stac": values})
  np.testing.assert_allclose(found.values["stac"], values.mean(axis=(0, 1)))
  low, high = found.intervals["stac"]
  np.testing.assert_allclose(low[1] - low[0], 1.0, atol=0.02)
  assert (low < found.values["stac"]).all()
  assert (found.values["stac"] < high).all()


def test_profiles_are_shares_of_runs(scores):
  thresholds = np.array([-1.0, 0.5, 2.0])
  found = statistics.performance_profiles(scores, thresholds)
  for agent, values in scores.items():
    np.testing.assert_allclose(
      found.values[agent], [1.0, (values > 0.5).mean(), 0.0]
    )
    assert found.intervals[agent].shape == (2, 3)


def test_probability_of_improvement_is_that_of_rliable(scores):
  # A tie counts one half.
  scores["stac"][0] = scores["impala"][0]
  found = statistics.probability_of_improvement(scores, "impala")
  assert list(found) == ["stac"]
  value, low, high = found["stac"]
  assert value == pytest.approx(
    metrics.probability_of_improvement(scores["stac"], scores["impala"])
  )
  assert low < value < high


def test_relative_improvement():
  value, low, high = statistics.relative_improvement(
    np.array([3.0, 5.0]), np.array([-2.0, -2.0])
  )
  assert value == pytest.approx(300.0)
  assert (low, high) == pytest.approx((250.0, 350.0))
  alone = statistics.relative_improvement(np.array([1.0]), np.array([2.0]))
  assert alone.value == -50.0 and np.isnan(alone.low)


@pytest.mark.parametrize(("estimate", "text"), [
  ((3080.4, 3069.6, 3100.0), "3,080 [3,070, 3,100]"),
  ((412.3, 282.477, 500.0), "412 [282, 500]"),
  ((0.12345, -0.1, 1.0), "0.1 [-0.1, 1.0]"),
  ((0.996, 0.9882, 1.0), "0.996 [0.988, 1.000]"),
  ((2.0, 1.234, 3.0), "2.0 [1.2, 3.0]"),
  ((-0.001, -0.2, 0.1), "0.00 [-0.20, 0.10]"),
  ((1.0, 1.0, 1.0), "1.00 [1.00, 1.00]"),
  ((0.0, 0.0, 0.0), "0 [0, 0]"),
  ((412.3, 412.2999, 412.3001), "412.3 [412.3, 412.3]"),
  ((216.4, math.nan, math.nan), "216"),
  ((12345.678, math.nan, math.nan), "12,346"),
])
def test_an_estimate_has_the_digits_that_its_interval_allows(estimate, text):
  assert str(statistics.Estimate(*estimate)) == text


def test_intervals_stay_in_the_range_of_the_seeds():
  values = np.array([500.0, 500.0, 500.0, 90.0])
  _, low, high = statistics.mean_interval(values)
  assert 90.0 <= low < high <= 500.0


def test_sweeps_have_the_intervals_of_reports():
  rows = {
    f"task/agent/{seed}": {
      "evaluation": value, "final_return": value, "mean_return": 1.0
    }
    for seed, value in enumerate([1.0, 2.0, 3.0])
  }
  rows["task/other/0"] = rows["task/agent/0"]
  first, second = statistics.average_over_seeds(rows)
  assert (first["group"], first["runs"]) == ("task/agent", 3)
  expected = statistics.mean_interval([1.0, 2.0, 3.0])
  assert expected == (
    first["evaluation"], first["evaluation_low"], first["evaluation_high"]
  )
  assert second["evaluation"] == 1.0
  assert math.isnan(second["evaluation_low"])


def test_agents_of_a_sweep_are_not_averaged_as_if_they_were_seeds():
  row = {"evaluation": 1.0, "final_return": 1.0, "mean_return": 1.0}
  names = ["cartpole/impala", "cartpole/stacx", "stac"]
  averages = statistics.average_over_seeds(dict.fromkeys(names, row))
  assert [(row["group"], row["runs"]) for row in averages] == [
    (name, 1) for name in names
  ]
