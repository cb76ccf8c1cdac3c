"""Plots of a work directory (learning, metaparameters, ...) and of a sweep."""

import csv
import pathlib
import re
from collections.abc import Iterable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

Columns = dict[str, np.ndarray]

_SIGMA = re.compile(r"sigma_(.+)_head(\d+)")
# How the papers write them.
SYMBOLS = {
  "discount": "γ",
  "lambda_": "λ",
  "value_cost": "g_v / outer g_v",
  "policy_cost": "g_p / outer g_p",
  "entropy_cost": "g_e / outer g_e",
  "alpha": "α",
  "alpha_rho": "α_ρ",
  "alpha_c": "α_c",
  "clip_threshold": "ρ̄ = c̄ / outer ρ̄",
}
_EPISODE_WINDOW = 100


def read_log(path: pathlib.Path, step: str | None = None) -> Columns:
  """Reads a log as columns of floats; text becomes NaN.

  Args:
    path: a CSV file; none or an empty one gives no columns.
    step: a column that grows. Where it falls back, a run was resumed from an
      older checkpoint, and the rows that were repeated are left out.
  """
  if not path.exists():
    return {}
  with open(path, newline="") as file:
    # A row may be half written, where a process was killed or the disk full.
    rows = [
      row
      for row in csv.DictReader(file)
      if None not in row and None not in row.values()
      and (step is None or np.isfinite(number(row[step])))
    ]
  if step is not None:
    kept: list[dict[str, str]] = []
    for row in rows:
      while kept and float(kept[-1][step]) >= float(row[step]):
        kept.pop()
      kept.append(row)
    rows = kept
  if not rows:
    return {}
  return {name: np.array([number(r[name]) for r in rows]) for name in rows[0]}


def number(text: str) -> float:
  """Returns a number, or a truth value as one; NaN for other text."""
  try:
    return {"True": 1.0, "False": 0.0}[text] if text.isalpha() else float(text)
  except (KeyError, ValueError):
    return float("nan")


