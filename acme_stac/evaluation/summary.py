"""Summarises the logs of a run as one row of figures."""

import json
import math
import pathlib
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, special

from acme_stac.evaluation import logs


def mean_over_steps(steps: np.ndarray, returns: np.ndarray) -> float:
  """Returns the mean of a curve over steps, between its finite values.

  Rows of a log are equally spaced in time rather than in steps, so their plain
  mean would weight steps by the time that they took.
  """
  known = np.isfinite(returns)
  if known.sum() < 2:
    return float(returns[known][0]) if known.any() else math.nan
  x, y = steps[known], returns[known]
  return float(integrate.trapezoid(y, x) / (x[-1] - x[0]))


def summarise_run(workdir: pathlib.Path) -> dict[str, Any]:
  """Summarises the logs of a work directory; {} if there is none yet.

  Keys:
    environment_steps, learner_steps: so far.
    evaluation: mean return of the last evaluation.
    final_return: mean return of the last 100 training episodes.
    mean_return: mean of the learning curve over environment steps.
    steps_per_second: median over the rows of the log.
    runs_side_by_side: most runs that shared a program and thereby its time;
      exists only if several did.
    skipped_updates: number of updates skipped because they were not finite.
    dropped_trajectories: number of trajectories that the learner dropped since
      its last start, because they were not finite.
    largest_change: largest |η − η₀| of any metaparameter and row, in logits.
      This and the next two exist only if something is self-tuned.
    smallest_sigma, largest_sigma: range of σ(η) over all metaparameters.
    largest_value_loss: largest value loss of any head and row, which shows a
      diverging head.
    finite: whether every loss was finite in every row.

  Raises:
    OSError: if a log cannot be read.
    KeyError: if a log has no such columns.
  """
  learner = logs.read_learner(workdir)
  if learner.empty:
    return {}
  evaluator = logs.read_evaluator(workdir)
  last = learner.iloc[-1]
  returns = learner.get("episode_return", pd.Series([math.nan] * len(learner)))
  summary = {
    "environment_steps": int(last["environment_steps"]),
    "learner_steps": int(last["learner_steps"]),
    "evaluation": math.nan if evaluator.empty else float(
      evaluator["episode_return_mean"].iloc[-1]
    ),
    "final_return": float(returns.iloc[-1]),
    "mean_return": mean_over_steps(
      learner["environment_steps"].to_numpy(), returns.to_numpy()
    ),
    "steps_per_second": float(learner["environment_steps_per_second"].median()),
    **{
      name: int(np.nan_to_num(last.get(name, 0)))
      for name in ("skipped_updates", "dropped_trajectories")
    },
    "largest_value_loss": float(
      learner.filter(regex="^value_loss_").to_numpy().max()
    ),
    "finite": bool(np.isfinite(learner.filter(like="_loss")).all(axis=None)),
  }
  if logs.RUNS_SIDE_BY_SIDE in learner:
    most = learner[logs.RUNS_SIDE_BY_SIDE].fillna(1).max()
    summary[logs.RUNS_SIDE_BY_SIDE] = int(most)
  values = learner.filter(regex="^sigma_")
  if values.size:
    sigmas = values.to_numpy() / _factors(workdir, values)
    logits = special.logit(sigmas.clip(1e-6, 1 - 1e-6))
    summary |= {
      "largest_change": float(np.abs(logits - logits[0]).max()),
      "smallest_sigma": float(sigmas.min()),
      "largest_sigma": float(sigmas.max()),
    }
  return summary


def _factors(workdir: pathlib.Path, values: pd.DataFrame) -> np.ndarray:
  """Returns what a log's columns of metaparameters are multiples of σ(η) by."""
  try:
    run = json.loads(logs.read_text(workdir / "config.json"))
    is_doubled = run["config"]["metaparameter_range"] == "double"
  except (OSError, ValueError, KeyError, TypeError):
    is_doubled = False  # A log alone, or of an old version.
  weights = values.columns.str.contains("_cost_head")
  return np.where(is_doubled & weights, 2.0, 1.0)
