import csv
import math

import numpy as np
import pytest

from acme_stac.evaluation import summary


def write(path, rows):
  path.parent.mkdir(exist_ok=True)
  with open(path, "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)


def learner_row(step, sigma, episode_return, loss=1.0):
  return {
    "learner_steps": step,
    "environment_steps": 10 * step,
    "environment_steps_per_second": 100.0 + step,
    "episode_return": episode_return,
    "skipped_updates": 0,
    "dropped_trajectories": 0,
    "value_loss_head0": loss,
    "sigma_discount_head0": sigma,
    "sigma_alpha_head0": 0.9,
  }


def test_summary_of_a_run(tmp_path):
  write(
    tmp_path / "logs" / "learner.csv",
    [
      learner_row(1, 0.5, "nan"),
      learner_row(2, 1 / (1 + math.exp(2.0)), 10.0, loss=7.0),
      learner_row(3, 0.6, 20.0),
    ],
  )
  found = summary.summarise_run(tmp_path)
  assert found["environment_steps"] == 30
  assert found["final_return"] == 20.0
  assert found["mean_return"] == 15.0
  assert found["steps_per_second"] == 102.0
  assert found["finite"]
  assert found["largest_value_loss"] == 7.0
  # Two logits away from the start in the middle of the run.
  np.testing.assert_allclose(found["largest_change"], 2.0, rtol=1e-6)
  assert found["largest_sigma"] == 0.9
  assert math.isnan(found["evaluation"])
  write(
    tmp_path / "logs" / "learner.csv", [learner_row(1, 0.5, 1.0, loss="inf")]
  )
  assert not summary.summarise_run(tmp_path)["finite"]
  assert summary.summarise_run(tmp_path / "nothing") == {}


def test_doubled_weights_are_no_further_from_their_start(tmp_path):
  """2σ(η) of a loss weight starts at 1, where η is 0."""
  rows = [learner_row(step, 0.5, 1.0) for step in (1, 2)]
  for row, eta in zip(rows, (0.0, 0.7), strict=True):
    row["sigma_value_cost_head0"] = 2 / (1 + math.exp(-eta))
  write(tmp_path / "logs" / "learner.csv", rows)
  (tmp_path / "config.json").write_text(
    '{"config": {"metaparameter_range": "double"}}'
  )
  found = summary.summarise_run(tmp_path)
  np.testing.assert_allclose(found["largest_change"], 0.7, rtol=1e-6)


def test_mean_return_is_one_over_steps_not_over_rows(tmp_path):
  rows = [learner_row(1, 0.5, 0.0), learner_row(2, 0.5, 10.0),
          learner_row(11, 0.5, 10.0)]
  write(tmp_path / "logs" / "learner.csv", rows)
  # From 0 to 10 over a tenth of the steps, 10 over the others.
  assert summary.summarise_run(tmp_path)["mean_return"] == pytest.approx(9.5)