def plot_run(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Draws what the logs of a work directory hold.

  Returns:
    The files that were written, under plots/.
  """
  workdir = pathlib.Path(workdir)
  directory = workdir / "plots"
  learner = read_log(workdir / "logs" / "learner.csv", "learner_steps")
  evaluator = read_log(workdir / "logs" / "evaluator.csv", "learner_steps")
  figures = {
    "learning_curve.png": _learning_curve(workdir, learner, evaluator),
    "metaparameters.png": _metaparameters(learner),
    "metagradient.png": _metagradient(learner),
    "pipeline.png": _pipeline(learner),
  }
  written = []
  for name, figure in figures.items():
    if figure is None:
      continue
    directory.mkdir(exist_ok=True)
    written.append(_save(figure, directory / name))
  return written


def _save(figure, path: pathlib.Path) -> pathlib.Path:
  for axes in figure.axes:
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
  figure.savefig(path, dpi=120, bbox_inches="tight")
  plt.close(figure)
  return path


def plot_sweep(
  runs: Iterable[str], workdir: pathlib.Path
) -> pathlib.Path | None:
  """Draws the training returns of a sweep's runs over environment steps.

  Runs whose names differ in the last part alone share a panel.

  Args:
    runs: names of runs; those without a return yet are left out.
    workdir: each has its directory below this one.

  Returns:
    The file that was written, learning_curves.png, or None if there is nothing
    to draw.
  """
  panels: dict[str, dict[str, Columns]] = {}
  for run in runs:
    log = read_log(workdir / run / "logs" / "learner.csv", "learner_steps")
    if log and np.isfinite(log.get("episode_return", np.nan)).any():
      group, _, name = run.rpartition("/")
      panels.setdefault(group, {})[name] = log
  if not panels:
    return None
  columns = min(len(panels), 4)
  rows = -(-len(panels) // columns)
  figure, grid = plt.subplots(
    rows, columns, figsize=(4.5 * columns, 3.2 * rows), squeeze=False
  )
  for axes in grid.flat[len(panels) :]:
    axes.set_axis_off()
  for axes, (group, logs) in zip(grid.flat, panels.items(), strict=False):
    for name, log in logs.items():
      axes.plot(log["environment_steps"], log["episode_return"], label=name)
    axes.set(title=group, xlabel="environment steps")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=1 + len(logs) // 8)
  for row in grid:
    row[0].set_ylabel(f"return, last {_EPISODE_WINDOW} episodes")
  figure.tight_layout()
  return _save(figure, workdir / "learning_curves.png")


def _learning_curve(workdir, learner: Columns, evaluator: Columns):
  """Draws episode returns of training and evaluation over steps."""
  if not learner:
    return None
  figure, axes = plt.subplots(figsize=(7, 4))
  steps, returns = learner["environment_steps"], learner.get("episode_return")
  if returns is not None and np.isfinite(returns).any():
    axes.plot(
      steps, returns, label=f"training, last {_EPISODE_WINDOW} episodes"
    )
  if evaluator:
    mean = evaluator["episode_return_mean"]
    how = "greedy" if evaluator["greedy"][-1] else "sampled"
    error = evaluator["episode_return_std"] / np.sqrt(evaluator["episodes"])
    axes.errorbar(
      evaluator["environment_steps"],
      mean,
      yerr=error,
      fmt="o-",
      capsize=3,
      label=f"evaluation ({how}), mean ± standard error",
    )
  axes.set(
    xlabel="environment steps", ylabel="episode return", title=workdir.name
  )
  axes.grid(alpha=0.3)
  axes.legend()
  return figure


def sigmas(logs: Sequence[Columns]) -> dict[str, dict[int, str]]:
  """Returns the columns of σ(η) that all logs have: name -> head -> column."""
  found: dict[str, dict[int, str]] = {}
  for name in SYMBOLS:
    for column in sorted(logs[0]) if logs else ():
      match = _SIGMA.fullmatch(column)
      if match and match[1] == name and all(column in log for log in logs):
        found.setdefault(name, {})[int(match[2])] = column
  return found


def _metaparameters(learner: Columns):
  """Draws σ(η) of every head over steps, one panel a name (Fig. 5a)."""
  found = sigmas([learner])
  if not found:
    return None
  columns = min(3, len(found))
  rows = -(-len(found) // columns)
  figure, grid = plt.subplots(
    rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False
  )
  for axes in grid.flat[len(found) :]:
    axes.axis("off")
  for axes, (name, heads) in zip(grid.flat, found.items(), strict=False):
    for head, column in heads.items():
      axes.plot(
        learner["environment_steps"], learner[column], label=f"head {head}"
      )
    axes.set(title=SYMBOLS[name], xlabel="environment steps")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.3)
  grid.flat[0].legend(fontsize="small")
  figure.suptitle("Self-tuned metaparameters, σ(η)")
  figure.tight_layout()
  return figure


def _metagradient(learner: Columns):
  """Draws what makes the metagradient: γ, error, agreement of gradients.

  For one self-tuned γ and an outer policy gradient it factors so (Kao et al.,
  Figs. 4 and 5): how far returns exceed values on the outer experience, and
  whether the inner gradient and the outer one point the same way.
  """
  if "gradient_cosine" not in learner:
    return None
  steps = learner["environment_steps"]
  panels = {
    "error of the outer loss: mean of r + γ v′ − V": "outer_advantage",
    "cosine of inner and outer gradient": "gradient_cosine",
    "norm of the metagradient": "meta_gradient_norm",
  }
  gammas = {
    name: values
    for name, values in learner.items()
    if name.startswith("sigma_discount_head")
  }
  figure, grid = plt.subplots(
    len(panels) + bool(gammas), 1, figsize=(7, 7), sharex=True
  )
  for axes, (title, name) in zip(grid, panels.items(), strict=False):
    axes.plot(steps, learner[name], ".", markersize=2, alpha=0.4)
    axes.plot(steps, _smooth(learner[name]))
    axes.axhline(0.0, color="black", linewidth=0.5)
    axes.set_title(title, fontsize="medium")
  if gammas:
    for name, values in sorted(gammas.items()):
      grid[-1].plot(steps, values, label=name.rsplit("_", 1)[1])
    grid[-1].set_title("γ", fontsize="medium")
    grid[-1].ticklabel_format(axis="y", useOffset=False)
    grid[-1].legend(fontsize="small")
  grid[-1].set_xlabel("environment steps")
  for axes in grid:
    axes.grid(alpha=0.3)
  figure.tight_layout()
  return figure


def _smooth(values: np.ndarray) -> np.ndarray:
  """Returns a running mean over a twentieth of the values."""
  width = max(1, len(values) // 20)
  weights = np.convolve(np.ones_like(values), np.ones(width), "same")
  return np.convolve(values, np.ones(width), "same") / weights


def _pipeline(learner: Columns):
  """Draws rate, policy age, and where the learner waits."""
  if not learner:
    return None
  panels = (
    ("environment_steps_per_second", "environment steps/s"),
    ("policy_age_mean", "policy age (updates)"),
    ("queue_fill", "queue fill"),
    ("share_waiting_for_data", "learner waiting for data"),
  )
  figure, grid = plt.subplots(1, 4, figsize=(16, 2.8))
  for axes, (name, title) in zip(grid, panels, strict=True):
    if name in learner:
      axes.plot(learner["environment_steps"], learner[name])
    axes.set(title=title, xlabel="environment steps")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
  return figure
