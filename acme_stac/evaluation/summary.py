"""One row of figures about a run, from its logs."""

import math
import pathlib
from typing import Any

import numpy as np

from acme_stac.evaluation import plots


def summarise_run(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what the logs of a work directory say of a run.

  Keys:
    environment_steps, learner_steps: how far it is.
    evaluation: mean return of the last evaluation.
    final_return: mean return of the last 100 training episodes.
    mean_return: mean of that over the run, the area under its learning curve.
    steps_per_second: median over the rows of the log.
    skipped_updates: updates that were not finite.
    largest_change: largest |η − η₀| of any metaparameter, in logits, at the end
      or anywhere before; nan if none is tuned.
    smallest_sigma, largest_sigma: range of all metaparameters over the run.
    finite: whether losses and parameters' norms were finite in every row.
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
  losses = [v for name, v in learner.items() if "_loss" in name]
  summary = {
    "environment_steps": int(last(learner, "environment_steps")),
    "learner_steps": int(last(learner, "learner_steps")),
    "evaluation": last(evaluator, "episode_return_mean"),
    "final_return": float(returns[-1]),
    "mean_return": float(np.nanmean(returns))
    if np.isfinite(returns).any()
    else math.nan,
    "steps_per_second": float(
      np.median(learner["environment_steps_per_second"])
    ),
    "skipped_updates": int(last(learner, "skipped_updates")),
    "finite": bool(all(np.isfinite(loss).all() for loss in losses)),
  }
  if sigmas:
    changes = [np.abs(_logit(v) - _logit(v[:1])) for v in sigmas]
    summary.update(
      largest_change=float(max(change.max() for change in changes)),
      smallest_sigma=float(min(v.min() for v in sigmas)),
      largest_sigma=float(max(v.max() for v in sigmas)),
    )
  return summary


def _logit(probability: np.ndarray) -> np.ndarray:
  inside = np.clip(probability, 1e-6, 1 - 1e-6)
  return np.log(inside / (1 - inside))
