"""Rows of figures about runs, from their logs, and means over seeds."""

import csv
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from acme_stac.evaluation import plots


def _whole(number: float) -> int:
  """Returns a count; 0 for one that is not in the log."""
  return int(number) if math.isfinite(number) else 0


def mean_over_steps(steps: np.ndarray, returns: np.ndarray) -> float:
  """Returns the mean of a curve from its first known value to its last.

  Rows of a log are apart by time: their mean would be one over time.
  """
  known = np.isfinite(returns)
  if known.sum() < 2:
    return float(returns[known][0]) if known.any() else math.nan
  x, y = steps[known], returns[known]
  return float(np.trapz(y, x) / (x[-1] - x[0]))


def summarise_run(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what the logs of a work directory say of a run.

  Keys:
    environment_steps, learner_steps: how far it is.
    evaluation: mean return of the last evaluation.
    final_return: mean return of the last 100 training episodes.
    mean_return: mean of that over the run's steps, the area under its learning
      curve.
    steps_per_second: median over the rows of the log.
    skipped_updates: updates that were not finite.
    dropped_trajectories: that the learner could not use, since it was started.
    largest_change: largest |η − η₀| of any metaparameter, in logits, at the end
      or anywhere before; nan if none is tuned.
    smallest_sigma, largest_sigma: range of all metaparameters over the run.
    largest_value_loss: of any head in any row; a head that diverges shows here.
    finite: whether every loss was finite in every row.
  """
  learner = plots.read_log(workdir / "logs" / "learner.csv", "learner_steps")
  evaluator = plots.read_log(
    workdir / "logs" / "evaluator.csv", "learner_steps"
  )
  if not learner:
    return {}

  def last(columns: plots.Columns, name: str) -> float:
    return float(columns[name][-1]) if name in columns else math.nan

  sigmas = [v for name, v in learner.items() if name.startswith("sigma_")]
  returns = learner.get("episode_return", np.array([math.nan]))
  losses = {name: v for name, v in learner.items() if "_loss" in name}
  summary = {
    "environment_steps": int(last(learner, "environment_steps")),
    "learner_steps": int(last(learner, "learner_steps")),
    "evaluation": last(evaluator, "episode_return_mean"),
    "final_return": float(returns[-1]),
    "mean_return": mean_over_steps(learner["environment_steps"], returns),
    "steps_per_second": float(
      np.median(learner["environment_steps_per_second"])
    ),
    "skipped_updates": _whole(last(learner, "skipped_updates")),
    "dropped_trajectories": _whole(last(learner, "dropped_trajectories")),
    "largest_value_loss": max(
      float(v.max())
      for name, v in losses.items()
      if name.startswith("value_loss_")
    ),
    "finite": bool(all(np.isfinite(loss).all() for loss in losses.values())),
  }
  if sigmas:
    changes = [np.abs(_logit(v) - _logit(v[:1])) for v in sigmas]
    summary.update(
      largest_change=float(max(change.max() for change in changes)),
      smallest_sigma=float(min(v.min() for v in sigmas)),
      largest_sigma=float(max(v.max() for v in sigmas)),
    )
  return summary


def average_over_seeds(
  rows: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
  """Returns means over the runs whose names differ in the last part alone.

  Args:
    rows: name of a run, such as "cartpole/stac/3", -> its `summarise_run`.

  Returns:
    For each group the number of runs and, of every kind of return, the mean and
    the half-width of its 95% interval (Student's t).
  """
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for name, row in rows.items():
    groups.setdefault(name.rpartition("/")[0], []).append(row)
  averages = []
  for group, members in groups.items():
    average: dict[str, Any] = {"group": group, "runs": len(members)}
    for name in ("evaluation", "final_return", "mean_return"):
      values = np.array([member[name] for member in members])
      average[name] = float(np.mean(values))
      average[f"{name}_interval"] = (
        float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
        if len(values) > 1
        else math.nan
      )
    averages.append(average)
  return averages


def _logit(probability: np.ndarray) -> np.ndarray:
  inside = np.clip(probability, 1e-6, 1 - 1e-6)
  return np.log(inside / (1 - inside))


def write_csv(
  path: pathlib.Path, rows: Sequence[Mapping[str, Any]]
) -> pathlib.Path:
  """Writes rows with the columns that any of them has; returns the path."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  with open(plots.regular(path), "w", newline="") as file:
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
  return path
